//! The thinnest client that can be: one connection, one request in flight, nothing parsed but the answer's length,
//! so that what is measured is the server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// A connection that is kept.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    body: Vec<u8>,
}

/// What is asked.
#[derive(Clone)]
pub(crate) struct Question {
    /// `host:port`.
    pub(crate) address: String,
    /// Whose inference.
    pub(crate) model: String,
    /// Lines of the head beside what every request has, each with its line end.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Question {
    /// The bytes of the request.
    pub(crate) fn request(&self) -> Vec<u8> {
        let Self { address, model, headers, body } = self;
        let head = format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

impl Connection {
    pub(crate) fn open(question: &Question) -> Result<Self> {
        let stream = TcpStream::connect(&question.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream: BufReader::new(stream), request: question.request(), body: Vec::new() })
    }

    /// Bytes of the last answer's body.
    pub(crate) const fn answer_bytes(&self) -> usize {
        self.body.len()
    }

    /// Asks, and how long the answer took to be here whole.
    pub(crate) fn ask(&mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.stream.get_mut().write_all(&self.request)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let good = line.starts_with("HTTP/1.1 200");
        let mut length = None;
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header)?;
            let header = header.trim_end();
            if header.is_empty() {
                break;
            }
            let value =
                header.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            if let Some((_, value)) = value {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        self.body.resize(length.context("an answer without a length")?, 0);
        self.stream.read_exact(&mut self.body)?;
        let took = asked.elapsed();
        ensure!(good, "{line}: {}", String::from_utf8_lossy(&self.body));
        Ok(took)
    }
}
