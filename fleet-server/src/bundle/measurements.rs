//! What was measured when a model was first packed (`measured.json`), kept beside the model: measurements
//! vary, so that packing the same bytes again needs them as an input.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serin_protocol::bundle::BundleFile;
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::{Manifest, Measured, NnefForm, PredictionSpec};
use serin_protocol::sketch::Bins;
use serin_protocol::sketch::profile::{CONFIDENCE_BINS, Division, FeatureProfile, Profile, SketchProfile};

use super::model_folder::StoredFile;
use super::qualify::{Predicted, Preparation};

/// Name of the file in a model folder.
pub const FILE: &str = "measured.json";

/// Largest file read: 200,000 predictions of up to 40 bytes, six numbers of up to 15 about a picture with each, and room to
/// spare.
const MAX_BYTES: u64 = 32 << 20;

/// Nothing was measured yet.
pub const UNMEASURED: Measured = Measured {
    minimum_memory: ByteCount(0),
    memory_limit: ByteCount(0),
    peak_resident: ByteCount(0),
    latency_p50_micros: 0,
    latency_p99_micros: 0,
    load_micros: 0,
};

/// Measurements, and of what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// Of what.
    pub subject: Subject,
    /// What the worker needs.
    pub measured: Measured,
    /// What loading rewrites in the model, where the device program told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
    /// The second form of the model, which is kept beside this file under the same name with the ending `nnef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_form: Option<SecondForm>,
    /// What the model says about each reference row, where it declares a prediction.
    pub predictions: Option<Vec<Predicted>>,
    /// What is watched of each reference row's pictures; none where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Vec<Vec<Option<f32>>>>,
}

/// A second form that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondForm {
    /// For which runtime.
    pub form: NnefForm,
    /// Digest of the file.
    pub digest: Digest,
    /// Its size.
    pub size: ByteCount,
}

/// Everything that measurements and predictions depend on, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// `model.onnx`.
    pub model: Digest,
    /// `pipeline.json`.
    pub pipeline: Digest,
    /// `labels.txt`.
    pub labels: Digest,
    /// `golden.bin`, with the tolerances.
    pub golden: Digest,
    /// The reference data.
    pub reference: Digest,
    /// Inputs, outputs, prediction, and what is watched of pictures, as declared.
    pub interface: Digest,
    /// Inference engine and series.
    pub runtime: String,
}

/// `measured.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MeasurementsError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a file of measurements.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Predictions contradict the model's own declaration.
    #[error("{0}")]
    Predictions(String),
}

/// Where the second form is kept of measurements kept at `path`.
pub fn second_form_path(path: &Path) -> PathBuf {
    path.with_extension("nnef")
}

impl Subject {
    /// What measurements of the model in `manifest` would be of.
    pub fn of(manifest: &Manifest) -> Self {
        let digest = |file| manifest.entry(file).map_or(Digest([0; 32]), |entry| entry.digest);
        let interface = (&manifest.inputs, &manifest.outputs, &manifest.prediction);
        // Plain data with text keys: nothing to fail on.
        let mut interface = serde_json::to_vec(&interface).unwrap_or_default();
        let pictures = manifest.watch.summaries.iter().filter(|declared| declared.image.is_some());
        let pictures: Vec<_> = pictures.collect();
        if !pictures.is_empty() {
            interface.extend(serde_json::to_vec(&pictures).unwrap_or_default());
        }
        Self {
            model: digest(BundleFile::Model),
            pipeline: digest(BundleFile::Pipeline),
            labels: digest(BundleFile::Labels),
            golden: digest(BundleFile::Golden),
            reference: manifest.lineage.data,
            interface: Digest::of(&interface),
            runtime: manifest.runtime.as_str().into(),
        }
    }

    /// The first thing that differs from `other`.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let pairs = [
            ("model.onnx", self.model == other.model),
            ("pipeline.json", self.pipeline == other.pipeline),
            ("labels.txt", self.labels == other.labels),
            ("golden.ndjson", self.golden == other.golden),
            ("the reference data", self.reference == other.reference),
            ("the interface in serin.toml", self.interface == other.interface),
            ("the runtime", self.runtime == other.runtime),
        ];
        pairs.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }
}

