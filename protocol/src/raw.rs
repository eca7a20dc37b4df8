//! Raw values of an input as people and programs write them, before any preprocessing: read from JSON by the
//! input's declared type, and written as the bytes a worker takes. The gateway, golden vectors and rows files
//! have this in common.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base64;
use crate::tensor::DataType;

/// Largest whole number that is taken, and the smallest negated: beyond, double precision has gaps, and two
/// different identifiers would be one. Such identifiers are texts. 2^53 itself is what 2^53 + 1 is rounded to.
pub const MAX_WHOLE: i64 = (1 << 53) - 1;

/// Values of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RawValues {
    /// `FP32`; NaN is a missing value.
    Singles(Vec<f32>),
    /// `FP64`; NaN is a missing value.
    Doubles(Vec<f64>),
    /// `INT64`, `INT32`, `UINT8` and `BOOL`.
    Integers(Vec<i64>),
    /// `BYTES`: texts or files; an empty one is a missing value.
    Texts(Vec<Vec<u8>>),
}

impl RawValues {
    /// None yet, of `datatype`.
    pub const fn new(datatype: DataType) -> Self {
        match datatype {
            DataType::Fp32 => Self::Singles(Vec::new()),
            DataType::Fp64 => Self::Doubles(Vec::new()),
            DataType::Int64 | DataType::Int32 | DataType::Uint8 | DataType::Bool => {
                Self::Integers(Vec::new())
            }
            DataType::Bytes => Self::Texts(Vec::new()),
        }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::Singles(values) => values.len(),
            Self::Doubles(values) => values.len(),
            Self::Integers(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a value of `datatype` as JSON has it. The error says what is wrong with it.
    pub fn push(&mut self, datatype: DataType, value: &Value) -> Result<(), String> {
        match self {
            Self::Singles(values) => values.push(single(number(value)?)?),
            Self::Doubles(values) => values.push(number(value)?),
            Self::Integers(values) => values.push(match value {
                Value::Bool(truth) => i64::from(*truth),
                _ => whole(datatype, number(value)?)?,
            }),
            Self::Texts(values) => values.push(text(value)?),
        }
        Ok(())
    }

    /// Reads a list of values of `datatype`. The error names the value.
    pub fn parse(datatype: DataType, list: &[Value]) -> Result<Self, String> {
        let mut values = Self::new(datatype);
        for (at, value) in list.iter().enumerate() {
            values.push(datatype, value).map_err(|error| format!("[{at}] {error}"))?;
        }
        Ok(values)
    }

    /// Appends the values as a worker takes them: little-endian, texts behind their lengths.
    pub fn write(&self, datatype: DataType, body: &mut Vec<u8>) {
        match self {
            Self::Singles(values) => values.iter().for_each(|value| body.extend(value.to_le_bytes())),
            Self::Doubles(values) => values.iter().for_each(|value| body.extend(value.to_le_bytes())),
            Self::Integers(values) => values.iter().for_each(|value| match datatype {
                // Checked when they were read.
                DataType::Int32 => body.extend((*value as i32).to_le_bytes()),
                DataType::Uint8 | DataType::Bool => body.push(*value as u8),
                _ => body.extend(value.to_le_bytes()),
            }),
            Self::Texts(values) => {
                for value in values {
                    // A frame's body is far below 4 GiB.
                    body.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                    body.extend(value);
                }
            }
        }
    }

    /// Whether a tensor of `datatype` can hold them.
    pub fn fits(&self, datatype: DataType) -> bool {
        match self {
            Self::Integers(values) => {
                values.iter().all(|value| whole(datatype, *value as f64).is_ok())
                    && matches!(Self::new(datatype), Self::Integers(_))
            }
            _ => core::mem::discriminant(self) == core::mem::discriminant(&Self::new(datatype)),
        }
    }
}

impl From<Vec<f32>> for RawValues {
    fn from(values: Vec<f32>) -> Self {
        Self::Singles(values)
    }
}

/// A number as `FP32`.
pub fn single(value: f64) -> Result<f32, String> {
    let narrow = value as f32;
    if narrow.is_infinite() {
        return Err(format!("{value:e} is too large for a 32-bit float"));
    }
    Ok(narrow)
}

/// A number as a whole one of `datatype`.
pub fn whole(datatype: DataType, value: f64) -> Result<i64, String> {
    if value.is_nan() {
        let name = datatype.name();
        return Err(format!("a value is missing, which {name} cannot say; declare FP64"));
    }
    let (least, most) = match datatype {
        DataType::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DataType::Uint8 => (0.0, 255.0),
        DataType::Bool => (0.0, 1.0),
        _ => (-(MAX_WHOLE as f64), MAX_WHOLE as f64),
    };
    // Within the bounds a whole number is the same after the way there and back.
    let there = value as i64;
    if !(least..=most).contains(&value) || ((there as f64) - value).abs() > 0.0 {
        return Err(format!("{value} is no {} between {least} and {most}", datatype.name()));
    }
    Ok(there)
}

fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Null => Ok(f64::NAN),
        Value::Number(number) => number.as_f64().ok_or_else(|| format!("{number} is no number")),
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("{} is no number", shown(value)))
        }
    }
}

