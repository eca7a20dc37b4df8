//! Segments: parts of a release's inputs that are watched apart, such as day and night. Each row belongs to exactly one,
//! so that all of them together are the whole.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::ids::{FieldName, SegmentNumber};
use crate::sketch::MAX_SEGMENTS;
use crate::sketch::categories::Observed;

/// The name of the segment of all that belongs to no named one.
pub const OTHER: &str = "other";

/// Most values of one segment.
pub const MAX_VALUES: usize = 32;

/// By what rows are told apart, and into what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Segmentation {
    /// What is looked at.
    pub key: SegmentKey,
    /// The named segments, 1 to 4. A row belongs to the first that has its value.
    pub named: Vec<NamedSegment>,
}

/// What tells segments apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentKey {
    /// A watched feature, row by row.
    Feature(FieldName),
    /// A parameter of the request, for all its rows.
    Parameter(FieldName),
}

/// A named segment.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedSegment {
    /// Its name.
    pub name: FieldName,
    /// What belongs to it.
    pub has: Membership,
}

/// What belongs to a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum Membership {
    /// These values.
    Values(Vec<SegmentValue>),
    /// Numbers from the first up to and without the second; an open end is none.
    Range(Option<f64>, Option<f64>),
}

/// A value that is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SegmentValue {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feature: Option<FieldName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameter: Option<FieldName>,
    named: Vec<WrittenSegment>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSegment {
    name: FieldName,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<SegmentValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
}

impl TryFrom<Written> for Segmentation {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let key = match (written.feature, written.parameter) {
            (Some(feature), None) => SegmentKey::Feature(feature),
            (None, Some(parameter)) => SegmentKey::Parameter(parameter),
            (None, None) | (Some(_), Some(_)) => {
                return Err("segments are told apart by a feature or by a parameter");
            }
        };
        let named: Vec<_> =
            written.named.into_iter().map(NamedSegment::try_from).collect::<Result<_, _>>()?;
        if named.is_empty() || named.len() >= MAX_SEGMENTS {
            return Err("1 to 4 segments are named");
        }
        let repeated = |(at, segment): (usize, &NamedSegment)| {
            segment.name.as_str() == OTHER || named.iter().take(at).any(|other| other.name == segment.name)
        };
        if named.iter().enumerate().any(repeated) {
            return Err("segments have names of their own, and none is \"other\": that is the rest");
        }
        Ok(Self { key, named })
    }
}

impl TryFrom<WrittenSegment> for NamedSegment {
    type Error = &'static str;

    fn try_from(written: WrittenSegment) -> Result<Self, Self::Error> {
        let WrittenSegment { name, values, from, below } = written;
        let has = match (values.as_slice(), from, below) {
            ([], None, None) => return Err("a segment has values, or from, or below"),
            ([], from, below) => {
                let ends = [from, below];
                let rising = !matches!((from, below), (Some(from), Some(below)) if from >= below);
                if !rising || ends.iter().flatten().any(|end| !end.is_finite()) {
                    return Err("a segment goes from a number up to a larger one");
                }
                Membership::Range(from, below)
            }
            (_, None, None) if values.len() <= MAX_VALUES => Membership::Values(values),
            (_, None, None) => return Err("a segment has 32 values at most"),
            (_, _, _) => return Err("a segment has either values or a range"),
        };
        Ok(Self { name, has })
    }
}

impl From<Segmentation> for Written {
    fn from(segmentation: Segmentation) -> Self {
        let (feature, parameter) = match segmentation.key {
            SegmentKey::Feature(name) => (Some(name), None),
            SegmentKey::Parameter(name) => (None, Some(name)),
        };
        let named = segmentation.named.into_iter().map(|NamedSegment { name, has }| match has {
            Membership::Values(values) => WrittenSegment { name, values, from: None, below: None },
            Membership::Range(from, below) => WrittenSegment { name, values: Vec::new(), from, below },
        });
        Self { feature, parameter, named: named.collect() }
    }
}

impl Segmentation {
    /// How many there are, the rest included.
    pub fn count(&self) -> usize {
        self.named.len() + 1
    }

    /// The segment that a value belongs to.
    pub fn of(&self, observed: Observed<'_>) -> SegmentNumber {
        let place = self.named.iter().position(|segment| segment.has.contains(observed));
        // At most 4.
        place.map_or(SegmentNumber(0), |place| SegmentNumber(place as u8 + 1))
    }

