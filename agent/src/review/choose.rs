//! Which row of a request is taken for review, and what of it is left out. Pure: chance is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use serin_protocol::frame::Prediction;
use serin_protocol::ids::{BasisPoints, FieldName};
use serin_protocol::manifest::{Manifest, Source};
use serin_protocol::review::{ReviewPolicy, SampleReason};
use serin_protocol::sketch::Place;
use serin_protocol::sketch::categories::Observed;
use serin_protocol::sketch::profile::{FeatureKind, Profile};
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

/// Rows of a request that are looked at: a large batch costs no more than this.
const MAX_ROWS: usize = 64;

/// Chooses for one release.
#[derive(Clone, Debug)]
pub struct Chooser {
    policy: ReviewPolicy,
    manifest: Arc<Manifest>,
    profile: Arc<Profile>,
    /// Left out: by the owner, and by the device.
    redact: Vec<FieldName>,
}

/// A row that is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Why.
    pub reason: SampleReason,
    /// Inputs that were not left out.
    pub inputs: Vec<TensorHeader>,
    /// Their values.
    pub body: Vec<u8>,
    /// What was left out.
    pub redacted: Vec<FieldName>,
    /// What was predicted.
    pub prediction: Option<Prediction>,
    /// What the shadow predicted.
    pub shadow: Option<Prediction>,
}

/// A request with what was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Its inputs.
    pub inputs: &'a [TensorHeader],
    /// Their values.
    pub body: &'a [u8],
    /// What was predicted.
    pub predictions: &'a [Prediction],
    /// What a release in the shadow predicted.
    pub shadow: Option<&'a [Prediction]>,
}

impl Chooser {
    /// Chooses by the policy of `manifest`, if it has one, leaving out also what this device does not let go.
    pub fn new(manifest: &Arc<Manifest>, profile: &Arc<Profile>, redact: &[FieldName]) -> Option<Self> {
        let policy = manifest.review.clone()?;
        let redact = policy.redact.iter().chain(redact).cloned().collect();
        Some(Self { policy, manifest: Arc::clone(manifest), profile: Arc::clone(profile), redact })
    }

    /// Its policy.
    pub const fn policy(&self) -> &ReviewPolicy {
        &self.policy
    }

    /// The row that is taken, if one is. `chance` is 0 to 65535.
    pub fn choose(&self, answered: Answered<'_>, chance: u16) -> Option<Chosen> {
        let rows = answered.inputs.first()?.shape.first().copied()? as usize;
        let parts = split_body(answered.inputs, answered.body)?;
        let parts: Vec<(&TensorHeader, &[u8])> = answered.inputs.iter().zip(parts).collect();
        let unlike = |row: usize| {
            let live = answered.predictions.get(row)?;
            let shadow = answered.shadow?.get(row)?;
            Some(live.class() != shadow.class())
        };
        let unsure = |row: usize| {
            let least = f32::from(self.policy.below_confidence?.0) / f32::from(BasisPoints::WHOLE.0);
            Some(answered.predictions.get(row)?.confidence() < least)
        };
        // A comparison was chosen from already when it was answered, for every reason but this.
        if answered.shadow.is_some() {
            let row = (0..rows.min(MAX_ROWS)).find(|row| unlike(*row) == Some(true));
            let row = row.filter(|_| self.policy.disagreeing)?;
            return self.take(SampleReason::Disagreeing, row, rows, &parts, answered);
        }
        for row in 0..rows.min(MAX_ROWS) {
            if unsure(row) == Some(true) {
                return self.take(SampleReason::LowConfidence, row, rows, &parts, answered);
            }
            if self.policy.out_of_range && self.is_out_of_range(row, rows, &parts) {
                return self.take(SampleReason::OutOfRange, row, rows, &parts, answered);
            }
        }
        let hit = u32::from(chance) * 10_000 < u32::from(self.policy.random.0) * (u32::from(u16::MAX) + 1);
        let row = usize::from(chance) % rows.clamp(1, MAX_ROWS);
        if hit { self.take(SampleReason::Random, row, rows, &parts, answered) } else { None }
    }

