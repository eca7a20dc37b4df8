//! `manifest.json`: what a bundle holds, where it comes from, what it needs. The first file of every
//! bundle; the digests of all others are in it.

mod local_rollback;
mod prediction;
pub mod segments;
pub mod watch;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

pub use self::local_rollback::{CollapseLimit, ErrorLimit, LocalRollback, MAX_HOLD};
pub use self::prediction::{ClassPrediction, PredictionSpec};
pub use self::watch::{Source, Watch, WatchedFeature};

use crate::bundle::{BundleError, BundleFile};
use crate::class_needs::{ClassNeeds, in_manifest};
use crate::ids::{ByteCount, Digest, FieldName, ModelName, ReleaseId, Version};
use crate::pipeline::MAX_ROW_VALUES;
use crate::release::MAX_TARGETS;
use crate::review::ReviewPolicy;
use crate::tensor::{DataType, MAX_DIMENSIONS};

/// Largest `manifest.json` in bytes: a few thousand feature names.
pub const MAX_MANIFEST_BYTES: usize = 256 * 1024;
/// Most inputs, and most outputs: a table whose columns are an input each. Their headers, at most 110 bytes
/// each, fit into a frame's.
pub const MAX_TENSORS: usize = 128;
/// Most features over all inputs that are summarised for drift.
pub const MAX_FEATURES: usize = 1024;
/// The format written and read.
pub const FORMAT: u32 = 1;

/// Contents, origin and needs of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// The team that answers for the model.
    pub owner: String,
    /// One line for people.
    pub description: String,
    /// Where it comes from.
    pub lineage: Lineage,
    /// Inference engine and its series, such as `tract-0.23`.
    pub runtime: heapless::String<32>,
    /// The second form of the model, where the bundle has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nnef: Option<NnefForm>,
    /// Device classes it was built for, with what it needs of each; empty means any.
    #[serde(with = "in_manifest")]
    pub targets: Vec<ClassNeeds>,
    /// Raw inputs, before any preprocessing.
    pub inputs: Vec<TensorSpec>,
    /// Outputs after postprocessing.
    pub outputs: Vec<TensorSpec>,
    /// The trigger of training that this version answers, such as `shop-7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<heapless::String<64>>,
    /// Which of its requests people may look at; none if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewPolicy>,
    /// Which outputs are watched as the prediction.
    pub prediction: Option<PredictionSpec>,
    /// What of the inputs is watched besides their named values.
    #[serde(default, skip_serializing_if = "Watch::is_default")]
    pub watch: Watch,
    /// When a device takes the release back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_rollback: Option<LocalRollback>,
    /// Measured in the real worker when it was packed.
    pub measured: Measured,
    /// All other files, sorted by name.
    pub files: Vec<FileEntry>,
}

/// `model.nnef`: the model as its runtime had it after parsing, fixing shapes and simplifying. It holds for
/// one version of the runtime; any other loads `model.onnx`, from which it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NnefForm {
    /// The version of the runtime that it holds for, such as `tract-0.23.9`.
    pub runtime: heapless::String<32>,
    /// Rows that it runs at once: 1 where their number is fixed in it.
    pub rows_at_once: u32,
}

/// Code, weights and data that a model was made of. All three are required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Commit of the training code: 40 or 64 hexadecimal digits.
    pub git_commit: String,
    /// Digest of `model.onnx`.
    pub weights: Digest,
    /// Digest of the data the reference profile was made of.
    pub data: Digest,
    /// Version of that data's schema.
    pub schema_version: String,
}

/// Name, type and shape of an input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Its name.
    pub name: FieldName,
    /// Element type.
    pub datatype: DataType,
    /// Lengths; the first is −1, the number of rows, all others are positive.
    pub shape: Vec<i64>,
    /// Names of the values of one row, in order, where they are features to watch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FieldName>,
}

/// What the packer measured in a real worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Smallest data limit under which 20 rounds of the golden vectors pass.
    pub minimum_memory: ByteCount,
    /// The limit a device gives the worker: the minimum with a margin.
    pub memory_limit: ByteCount,
    /// Largest resident memory of the worker.
    pub peak_resident: ByteCount,
    /// Median time of one inference of one row, in microseconds.
    pub latency_p50_micros: u64,
    /// 99th percentile of the same.
    pub latency_p99_micros: u64,
    /// Time to load the model, in microseconds.
    pub load_micros: u64,
}

/// One file of the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Which file.
    pub name: BundleFile,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: ByteCount,
}

/// `manifest.json` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Larger than allowed.
    #[error("manifest.json has {0} bytes, at most {MAX_MANIFEST_BYTES} are allowed")]
    TooLarge(usize),
    /// Not JSON of this form.
    #[error("manifest.json: {0}")]
    Malformed(String),
    /// Well-formed, but contradicts itself or a bound.
    #[error("manifest.json: {0}")]
    Invalid(String),
}

impl TensorSpec {
    /// Whether a row of it is one text.
    pub fn is_text(&self) -> bool {
        self.datatype == DataType::Bytes && self.row_elements() == Some(1)
    }

    /// Values in one row; `None` when a length is not positive or the product is absurd.
    pub fn row_elements(&self) -> Option<usize> {
        self.shape.iter().skip(1).try_fold(1_usize, |product, length| {
            let length = usize::try_from(*length).ok().filter(|length| *length > 0)?;
            product.checked_mul(length).filter(|product| *product <= MAX_ROW_VALUES)
        })
    }
}

