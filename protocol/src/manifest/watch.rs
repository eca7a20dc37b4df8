//! What of a release's inputs is watched besides its named numbers, and how: categories, segments, and a few numbers
//! about inputs too wide to be watched value by value.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::segments::{SegmentKey, Segmentation};
use super::{MAX_FEATURES, Manifest, TensorSpec};
use crate::ids::FieldName;
use crate::pipeline::Channels;
use crate::sketch::profile::MAX_CENTROID_VALUES;
use crate::sketch::summary::{Form, Layout, MAX_CHANNELS, Summary};
use crate::tensor::DataType;

/// What is watched besides the named features.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// Features whose values are names rather than amounts, and inputs whose rows are such a text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<FieldName>,
    /// Into what rows are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Segmentation>,
    /// Inputs of which a few numbers are watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub summaries: Vec<Summarized>,
}

/// An input of which a few numbers are watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summarized {
    /// The input, of numbers, or of files of images.
    pub input: FieldName,
    /// That its rows are files of images, which the pipeline decodes to these channels: the numbers are about the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Channels>,
    /// How its channels lie, where they are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Which numbers.
    pub of: Vec<SummaryKind>,
}

/// What is watched of the pictures that an input is files of. The numbers about all pictures of one row of a request lie beside
/// each other, in the order of inputs and of their features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictured {
    /// Place of the input among all.
    pub place: usize,
    /// To which channels it is decoded.
    pub channels: Channels,
    /// Place of its first number among those of a row.
    pub first: usize,
    /// Its numbers.
    pub summaries: Vec<Summary>,
}

/// Which number about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SummaryKind {
    /// Mean of all values.
    Brightness,
    /// Standard deviation of all values.
    Contrast,
    /// Mean of each channel.
    Channels,
    /// Root of the mean square.
    Energy,
    /// Euclidean length.
    Norm,
    /// Euclidean distance from the mean of the reference data.
    Distance,
}

/// One watched feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedFeature<'a> {
    /// Its name.
    pub name: FieldName,
    /// The input that it is about.
    pub input: &'a FieldName,
    /// What of the input it is.
    pub source: Source,
}

/// What of a row a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its value at this place.
    Value(usize),
    /// The same, as a name rather than an amount.
    Category(usize),
    /// The text that the row is.
    Text,
    /// A number about all of it.
    Summary(Summary),
}

impl Source {
    /// Whether its values are names rather than amounts.
    pub const fn is_categorical(self) -> bool {
        match self {
            Self::Category(_) | Self::Text => true,
            Self::Value(_) | Self::Summary(_) => false,
        }
    }
}

impl Watch {
    /// Whether nothing is declared.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// All that is watched of `inputs`, in their order: of each its named values, or the text that it is, then the
    /// numbers about it.
    pub fn features<'a>(&self, inputs: &'a [TensorSpec]) -> Vec<WatchedFeature<'a>> {
        let mut all = Vec::new();
        for input in inputs {
            let feature = |name, source| WatchedFeature { name, input: &input.name, source };
            let named = input.features.iter().enumerate().map(|(at, name)| {
                let source =
                    if self.categorical.contains(name) { Source::Category(at) } else { Source::Value(at) };
                feature(name.clone(), source)
            });
            all.extend(named);
            if self.is_categorical_text(input) {
                all.push(feature(input.name.clone(), Source::Text));
            }
            let about = self.summaries_of(input).filter_map(|summary| {
                // Names that do not fit were refused.
                Some(feature(name_of(&input.name, summary).ok()?, Source::Summary(summary)))
            });
            all.extend(about);
        }
        all
    }

    /// How the rows of `input` lie, where numbers about them are watched; none where they are files of images.
    pub fn form(&self, input: &TensorSpec) -> Option<Form> {
        let declared = self.summaries.iter().find(|declared| declared.input == input.name)?;
        if declared.image.is_some() {
            return None;
        }
        Some(Form {
            width: input.row_elements()?,
            channels: declared.channels(input).unwrap_or(1),
            layout: declared.layout.unwrap_or(Layout::Hwc),
        })
    }

    /// Of every one of `inputs` that is files of images, what is watched of the pictures in them, in order.
    pub fn pictures(&self, inputs: &[TensorSpec]) -> Vec<Pictured> {
        let mut first = 0;
        let mut all = Vec::new();
        for (place, input) in inputs.iter().enumerate() {
            let declared = self.summaries.iter().find(|declared| declared.input == input.name);
            let Some(channels) = declared.and_then(|declared| declared.image) else { continue };
            let summaries: Vec<Summary> = self.summaries_of(input).collect();
            let behind = first + summaries.len();
            all.push(Pictured { place, channels, first, summaries });
            first = behind;
        }
        all
    }

    fn is_categorical_text(&self, input: &TensorSpec) -> bool {
        input.is_text() && self.categorical.contains(&input.name)
    }

    fn summaries_of(&self, input: &TensorSpec) -> impl Iterator<Item = Summary> {
        let declared = self.summaries.iter().find(|declared| declared.input == input.name);
        let channels = declared.and_then(|declared| declared.channels(input)).unwrap_or(0);
        let kinds = declared.map_or(&[][..], |declared| &declared.of);
        kinds.iter().flat_map(move |kind| {
            let (one, of_channels) = match kind {
                SummaryKind::Brightness => (Some(Summary::Brightness), 0),
                SummaryKind::Contrast => (Some(Summary::Contrast), 0),
                SummaryKind::Channels => (None, channels.min(MAX_CHANNELS) as u8),
                SummaryKind::Energy => (Some(Summary::Energy), 0),
                SummaryKind::Norm => (Some(Summary::Norm), 0),
                SummaryKind::Distance => (Some(Summary::Distance), 0),
            };
            one.into_iter().chain((0..of_channels).map(Summary::Channel))
        })
    }
}

