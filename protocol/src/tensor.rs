//! Tensors as they travel between gateway and worker: a header with name, type and shape, followed
//! elsewhere by raw little-endian bytes. Names of types are those of the Open Inference Protocol V2.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::FieldName;

/// Most dimensions of a tensor; models in the field stay below 6.
pub const MAX_DIMENSIONS: usize = 8;

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// IEEE 754 single precision.
    #[serde(rename = "FP32")]
    Fp32,
    /// Signed 64 bits.
    #[serde(rename = "INT64")]
    Int64,
    /// Texts, each a 32-bit little-endian length and UTF-8 bytes.
    #[serde(rename = "BYTES")]
    Bytes,
    /// IEEE 754 double precision; inputs only, as all that follow.
    #[serde(rename = "FP64")]
    Fp64,
    /// Signed 32 bits.
    #[serde(rename = "INT32")]
    Int32,
    /// A byte, such as a channel of a pixel.
    #[serde(rename = "UINT8")]
    Uint8,
    /// 1 or 0 in a byte.
    #[serde(rename = "BOOL")]
    Bool,
}

impl DataType {
    /// Bytes per element; `None` for texts, which vary.
    pub const fn width(self) -> Option<usize> {
        match self {
            Self::Fp32 | Self::Int32 => Some(4),
            Self::Int64 | Self::Fp64 => Some(8),
            Self::Uint8 | Self::Bool => Some(1),
            Self::Bytes => None,
        }
    }

    /// Number `at` of little-endian values; `None` where there is none, and of texts.
    pub fn number(self, raw: &[u8], at: usize) -> Option<f64> {
        let width = self.width()?;
        let raw = raw.get(at.checked_mul(width)?..)?;
        match self {
            Self::Fp32 => raw.first_chunk().map(|raw| f64::from(f32::from_le_bytes(*raw))),
            Self::Fp64 => raw.first_chunk().map(|raw| f64::from_le_bytes(*raw)),
            Self::Int64 => raw.first_chunk().map(|raw| i64::from_le_bytes(*raw) as f64),
            Self::Int32 => raw.first_chunk().map(|raw| f64::from(i32::from_le_bytes(*raw))),
            Self::Uint8 | Self::Bool => raw.first().map(|byte| f64::from(*byte)),
            Self::Bytes => None,
        }
    }

    /// The name in the Open Inference Protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Int64 => "INT64",
            Self::Bytes => "BYTES",
            Self::Fp64 => "FP64",
            Self::Int32 => "INT32",
            Self::Uint8 => "UINT8",
            Self::Bool => "BOOL",
        }
    }
}

/// Name, type and shape of one tensor, and how many raw bytes of the body are its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorHeader {
    /// Input or output name.
    pub name: FieldName,
    /// Element type.
    pub datatype: DataType,
    /// Length of each dimension, outermost first.
    pub shape: heapless::Vec<u32, MAX_DIMENSIONS>,
    /// Bytes of the body that belong to it.
    pub bytes: u64,
}

impl TensorHeader {
    /// Number of elements; `None` when the product overflows.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1_u64, |product, length| product.checked_mul(u64::from(*length)))
    }

    /// Whether `bytes` is what type and shape require; always for texts.
    pub fn is_consistent(&self) -> bool {
        match (self.datatype.width(), self.elements()) {
            (Some(width), Some(elements)) => elements.checked_mul(width as u64) == Some(self.bytes),
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}

/// Splits `body` among `headers` in order; `None` unless they use it up exactly.
pub fn split_body<'a>(headers: &[TensorHeader], mut body: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let mut parts = Vec::with_capacity(headers.len());
    for header in headers {
        let (part, rest) = body.split_at_checked(usize::try_from(header.bytes).ok()?)?;
        parts.push(part);
        body = rest;
    }
    body.is_empty().then_some(parts)
}
