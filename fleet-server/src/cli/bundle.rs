//! `serin-fleet bundle`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use serin_protocol::chunk::ChunkMap;
use serin_protocol::envelope::{KeyRing, PublicKey, Signed as _};
use serin_protocol::release::Release;

use super::{Failure, Report, keys};
use crate::bundle::key_file;
use crate::bundle::open::{OpenedBundle, read_bundle};
use crate::bundle::pack::{PackError, PackOrder, pack};
use crate::bundle::qualify::QualifyError;
use crate::bundle::sign;

#[derive(Subcommand)]
pub(super) enum BundleCommand {
    /// Pack a model folder: the device program proves its golden vectors and measures what it needs.
    Pack(PackArgs),
    /// Check a bundle and sign it; writes BUNDLE.release beside it.
    Sign {
        /// The bundle.
        bundle: PathBuf,
        /// File with the private key.
        #[arg(long)]
        key: PathBuf,
    },
    /// Check a bundle, its signature, and that one is about the other.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// The signer's public key: a file, or its 64 hexadecimal digits.
        #[arg(long)]
        key: String,
        /// The signed statement [default: BUNDLE.release].
        #[arg(long)]
        release: Option<PathBuf>,
    },
    /// Check a bundle's contents and show them.
    Inspect {
        /// The bundle.
        bundle: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct PackArgs {
    /// Folder with serin.toml, model.onnx, labels.txt, pipeline.json, golden.ndjson, reference.csv, card.md.
    model_dir: PathBuf,
    /// The bundle to write.
    #[arg(short, long, value_name = "X.serin")]
    output: PathBuf,
    /// The device program [default: the variable `SERIN_AGENT`, else `serin-agent` beside this program or in PATH].
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Measure anew even if nothing has changed.
    #[arg(long)]
    remeasure: bool,
    /// Where measurements are kept; the same ones give the same bundle [default: measured.json in the folder].
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
}

pub(super) fn run(command: &BundleCommand) -> Result<Report, Failure> {
    match command {
        BundleCommand::Pack(args) => run_pack(args),
        BundleCommand::Sign { bundle, key } => run_sign(bundle, key),
        BundleCommand::Verify { bundle, key, release } => run_verify(bundle, key, release.as_deref()),
        BundleCommand::Inspect { bundle } => {
            let opened = open(bundle)?;
            Ok(Report { text: describe(bundle, &opened), json: describe_json(bundle, &opened) })
        }
    }
}

fn run_pack(args: &PackArgs) -> Result<Report, Failure> {
    let order = PackOrder {
        folder: args.model_dir.clone(),
        output: args.output.clone(),
        program: args.agent.clone(),
        measurements: args.measurements.clone(),
        remeasure: args.remeasure,
    };
    let packed = pack(&order, &|what| eprintln!("{what}")).map_err(|error| pack_failure(&error))?;
    let mut json = describe_json(&args.output, &packed.opened);
    if let Value::Object(fields) = &mut json {
        fields.insert("measured_now".into(), packed.measured_now.into());
    }
    Ok(Report { text: describe(&args.output, &packed.opened), json })
}

fn pack_failure(error: &PackError) -> Failure {
    let details = match error {
        PackError::Qualify(QualifyError::Fault(fault)) => {
            json!({"kind": fault.kind, "operator": fault.operator})
        }
        _ => Value::Null,
    };
    Failure::new(error).hint(error.hint()).details(details)
}

fn run_sign(bundle: &Path, key: &Path) -> Result<Report, Failure> {
    let key = keys::private(key)?;
    let signed = sign::sign(bundle, &key);
    let (release, envelope) = signed.map_err(|error| Failure::about(bundle.display(), error))?;
    let path = sign::release_path(bundle);
    std::fs::write(&path, envelope).map_err(|error| Failure::about(path.display(), error))?;
    let id = PublicKey::of(&key).id();
    let text = format!("{} signed by key {id}\n{}", release.id, path.display());
    Ok(Report { text, json: json!({"release_file": path, "key": id, "release": release}) })
}

fn run_verify(bundle: &Path, key: &str, release: Option<&Path>) -> Result<Report, Failure> {
    let key = key_file::read_public(key).map_err(|error| keys::failure(&error))?;
    // One key always fits a ring of one.
    let keys = KeyRing::<1>::new([key]).unwrap_or_default();
    let default = sign::release_path(bundle);
    let path = release.unwrap_or(&default);
    let unsigned = format!("sign it with serin-fleet bundle sign {} --key PATH", bundle.display());
    let bytes =
        read_release(path).map_err(|error| Failure::about(path.display(), error).hint(Some(unsigned)))?;
    let statement =
        sign::verify_release(&bytes, &keys).map_err(|error| Failure::about(path.display(), error))?;
    let opened = open(bundle)?;
    sign::matches(bundle, &opened, &statement).map_err(|error| Failure::about(bundle.display(), error))?;
    let text = format!("{} is good: signed by key {}", statement.id, key.id());
    Ok(Report { text, json: json!({"verified": true, "key": key.id(), "release": statement}) })
}

/// One byte more than a statement may have shows that there is more.
fn read_release(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(Release::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(bundle: &Path) -> Result<OpenedBundle, Failure> {
    read_bundle(bundle).map_err(|error| Failure::about(bundle.display(), error))
}

fn describe(path: &Path, opened: &OpenedBundle) -> String {
    let manifest = &opened.manifest;
    let measured = &manifest.measured;
    let targets: Vec<&str> = manifest.targets.iter().map(AsRef::as_ref).collect();
    let mut lines = vec![
        format!("{}  {}", manifest.id(), manifest.description),
        format!("bundle    {}, {} bytes, {} unpacked", path.display(), opened.bundle.size, opened.unpacked),
        format!("digest    {}", opened.bundle.digest),
        format!("owner     {}", manifest.owner),
        format!("commit    {}", manifest.lineage.git_commit),
        format!("data      {} (schema {})", manifest.lineage.data, manifest.lineage.schema_version),
        format!("runtime   {}", manifest.runtime),
        format!("targets   {}", if targets.is_empty() { "any".into() } else { targets.join(", ") }),
        format!(
            "memory    {} bytes limit, {} needed, {} resident",
            measured.memory_limit, measured.minimum_memory, measured.peak_resident
        ),
        format!(
            "latency   {} us median, {} us 99th percentile, {} us to load",
            measured.latency_p50_micros, measured.latency_p99_micros, measured.load_micros
        ),
        format!("golden    {} cases", opened.golden.cases.len()),
        format!("features  {}", opened.profile.features.len()),
    ];
    lines.extend(
        manifest
            .files
            .iter()
            .map(|entry| format!("  {}  {:<13} {:>9} bytes", entry.digest, entry.name.name(), entry.size)),
    );
    lines.join("\n")
}

fn describe_json(path: &Path, opened: &OpenedBundle) -> Value {
    json!({
        "path": path,
        "release": opened.manifest.id().to_string(),
        "bundle": opened.bundle,
        "chunks": ChunkMap::new(opened.bundle.size).map(ChunkMap::count).ok(),
        "unpacked": opened.unpacked,
        "golden_cases": opened.golden.cases.len(),
        "manifest": opened.manifest,
    })
}
