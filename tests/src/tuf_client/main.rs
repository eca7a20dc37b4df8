//! `tuf-client`: the trust core of a device, fed over plain HTTP, behind the command line that the public
//! conformance suite for TUF clients drives. Exit status 0 when everything asked for was done, else 1.

mod folder;
mod remote;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use serin_protocol::trust::{Limits, Next, Role, Session, UtcSeconds};

use self::folder::Folder;
use self::remote::{Remote, quote_path};

/// A client of The Update Framework.
#[derive(Parser)]
#[command(name = "tuf-client")]
struct Arguments {
    /// Folder of the trusted metadata.
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is.
    #[arg(long)]
    metadata_url: Option<String>,
    /// A target to download; may be given more than once.
    #[arg(long)]
    target_name: Vec<String>,
    /// Where the repository's targets are.
    #[arg(long)]
    target_base_url: Option<String>,
    /// Folder for downloaded targets.
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trust this root from now on.
    Init {
        /// The first root.
        root: PathBuf,
    },
    /// Bring the top-level metadata up to date.
    Refresh,
    /// Refresh, then download the targets named.
    Download,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuf-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let trusted = Folder::new(&arguments.metadata_dir);
    let now = UtcSeconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs().try_into()?);
    if let Command::Init { root } = &arguments.command {
        let root = std::fs::read(root).with_context(|| format!("reading {}", root.display()))?;
        Session::begin(&root, now, Limits::HTTP)?;
        return trusted.keep("root.json", &root);
    }
    let url = arguments.metadata_url.as_deref().context("--metadata-url is needed")?;
    let metadata = Remote::new(url);
    let root = trusted.read("root.json")?.context("no trusted root: run init first")?;
    let mut session = Session::begin(&root, now, Limits::HTTP)?;
    drive(&mut session, &trusted, &metadata)?;
    if matches!(arguments.command, Command::Download) {
        download(arguments, &mut session, &trusted, &metadata)?;
    }
    Ok(())
}

/// Answers what the session wants until it wants nothing more.
fn drive(session: &mut Session, trusted: &Folder, metadata: &Remote) -> Result<()> {
    loop {
        match session.next() {
            Next::Done => return Ok(()),
            Next::Local(role) => session.local(trusted.read(&file_name(&role))?.as_deref())?,
            Next::Fetch(fetch) => {
                let name = fetch.file_name(remote::quote);
                let Some(bytes) = metadata.get(&name, fetch.limit)? else {
                    session.missing()?;
                    continue;
                };
                let accepted = session.fetched(&bytes).with_context(|| format!("reading {name}"))?;
                for role in &accepted.forget {
                    trusted.forget(&file_name(role))?;
                }
                if let Some(role) = &accepted.keep {
                    trusted.keep(&file_name(role), &bytes)?;
                }
            }
        }
    }
}

fn download(arguments: &Arguments, session: &mut Session, trusted: &Folder, metadata: &Remote) -> Result<()> {
    let url = arguments.target_base_url.as_deref().context("--target-base-url is needed")?;
    let folder = arguments.target_dir.as_deref().context("--target-dir is needed")?;
    if arguments.target_name.is_empty() {
        bail!("--target-name is needed");
    }
    let (targets, downloaded) = (Remote::new(url), Folder::new(folder));
    for path in &arguments.target_name {
        session.find(path)?;
        drive(session, trusted, metadata)?;
        let found = session.found()?;
        let name = remote::quote(path);
        if downloaded.read(&name)?.is_some_and(|bytes| found.check(&bytes).is_ok()) {
            continue;
        }
        let bytes = targets
            .get(&quote_path(&found.file_path()), found.file.length)?
            .with_context(|| format!("the repository has no target {path}"))?;
        found.check(&bytes)?;
        downloaded.keep(&name, &bytes)?;
    }
    Ok(())
}

/// The unversioned name of a role's trusted file; whatever the role is called, it names a file in the
/// folder and no other place.
fn file_name(role: &Role) -> String {
    format!("{}.json", remote::quote(role.as_str()))
}