impl Measurements {
    /// Reads the file at `path`; `None` when there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, MeasurementsError> {
        let failed = |source| MeasurementsError::Io { path: path.into(), source };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let parsed = serde_json::from_slice(&bytes);
        let malformed = |error: serde_json::Error| MeasurementsError::Malformed {
            path: path.into(),
            message: error.to_string(),
        };
        parsed.map(Some).map_err(malformed)
    }

    /// The kept second form as it goes into a bundle, for measurements kept at `path`.
    pub fn second_form_beside(&self, path: &Path) -> Option<(NnefForm, StoredFile)> {
        let SecondForm { form, digest, size } = self.second_form.clone()?;
        Some((form, StoredFile { path: second_form_path(path), digest, size }))
    }

    /// Writes the file at `path` and reads it back: what is packed is what will be read next time.
    pub fn keep(self, path: &Path) -> Result<Self, MeasurementsError> {
        let failed = |source| MeasurementsError::Io { path: path.into(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = super::container::unfinished(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        let written = serde_json::to_writer(&mut file, &self).map_err(io::Error::from);
        written.and_then(|()| file.write_all(b"\n")).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(Self::read(path)?.unwrap_or(self))
    }

    /// What is watched of the pictures of each of `rows` reference rows of the model in `manifest`.
    ///
    /// # Errors
    /// There is something to watch, and it was not seen in every row.
    pub fn pictures(
        &self,
        manifest: &Manifest,
        rows: usize,
    ) -> Result<&[Vec<Option<f32>>], MeasurementsError> {
        let pictured = manifest.watch.pictures(&manifest.inputs);
        let width: usize = pictured.iter().map(|pictured| pictured.summaries.len()).sum();
        let seen = self.pictures.as_deref().unwrap_or_default();
        if width > 0 && (seen.len() != rows || seen.iter().any(|row| row.len() != width)) {
            return Err(MeasurementsError::Predictions(format!(
                "the device program saw the pictures of {} reference rows, not of all {rows}, or not all that is watched \
                 of them; it may be of another version",
                seen.len()
            )));
        }
        Ok(seen)
    }

    /// Adds to `profile` what is predicted for the `rows` reference rows of the model in `manifest`.
    pub fn add_predictions(
        &self,
        profile: &mut Profile,
        manifest: &Manifest,
        rows: usize,
        division: Division<'_>,
    ) -> Result<(), MeasurementsError> {
        let refused = |what: String| Err(MeasurementsError::Predictions(what));
        let (Some(declared), Some(predictions)) = (&manifest.prediction, &self.predictions) else {
            return match &manifest.prediction {
                Some(_) => refused("the reference rows were not predicted".into()),
                None => Ok(()),
            };
        };
        if predictions.len() != rows {
            return refused(format!("{} predictions for {rows} reference rows", predictions.len()));
        }
        let spec = match declared {
            PredictionSpec::Class(spec) => spec,
            PredictionSpec::Value { value } => {
                let values: Option<Vec<f32>> = predictions.iter().map(Predicted::value).collect();
                let Some(values) = values else {
                    return refused("the model predicts classes, serin.toml declares a value".into());
                };
                profile.predictions = Some(FeatureProfile::numeric(value.clone(), &values, division).sketch);
                return Ok(());
            }
        };
        let is_class = |class: i64| usize::try_from(class).is_ok_and(|class| class < spec.classes);
        let mut classes = Vec::with_capacity(rows);
        for (row, predicted) in predictions.iter().enumerate() {
            match predicted.class() {
                Some(class) if is_class(class) => classes.push(class as f32),
                Some(class) => {
                    return refused(format!(
                        "reference row {}: the model predicts class {class}, serin.toml declares {} classes from 0",
                        row + 1,
                        spec.classes
                    ));
                }
                None => return refused("the model predicts a value, serin.toml declares classes".into()),
            }
        }
        profile.predictions = Some(SketchProfile::divided(Bins::classes(spec.classes), &classes, division));
        let unit = |of: fn(&Predicted) -> f32| {
            let values: Vec<f32> = predictions.iter().map(of).collect();
            SketchProfile::divided(Bins::unit(CONFIDENCE_BINS), &values, division)
        };
        profile.confidence = spec.confidence.as_ref().map(|_| unit(Predicted::confidence));
        profile.entropy = spec.probabilities.as_ref().map(|_| unit(Predicted::entropy));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::manifest::ClassPrediction;

    fn measurements(predictions: Option<Vec<Predicted>>) -> Measurements {
        let digest = Digest::of(b"x");
        let subject = Subject {
            model: digest,
            pipeline: digest,
            labels: digest,
            golden: digest,
            reference: digest,
            interface: digest,
            runtime: "tract-0.23".into(),
        };
        Measurements {
            subject,
            measured: UNMEASURED,
            preparation: None,
            second_form: None,
            predictions,
            pictures: None,
        }
    }

    #[test]
    fn measurements_survive_their_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(FILE);
        assert_eq!(Measurements::read(&path).expect("none"), None);
        let made = measurements(Some(vec![
            Predicted::Class(3, Some(0.802_870_5), None),
            Predicted::Class(0, None, Some(0.1)),
        ]));
        let kept = made.clone().keep(&path).expect("kept");
        assert_eq!(kept, made);
        assert_eq!(Measurements::read(&path).expect("read"), Some(kept));
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(FILE);
        std::fs::write(&path, "{\"note\":1}").expect("written");
        let error = Measurements::read(&path).expect_err("broken").to_string();
        assert!(error.contains(FILE) && error.contains("note"), "{error}");
    }

    #[test]
    fn what_changed_is_named() {
        let subject = measurements(None).subject;
        assert_eq!(subject.difference(&subject), None);
        let other = Subject { pipeline: Digest::of(b"y"), ..subject.clone() };
        assert_eq!(subject.difference(&other), Some("pipeline.json"));
    }

    #[test]
    fn predictions_must_fit_the_rows_and_the_declared_classes() {
        let good = crate::bundle::open::tests::good();
        let mut manifest = crate::bundle::open::read(good.as_slice()).expect("good").manifest;
        let added = |predictions, manifest: &Manifest| {
            let mut profile = Profile::default();
            let made = measurements(predictions);
            made.add_predictions(&mut profile, manifest, 2, Division::default()).map(|()| profile)
        };
        assert_eq!(added(None, &manifest).expect("nothing declared"), Profile::default());
        let name = || "y".parse().expect("name");
        manifest.prediction = Some(PredictionSpec::Class(ClassPrediction {
            class: name(),
            confidence: Some(name()),
            probabilities: Some(name()),
            classes: 2,
        }));
        let class = |class, confidence| Predicted::Class(class, confidence, Some(0.5));
        let says = |predictions| added(predictions, &manifest).expect_err("refused").to_string();
        assert!(says(None).contains("not predicted"));
        assert!(says(Some(vec![class(0, None)])).contains("1 predictions for 2"));
        let beyond = vec![class(0, None), class(2, None)];
        assert!(says(Some(beyond)).contains("row 2: the model predicts class 2"));
        assert!(says(Some(vec![class(-1, None), class(1, None)])).contains("row 1"));
        assert!(says(Some(vec![Predicted::Value([None]); 2])).contains("predicts a value"));
        let profile = added(Some(vec![class(1, Some(0.97)), class(1, None)]), &manifest).expect("good");
        assert_eq!(profile.predictions.expect("declared").reference.counts.as_slice(), [0, 2]);
        let confidence = profile.confidence.expect("declared").reference;
        assert_eq!((confidence.counts.last(), confidence.missing), (Some(&1), 1));
        assert_eq!(profile.entropy.expect("declared").reference.counts.get(10), Some(&2));
        manifest.prediction = Some(PredictionSpec::Value { value: name() });
        let values = vec![Predicted::Value([Some(1.5)]), Predicted::Value([None])];
        let profile = added(Some(values), &manifest).expect("good");
        let reference = profile.predictions.expect("declared").reference;
        assert_eq!((reference.present(), reference.missing, profile.confidence), (1, 1, None));
    }
}
