//! The commands as typed, against a real socket with a gateway behind it; only the supervisor and the
//! worker are doubles.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use serin_protocol::ids::{EventNumber, Millis, ReleaseId, UnixMillis};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::field::checkup::{CheckLine, Checkup};
use crate::field::client::way_in;
use crate::field::reply::{FieldCode, FieldReply, History, HistoryEntry, RolledBack};
use crate::field::{FieldCommand, FieldError, FieldOutcome, FieldRequest};
use crate::gateway::tests::{Mood, Stage, counted, counters, quick, served};
use crate::update::effect::FieldRefusal;

#[derive(Parser)]
struct Typed {
    #[command(subcommand)]
    command: FieldCli,
}

#[derive(Clone, Default)]
pub(crate) struct Shared {
    bytes: Arc<Mutex<Vec<u8>>>,
    grown: Arc<Notify>,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.bytes.lock().expect("whole").write(bytes);
        self.grown.notify_waiters();
        written
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().expect("whole").clone()).expect("text")
    }
}

/// What a command has printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

async fn type_in(socket: &Path, words: &[&str]) -> Ended {
    let typed = Typed::try_parse_from([&["serin-agent"], words].concat()).expect("parses");
    let (out, err) = (Shared::default(), Shared::default());
    let mut console = Console::new(Box::new(out.clone()), Box::new(err.clone()), false);
    let exit = run(typed.command, socket, &mut console).await;
    Ended { exit, out: out.text(), err: err.text() }
}

fn release(version: &str) -> ReleaseId {
    format!("sums@{version}").parse().expect("id")
}

/// Answers like a supervisor whose active release is `sums@2` and whose previous one is `sums@1`.
pub(crate) fn supervise(command: &FieldCommand) -> FieldOutcome {
    match command {
        FieldCommand::Status => {
            let mut status = super::print::tests::full();
            if let Some(active) = &mut status.active {
                active.release = release("1");
            }
            Ok(FieldReply::Status(Box::new(status)))
        }
        FieldCommand::Hold { span } => Ok(FieldReply::Held { until: UnixMillis(span.0) }),
        FieldCommand::Doctor => Ok(FieldReply::Checkup(Checkup {
            lines: vec![CheckLine::ok("disk", "there is room"), CheckLine::fail("clock", "1970", "set it")],
        })),
        FieldCommand::Verify => {
            Ok(FieldReply::Checkup(Checkup { lines: vec![CheckLine::ok("active", "as it was")] }))
        }
        FieldCommand::Enroll { .. } => {
            Ok(FieldReply::Enrolled { device: "d".parse().expect("name"), fleet: "f".parse().expect("name") })
        }
        FieldCommand::History { limit } => {
            let entry = |number| HistoryEntry {
                number: EventNumber(number),
                at: UnixMillis(0),
                kind: "pinned".into(),
                release: None,
                text: "user 7 pinned sums@2".into(),
            };
            Ok(FieldReply::History(History { entries: (1..=*limit as u64).map(entry).collect() }))
        }
        FieldCommand::Rollback { to: Some(to) } if to.as_str() != "1" => {
            Err(FieldRefusal::NotHere { wanted: to.clone(), previous: release("1") }.into())
        }
        FieldCommand::Rollback { .. } => {
            Ok(FieldReply::RolledBack(RolledBack { from: release("2"), to: release("1"), millis: Millis(8) }))
        }
        FieldCommand::Logs(wanted) => {
            let line = |number| crate::logs::LogLine { number, text: format!("line {number}") };
            let lines = match wanted {
                crate::logs::Wanted::Last(count) => (1..=*count as u64).map(line).collect(),
                crate::logs::Wanted::After(_) => Vec::new(),
            };
            Ok(FieldReply::Logs { lines, run: None })
        }
        FieldCommand::Configuration => Ok(FieldReply::Configuration(json!({ "device": "d" }))),
        FieldCommand::Sideload(sideload) => Ok(FieldReply::Sideloaded {
            release: sideload.papers.release.clone(),
            millis: Millis(sideload.papers.bundle),
        }),
        FieldCommand::Pin => Ok(FieldReply::Pinned { release: release("2") }),
        FieldCommand::Unpin => {
            Err(FieldError::new(FieldCode::Already, "this device is not pinned", "nothing needs to be done"))
        }
    }
}

