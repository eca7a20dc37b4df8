//! The `data` of a JSON tensor, nested or flat, as one list: no tree of values is built, so a request costs
//! little more memory than its text.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, DeserializeSeed, Error, SeqAccess, Visitor};
use serin_protocol::raw::{single, whole};
use serin_protocol::tensor::{DataType, MAX_DIMENSIONS};

/// Most numbers written as text: as many `FP32` as the largest raw body holds. Each takes eight bytes until its type is
/// known, and may have been written with two.
const MAX_NUMBERS: usize = 2 << 20;

/// Values of a tensor with the form in which they were written.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Values {
    elements: Elements,
    /// Length of each level of nesting, outermost first.
    pub(super) lengths: heapless::Vec<u32, MAX_DIMENSIONS>,
    /// How many arrays the values lie in; none before the first value.
    depth: Option<usize>,
}

/// The values themselves. `null` is a missing value among numbers, and an empty text among texts.
#[derive(Debug, PartialEq)]
enum Elements {
    /// Numbers, and truth values as 1 and 0. Whole numbers are exact as far as a worker takes them.
    Numbers(Vec<f64>),
    /// How many texts, and each behind its length.
    Texts(u64, Vec<u8>),
}

impl Default for Elements {
    fn default() -> Self {
        Self::Numbers(Vec::new())
    }
}

impl Values {
    /// How many values there are.
    pub(super) const fn count(&self) -> u64 {
        match &self.elements {
            Elements::Numbers(numbers) => numbers.len() as u64,
            Elements::Texts(count, _) => *count,
        }
    }

    /// The values as a tensor of `datatype` holds them, little-endian. The error says which value it cannot
    /// hold.
    pub(super) fn bytes(self, datatype: DataType) -> Result<Vec<u8>, String> {
        let numbers = match self.elements {
            Elements::Texts(_, bytes) if datatype == DataType::Bytes => return Ok(bytes),
            Elements::Numbers(missing) if datatype == DataType::Bytes => {
                if missing.iter().all(|value| value.is_nan()) {
                    return Ok(vec![0; missing.len() * size_of::<u32>()]);
                }
                return Err("data must be texts".into());
            }
            Elements::Texts(..) => return Err(format!("data must be numbers for {}", datatype.name())),
            Elements::Numbers(numbers) => numbers,
        };
        let mut bytes = Vec::with_capacity(numbers.len() * datatype.width().unwrap_or(1));
        for (at, number) in numbers.into_iter().enumerate() {
            let wrong = |what: String| format!("value {at}: {what}");
            match datatype {
                DataType::Fp32 => bytes.extend(single(number).map_err(wrong)?.to_le_bytes()),
                DataType::Fp64 => bytes.extend(number.to_le_bytes()),
                DataType::Int64 => bytes.extend(whole(datatype, number).map_err(wrong)?.to_le_bytes()),
                DataType::Int32 => {
                    bytes.extend((whole(datatype, number).map_err(wrong)? as i32).to_le_bytes());
                }
                DataType::Uint8 | DataType::Bool => bytes.push(whole(datatype, number).map_err(wrong)? as u8),
                DataType::Bytes => {}
            }
        }
        Ok(bytes)
    }

    fn place<E: Error>(&mut self, depth: usize) -> Result<(), E> {
        if depth == 0 {
            return Err(E::custom("data must be an array"));
        }
        if *self.depth.get_or_insert(depth) != depth {
            return Err(E::custom("data mixes values and arrays at one level"));
        }
        Ok(())
    }

    fn number<E: Error>(&mut self, depth: usize, value: f64) -> Result<(), E> {
        self.place(depth)?;
        match &mut self.elements {
            Elements::Numbers(numbers) if numbers.len() >= MAX_NUMBERS => {
                return Err(E::custom(format_args!(
                    "data has more than {MAX_NUMBERS} numbers: send them raw"
                )));
            }
            Elements::Numbers(numbers) => numbers.push(value),
            Elements::Texts(count, bytes) if value.is_nan() => {
                *count += 1;
                bytes.extend(0_u32.to_le_bytes());
            }
            Elements::Texts(..) => return Err(E::custom("data mixes numbers and texts")),
        }
        Ok(())
    }

