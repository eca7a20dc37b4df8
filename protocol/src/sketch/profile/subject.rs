//! Whether a reference profile is about the features and outputs of a manifest.

use super::{FeatureKind, FeatureProfile, Profile, SketchProfile};
use crate::ids::FieldName;
use crate::manifest::{Manifest, PredictionSpec, Source, TensorSpec, WatchedFeature};
use crate::sketch::Bins;
use crate::sketch::summary::Summary;

/// A reference profile is about something else than its manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileMismatch {
    /// Features are not equally many.
    #[error("the reference profile has {profile} features, the manifest {manifest}")]
    Count {
        /// In the profile.
        profile: usize,
        /// In the manifest.
        manifest: usize,
    },
    /// A feature is named otherwise, or in another order.
    #[error("feature {at} is {manifest} in the manifest and {profile} in the reference profile")]
    Name {
        /// Number of the feature, from 0.
        at: usize,
        /// In the manifest.
        manifest: FieldName,
        /// In the profile.
        profile: FieldName,
    },
    /// A feature is categorical in one and not in the other.
    #[error("the feature {0} is categorical in one of manifest and reference profile only")]
    Kind(FieldName),
    /// Rows are not divided into the same segments.
    #[error("the reference profile has other segments than the manifest")]
    Segments,
    /// An output is watched in one and not in the other, or over other classes.
    #[error("the {0} is not what the manifest declares")]
    Output(&'static str),
    /// There is no mean row from which distances could be watched.
    #[error("the reference profile has no mean row of the input {0}")]
    Centroid(FieldName),
}

impl Profile {
    /// Whether it is about what `manifest` declares.
    pub fn check(&self, manifest: &Manifest) -> Result<(), ProfileMismatch> {
        self.check_features(manifest)?;
        let named = manifest.watch.segments.as_ref().map_or(&[][..], |segments| &segments.named);
        if !named.iter().map(|segment| &segment.name).eq(&self.segments) {
            return Err(ProfileMismatch::Segments);
        }
        self.check_outputs(manifest.prediction.as_ref())
    }

    /// The same, but for the outputs: of a model that has not predicted its reference data yet.
    pub fn check_features(&self, manifest: &Manifest) -> Result<(), ProfileMismatch> {
        let features = manifest.features();
        if features.len() != self.features.len() {
            return Err(ProfileMismatch::Count { profile: self.features.len(), manifest: features.len() });
        }
        for (at, (feature, profile)) in features.into_iter().zip(&self.features).enumerate() {
            self.check_feature(at, feature, profile, manifest)?;
        }
        Ok(())
    }

    fn check_feature(
        &self,
        at: usize,
        feature: WatchedFeature<'_>,
        profile: &FeatureProfile,
        manifest: &Manifest,
    ) -> Result<(), ProfileMismatch> {
        if feature.name != profile.name {
            let (manifest, profile) = (feature.name, profile.name.clone());
            return Err(ProfileMismatch::Name { at, manifest, profile });
        }
        let categorical = matches!(profile.kind, FeatureKind::Categorical(_));
        if categorical != feature.source.is_categorical() {
            return Err(ProfileMismatch::Kind(feature.name));
        }
        let width = |input: &FieldName| {
            manifest.inputs.iter().find(|spec| spec.name == *input).and_then(TensorSpec::row_elements)
        };
        let from_centroid = feature.source == Source::Summary(Summary::Distance);
        if from_centroid && Some(self.centroid(feature.input).len()) != width(feature.input) {
            return Err(ProfileMismatch::Centroid(feature.input.clone()));
        }
        Ok(())
    }

    fn check_outputs(&self, prediction: Option<&PredictionSpec>) -> Result<(), ProfileMismatch> {
        let class = prediction.and_then(PredictionSpec::class);
        let there = |sketch: &Option<SketchProfile>| sketch.is_some();
        let over = |bins: Bins| self.predictions.as_ref().is_some_and(|sketch| sketch.bins == bins);
        if !match (prediction, class) {
            (None, _) => !there(&self.predictions),
            (Some(_), Some(class)) => over(Bins::classes(class.classes)),
            (Some(_), None) => there(&self.predictions),
        } {
            return Err(ProfileMismatch::Output("prediction"));
        }
        if there(&self.confidence) != class.is_some_and(|class| class.confidence.is_some()) {
            return Err(ProfileMismatch::Output("confidence"));
        }
        if there(&self.entropy) != class.is_some_and(|class| class.probabilities.is_some()) {
            return Err(ProfileMismatch::Output("entropy"));
        }
        Ok(())
    }
}
