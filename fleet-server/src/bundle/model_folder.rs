//! A model as a data scientist hands it over: a folder with `serin.toml` and the files it is about.
//! Read and checked whole before anything is measured or packed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serin_protocol::bundle::BundleFile;
use serin_protocol::class_needs::ClassNeeds;
use serin_protocol::golden::Golden;
use serin_protocol::ids::{ByteCount, Digest, FieldName, ModelName, TargetClass, Version};
use serin_protocol::manifest::{
    FORMAT, FileEntry, Lineage, Manifest, Measured, NnefForm, PredictionSpec, TensorSpec, Watch,
};
use serin_protocol::pipeline::{Pipeline, PipelineError};

use super::RUNTIME;
use super::golden_doubts;
use super::golden_lines::{self, GoldenLineError, Subject, Tolerances};
use super::labels;
use super::local_rollback::DeclaredRollback;
use super::measurements::UNMEASURED;
use super::reference::{self, MAX_REFERENCE_BYTES, ReferenceError, ReferenceRows, Watched};
use super::review::DeclaredReview;

const DECLARATION: &str = "serin.toml";
const GOLDEN: &str = "golden.ndjson";

/// Every file of a model folder but the reference data, which may have several forms.
const FILES: [&str; 6] = [
    DECLARATION,
    BundleFile::Model.name(),
    BundleFile::Labels.name(),
    BundleFile::Pipeline.name(),
    BundleFile::Card.name(),
    GOLDEN,
];

/// Largest `serin.toml`: the manifest that is made of it must fit its own bound.
const MAX_DECLARATION_BYTES: u64 = BundleFile::Manifest.max_bytes();

/// Largest `golden.ndjson`: the numbers of the largest `golden.bin`, at 12 characters for 4 bytes.
const MAX_GOLDEN_TEXT_BYTES: u64 = 3 * BundleFile::Golden.max_bytes();

/// Everything about a model but what is measured.
#[derive(Debug)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    declaration: Declaration,
    /// Classes of devices that it is packed for, with what is needed of them where that is known by now.
    targets: Vec<ClassNeeds>,
    /// The model, which stays on disk.
    pub model: StoredFile,
    /// `labels.txt`.
    pub labels: Vec<u8>,
    /// `card.md`.
    pub card: Vec<u8>,
    /// `pipeline.json`.
    pub pipeline: Vec<u8>,
    /// `golden.bin`.
    pub golden: Vec<u8>,
    /// What the golden vectors do not prove, a sentence each.
    unproven: Vec<String>,
    /// The reference data.
    pub reference: ReferenceRows,
    /// What of the reference data is watched.
    pub watched: Watched,
    /// Digest of its file.
    pub data: Digest,
    /// Name of its file.
    data_file: &'static str,
}

/// A file that is too large to hold in memory.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its digest when the folder was read.
    pub digest: Digest,
    /// Its size then.
    pub size: ByteCount,
}

/// `serin.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    model: ModelName,
    version: Version,
    owner: String,
    description: String,
    #[serde(default)]
    targets: Vec<TargetClass>,
    lineage: DeclaredLineage,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    prediction: Option<PredictionSpec>,
    #[serde(default)]
    watch: Watch,
    local_rollback: Option<DeclaredRollback>,
    golden: DeclaredGolden,
    /// The trigger of training that it answers.
    answers: Option<heapless::String<64>>,
    review: Option<DeclaredReview>,
}

/// How far outputs may lie from the expected ones, and what computed those.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredGolden {
    relative: f32,
    absolute: f32,
    /// The training side's runtime, such as `onnxruntime 1.32`.
    producer: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredLineage {
    git_commit: String,
    schema_version: String,
    weights: Option<Digest>,
    data: Option<Digest>,
}

