//! The binary tensor data extension of the Open Inference Protocol: raw values behind the JSON of a
//! request, in the order of its inputs, little-endian, texts behind their lengths. Pure.
//!
//! Source: Triton's "Binary Tensor Data Extension" to the `KServe` V2 protocol over HTTP.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use serin_protocol::tensor::{DataType, TensorHeader};

/// Bytes of the JSON that raw values follow, in requests and answers. Absent: all of it is JSON.
pub(crate) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A request's raw values do not fit what its JSON says of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BinaryFault {
    /// The header is no number, or given twice.
    #[error("{JSON_LENGTH} must be given once, as a number of bytes")]
    Header,
    /// The JSON would be longer than the body.
    #[error("{JSON_LENGTH} says {json}, the body has {body} bytes")]
    Length {
        /// Announced bytes of JSON.
        json: u64,
        /// Bytes there are.
        body: usize,
    },
    /// An input's values would reach beyond the end of the body.
    #[error("input {name}: binary_data_size is {wanted}, {left} bytes are left")]
    Short {
        /// The input.
        name: String,
        /// Its size.
        wanted: u64,
        /// Bytes behind the inputs before it.
        left: usize,
    },
    /// Bytes that belong to no input.
    #[error("{0} bytes follow the last input")]
    Leftover(usize),
    /// The size is another than type and shape require.
    #[error("input {name}: {bytes} bytes do not hold {shape:?} values of {datatype}")]
    Size {
        /// The input.
        name: String,
        /// Its bytes.
        bytes: u64,
        /// Its shape.
        shape: Vec<u32>,
        /// Its type.
        datatype: &'static str,
    },
    /// A value that JSON could not say either.
    #[error("input {name}: value {at} is infinite")]
    Infinite {
        /// The input.
        name: String,
        /// Number of the value, from 0.
        at: usize,
    },
}

/// How many bytes of the body are JSON, as the headers say; `None` for all of it.
pub(super) fn json_length(headers: &HeaderMap) -> Result<Option<u64>, BinaryFault> {
    let mut given = headers.get_all(JSON_LENGTH).iter();
    let Some(length) = given.next() else { return Ok(None) };
    // Digits only: a sign would be read as a number, too.
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.and_then(|text| text.parse().ok()), given.next()) {
        (Some(length), None) => Ok(Some(length)),
        (_, _) => Err(BinaryFault::Header),
    }
}

/// The raw values of a request, taken one input after another.
#[derive(Debug)]
pub(super) struct Raw {
    whole: Bytes,
    taken: usize,
}

impl Raw {
    /// Divides `body` into its JSON and the raw values behind it.
    pub(super) fn divide(body: &Bytes, json: Option<u64>) -> Result<(Bytes, Self), BinaryFault> {
        let json = json.unwrap_or(body.len() as u64);
        let at = usize::try_from(json).ok().filter(|at| *at <= body.len());
        let at = at.ok_or(BinaryFault::Length { json, body: body.len() })?;
        Ok((body.slice(..at), Self { whole: body.slice(at..), taken: 0 }))
    }

    /// The next `bytes` bytes, which are those of the input `name`; nothing is copied.
    pub(super) fn take(&mut self, name: &str, bytes: u64) -> Result<Bytes, BinaryFault> {
        let left = self.whole.len().saturating_sub(self.taken);
        let wanted = usize::try_from(bytes).ok().filter(|wanted| *wanted <= left);
        let wanted = wanted.ok_or_else(|| BinaryFault::Short { name: name.into(), wanted: bytes, left })?;
        let part = self.whole.slice(self.taken..self.taken + wanted);
        self.taken += wanted;
        Ok(part)
    }

    /// All raw values, of which none may be left over.
    pub(super) fn finish(self) -> Result<Bytes, BinaryFault> {
        match self.whole.len().saturating_sub(self.taken) {
            0 => Ok(self.whole),
            left => Err(BinaryFault::Leftover(left)),
        }
    }
}

/// Whether `raw` holds what `header` says: as many values as the shape wants, none of them infinite, as in
/// JSON. NaN is a missing value, which is `null` there.
pub(super) fn check(header: &TensorHeader, raw: &[u8]) -> Result<(), BinaryFault> {
    let fits = match header.datatype {
        DataType::Fp32
        | DataType::Int64
        | DataType::Fp64
        | DataType::Int32
        | DataType::Uint8
        | DataType::Bool => header.is_consistent(),
        DataType::Bytes => header.elements().is_some() && texts(raw) == header.elements(),
    };
    let name = header.name.to_string();
    if !fits || header.bytes != raw.len() as u64 {
        let (bytes, shape) = (header.bytes, header.shape.to_vec());
        return Err(BinaryFault::Size { name, bytes, shape, datatype: header.datatype.name() });
    }
    let infinite = match header.datatype {
        DataType::Fp32 => first(raw.as_chunks().0, |value| f32::from_le_bytes(*value).is_infinite()),
        DataType::Fp64 => first(raw.as_chunks().0, |value| f64::from_le_bytes(*value).is_infinite()),
        DataType::Int64 | DataType::Int32 | DataType::Uint8 | DataType::Bool | DataType::Bytes => None,
    };
    if let Some(at) = infinite {
        return Err(BinaryFault::Infinite { name, at });
    }
    Ok(())
}

