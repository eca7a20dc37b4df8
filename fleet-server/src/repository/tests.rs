//! What a publisher makes, the server accepts and a client trusts; and what the server refuses.

use std::num::NonZeroU32;

use serin_protocol::envelope::PublicKey;
use serin_protocol::ids::ReleaseId;
use serin_protocol::trust::layout::statement_path;
use serin_protocol::trust::signed::key_table;
use serin_protocol::trust::{Key, Limits, Next, Role, Serial, Session, TargetFile, TrustError};

use super::*;
use crate::trust::change::Keys;
use crate::trust::{Expiry, Online, Rotation, TrustFolder};

const NOW: UtcSeconds = UtcSeconds(1_790_000_000);
const EXPIRY: Expiry = Expiry { now: NOW, days: None };

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> Key {
    Key::ed25519(&PublicKey::of(&key(seed)))
}

fn keys(seed: u8) -> Keys {
    Keys { keys: vec![public(seed)], threshold: NonZeroU32::MIN }
}

fn id() -> ReleaseId {
    "digits@1".parse().expect("name")
}

struct Lab {
    home: tempfile::TempDir,
    publisher: TrustFolder,
    server: Repository,
}

/// Root 1, targets 2, owner of digits 3, snapshot 20, timestamp 21, fleet 22; one release.
fn lab() -> Lab {
    let home = tempfile::tempdir().expect("a folder");
    let publisher = TrustFolder::at(&home.path().join("trust"));
    let name = |seed| vec![public(seed).name()];
    let keys_online = key_table([20, 21, 22].map(public));
    let online = Online { keys: keys_online, snapshot: name(20), timestamp: name(21), fleet: name(22) };
    publisher.begin(&keys(1), &keys(2), &online, EXPIRY).expect("begins");
    sign(&publisher, &[(Role::Root, 1), (Role::Targets, 2)]);
    publisher.delegate(&id().model, &keys(3), EXPIRY).expect("delegates");
    let owner = Role::named("digits");
    sign(&publisher, &[(Role::Targets, 2), (owner.clone(), 3)]);
    publisher.add_release(&id(), b"statement", TargetFile::of(b"bundle"), EXPIRY).expect("stages");
    sign(&publisher, &[(owner, 3)]);
    let server = Repository::open(&home.path().join("server"), vec![key(20)], vec![key(21)]).expect("opens");
    Lab { home, publisher, server }
}

fn sign(publisher: &TrustFolder, by: &[(Role, u8)]) {
    for (role, seed) in by {
        publisher.sign(role, &key(*seed)).expect("signs");
    }
}

impl Lab {
    fn upload(&self) -> Result<(), RepositoryError> {
        let names = self.publisher.to_upload().expect("lists");
        names
            .iter()
            .try_for_each(|name| self.server.accept(name, &self.publisher.file(name).expect("reads"), NOW))
    }

    /// A client that has only the first root and this server.
    fn look_up(&self, now: UtcSeconds) -> Result<TargetFile, TrustError> {
        let root = self.publisher.file("1.root.json").expect("reads");
        let mut session = Session::begin(&root, now, Limits::DEVICE)?;
        let mut asked = false;
        loop {
            match session.next() {
                Next::Local(_) => session.local(None)?,
                Next::Fetch(fetch) => match self.server.file(&fetch.file_name(str::to_owned)) {
                    Some(bytes) => drop(session.fetched(&bytes)?),
                    None => session.missing()?,
                },
                Next::Done if asked => return Ok(session.found()?.file),
                Next::Done => {
                    asked = true;
                    session.find(&statement_path(&id()))?;
                }
            }
        }
    }
}

#[test]
fn a_client_trusts_what_publisher_and_server_made() {
    let lab = lab();
    lab.upload().expect("is accepted");
    assert!(lab.server.files().is_empty(), "nothing is shown before it is published");
    let first = lab.server.publish(NOW).expect("publishes");
    assert_eq!(lab.look_up(NOW).expect("is trusted"), TargetFile::of(b"statement").with_serial(Serial(1)));

    // Again: nothing new, so the snapshot stays. After a restart it is still there.
    lab.upload().expect("may be repeated");
    assert_eq!(lab.server.publish(NOW).expect("publishes"), first);
    let again =
        Repository::open(&lab.home.path().join("server"), vec![key(20)], vec![key(21)]).expect("opens");
    assert_eq!(again.files(), lab.server.files());
}

