//! What `serin-agent qualify` prints: measurements, or a fault in words that help. The packer parses
//! this, so fields are only ever added.

use serde::{Deserialize, Serialize};
use serin_protocol::frame::{LoadFault, Prediction};
use serin_protocol::golden::{Compared, Mismatch};
use serin_protocol::manifest::{Measured, NnefForm};
use serin_protocol::message::WorkerDeath;

use super::golden::GoldenFault;
use super::process::{InferError, StartFault};

/// What is printed when the release qualifies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Qualified {
    /// The golden vectors.
    pub golden: GoldenSummary,
    /// What the worker needs.
    pub measured: Measured,
    /// What was rewritten and what is slow; none where a limit was given to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
    /// With `--rows`: what is predicted per row, where the manifest declares a prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<Vec<Predicted>>,
    /// With `--rows`: the numbers about the pictures of each row that the manifest has watched, where it does; null
    /// where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Vec<Vec<Option<f32>>>>,
}

/// What is predicted for one row, as short as JSON can have it: there are up to 200,000.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Predicted {
    /// Class number, its confidence, and the entropy of its probabilities, where there are finite ones.
    Class(i64, Option<f32>, Option<f32>),
    /// A value, where it is finite.
    Value([Option<f32>; 1]),
}

impl From<Prediction> for Predicted {
    fn from(prediction: Prediction) -> Self {
        let finite = |value: f32| Some(value).filter(|value| value.is_finite());
        match prediction {
            Prediction::Class { class, confidence, entropy } => {
                Self::Class(class, finite(confidence), finite(entropy))
            }
            Prediction::Value(value) => Self::Value([finite(value)]),
        }
    }
}

/// What loading does to the model, and whether the second form pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// What is rewritten whenever the model is loaded, a line each.
    pub rewrites: Vec<String>,
    /// What works and is slow, a sentence each.
    pub warnings: Vec<String>,
    /// The second form, which then lies beside the model as `model.nnef`.
    pub nnef: Option<NnefForm>,
    /// What was measured of it, or why there is none.
    pub nnef_because: String,
}

/// How the golden vectors passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenSummary {
    /// Number of cases.
    pub cases: usize,
    /// Largest difference as a share of what is tolerated there.
    pub worst: f32,
}

/// What is printed otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub fault: Fault,
}

/// Why a release does not qualify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which kind.
    pub kind: FaultKind,
    /// In words.
    pub message: String,
    /// The ONNX operator, where that is the problem; the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// What to do about it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The runtime lacks an operator.
    UnsupportedOperator,
    /// The model or a file beside it is broken.
    Load,
    /// The model does not compute what the golden vectors say.
    GoldenMismatch,
    /// Memory ran out.
    MemoryLimit,
    /// No answer in time.
    Hung,
    /// The worker died otherwise.
    Died,
    /// The file of `--rows` is broken or does not fit the model.
    Rows,
}

impl Fault {
    pub(super) fn new(kind: FaultKind, message: String) -> Self {
        Self { kind, message, operator: None, hint: None }
    }

    pub(super) fn of_start(fault: &StartFault) -> Self {
        let message = fault.to_string();
        match fault {
            StartFault::Load(LoadFault::UnsupportedOperators(operators)) => {
                let mut hints: Vec<&str> = operators.iter().map(|found| hint(&found.operator)).collect();
                hints.sort_unstable();
                hints.dedup();
                Self {
                    kind: FaultKind::UnsupportedOperator,
                    message,
                    operator: operators.first().map(|found| found.operator.clone()),
                    hint: Some(hints.join("; ")),
                }
            }
            StartFault::Load(LoadFault::MemoryLimit) => Self::new(FaultKind::MemoryLimit, message),
            StartFault::Load(LoadFault::Invalid(_) | LoadFault::File(_) | LoadFault::Unconfined(_)) => {
                Self::new(FaultKind::Load, message)
            }
            StartFault::Died(death) => Self::new(kind_of(death), message),
            StartFault::Spawn(_) => Self::new(FaultKind::Died, message),
        }
    }

