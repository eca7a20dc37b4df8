//! The raw values of one input of a request, and some rows of them as a value that steps work on.

use serin_protocol::manifest::TensorSpec;
use serin_protocol::raw::MAX_WHOLE;
use serin_protocol::tensor::DataType;

use super::image::Image;
use super::numbers::Numbers;

/// A value on its way through the steps, some rows of it.
#[derive(Debug)]
pub(crate) enum Value<'r> {
    /// Not made yet, or handed to the model.
    None,
    /// Numbers, row by row.
    Numbers(Numbers),
    /// Texts, row by row.
    Texts(Vec<&'r [u8]>),
    /// One image a row.
    Images(Vec<Image>),
}

/// Raw values of one input, all rows.
#[derive(Debug)]
pub enum Raw<'r> {
    /// Of fixed width.
    Fixed {
        /// Their type.
        datatype: DataType,
        /// Bytes of one row.
        row_bytes: usize,
        /// All rows, little-endian.
        bytes: &'r [u8],
    },
    /// Texts.
    Texts {
        /// Texts of one row.
        row: usize,
        /// All rows.
        texts: Vec<&'r [u8]>,
    },
}

impl<'r> Raw<'r> {
    /// The values in `bytes`, which are those of `rows` rows. The error says what is wrong with them.
    pub fn of(spec: &TensorSpec, bytes: &'r [u8], rows: usize) -> Result<Self, String> {
        let row = spec.row_elements().unwrap_or(0);
        if let Some(width) = spec.datatype.width() {
            return Ok(Self::Fixed { datatype: spec.datatype, row_bytes: row.saturating_mul(width), bytes });
        }
        let mut texts = Vec::new();
        let mut rest = bytes;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (text, behind) = behind.split_at_checked(length).ok_or("a text is cut off")?;
            texts.push(text);
            rest = behind;
        }
        if !rest.is_empty() || Some(texts.len()) != row.checked_mul(rows) {
            return Err(format!("{} texts are given for {rows} rows of {row}", texts.len()));
        }
        Ok(Self::Texts { row, texts })
    }

    /// `count` rows from row `first` on.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Result<Value<'r>, String> {
        match self {
            Self::Texts { row, texts } => {
                let part = texts.get(first * row..(first + count) * row).unwrap_or_default();
                Ok(Value::Texts(part.to_vec()))
            }
            Self::Fixed { datatype, row_bytes, bytes } => {
                let part = bytes.get(first * row_bytes..(first + count) * row_bytes).unwrap_or_default();
                numbers(*datatype, part).map(Value::Numbers)
            }
        }
    }
}

fn numbers(datatype: DataType, bytes: &[u8]) -> Result<Numbers, String> {
    let (fours, _) = bytes.as_chunks::<4>();
    let (eights, _) = bytes.as_chunks::<8>();
    Ok(match datatype {
        DataType::Fp32 => Numbers::Singles(fours.iter().map(|raw| f32::from_le_bytes(*raw)).collect()),
        DataType::Fp64 => Numbers::Doubles(eights.iter().map(|raw| f64::from_le_bytes(*raw)).collect()),
        DataType::Int32 => {
            Numbers::Doubles(fours.iter().map(|raw| f64::from(i32::from_le_bytes(*raw))).collect())
        }
        DataType::Int64 => {
            let whole = |raw: &[u8; 8]| {
                let value = i64::from_le_bytes(*raw);
                let exact = (-MAX_WHOLE..=MAX_WHOLE).contains(&value);
                exact.then_some(value as f64).ok_or_else(|| {
                    format!("{value} is beyond 2^53, where double precision has gaps; send it as a text")
                })
            };
            Numbers::Doubles(eights.iter().map(whole).collect::<Result<_, _>>()?)
        }
        DataType::Bool => {
            Numbers::Doubles(bytes.iter().map(|byte| f64::from(u8::from(*byte != 0))).collect())
        }
        DataType::Uint8 => Numbers::Bytes(bytes.to_vec()),
        DataType::Bytes => return Err("texts are no numbers".into()),
    })
}