impl Summarized {
    /// Channels of the input, by its layout, or as it is decoded.
    fn channels(&self, input: &TensorSpec) -> Option<usize> {
        if let Some(channels) = self.image {
            return Some(channels.count());
        }
        let ((Layout::Hwc, [_, _, _, place]) | (Layout::Chw, [_, place, _, _])) =
            (self.layout?, input.shape.as_slice())
        else {
            return None;
        };
        usize::try_from(*place).ok().filter(|channels| (1..=MAX_CHANNELS).contains(channels))
    }

    fn check_image(&self, input: &TensorSpec) -> Result<(), String> {
        let name = &self.input;
        if !input.is_text() {
            return Err(format!(
                "watch.summaries: image is for files of images; input {name} is not one BYTES value a row"
            ));
        }
        if self.layout.is_some() {
            return Err(format!("watch.summaries: the decoder knows the layout of {name}; leave it out"));
        }
        if self.of.iter().any(|kind| matches!(kind, SummaryKind::Norm | SummaryKind::Distance)) {
            return Err(format!(
                "watch.summaries: pictures of any size, as {name} has them, have neither norm nor distance"
            ));
        }
        Ok(())
    }

    fn check(&self, inputs: &[TensorSpec]) -> Result<(), String> {
        let name = &self.input;
        let Some(input) = inputs.iter().find(|input| input.name == *name) else {
            return Err(format!("watch.summaries: there is no input {name}"));
        };
        match self.image {
            Some(_) => self.check_image(input)?,
            None if input.datatype == DataType::Bytes => {
                return Err(format!(
                    "watch.summaries: input {name} holds texts; numbers about it need its raw values or, where it is files \
                     of images that the pipeline decodes, image = \"rgb\" or \"grey\""
                ));
            }
            None => {}
        }
        if self.of.is_empty() {
            return Err(format!("watch.summaries: of says which numbers about {name} are watched"));
        }
        if let Some(kind) =
            self.of.iter().enumerate().find(|(at, kind)| self.of.iter().take(*at).any(|other| other == *kind))
        {
            return Err(format!("watch.summaries: {:?} of {name} is named twice", kind.1));
        }
        if self.of.contains(&SummaryKind::Channels) && self.channels(input).is_none() {
            return Err(format!(
                "watch.summaries: channels of {name} need layout = \"hwc\" or \"chw\" and a shape of [-1, height, \
                 width, channels] or [-1, channels, height, width] with 1 to {MAX_CHANNELS} of them"
            ));
        }
        let wide = input.row_elements().is_none_or(|width| width > MAX_CENTROID_VALUES);
        if self.of.contains(&SummaryKind::Distance) && wide {
            return Err(format!(
                "watch.summaries: the distance of {name} is watched over {MAX_CENTROID_VALUES} values at most"
            ));
        }
        Ok(())
    }
}

/// What a number about an input is called as a feature.
fn name_of(input: &FieldName, summary: Summary) -> Result<FieldName, String> {
    let suffix = match summary {
        Summary::Brightness => "brightness",
        Summary::Contrast => "contrast",
        Summary::Channel(channel) => return named(&format!("{input}.channel{channel}")),
        Summary::Energy => "energy",
        Summary::Norm => "norm",
        Summary::Distance => "distance",
    };
    named(&format!("{input}.{suffix}"))
}

fn named(text: &str) -> Result<FieldName, String> {
    text.parse().map_err(|error| format!("watch.summaries: {text:?} is no name of a feature: {error}"))
}

impl Manifest {
    /// All that is watched of the inputs, in order.
    pub fn features(&self) -> Vec<WatchedFeature<'_>> {
        self.watch.features(&self.inputs)
    }

    pub(super) fn check_watch(&self) -> Result<(), String> {
        let Watch { categorical, segments, summaries } = &self.watch;
        for (at, summarized) in summaries.iter().enumerate() {
            summarized.check(&self.inputs)?;
            if summaries.iter().take(at).any(|other| other.input == summarized.input) {
                return Err(format!("watch.summaries: input {} is named twice", summarized.input));
            }
        }
        for input in &self.inputs {
            self.watch.summaries_of(input).try_for_each(|summary| name_of(&input.name, summary).map(drop))?;
        }
        let features = self.features();
        if features.len() > MAX_FEATURES {
            return Err(format!("more than {MAX_FEATURES} features"));
        }
        let is_category = |name: &FieldName| {
            features.iter().any(|feature| feature.name == *name && feature.source.is_categorical())
        };
        if let Some(name) = categorical.iter().find(|name| !is_category(name)) {
            return Err(format!(
                "watch.categorical: {name} is neither a feature nor an input of one text a row"
            ));
        }
        if let Some(SegmentKey::Feature(key)) = segments.as_ref().map(|segments| &segments.key)
            && !features.iter().any(|feature| feature.name == *key)
        {
            return Err(format!("watch.segments: {key} is no watched feature"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