    /// The name of a segment; none where there is no such segment.
    pub fn name(&self, segment: SegmentNumber) -> Option<&str> {
        match usize::from(segment.0).checked_sub(1) {
            None => Some(OTHER),
            Some(at) => self.named.get(at).map(|segment| segment.name.as_str()),
        }
    }
}

impl Membership {
    fn contains(&self, observed: Observed<'_>) -> bool {
        match (self, observed) {
            (_, observed) if observed.is_missing() => false,
            (Self::Values(values), observed) => values.iter().any(|value| value.is(observed)),
            (Self::Range(from, below), Observed::Number(number)) => {
                from.is_none_or(|from| number >= from) && below.is_none_or(|below| number < below)
            }
            (Self::Range(..), Observed::Text(_)) => false,
        }
    }
}

impl SegmentValue {
    fn is(&self, observed: Observed<'_>) -> bool {
        match (self, observed) {
            // A feature may come in single precision where its segment was written in double.
            #[expect(clippy::float_cmp, reason = "a value that is named is that value or another")]
            (Self::Number(mine), Observed::Number(number)) => {
                *mine == number || f64::from(*mine as f32) == number
            }
            (Self::Text(mine), Observed::Text(text)) => mine == text,
            (Self::Number(_), Observed::Text(_)) | (Self::Text(_), Observed::Number(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString as _;
    use serde_json::{Value, json};

    fn read(json: &Value) -> Result<Segmentation, String> {
        serde_json::from_value(json.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_belongs_to_the_first_segment_that_has_its_value() {
        let lux = read(&json!({ "feature": "lux", "named": [
            { "name": "night", "below": 10.0 }, { "name": "dusk", "from": 5, "below": 100 },
            { "name": "broken", "values": [65535, 0.1] },
        ]}))
        .expect("sound");
        let of = |number: f64| lux.name(lux.of(Observed::Number(number))).expect("named").to_string();
        assert_eq!([of(-1.0), of(7.0), of(10.0), of(99.9)], ["night", "night", "dusk", "dusk"]);
        assert_eq!([of(100.0), of(65535.0), of(f64::NAN)], ["other", "broken", "other"]);
        assert_eq!(lux.of(Observed::Text("night")), SegmentNumber(0));
        assert_eq!((lux.count(), lux.name(SegmentNumber(4))), (4, None));
        let again: Segmentation =
            serde_json::from_value(serde_json::to_value(&lux).expect("json")).expect("own");
        assert_eq!(again, lux);
    }

    #[test]
    fn sites_are_told_apart_by_a_parameter() {
        let site =
            json!({ "parameter": "site", "named": [{ "name": "iberia", "values": ["Lisbon", "Porto"] }] });
        let site = read(&site).expect("sound");
        assert_eq!(site.of(Observed::Text("Porto")), SegmentNumber(1));
        assert_eq!(site.of(Observed::Text("porto")), SegmentNumber(0));
        assert_eq!(site.key, SegmentKey::Parameter("site".parse().expect("name")));
    }

    #[test]
    fn what_makes_no_segments_is_refused() {
        let named = json!([{ "name": "a", "values": [1] }]);
        let five: Value = (0..5).map(|at| json!({ "name": format!("s{at}"), "values": [at] })).collect();
        for (json, says) in [
            (json!({ "named": named }), "by a feature or by a parameter"),
            (json!({ "feature": "x", "parameter": "y", "named": named }), "by a feature or by a parameter"),
            (json!({ "feature": "x", "named": [] }), "1 to 4"),
            (json!({ "feature": "x", "named": five }), "1 to 4"),
            (json!({ "feature": "x", "named": [{ "name": "other", "values": [1] }] }), "other"),
            (json!({ "feature": "x", "named": [{ "name": "a" }] }), "has values"),
            (json!({ "feature": "x", "named": [{ "name": "a", "values": [1], "from": 2 }] }), "either"),
            (json!({ "feature": "x", "named": [{ "name": "a", "from": 2, "below": 2 }] }), "larger one"),
            (json!({ "feature": "x", "named": [{ "name": "a", "value": 2 }] }), "unknown field"),
        ] {
            let error = read(&json).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
