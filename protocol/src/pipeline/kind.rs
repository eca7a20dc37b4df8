//! What a value is on its way to the model: numbers, texts or an image, with the shape of a row.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::MAX_ROW_VALUES;
use crate::ids::FieldName;
use crate::manifest::TensorSpec;
use crate::tensor::DataType;

/// How numbers are held and computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// Bytes as they came; the first step that computes makes single precision of them.
    Byte,
    /// IEEE 754 single precision.
    Single,
    /// IEEE 754 double precision. Whole numbers are exact up to 2^53, and larger ones are refused.
    Double,
}

/// What a value is, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers.
    Numbers {
        /// Lengths of one row.
        row: Vec<usize>,
        /// In which precision they are computed.
        precision: Precision,
        /// A name for each, where they have names.
        names: Vec<String>,
    },
    /// Texts, or any bytes.
    Texts {
        /// Lengths of one row.
        row: Vec<usize>,
        /// A name for each, where they have names.
        names: Vec<String>,
    },
    /// One image a row.
    Image {
        /// Channels.
        channels: usize,
        /// Width and height; `None` while they differ from row to row.
        size: Option<(u32, u32)>,
    },
}

impl Kind {
    pub(super) fn of(input: &TensorSpec) -> Self {
        let lengths = input.shape.iter().skip(1);
        let row: Vec<usize> = lengths.map(|length| usize::try_from(*length).unwrap_or(0)).collect();
        let names = match (input.features.as_slice(), row.as_slice()) {
            ([], []) => vec![input.name.to_string()],
            (features, _) => features.iter().map(ToString::to_string).collect(),
        };
        match input.datatype {
            DataType::Bytes => Self::Texts { row, names },
            DataType::Uint8 => Self::Numbers { row, precision: Precision::Byte, names },
            DataType::Fp32 => Self::Numbers { row, precision: Precision::Single, names },
            DataType::Fp64 | DataType::Int64 | DataType::Int32 | DataType::Bool => {
                Self::Numbers { row, precision: Precision::Double, names }
            }
        }
    }

    /// Values of one row of numbers or texts; `None` for an image.
    pub fn elements(&self) -> Option<usize> {
        match self {
            Self::Numbers { row, .. } | Self::Texts { row, .. } => elements(row),
            Self::Image { .. } => None,
        }
    }

    /// Lengths of one row; none for an image.
    pub fn row(&self) -> &[usize] {
        match self {
            Self::Numbers { row, .. } | Self::Texts { row, .. } => row,
            Self::Image { .. } => &[],
        }
    }

    /// The names of its values; empty where they have none.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Numbers { names, .. } | Self::Texts { names, .. } => names,
            Self::Image { .. } => &[],
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Numbers { row, .. } => format!("numbers of shape {row:?}"),
            Self::Texts { row, .. } => format!("texts of shape {row:?}"),
            Self::Image { size: None, .. } => "an image of any size".into(),
            Self::Image { size: Some((width, height)), .. } => format!("an image of {width} x {height}"),
        }
    }
}

/// Says which kind of value a step wants.
pub(super) fn unfit(what: &str, input: Option<&FieldName>, found: &Kind) -> String {
    input.map_or_else(
        || format!("it works on {what}"),
        |input| format!("it works on {what}, {input} is {}", found.describe()),
    )
}

/// Values of a row of these lengths; `None` beyond the bound.
pub(super) fn elements(row: &[usize]) -> Option<usize> {
    let product = row.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    product.filter(|product| (1..=MAX_ROW_VALUES).contains(product))
}
