//! Budgets of release and device, and what waits.

use super::*;
use serde_json::json;
use serin_protocol::ids::Digest;
use serin_protocol::manifest::Manifest;
use serin_protocol::sketch::profile::Profile;
use serin_protocol::tensor::{DataType, TensorHeader};

fn sampler(tray: &Tray, version: &str, per_day: u32) -> Sampler {
    let digest = Digest::of(b"");
    let json = json!({
        "format": 1, "model": "m", "version": version, "owner": "o", "description": "d",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [],
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1, 1] }],
        "outputs": [{ "name": "class", "datatype": "INT64", "shape": [-1] }],
        "prediction": null,
        "review": { "random": 10000, "per_day": per_day, "bytes_per_day": 1_000_000 },
        "measured": { "minimum_memory": 1, "memory_limit": 1, "peak_resident": 1,
                      "latency_p50_micros": 1, "latency_p99_micros": 1, "load_micros": 1 },
        "files": [],
    });
    let manifest: Arc<Manifest> = Arc::new(serde_json::from_value(json).expect("a manifest"));
    let profile = Arc::new(Profile::default());
    let chooser = Chooser::new(&manifest, &profile, &[]).expect("opted in");
    Sampler::new(chooser, manifest.id(), tray.clone())
}

fn tray(per_day: u32, bytes_per_day: u64) -> Tray {
    let limits = Limits { per_day, bytes_per_day: ByteCount(bytes_per_day) };
    Tray::new("kiosk".parse().expect("name"), BootId(7), limits)
}

fn ask(sampler: &Sampler, width: usize, now: u64) {
    let body = vec![0; width * 4];
    let header = TensorHeader {
        name: "x".parse().expect("name"),
        datatype: DataType::Fp32,
        shape: [1, width as u32].into_iter().collect(),
        bytes: body.len() as u64,
    };
    let answered = Answered { inputs: &[header], body: &body, predictions: &[], shadow: None };
    sampler.answered(answered, None, 0, UnixMillis(now));
}

fn taken(tray: &Tray) -> usize {
    std::iter::from_fn(|| tray.take()).count()
}

#[test]
fn a_release_and_a_device_keep_within_their_day() {
    let tray = tray(5, 1_000_000);
    let (one, two) = (sampler(&tray, "1", 3), sampler(&tray, "2", 10));
    (0..10).for_each(|_| ask(&one, 1, 0));
    assert_eq!(taken(&tray), 3, "the release's");
    (0..10).for_each(|_| ask(&two, 1, 0));
    assert_eq!(taken(&tray), 2, "what is left of the device's");
    (0..10).for_each(|_| ask(&one, 1, DAY_MILLIS));
    assert_eq!(taken(&tray), 3, "another day");
}

#[test]
fn bytes_are_bounded_and_what_no_message_holds_is_not_taken() {
    let tray = tray(100, 3 * (4000 + AROUND as u64));
    let sampler = sampler(&tray, "1", 100);
    ask(&sampler, MAX_SAMPLE_BYTES / 4, 0);
    assert_eq!(taken(&tray), 0);
    (0..10).for_each(|_| ask(&sampler, 1000, 0));
    assert_eq!(taken(&tray), 3);
}

#[test]
fn the_newest_wait_and_each_has_its_number() {
    let tray = tray(1000, 1_000_000);
    let sampler = sampler(&tray, "1", 1000);
    (0..MAX_WAITING as u64 + 5).for_each(|now| ask(&sampler, 1, now));
    let first = tray.take().expect("waits");
    assert_eq!((first.number, first.at), (5, UnixMillis(5)));
    assert!(first.is_sane());
    tray.put_back(first.clone());
    assert_eq!(tray.take(), Some(first));
    assert_eq!(taken(&tray), MAX_WAITING - 1);
}
