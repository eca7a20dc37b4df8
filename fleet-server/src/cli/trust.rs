//! `serin-fleet trust`: the publisher's folder of signed metadata, worked on without a network.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use serin_protocol::ids::{ModelName, ReleaseId};
use serin_protocol::topic::FileName;
use serin_protocol::trust::metadata::Signable;
use serin_protocol::trust::{Key, KeyName, Metadata, Role, RoleKeys, Root, Targets, UtcSeconds};

use super::client::{Client, ClientArgs};
use super::table::table;
use super::{Failure, Report, keys};
use crate::bundle::key_file;
use crate::trust::change::Keys;
use crate::trust::{Expiry, FolderError, Online, Rotation, Standing, TrustFolder};

/// Warned about this many days before metadata expires: time to fetch keys from a safe.
const WARN_DAYS: i64 = 30;

/// Where the publisher's metadata is, and until when new metadata holds.
#[derive(Args)]
pub(super) struct FolderArgs {
    /// The folder with the repository's metadata and drafts.
    #[arg(
        long = "trust",
        global = true,
        value_name = "FOLDER",
        default_value = "trust",
        env = "SERIN_TRUST"
    )]
    folder: PathBuf,
    /// Days until new metadata expires [default: root 365, targets 180, owners 90].
    #[arg(long, global = true, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires: Option<u32>,
}

impl FolderArgs {
    pub(super) fn folder(&self) -> TrustFolder {
        TrustFolder::at(&self.folder)
    }

    pub(super) fn expiry(&self) -> Expiry {
        Expiry { now: now(), days: self.expires }
    }
}

