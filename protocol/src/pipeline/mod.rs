//! Declared pre- and postprocessing (`pipeline.json`): data, not code. The worker runs it, at packing
//! and on the device alike; here it is parsed and checked against the manifest.

mod flow;
mod kind;
mod post;
mod pre;
mod rules;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::FieldName;
use crate::manifest::{Manifest, TensorSpec};
use crate::release::{Decoder, Decoders};

pub use flow::{Flow, Stage};
pub use kind::{Kind, Precision};
pub use post::{BoxForm, PostStep};
pub use pre::{
    Category, ChannelOrder, Channels, Layout, LongText, PerValue, PreStep, Resampling, UnknownCode,
    UnknownColumn,
};
pub use rules::shorter;

/// Largest `pipeline.json` in bytes: a step or two for each of some hundred columns, some with a number
/// per feature.
pub const MAX_PIPELINE_BYTES: usize = 256 * 1024;
/// Most steps on either side: as many as a table of 128 columns wants, each prepared in eight steps.
pub const MAX_STEPS: usize = 1024;
/// Most pixels of a decoded image. A camera of 16 megapixels; 48 MiB as RGB.
pub const MAX_PIXELS: u32 = 1 << 24;
/// Longest side of an image. What JPEG can say.
pub const MAX_SIDE: u32 = 65_535;
/// Most values of one row on its way to the model; what a manifest allows an input.
pub const MAX_ROW_VALUES: usize = 1 << 26;
/// Most bytes in all windows over one text.
pub const MAX_WINDOW_BYTES: usize = 1 << 20;
/// Most categories of one step: post codes of a country.
pub const MAX_CATEGORIES: usize = 16_384;
/// Most boxes that non-maximum suppression keeps, and largest `k`.
pub const MAX_KEPT: usize = 1024;

/// Steps before and after the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// From raw inputs to model inputs, in order.
    pub pre: Vec<PreStep>,
    /// From model outputs to outputs, in order.
    pub post: Vec<PostStep>,
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

/// Every input whose pictures are watched is decoded to the channels that are said.
fn check_pictures(flow: &Flow, manifest: &Manifest) -> Result<(), PipelineError> {
    for pictured in manifest.watch.pictures(&manifest.inputs) {
        let name = manifest.inputs.get(pictured.place).map_or("", |input| input.name.as_str());
        let decoded = flow.stages.iter().find_map(|stage| match &stage.step {
            PreStep::DecodeImage { channels, .. } if stage.writes == pictured.place => Some(*channels),
            _ => None,
        });
        if decoded != Some(pictured.channels) {
            return Err(PipelineError::Step(format!(
                "watch.summaries: no decode_image step makes of {name} the channels that image says"
            )));
        }
    }
    Ok(())
}

impl Pipeline {
    /// Parses `pipeline.json` and checks every step against `manifest`: values are made before they are
    /// used and are of a kind the step can work on, numbers are finite and as many as features, every
    /// input gets to the model, and every declared output is made.
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, PipelineError> {
        let pipeline = Self::read(bytes)?;
        pipeline.check(manifest)?;
        Ok(pipeline)
    }

    /// Parses `pipeline.json` without checking whether its steps can work.
    pub fn read(bytes: &[u8]) -> Result<Self, PipelineError> {
        if bytes.len() > MAX_PIPELINE_BYTES {
            return Err(PipelineError::TooLarge(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| PipelineError::Malformed(format!("{error}")))
    }

    fn check(&self, manifest: &Manifest) -> Result<(), PipelineError> {
        check_pictures(&self.flow(&manifest.inputs)?, manifest)?;
        if self.post.len() > MAX_STEPS {
            return Err(PipelineError::Step(format!("post: more than {MAX_STEPS} steps")));
        }
        let mut made = BTreeSet::new();
        for (number, step) in self.post.iter().enumerate() {
            step.check(&mut made).map_err(|error| {
                PipelineError::Step(format!("post step {number} ({}): {error}", step.name()))
            })?;
        }
        match manifest.outputs.iter().find(|output| !made.contains(&output.name)) {
            Some(output) => {
                Err(PipelineError::Step(format!("no step makes the declared output {}", output.name)))
            }
            None => Ok(()),
        }
    }

    /// How values go through the steps before the model from `inputs` on. The error names the step.
    pub fn flow(&self, inputs: &[TensorSpec]) -> Result<Flow, PipelineError> {
        Flow::of(&self.pre, inputs).map_err(PipelineError::Step)
    }

    /// The values that are files of images, with the formats that each may have.
    pub fn images(&self) -> impl Iterator<Item = (&FieldName, &[Decoder])> {
        self.pre.iter().filter_map(|step| match step {
            PreStep::DecodeImage { input, formats, .. } => Some((input, formats.as_slice())),
            _ => None,
        })
    }

    /// The decoders that a device needs to run this.
    pub fn decoders(&self) -> Decoders {
        let needed: BTreeSet<Decoder> = self.images().flat_map(|(_, formats)| formats).copied().collect();
        // A set of as many as there are fits.
        needed.into_iter().collect::<heapless::Vec<Decoder, { Decoder::ALL.len() }>>()
    }
}
