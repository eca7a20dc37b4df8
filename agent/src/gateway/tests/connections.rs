//! Callers who send too much, too slowly, or too many at once.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends `bytes` and reads until the other side closes.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    stream.write_all(bytes).await.expect("sent");
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = ended.expect("never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

const HEAD: &str = "POST /v2/models/sums/infer HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn a_body_too_large_is_refused_whether_announced_or_not() {
    let limits = Limits { body: 10_000, ..quick() };
    let stage = Stage::open(limits).await;
    let served = served(1, Mood::Answer, None);
    stage.router.flip(Some(Arc::clone(&served)));

    // The caller sees the answer although he sends everything first.
    let reply = stage.infer(vec![b' '; 30_000]).await;
    reply.is_error(413, "larger than 10000 bytes");
    assert_eq!(reply.headers["connection"], "close");
    // Nothing is read of what would take too long to throw away.
    let announced = format!("{HEAD}Content-Length: 99999999999\r\n\r\n");
    let answer = exchange(stage.address, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunk = format!("2000\r\n{}\r\n", " ".repeat(0x2000));
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    let answer = exchange(stage.address, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(counters(&served), counted(0, 0, 3));
}

#[tokio::test]
async fn a_slow_caller_is_let_go() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    // Half a header: the connection is closed, with or without a word.
    let answer = exchange(stage.address, b"POST /v2/mod").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(counters(&served), counted(0, 0, 0));
    // Half a body: he is told.
    let half = format!("{HEAD}Content-Length: 100\r\n\r\n{{\"inputs\"");
    let answer = exchange(stage.address, half.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("did not arrive"), "{answer}");
    assert_eq!(counters(&served), counted(0, 0, 1));
    // Nothing at all.
    assert_eq!(exchange(stage.address, b"").await, "");
    // And whoever stays after an answer without another question.
    let answer = exchange(stage.address, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_caller_who_hangs_up_halfway_harms_nobody() {
    let (stage, served) = Stage::with(Mood::Answer).await;
    let mut stream = TcpStream::connect(stage.address).await.expect("listening");
    let half = format!("{HEAD}Content-Length: 100\r\n\r\n{{\"inputs\"");
    stream.write_all(half.as_bytes()).await.expect("sent");
    drop(stream);
    assert_eq!(stage.infer(rows(&[[1.0, 2.0]])).await.status, StatusCode::OK);
    assert_eq!(counters(&served).requests, 1);
}

#[tokio::test]
async fn an_inference_whose_caller_gave_up_is_still_counted() {
    let stage = Stage::open(quick()).await;
    let gate = Arc::new(Semaphore::new(0));
    let served = served(1, Mood::Answer, Some(Arc::clone(&gate)));
    stage.router.flip(Some(Arc::clone(&served)));
    let body = rows(&[[1.0, 2.0]]);
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(stage.address).await.expect("listening");
    stream.write_all(request.as_bytes()).await.expect("sent");
    eventually(|| served.worker().asked.load(Ordering::SeqCst) > 0).await;
    drop(stream);
    // Only after the gateway has seen that he is gone: another exchange takes longer than that.
    assert_eq!(stage.get("/v2").await.status, StatusCode::OK);
    gate.add_permits(1);
    eventually(|| counters(&served).requests == 1).await;
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_let_go() {
    let limits = Limits { connections: 1, ..quick() };
    let stage = Stage::open(limits).await;
    stage.router.flip(Some(served(1, Mood::Answer, None)));
    // Answers enough to fill every buffer on the way.
    let body = rows(&vec![[1.0, 2.0]; 50_000]);
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
    let stubborn = TcpStream::connect(stage.address).await.expect("listening");
    let (_unread, mut sending) = stubborn.into_split();
    let flood = async { while sending.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("let go");
    // He held the only place.
    assert_eq!(stage.get("/v2").await.status, StatusCode::OK);
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let stage = Stage::open(Limits { in_flight: 2, ..quick() }).await;
    let gate = Arc::new(Semaphore::new(0));
    let served = served(1, Mood::Answer, Some(Arc::clone(&gate)));
    stage.router.flip(Some(Arc::clone(&served)));
    let (address, body) = (stage.address, Bytes::from(rows(&[[1.0, 2.0]])));
    let one = |body: Bytes| tokio::spawn(ask(address, Method::POST, "/v2/models/sums/infer", body));
    let waiting = [one(body.clone()), one(body.clone())];
    eventually(|| served.worker().asked.load(Ordering::SeqCst) == 2).await;
    let reply = stage.infer(body).await;
    reply.is_error(429, "2 requests");
    assert_eq!(reply.headers["retry-after"], "1");
    gate.add_permits(2);
    for reply in waiting {
        assert_eq!(reply.await.expect("answered").status, StatusCode::OK);
    }
    assert_eq!(counters(&served), counted(2, 0, 1));
}

#[tokio::test]
async fn who_is_told_to_come_back_sees_it_though_he_sends_much() {
    let stage = Stage::open(Limits { in_flight: 1, body: 1 << 20, ..quick() }).await;
    let gate = Arc::new(Semaphore::new(0));
    let served = served(1, Mood::Answer, Some(Arc::clone(&gate)));
    stage.router.flip(Some(Arc::clone(&served)));
    let (address, body) = (stage.address, Bytes::from(rows(&[[1.0, 2.0]])));
    let waiting = tokio::spawn(ask(address, Method::POST, "/v2/models/sums/infer", body));
    eventually(|| served.worker().asked.load(Ordering::SeqCst) == 1).await;
    stage.infer(vec![b' '; 3 << 20]).await.is_error(429, "1 requests");
    gate.add_permits(1);
    assert_eq!(waiting.await.expect("answered").status, StatusCode::OK);
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_together() {
    let stage = Stage::open(Limits { unread: 1, send: PATIENCE, ..quick() }).await;
    stage.router.flip(Some(served(1, Mood::Answer, None)));
    let body = rows(&vec![[1.0, 2.0]; 50_000]);
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
    let (unread, mut sending) = TcpStream::connect(stage.address).await.expect("listening").into_split();
    // Until every buffer on the way is full.
    let flood = tokio::spawn(async move { while sending.write_all(request.as_bytes()).await.is_ok() {} });
    let small = Bytes::from(rows(&[[1.0, 2.0]]));
    let refused = async { while stage.infer(small.clone()).await.status != StatusCode::TOO_MANY_REQUESTS {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("told to come back");
    drop(unread);
    let answered = async { while stage.infer(small.clone()).await.status != StatusCode::OK {} };
    tokio::time::timeout(PATIENCE, answered).await.expect("answered again");
    flood.abort();
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let stage = Stage::open(Limits { bodies: 1000, ..quick() }).await;
    let served = served(1, Mood::Answer, None);
    stage.router.flip(Some(Arc::clone(&served)));
    stage.infer(vec![b' '; 2000]).await.is_error(429, "large");
    // What was taken has been given back.
    assert_eq!(stage.infer(rows(&[[1.0, 2.0]])).await.status, StatusCode::OK);
    assert_eq!(counters(&served), counted(1, 0, 1));
}

#[tokio::test]
async fn a_stopping_agent_finishes_what_it_has_begun() {
    let stage = Stage::open(quick()).await;
    let gate = Arc::new(Semaphore::new(0));
    let served = served(1, Mood::Answer, Some(Arc::clone(&gate)));
    stage.router.flip(Some(Arc::clone(&served)));
    let body = Bytes::from(rows(&[[1.0, 2.0]]));
    let begun = tokio::spawn(ask(stage.address, Method::POST, "/v2/models/sums/infer", body));
    eventually(|| served.worker().asked.load(Ordering::SeqCst) > 0).await;
    stage.stop.send_replace(true);
    gate.add_permits(1);
    assert_eq!(begun.await.expect("answered").status, StatusCode::OK);
    stage.serving.await.expect("ended");
    assert!(TcpStream::connect(stage.address).await.is_err());
}

#[tokio::test]
async fn a_stopping_agent_does_not_wait_for_ever() {
    let stage = Stage::open(Limits { drain: Duration::from_millis(50), ..quick() }).await;
    let served = served(1, Mood::Answer, Some(Arc::new(Semaphore::new(0))));
    stage.router.flip(Some(Arc::clone(&served)));
    let body = rows(&[[1.0, 2.0]]);
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(stage.address).await.expect("listening");
    stream.write_all(request.as_bytes()).await.expect("sent");
    eventually(|| served.worker().asked.load(Ordering::SeqCst) > 0).await;
    drop(stage.stop);
    stage.serving.await.expect("ended");
    assert_eq!(read_all(&mut stream).await, "");
}
