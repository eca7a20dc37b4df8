//! Numbers, not verdicts: `cargo test -p serin-fleet-server -- --ignored --nocapture measure`.

use std::fs;
use std::time::Instant;

use super::delivery::download;
use super::rig::{Rig, content};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints numbers, asserts nothing"]
async fn measure_one_client_downloading_24_mib() {
    const BYTES: usize = 24 * 1024 * 1024;
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(BYTES);
    let publishing = Instant::now();
    let object = rig.publish_object(&mut server, &bytes).await;
    println!("published: {:.0} MiB/s", rate(BYTES, publishing));
    for (window, label) in [(1, "window 1"), (8, "window 8"), (8, "window 8 again"), (16, "window 16")] {
        let mut device = rig.device("press-7").await;
        let before = resident_kib();
        let started = Instant::now();
        let received = download(&mut device, object, BYTES, window).await;
        let throughput = rate(BYTES, started);
        // The client's own copy of the object is not the broker's.
        let grown = resident_kib() - before - 24 * 1024;
        println!("{label}: {throughput:.0} MiB/s, {grown} KiB more resident");
        assert!(received == bytes);
    }
}

fn rate(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / f64::from(1 << 20) / since.elapsed().as_secs_f64()
}

fn resident_kib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("there");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}
