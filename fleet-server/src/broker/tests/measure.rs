//! Numbers, not verdicts: `cargo test -p serin-fleet-server --lib -- --ignored --nocapture measure`.

use std::fs;
use std::time::Instant;

use futures::future::join_all;
use serin_protocol::chunk::CHUNK_BYTES;

use super::delivery::download;
use super::rig::{Rig, chunk, content};

const BUNDLE_BYTES: usize = 24 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints numbers, asserts nothing"]
async fn measure_one_client_downloading_24_mib() {
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(BUNDLE_BYTES);
    let publishing = Instant::now();
    let object = rig.publish_object(&mut server, &bytes).await;
    println!("published: {:.0} MiB/s", rate(BUNDLE_BYTES, publishing));
    for window in [1, 8, 8, 16] {
        let mut device = rig.device("press-7").await;
        let before = resident_kib();
        let started = Instant::now();
        let check = |at: usize, chunk: &[u8]| assert!(chunk == &bytes[at..at + chunk.len()]);
        download(&mut device, (object, BUNDLE_BYTES), window, check).await;
        let throughput = rate(BUNDLE_BYTES, started);
        println!("window {window}: {throughput:.0} MiB/s, {:+} KiB resident", resident_kib() - before);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints numbers, asserts nothing"]
async fn measure_devices_that_ask_and_do_not_read() {
    const DEVICES: usize = 200;
    const CHUNKS_EACH: u32 = 60;
    let rig = Rig::start().await;
    let mut server = rig.server().await;
    let bytes = content(BUNDLE_BYTES);
    let object = rig.publish_object(&mut server, &bytes).await;
    let mut devices = join_all((0..DEVICES).map(|number| {
        let rig = &rig;
        async move { rig.device(&format!("press-{number}")).await }
    }))
    .await;
    let before = resident_kib();
    // One poll sends the request; afterwards nobody reads.
    join_all(devices.iter_mut().map(|device| async {
        device.ask((0..CHUNKS_EACH).map(|index| chunk(object, index)));
        device.sent().await;
    }))
    .await;
    // By the time that another device has had everything, the broker has sent what it can.
    let mut other = rig.device("other").await;
    download(&mut other, (object, BUNDLE_BYTES), 8, |_, _| ()).await;
    let asked = DEVICES * CHUNKS_EACH as usize * CHUNK_BYTES / (1 << 20);
    println!("{DEVICES} stalled devices, {asked} MiB asked for: {:+} KiB resident", resident_kib() - before);
}

fn rate(bytes: usize, since: Instant) -> f64 {
    bytes as f64 / f64::from(1 << 20) / since.elapsed().as_secs_f64()
}

fn resident_kib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("there");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}