/// An agent whose gateway computes sums and whose supervisor answers like one.
pub(crate) struct Scene {
    _stage: Stage,
    folder: tempfile::TempDir,
    uids: mpsc::UnboundedReceiver<u32>,
}

impl Scene {
    pub(crate) async fn open(
        mood: Mood,
    ) -> (Self, Arc<crate::gateway::Served<crate::gateway::tests::Double>>) {
        let folder = tempfile::tempdir().expect("folder");
        let mut stage = Stage::open(quick()).await;
        stage.listen_at(&folder.path().join("agent.sock"));
        let release = served(1, mood, None);
        stage.router.flip(Some(Arc::clone(&release)));
        let (seen, uids) = mpsc::unbounded_channel();
        let (_closed, empty) = mpsc::channel(1);
        let mut requests = std::mem::replace(&mut stage.field, empty);
        tokio::spawn(async move {
            while let Some(FieldRequest { uid, command, reply }) = requests.recv().await {
                let _ = seen.send(uid);
                let _ = reply.send(supervise(&command));
            }
        });
        (Self { _stage: stage, folder, uids }, release)
    }

    async fn type_in(&self, words: &[&str]) -> Ended {
        type_in(&self.socket(), words).await
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path.to_str().expect("text").to_owned()
    }
}

#[tokio::test]
async fn the_supervisor_learns_who_asks() {
    let (mut scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["status"]).await;
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Done, ""));
    assert!(ended.out.contains("active      sums@1  proven"), "{}", ended.out);
    assert_eq!(scene.uids.recv().await, Some(rustix::process::getuid().as_raw()));
}

#[tokio::test]
async fn a_rollback_says_what_answers_now() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["rollback", "--to", "1"]).await;
    assert_eq!(ended.exit, Exit::Done);
    assert!(
        ended.out.starts_with("rolled back in 8 ms: sums@1 answers now instead of sums@2\n"),
        "{ended:?}"
    );
    let ended = scene.type_in(&["rollback", "--json"]).await;
    let json: Value = serde_json::from_str(&ended.out).expect("json");
    assert_eq!((&json["reply"], &json["to"]["version"]), (&json!("rolled_back"), &json!("1")));
}

#[tokio::test]
async fn a_refusal_says_why_and_what_next() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["rollback", "--to", "9"]).await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Refused, ""));
    let expected = "error: version 9 is not on this device; the previous release is sums@1\n\
                    next: `serin-agent rollback --to 1` is possible\n";
    assert_eq!(ended.err, expected);
    let ended = scene.type_in(&["unpin", "--json"]).await;
    assert_eq!(ended.exit, Exit::Refused);
    let json: Value = serde_json::from_str(&ended.err).expect("json");
    assert_eq!(json["code"], "already");
}

#[tokio::test]
async fn pin_and_history_answer() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["pin"]).await;
    assert!(ended.exit == Exit::Done && ended.out.starts_with("pinned: sums@2 stays"), "{ended:?}");
    let ended = scene.type_in(&["history", "-n", "3"]).await;
    assert_eq!(ended.out.lines().count(), 3);
    assert!(Typed::try_parse_from(["serin-agent", "history", "-n", "0"]).is_err());
    assert!(Typed::try_parse_from(["serin-agent", "rollback", "--to", "a b"]).is_err());
}

#[tokio::test]
async fn rows_from_a_file_are_answered_a_line_each() {
    let (scene, served) = Scene::open(Mood::Answer).await;
    let csv = scene.file("rows.csv", "truth,b,a\n5,2,1\n6,4,\n");
    let ended = scene.type_in(&["infer", &csv]).await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, "sum=3.0  class=1\nsum=null  class=1\n"));
    assert_eq!(ended.err, "note: columns left out: truth\n");
    let lines = scene.file("rows.ndjson", &"[1, 2]\n".repeat(300));
    let ended = scene.type_in(&["infer", "--model", "sums", "--json", &lines]).await;
    assert_eq!(ended.out.lines().count(), 300);
    assert!(ended.out.lines().all(|line| line == r#"{"class":1,"sum":3.0}"#), "{ended:?}");
    let request = r#" {"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[3,4]}],
                       "outputs":[{"name":"sum"}]}"#;
    let request = scene.file("request.json", request);
    assert_eq!(scene.type_in(&["infer", &request]).await.out, "sum=7.0\n");
    // One request for the CSV, two batches of lines, one whole request.
    assert_eq!(counters(&served), counted(4, 0, 0));
}

