//! Golden vectors: raw inputs with the outputs that the training side's own runtime computed, so that
//! a device can prove that it computes the same.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::ids::FieldName;
use crate::raw::RawValues;

/// Largest `golden.bin` in bytes; a worker reads it whole.
pub const MAX_GOLDEN_BYTES: usize = 16 * 1024 * 1024;
/// Most cases; more prove nothing new and cost time at every update.
pub const MAX_CASES: usize = 4096;
/// Most characters of a text that are shown where it differs; labels are shorter, and a log line is not for documents.
const SHOWN: usize = 64;

/// The golden vectors of one release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Allowed difference relative to the expected value.
    pub relative: f32,
    /// Allowed difference whatever the expected value.
    pub absolute: f32,
    /// What is handed to the model, where cases say what it must be.
    pub fed: Vec<GoldenFed>,
    /// The cases, at least one.
    pub cases: Vec<GoldenCase>,
}

/// One row in, its outputs out.
///
/// In `golden.bin` the texts of all cases stand behind everything else, and only where there are any: what has none
/// is the same bytes as before there were texts, and what was packed then is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GoldenCase {
    /// Raw values per input, before any preprocessing.
    pub inputs: Vec<GoldenInput>,
    /// Expected values per tensor handed to the model, for those that the training side gave.
    pub tensors: Vec<GoldenTensor>,
    /// Expected values per output, after postprocessing.
    pub outputs: Vec<GoldenTensor>,
    /// Expected texts handed to the model.
    #[serde(skip)]
    pub fed_texts: Vec<GoldenTexts>,
    /// Expected texts per output, such as labels.
    #[serde(skip)]
    pub text_outputs: Vec<GoldenTexts>,
}

impl GoldenCase {
    /// Whether it says anything about what is handed to the model.
    pub const fn says_fed(&self) -> bool {
        !self.tensors.is_empty() || !self.fed_texts.is_empty()
    }

    const fn has_texts(&self) -> bool {
        !self.fed_texts.is_empty() || !self.text_outputs.is_empty()
    }
}

/// What is handed to the model and what comes out of one case, as it is written: only the texts.
type CaseTexts = (Vec<GoldenTexts>, Vec<GoldenTexts>);

/// The raw values of one row of one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenInput {
    /// Name of the input.
    pub name: FieldName,
    /// Its values.
    pub values: RawValues,
}

/// A tensor handed to the model, with names for its values where they have names, so that a difference can be
/// told by its feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenFed {
    /// Name in the pipeline.
    pub name: FieldName,
    /// Names of the values of one row, or none.
    pub features: Vec<String>,
}

/// The values of one row of one output, or of one tensor handed to the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenTensor {
    /// Name of the input or output.
    pub name: FieldName,
    /// Its values.
    pub values: Vec<f32>,
}

/// The texts of one row of one output, or of what is handed to the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenTexts {
    /// Name of the input or output.
    pub name: FieldName,
    /// Its texts.
    pub values: Vec<String>,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq)]
pub enum Compared {
    /// A number; NaN also where there is none.
    Number(f32),
    /// The beginning of a text.
    Text(String),
    /// No text.
    Nothing,
}

impl Compared {
    fn text(text: Option<&[u8]>) -> Self {
        text.map_or(Self::Nothing, |text| {
            Self::Text(String::from_utf8_lossy(text).chars().take(SHOWN).collect())
        })
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Text(text) => write!(formatter, "{text:?}"),
            Self::Nothing => formatter.write_str("nothing"),
        }
    }
}

/// `golden.bin` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoldenError {
    /// Larger than allowed.
    #[error("golden vectors of {0} bytes, at most {MAX_GOLDEN_BYTES} are allowed")]
    TooLarge(usize),
    /// Not what it should be.
    #[error("malformed golden vectors: {0}")]
    Malformed(postcard::Error),
    /// No case, too many, or a tolerance that tolerates nothing or everything.
    #[error("golden vectors need 1 to {MAX_CASES} cases and finite tolerances of at least 0")]
    Useless,
}

/// An output differs from the golden one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("case {case}, output {output}[{element}]: expected {expected}, got {actual}")]
pub struct Mismatch {
    /// Number of the case, from 0.
    pub case: usize,
    /// Name of the output.
    pub output: String,
    /// Element within the row.
    pub element: usize,
    /// What the training side computed.
    pub expected: Compared,
    /// What was computed here.
    pub actual: Compared,
}

/// What is handed to the model differs from what the training side handed to it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "case {}, feature {feature} (model input {}[{}]): the training side has {}, the pipeline here makes {}",
    .mismatch.case, .mismatch.output, .mismatch.element, .mismatch.expected, .mismatch.actual
)]
pub struct Skew {
    /// The feature, or its number where it has no name.
    pub feature: String,
    /// The place and both values.
    pub mismatch: Mismatch,
}