/// The number of the first of `values` that `is_bad`. Looks at a block at once, which the compiler makes one step of;
/// looking for the place among all of them took a tenth of what the gateway adds to a batch.
fn first<T>(values: &[T], is_bad: impl Fn(&T) -> bool) -> Option<usize> {
    /// Values looked at together.
    const BLOCK: usize = 64;
    let holds_one = |block: &[T]| block.iter().fold(false, |any, value| any | is_bad(value));
    let block = values.chunks(BLOCK).position(holds_one)?;
    let before = block * BLOCK;
    values.get(before..)?.iter().position(is_bad).map(|at| before + at)
}

/// How many texts `raw` holds, each behind its length; `None` when one is cut.
fn texts(mut raw: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        raw = rest;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn header(datatype: DataType, shape: &[u32], bytes: usize) -> TensorHeader {
        let shape = shape.iter().copied().collect();
        TensorHeader { name: "x".parse().expect("name"), datatype, shape, bytes: bytes as u64 }
    }

    fn length(values: &[&str]) -> Result<Option<u64>, BinaryFault> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(JSON_LENGTH, HeaderValue::from_str(value).expect("header"));
        }
        json_length(&headers)
    }

    #[test]
    fn the_length_of_the_json_is_a_number_given_once() {
        assert_eq!((length(&[]), length(&["7"])), (Ok(None), Ok(Some(7))));
        for bad in [&[""][..], &["+7"], &["-1"], &["7 "], &["0x7"], &["99999999999999999999"], &["7", "7"]] {
            assert_eq!(length(bad), Err(BinaryFault::Header), "{bad:?}");
        }
    }

    #[test]
    fn parts_follow_one_another_and_use_the_body_up() {
        let body = Bytes::from_static(b"{}aabbb");
        let (json, mut raw) = Raw::divide(&body, Some(2)).expect("in bounds");
        assert_eq!(json, "{}");
        assert_eq!(
            (raw.take("x", 2).expect("there"), raw.take("y", 3).expect("there")),
            ("aa".into(), "bbb".into())
        );
        assert_eq!(raw.finish().expect("used up"), "aabbb");

        let (_, mut raw) = Raw::divide(&body, Some(2)).expect("in bounds");
        assert!(matches!(raw.take("x", 6), Err(BinaryFault::Short { wanted: 6, left: 5, .. })));
        assert!(matches!(raw.take("x", u64::MAX), Err(BinaryFault::Short { .. })));
        assert_eq!(raw.finish(), Err(BinaryFault::Leftover(5)));
        assert!(matches!(Raw::divide(&body, Some(8)), Err(BinaryFault::Length { json: 8, body: 7 })));
        assert_eq!(Raw::divide(&body, None).expect("all").0, body);
    }

    #[test]
    fn values_fit_their_shape_and_are_finite_or_missing() {
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(check(&header(DataType::Fp32, &[2], 8), &floats(&[1.0, f32::NAN])), Ok(()));
        let infinite = check(&header(DataType::Fp32, &[2], 8), &floats(&[1.0, f32::NEG_INFINITY]));
        assert_eq!(infinite, Err(BinaryFault::Infinite { name: "x".into(), at: 1 }));
        assert!(check(&header(DataType::Fp32, &[3], 8), &[0; 8]).is_err());
        assert!(check(&header(DataType::Fp32, &[u32::MAX; 8], 8), &[0; 8]).is_err());
        assert_eq!(check(&header(DataType::Int64, &[1], 8), &[0xFF; 8]), Ok(()));
        let texts = [1, 0, 0, 0, b'a', 0, 0, 0, 0];
        assert_eq!(check(&header(DataType::Bytes, &[2], 9), &texts), Ok(()));
        assert!(check(&header(DataType::Bytes, &[1], 9), &texts).is_err());
        assert!(check(&header(DataType::Bytes, &[1], 4), &[9, 0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn the_first_bad_value_is_found_wherever_it_lies(
            count in 0..300_usize, bad in proptest::collection::vec(0..300_usize, 0..3),
        ) {
            let values: Vec<bool> = (0..count).map(|at| bad.contains(&at)).collect();
            prop_assert_eq!(first(&values, |is_bad| *is_bad), values.iter().position(|is_bad| *is_bad));
        }

        #[test]
        fn any_sizes_divide_any_body_or_are_refused(body: Vec<u8>, json: u64, sizes: Vec<u16>) {
            let body = Bytes::from(body);
            for json in [Some(json), Some(json % 64), None] {
                let Ok((head, mut raw)) = Raw::divide(&body, json) else { continue };
                let taken: Result<Vec<Bytes>, _> =
                    sizes.iter().map(|size| raw.take("x", u64::from(*size % 32))).collect();
                if let (Ok(parts), Ok(all)) = (taken, raw.finish()) {
                    prop_assert_eq!(parts.concat(), all.to_vec());
                    prop_assert_eq!([head, all].concat(), body.to_vec());
                }
            }
        }

        #[test]
        fn any_bytes_hold_their_shape_or_not(raw: Vec<u8>, shape in prop::collection::vec(0_u32..9, 0..4)) {
            for datatype in [DataType::Fp32, DataType::Int64, DataType::Bytes] {
                let _ = check(&header(datatype, &shape, raw.len()), &raw);
            }
        }
    }
}
