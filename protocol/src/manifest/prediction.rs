//! Which outputs tell what was predicted: a class out of some, or a value.

use alloc::format;
use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::TensorSpec;
use crate::ids::FieldName;
use crate::sketch::MAX_BINS;
use crate::tensor::DataType;

/// The outputs that tell what was predicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum PredictionSpec {
    /// One class out of some.
    Class(ClassPrediction),
    /// A value.
    Value {
        /// Output with the value, `FP32` `[-1]`.
        value: FieldName,
    },
}

/// The outputs of a model that predicts classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassPrediction {
    /// Output with the class number, `INT64` `[-1]`.
    pub class: FieldName,
    /// Output with its confidence in 0..=1, `FP32` `[-1]`.
    pub confidence: Option<FieldName>,
    /// Output with the probability of each class, `FP32` `[-1, classes]`: how evenly it is spread is watched.
    pub probabilities: Option<FieldName>,
    /// Number of classes, 1 to 32.
    pub classes: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<FieldName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confidence: Option<FieldName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probabilities: Option<FieldName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    classes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<FieldName>,
}

impl TryFrom<Written> for PredictionSpec {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written {
                class: Some(class),
                classes: Some(classes),
                value: None,
                confidence,
                probabilities,
            } => Ok(Self::Class(ClassPrediction { class, confidence, probabilities, classes })),
            Written {
                value: Some(value),
                class: None,
                classes: None,
                confidence: None,
                probabilities: None,
            } => Ok(Self::Value { value }),
            Written { .. } => {
                Err("a prediction is a class with the number of classes, or a value and nothing else")
            }
        }
    }
}

impl From<PredictionSpec> for Written {
    fn from(spec: PredictionSpec) -> Self {
        match spec {
            PredictionSpec::Class(ClassPrediction { class, confidence, probabilities, classes }) => {
                Self { class: Some(class), confidence, probabilities, classes: Some(classes), value: None }
            }
            PredictionSpec::Value { value } => {
                Self { class: None, confidence: None, probabilities: None, classes: None, value: Some(value) }
            }
        }
    }
}

impl PredictionSpec {
    /// What is declared of a class, where one is predicted.
    pub const fn class(&self) -> Option<&ClassPrediction> {
        match self {
            Self::Class(class) => Some(class),
            Self::Value { .. } => None,
        }
    }

    pub(super) fn check(&self, outputs: &[TensorSpec]) -> Result<(), String> {
        let is = |key: &str, name: &FieldName, datatype: DataType, shape: &[i64]| {
            let like =
                |spec: &TensorSpec| spec.name == *name && spec.datatype == datatype && spec.shape == shape;
            if outputs.iter().any(like) {
                return Ok(());
            }
            Err(format!("prediction.{key} {name} must be an {} output of shape {shape:?}", datatype.name()))
        };
        let ClassPrediction { class, confidence, probabilities, classes } = match self {
            Self::Class(class) => class,
            Self::Value { value } => return is("value", value, DataType::Fp32, &[-1]),
        };
        if !(1..=MAX_BINS).contains(classes) {
            return Err(format!("prediction.classes must be 1 to {MAX_BINS}"));
        }
        is("class", class, DataType::Int64, &[-1])?;
        if let Some(name) = confidence {
            is("confidence", name, DataType::Fp32, &[-1])?;
        }
        match probabilities {
            Some(name) => {
                is("probabilities", name, DataType::Fp32, &[-1, i64::try_from(*classes).unwrap_or(0)])
            }
            None => Ok(()),
        }
    }
}