#[derive(Args)]
pub(super) struct TrustArgs {
    #[command(flatten)]
    folder: FolderArgs,
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(Subcommand)]
enum TrustCommand {
    /// Begin a repository: drafts of the first root and targets, to be signed by their keys.
    Init {
        /// The server's keys, as `serin-fleet keys online` prints them there.
        #[arg(long, value_name = "FILE")]
        online: PathBuf,
        /// Public keys that sign root: files (of `keys generate`, or PEM with Ed25519 or ECDSA P-256) or digits.
        #[arg(long = "root-keys", value_name = "KEY", num_args = 1.., required = true)]
        root: Vec<String>,
        /// How many of them must sign.
        #[arg(long, value_name = "N", default_value = "1")]
        root_threshold: NonZeroU32,
        /// Public keys that sign targets, which says who owns which model.
        #[arg(long = "targets-keys", value_name = "KEY", num_args = 1.., required = true)]
        targets: Vec<String>,
        /// How many of them must sign.
        #[arg(long, value_name = "N", default_value = "1")]
        targets_threshold: NonZeroU32,
    },
    /// Give a model an owner: drafts of targets and of the owner's first metadata.
    Delegate {
        /// The model.
        model: ModelName,
        /// The owner's public keys.
        #[arg(long, value_name = "KEY", num_args = 1.., required = true)]
        keys: Vec<String>,
        /// How many of them must sign.
        #[arg(long, value_name = "N", default_value = "1")]
        threshold: NonZeroU32,
    },
    /// Take a model from its owner: devices accept none of its releases any more.
    Undelegate {
        /// The model.
        model: ModelName,
    },
    /// Change who signs for a role: root, targets, snapshot, timestamp, fleet or a model.
    Rotate {
        /// The role.
        role: String,
        /// Public keys that sign from now on.
        #[arg(long, value_name = "KEY", num_args = 1..)]
        add: Vec<String>,
        /// Keys that no longer sign: files, or names as in `trust show`.
        #[arg(long, value_name = "KEY", num_args = 1..)]
        remove: Vec<String>,
        /// How many must sign [default: as before].
        #[arg(long, value_name = "N")]
        threshold: Option<NonZeroU32>,
    },
    /// Renew a role's metadata before it expires.
    Renew {
        /// root, targets or a model.
        role: String,
    },
    /// Forbid everything older than a release of a model: devices refuse to be moved below it.
    Floor {
        /// The oldest release allowed, as MODEL@VERSION.
        release: ReleaseId,
    },
    /// What a draft changes, before anybody signs it.
    Diff {
        /// The role.
        role: String,
    },
    /// Add signatures to a draft, saying what it changes. With enough of them it is complete.
    Sign {
        /// The role.
        role: String,
        /// Files with private keys.
        #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
        key: Vec<PathBuf>,
    },
    /// Take over the signatures that a draft got elsewhere: on another machine, or by another tool for TUF with
    /// a key in a key service.
    Merge {
        /// The role.
        role: String,
        /// Copies of the draft.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Upload complete metadata to a server and make it current.
    Publish {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Who may sign what, until when, and which drafts wait.
    Show,
}

pub(super) fn run(arguments: &TrustArgs) -> Result<Report, Failure> {
    let (folder, expiry) = (arguments.folder.folder(), arguments.folder.expiry());
    match &arguments.command {
        TrustCommand::Init { online, root, root_threshold, targets, targets_threshold } => {
            let online = read_online(online)?;
            let (root, targets) = (owned(root, *root_threshold)?, owned(targets, *targets_threshold)?);
            folder.begin(&root, &targets, &online, expiry).map_err(|error| failure(&error))?;
            drafted(&folder, &[Role::Root, Role::Targets])
        }
        TrustCommand::Delegate { model, keys, threshold } => {
            folder.delegate(model, &owned(keys, *threshold)?, expiry).map_err(|error| failure(&error))?;
            drafted(&folder, &[Role::Targets, Role::named(model.as_str())])
        }
        TrustCommand::Undelegate { model } => {
            folder.undelegate(model, expiry).map_err(|error| failure(&error))?;
            drafted(&folder, &[Role::Targets])
        }
        TrustCommand::Rotate { role, add, remove, threshold } => {
            let rotation = Rotation {
                add: public_keys(add)?,
                remove: remove.iter().map(|text| key_name(text)).collect::<Result<_, _>>()?,
                threshold: *threshold,
            };
            let role = parse_role(role)?;
            folder.rotate(&role, &rotation, expiry).map_err(|error| failure(&error))?;
            let changed = if matches!(role, Role::Delegated(_)) { Role::Targets } else { Role::Root };
            let again = (role != changed).then_some(role);
            drafted(&folder, &[Some(changed), again].into_iter().flatten().collect::<Vec<_>>())
        }
        TrustCommand::Renew { role } => {
            let role = parse_role(role)?;
            folder.renew(&role, expiry).map_err(|error| failure(&error))?;
            drafted(&folder, &[role])
        }
        TrustCommand::Floor { release } => {
            let role = folder.set_floor(release, expiry).map_err(|error| failure(&error))?;
            drafted(&folder, &[role])
        }
        TrustCommand::Diff { role } => {
            let changes = folder.changes(&parse_role(role)?).map_err(|error| failure(&error))?;
            Ok(Report { text: changes.join("\n"), json: json!({ "changes": changes }) })
        }
        TrustCommand::Sign { role, key } => sign(&folder, &parse_role(role)?, key),
        TrustCommand::Merge { role, files } => {
            let role = parse_role(role)?;
            let mut reached = None;
            for file in files {
                reached = Some(folder.merge(&role, file).map_err(|error| failure(&error))?);
            }
            Ok(standing(&role, reached.as_ref()))
        }
        TrustCommand::Publish { client } => publish(&Client::new(client)?, &folder),
        TrustCommand::Show => show(&folder),
    }
}

/// Uploads what is complete and makes it current, all of it together.
fn publish(client: &Client, folder: &TrustFolder) -> Result<Report, Failure> {
    let names = upload(client, folder)?;
    let snapshot = make_current(client)?;
    let text = format!("{} files are current with snapshot {snapshot}", names.len());
    Ok(Report { text, json: json!({"files": names, "snapshot": snapshot}) })
}

/// Uploads what is complete. Devices do not see it yet.
pub(super) fn upload(client: &Client, folder: &TrustFolder) -> Result<Vec<String>, Failure> {
    let names = folder.to_upload().map_err(|error| failure(&error))?;
    for name in &names {
        let bytes = folder.file(name).map_err(|error| failure(&error))?;
        let path = format!("/api/v1/trust/metadata/{name}");
        let _: Value = client.put(&path, bytes.len() as u64, bytes.as_slice())?;
    }
    Ok(names)
}

/// Makes what was uploaded current; the version of the snapshot.
pub(super) fn make_current(client: &Client) -> Result<u64, Failure> {
    let published: Value = client.post("/api/v1/trust/publish", &Value::Null)?;
    Ok(published.get("snapshot").and_then(Value::as_u64).unwrap_or_default())
}

/// Signs the draft of `role` with each key until it is complete.
pub(super) fn sign(folder: &TrustFolder, role: &Role, keys: &[PathBuf]) -> Result<Report, Failure> {
    let changes = folder.changes(role).map_err(|error| failure(&error))?;
    let mut reached = None;
    for path in keys {
        let key = keys::private(path)?;
        let now = folder.sign(role, &key).map_err(|error| failure(&error))?;
        let complete = matches!(now, Standing::Complete(_));
        reached = Some(now);
        if complete {
            break;
        }
    }
    let Report { text, mut json } = standing(role, reached.as_ref());
    if let Some(json) = json.as_object_mut() {
        json.insert("changes".into(), json!(changes));
    }
    Ok(Report { text: format!("{}\n{text}", changes.join("\n")), json })
}

/// A role by its name, which is also a file's.
fn parse_role(text: &str) -> Result<Role, Failure> {
    FileName::new(&format!("1.{text}.json")).map_err(|error| Failure::about(format!("{text:?}"), error))?;
    Ok(Role::named(text))
}

pub(super) fn failure(error: &FolderError) -> Failure {
    Failure::new(error).hint(error.hint())
}

fn standing(role: &Role, standing: Option<&Standing>) -> Report {
    match standing {
        Some(Standing::Complete(path)) => Report {
            text: format!("{role} is complete: {}", path.display()),
            json: json!({"role": role.as_str(), "complete": true, "file": path}),
        },
        Some(Standing::Waiting { valid, threshold }) => Report {
            text: format!("{role} has {valid} of {threshold} signatures"),
            json: json!({"role": role.as_str(), "complete": false, "valid": valid, "threshold": threshold}),
        },
        None => Report { text: format!("{role} was not signed"), json: json!({"role": role.as_str()}) },
    }
}

fn drafted(folder: &TrustFolder, roles: &[Role]) -> Result<Report, Failure> {
    let waiting = folder.drafts().map_err(|error| failure(&error))?;
    let drafts: Vec<_> = roles.iter().filter(|role| waiting.contains(role)).collect();
    let line = |role: &&Role| {
        format!(
            "draft of {role}: {}\n  sign it: serin-fleet trust sign {role} --key PATH --trust {}",
            folder.draft_path(role).display(),
            folder.path().display()
        )
    };
    let text = drafts.iter().map(line).collect::<Vec<_>>().join("\n");
    let drafts: Vec<_> =
        drafts.iter().map(|role| json!({"role": role.as_str(), "file": folder.draft_path(role)})).collect();
    Ok(Report { text, json: json!({ "drafts": drafts }) })
}

fn show(folder: &TrustFolder) -> Result<Report, Failure> {
    let root: Metadata<Root> = folder.newest(&Role::Root).map_err(|error| failure(&error))?;
    let root = root.signed;
    let mut rows = vec![
        row("root", Some(&root), &root.roles.root),
        row::<Root>("timestamp", None, &root.roles.timestamp),
        row::<Root>("snapshot", None, &root.roles.snapshot),
    ];
    let targets = match folder.newest::<Targets>(&Role::Targets) {
        Ok(targets) => Some(targets.signed),
        Err(FolderError::NoRole(_)) => None,
        Err(error) => return Err(failure(&error)),
    };
    rows.push(row("targets", targets.as_ref(), &root.roles.targets));
    let delegations = targets.and_then(|targets| targets.delegations).unwrap_or_default();
    for delegated in &delegations.roles {
        let metadata = folder.newest::<Targets>(&Role::named(&delegated.name)).ok();
        let keys = delegations.keys_of(&delegated.name).unwrap_or_else(|| root.roles.targets.clone());
        rows.push(row(&delegated.name, metadata.as_ref().map(|file| &file.signed), &keys));
    }
    let drafts = folder.drafts().map_err(|error| failure(&error))?;
    let cells: Vec<Vec<String>> = rows.iter().map(|(cells, _)| cells.clone()).collect();
    let mut text = table(&["ROLE", "VERSION", "EXPIRES", "SIGNATURES", "KEYS"], &cells);
    for draft in &drafts {
        text = format!("{text}\na draft of {draft} waits for signatures");
    }
    let roles: Vec<Value> = rows.into_iter().map(|(_, json)| json).collect();
    let drafts: Vec<&str> = drafts.iter().map(Role::as_str).collect();
    Ok(Report { text, json: json!({"roles": roles, "drafts": drafts}) })
}

fn row<T: Signable>(name: &str, metadata: Option<&T>, of: &RoleKeys) -> (Vec<String>, Value) {
    let expires = metadata.map(Signable::expires);
    let state = match expires {
        Some(at) if at <= now() => "  expired",
        Some(at) if at <= now().plus_days(WARN_DAYS) => "  renew soon",
        _ => "",
    };
    let version = metadata.map(Signable::version);
    let names: Vec<&str> = of.keyids.iter().map(KeyName::as_str).collect();
    let none = || "server".to_owned();
    let cells = vec![
        name.to_owned(),
        version.map_or_else(none, |version| version.to_string()),
        expires.map_or_else(none, |at| format!("{at}{state}")),
        format!("{} of {}", of.threshold, names.len()),
        names.join(" "),
    ];
    let json = json!({
        "role": name, "version": version, "expires": expires, "threshold": of.threshold, "keys": names,
    });
    (cells, json)
}

fn read_online(path: &Path) -> Result<Online, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::about(path.display(), error))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::about(path.display(), error)
            .hint(Some("print it with `serin-fleet keys online --data FOLDER`".into()))
    })
}

fn owned(keys: &[String], threshold: NonZeroU32) -> Result<Keys, Failure> {
    Ok(Keys { keys: public_keys(keys)?, threshold })
}

/// A key's name, or that of the key in a file. Both are 64 digits, so that digits are never a key here.
fn key_name(text: &str) -> Result<KeyName, Failure> {
    if !Path::new(text).exists() {
        return Ok(KeyName::from(text));
    }
    Ok(key_file::read_key(text).map_err(|error| keys::failure(&error))?.name())
}

fn public_keys(texts: &[String]) -> Result<Vec<Key>, Failure> {
    texts.iter().map(|text| key_file::read_key(text).map_err(|error| keys::failure(&error))).collect()
}

fn now() -> UtcSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UtcSeconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
