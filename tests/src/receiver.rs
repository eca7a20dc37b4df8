//! A webhook of somebody's: it keeps what it is sent, refuses the first requests, and checks signatures on its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// One request that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its header `Serin-Delivery`.
    pub delivery: String,
    /// Its header `Serin-Signature`.
    pub signature: String,
    /// Its body.
    pub text: String,
    /// The same, read.
    pub body: Value,
}

#[derive(Default)]
struct Desk {
    refuse: usize,
    refused: usize,
    taken: Vec<Taken>,
}

/// A webhook on a free port. It ends with the process.
pub struct Receiver {
    pub url: String,
    desk: Arc<Mutex<Desk>>,
}

impl Receiver {
    /// Starts one that answers its first `refuse` requests with 503.
    pub fn start(refuse: usize) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let desk = Arc::new(Mutex::new(Desk { refuse, ..Desk::default() }));
        let shared = Arc::clone(&desk);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that says nonsense is a failed test of its own.
                let _ = serve(&stream, &shared);
            }
        });
        Ok(Self { url, desk })
    }

    /// What it has taken so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).taken.clone()
    }

    /// How often it has refused so far.
    pub fn refused(&self) -> usize {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).refused
    }
}

impl Taken {
    /// Whether it was signed with `secret`, as the documentation says.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let mut parts = self.signature.split(',').filter_map(|part| part.split_once('='));
        let (Some(("t", at)), Some(("v1", signed))) = (parts.next(), parts.next()) else { return false };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
        mac.update(format!("{at}.{}", self.text).as_bytes());
        let expected = mac.finalize().into_bytes();
        let byte = |at: usize| u8::from_str_radix(signed.get(2 * at..2 * at + 2)?, 16).ok();
        signed.len() == 2 * expected.len() && (0..expected.len()).all(|at| byte(at) == Some(expected[at]))
    }
}

fn serve(stream: &TcpStream, desk: &Mutex<Desk>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut delivery, mut signature) = (0_usize, String::new(), String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "serin-delivery" => value.trim().clone_into(&mut delivery),
            "serin-signature" => value.trim().clone_into(&mut signature),
            _ => {}
        }
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    let text = String::from_utf8(bytes)?;
    let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
    let status = if desk.refused < desk.refuse {
        desk.refused += 1;
        "503 Service Unavailable"
    } else {
        let body = serde_json::from_str(&text).context("JSON")?;
        desk.taken.push(Taken { delivery, signature, text, body });
        "200 OK"
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(())
}