#[test]
fn what_would_expire_is_signed_anew_in_time() {
    let lab = lab();
    lab.upload().expect("is accepted");
    lab.server.publish(NOW).expect("publishes");
    let later = NOW.plus_days(current::TIMESTAMP_DAYS);
    assert!(matches!(lab.look_up(later), Err(TrustError::Freeze { .. })));
    lab.server.keep_fresh(NOW.plus_days(1)).expect("signs");
    lab.server.keep_fresh(later).expect("signs");
    lab.look_up(later).expect("is trusted");
    let much_later = NOW.plus_days(current::SNAPSHOT_DAYS + 1);
    lab.server.keep_fresh(much_later).expect("signs");
    lab.look_up(much_later).expect("is trusted");
}

#[test]
fn a_rotated_root_and_a_revoked_owner_reach_clients_together() {
    let lab = lab();
    lab.upload().expect("is accepted");
    lab.server.publish(NOW).expect("publishes");
    let rotation = Rotation { add: vec![public(4)], remove: vec![public(1).name()], threshold: None };
    lab.publisher.rotate(&Role::Root, &rotation, EXPIRY).expect("stages");
    sign(&lab.publisher, &[(Role::Root, 1), (Role::Root, 4)]);
    lab.publisher.undelegate(&id().model, EXPIRY).expect("stages");
    sign(&lab.publisher, &[(Role::Targets, 2)]);
    for name in ["2.root.json", "3.targets.json"] {
        lab.server.accept(name, &lab.publisher.file(name).expect("there"), NOW).expect("is accepted");
    }
    lab.look_up(NOW).expect("nothing changes before it is published");
    lab.server.publish(NOW).expect("publishes");
    let uploaded = std::fs::read_dir(lab.home.path().join("server/uploaded")).expect("there");
    assert_eq!(uploaded.count(), 4, "two roots, targets and an owner; nothing that is superseded");
    assert!(matches!(lab.look_up(NOW), Err(TrustError::UnknownTarget { .. })));
}

#[test]
fn the_server_refuses_what_devices_would() {
    let lab = lab();
    let file = |name: &str| lab.publisher.file(name).expect("there");
    let accept = |name: &str, bytes: &[u8]| lab.server.accept(name, bytes, NOW);
    assert!(matches!(accept("2.targets.json", &file("2.targets.json")), Err(RepositoryError::Before(_))));
    assert!(matches!(lab.server.publish(NOW), Err(RepositoryError::Before(_))));
    accept("1.root.json", &file("1.root.json")).expect("is accepted");
    let wrong = accept("3.targets.json", &file("2.targets.json"));
    assert!(matches!(wrong, Err(RepositoryError::Trust(TrustError::MixAndMatch { .. }))), "{wrong:?}");
    let wrong = accept("1.targets.json", &file("1.digits.json"));
    assert!(matches!(wrong, Err(RepositoryError::Trust(TrustError::Arbitrary { .. }))), "{wrong:?}");
    accept("2.targets.json", &file("2.targets.json")).expect("is accepted");
    let old = accept("1.targets.json", &file("1.targets.json"));
    assert!(matches!(old, Err(RepositoryError::Trust(TrustError::Rollback { .. }))), "{old:?}");
    let late = lab.server.accept("2.digits.json", &file("2.digits.json"), NOW.plus_days(400));
    assert!(matches!(late, Err(RepositoryError::Trust(TrustError::Freeze { .. }))), "{late:?}");
    for name in ["1.snapshot.json", "timestamp.json", "../1.digits.json", "01.digits.json", "0.digits.json"] {
        assert!(matches!(accept(name, b"{}"), Err(RepositoryError::Name(_))), "{name}");
    }
    let stranger = accept("1.vision.json", &file("1.digits.json"));
    assert!(matches!(stranger, Err(RepositoryError::NotDelegated(_))), "{stranger:?}");

    let other =
        Repository::open(&lab.home.path().join("other"), vec![key(30)], vec![key(21)]).expect("opens");
    let refused = other.accept("1.root.json", &file("1.root.json"), NOW);
    assert!(matches!(refused, Err(RepositoryError::OtherServer("snapshot"))), "{refused:?}");
}

