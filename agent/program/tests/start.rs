//! What an agent says that cannot start.
// Clippy takes only the test functions themselves for tests, not what they call.
#![allow(clippy::expect_used)]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Runs an agent that ends by itself, and returns what it said.
fn said(config: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_serin-agent");
    let run = Command::new(program).arg("run").arg("--config").arg(config).env("NO_COLOR", "1").output();
    let ended = run.expect("runs");
    assert_eq!(ended.status.code(), Some(1));
    String::from_utf8(ended.stderr).expect("text")
}

fn configured(folder: &Path, port: u16) -> std::path::PathBuf {
    let path = folder.join("agent.toml");
    let text = format!(
        "device = 'd'\nfleet = 'f'\ndata = '{0}/data'\nbroker.host = '127.0.0.1'\nbroker.port = 1\n\
         trust.root = '{0}/1.root.json'\ngateway.listen = '127.0.0.1:{port}'\n",
        folder.display()
    );
    fs::write(&path, text).expect("written");
    path
}

#[test]
fn each_cause_is_said_once_and_what_to_do_next() {
    let folder = tempfile::tempdir().expect("folder");
    let missing = said(&folder.path().join("nowhere.toml"));
    assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
    assert!(missing.contains("next: name the file"), "{missing}");

    let wrong = folder.path().join("wrong.toml");
    fs::write(&wrong, "device = 7").expect("written");
    assert!(said(&wrong).contains("next: correct"), "{}", said(&wrong));

    let root = said(&configured(folder.path(), 0));
    assert!(root.contains("1.root.json") && root.contains("put the first root.json"), "{root}");
    assert_eq!(root.matches("No such file").count(), 1, "{root}");

    let lock = File::create(folder.path().join("data/lock")).expect("made");
    lock.try_lock().expect("free");
    let locked = said(&configured(folder.path(), 0));
    assert!(
        locked.contains("in use by another agent") && locked.contains("next: stop the other"),
        "{locked}"
    );
}

#[test]
fn the_help_says_what_the_program_is_for() {
    let program = env!("CARGO_BIN_EXE_serin-agent");
    let help = Command::new(program).arg("--help").output().expect("runs");
    let help = String::from_utf8(help.stdout).expect("text");
    assert!(help.starts_with("Serin on this device: runs the models"), "{help}");
}