#[tokio::test]
async fn rows_that_make_no_sense_are_the_users_mistake() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let csv = scene.file("rows.csv", "1,2\n3\n");
    let ended = scene.type_in(&["infer", &csv]).await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.starts_with("error: line 2: 1 values, the model wants 2\nnext: "), "{ended:?}");
    let ended = scene.type_in(&["infer", "/nowhere.csv"]).await;
    assert!(ended.exit == Exit::Usage && ended.err.contains("/nowhere.csv"), "{ended:?}");
    let ended = scene.type_in(&["infer", "--model", "other", &csv]).await;
    assert!(ended.exit == Exit::Refused && ended.err.contains("only sums"), "{ended:?}");
}

#[tokio::test]
async fn a_model_that_fails_is_a_failure() {
    let (scene, _) = Scene::open(Mood::Fail).await;
    let csv = scene.file("rows.csv", "1,2\n");
    let ended = scene.type_in(&["infer", &csv]).await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Refused, ""));
    assert!(ended.err.contains("division by cucumber\nnext: "), "{ended:?}");
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_told_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let ended = type_in(&folder.path().join("agent.sock"), &["status"]).await;
    assert_eq!(ended.exit, Exit::Unreachable);
    assert!(ended.err.contains("no agent answers on") && ended.err.contains("\nnext: start"), "{ended:?}");
    // One that takes the connection and says nothing sensible.
    let path = folder.path().join("strange.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("bound");
    tokio::spawn(async move { drop(listener.accept().await) });
    assert_eq!(type_in(&path, &["status"]).await.exit, Exit::Unreachable);
}

#[test]
fn whoever_may_not_reach_the_socket_is_told_what_opens_it() {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("agent.sock");
    std::fs::write(&socket, "").expect("written");
    let advice = || way_in(&socket, io::ErrorKind::PermissionDenied);
    let set =
        |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("set");
    assert!(advice().contains("the socket's group"), "{}", advice());
    set(0o000);
    // Root passes everywhere, and is never told so.
    let stopped = std::fs::symlink_metadata(&socket).is_err();
    assert!(!stopped || advice().contains("chmod g+x"), "{}", advice());
    set(0o010);
    assert!(!stopped || advice().contains("a member of the group of"), "{}", advice());
    set(0o700);
    assert!(way_in(&socket, io::ErrorKind::NotFound).starts_with("start the agent"));
}

#[tokio::test]
async fn an_agent_that_stops_meanwhile_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("agent.sock");
    let mut stage = Stage::open(quick()).await;
    stage.listen_at(&path);
    let (_closed, empty) = mpsc::channel(1);
    let mut requests = std::mem::replace(&mut stage.field, empty);
    tokio::spawn(async move { drop(requests.recv().await) });
    let ended = type_in(&path, &["status", "--json"]).await;
    assert_eq!(ended.exit, Exit::Refused);
    assert_eq!(serde_json::from_str::<Value>(&ended.err).expect("json")["code"], "stopping");
}

#[test]
fn exit_codes_are_stable() {
    let codes = [Exit::Done, Exit::Refused, Exit::Usage, Exit::Unreachable].map(|exit| exit as u8);
    assert_eq!(codes, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_checkup_tells_scripts_that_something_does_not_work() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["doctor"]).await;
    assert_eq!(ended.exit, Exit::Refused);
    assert_eq!(
        ended.out,
        "ok    disk      there is room\nfail  clock     1970\n                next: set it\n"
    );
    assert_eq!(scene.type_in(&["verify"]).await.exit, Exit::Done);
    let ended = scene.type_in(&["doctor", "--json"]).await;
    let json: Value = serde_json::from_str(&ended.out).expect("json");
    assert_eq!(json["lines"][1]["level"], "fail");
}