    fn is_out_of_range(&self, row: usize, rows: usize, parts: &[(&TensorHeader, &[u8])]) -> bool {
        let features = self.manifest.features();
        let mut watched = features.iter().zip(&self.profile.features);
        watched.any(|(feature, profile)| {
            // What must not be kept must not be told by what is kept, either.
            if self.redact.contains(&feature.name) || self.redact.contains(feature.input) {
                return false;
            }
            let (Source::Value(at) | Source::Category(at)) = feature.source else { return false };
            let Some((header, part)) = parts.iter().find(|(header, _)| header.name == *feature.input) else {
                return false;
            };
            let value = row_of(header, part, row, rows).and_then(|values| header.datatype.number(values, at));
            let place = value.map(|value| match &profile.kind {
                FeatureKind::Numeric => profile.sketch.bins.locate(value as f32),
                FeatureKind::Categorical(categories) => categories.place(Observed::Number(value)),
            });
            // Of categories, one that is not among the most frequent.
            matches!(place, Some(Place::Under | Place::Over))
        })
    }

    fn take(
        &self,
        reason: SampleReason,
        row: usize,
        rows: usize,
        parts: &[(&TensorHeader, &[u8])],
        answered: Answered<'_>,
    ) -> Option<Chosen> {
        let mut chosen = Chosen {
            reason,
            inputs: Vec::new(),
            body: Vec::new(),
            redacted: Vec::new(),
            prediction: answered.predictions.get(row).copied(),
            shadow: answered.shadow.and_then(|shadow| shadow.get(row)).copied(),
        };
        for (header, part) in parts {
            if self.redact.contains(&header.name) {
                chosen.redacted.push(header.name.clone());
                continue;
            }
            let mut values = row_of(header, part, row, rows)?.to_vec();
            let spec = self.manifest.inputs.iter().find(|spec| spec.name == header.name)?;
            for (at, feature) in spec.features.iter().enumerate() {
                if self.redact.contains(feature) {
                    blank(header.datatype, &mut values, at)?;
                    chosen.redacted.push(feature.clone());
                }
            }
            let mut header = (*header).clone();
            *header.shape.first_mut()? = 1;
            header.bytes = values.len() as u64;
            chosen.body.extend(values);
            chosen.inputs.push(header);
        }
        Some(chosen)
    }
}

/// The bytes of one row of an input.
fn row_of<'a>(header: &TensorHeader, part: &'a [u8], row: usize, rows: usize) -> Option<&'a [u8]> {
    if header.datatype.width().is_some() {
        let width = part.len().checked_div(rows)?;
        return part.get(row * width..(row + 1) * width);
    }
    // Texts, each behind its length.
    let each = header
        .shape
        .iter()
        .skip(1)
        .try_fold(1_usize, |product, length| product.checked_mul(*length as usize))?;
    let (mut at, mut begin) = (0_usize, 0_usize);
    for text in 0..(row + 1).checked_mul(each)? {
        if text == row * each {
            begin = at;
        }
        let length = u32::from_le_bytes(*part.get(at..)?.first_chunk::<4>()?) as usize;
        at = at.checked_add(4)?.checked_add(length)?;
    }
    part.get(begin..at)
}

/// Overwrites one value of a row: by no number where the type has that, else by zero. None of texts, which have no
/// features.
fn blank(datatype: DataType, values: &mut [u8], at: usize) -> Option<()> {
    let width = datatype.width()?;
    let place = values.get_mut(at * width..(at + 1) * width)?;
    match datatype {
        DataType::Fp32 => place.copy_from_slice(&f32::NAN.to_le_bytes()),
        DataType::Fp64 => place.copy_from_slice(&f64::NAN.to_le_bytes()),
        DataType::Int64 | DataType::Int32 | DataType::Uint8 | DataType::Bool | DataType::Bytes => {
            place.fill(0);
        }
    }
    Some(())
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
