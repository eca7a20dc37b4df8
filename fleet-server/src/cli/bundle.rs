//! `serin-fleet bundle`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use serin_protocol::chunk::ChunkMap;
use serin_protocol::manifest::LocalRollback;
use serin_protocol::manifest::segments::{OTHER, SegmentKey};
use serin_protocol::release::{MAX_STATEMENT_BYTES, Release};
use serin_protocol::trust::layout::{bundle_path, statement_path};

use super::trust::{self, FolderArgs};
use super::{Failure, Report};
use crate::bundle::open::{OpenedBundle, read_bundle};
use crate::bundle::pack::{PackError, PackOrder, pack};
use crate::bundle::qualify::{Preparation, QualifyError};
use crate::bundle::statement;
use crate::rollout::notation::{share, span};
use crate::trust::change::owner;

#[derive(Subcommand)]
pub(super) enum BundleCommand {
    /// Pack a model folder: the device program proves its golden vectors and measures what it needs.
    Pack(PackArgs),
    /// Check a bundle, its statement, and that its owner's signed metadata lists both.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// The statement [default: BUNDLE.release].
        #[arg(long)]
        release: Option<PathBuf>,
        #[command(flatten)]
        folder: FolderArgs,
    },
    /// Check a bundle's contents and show them.
    Inspect {
        /// The bundle.
        bundle: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct PackArgs {
    /// Folder with serin.toml, model.onnx, labels.txt, pipeline.json, golden.ndjson, card.md, and reference.csv, .ndjson,
    /// .npy or .parquet.
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
    /// Class of devices that it is packed for, besides those in serin.toml: a name, or a file like those in targets/.
    #[arg(long = "target", value_name = "CLASS|FILE")]
    targets: Vec<String>,
    /// Where measurements are kept; the same ones give the same bundle [default: measured.json in the folder].
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
}

pub(super) fn run(command: &BundleCommand) -> Result<Report, Failure> {
    match command {
        BundleCommand::Pack(args) => run_pack(args),
        BundleCommand::Verify { bundle, release, folder } => verify(bundle, release.as_deref(), folder),
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
        targets: args.targets.clone(),
    };
    let packed = pack(&order, &|what| eprintln!("{what}")).map_err(|error| pack_failure(&error))?;
    let mut json = describe_json(&args.output, &packed.opened);
    if let Value::Object(fields) = &mut json {
        fields.insert("measured_now".into(), packed.measured_now.into());
        fields.insert("warnings".into(), json!(packed.warnings));
        if let Some(Preparation { rewrites, nnef_because, .. }) = &packed.preparation {
            fields.insert("rewrites".into(), json!(rewrites));
            fields.insert("second_form".into(), json!(nnef_because));
        }
    }
    let mut text = describe(&args.output, &packed.opened);
    if let Some(Preparation { rewrites, nnef, nnef_because, .. }) = &packed.preparation {
        let added = if nnef.is_some() { "added" } else { "none" };
        let mut lines: Vec<String> = rewrites.iter().map(|rewrite| format!("rewrite   {rewrite}")).collect();
        lines.push(format!("nnef form {added}: {nnef_because}"));
        text = format!("{text}\n{}", lines.join("\n"));
    }
    packed.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    Ok(Report { text, json })
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

fn verify(bundle: &Path, release: Option<&Path>, folder: &FolderArgs) -> Result<Report, Failure> {
    let path = release.map_or_else(|| statement::statement_file(bundle), Path::to_path_buf);
    let bytes = read_statement(&path)?;
    let release = Release::parse(&bytes).map_err(|error| Failure::about(path.display(), error))?;
    let opened = open(bundle)?;
    statement::matches(bundle, &opened, &release).map_err(|error| Failure::about(bundle.display(), error))?;
    let folder = folder.folder();
    let role = owner(&release.id.model).map_err(|error| trust::failure(&error))?;
    let listed = |path: &str| folder.listed(&role, path).map_err(|error| trust::failure(&error));
    let stated = listed(&statement_path(&release.id))?;
    stated.check(&bytes).map_err(|why| Failure::about(path.display(), format!("listed otherwise: {why}")))?;
    if listed(&bundle_path(&release.id))?.sha256() != Some(opened.bundle.digest) {
        return Err(Failure::about(bundle.display(), "another bundle is listed"));
    }
    let text = format!("{} is good: listed by {role} as number {}", release.id, stated.serial());
    Ok(Report { text, json: json!({"verified": true, "serial": stated.serial(), "release": release}) })
}

/// The statement at `path`. One byte more than one may have shows that there is more.
pub(super) fn read_statement(path: &Path) -> Result<Vec<u8>, Failure> {
    let about = |error: std::io::Error| {
        Failure::about(path.display(), error)
            .hint(Some("`serin-fleet release sign X.serin --key PATH` writes it".into()))
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(about)?;
    file.take(MAX_STATEMENT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(about)?;
    Ok(bytes)
}

fn open(bundle: &Path) -> Result<OpenedBundle, Failure> {
    read_bundle(bundle).map_err(|error| Failure::about(bundle.display(), error))
}

fn describe(path: &Path, opened: &OpenedBundle) -> String {
    let manifest = &opened.manifest;
    let measured = &manifest.measured;
    let targets: Vec<String> = manifest.targets.iter().map(ToString::to_string).collect();
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
        watched(opened),
    ];
    lines.extend(manifest.watch.segments.as_ref().map(|segmentation| {
        let (SegmentKey::Feature(key) | SegmentKey::Parameter(key)) = &segmentation.key;
        let names: Vec<&str> = segmentation.named.iter().map(|segment| segment.name.as_str()).collect();
        format!("segments  by {key}: {}, {OTHER}", names.join(", "))
    }));
    lines.extend(manifest.local_rollback.as_ref().map(alone));
    lines.extend(
        manifest
            .files
            .iter()
            .map(|entry| format!("  {}  {:<13} {:>9} bytes", entry.digest, entry.name.name(), entry.size)),
    );
    lines.join("\n")
}

fn watched(opened: &OpenedBundle) -> String {
    let features = &opened.profile.features;
    let categorical = features.iter().filter(|feature| feature.categories().is_some()).count();
    match categorical {
        0 => format!("features  {}", features.len()),
        _ => format!("features  {}, {categorical} of them categorical", features.len()),
    }
}

/// When a device goes back by itself.
fn alone(policy: &LocalRollback) -> String {
    let errors = policy.errors.map(|limit| {
        format!("when more than {} of {} or more inferences fail", share::text(limit.share), limit.requests)
    });
    let collapse = policy.collapse.map(|limit| {
        let (share, time) = (share::text(limit.share), span::text(limit.hold));
        format!(
            "when more than {share} of {} or more predictions are one class for {time}",
            limit.predictions
        )
    });
    let reasons: Vec<String> = errors.into_iter().chain(collapse).collect();
    format!("alone     a device goes back {}", reasons.join(", or "))
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
