//! JSON lines: an object a row.

use serde_json::{Map, Value};

use super::{Column, ColumnKind, Format, ReferenceError, ReferenceRows, no_number, sound};

const FILE: &str = Format::JsonLines.file();

pub(super) fn read(bytes: &[u8], columns: Vec<Column>) -> Result<ReferenceRows, ReferenceError> {
    let mut rows = ReferenceRows::empty(columns);
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let wrong = |column: Option<&str>, what: String| {
            let column = column.map_or_else(String::new, |name| format!(", column {name}"));
            ReferenceError::At { file: FILE, place: format!("line {}{column}", at + 1), what }
        };
        rows.begin_row(FILE)?;
        let row: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| wrong(None, error.to_string()))?;
        let known = |name: &String| rows.columns.iter().any(|column| column.name.as_str() == name);
        if let Some(name) = row.keys().find(|name| !known(name)) {
            return Err(wrong(Some(name), "it is not a feature in serin.toml".into()));
        }
        for number in 0..rows.columns.len() {
            let Some(column) = rows.columns.get(number).cloned() else { continue };
            let name = column.name.as_str();
            let value = row
                .get(name)
                .ok_or_else(|| wrong(Some(name), "it is not there; null is a missing value".into()))?;
            push(&mut rows, number, &column, value).map_err(|what| wrong(Some(name), what))?;
        }
    }
    Ok(rows)
}

fn push(rows: &mut ReferenceRows, at: usize, column: &Column, value: &Value) -> Result<(), String> {
    match column.kind {
        ColumnKind::Text => {
            rows.push_text(at, text(value)?);
            Ok(())
        }
        ColumnKind::Number => number(value).map(|number| rows.push_number(at, number)),
        ColumnKind::Tensor(width) => {
            let mut count = 0;
            if value.is_null() {
                // All of it is missing.
                (0..width).for_each(|_| rows.push_number(at, f64::NAN));
                return Ok(());
            }
            flatten(value, &mut |value| {
                count += 1;
                if count <= width {
                    rows.push_number(at, number(value)?);
                }
                Ok(())
            })?;
            if count == width { Ok(()) } else { Err(format!("{count} values, {width} expected")) }
        }
    }
}

/// Every value of nested lists, as deep as JSON is read.
fn flatten(value: &Value, each: &mut impl FnMut(&Value) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| flatten(value, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => each(value),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Null => Ok(f64::NAN),
        Value::Bool(truth) => Ok(f64::from(u8::from(*truth))),
        Value::Number(number) => {
            number.as_f64().filter(|number| sound(*number)).ok_or_else(|| no_number(&number.to_string()))
        }
        Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(no_number(&value.to_string().chars().take(40).collect::<String>()))
        }
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => Err("it is not a text".into()),
    }
}
