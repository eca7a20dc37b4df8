//! Signatures, and deliveries over real connections, in the clear and over TLS.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serin_protocol::ids::Millis;
use zeroize::Zeroizing;

use super::*;
use crate::authority::{Authority, Subject};
use crate::notify::receiver::Endpoint;

#[test]
fn signatures_are_what_others_compute() {
    // Python: hmac.new(b"key", b'1700000000.{"a":1}', "sha256").hexdigest()
    let expected = "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
    let signed = sign(b"key", UnixMillis(1_700_000_000_999), r#"{"a":1}"#).expect("signed");
    assert_eq!(signed, expected);
}

#[test]
fn what_can_be_mended_is_tried_again() {
    assert_eq!(outcome(204), Outcome::Taken);
    for later in [401, 403, 404, 408, 429, 500, 503] {
        assert!(matches!(outcome(later), Outcome::Later(_)), "{later}");
    }
    for never in [301, 400, 413, 422] {
        assert!(matches!(outcome(never), Outcome::Refused(_)), "{never}");
    }
}

/// Reads one request and answers it; its head and body.
fn answer(stream: impl Read + Write, response: &str) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    let _ = reader.get_mut().write_all(response.as_bytes());
    let _ = reader.get_mut().flush();
    (head, String::from_utf8(body).unwrap_or_default())
}

fn poster(url: &str, authorities: Option<Vec<u8>>) -> Poster {
    let receiver = Receiver {
        endpoint: Endpoint::new(url).expect("an address"),
        speaks: Speaks::Webhook { secret: Some(Zeroizing::new(b"0123456789abcdef".to_vec())) },
        authorities,
        repeat: Millis::from_secs(60),
    };
    let receivers = [(ReceiverName::new("hook").expect("name"), receiver)].into();
    let routes = Routes { receivers, ..Routes::default() };
    Poster::new("shop".parse().expect("name"), Arc::new(routes)).expect("sensible")
}

fn delivery() -> Delivery {
    Delivery {
        id: 7,
        to: ReceiverName::new("hook").expect("name"),
        made: UnixMillis(0),
        attempts: 0,
        not_before: UnixMillis(0),
        error: None,
        content: Content::Call(json!({ "test": true })),
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn a_message_is_signed_named_and_not_led_elsewhere() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listens");
    let port = listener.local_addr().expect("bound").port();
    let served = std::thread::spawn(move || {
        let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /secret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        [elsewhere, OK].map(|response| {
            let (stream, _) = listener.accept().expect("comes");
            answer(stream, response)
        })
    });
    let poster = poster(&format!("http://127.0.0.1:{port}/hook"), None);
    let now = UnixMillis(1_700_000_000_000);
    assert!(matches!(poster.post(&delivery(), now), Outcome::Refused(_)), "a redirect is not followed");
    assert_eq!(poster.post(&delivery(), now), Outcome::Taken);
    let [_, (head, body)] = served.join().expect("served");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /hook ") && head.contains("serin-delivery: shop-7"), "{head}");
    let signature = sign(b"0123456789abcdef", now, &body).expect("signed");
    assert!(head.contains(&format!("serin-signature: {signature}")), "{head}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&body["fleet"], &body["test"], &body["delivery"]), (&json!("shop"), &json!(true), &json!(7)));
}

#[test]
fn nobody_there_is_tried_again_and_the_address_is_not_told() {
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("listens").local_addr().expect("bound").port();
    let outcome = poster(&format!("http://127.0.0.1:{port}/SECRET"), None).post(&delivery(), UnixMillis(0));
    assert!(matches!(&outcome, Outcome::Later(why) if !why.contains("SECRET")), "{outcome:?}");
}

#[test]
fn over_tls_only_who_shows_a_good_certificate_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let authority = Authority::init(folder.path(), "a test").expect("made");
    let subject = Subject::Server { name: "hook".parse().expect("name"), hosts: vec!["localhost".into()] };
    let issued = authority.issue(&subject, 1).expect("issued");
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key))
        .expect("fits");
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listens");
    let port = listener.local_addr().expect("bound").port();
    let served = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for _ in 0..3 {
            let (stream, _) = listener.accept().expect("comes");
            let connection = ServerConnection::new(Arc::clone(&config)).expect("made");
            heard.push(answer(StreamOwned::new(connection, stream), OK).1);
        }
        heard
    });
    let roots = std::fs::read(authority.certificate()).expect("there");
    let url = format!("https://localhost:{port}/hook");
    let known = poster(&url, Some(roots.clone())).post(&delivery(), UnixMillis(0));
    let stranger = poster(&url, None).post(&delivery(), UnixMillis(0));
    let other_name =
        poster(&format!("https://127.0.0.1:{port}/hook"), Some(roots)).post(&delivery(), UnixMillis(0));
    assert_eq!(known, Outcome::Taken);
    for refused in [stranger, other_name] {
        assert!(matches!(&refused, Outcome::Later(why) if why.contains("certificate")), "{refused:?}");
    }
    let heard = served.join().expect("served");
    assert_eq!(heard.iter().filter(|body| !body.is_empty()).count(), 1, "{heard:?}");
}