impl Manifest {
    /// Parses and checks `manifest.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(format!("{error}")))?;
        manifest.check().map_err(ManifestError::Invalid)?;
        Ok(manifest)
    }

    /// Checks everything that can be checked without the other files.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not supported, only {FORMAT}", self.format));
        }
        if self.targets.len() > MAX_TARGETS {
            return Err(format!("more than {MAX_TARGETS} target classes"));
        }
        for (at, target) in self.targets.iter().enumerate() {
            if self.targets.iter().take(at).any(|other| other.class == target.class) {
                return Err(format!("the target class {} is named twice", target.class));
            }
        }
        self.lineage.check()?;
        self.check_files()?;
        for (kind, specs) in [("input", &self.inputs), ("output", &self.outputs)] {
            if specs.is_empty() || specs.len() > MAX_TENSORS {
                return Err(format!("1 to {MAX_TENSORS} {kind}s are needed, {} are declared", specs.len()));
            }
            for (at, spec) in specs.iter().enumerate() {
                spec.check().map_err(|error| format!("{kind} {}: {error}", spec.name))?;
                if specs.iter().take(at).any(|other| other.name == spec.name) {
                    return Err(format!("{kind} {} is declared twice", spec.name));
                }
            }
        }
        let answered = [DataType::Fp32, DataType::Int64, DataType::Bytes];
        if let Some(output) = self.outputs.iter().find(|output| !answered.contains(&output.datatype)) {
            return Err(format!("output {}: an output is FP32, INT64 or BYTES", output.name));
        }
        let texts = |input: &&TensorSpec| input.datatype == DataType::Bytes && !input.features.is_empty();
        if let Some(input) = self.inputs.iter().find(texts) {
            return Err(format!("input {}: texts cannot be watched as features", input.name));
        }
        self.check_watch()?;
        if let Some(prediction) = &self.prediction {
            prediction.check(&self.outputs)?;
        }
        if let Some(review) = &self.review {
            let features = self.features();
            let inputs = self.inputs.iter().map(|input| &input.name);
            review.check(inputs.chain(features.iter().map(|feature| &feature.name)))?;
        }
        match &self.local_rollback {
            Some(policy) => policy.check(self.prediction.as_ref()),
            None => Ok(()),
        }
    }

    fn check_files(&self) -> Result<(), String> {
        let expected = BundleFile::ORDER.iter().filter(|file| {
            **file != BundleFile::Manifest && (**file != BundleFile::Nnef || self.nnef.is_some())
        });
        if !self.files.iter().map(|entry| &entry.name).eq(expected) {
            return Err("files must list every file of a bundle once, sorted by name".into());
        }
        if let Some(entry) = self.files.iter().find(|entry| entry.size.0 > entry.name.max_bytes()) {
            return Err(format!("{} has {} bytes, too many", entry.name.name(), entry.size));
        }
        let model = self.files.iter().find(|entry| entry.name == BundleFile::Model);
        if model.is_none_or(|entry| entry.digest != self.lineage.weights) {
            return Err("lineage.weights is not the digest of model.onnx".into());
        }
        Ok(())
    }

    /// Model and version.
    pub fn id(&self) -> ReleaseId {
        ReleaseId { model: self.model.clone(), version: self.version.clone() }
    }

    /// The entry of `file`; `None` only for the manifest itself.
    pub fn entry(&self, file: BundleFile) -> Option<&FileEntry> {
        self.files.iter().find(|entry| entry.name == file)
    }

    /// Whether the files `found` in a bundle, the manifest among them, are those that are listed.
    pub fn lists(&self, found: &[BundleFile]) -> Result<(), BundleError> {
        let differs = |file: &BundleFile| {
            *file != BundleFile::Manifest && found.contains(file) != self.entry(*file).is_some()
        };
        match BundleFile::ORDER.iter().find(|file| differs(file)) {
            Some(file) => Err(BundleError::Unlisted(file.name())),
            None => Ok(()),
        }
    }

    /// Bytes of all files once unpacked, with the manifest's own `manifest_bytes`.
    pub fn unpacked(&self, manifest_bytes: u64) -> ByteCount {
        let sum = self.files.iter().fold(manifest_bytes, |sum, entry| sum.saturating_add(entry.size.0));
        ByteCount(sum)
    }
}

impl Lineage {
    fn check(&self) -> Result<(), String> {
        let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !matches!(self.git_commit.len(), 40 | 64) || !hex(&self.git_commit) {
            return Err("lineage.git_commit must be a full commit id of 40 or 64 hexadecimal digits".into());
        }
        if self.schema_version.is_empty() {
            return Err("lineage.schema_version is empty".into());
        }
        Ok(())
    }
}

impl TensorSpec {
    /// Checks the shape, and that there are as many features as values in a row, where any are named.
    ///
    /// # Errors
    /// What is wrong, and how it is to be.
    pub fn check(&self) -> Result<(), String> {
        if self.shape.first() != Some(&-1) || self.shape.len() > MAX_DIMENSIONS {
            return Err(format!(
                "the shape must start with -1 (rows) and have at most {MAX_DIMENSIONS} lengths"
            ));
        }
        let lengths = || self.shape.iter().skip(1);
        if let Some(length) = lengths().find(|length| **length <= 0) {
            return Err(format!(
                "all lengths after the first must be positive and fixed, one is {length}: a row has as many values as any \
                 other"
            ));
        }
        let Some(row) = self.row_elements() else {
            return Err(format!("a row of shape {:?} has more than {MAX_ROW_VALUES} values", self.shape));
        };
        if !self.features.is_empty() && self.features.len() != row {
            return Err(format!("{} features are named for {row} values", self.features.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
