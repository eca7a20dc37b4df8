//! Canonical JSON (OLPC), the form that TUF signatures cover: sorted keys, no white space, integers only,
//! strings with nothing escaped but the quotation mark and the backslash.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use serde_json::Value;

/// A value has no canonical form: it holds a number that is not a 64-bit integer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("canonical JSON has no form for the number {0}")]
pub struct NotCanonical(pub String);

/// The canonical bytes of `value`.
///
/// `serde_json` keeps an object's members sorted by their UTF-8 bytes, which is the order of their code
/// points, the one the format asks for. Nesting is bounded by the parser (128 levels).
pub fn to_canonical(value: &Value) -> Result<Vec<u8>, NotCanonical> {
    let mut text = String::new();
    write_value(value, &mut text)?;
    Ok(text.into_bytes())
}

fn write_value(value: &Value, out: &mut String) -> Result<(), NotCanonical> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            if number.is_f64() {
                return Err(NotCanonical(alloc::format!("{number}")));
            }
            // Writing to a String cannot fail.
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(name, out);
                out.push(':');
                write_value(member, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn members_are_sorted_and_nothing_but_quotes_and_backslashes_is_escaped() {
        let value = json!({"b": [1, -2, true, null], "a": "line\nfeed \"quoted\" \\ é", "": {}});
        let expected = "{\"\":{},\"a\":\"line\nfeed \\\"quoted\\\" \\\\ é\",\"b\":[1,-2,true,null]}";
        assert_eq!(to_canonical(&value).as_deref(), Ok(expected.as_bytes()));
    }

    #[test]
    fn fractions_and_numbers_beyond_64_bits_have_no_form() {
        for text in ["1.5", "1e3", "18446744073709551616"] {
            let value: Value = serde_json::from_str(text).expect("is JSON");
            assert!(to_canonical(&value).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn equal_values_have_equal_bytes_and_different_strings_differ(left in ".{0,12}", right in ".{0,12}") {
            let (l, r) = (to_canonical(&json!({ "k": &left })), to_canonical(&json!({ "k": &right })));
            prop_assert_eq!(left == right, l == r);
        }
    }
}
