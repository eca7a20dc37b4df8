//! Frames between supervisor and worker over a socket pair: two little-endian lengths, a postcard
//! header, then raw tensor bytes, so that large tensors are never re-encoded.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::FieldName;
use crate::tensor::TensorHeader;

/// Bytes before the header: its length and the body's, as little-endian `u32`.
pub const PREFIX_BYTES: usize = 8;
/// Largest header in bytes: 128 tensors of 110 bytes and 4,096 predictions of 19, or an error text.
pub const MAX_HEADER_BYTES: u32 = 96 * 1024;
/// Largest body in bytes. A worker is untrusted: its supervisor never reserves more than this for it.
pub const MAX_BODY_BYTES: u32 = 64 * 1024 * 1024;

/// To the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WorkerRequest {
    /// Run the pipeline and the model once over the tensors of the body.
    Infer {
        /// Repeated in the answer.
        request: u64,
        /// What the body holds.
        inputs: Vec<TensorHeader>,
    },
    /// Run only the steps before the model; answered with what they hand to it.
    Prepare {
        /// Repeated in the answer.
        request: u64,
        /// What the body holds.
        inputs: Vec<TensorHeader>,
    },
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WorkerResponse {
    /// Said once, when the model is loaded and the sandbox closed.
    Ready(Ready),
    /// Said once instead of `Ready`; the worker then exits.
    LoadFailed(LoadFault),
    /// The answer to [`WorkerRequest::Infer`] and to [`WorkerRequest::Prepare`]; the body holds the outputs.
    Inferred {
        /// Which request.
        request: u64,
        /// Time in pipeline and model, in microseconds.
        micros: u64,
        /// What the body holds.
        outputs: Vec<TensorHeader>,
        /// What is predicted per row, where the manifest declares a prediction.
        predictions: Vec<Prediction>,
        /// Behind the outputs the body holds so many numbers about the pictures that were decoded, row by row, each
        /// little-endian `FP32`; those of a row are in the order of [`crate::manifest::watch::Pictured`].
        pictures: u32,
    },
    /// The request failed; the worker goes on.
    InferFailed {
        /// Which request.
        request: u64,
        /// Why.
        fault: InferFault,
    },
}

/// A loaded worker's facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Time to load, in microseconds.
    pub load_micros: u64,
    /// Rows that the model runs at once, whoever they come from.
    pub rows_at_once: u32,
    /// Which protections hold, for the doctor.
    pub sandbox: Sandbox,
}

/// Which protections a worker could put around itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each holds or not, whatever the others do")]
pub struct Sandbox {
    /// No new privileges can be gained.
    pub no_new_privileges: bool,
    /// Files are out of reach (Landlock).
    pub files_closed: bool,
    /// The data segment is limited.
    pub memory_limited: bool,
    /// Only the system calls that answering takes are left (seccomp).
    pub calls_filtered: bool,
}

impl Sandbox {
    /// What it lacks, by name.
    pub fn lacks(&self) -> impl Iterator<Item = &'static str> {
        let Self { no_new_privileges, files_closed, memory_limited, calls_filtered } = *self;
        let all = [
            (no_new_privileges, "no-new-privileges"),
            (files_closed, "Landlock"),
            (memory_limited, "memory limit"),
            (calls_filtered, "seccomp"),
        ];
        all.into_iter().filter_map(|(holds, name)| (!holds).then_some(name))
    }
}

/// Why a model does not load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LoadFault {
    /// The engine lacks operators, or computes them wrongly. At least one is named, and
    /// [`MAX_UNSUPPORTED`] at most.
    #[error("the runtime does not support {}", Listed(.0))]
    UnsupportedOperators(Vec<UnsupportedOperator>),
    /// The model is broken or uses a known operator in an unknown way.
    #[error("the model is invalid: {0}")]
    Invalid(String),
    /// Memory ran out while loading.
    #[error("memory limit reached while loading")]
    MemoryLimit,
    /// A file of the release cannot be read.
    #[error("{0}")]
    File(String),
    /// Not all protections hold that are required; nothing of the model was read. Those that are missing, by name.
    #[error("models.sandbox requires what is not to be had here: {0}")]
    Unconfined(String),
}

/// An operator that a model cannot be run with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsupportedOperator {
    /// ONNX operator name, with its set where that is not ONNX's own.
    pub operator: String,
    /// Name of the first node that is one, or of its first output where it has none.
    pub node: String,
    /// Nodes that are.
    pub count: u32,
}

/// Most unsupported operators named: with names of [`MAX_NAME_CHARS`] characters they fit into a header.
pub const MAX_UNSUPPORTED: usize = 16;

/// Longest name passed on of a node or an operator.
pub const MAX_NAME_CHARS: usize = 200;

struct Listed<'a>(&'a [UnsupportedOperator]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "the ONNX operator{plural} ")?;
        for (at, UnsupportedOperator { operator, node, count }) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match count {
                0 | 1 => write!(f, "{comma}{operator} (node {node:?})")?,
                _ => write!(f, "{comma}{operator} ({count} nodes, the first {node:?})")?,
            }
        }
        Ok(())
    }
}

