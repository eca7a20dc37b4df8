//! `serin-fleet release export`: a release with all that a device needs to trust it, in one file. The server
//! is asked as any client asks it, and everything is checked here first: what no device would take is not
//! carried anywhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::json;
use serin_protocol::chunk::ObjectRef;
use serin_protocol::ids::{Digest, ReleaseId};
use serin_protocol::parcel::{Entry, RoleName, head, opening};
use serin_protocol::release::{MAX_STATEMENT_BYTES, Release};
use serin_protocol::trust::layout::{bundle_path, statement_path};
use serin_protocol::trust::{Limits, Next, Role, Session, TrustError, UtcSeconds};

use super::client::Client;
use super::release::progress;
use super::table::bytes;
use super::{Failure, Report};
use crate::serve::seconds;

/// Bytes copied at a time.
const PIECE: usize = 256 * 1024;

/// Where the first root is served.
const FIRST_ROOT: &str = "/tuf/metadata/1.root.json";

/// Writes `release` to `output`, which must not exist.
pub(super) fn run(
    client: &Client,
    release: &ReleaseId,
    output: &Path,
    quiet: bool,
) -> Result<Report, Failure> {
    let about = |error: io::Error| {
        let hint =
            (error.kind() == io::ErrorKind::AlreadyExists).then(|| "name a file that does not exist".into());
        Failure::about(output.display(), error).hint(hint)
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(output).map_err(about)?;
    let written = gather(client, release).and_then(|papers| {
        write(client, &papers, &mut file, quiet)?;
        file.sync_all().map_err(about)?;
        Ok(papers)
    });
    let papers = written.inspect_err(|_| {
        // A file that no device takes is of no use; that it cannot be removed is no news.
        let _ = fs::remove_file(output);
    })?;
    let (path, size) = (output.display().to_string(), papers.release.bundle.size.0);
    let until = papers.until;
    let text = format!(
        "{path}: {release}, {}; devices take it until {until}\nOn the device: serin-agent sideload FILE",
        bytes(size)
    );
    let json = json!({ "file": path, "release": release.to_string(), "bundle_bytes": size, "until": until.to_string() });
    Ok(Report { text, json })
}

/// Everything but the bundle.
struct Papers {
    files: Vec<(Entry, Vec<u8>)>,
    release: Release,
    statement: Vec<u8>,
    /// Where the bundle is served.
    bundle: String,
    /// The first of the files expires then.
    until: UtcSeconds,
}

/// Reads the metadata as a device would that knows nothing but the first root.
fn gather(client: &Client, id: &ReleaseId) -> Result<Papers, Failure> {
    let limits = Limits::DEVICE;
    let first = client.bytes(FIRST_ROOT, limits.root)?;
    let first = first.ok_or_else(|| {
        let hint = "publish metadata with `serin-fleet trust publish`";
        Failure::new("the server has no root yet").hint(Some(hint.into()))
    })?;
    let mut session = Session::begin(&first, seconds(), limits).map_err(|error| refused(&error))?;
    let mut files = vec![(Entry::Root(1), first)];
    let mut searching = false;
    loop {
        let outcome = match session.next() {
            Next::Local(_) => session.local(None),
            Next::Done if searching => break,
            Next::Done => {
                searching = true;
                session.find(&statement_path(id))
            }
            Next::Fetch(fetch) => {
                let name = fetch.file_name(str::to_owned);
                match client.bytes(&format!("/tuf/metadata/{name}"), fetch.limit)? {
                    Some(bytes) => session.fetched(&bytes).and_then(|_| {
                        let entry = entry(&fetch.role, fetch.version.map_or(1, |version| version.0.get()))?;
                        files.push((entry, bytes));
                        Ok(())
                    }),
                    None => session.missing(),
                }
            }
        };
        outcome.map_err(|error| refused(&error))?;
    }
    let found = session.found().and_then(|found| session.check_floor(&found).map(|()| found));
    let found = found.map_err(|error| refused(&error))?;
    let missing = || Failure::new(format!("the server does not have {id}"));
    let path = format!("/tuf/targets/{}", found.file_path());
    let statement = client.bytes(&path, MAX_STATEMENT_BYTES as u64)?.ok_or_else(missing)?;
    found.check(&statement).map_err(|error| refused(&error))?;
    let release = Release::parse(&statement).map_err(Failure::new)?;
    let target = bundle_path(id);
    let (folder, name) = target.rsplit_once('/').unwrap_or_default();
    let bundle = format!("/tuf/targets/{folder}/{}.{name}", release.bundle.digest);
    let until = until(&session, &files);
    Ok(Papers { files, release, statement, bundle, until })
}

fn entry(role: &Role, version: u64) -> Result<Entry, TrustError> {
    Ok(match role {
        Role::Root => Entry::Root(version),
        Role::Timestamp => Entry::Timestamp,
        Role::Snapshot => Entry::Snapshot,
        Role::Targets => Entry::Targets,
        Role::Delegated(name) => Entry::Delegated(RoleName::new(name).ok_or_else(|| {
            TrustError::Malformed { role: role.clone(), reason: "its name is none of a file".into() }
        })?),
    })
}

fn until(session: &Session, files: &[(Entry, Vec<u8>)]) -> UtcSeconds {
    let owners = files.iter().filter_map(|(entry, _)| match entry {
        Entry::Delegated(name) => session.targets(&Role::named(name.as_str())).map(|owner| owner.expires),
        Entry::Root(_)
        | Entry::Timestamp
        | Entry::Snapshot
        | Entry::Targets
        | Entry::Statement
        | Entry::Bundle => None,
    });
    let online = [
        session.timestamp().map(|timestamp| timestamp.expires),
        session.snapshot().map(|snapshot| snapshot.expires),
        session.targets(&Role::Targets).map(|targets| targets.expires),
    ];
    online.into_iter().flatten().chain(owners).fold(session.root().expires, UtcSeconds::min)
}

fn write(client: &Client, papers: &Papers, file: &mut impl Write, quiet: bool) -> Result<(), Failure> {
    let put = |file: &mut dyn Write, bytes: &[u8]| file.write_all(bytes).map_err(Failure::new);
    put(file, &opening(&papers.release.id))?;
    let statement = (Entry::Statement, papers.statement.clone());
    for (entry, bytes) in papers.files.iter().chain([&statement]) {
        put(file, &head(entry, bytes.len() as u64))?;
        put(file, bytes)?;
    }
    let bundle = papers.release.bundle;
    put(file, &head(&Entry::Bundle, bundle.size.0))?;
    let source = client.reader(&papers.bundle)?;
    let source = source.ok_or_else(|| Failure::new(format!("the server does not have {}", papers.bundle)))?;
    let bar = progress(bundle.size.0, quiet);
    let copied = copy(bar.wrap_read(source), file, bundle);
    bar.finish_and_clear();
    copied
}

/// Copies exactly the signed bundle.
fn copy(mut source: impl Read, file: &mut impl Write, bundle: ObjectRef) -> Result<(), Failure> {
    let mut hasher = Digest::hasher();
    let mut buffer = vec![0; PIECE];
    let mut here = 0_u64;
    loop {
        let read = source.read(&mut buffer).map_err(Failure::new)?;
        let piece = buffer.get(..read).unwrap_or_default();
        here = here.saturating_add(read as u64);
        if read == 0 || here > bundle.size.0 {
            break;
        }
        hasher.update(piece);
        file.write_all(piece).map_err(Failure::new)?;
    }
    if here != bundle.size.0 || hasher.finish() != bundle.digest {
        return Err(Failure::new("the bundle that the server gives is not the one its owner signed"));
    }
    Ok(())
}

fn refused(error: &TrustError) -> Failure {
    let unlisted = matches!(error, TrustError::UnknownTarget { .. } | TrustError::BelowFloor { .. });
    let hint = if unlisted {
        "`serin-fleet release list` shows what there is; devices take what its owner lists"
    } else if matches!(error, TrustError::Freeze { .. }) {
        "have it signed anew, and check this machine's clock"
    } else {
        "no device would take it: look at the repository with `serin-fleet trust`"
    };
    Failure::new(error).hint(Some(hint.into()))
}