#[tokio::test]
async fn a_hold_is_bounded_and_says_its_end() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["hold", "--for", "8h"]).await;
    assert_eq!(ended.exit, Exit::Done);
    assert!(
        ended.out.starts_with("held: no order of the fleet is taken until 1970-01-01 08:00:00Z"),
        "{ended:?}"
    );
    let ended = scene.type_in(&["hold", "--for", "31d"]).await;
    assert!(
        ended.exit == Exit::Refused
            && ended.err.contains("30 days at most\nnext: see `serin-agent hold --help`"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn slots_are_shown_alone_and_everything_goes_into_one_file() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let ended = scene.type_in(&["slots"]).await;
    assert!(ended.out.starts_with("active      sums@1  proven  warm\nprevious "), "{ended:?}");
    let ended = scene.type_in(&["slots", "--json"]).await;
    let json: Value = serde_json::from_str(&ended.out).expect("json");
    assert_eq!(json["active"]["release"]["version"], "1");

    let path = scene.folder.path().join("office.json.zst");
    let output = path.to_str().expect("text");
    let ended = scene.type_in(&["support-bundle", "-o", output]).await;
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    let text = zstd::decode_all(std::fs::File::open(&path).expect("there")).expect("zstd");
    let bundle: Value = serde_json::from_slice(&text).expect("json");
    assert_eq!(bundle["status"]["reply"], "status");
    assert_eq!(bundle["doctor"]["lines"][1]["what"], "clock");
    assert_eq!(
        scene.type_in(&["support-bundle", "-o", output]).await.exit,
        Exit::Usage,
        "never over another"
    );
}

#[tokio::test]
async fn a_stick_is_passed_on_as_it_is_and_other_files_are_refused() {
    use serin_protocol::parcel::{Entry, head, opening};
    let (scene, _release) = Scene::open(Mood::Answer).await;
    let mut parcel = opening(&release("3")).to_vec();
    let entries =
        [Entry::Root(1), Entry::Timestamp, Entry::Snapshot, Entry::Targets, Entry::Statement, Entry::Bundle];
    for entry in entries {
        parcel.extend(head(&entry, 5));
        parcel.extend(b"bytes");
    }
    let path = scene.folder.path().join("stick.parcel");
    std::fs::write(&path, &parcel).expect("writable");
    let sent = scene.type_in(&["sideload", path.to_str().expect("text"), "--json"]).await;
    assert_eq!(sent.exit, Exit::Done, "{sent:?}");
    let answer: Value = serde_json::from_str(&sent.out).expect("JSON");
    assert_eq!((&answer["reply"], &answer["millis"]), (&"sideloaded".into(), &5.into()), "{answer}");

    let other = scene.file("notes.txt", "do not forget the ladder");
    let refused = scene.type_in(&["sideload", &other]).await;
    assert_eq!(refused.exit, Exit::Refused);
    assert!(refused.err.contains("no file of") && refused.err.contains("next: make one"), "{refused:?}");
    let cut = scene.folder.path().join("cut.parcel");
    std::fs::write(&cut, &parcel[..40]).expect("writable");
    let refused = scene.type_in(&["sideload", cut.to_str().expect("text")]).await;
    assert!(refused.exit == Exit::Refused && refused.err.contains("cut off"), "{refused:?}");
    let missing = scene.type_in(&["sideload", "/nowhere"]).await;
    assert_eq!(missing.exit, Exit::Usage, "{missing:?}");
}

#[tokio::test]
async fn logs_are_lines_for_people_and_objects_for_programs() {
    let (scene, _release) = Scene::open(Mood::Answer).await;
    let plain = scene.type_in(&["logs", "-n", "2"]).await;
    assert_eq!((plain.exit, plain.out.as_str()), (Exit::Done, "line 1\nline 2\n"));
    let objects = scene.type_in(&["logs", "-n", "1", "--json"]).await;
    assert_eq!(objects.out, "{\"number\":1,\"text\":\"line 1\"}\n");
}

#[tokio::test]
async fn labels_in_a_file_count_for_themselves_and_what_does_not_is_named_with_its_line() {
    let (scene, _) = Scene::open(Mood::Answer).await;
    let request =
        r#"{"id":"r","inputs":[{"name":"x","datatype":"FP32","shape":[3,2],"data":[1,2,3,4,5,6]}]}"#;
    let request = scene.file("request.json", request);
    assert_eq!(scene.type_in(&["infer", &request]).await.exit, Exit::Done);
    let good = |row: u8| format!("{{\"id\":\"r\",\"row\":{row},\"value\":1}}\n");
    let odd = "{\"id\":\"r\",\"row\":1,\"value\":true}\n\n";
    let file = scene.file("labels.ndjson", &[good(0).as_str(), odd, &good(2)].concat());
    let ended = scene.type_in(&["label", "--file", &file]).await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Refused, "2 labels count, 1 not\n"), "{ended:?}");
    let why = "note: line 2: r, row 1, does not count: true is none of the release's classes";
    assert!(ended.err.starts_with(why), "{ended:?}");
    // What is no label at all ends it, after those before it.
    let file = scene.file("labels.ndjson", &[good(1).as_str(), "{\"id\":\"r\"}\n", &good(2)].concat());
    let ended = scene.type_in(&["label", "--json", "--file", &file]).await;
    assert_eq!(
        (ended.exit, ended.out.as_str()),
        (Exit::Usage, "{\"taken\":1,\"refused\":[]}\n"),
        "{ended:?}"
    );
    assert!(ended.err.contains("line 2: missing field"), "{ended:?}");
}