    pub(super) fn of_golden(fault: &GoldenFault) -> Self {
        match fault {
            GoldenFault::Skew(_) => {
                let hint = "the steps before the model in pipeline.json do not do to this feature what the training \
                            side does: compare its constants, its missing values and the order of features";
                let fault = Self::new(FaultKind::GoldenMismatch, fault.to_string());
                Self { hint: Some(hint.into()), ..fault }
            }
            GoldenFault::Mismatch(Mismatch { expected: Compared::Text(_), .. }) => {
                let hint = "a label that differs where its class does not: labels.txt must name the classes in the order of \
                            the model's scores, one a line";
                let fault = Self::new(FaultKind::GoldenMismatch, fault.to_string());
                Self { hint: Some(hint.into()), ..fault }
            }
            GoldenFault::Mixed(_) => {
                let hint = "each row must be computed by itself: rows of several requests are run together. Something in the \
                            model is over its first axis, such as a maximum, a mean or a sort; export it over the other axes, \
                            or with a first length of 1";
                let fault = Self::new(FaultKind::GoldenMismatch, fault.to_string());
                Self { hint: Some(hint.into()), ..fault }
            }
            GoldenFault::Mismatch(_) => {
                let hint = "expected outputs must come from the training side's runtime, on the raw inputs that \
                            pipeline.json starts from; if they do, the runtime computes an operator differently: \
                            re-export without quantisation, with plain operators";
                let fault = Self::new(FaultKind::GoldenMismatch, fault.to_string());
                Self { hint: Some(hint.into()), ..fault }
            }
            GoldenFault::Case { .. } => Self::new(FaultKind::GoldenMismatch, fault.to_string()),
            GoldenFault::Infer { case, error } => Self::of_infer(error, &format!("golden case {case}")),
        }
    }

    pub(super) fn of_infer(error: &InferError, about: &str) -> Self {
        let kind = match error {
            InferError::Died(death) | InferError::Unasked(death) => kind_of(death),
            InferError::Input(_) | InferError::Model(_) => FaultKind::Load,
            InferError::Busy | InferError::Stopped => FaultKind::Died,
        };
        Self::new(kind, format!("{about}: {error}"))
    }
}

const fn kind_of(death: &WorkerDeath) -> FaultKind {
    match death {
        WorkerDeath::MemoryLimit => FaultKind::MemoryLimit,
        WorkerDeath::Hung => FaultKind::Hung,
        WorkerDeath::Signal(_) | WorkerDeath::Exit(_) | WorkerDeath::Forbidden => FaultKind::Died,
    }
}

/// What to do about an operator that the runtime lacks.
fn hint(operator: &str) -> &'static str {
    let quantised =
        operator.starts_with("QLinear") || operator.contains("Quantize") || operator.ends_with("Integer");
    if operator.contains("::") {
        "operators of other sets than ONNX's own cannot run on a device; re-export with standard operators only"
    } else if quantised {
        "export the float model: here float is faster than int8"
    } else {
        "re-export with plain operators, with opset 13 to 18, or let onnxsim fold it away"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_in_the_wrong_place_points_to_its_file() {
        let text = |text: &str| Compared::Text(text.into());
        let mismatch = Mismatch {
            case: 0,
            output: "label".into(),
            element: 0,
            expected: text("zero"),
            actual: text("nine"),
        };
        let fault = Fault::of_golden(&GoldenFault::Mismatch(mismatch));
        assert!(fault.hint.expect("a hint").contains("labels.txt"));
    }

    #[test]
    fn every_unsupported_operator_gets_advice_that_fits() {
        assert!(hint("QLinearAdd").contains("float is faster"));
        assert!(hint("com.acme::Relu").contains("standard operators"));
        assert!(hint("Det").contains("plain operators"));
    }
}