/// A model folder was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelFolderError {
    /// Files are missing.
    #[error("{}: {} missing; a model folder holds {}, and reference.csv, .ndjson, .npy or .parquet", folder.display(), names.join(", "), FILES.join(", "))]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The files.
        names: Vec<&'static str>,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{}: more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// A text file is not text.
    #[error("{}: not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// `serin.toml` is malformed, lacks a key or has one too many.
    #[error("{}: {message}", path.display())]
    Declaration {
        /// The file.
        path: PathBuf,
        /// The place and what is wrong there.
        message: String,
    },
    /// `serin.toml` is well-formed and contradicts itself or a bound.
    #[error("serin.toml: {0}")]
    Invalid(String),
    /// A digest in `serin.toml` is not that of the file.
    #[error("serin.toml, lineage.{key} is {declared}, but {file} has digest {found}")]
    Lineage {
        /// The key.
        key: &'static str,
        /// The file.
        file: &'static str,
        /// Digest declared.
        declared: Digest,
        /// Digest found.
        found: Digest,
    },
    /// The golden vectors are malformed.
    #[error(transparent)]
    Golden(#[from] GoldenLineError),
    /// There is more in the golden vectors than devices read.
    #[error(transparent)]
    GoldenSize(#[from] serin_protocol::golden::GoldenError),
    /// The reference data is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The pipeline is malformed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl ModelFolder {
    /// Reads and checks the model folder at `path`.
    pub fn read(path: &Path) -> Result<Self, ModelFolderError> {
        let (format, data) = reference::find(path).map_err(|several| {
            ModelFolderError::Invalid(format!(
                "{} are here; only one can be the reference data",
                several.join(" and ")
            ))
        })?;
        let all = FILES.into_iter().chain([format.file()]);
        let missing: Vec<_> = all.filter(|name| !path.join(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(ModelFolderError::Missing { folder: path.into(), names: missing });
        }
        let declaration = read_declaration(&path.join(DECLARATION))?;
        check_shapes(&declaration)?;
        let model = store(&path.join(BundleFile::Model.name()), BundleFile::Model.max_bytes())?;
        let data = read_bytes(&data, MAX_REFERENCE_BYTES)?;
        let digest = Digest::of(&data);
        let bundled =
            |file: BundleFile| read_text(&path.join(file.name()), file.max_bytes()).map(String::into_bytes);
        let pipeline = bundled(BundleFile::Pipeline)?;
        let Declaration { inputs, watch, prediction, .. } = &declaration;
        let columns = reference::columns(inputs, watch, prediction.is_some());
        let reference = ReferenceRows::read(format, data, columns)?;
        let (golden, unproven) = read_golden(path, &declaration, &pipeline)?;
        let labels = bundled(BundleFile::Labels)?;
        labels::check(&labels, &Pipeline::read(&pipeline)?, prediction.as_ref(), &golden)?;
        let folder = Self {
            path: path.into(),
            labels,
            card: bundled(BundleFile::Card)?,
            golden: golden.encode()?,
            unproven,
            pipeline,
            watched: reference::profile(&reference, inputs, watch, &[]),
            reference,
            data: digest,
            data_file: format.file(),
            targets: declaration.targets.iter().cloned().map(ClassNeeds::from).collect(),
            declaration,
            model,
        };
        folder.check()?;
        Ok(folder)
    }

    /// The manifest of this model with `measured`, a `reference.bin` of these bytes, and `second` as its second form.
    pub fn manifest(
        &self,
        measured: Measured,
        reference: &[u8],
        second: Option<&(NnefForm, StoredFile)>,
    ) -> Result<Manifest, ModelFolderError> {
        let entry = |name, bytes: &[u8]| FileEntry {
            name,
            digest: Digest::of(bytes),
            size: ByteCount(bytes.len() as u64),
        };
        let stored = |name, file: &StoredFile| FileEntry { name, digest: file.digest, size: file.size };
        let declaration = &self.declaration;
        let mut files = vec![
            entry(BundleFile::Card, &self.card),
            entry(BundleFile::Golden, &self.golden),
            entry(BundleFile::Labels, &self.labels),
        ];
        files.extend(second.map(|(_, file)| stored(BundleFile::Nnef, file)));
        files.extend([
            stored(BundleFile::Model, &self.model),
            entry(BundleFile::Pipeline, &self.pipeline),
            entry(BundleFile::Reference, reference),
        ]);
        let manifest = Manifest {
            format: FORMAT,
            model: declaration.model.clone(),
            version: declaration.version.clone(),
            owner: declaration.owner.clone(),
            description: declaration.description.clone(),
            lineage: Lineage {
                git_commit: declaration.lineage.git_commit.clone(),
                weights: self.model.digest,
                data: self.data,
                schema_version: declaration.lineage.schema_version.clone(),
            },
            // A constant that fits.
            runtime: RUNTIME.parse().unwrap_or_default(),
            nnef: second.map(|(form, _)| form.clone()),
            targets: self.targets.clone(),
            inputs: declaration.inputs.clone(),
            outputs: declaration.outputs.clone(),
            answers: declaration.answers.clone(),
            review: declaration.review.as_ref().map(DeclaredReview::policy).transpose()?,
            prediction: declaration.prediction.clone(),
            watch: declaration.watch.clone(),
            local_rollback: declaration.local_rollback.as_ref().map(DeclaredRollback::policy),
            measured,
            files,
        };
        manifest.check().map_err(ModelFolderError::Invalid)?;
        Ok(manifest)
    }

    /// Knows what the device program saw of the pictures of each reference row.
    pub fn see(&mut self, pictures: &[Vec<Option<f32>>]) {
        let Declaration { inputs, watch, .. } = &self.declaration;
        self.watched = reference::profile(&self.reference, inputs, watch, pictures);
    }

    /// The classes of devices that `serin.toml` names; none for any.
    pub fn declared_targets(&self) -> &[TargetClass] {
        &self.declaration.targets
    }

    /// Has it packed for devices of these classes, and of no others; for any where there is none.
    pub fn pack_for(&mut self, targets: Vec<ClassNeeds>) {
        self.targets = targets;
    }

    /// What is to be doubted about the golden vectors, a sentence each.
    pub fn doubts_about_golden(&self) -> Vec<String> {
        let producer = golden_doubts::about_producer(self.declaration.golden.producer.as_deref());
        producer.into_iter().chain(self.unproven.clone()).collect()
    }

    /// The file of the reference data.
    pub const fn data_file(&self) -> &'static str {
        self.data_file
    }

    /// The inputs that are files of images; their cells in the reference data are base64, or names of files.
    pub fn image_inputs(&self) -> Result<Vec<FieldName>, ModelFolderError> {
        Ok(Pipeline::read(&self.pipeline)?.images().map(|(input, _)| input.clone()).collect())
    }

    fn check(&self) -> Result<(), ModelFolderError> {
        let lineage = &self.declaration.lineage;
        for (key, file, declared, found) in [
            ("weights", BundleFile::Model.name(), lineage.weights, self.model.digest),
            ("data", self.data_file, lineage.data, self.data),
        ] {
            if let Some(declared) = declared.filter(|declared| *declared != found) {
                return Err(ModelFolderError::Lineage { key, file, declared, found });
            }
        }
        for (key, text) in
            [("owner", &self.declaration.owner), ("description", &self.declaration.description)]
        {
            if text.trim().is_empty() || text.contains(char::is_control) {
                return Err(ModelFolderError::Invalid(format!("{key} must be one line of text")));
            }
        }
        Pipeline::parse(&self.pipeline, &self.manifest(UNMEASURED, &[], None)?)?;
        Ok(())
    }
}

fn read_declaration(path: &Path) -> Result<Declaration, ModelFolderError> {
    let text = read_text(path, MAX_DECLARATION_BYTES)?;
    toml::from_str(&text).map_err(|error| ModelFolderError::Declaration {
        path: path.into(),
        message: error.to_string().trim_end().into(),
    })
}

/// Checks shapes before anything is read that has them.
fn check_shapes(declaration: &Declaration) -> Result<(), ModelFolderError> {
    let inputs = declaration.inputs.iter().map(|spec| ("input", spec));
    for (kind, spec) in inputs.chain(declaration.outputs.iter().map(|spec| ("output", spec))) {
        let invalid = |error| ModelFolderError::Invalid(format!("{kind} {}: {error}", spec.name));
        spec.check().map_err(invalid)?;
    }
    Ok(())
}

/// The golden vectors, and what they do not prove.
fn read_golden(
    folder: &Path,
    declaration: &Declaration,
    pipeline: &[u8],
) -> Result<(Golden, Vec<String>), ModelFolderError> {
    let text = read_text(&folder.join(GOLDEN), MAX_GOLDEN_TEXT_BYTES)?;
    let Declaration { inputs, outputs, golden, .. } = declaration;
    let tolerances = Tolerances { relative: golden.relative, absolute: golden.absolute };
    let flow = Pipeline::read(pipeline)?.flow(inputs)?;
    let golden = golden_lines::parse(&text, Subject { inputs, flow: &flow, outputs, folder }, tolerances)?;
    let mut unproven = golden_doubts::about_tolerances(&golden);
    unproven.extend(golden_doubts::about_steps(&golden, &flow));
    Ok((golden, unproven))
}

/// A text without the mark that some editors begin UTF-8 with: it would be part of the first label.
fn read_text(path: &Path, limit: u64) -> Result<String, ModelFolderError> {
    let text = String::from_utf8(read_bytes(path, limit)?)
        .map_err(|_| ModelFolderError::NotText { path: path.into() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, ModelFolderError> {
    let failed = |source| ModelFolderError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ModelFolderError::TooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

pub(super) fn store(path: &Path, limit: u64) -> Result<StoredFile, ModelFolderError> {
    let failed = |source| ModelFolderError::Io { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let (digest, size) = super::digest_of(file).map_err(failed)?;
    if size.0 > limit {
        return Err(ModelFolderError::TooLarge { path: path.into(), limit });
    }
    Ok(StoredFile { path: path.into(), digest, size })
}

#[cfg(test)]
#[path = "model_folder_tests.rs"]
mod tests;
