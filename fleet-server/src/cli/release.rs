//! `serin-fleet release`.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_protocol::ids::{Digest, ReleaseId, UnixMillis};
use serin_protocol::trust::TargetFile;

use super::bundle::read_statement;
use super::client::{Client, ClientArgs};
use super::device::part;
use super::table::{bytes, table};
use super::trust::{self, FolderArgs};
use super::{Failure, Report, export};
use crate::bundle::statement::{describe, statement_file};
use crate::rollout::notation::instant;
use crate::trust::TrustFolder;

/// Between two looks at whether a release has reached the broker.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: ReleaseCommand,
}

#[derive(Subcommand)]
enum ReleaseCommand {
    /// Publish a signed bundle: X.serin with X.serin.release beside it.
    ///
    /// The metadata that lists it goes first, with --trust in the same command.
    Publish {
        /// The bundle.
        #[arg(value_name = "X.serin")]
        bundle: PathBuf,
        /// The statement [default: X.serin.release].
        #[arg(long, value_name = "FILE")]
        statement: Option<PathBuf>,
        /// Publish this folder's complete metadata too, together with the release.
        #[arg(long, value_name = "FOLDER", env = "SERIN_TRUST")]
        trust: Option<PathBuf>,
        /// Seconds to wait until every chunk is with the broker.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        wait: u64,
    },
    /// Check a bundle, list it in its owner's metadata and sign that; writes X.serin.release beside it.
    ///
    /// No device accepts what is not listed. With too few keys here the draft goes on to the other owners'
    /// machines.
    Sign {
        /// The bundle.
        #[arg(value_name = "X.serin")]
        bundle: PathBuf,
        /// Files with the owner's private keys.
        #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
        key: Vec<PathBuf>,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Take a release out of its owner's metadata: no device installs it any more.
    Withdraw {
        /// The release, as MODEL@VERSION.
        release: ReleaseId,
        /// Files with the owner's private keys.
        #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
        key: Vec<PathBuf>,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Write a release with its metadata into one file, for devices without a network: `serin-agent sideload`.
    Export {
        /// The release, as MODEL@VERSION.
        release: ReleaseId,
        /// The file to write; it must not exist.
        #[arg(short, long, value_name = "FILE.parcel")]
        output: PathBuf,
    },
    /// What is left of older reports about a release: sums by hour, and by day.
    History {
        /// The release, as MODEL@VERSION.
        release: ReleaseId,
    },
    /// All releases.
    List,
}

#[derive(Deserialize)]
struct Sum {
    span: String,
    start: u64,
    role: String,
    devices: u64,
    requests: u64,
    errors: u64,
    latency_p99_micros: Option<u64>,
}

#[derive(Deserialize)]
struct Release {
    id: String,
    bundle_bytes: u64,
    memory: u64,
    owner: String,
    published: bool,
}

pub(super) fn run(arguments: &ReleaseArgs, quiet: bool) -> Result<Report, Failure> {
    let client = || Client::new(&arguments.client);
    match &arguments.command {
        ReleaseCommand::Publish { bundle, statement, trust, wait } => {
            let client = client()?;
            let folder = trust.as_deref().map(TrustFolder::at);
            if let Some(folder) = &folder {
                trust::upload(&client, folder)?;
            }
            let wait = Duration::from_secs(*wait);
            let published = publish(&client, bundle, statement.as_deref(), wait, quiet)?;
            // Devices learn of it once they can have it.
            if folder.is_some() {
                trust::make_current(&client)?;
            }
            Ok(published)
        }
        ReleaseCommand::Sign { bundle, key, folder } => sign(bundle, key, folder),
        ReleaseCommand::Withdraw { release, key, folder } => {
            let role = folder.folder().withdraw(release, folder.expiry());
            trust::sign(&folder.folder(), &role.map_err(|error| trust::failure(&error))?, key)
        }
        ReleaseCommand::Export { release, output } => export::run(&client()?, release, output, quiet),
        ReleaseCommand::History { release } => history(&client()?, release),
        ReleaseCommand::List => list(&client()?),
    }
}

fn publish(
    client: &Client,
    bundle: &Path,
    statement: Option<&Path>,
    wait: Duration,
    quiet: bool,
) -> Result<Report, Failure> {
    let beside = bundle.with_added_extension("release");
    let statement = statement.unwrap_or(&beside);
    let signed = read_statement(statement)?;
    let about = |error: std::io::Error| Failure::about(bundle.display(), error);
    let file = File::open(bundle).map_err(about)?;
    let size = file.metadata().map_err(about)?.len();
    let digest = digest(bundle).map_err(about)?;
    let bar = progress(size, quiet);
    let sent: Result<Value, Failure> =
        client.put(&format!("/api/v1/bundles/{digest}"), size, bar.wrap_read(file));
    bar.finish_and_clear();
    sent?;
    let added: Value = client.post_bytes("/api/v1/releases", &signed)?;
    let release: Release = serde_json::from_value(added).map_err(Failure::new)?;
    let published = until_published(client, &release.id, wait)?;
    let text = format!("published {} ({})", release.id, bytes(release.bundle_bytes));
    Ok(Report { text, json: published })
}

/// Works without a network: the bundle is checked, described, listed and signed.
fn sign(bundle: &Path, keys: &[PathBuf], arguments: &FolderArgs) -> Result<Report, Failure> {
    let release = describe(bundle).map_err(|error| Failure::about(bundle.display(), error))?;
    let statement = release.to_bytes().map_err(Failure::new)?;
    let target = TargetFile::sized(release.bundle.size.0, release.bundle.digest);
    let folder = arguments.folder();
    let staged = folder.add_release(&release.id, &statement, target, arguments.expiry());
    let staged = staged.map_err(|error| trust::failure(&error))?;
    let path = statement_file(bundle);
    fs::write(&path, &statement).map_err(|error| Failure::about(path.display(), error))?;
    trust::sign(&folder, &staged, keys)
}

/// Devices can be told to run it only then.
fn until_published(client: &Client, id: &str, wait: Duration) -> Result<Value, Failure> {
    let started = Instant::now();
    loop {
        let json: Value = client.get(&format!("/api/v1/releases/{id}"))?;
        if json.get("published") == Some(&Value::Bool(true)) {
            return Ok(json);
        }
        if started.elapsed() >= wait {
            let late = format!("{id} was accepted but is not with the broker yet");
            let hint = "look at `serin-fleet release list` later; the server goes on trying";
            return Err(Failure::new(late).hint(Some(hint.into())).details(json!({ "release": json })));
        }
        std::thread::sleep(LOOK);
    }
}

fn digest(path: &Path) -> std::io::Result<Digest> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Digest::hasher();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

pub(super) fn progress(size: u64, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::new(size);
    if quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

fn list(client: &Client) -> Result<Report, Failure> {
    let json: Value = client.get("/api/v1/releases")?;
    let releases: Vec<Release> = part(&json, "releases")?;
    let row = |release: &Release| {
        vec![
            release.id.clone(),
            if release.published { "yes" } else { "not yet" }.into(),
            bytes(release.bundle_bytes),
            bytes(release.memory),
            release.owner.clone(),
        ]
    };
    let rows: Vec<_> = releases.iter().map(row).collect();
    let text = if rows.is_empty() {
        "no release has been published yet".into()
    } else {
        table(&["RELEASE", "PUBLISHED", "SIZE", "MEMORY", "OWNER"], &rows)
    };
    Ok(Report { text, json })
}

fn history(client: &Client, release: &ReleaseId) -> Result<Report, Failure> {
    let json: Value = client.get(&format!("/api/v1/history?release={release}"))?;
    let sums: Vec<Sum> = serde_json::from_value(json["sums"].clone()).map_err(Failure::new)?;
    if sums.is_empty() {
        let text =
            format!("no report about {release} is old enough; `device list` and the page show what is young");
        return Ok(Report { text, json });
    }
    let row = |sum: &Sum| {
        let slow = sum.latency_p99_micros;
        vec![
            instant::text(UnixMillis(sum.start)),
            sum.span.clone(),
            sum.role.clone(),
            sum.devices.to_string(),
            sum.requests.to_string(),
            sum.errors.to_string(),
            slow.map_or_else(|| "-".into(), |micros| format!("{:.1} ms", micros as f64 / 1000.0)),
        ]
    };
    let rows: Vec<_> = sums.iter().map(row).collect();
    let heads = ["FROM", "SPAN", "ROLE", "DEVICES", "REQUESTS", "FAILED", "99% WITHIN"];
    Ok(Report { text: table(&heads, &rows), json })
}
