//! The steps before the model, as they are written.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::FieldName;
use crate::release::Decoder;

/// One step before the model, applied to every row alike. Steps work in place on the value named
/// `input`, which is an input of the manifest or was made by a step before, unless they name an `output`.
///
/// Numbers are computed in single precision if they came as `FP32` or `UINT8` or were made of pixels, else
/// in double precision, as the training side's arrays do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum PreStep {
    /// Replaces NaN (a missing value) by a number: a constant, or for each feature its own, such as its
    /// mean.
    Missing {
        /// Value worked on.
        input: FieldName,
        /// The number.
        replace: PerValue,
    },
    /// Refuses a row in which a value is missing; an empty text is one.
    Present {
        /// Value worked on.
        input: FieldName,
    },
    /// 1 where a value is missing, else 0.
    Indicator {
        /// Value read.
        input: FieldName,
        /// Value made.
        output: FieldName,
    },
    /// Limits values to `min..=max`. A missing value stays missing.
    Clip {
        /// Value worked on.
        input: FieldName,
        /// Lowest value let through.
        min: PerValue,
        /// Highest value let through.
        max: PerValue,
    },
    /// `x · scale + offset`, as scikit-learn's `MinMaxScaler` with its `scale_` and `min_`.
    Affine {
        /// Value worked on.
        input: FieldName,
        /// Factors.
        scale: PerValue,
        /// Summands.
        offset: PerValue,
    },
    /// `(x − mean) / scale`: a standard scaler with means and standard deviations, a robust one with medians
    /// and interquartile ranges.
    Standard {
        /// Value worked on.
        input: FieldName,
        /// What is subtracted.
        mean: PerValue,
        /// What is divided by; not 0.
        scale: PerValue,
    },
    /// `(x − min) / (max − min)`.
    MinMax {
        /// Value worked on.
        input: FieldName,
        /// What becomes 0.
        min: PerValue,
        /// What becomes 1.
        max: PerValue,
    },
    /// `ln(1 + x)`.
    Log1p {
        /// Value worked on.
        input: FieldName,
    },
    /// Some features of an input, in this order.
    Pick {
        /// Value read.
        input: FieldName,
        /// Names of the features.
        features: Vec<FieldName>,
        /// Value made.
        output: FieldName,
    },
    /// Numbers of several values side by side in one flat row. This is where the order of features is said.
    Concat {
        /// Values read, in this order.
        inputs: Vec<FieldName>,
        /// Value made.
        output: FieldName,
    },
    /// The position of a category in a list, or the number written for it.
    Ordinal {
        /// Value worked on: texts, or whole numbers.
        input: FieldName,
        /// The categories; `""` is a missing text.
        categories: Vec<Category>,
        /// A number for each; positions from 0 if left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        numbers: Vec<f64>,
        /// What to do about others.
        unknown: UnknownCode,
    },
    /// For each category of a list whether it is this one, 1 or 0. Works on one value a row.
    OneHot {
        /// Value worked on: a text, or a whole number.
        input: FieldName,
        /// The categories; `""` is a missing text.
        categories: Vec<Category>,
        /// What to do about others.
        unknown: UnknownColumn,
    },
    /// Decodes a JPEG or PNG file, one a row, to 8 bits a channel. Its orientation (EXIF) is not looked at,
    /// and transparency is dropped.
    DecodeImage {
        /// Value worked on: files, as `BYTES`.
        input: FieldName,
        /// Which formats are accepted. A device needs their decoders.
        formats: Vec<Decoder>,
        /// Channels to make.
        channels: Channels,
        /// Most pixels of an image. It is refused by its header, before it is decoded; the worker's memory
        /// limit allows for that many.
        max_pixels: u32,
    },
    /// Takes `UINT8` pixels, `[rows, height, width, channels]`, as an image.
    Frame {
        /// Value worked on.
        input: FieldName,
    },
    /// Resizes an image to exactly this size, whatever its proportions.
    Resize {
        /// Value worked on.
        input: FieldName,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// How.
        filter: Resampling,
    },
    /// Resizes an image so that its shorter side has this length; the longer one follows in proportion,
    /// rounded down, as torchvision does.
    ResizeShorter {
        /// Value worked on.
        input: FieldName,
        /// Pixels.
        length: u32,
        /// How.
        filter: Resampling,
    },
    /// The middle of an image, which must be at least as large. An odd pixel of difference is cut off at the
    /// left or at the top when half of it rounds up (half to even), as torchvision does.
    CenterCrop {
        /// Value worked on.
        input: FieldName,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Makes numbers of pixels: `(p · scale − mean) / std`, with one number for all channels or one for each,
    /// after their order was changed.
    ImageTensor {
        /// Value worked on.
        input: FieldName,
        /// Where the channels lie.
        layout: Layout,
        /// Their order.
        #[serde(default)]
        order: ChannelOrder,
        /// Factor, such as 1/255.
        scale: f64,
        /// What is subtracted.
        mean: PerValue,
        /// What is divided by; not 0.
        std: PerValue,
    },
    /// Cuts the UTF-8 bytes of a text into windows of equal length, each beginning `stride` bytes after the
    /// one before. One row is `[length]` with one window, else `[windows, length]`.
    ByteWindows {
        /// Value worked on: one text a row.
        input: FieldName,
        /// Bytes of a window.
        length: usize,
        /// Bytes from one window to the next.
        stride: usize,
        /// Windows of a row.
        windows: usize,
        /// The number where the text has ended.
        padding: i32,
        /// What is added to each byte.
        #[serde(default)]
        offset: i32,
        /// What to do about bytes behind the last window.
        long: LongText,
    },
    /// Hands the value to the model under the model's own name for it.
    Feed {
        /// Value handed over.
        input: FieldName,
        /// Name in the ONNX graph.
        model_input: String,
    },
}

