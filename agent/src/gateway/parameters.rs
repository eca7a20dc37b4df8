//! The parameters of a request: as many, and as much of each, as anybody here looks at. Whatever else a caller writes there
//! is read over, so that it costs no memory. Pure.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most parameters that are kept: those known here, and those that rows are divided by, are a handful.
const MAX_PARAMETERS: usize = 64;

/// Longest name or text of one that is kept: longer than any value that rows are divided by.
const MAX_BYTES: usize = 256;

/// Parameters by name. What is neither a number, a truth value nor a short text is there as `null`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parameters(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParametersVisitor;
        impl<'de> Visitor<'de> for ParametersVisitor {
            type Value = Parameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parameters, A::Error> {
                let mut kept = Map::new();
                while let Some(Short(name)) = entries.next_key()? {
                    let Plain(value) = entries.next_value()?;
                    if let Some(name) = name.filter(|_| kept.len() < MAX_PARAMETERS) {
                        kept.insert(name, value);
                    }
                }
                Ok(Parameters(kept))
            }
        }
        deserializer.deserialize_map(ParametersVisitor)
    }
}

/// A name, if it is not too long.
struct Short(Option<String>);

impl<'de> Deserialize<'de> for Short {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShortVisitor;
        impl Visitor<'_> for ShortVisitor {
            type Value = Short;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Short, E> {
                Ok(Short((text.len() <= MAX_BYTES).then(|| text.to_owned())))
            }
        }
        deserializer.deserialize_str(ShortVisitor)
    }
}

/// A value without others in it.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlainVisitor;
        impl<'de> Visitor<'de> for PlainVisitor {
            type Value = Plain;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain(Number::from_f64(value).map_or(Value::Null, Value::Number)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain(if text.len() <= MAX_BYTES { text.into() } else { Value::Null }))
            }
            fn visit_unit<E: Error>(self) -> Result<Plain, E> {
                Ok(Plain(Value::Null))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Plain, A::Error> {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Plain(Value::Null))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Plain, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Plain(Value::Null))
            }
        }
        deserializer.deserialize_any(PlainVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        let Parameters(kept) = serde_json::from_str(text).expect("well-formed");
        Value::Object(kept)
    }

    #[test]
    fn plain_values_are_kept_and_others_read_over() {
        let text = r#"{"a": true, "b": -3, "c": 0.5, "d": "lisbon", "e": null, "f": [[0, 0], {"x": 1}], "g": {"h": [1]}}"#;
        let kept = json!({ "a": true, "b": -3, "c": 0.5, "d": "lisbon", "e": null, "f": null, "g": null });
        assert_eq!(read(text), kept);
        assert!(serde_json::from_str::<Parameters>("[1]").is_err());
        assert!(serde_json::from_str::<Parameters>(r#"{"a": [1}"#).is_err());
    }

    #[test]
    fn what_is_too_long_or_too_many_is_not_kept() {
        let long = "x".repeat(MAX_BYTES + 1);
        assert_eq!(read(&json!({ "a": long, long.as_str(): 1 }).to_string()), json!({ "a": null }));
        let many: Map<String, Value> = (0..1000).map(|number| (number.to_string(), number.into())).collect();
        assert_eq!(read(&Value::Object(many).to_string()).as_object().map(Map::len), Some(MAX_PARAMETERS));
    }
}