    fn text<E: Error>(&mut self, depth: usize, text: &str) -> Result<(), E> {
        self.place(depth)?;
        if let Elements::Numbers(missing) = &self.elements {
            if missing.iter().any(|value| !value.is_nan()) {
                return Err(E::custom("data mixes numbers and texts"));
            }
            let count = missing.len();
            self.elements = Elements::Texts(count as u64, vec![0; count * size_of::<u32>()]);
        }
        if let Elements::Texts(count, bytes) = &mut self.elements {
            *count += 1;
            // A request is far below 4 GiB.
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        Ok(())
    }

    fn close<E: Error>(&mut self, depth: usize, length: usize) -> Result<(), E> {
        let length = u32::try_from(length).map_err(|_| E::custom("data has too many values"))?;
        match self.lengths.get(depth) {
            Some(known) if *known != length => {
                Err(E::custom(format_args!("data has arrays of {known} and of {length} values at one level")))
            }
            Some(_) => Ok(()),
            None => Err(E::custom("data is nested too deeply")),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Self::default();
        Level { values: &mut values, depth: 0 }.deserialize(deserializer)?;
        match values.depth {
            Some(depth) if depth != values.lengths.len() => {
                Err(D::Error::custom("data mixes values and arrays at one level"))
            }
            Some(_) | None => Ok(values),
        }
    }
}

/// One element `depth` arrays deep: a value, or an array of such.
struct Level<'v> {
    values: &'v mut Values,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers or texts, nulls for missing ones, or arrays of these")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.values.number(self.depth, f64::NAN)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.values.number(self.depth, f64::from(u8::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.values.number(self.depth, value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.values.number(self.depth, value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.values.number(self.depth, value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.values.text(self.depth, text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { values, depth } = self;
        if depth >= MAX_DIMENSIONS {
            return Err(A::Error::custom(format_args!(
                "data is nested in more than {MAX_DIMENSIONS} arrays"
            )));
        }
        // The length of this level is known when its first array ends; until then lengths below it must
        // not be entered, so the place is taken now and filled then.
        let is_first = values.lengths.len() == depth;
        if is_first && values.lengths.push(0).is_err() {
            return Err(A::Error::custom("data is nested too deeply"));
        }
        let mut length = 0_usize;
        while elements.next_element_seed(Level { values: &mut *values, depth: depth + 1 })?.is_some() {
            length += 1;
        }
        if is_first && let Some(known) = values.lengths.get_mut(depth) {
            *known = u32::try_from(length).map_err(|_| A::Error::custom("data has too many values"))?;
        }
        values.close(depth, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<(Vec<f32>, Vec<u32>), String> {
        let values: Values = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let lengths = values.lengths.to_vec();
        let bytes = values.bytes(DataType::Fp32)?;
        let (chunks, _) = bytes.as_chunks::<4>();
        Ok((chunks.iter().map(|raw| f32::from_le_bytes(*raw)).collect(), lengths))
    }

    #[test]
    fn nested_and_flat_data_hold_the_same_numbers() {
        assert_eq!(parse("[1, 2.5, -3, 4e2]"), Ok((vec![1.0, 2.5, -3.0, 400.0], vec![4])));
        assert_eq!(parse("[[1, 2.5], [-3, 4e2]]"), Ok((vec![1.0, 2.5, -3.0, 400.0], vec![2, 2])));
        assert_eq!(parse("[[[1]], [[2]]]"), Ok((vec![1.0, 2.0], vec![2, 1, 1])));
        assert_eq!(parse("[]"), Ok((vec![], vec![0])));
        assert!(parse("[null]").expect("valid").0[0].is_nan());
    }

    #[test]
    fn what_is_not_a_tensor_is_refused() {
        for bad in [
            "1",
            "null",
            "{}",
            "[\"1\"]",
            "[1, \"a\"]",
            "[\"a\", 1]",
            "[1, [2]]",
            "[[1], 2]",
            "[[1], []]",
            "[[], [1]]",
            "[[1, 2], [3]]",
            "[1e39]",
            "[1e999]",
            "[[[[[[[[[1]]]]]]]]]",
            "[1,",
            "[[1], [[2]]]",
            "[[], 1]",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_bounded() {
        let many = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert_eq!(parse(&many(MAX_NUMBERS)).expect("the most").0.len(), MAX_NUMBERS);
        assert!(parse(&many(MAX_NUMBERS + 1)).expect_err("too many").contains("send them raw"));
    }

    #[test]
    fn texts_lie_behind_their_lengths_and_null_is_an_empty_one() {
        let read = |text: &str| {
            let values: Values = serde_json::from_str(text).expect("well-formed");
            (values.count(), values.bytes(DataType::Bytes))
        };
        let bytes = vec![0, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0];
        assert_eq!(read("[null, \"ab\", null]"), (3, Ok(bytes)));
        assert_eq!(read("[[null], [null]]"), (2, Ok(vec![0; 8])));
        assert!(read("[1]").1.is_err());
    }

    #[test]
    fn every_type_takes_only_what_it_can_hold() {
        let read =
            |text: &str, datatype| serde_json::from_str::<Values>(text).expect("well-formed").bytes(datatype);
        assert_eq!(read("[true, 0]", DataType::Bool), Ok(vec![1, 0]));
        assert_eq!(read("[255]", DataType::Uint8), Ok(vec![255]));
        assert_eq!(read("[-2]", DataType::Int32), Ok((-2_i32).to_le_bytes().to_vec()));
        assert_eq!(read("[-2]", DataType::Int64), Ok((-2_i64).to_le_bytes().to_vec()));
        assert_eq!(read("[0.1]", DataType::Fp64), Ok(0.1_f64.to_le_bytes().to_vec()));
        for (text, datatype) in [
            ("[2]", DataType::Bool),
            ("[1.5]", DataType::Int64),
            ("[null]", DataType::Int64),
            ("[9007199254740993]", DataType::Int64),
            ("[256]", DataType::Uint8),
            ("[\"1\"]", DataType::Fp64),
        ] {
            assert!(read(text, datatype).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_array_is_a_tensor_or_an_error(text in "[\\[\\],0-9n.eul-]{0,60}") {
            if let Ok((numbers, lengths)) = parse(&text) {
                let product: u64 = lengths.iter().map(|length| u64::from(*length)).product();
                prop_assert_eq!(product, numbers.len() as u64);
            }
        }

        #[test]
        fn every_number_survives(numbers: Vec<f32>) {
            let text = serde_json::to_string(&numbers).expect("plain");
            let (read, _) = parse(&text).expect("valid");
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (!a.is_finite() && b.is_nan());
            prop_assert!(numbers.len() == read.len() && numbers.iter().zip(&read).all(same));
        }

        #[test]
        fn every_double_is_the_one_that_was_written(number in proptest::num::f64::NORMAL) {
            // As Python writes it, and with the digits that somebody may add.
            for text in [format!("[{number:?}]"), format!("[{number:.40e}]")] {
                let values: Values = serde_json::from_str(&text).expect("well-formed");
                prop_assert_eq!(values.bytes(DataType::Fp64), Ok(number.to_le_bytes().to_vec()), "{}", text);
            }
        }
    }
}
