//! The `data` of a JSON tensor, nested or flat, straight into the bytes a worker wants: no tree of
//! values is built, so a request costs little more memory than its text.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, DeserializeSeed, Error, SeqAccess, Visitor};
use serin_protocol::tensor::MAX_DIMENSIONS;

/// Numbers of an FP32 tensor with the form in which they were written. `null` is a missing value, NaN.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Values {
    /// Little-endian FP32.
    pub(super) bytes: Vec<u8>,
    /// Length of each level of nesting, outermost first.
    pub(super) lengths: heapless::Vec<u32, MAX_DIMENSIONS>,
    /// How many arrays the numbers lie in; none before the first number.
    depth: Option<usize>,
}

impl Values {
    /// How many numbers there are.
    pub(super) const fn count(&self) -> u64 {
        (self.bytes.len() / size_of::<f32>()) as u64
    }

    fn push<E: Error>(&mut self, depth: usize, value: f32) -> Result<(), E> {
        if depth == 0 {
            return Err(E::custom("data must be an array"));
        }
        if *self.depth.get_or_insert(depth) != depth {
            return Err(E::custom("data mixes numbers and arrays at one level"));
        }
        self.bytes.extend(value.to_le_bytes());
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
                Err(D::Error::custom("data mixes numbers and arrays at one level"))
            }
            Some(_) | None => Ok(values),
        }
    }
}

/// One element `depth` arrays deep: a number, or an array of such.
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
        f.write_str("numbers, nulls for missing ones, or arrays of these")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.values.push(self.depth, f32::NAN)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.values.push(self.depth, value as f32)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.values.push(self.depth, value as f32)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let narrow = value as f32;
        if narrow.is_infinite() {
            return Err(E::custom(format_args!("{value} is beyond the range of FP32")));
        }
        self.values.push(self.depth, narrow)
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
        let (chunks, _) = values.bytes.as_chunks::<4>();
        Ok((chunks.iter().map(|raw| f32::from_le_bytes(*raw)).collect(), values.lengths.to_vec()))
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
            "[true]",
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
            let same = |(a, b): (&f32, &f32)| a == b || (!a.is_finite() && b.is_nan());
            prop_assert!(numbers.len() == read.len() && numbers.iter().zip(&read).all(same));
        }
    }
}
