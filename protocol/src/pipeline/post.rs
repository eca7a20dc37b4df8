//! The steps after the model, as they are written, and what can be checked of them without it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::MAX_KEPT;
use super::pre::PerValue;
use crate::ids::FieldName;

/// One step after the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum PostStep {
    /// Takes an output of the model.
    Take {
        /// Name in the ONNX graph.
        model_output: String,
        /// Output made.
        output: FieldName,
    },
    /// Softmax over the last axis, in place.
    Softmax {
        /// Output worked on.
        output: FieldName,
    },
    /// `1 / (1 + e⁻ˣ)`, in place.
    Sigmoid {
        /// Output worked on.
        output: FieldName,
    },
    /// Position of the largest value along the last axis; the first of equals.
    Argmax {
        /// Output read.
        from: FieldName,
        /// Output made.
        output: FieldName,
    },
    /// Largest value along the last axis.
    Max {
        /// Output read.
        from: FieldName,
        /// Output made.
        output: FieldName,
    },
    /// The value at one place of the last axis, such as the probability of one class.
    Pick {
        /// Output read.
        from: FieldName,
        /// The place, from 0.
        index: usize,
        /// Output made.
        output: FieldName,
    },
    /// The `k` largest values along the last axis, largest first, the first of equals before the others.
    TopK {
        /// Output read.
        from: FieldName,
        /// How many; the last axis must have as many.
        k: usize,
        /// Their positions, output made.
        classes: FieldName,
        /// The values, output made.
        scores: FieldName,
    },
    /// 1 where a value is at least the threshold, in single precision as scores are, else 0; where it is no number, −1.
    Threshold {
        /// Output read.
        from: FieldName,
        /// The threshold: one, or one for each place of the last axis.
        at: PerValue,
        /// Output made.
        output: FieldName,
    },
    /// The line of `labels.txt` for each class number; an empty text for class −1, which is none.
    Labels {
        /// Output read.
        from: FieldName,
        /// Output made.
        output: FieldName,
    },
    /// Non-maximum suppression. Every box counts for the class with its best score; of boxes of one class that
    /// overlap more than `overlap`, the one with the best score is kept. What is kept comes best first, padded
    /// to `most` with boxes of zeros, class −1 and score 0. The 10,000 best boxes are looked at.
    Nms {
        /// Boxes, `[rows, boxes, 4]`.
        boxes: FieldName,
        /// How they are written.
        form: BoxForm,
        /// Scores, `[rows, boxes, classes]`.
        scores: FieldName,
        /// Least score that counts.
        least: f32,
        /// Largest share of overlap (intersection over union) that is no duplicate, 0 to 1.
        overlap: f32,
        /// Most boxes kept.
        most: usize,
        /// Corners `[rows, most, 4]` as `x1 y1 x2 y2`, output made.
        kept: FieldName,
        /// Their classes `[rows, most]`, output made.
        classes: FieldName,
        /// Their scores `[rows, most]`, output made.
        kept_scores: FieldName,
    },
}

/// How a box is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxForm {
    /// `x1 y1 x2 y2`.
    Corners,
    /// Middle, width and height.
    Center,
}

impl PostStep {
    /// The name of the operation, as it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Take { .. } => "take",
            Self::Softmax { .. } => "softmax",
            Self::Sigmoid { .. } => "sigmoid",
            Self::Argmax { .. } => "argmax",
            Self::Max { .. } => "max",
            Self::Pick { .. } => "pick",
            Self::TopK { .. } => "top_k",
            Self::Threshold { .. } => "threshold",
            Self::Labels { .. } => "labels",
            Self::Nms { .. } => "nms",
        }
    }

    pub(super) fn check(&self, made: &mut BTreeSet<FieldName>) -> Result<(), String> {
        let there = |name: &FieldName, made: &BTreeSet<FieldName>| {
            if made.contains(name) { Ok(()) } else { Err(format!("no earlier step makes {name}")) }
        };
        match self {
            Self::Softmax { output } | Self::Sigmoid { output } => there(output, made),
            Self::Take { output, .. } => declare(output, made),
            Self::Argmax { from, output }
            | Self::Max { from, output }
            | Self::Pick { from, output, .. }
            | Self::Labels { from, output } => {
                there(from, made)?;
                declare(output, made)
            }
            Self::Threshold { from, at, output } => {
                there(from, made)?;
                if at.numbers().is_empty() || !at.numbers().iter().all(|at| at.is_finite()) {
                    return Err("at must be a number, or one for each place".into());
                }
                declare(output, made)
            }
            Self::TopK { from, k, classes, scores } => {
                there(from, made)?;
                if !(1..=MAX_KEPT).contains(k) {
                    return Err(format!("k must be 1 to {MAX_KEPT}"));
                }
                declare(classes, made)?;
                declare(scores, made)
            }
            Self::Nms { boxes, scores, least, overlap, most, kept, classes, kept_scores, form: _ } => {
                there(boxes, made)?;
                there(scores, made)?;
                if !least.is_finite() || !(0.0..=1.0).contains(overlap) {
                    return Err("least must be a number, and overlap 0 to 1".into());
                }
                if !(1..=MAX_KEPT).contains(most) {
                    return Err(format!("most must be 1 to {MAX_KEPT}"));
                }
                [kept, classes, kept_scores].into_iter().try_for_each(|output| declare(output, made))
            }
        }
    }
}

fn declare(output: &FieldName, made: &mut BTreeSet<FieldName>) -> Result<(), String> {
    if made.insert(output.clone()) { Ok(()) } else { Err(format!("output {output} is made twice")) }
}