/// Why one inference failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum InferFault {
    /// An input is missing, unknown, of the wrong type or shape: the caller's mistake.
    #[error("{0}")]
    Input(String),
    /// The model failed.
    #[error("inference failed: {0}")]
    Model(String),
    /// Memory ran out; the worker is to be replaced.
    #[error("memory limit reached")]
    MemoryLimit,
}

/// What was predicted for one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Prediction {
    /// A class.
    Class {
        /// Its number.
        class: i64,
        /// Confidence, NaN where none is declared.
        confidence: f32,
        /// Entropy of the probabilities over its largest possible one, 0..=1; NaN where none are declared.
        entropy: f32,
    },
    /// A value.
    Value(f32),
}

impl Prediction {
    /// A class of which no more is known than its confidence.
    pub const fn of_class(class: i64, confidence: f32) -> Self {
        Self::Class { class, confidence, entropy: f32::NAN }
    }

    /// The class, where one is predicted.
    pub const fn class(&self) -> Option<i64> {
        match self {
            Self::Class { class, .. } => Some(*class),
            Self::Value(_) => None,
        }
    }

    /// The confidence of a class; NaN where there is none.
    pub const fn confidence(&self) -> f32 {
        match self {
            Self::Class { confidence, .. } => *confidence,
            Self::Value(_) => f32::NAN,
        }
    }
}

/// What is read first of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes of the header.
    pub header: u32,
    /// Bytes of the body.
    pub body: u32,
}

/// A frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Header or body is larger than allowed.
    #[error("a frame of {header} + {body} bytes is too large")]
    TooLarge {
        /// Bytes of the header.
        header: u64,
        /// Bytes of the body.
        body: u64,
    },
    /// The header is malformed.
    #[error("malformed frame header: {0}")]
    Malformed(postcard::Error),
}

impl Prefix {
    /// Reads a prefix and checks its bounds.
    pub fn decode(bytes: [u8; PREFIX_BYTES]) -> Result<Self, FrameError> {
        let both = u64::from_le_bytes(bytes);
        let prefix = Self { header: both as u32, body: (both >> 32) as u32 };
        if prefix.header > MAX_HEADER_BYTES || prefix.body > MAX_BODY_BYTES {
            return Err(FrameError::TooLarge { header: prefix.header.into(), body: prefix.body.into() });
        }
        Ok(prefix)
    }
}

/// Prefix and header of a frame whose body has `body` bytes; the body follows unchanged.
pub fn encode_head<T: Serialize>(header: &T, body: usize) -> Result<Vec<u8>, FrameError> {
    let coded = postcard::to_allocvec(header).map_err(FrameError::Malformed)?;
    let too_large = FrameError::TooLarge { header: coded.len() as u64, body: body as u64 };
    let lengths = (u32::try_from(coded.len()), u32::try_from(body));
    let (Ok(header_bytes), Ok(body_bytes)) = lengths else {
        return Err(too_large);
    };
    if header_bytes > MAX_HEADER_BYTES || body_bytes > MAX_BODY_BYTES {
        return Err(too_large);
    }
    let mut head = Vec::with_capacity(PREFIX_BYTES + coded.len());
    head.extend(header_bytes.to_le_bytes());
    head.extend(body_bytes.to_le_bytes());
    head.extend(coded);
    Ok(head)
}

/// Decodes a frame header; nothing may follow it.
pub fn decode_header<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, FrameError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(FrameError::Malformed)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding))
    }
}

/// Names the tensor an error is about.
pub fn about(name: &FieldName, what: &str) -> InferFault {
    InferFault::Input(alloc::format!("input {name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(prefix: [u8; 8], header: Vec<u8>) {
            if let Ok(prefix) = Prefix::decode(prefix) {
                prop_assert!(prefix.header <= MAX_HEADER_BYTES && prefix.body <= MAX_BODY_BYTES);
            }
            let _ = decode_header::<WorkerResponse>(&header);
            let _ = decode_header::<WorkerRequest>(&header);
        }

        #[test]
        fn frames_survive(request: u64, text in ".{0,60}") {
            let response = WorkerResponse::InferFailed { request, fault: InferFault::Model(text) };
            let head = encode_head(&response, 17).expect("small");
            let prefix = Prefix::decode(head[..8].try_into().expect("eight")).expect("in bounds");
            prop_assert_eq!(prefix.body, 17);
            prop_assert_eq!(decode_header::<WorkerResponse>(&head[8..]), Ok(response));
        }
    }

    #[test]
    fn oversized_frames_are_refused_on_both_sides() {
        assert!(encode_head(&0_u8, MAX_BODY_BYTES as usize + 1).is_err());
        assert!(Prefix::decode([0xFF; 8]).is_err());
    }
}
