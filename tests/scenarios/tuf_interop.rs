//! Our trust core and python-tuf read each other's repositories, over HTTP.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use ed25519_dalek::SigningKey;
use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::Digest;
use serin_protocol::trust::metadata::{Signable, TimestampMeta, TopLevelRoles};
use serin_protocol::trust::signed::{key_table, role_keys};
use serin_protocol::trust::{
    DelegatedRole, Delegations, FileMeta, Key, Metadata, MetadataVersion, Role, RoleKeys, Root, Serial,
    Snapshot, TargetFile, Targets, Timestamp, UtcSeconds,
};
use serin_tests::process::{Running, program};
use tempfile::TempDir;

const CLIENT: &str = env!("CARGO_BIN_EXE_tuf-client");
const RELEASE: &str = "models/digits/1.0.0.release";

/// The interpreter with python-tuf that `make needs` installs beside the build.
fn python() -> PathBuf {
    let debug = Path::new(CLIENT).parent().expect("lies in a folder");
    let python = debug.parent().expect("lies in the target folder").join("python/bin/python");
    assert!(python.exists(), "{} is missing: run `make needs`", python.display());
    python
}

pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name));
    command
}

/// A folder served over HTTP while this lives.
struct Served {
    _server: Running,
    url: String,
}

fn serve(folder: &Path, log: &Path) -> Served {
    let mut command = Command::new(python());
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
    let server = Running::start(&mut command, log).expect("starts");
    let url = serin_tests::until("the HTTP server listens", Duration::from_secs(20), || {
        let said = server.said();
        let (_, rest) = said.split_once("(http://")?;
        Some(format!("http://{}", rest.split_once("/)")?.0))
    });
    Served { url: url.expect("listens"), _server: server }
}

fn client(home: &Path, url: &str, arguments: &[&str]) -> Output {
    Command::new(CLIENT)
        .arg("--metadata-dir")
        .arg(home.join("trusted"))
        .args(["--metadata-url", &format!("{url}/metadata"), "--target-base-url", &format!("{url}/targets")])
        .arg("--target-dir")
        .arg(home.join("downloaded"))
        .args(arguments)
        .output()
        .expect("runs")
}

fn downloaded(home: &Path, path: &str) -> Option<Vec<u8>> {
    std::fs::read(home.join("downloaded").join(path.replace('/', "%2F"))).ok()
}