/// An agent's socket and its log, until it is dropped.
struct Logging {
    serving: JoinHandle<()>,
    stage: Stage,
    logs: crate::logs::Logs,
}

impl Logging {
    async fn start(socket: &Path, run: u64) -> Self {
        let mut stage = Stage::open(quick()).await;
        let serving = stage.listen_at(socket);
        let logs = crate::logs::Logs::default();
        let (_closed, empty) = mpsc::channel(1);
        let mut requests = std::mem::replace(&mut stage.field, empty);
        let kept = logs.clone();
        tokio::spawn(async move {
            while let Some(FieldRequest { command, reply, .. }) = requests.recv().await {
                let FieldCommand::Logs(wanted) = command else { continue };
                let run = Some(serin_protocol::ids::BootId(run));
                let _ = reply.send(Ok(FieldReply::Logs { lines: kept.lines(wanted), run }));
            }
        });
        Self { serving, stage, logs }
    }

    fn log(&self, text: &str) {
        use tracing_subscriber::fmt::MakeWriter as _;
        self.logs.make_writer().write_all(text.as_bytes()).expect("memory");
    }

    async fn stop(self) {
        let _ = self.stage.stop.send(true);
        self.serving.await.expect("ended");
    }
}

async fn until_printed(shared: &Shared, text: &str) {
    let printed = async {
        loop {
            let grown = shared.grown.notified();
            if shared.text().contains(text) {
                return;
            }
            grown.await;
        }
    };
    let patience = Duration::from_secs(20);
    let in_time = tokio::time::timeout(patience, printed).await;
    assert!(in_time.is_ok(), "{text:?} is not in {:?}", shared.text());
}

#[tokio::test]
async fn whoever_follows_goes_on_with_an_agent_that_is_started_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("agent.sock");
    let first = Logging::start(&path, 1).await;
    ["one", "two", "three"].iter().for_each(|text| first.log(text));
    let (out, err) = (Shared::default(), Shared::default());
    let mut console = Console::new(Box::new(out.clone()), Box::new(err.clone()), false);
    let typed = Typed::try_parse_from(["serin-agent", "logs", "--follow"]).expect("parses");
    let follows = run(typed.command, &path, &mut console);
    let happens = async {
        until_printed(&out, "three\n").await;
        first.stop().await;
        until_printed(&err, "note: the agent has ended").await;
        // Not as many as the one before had: its numbers say nothing about these.
        let second = Logging::start(&path, 2).await;
        second.log("four");
        until_printed(&out, "four\n").await;
        second.log("five");
        until_printed(&out, "five\n").await;
    };
    tokio::select! {
        exit = follows => panic!("{exit:?}: {}", err.text()),
        () = happens => {}
    }
    assert_eq!(out.text(), "one\ntwo\nthree\nfour\nfive\n");
    assert_eq!(err.text().matches("the agent has ended").count(), 1, "{}", err.text());
}