/// One number for all values of a row, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerValue {
    /// For all.
    All(f64),
    /// For each; a list of one stands for all.
    Each(Vec<f64>),
}

/// A category as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Category {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

/// What becomes of a category that is not in the list where one number is made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCode {
    /// The row is refused.
    Refuse,
    /// It becomes a missing value.
    Missing,
    /// It becomes this number.
    Number(f64),
}

/// What becomes of a category that is not in the list where a column for each is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownColumn {
    /// The row is refused.
    Refuse,
    /// All columns are 0.
    Zeros,
    /// The last category stands for all that are not in the list.
    Last,
}

/// Channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Red, green and blue. A grey image has all three equal.
    Rgb,
    /// Luma by ITU-R 601, as PIL computes it.
    Grey,
}

impl Channels {
    /// How many.
    pub const fn count(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Grey => 1,
        }
    }
}

/// How an image is resampled, as PIL (Pillow) does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// The pixel under the middle of the new one: PIL's `NEAREST`.
    Nearest,
    /// Weighted by a triangle that widens when an image shrinks, in fixed point, rows first: PIL's
    /// `BILINEAR`. `OpenCV`'s does not widen it and gives other numbers. Pillow 13 takes columns first where that is less work,
    /// as for most upright photos, which rounds some values to a neighbour.
    Bilinear,
}

/// Where channels lie in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `[channels, height, width]`.
    Nchw,
    /// `[height, width, channels]`.
    Nhwc,
}

/// The order of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// As they are.
    #[default]
    Same,
    /// The last one first: RGB becomes BGR.
    Reversed,
}

/// What becomes of a text that is longer than all windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongText {
    /// The rest is not looked at.
    Cut,
    /// The row is refused.
    Refuse,
}

impl PerValue {
    /// The numbers: one, or one for each value.
    pub fn numbers(&self) -> &[f64] {
        match self {
            Self::All(number) => core::slice::from_ref(number),
            Self::Each(numbers) => numbers,
        }
    }

    /// The number for value `at` of a row, 0 where there is none.
    pub fn at(&self, at: usize) -> f64 {
        match self.numbers() {
            [one] => *one,
            numbers => numbers.get(at).copied().unwrap_or(0.0),
        }
    }
}

impl PreStep {
    /// The name of the operation, as it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Present { .. } => "present",
            Self::Indicator { .. } => "indicator",
            Self::Clip { .. } => "clip",
            Self::Affine { .. } => "affine",
            Self::Standard { .. } => "standard",
            Self::MinMax { .. } => "min_max",
            Self::Log1p { .. } => "log1p",
            Self::Pick { .. } => "pick",
            Self::Concat { .. } => "concat",
            Self::Ordinal { .. } => "ordinal",
            Self::OneHot { .. } => "one_hot",
            Self::DecodeImage { .. } => "decode_image",
            Self::Frame { .. } => "frame",
            Self::Resize { .. } => "resize",
            Self::ResizeShorter { .. } => "resize_shorter",
            Self::CenterCrop { .. } => "center_crop",
            Self::ImageTensor { .. } => "image_tensor",
            Self::ByteWindows { .. } => "byte_windows",
            Self::Feed { .. } => "feed",
        }
    }

    /// The value worked on or read; `None` for [`Self::Concat`], which reads several.
    pub const fn input(&self) -> Option<&FieldName> {
        match self {
            Self::Missing { input, .. }
            | Self::Present { input }
            | Self::Indicator { input, .. }
            | Self::Clip { input, .. }
            | Self::Affine { input, .. }
            | Self::Standard { input, .. }
            | Self::MinMax { input, .. }
            | Self::Log1p { input }
            | Self::Pick { input, .. }
            | Self::Ordinal { input, .. }
            | Self::OneHot { input, .. }
            | Self::DecodeImage { input, .. }
            | Self::Frame { input }
            | Self::Resize { input, .. }
            | Self::ResizeShorter { input, .. }
            | Self::CenterCrop { input, .. }
            | Self::ImageTensor { input, .. }
            | Self::ByteWindows { input, .. }
            | Self::Feed { input, .. } => Some(input),
            Self::Concat { .. } => None,
        }
    }
}

impl core::fmt::Display for Category {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