/// A text, or bytes as `{"hex": "…"}` or `{"base64": "…"}`.
fn text(value: &Value) -> Result<Vec<u8>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Object(fields) => match (fields.get("hex"), fields.get("base64")) {
            (Some(Value::String(digits)), None) if fields.len() == 1 => {
                hex(digits).ok_or_else(|| "hex must be pairs of hexadecimal digits".into())
            }
            (None, Some(Value::String(text))) if fields.len() == 1 => {
                base64::decode(text).map_err(|error| error.to_string())
            }
            _ => Err(format!("{} is no text", shown(value))),
        },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => Err(format!("{} is no text", shown(value))),
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(datatype: DataType, list: &Value) -> Result<RawValues, String> {
        RawValues::parse(datatype, list.as_array().expect("a list"))
    }

    #[test]
    fn each_type_takes_its_own_and_says_what_it_does_not_take() {
        assert_eq!(parse(DataType::Fp32, &json!([1, 2.5])), Ok(RawValues::Singles(vec![1.0, 2.5])));
        assert_eq!(parse(DataType::Int64, &json!([1.0, -3])), Ok(RawValues::Integers(vec![1, -3])));
        assert_eq!(parse(DataType::Bool, &json!([true, 0])), Ok(RawValues::Integers(vec![1, 0])));
        let texts = RawValues::Texts(vec![b"a".to_vec(), vec![], vec![0xFF, 0x0a]]);
        assert_eq!(parse(DataType::Bytes, &json!(["a", null, {"hex": "ff0A"}])), Ok(texts.clone()));
        assert_eq!(parse(DataType::Bytes, &json!(["a", null, {"base64": "/wo="}])), Ok(texts));
        for (datatype, list, says) in [
            (DataType::Fp32, json!([0, 1e39]), "[1] 1e39 is too large"),
            (DataType::Fp64, json!(["1"]), "no number"),
            (DataType::Int64, json!([null]), "declare FP64"),
            (DataType::Int64, json!([1.5]), "no INT64"),
            (DataType::Int64, json!([9_007_199_254_740_993_i64]), "no INT64"),
            (DataType::Int32, json!([2_147_483_648_i64]), "no INT32"),
            (DataType::Uint8, json!([256]), "no UINT8"),
            (DataType::Bool, json!([2]), "no BOOL"),
            (DataType::Bytes, json!([1]), "no text"),
            (DataType::Bytes, json!([{"hex": "f"}]), "hex"),
            (DataType::Bytes, json!([{"base64": "Zg"}]), "groups of 4"),
            (DataType::Bytes, json!([{"base64": "Zg==", "hex": "66"}]), "no text"),
        ] {
            let error = parse(datatype, &list).expect_err("refused");
            assert!(error.contains(says), "{list}: {error}");
        }
    }

    #[test]
    fn values_are_written_in_the_width_of_their_type() {
        let written = |datatype, list: Value| {
            let mut body = Vec::new();
            parse(datatype, &list).expect("good").write(datatype, &mut body);
            body
        };
        assert_eq!(written(DataType::Int32, json!([-2])), (-2_i32).to_le_bytes());
        assert_eq!(written(DataType::Uint8, json!([255, 0])), [255, 0]);
        assert_eq!(written(DataType::Bytes, json!(["ab", ""])), [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]);
        assert_eq!(written(DataType::Fp64, json!([0.1])), 0.1_f64.to_le_bytes());
    }

    proptest! {
        #[test]
        fn whole_numbers_survive(values in prop::collection::vec(-MAX_WHOLE..=MAX_WHOLE, 0..9)) {
            let read = parse(DataType::Int64, &json!(values)).expect("whole");
            prop_assert!(read.fits(DataType::Int64));
            prop_assert_eq!(read, RawValues::Integers(values));
        }
    }
}
