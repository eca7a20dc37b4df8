//! One who holds every key of a repository, and lists releases made of nothing but what the server looks at.

use std::num::NonZeroU32;
use std::path::Path;

use ed25519_dalek::SigningKey;
use serin_fleet_server::trust::change::Keys;
use serin_fleet_server::trust::{Expiry, Online, TrustFolder};
use serin_protocol::envelope::PublicKey;
use serin_protocol::trust::{Key, Role, TargetFile, UtcSeconds};

use super::release::Packed;

/// Signs as root, targets and owner of `digits`.
pub struct Publisher {
    folder: TrustFolder,
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn expiry() -> Expiry {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    Expiry { now: UtcSeconds(i64::try_from(since.as_secs()).expect("soon")), days: None }
}

impl Publisher {
    /// Begins a repository in `folder`, or takes it up.
    pub fn at(folder: &Path, online: &Online) -> Self {
        let publisher = Self { folder: TrustFolder::at(folder) };
        if publisher.folder.files().expect("lists").is_empty() {
            let keys =
                || Keys { keys: vec![Key::ed25519(&PublicKey::of(&key()))], threshold: NonZeroU32::MIN };
            publisher.folder.begin(&keys(), &keys(), online, expiry()).expect("begins");
            publisher.sign(&[Role::Root, Role::Targets]);
            publisher
                .folder
                .delegate(&"digits".parse().expect("name"), &keys(), expiry())
                .expect("delegates");
            publisher.sign(&[Role::Targets, Role::named("digits")]);
        }
        publisher
    }

    /// Lists a release.
    pub fn list(&self, packed: &Packed) {
        let bundle = TargetFile::sized(packed.release.bundle.size.0, packed.release.bundle.digest);
        let listed = self.folder.add_release(&packed.release.id, &packed.statement, bundle, expiry());
        self.sign(&[listed.expect("is listed")]);
    }

    fn sign(&self, roles: &[Role]) {
        for role in roles {
            self.folder.sign(role, &key()).expect("signs");
        }
    }
}
