//! Values that are names rather than amounts: the most frequent ones of the reference data are counted each, all
//! others together. Whether a feature is of this kind is declared, never guessed from how few values it has.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::bins::{Bins, Place};

/// Categories that are counted each.
pub const MAX_CATEGORIES: usize = 15;

/// Longest text that is a category of its own: with 15 of them a feature takes a kilobyte of the profile. Longer ones
/// count with the others.
pub const MAX_CATEGORY_BYTES: usize = 64;

/// One category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Category {
    /// A number that stands for something.
    Number(f64),
    /// A name.
    Text(heapless::String<MAX_CATEGORY_BYTES>),
}

/// A value of a feature, as it comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observed<'a> {
    /// A number; NaN is missing.
    Number(f64),
    /// A text; the empty one is missing.
    Text(&'a str),
}

impl Observed<'_> {
    /// Whether there is no value.
    pub const fn is_missing(self) -> bool {
        match self {
            Self::Number(number) => number.is_nan(),
            Self::Text(text) => text.is_empty(),
        }
    }
}

impl Category {
    /// The category of a value; none where it is missing or a text too long.
    pub fn of(observed: Observed<'_>) -> Option<Self> {
        match observed {
            _ if observed.is_missing() => None,
            // Zero has two forms.
            Observed::Number(number) => Some(Self::Number(number + 0.0)),
            Observed::Text(text) => heapless::String::try_from(text).ok().map(Self::Text),
        }
    }

    fn is(&self, observed: Observed<'_>) -> bool {
        match (self, observed) {
            #[expect(clippy::float_cmp, reason = "a number that is a name is that number or another")]
            (Self::Number(mine), Observed::Number(number)) => *mine == number,
            (Self::Text(mine), Observed::Text(text)) => mine.as_str() == text,
            (Self::Number(_), Observed::Text(_)) | (Self::Text(_), Observed::Number(_)) => false,
        }
    }
}

/// The categories that are counted each, the most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Category>")]
pub struct Categories(Vec<Category>);

impl TryFrom<Vec<Category>> for Categories {
    type Error = &'static str;

    fn try_from(known: Vec<Category>) -> Result<Self, Self::Error> {
        if known.len() <= MAX_CATEGORIES { Ok(Self(known)) } else { Err("more than 15 categories") }
    }
}

impl Categories {
    /// The most frequent of `values`, and how many different ones there are.
    pub fn most_frequent<'a>(values: impl Iterator<Item = Observed<'a>>) -> (Self, usize) {
        let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
        let mut texts: BTreeMap<String, u64> = BTreeMap::new();
        for value in values.filter(|value| !value.is_missing()) {
            let count = match value {
                Observed::Number(number) => numbers.entry((number + 0.0).to_bits()).or_default(),
                Observed::Text(text) => match texts.get_mut(text) {
                    Some(count) => count,
                    None => texts.entry(text.to_owned()).or_default(),
                },
            };
            *count += 1;
        }
        let distinct = numbers.len() + texts.len();
        let numbers = numbers.iter().map(|(bits, count)| (Observed::Number(f64::from_bits(*bits)), *count));
        let texts = texts.iter().map(|(text, count)| (Observed::Text(text), *count));
        let mut all: Vec<(Observed<'_>, u64)> = numbers.chain(texts).collect();
        // Stable: what is equally frequent stays in the order of its values, so that equal data make equal profiles.
        all.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        let known = all.into_iter().filter_map(|(value, _)| Category::of(value));
        (Self(known.take(MAX_CATEGORIES).collect()), distinct)
    }

    /// Where a value is counted: its own place, or over with all others. Whatever comes has one.
    pub fn place(&self, observed: Observed<'_>) -> Place {
        if observed.is_missing() {
            return Place::Missing;
        }
        match self.0.iter().position(|category| category.is(observed)) {
            Some(place) => Place::Bin(place),
            None => Place::Over,
        }
    }

    /// The places as bins: one for each category. Without any there is one that stays empty.
    pub fn bins(&self) -> Bins {
        Bins::classes(self.0.len())
    }

    /// The categories, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Category> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_never_seen_counts_as_other_and_what_is_not_there_as_missing() {
        let cities = ["Oslo", "Rome", "Oslo", "", "Bern"];
        let (categories, distinct) = Categories::most_frequent(cities.into_iter().map(Observed::Text));
        assert_eq!(distinct, 3);
        assert_eq!(categories.place(Observed::Text("Oslo")), Place::Bin(0));
        assert_eq!(categories.place(Observed::Text("Bern")), Place::Bin(1), "equally frequent: by name");
        assert_eq!(categories.place(Observed::Text("Lima")), Place::Over);
        assert_eq!(categories.place(Observed::Text("")), Place::Missing);
        assert_eq!(categories.place(Observed::Number(1.0)), Place::Over);
        assert_eq!(categories.bins().len(), 3);
    }

    #[test]
    fn numbers_are_categories_too() {
        let values = [2.0, 2.0, -0.0, 0.0, 0.0, f64::NAN];
        let (categories, distinct) = Categories::most_frequent(values.into_iter().map(Observed::Number));
        assert_eq!(distinct, 2);
        assert_eq!(categories.place(Observed::Number(-0.0)), Place::Bin(0));
        assert_eq!(categories.place(Observed::Number(2.000_000_1)), Place::Over);
        assert_eq!(categories.place(Observed::Number(f64::INFINITY)), Place::Over);
        assert_eq!(categories.place(Observed::Number(f64::NAN)), Place::Missing);
    }

    #[test]
    fn no_data_has_no_categories_and_still_takes_values() {
        let (categories, distinct) = Categories::most_frequent(core::iter::empty());
        assert_eq!((categories.bins().len(), distinct), (1, 0));
        assert_eq!(categories.place(Observed::Text("x")), Place::Over);
    }

    proptest! {
        #[test]
        fn at_most_fifteen_and_never_a_less_frequent_one(values in prop::collection::vec(0_u8..40, 0..300)) {
            let observed = || values.iter().map(|value| Observed::Number(f64::from(*value)));
            let (categories, distinct) = Categories::most_frequent(observed());
            let count = |place: Place| observed().filter(|value| categories.place(*value) == place).count();
            prop_assert_eq!(categories.iter().count(), distinct.min(MAX_CATEGORIES));
            let counts: Vec<usize> = (0..categories.iter().count()).map(|at| count(Place::Bin(at))).collect();
            prop_assert!(counts.windows(2).all(|pair| pair[0] >= pair[1]));
            let listed: usize = counts.iter().sum();
            prop_assert_eq!(listed + count(Place::Over), values.len());
        }

        #[test]
        fn any_text_has_a_place(known in prop::collection::vec(".{0,80}", 0..20), text in ".{0,80}") {
            let (categories, _) = Categories::most_frequent(known.iter().map(|text| Observed::Text(text)));
            let place = categories.place(Observed::Text(&text));
            prop_assert_eq!(place == Place::Missing, text.is_empty());
        }
    }
}