fn init(home: &Path, root: &Path) {
    let done = client(home, "http://127.0.0.1:1", &["init", root.to_str().expect("is text")]);
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn our_client_reads_what_python_tuf_published() {
    let work = TempDir::new().expect("a folder");
    assert!(script("tuf_repository.py").arg(work.path()).status().expect("runs").success());

    let valid = work.path().join("valid");
    let served = serve(&valid, &work.path().join("valid.log"));
    let home = work.path().join("home");
    init(&home, &valid.join("initial_root.json"));
    for (path, content) in [
        (RELEASE, "digits 1.0.0"),
        ("models/vision-1/1.0.0.release", "vision 1.0.0"),
        ("models/vision-2/2.0.0.release", "lab 2.0.0"),
    ] {
        let done = client(&home, &served.url, &["--target-name", path, "download"]);
        assert!(done.status.success(), "{done:?}");
        assert_eq!(downloaded(&home, path).as_deref(), Some(content.as_bytes()));
    }
    let root = std::fs::read(home.join("trusted/root.json")).expect("is kept");
    assert_eq!(root, std::fs::read(valid.join("metadata/4.root.json")).expect("is there"));

    // A role that lists a path it may not speak for is not believed.
    let refused = client(&home, &served.url, &["--target-name", "models/digits/stolen", "download"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("no trusted role lists the target"),
        "{refused:?}"
    );

    // A target exchanged in the repository is not kept.
    let hidden = valid.join("targets/models/vision-1");
    let file = std::fs::read_dir(&hidden).expect("is there").next().expect("one").expect("reads").path();
    std::fs::write(file, b"vision 6.6.6").expect("writes");
    let fresh = work.path().join("fresh");
    init(&fresh, &valid.join("initial_root.json"));
    let refused =
        client(&fresh, &served.url, &["--target-name", "models/vision-1/1.0.0.release", "download"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(downloaded(&fresh, "models/vision-1/1.0.0.release"), None);
}

#[test]
fn our_client_stands_the_attacks_that_python_tuf_can_sign() {
    let judged = script("tuf_judge.py").arg(program("tuf-client").expect("built")).output().expect("runs");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

#[test]
fn our_client_sees_that_python_tufs_repository_is_frozen() {
    let work = TempDir::new().expect("a folder");
    assert!(script("tuf_repository.py").arg(work.path()).status().expect("runs").success());
    let expired = work.path().join("expired");
    let served = serve(&expired, &work.path().join("expired.log"));
    let home = work.path().join("home");
    init(&home, &expired.join("initial_root.json"));
    let refused = client(&home, &served.url, &["refresh"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("freeze: timestamp expired"), "{refused:?}");
    assert!(!home.join("trusted/timestamp.json").exists());
}

#[test]
fn python_tuf_reads_what_we_published() {
    let work = TempDir::new().expect("a folder");
    let repository = work.path().join("repository");
    publish(&repository);
    let served = serve(&repository, &work.path().join("http.log"));
    let first_root = repository.join("metadata/1.root.json");
    let read = script("tuf_read.py").arg(&first_root).args([&served.url, RELEASE]).output().expect("runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(read.stdout, b"our statement");

    let none =
        script("tuf_read.py").arg(&first_root).args([&served.url, "models/digits/2.0.0.release"]).output();
    let none = none.expect("runs");
    assert!(String::from_utf8_lossy(&none.stderr).contains("nobody lists"), "{none:?}");

    // And refuses it once it is not ours any more.
    let snapshot = repository.join("metadata/1.snapshot.json");
    let forged = std::fs::read_to_string(&snapshot).expect("reads").replace("\"version\":1", "\"version\":2");
    std::fs::write(&snapshot, forged).expect("writes");
    let refused = script("tuf_read.py").arg(&first_root).args([&served.url, RELEASE]).output().expect("runs");
    assert!(!refused.status.success());
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> Key {
    Key::ed25519(&PublicKey::of(&key(seed)))
}

fn keys_of(seeds: &[u8], threshold: u32) -> RoleKeys {
    role_keys(seeds.iter().map(|seed| public(*seed).name()), NonZeroU32::new(threshold).expect("not zero"))
}

/// Writes the signed file and says what the file above it must say about it.
fn write<T: Signable>(folder: &Path, name: &str, role: &Role, content: T, seeds: &[u8]) -> FileMeta {
    let version = content.version();
    let mut file = Metadata::unsigned(role, content).expect("serializes");
    seeds.iter().for_each(|seed| file.sign(role, &key(*seed)).expect("signs"));
    let bytes = file.to_bytes();
    std::fs::write(folder.join(name), &bytes).expect("writes");
    let hashes = BTreeMap::from([("sha256".to_owned(), Digest::of(&bytes).to_string())]);
    let length = Some(bytes.len() as u64);
    FileMeta { version, length, hashes: Some(hashes), other: serde_json::Map::new() }
}

/// Two roots (the root key rotated, 2 of 2 in the second), an owner's delegation with a floor, one release.
fn publish(folder: &Path) {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let expires = UtcSeconds(since_1970.as_secs().try_into().expect("fits")).plus_days(30);
    let other = serde_json::Map::new;
    let (kind, spec_version) = (|name: &str| name.to_owned(), "1.0.31".to_owned());
    let metadata = folder.join("metadata");
    std::fs::create_dir_all(&metadata).expect("makes the folder");

    let mut root = Root {
        kind: kind("root"),
        spec_version: spec_version.clone(),
        version: MetadataVersion::FIRST,
        expires,
        consistent_snapshot: true,
        keys: key_table([1, 2, 3, 4].map(public)),
        roles: TopLevelRoles {
            root: keys_of(&[1], 1),
            timestamp: keys_of(&[2], 1),
            snapshot: keys_of(&[3], 1),
            targets: keys_of(&[4], 1),
            other: other(),
        },
        other: other(),
    };
    write(&metadata, "1.root.json", &Role::Root, root.clone(), &[1]);
    root.version = root.version.next().expect("not the last");
    root.keys.extend(key_table([6, 7].map(public)));
    root.roles.root = keys_of(&[6, 7], 2);
    write(&metadata, "2.root.json", &Role::Root, root, &[1, 6, 7]);

    let content = b"our statement";
    let release = TargetFile::of(content);
    let digest = release.sha256().expect("has one");
    let targets = |targets, delegations, floor| Targets {
        kind: kind("targets"),
        spec_version: spec_version.clone(),
        version: MetadataVersion::FIRST,
        expires,
        targets,
        delegations,
        floor,
        other: other(),
    };
    let owner = DelegatedRole {
        name: "digits".into(),
        keyids: keys_of(&[5], 1).keyids,
        threshold: NonZeroU32::MIN,
        terminating: true,
        paths: Some(vec!["models/digits/*".into()]),
        path_hash_prefixes: None,
        other: other(),
    };
    let delegations =
        Delegations { keys: key_table([public(5)]), roles: vec![owner], ..Delegations::default() };
    let top = targets(BTreeMap::new(), Some(delegations), BTreeMap::new());
    let floor = BTreeMap::from([("digits".to_owned(), Serial(1))]);
    let digits = targets(BTreeMap::from([(RELEASE.to_owned(), release)]), None, floor);
    let meta = BTreeMap::from([
        ("targets.json".to_owned(), write(&metadata, "1.targets.json", &Role::Targets, top, &[4])),
        ("digits.json".to_owned(), write(&metadata, "1.digits.json", &Role::named("digits"), digits, &[5])),
    ]);
    let snapshot = Snapshot {
        kind: kind("snapshot"),
        spec_version: spec_version.clone(),
        version: MetadataVersion::FIRST,
        expires,
        meta,
        other: other(),
    };
    let snapshot = write(&metadata, "1.snapshot.json", &Role::Snapshot, snapshot, &[3]);
    let timestamp = Timestamp {
        kind: kind("timestamp"),
        spec_version,
        version: MetadataVersion::FIRST,
        expires,
        meta: TimestampMeta { snapshot },
        other: other(),
    };
    write(&metadata, "timestamp.json", &Role::Timestamp, timestamp, &[2]);

    let file = folder.join(format!("targets/models/digits/{digest}.1.0.0.release"));
    std::fs::create_dir_all(file.parent().expect("has a folder")).expect("makes the folder");
    std::fs::write(file, content).expect("writes");
}
