//! The shape of the house, checked: who may know whom, and that each room says what lives there.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines. A file that outgrows it holds two concepts.
const MAX_LINES: usize = 420;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").into()
}

fn sources(under: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below").to_str().expect("text").to_owned();
                found.push((name, fs::read_to_string(&path).expect("readable")));
            }
        }
    }
    found
}

fn all() -> Vec<(String, String)> {
    ["protocol/src", "agent", "fleet-server/src", "tests/src"]
        .iter()
        .flat_map(|under| sources(under))
        .collect()
}

/// Files outside `rooms` that mention `what`.
fn strays(what: &str, under: &[&str], rooms: &[&str]) -> Vec<String> {
    let files = under.iter().flat_map(|under| sources(under));
    let stray = |name: &String, text: &String| {
        text.contains(what) && !rooms.iter().any(|room| name.starts_with(room))
    };
    files.filter(|(name, text)| stray(name, text)).map(|(name, _)| name).collect()
}

#[test]
fn each_library_is_known_in_its_room_only() {
    let both = ["agent/src", "fleet-server/src"];
    for (what, rooms) in [
        ("tract_onnx::", &[][..]),
        (
            "rumqttc::",
            &[
                "agent/src/link/mqtt.rs",
                "agent/src/link/tls.rs",
                "agent/src/scoring/topics",
                "fleet-server/src/broker/",
            ],
        ),
        (
            "rustls::",
            &["agent/src/link/tls.rs", "fleet-server/src/broker/tls.rs", "fleet-server/src/notify/post"],
        ),
        (
            "jiff::",
            &["agent/src/update/policy", "agent/src/config/policy.rs", "agent/src/supervisor/policy.rs"],
        ),
        ("rcgen::", &["fleet-server/src/authority.rs"]),
        (
            "x509_parser::",
            &[
                "agent/src/link/certificates.rs",
                "fleet-server/src/authority.rs",
                "fleet-server/src/broker/withdrawn.rs",
            ],
        ),
        ("use sled::", &["agent/src/disk/journal", "fleet-server/src/store/"]),
        ("rmqtt::", &["fleet-server/src/broker/"]),
        ("axum::", &["fleet-server/src/api/", "fleet-server/src/serve.rs"]),
    ] {
        assert_eq!(strays(what, &both, rooms), Vec::<String>::new(), "{what} beyond {rooms:?}");
    }
}

#[test]
fn agent_and_fleet_server_never_meet_and_the_protocol_knows_neither() {
    assert_eq!(strays("serin_fleet_server", &["agent/src", "protocol/src"], &[]), Vec::<String>::new());
    assert_eq!(strays("serin_agent", &["fleet-server/src", "protocol/src"], &[]), Vec::<String>::new());
    for absent in ["tokio", "std::fs", "std::net", "Instant::now", "SystemTime"] {
        let tests = ["protocol/src/bundle_tests.rs", "protocol/src/lib.rs"];
        assert_eq!(strays(absent, &["protocol/src"], &tests), Vec::<String>::new(), "{absent}");
    }
}

#[test]
fn pure_rooms_forbid_what_is_not_pure() {
    for (file, what) in [
        ("agent/src/update/mod.rs", "the update machine"),
        ("agent/src/link/transfer.rs", "the transfer"),
        ("agent/src/link/outbox.rs", "the outbox"),
        ("agent/src/link/pause.rs", "the pause"),
        ("agent/src/link/backoff.rs", "the retry policy"),
        ("fleet-server/src/rollout/mod.rs", "the rollout engine"),
        ("fleet-server/src/stats/mod.rs", "the statistics"),
        ("fleet-server/src/alert/mod.rs", "alerts"),
        ("fleet-server/src/notify/outbox.rs", "what is to be delivered"),
    ] {
        let text = fs::read_to_string(root().join(file)).expect("readable");
        assert!(text.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types)]"), "{what}");
    }
}

#[test]
fn every_file_says_what_lives_there_and_none_is_a_junk_drawer() {
    for (name, text) in all() {
        assert!(text.starts_with("//!"), "{name} does not say what lives there");
        let file = Path::new(&name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        assert!(!["utils", "util", "common", "helpers", "manager", "misc"].contains(&file), "{name}");
        let tests = file.ends_with("tests") || name.contains("/tests/");
        assert!(tests || text.lines().count() <= MAX_LINES, "{name} has more than {MAX_LINES} lines");
    }
}

#[test]
fn packer_and_device_mean_the_same_runtime() {
    assert_eq!(serin_fleet_server::bundle::RUNTIME, serin_agent::update::admission::RUNTIME);
}

/// Packages that the device's program is linked of, and the features of each.
fn linked(features: &[&str]) -> Vec<String> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "serin-agent-program", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p} {f}"])
        .args(features)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn a_device_carries_only_what_its_models_need() {
    let holds = |packages: &[String], what: &str| packages.iter().any(|package| package.contains(what));
    let usual = linked(&[]);
    assert!(holds(&usual, "tract-onnx ") && holds(&usual, "zune-jpeg ") && holds(&usual, "png "));
    for foreign in ["parquet", "arrow", "virtual-disk", "forge", "serin-fleet-server", "serin-tests"] {
        assert!(!holds(&usual, foreign), "the device's program holds {foreign}: {usual:#?}");
    }
    let least = linked(&["--no-default-features"]);
    for decoder in ["zune-jpeg ", "png "] {
        assert!(!holds(&least, decoder), "built without decoders, it holds {decoder}");
    }
    assert!(holds(&linked(&["--features", "parquet"]), "parquet "));
}