#[test]
fn a_server_restored_from_a_backup_goes_on_above_what_it_gave_before() {
    let lab = lab();
    lab.upload().expect("is accepted");
    let first = lab.server.publish(NOW).expect("publishes");
    let restored = |now| {
        std::fs::remove_dir_all(lab.home.path().join("server/current")).expect("there");
        let server = Repository::open(&lab.home.path().join("server"), vec![key(20)], vec![key(21)]);
        server.expect("opens").publish(now).expect("publishes")
    };
    assert!(restored(UtcSeconds(NOW.0 + 1)) > first);
}

#[test]
fn a_key_of_the_server_signs_from_the_root_that_names_it() {
    let lab = lab();
    lab.upload().expect("is accepted");
    lab.server.publish(NOW).expect("publishes");
    // A new key for each role, known to the server; the root does not name them yet.
    let folder = lab.home.path().join("server");
    let server = Repository::open(&folder, vec![key(20), key(30)], vec![key(21), key(31)]).expect("opens");
    let lab = Lab { server, ..lab };
    lab.server.keep_fresh(NOW.plus_days(1)).expect("signs");
    lab.look_up(NOW).expect("is trusted");
    for (role, old, new) in [(Role::Snapshot, 20, 30), (Role::Timestamp, 21, 31)] {
        let rotation = Rotation { add: vec![public(new)], remove: vec![public(old).name()], threshold: None };
        lab.publisher.rotate(&role, &rotation, EXPIRY).expect("stages");
        sign(&lab.publisher, &[(Role::Root, 1)]);
    }
    lab.upload().expect("is accepted");
    let before = lab.server.files();
    lab.server.keep_fresh(NOW.plus_days(2)).expect("signs");
    assert!(lab.server.file("2.root.json").is_none(), "a root is not shown before it is published");
    assert_ne!(lab.server.files(), before);
    lab.look_up(NOW).expect("is trusted still");
    lab.server.publish(NOW).expect("publishes");
    lab.look_up(NOW).expect("is trusted with the new keys");
    // Without the old keys nothing is missing.
    let again = Repository::open(&folder, vec![key(30)], vec![key(31)]).expect("opens");
    again.keep_fresh(NOW.plus_days(14)).expect("signs");
    let gone = Repository::open(&folder, vec![key(20)], vec![key(21)]).expect("opens");
    let refused = gone.keep_fresh(NOW.plus_days(30));
    assert!(matches!(refused, Err(RepositoryError::OtherServer("snapshot"))), "{refused:?}");
}

#[test]
fn what_every_device_would_refuse_is_not_published() {
    let lab = lab();
    lab.upload().expect("is accepted");
    lab.server.publish(NOW).expect("publishes");
    let before = lab.server.files();
    // Other keys for targets, and the targets signed by the old ones.
    let rotation = Rotation { add: vec![public(6)], remove: vec![public(2).name()], threshold: None };
    lab.publisher.rotate(&Role::Targets, &rotation, EXPIRY).expect("stages");
    sign(&lab.publisher, &[(Role::Root, 1)]);
    let root = lab.publisher.file("2.root.json").expect("there");
    lab.server.accept("2.root.json", &root, NOW).expect("is accepted");
    let refused = lab.server.publish(NOW);
    assert!(
        matches!(&refused, Err(RepositoryError::Refused(TrustError::WrongRole { role, .. }
        | TrustError::Arbitrary { role, .. })) if *role == Role::Targets),
        "{refused:?}"
    );
    assert_eq!(lab.server.files(), before, "all stays as it was");
    lab.look_up(NOW).expect("is trusted still");
}

#[test]
fn an_owner_who_forgot_to_renew_holds_up_nobody_else() {
    let lab = lab();
    lab.upload().expect("is accepted");
    let late = NOW.plus_days(91);
    assert!(matches!(lab.server.accept("2.digits.json", b"{}", late), Err(RepositoryError::Differs { .. })));
    lab.server.publish(late).expect("publishes");
    assert!(matches!(lab.look_up(late), Err(TrustError::Freeze { role: Role::Delegated(_), .. })));
}
