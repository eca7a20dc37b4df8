//! When a request is counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// One answer, from a connection that stays open.
fn answer(app: &mut TcpStream, request: &str) -> String {
    app.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    loop {
        let mut part = [0; 4096];
        let read = app.read(&mut part).expect("an answer");
        assert!(read > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&part[..read]).expect("text"));
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() >= length.parse().expect("a number") {
            return answer;
        }
    }
}

#[test]
fn an_answer_does_not_wait_for_being_counted_and_whoever_knows_it_finds_it_counted() {
    let (ready, stage) = std::sync::mpsc::channel();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    // One thread, as the agent's.
    let agent = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async move {
            let stage = Stage::open(Limits::default()).await;
            let served = served(1, Mood::Answer, None);
            stage.router.flip(Some(Arc::clone(&served)));
            ready.send((stage.address, served.recording().clone())).expect("awaited");
            ended.await.expect("told");
        });
    });
    let (address, recording) = stage.recv().expect("a stage");
    let mut app = TcpStream::connect(address).expect("listening");
    app.set_read_timeout(Some(PATIENCE)).expect("a socket");

    let counting = recording.lock();
    let asked = rows(&[[1.0, 2.0]]);
    let head = format!(
        "POST /v2/models/sums/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        asked.len()
    );
    let answered = answer(&mut app, &(head + &asked));
    assert!(answered.starts_with("HTTP/1.1 200") && answered.contains("[3.0]"), "{answered}");
    assert_eq!(counting.snapshot().counters, counted(0, 0, 0));
    drop(counting);

    let told = answer(&mut app, "GET /v2/models/sums/stats HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(told.contains(r#""inference_count":1"#), "{told}");
    assert_eq!(recording.lock().snapshot().counters, counted(1, 0, 0));
    end.send(()).expect("awaited");
    agent.join().expect("no panic");
}
