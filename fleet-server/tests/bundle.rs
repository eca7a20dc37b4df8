//! A data scientist packs, signs and verifies with the real programs. Needs `serin-agent` beside
//! `serin-fleet`: build with `--workspace`.

#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn agent() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_serin-fleet")).with_file_name("serin-agent");
    assert!(path.is_file(), "{} is missing: run cargo build --workspace first", path.display());
    path
}

/// A desk of its own for each test: nothing is written into the fixtures.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of a fixture model, under `name`.
    fn model(&self, fixture_name: &str, name: &str) {
        let to = self.path(name);
        std::fs::create_dir(&to).expect("fresh");
        for entry in std::fs::read_dir(fixture(fixture_name)).expect("fixture") {
            let entry = entry.expect("readable");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }

    fn fleet(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serin-fleet"));
        command.args(words).current_dir(self.folder.path()).env("SERIN_AGENT", agent());
        command.output().expect("runs")
    }

    /// What a command that must succeed says.
    fn done(&self, words: &[&str]) -> Value {
        let output = self.fleet(&[words, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said} {error}");
        serde_json::from_str(&said).expect("JSON")
    }

    /// The error of a command that must be refused, with exit code 1.
    fn refused(&self, words: &[&str]) -> Value {
        let output = self.fleet(&[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        said["error"].clone()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect(name)
    }

    /// Writes `to` as the file `from` with one bit of byte `at` turned.
    fn turn_a_bit(&self, from: &str, at: usize, to: &str) {
        let mut bytes = self.bytes(from);
        bytes[at] ^= 1;
        std::fs::write(self.path(to), bytes).expect("ours");
    }
}

fn message(error: &Value) -> &str {
    error["message"].as_str().expect("a message")
}

#[test]
fn a_model_becomes_a_signed_release_that_is_the_same_every_time() {
    let desk = Desk::new();
    desk.model("digits/v1", "v1");
    let packed = desk.done(&["bundle", "pack", "v1", "-o", "a.serin"]);
    assert_eq!((&packed["release"], &packed["measured_now"]), (&"digits@1.0.0".into(), &true.into()));
    let measured = &packed["manifest"]["measured"];
    let memory = measured["memory_limit"].as_u64().expect("a limit");
    assert!(
        memory > measured["minimum_memory"].as_u64().expect("a minimum") && memory < 64 << 20,
        "{memory}"
    );

    // The same measurements, the same bytes; and they were not made again.
    let again = desk.done(&["bundle", "pack", "v1", "-o", "b.serin"]);
    assert_eq!((&again["measured_now"], &again["bundle"]), (&false.into(), &packed["bundle"]));
    assert_eq!(desk.bytes("a.serin"), desk.bytes("b.serin"));

    // Another card needs no measuring and is another bundle.
    std::fs::write(desk.path("v1/card.md"), "# digits, revised\n").expect("ours");
    let revised = desk.done(&["bundle", "pack", "v1", "-o", "c.serin"]);
    assert_eq!(revised["measured_now"], false);
    assert_ne!(revised["bundle"], packed["bundle"]);

    begin_trust(&desk);
    desk.done(&["release", "sign", "a.serin", "--key", "key"]);
    let verified = desk.done(&["bundle", "verify", "a.serin"]);
    assert_eq!(verified["release"]["bundle"], packed["bundle"]);
    assert_eq!(verified["release"]["memory"], measured["memory_limit"]);
    desk.done(&["bundle", "verify", "b.serin", "--release", "a.serin.release"]);
    let inspected = desk.done(&["bundle", "inspect", "a.serin"]);
    assert_eq!((&inspected["golden_cases"], &inspected["chunks"]), (&24.into(), &1.into()));

    what_was_not_signed_is_refused(&desk);
}

#[test]
fn measurements_can_be_kept_elsewhere_and_made_anew() {
    let desk = Desk::new();
    desk.model("digits/v1", "v1");
    let pack = ["bundle", "pack", "v1", "-o", "a.serin", "--measurements", "kept.json"];
    let packed = desk.done(&pack);
    assert!(!desk.path("v1/measured.json").exists());

    // On another machine, with the same file.
    desk.model("digits/v1", "copy");
    let copied = desk.done(&["bundle", "pack", "copy", "-o", "b.serin", "--measurements", "kept.json"]);
    assert_eq!(copied["bundle"], packed["bundle"]);

    // Another pipeline computes something else.
    let pipeline = String::from_utf8(desk.bytes("v1/pipeline.json")).expect("text");
    std::fs::write(desk.path("v1/pipeline.json"), pipeline + "\n").expect("ours");
    assert_eq!(desk.done(&pack)["measured_now"], true);

    std::fs::write(desk.path("kept.json"), "{").expect("ours");
    let error = desk.refused(&pack);
    assert!(message(&error).contains("kept.json"), "{error}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("--remeasure")), "{error}");
    assert_eq!(desk.done(&[pack.as_slice(), &["--remeasure"]].concat())["measured_now"], true);
    assert_eq!(desk.done(&pack)["measured_now"], false);
}

/// A repository in `trust` whose every role one key signs.
fn begin_trust(desk: &Desk) {
    desk.done(&["keys", "generate", "--out", "key"]);
    let online = desk.done(&["keys", "online", "--data", "server"]);
    std::fs::write(desk.path("online.json"), online.to_string()).expect("ours");
    let keys = ["--root-keys", "key.pub", "--targets-keys", "key.pub"];
    desk.done(&[["trust", "init", "--online", "online.json"].as_slice(), &keys].concat());
    desk.done(&["trust", "sign", "root", "--key", "key"]);
    desk.done(&["trust", "sign", "targets", "--key", "key"]);
    desk.done(&["trust", "delegate", "digits", "--keys", "key.pub"]);
    desk.done(&["trust", "sign", "targets", "--key", "key"]);
    desk.done(&["trust", "sign", "digits", "--key", "key"]);
}

/// The second half of the first story; packing takes seconds, so that it goes on with the same bundle.
fn what_was_not_signed_is_refused(desk: &Desk) {
    // Another bundle under the same statement, and one without.
    let under = ["--release", "a.serin.release"];
    let error = desk.refused(&[["bundle", "verify", "c.serin"].as_slice(), &under].concat());
    assert!(message(&error).contains("digest of the bundle"), "{error}");
    let error = desk.refused(&["bundle", "verify", "c.serin"]);
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("release sign")), "{error}");
    // The same version with other contents.
    let error = desk.refused(&["release", "sign", "c.serin", "--key", "key"]);
    assert!(message(&error).contains("another version"), "{error}");

    // A damaged bundle is neither verified nor signed nor shown.
    desk.turn_a_bit("a.serin", desk.bytes("a.serin").len() / 2, "d.serin");
    for words in [
        [["bundle", "verify", "d.serin"].as_slice(), &under].concat(),
        vec!["release", "sign", "d.serin", "--key", "key"],
        vec!["bundle", "inspect", "d.serin"],
    ] {
        assert!(message(&desk.refused(&words)).starts_with("d.serin: "));
    }
    assert!(!desk.path("d.serin.release").exists());

    // A changed statement: its owner lists another.
    desk.turn_a_bit("a.serin.release", desk.bytes("a.serin.release").len() - 1, "forged");
    let error = desk.refused(&["bundle", "verify", "a.serin", "--release", "forged"]);
    assert!(message(&error).contains("reference.bin"), "{error}");
    desk.done(&["keys", "generate", "--out", "other"]);
    desk.done(&["trust", "rotate", "digits", "--add", "other.pub", "--remove", "key.pub"]);
    desk.done(&["trust", "sign", "targets", "--key", "key"]);
    let error = desk.refused(&["bundle", "verify", "a.serin"]);
    assert!(message(&error).contains("arbitrary content"), "{error}");
}

#[test]
fn a_model_that_devices_cannot_run_is_refused_with_the_operator_and_a_hint() {
    let desk = Desk::new();
    desk.model("broken/unsupported_operator", "bad");
    let error = desk.refused(&["bundle", "pack", "bad", "-o", "bad.serin"]);
    assert_eq!(error["details"]["kind"], "unsupported_operator", "{error}");
    let operator = error["details"]["operator"].as_str().expect("named");
    assert!(message(&error).contains(operator), "{error}");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("re-export")), "{error}");
    assert!(!desk.path("bad.serin").exists() && !desk.path("bad/measured.json").exists());
}

#[test]
fn a_model_that_does_not_compute_its_golden_outputs_is_refused_with_the_case() {
    let desk = Desk::new();
    desk.model("broken/wrong_golden", "bad");
    let error = desk.refused(&["bundle", "pack", "bad", "-o", "bad.serin"]);
    assert_eq!(error["details"]["kind"], "golden_mismatch", "{error}");
    let said = message(&error);
    let says = ["case ", "probabilities[", "expected", "got"];
    assert!(says.iter().all(|word| said.contains(word)), "{said}");
    assert!(!desk.path("bad.serin").exists());
}

#[test]
fn people_read_errors_on_standard_error_with_what_to_do_next() {
    let desk = Desk::new();
    desk.model("digits/v1", "v1");
    let output = desk.fleet(&["bundle", "pack", "v1", "-o", "x.serin", "--agent", "/absent/agent"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(said.contains("/absent/agent") && said.contains("next: ") && said.contains("--agent"), "{said}");
    assert!(!said.contains('\x1b'), "no colour without a terminal");
    assert_eq!(desk.fleet(&["bundle", "pack"]).status.code(), Some(2));
    assert_eq!(desk.fleet(&["bundle", "inspect", "absent.serin"]).status.code(), Some(1));
}