impl Golden {
    /// Decodes and checks `golden.bin`.
    pub fn parse(bytes: &[u8]) -> Result<Self, GoldenError> {
        if bytes.len() > MAX_GOLDEN_BYTES {
            return Err(GoldenError::TooLarge(bytes.len()));
        }
        let (mut golden, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(GoldenError::Malformed)?;
        if !rest.is_empty() {
            golden.take_texts(rest)?;
        }
        golden.checked()
    }

    /// Takes in what stands behind everything else: the texts of each case.
    fn take_texts(&mut self, bytes: &[u8]) -> Result<(), GoldenError> {
        let (texts, rest) =
            postcard::take_from_bytes::<Vec<CaseTexts>>(bytes).map_err(GoldenError::Malformed)?;
        if !rest.is_empty() || texts.len() != self.cases.len() {
            return Err(GoldenError::Malformed(postcard::Error::DeserializeBadEncoding));
        }
        for (case, (fed, outputs)) in self.cases.iter_mut().zip(texts) {
            (case.fed_texts, case.text_outputs) = (fed, outputs);
        }
        Ok(())
    }

    /// Encodes `golden.bin`.
    pub fn encode(&self) -> Result<Vec<u8>, GoldenError> {
        let mut bytes = postcard::to_allocvec(self).map_err(GoldenError::Malformed)?;
        if self.cases.iter().any(GoldenCase::has_texts) {
            let texts: Vec<_> = self.cases.iter().map(|case| (&case.fed_texts, &case.text_outputs)).collect();
            bytes.extend(postcard::to_allocvec(&texts).map_err(GoldenError::Malformed)?);
        }
        if bytes.len() > MAX_GOLDEN_BYTES { Err(GoldenError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    fn checked(self) -> Result<Self, GoldenError> {
        let tolerable = |tolerance: f32| tolerance.is_finite() && tolerance >= 0.0;
        let useful = (1..=MAX_CASES).contains(&self.cases.len())
            && self.cases.iter().all(|case| !case.outputs.is_empty() || !case.text_outputs.is_empty())
            && tolerable(self.relative)
            && tolerable(self.absolute);
        if useful { Ok(self) } else { Err(GoldenError::Useless) }
    }

    /// Compares `actual`, what the pipeline makes of case `case`, with the tensor of the training side.
    pub fn compare_fed(&self, case: usize, tensor: &GoldenTensor, actual: &[f32]) -> Result<(), Skew> {
        self.compare(case, tensor, actual).map_err(|mismatch| self.skew(&tensor.name, mismatch))
    }

    /// The same for texts, which are equal or not.
    pub fn compare_fed_texts(&self, case: usize, texts: &GoldenTexts, actual: &[&[u8]]) -> Result<(), Skew> {
        texts.compare(case, actual).map_err(|mismatch| self.skew(&texts.name, mismatch))
    }

    fn skew(&self, name: &FieldName, mismatch: Mismatch) -> Skew {
        let fed = self.fed.iter().find(|fed| fed.name == *name);
        let feature = fed.and_then(|fed| fed.features.get(mismatch.element)).cloned();
        let feature = feature.unwrap_or_else(|| alloc::format!("{name}[{}]", mismatch.element));
        Skew { feature, mismatch }
    }

    /// Compares `actual`, what was computed for `output` of case `case`, element by element. NaN equals
    /// only NaN.
    pub fn compare(&self, case: usize, output: &GoldenTensor, actual: &[f32]) -> Result<(), Mismatch> {
        let mismatch = |element, expected, actual| Mismatch {
            case,
            output: output.name.as_str().into(),
            element,
            expected: Compared::Number(expected),
            actual: Compared::Number(actual),
        };
        if actual.len() != output.values.len() {
            let element = actual.len().min(output.values.len());
            let expected = output.values.get(element).copied().unwrap_or(f32::NAN);
            return Err(mismatch(element, expected, actual.get(element).copied().unwrap_or(f32::NAN)));
        }
        for (element, (expected, actual)) in output.values.iter().zip(actual).enumerate() {
            let allowed = self.absolute + self.relative * expected.abs();
            let close = (expected - actual).abs() <= allowed
                || (expected.is_nan() && actual.is_nan())
                // Equal infinities have no difference.
                || expected.to_bits() == actual.to_bits();
            if !close {
                return Err(mismatch(element, *expected, *actual));
            }
        }
        Ok(())
    }
}

impl GoldenTexts {
    /// Compares `actual`, what was computed for case `case`, text by text.
    pub fn compare(&self, case: usize, actual: &[&[u8]]) -> Result<(), Mismatch> {
        for element in 0..self.values.len().max(actual.len()) {
            let expected = self.values.get(element).map(String::as_bytes);
            let actual = actual.get(element).copied();
            if expected != actual {
                let output = self.name.as_str().into();
                let (expected, actual) = (Compared::text(expected), Compared::text(actual));
                return Err(Mismatch { case, output, element, expected, actual });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;
    use proptest::prelude::*;

    fn golden(values: Vec<f32>) -> Golden {
        let outputs = vec![GoldenTensor { name: "y".parse().expect("name"), values }];
        let cases = vec![GoldenCase { outputs, ..GoldenCase::default() }];
        Golden { relative: 1e-4, absolute: 1e-5, fed: vec![], cases }
    }

    #[test]
    fn small_differences_pass_and_large_ones_are_located() {
        let golden = golden(vec![1.0, 0.0, f32::NAN]);
        let output = &golden.cases[0].outputs[0];
        assert_eq!(golden.compare(0, output, &[1.000_05, 5e-6, f32::NAN]), Ok(()));
        let mismatch = golden.compare(0, output, &[1.0, 0.1, f32::NAN]).expect_err("differs");
        let values = (mismatch.expected, mismatch.actual);
        assert_eq!((mismatch.element, values), (1, (Compared::Number(0.0), Compared::Number(0.1))));
        assert_eq!(golden.compare(0, output, &[1.0]).expect_err("short").element, 1);
        assert!(golden.compare(0, output, &[f32::NAN, 0.0, f32::NAN]).is_err());
    }

    #[test]
    fn golden_vectors_that_prove_nothing_are_refused() {
        let mut empty = golden(vec![1.0]);
        empty.cases.clear();
        assert_eq!(Golden::parse(&empty.encode().expect("small")), Err(GoldenError::Useless));
        let mut lax = golden(vec![1.0]);
        lax.relative = f32::INFINITY;
        assert_eq!(Golden::parse(&lax.encode().expect("small")), Err(GoldenError::Useless));
    }

    fn texts(name: &str, values: &[&str]) -> GoldenTexts {
        let values = values.iter().map(|value| (*value).into()).collect();
        GoldenTexts { name: name.parse().expect("name"), values }
    }

    #[test]
    fn texts_are_equal_or_located() {
        let labels = texts("label", &["yes", ""]);
        assert_eq!(labels.compare(0, &[b"yes", b""]), Ok(()));
        let swapped = labels.compare(3, &[b"no", b""]).expect_err("differs").to_string();
        assert_eq!(swapped, r#"case 3, output label[0]: expected "yes", got "no""#);
        let short = labels.compare(0, &[b"yes"]).expect_err("short");
        assert_eq!((short.element, short.actual), (1, Compared::Nothing));
        assert!(labels.compare(0, &[b"yes", b"", b""]).is_err());
        let long = "x".repeat(2 * SHOWN);
        let Compared::Text(shown) = Compared::text(Some(long.as_bytes())) else { panic!("a text") };
        assert_eq!(shown.len(), SHOWN);
        let mut golden = golden(vec![1.0]);
        golden.fed =
            vec![GoldenFed { name: "city".parse().expect("name"), features: vec!["city of birth".into()] }];
        let skew = golden.compare_fed_texts(0, &texts("city", &["Oslo"]), &[b"oslo"]).expect_err("differs");
        let said = skew.to_string();
        assert!(
            said.contains("city of birth") && said.contains(r#"has "Oslo", the pipeline here makes "oslo""#),
            "{said}"
        );
    }

    #[test]
    fn texts_stand_behind_what_was_there_before_them() {
        let without = golden(vec![1.0]);
        let bytes = without.encode().expect("small");
        assert_eq!(bytes, postcard::to_allocvec(&without).expect("encodes"), "as before there were texts");
        let mut with = without.clone();
        with.cases.push(GoldenCase {
            fed_texts: vec![texts("city", &["Oslo"])],
            text_outputs: vec![texts("label", &["yes"])],
            ..GoldenCase::default()
        });
        let more = with.encode().expect("small");
        assert_eq!(Golden::parse(&more), Ok(with.clone()));
        // Texts of another number of cases, cut off, or with something behind them.
        let mut fewer = bytes;
        fewer.extend(postcard::to_allocvec(&Vec::<CaseTexts>::new()).expect("encodes"));
        for broken in [fewer, more[..more.len() - 1].to_vec(), [more, vec![0]].concat()] {
            assert!(matches!(Golden::parse(&broken), Err(GoldenError::Malformed(_))));
        }
    }

    proptest! {
        #[test]
        fn golden_vectors_survive(values in prop::collection::vec(-1e3_f32..1e3, 0..50)) {
            let golden = golden(values);
            prop_assert_eq!(Golden::parse(&golden.encode().expect("small")), Ok(golden));
        }

        #[test]
        fn any_bytes_are_golden_vectors_or_an_error(bytes: Vec<u8>) {
            let _ = Golden::parse(&bytes);
        }
    }
}
