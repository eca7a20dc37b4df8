//! Declared pre- and postprocessing (`pipeline.json`): data, not code. The worker runs it, at packing
//! and on the device alike; here it is parsed and checked against the manifest.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::FieldName;
use crate::manifest::Manifest;

/// Largest `pipeline.json` in bytes: 64 steps, some with a number per feature.
pub const MAX_PIPELINE_BYTES: usize = 256 * 1024;
/// Most steps on either side.
pub const MAX_STEPS: usize = 64;

/// Steps before and after the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// From raw inputs to model inputs, in order.
    pub pre: Vec<PreStep>,
    /// From model outputs to outputs, in order.
    pub post: Vec<PostStep>,
}

/// One step before the model. All work in place on one named input, row by row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum PreStep {
    /// Replaces NaN (a missing value) by a number.
    Missing {
        /// Input worked on.
        input: FieldName,
        /// The number.
        replace: f32,
    },
    /// Limits values to `min..=max`.
    Clip {
        /// Input worked on.
        input: FieldName,
        /// Lowest value let through.
        min: f32,
        /// Highest value let through.
        max: f32,
    },
    /// `x · scale + offset`, with one number for all features or one for each.
    Affine {
        /// Input worked on.
        input: FieldName,
        /// Factors.
        scale: Vec<f32>,
        /// Summands.
        offset: Vec<f32>,
    },
    /// Hands the input to the model under the model's own name for it.
    Feed {
        /// Input handed over.
        input: FieldName,
        /// Name in the ONNX graph.
        model_input: String,
    },
}

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
    /// The line of `labels.txt` for each class number.
    Labels {
        /// Output read.
        from: FieldName,
        /// Output made.
        output: FieldName,
    },
}

/// `pipeline.json` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// Larger than allowed.
    #[error("pipeline.json has {0} bytes, at most {MAX_PIPELINE_BYTES} are allowed")]
    TooLarge(usize),
    /// Not JSON of this form.
    #[error("pipeline.json: {0}")]
    Malformed(String),
    /// A step cannot work.
    #[error("pipeline.json, {0}")]
    Step(String),
}

impl Pipeline {
    /// Parses `pipeline.json` and checks every step against `manifest`: inputs exist, numbers are
    /// finite and as many as features, outputs are made before they are read, and every declared
    /// output is made.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, PipelineError> {
        if bytes.len() > MAX_PIPELINE_BYTES {
            return Err(PipelineError::TooLarge(bytes.len()));
        }
        let pipeline: Self =
            serde_json::from_slice(bytes).map_err(|error| PipelineError::Malformed(format!("{error}")))?;
        pipeline.check(manifest).map_err(PipelineError::Step)?;
        Ok(pipeline)
    }

    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        if self.pre.len() > MAX_STEPS || self.post.len() > MAX_STEPS {
            return Err(format!("more than {MAX_STEPS} steps"));
        }
        for (number, step) in self.pre.iter().enumerate() {
            step.check(manifest).map_err(|error| format!("pre step {number}: {error}"))?;
        }
        for input in &manifest.inputs {
            let fed =
                |step: &PreStep| matches!(step, PreStep::Feed { input: name, .. } if *name == input.name);
            if self.pre.iter().filter(|step| fed(step)).count() != 1 {
                return Err(format!("input {} must be fed to the model exactly once", input.name));
            }
        }
        let mut made = BTreeSet::new();
        for (number, step) in self.post.iter().enumerate() {
            step.check(&mut made).map_err(|error| format!("post step {number}: {error}"))?;
        }
        match manifest.outputs.iter().find(|output| !made.contains(&output.name)) {
            Some(output) => Err(format!("no step makes the declared output {}", output.name)),
            None => Ok(()),
        }
    }
}

impl PreStep {
    /// The input worked on.
    pub const fn input(&self) -> &FieldName {
        match self {
            Self::Missing { input, .. }
            | Self::Clip { input, .. }
            | Self::Affine { input, .. }
            | Self::Feed { input, .. } => input,
        }
    }

    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let name = self.input();
        let Some(input) = manifest.inputs.iter().find(|input| input.name == *name) else {
            return Err(format!("there is no input {name}"));
        };
        match self {
            Self::Missing { replace, .. } if !replace.is_finite() => Err("replace is not finite".into()),
            Self::Clip { min, max, .. } if min.partial_cmp(max).is_none_or(core::cmp::Ordering::is_gt) => {
                Err("min is not below max".into())
            }
            Self::Affine { scale, offset, .. } => {
                let row = input.row_elements();
                let fits = |numbers: &[f32]| numbers.len() == 1 || Some(numbers.len()) == row;
                if !scale.iter().chain(offset).all(|number| number.is_finite()) {
                    return Err("scale or offset is not finite".into());
                }
                if fits(scale) && fits(offset) {
                    Ok(())
                } else {
                    Err(format!("scale and offset need one number, or one for each of the {row:?} values"))
                }
            }
            Self::Missing { .. } | Self::Clip { .. } | Self::Feed { .. } => Ok(()),
        }
    }
}

impl PostStep {
    fn check(&self, made: &mut BTreeSet<FieldName>) -> Result<(), String> {
        match self {
            Self::Softmax { output } => {
                if made.contains(output) {
                    return Ok(());
                }
                Err(format!("no earlier step makes {output}"))
            }
            Self::Take { output, .. } => declare(output, made),
            Self::Argmax { from, output } | Self::Max { from, output } | Self::Labels { from, output } => {
                if !made.contains(from) {
                    return Err(format!("no earlier step makes {from}"));
                }
                declare(output, made)
            }
        }
    }
}

fn declare(output: &FieldName, made: &mut BTreeSet<FieldName>) -> Result<(), String> {
    if made.insert(output.clone()) { Ok(()) } else { Err(format!("output {output} is made twice")) }
}
