//! Comma-separated values (RFC 4180).

use std::borrow::Cow;

use super::{Column, ColumnKind, Format, ReferenceError, ReferenceRows, no_number, sound};

const FILE: &str = Format::Csv.file();

pub(super) fn read(bytes: Vec<u8>, columns: Vec<Column>) -> Result<ReferenceRows, ReferenceError> {
    let whole = |what: String| ReferenceError::Whole { file: FILE, what };
    if let Some(Column { name, .. }) =
        columns.iter().find(|column| matches!(column.kind, ColumnKind::Tensor(_)))
    {
        return Err(whole(format!(
            "cannot hold the input {name}, which names no features: give reference.ndjson or reference.npy instead"
        )));
    }
    let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8".into()))?;
    let text = if columns.len() == 1 { quoted_blanks(&text) } else { Cow::Borrowed(text.as_str()) };
    let mut reader = csv::ReaderBuilder::new();
    let reader = reader.has_headers(false).flexible(true);
    let mut records = reader.from_reader(text.as_bytes()).into_records();
    // Text was read as UTF-8 and lies in memory: no record can fail.
    let header = records.next().and_then(Result::ok).unwrap_or_default();
    check_header(&header.iter().map(str::trim).collect::<Vec<_>>(), &columns)?;
    let mut rows = ReferenceRows::empty(columns);
    for record in records.filter_map(Result::ok) {
        rows.begin_row(FILE)?;
        push(&mut rows, &record)?;
    }
    Ok(rows)
}

fn push(rows: &mut ReferenceRows, record: &csv::StringRecord) -> Result<(), ReferenceError> {
    let line = record.position().map_or(0, csv::Position::line);
    let (found, expected) = (record.len(), rows.columns.len());
    if found != expected {
        let what = format!("{found} cells, {expected} expected");
        return Err(ReferenceError::At { file: FILE, place: format!("line {line}"), what });
    }
    for (at, cell) in record.iter().enumerate() {
        let Some(column) = rows.columns.get(at) else { continue };
        if column.kind == ColumnKind::Text {
            rows.push_text(at, cell.to_owned());
            continue;
        }
        // Blanks around a text are part of it, as in requests; around a number they say nothing.
        let cell = cell.trim();
        let number = match cell.parse::<f64>() {
            _ if cell.is_empty() => f64::NAN,
            Ok(value) if sound(value) => value,
            Ok(_) | Err(_) => {
                let place = format!("line {line}, column {}", column.name);
                let cell: String = cell.chars().take(40).collect();
                return Err(ReferenceError::At { file: FILE, place, what: no_number(&format!("{cell:?}")) });
            }
        };
        rows.push_number(at, number);
    }
    Ok(())
}

/// With a single column an empty line is a row whose value is missing, which CSV would leave out.
fn quoted_blanks(text: &str) -> Cow<'_, str> {
    let lines = text.lines().map(|line| if line.trim().is_empty() { "\"\"" } else { line });
    Cow::Owned(lines.collect::<Vec<_>>().join("\n"))
}

fn check_header(found: &[&str], columns: &[Column]) -> Result<(), ReferenceError> {
    let whole = |what: String| Err(ReferenceError::Whole { file: FILE, what });
    let at = |at: usize, what: String| {
        Err(ReferenceError::At { file: FILE, place: format!("column {}", at + 1), what })
    };
    let found = if found == [""] { &[] } else { found };
    let is_absent = |column: &&Column| !found.contains(&column.name.as_str());
    if let Some(missing) = columns.iter().find(is_absent) {
        return whole(format!("has no column for the feature {}", missing.name));
    }
    for (place, name) in found.iter().enumerate() {
        if !columns.iter().any(|column| column.name.as_str() == *name) {
            return at(place, format!("{name:?} is not a feature in serin.toml"));
        }
        if found.iter().take(place).any(|other| other == name) {
            return whole(format!("has more than one column {name:?}"));
        }
    }
    let mut pairs = found.iter().zip(columns).enumerate();
    match pairs.find(|(_, (name, column))| column.name.as_str() != **name) {
        Some((place, (found, expected))) => at(
            place,
            format!("the features in serin.toml are ordered: {} is next, not {found:?}", expected.name),
        ),
        None => Ok(()),
    }
}
