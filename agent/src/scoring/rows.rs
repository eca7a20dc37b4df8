//! Rows of numbers as people have them, CSV or one JSON array or object a line, alone or in batches. What is
//! empty, `null` or `nan` is a missing value.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

/// Longest line in bytes: 65,536 values with 16 characters each.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Values asked at once: a request of some hundred kilobytes.
const MAX_BATCH_VALUES: usize = 1 << 15;
/// Rows asked at once: well below what a worker takes.
const MAX_BATCH_ROWS: usize = 256;

/// The input cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// It cannot be read.
    #[error("the input cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line is not a row.
    #[error("line {line}: {message}")]
    Line { line: u64, message: String },
}

/// What a row must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowShape {
    /// Values in a row.
    pub(crate) width: usize,
    /// Names of the values, where the model names them.
    pub(crate) features: Vec<String>,
}

impl RowShape {
    /// How many rows to ask about at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        (MAX_BATCH_VALUES / self.width.max(1)).clamp(1, MAX_BATCH_ROWS)
    }
}

/// Reads rows.
#[derive(Debug)]
pub(crate) struct RowReader<R> {
    input: R,
    shape: RowShape,
    format: Option<Format>,
    line: u64,
    /// Columns of the header that the model does not know.
    pub(crate) ignored: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    Json,
    /// Each value under its feature's name; one that is not there is missing.
    Objects,
    /// For each value of the row its column; none when columns are as the model wants them.
    Csv(Option<Vec<usize>>),
}

impl<R: BufRead> RowReader<R> {
    pub(crate) const fn new(input: R, shape: RowShape) -> Self {
        Self { input, shape, format: None, line: 0, ignored: Vec::new() }
    }

    /// The next rows, one after another, [`f32::NAN`] for missing values; none at the end.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Vec<f32>>, RowsError> {
        let mut values = Vec::new();
        let width = self.shape.width.max(1);
        while values.len() < self.shape.rows_at_once() * width {
            let Some(row) = self.next_row()? else {
                break;
            };
            values.extend(row);
        }
        Ok((!values.is_empty()).then_some(values))
    }

    /// The next row, [`f32::NAN`] for missing values; none at the end. After a line that is no row the next one
    /// is read; see [`Self::is_lost`].
    pub(crate) fn next_row(&mut self) -> Result<Option<Vec<f32>>, RowsError> {
        while let Some(line) = self.next_line()? {
            let row = self.row(&line).map_err(|message| RowsError::Line { line: self.line, message })?;
            if row.is_some() {
                return Ok(row);
            }
        }
        Ok(None)
    }

    /// How many rows to ask about at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        self.shape.rows_at_once()
    }

    /// Whether the header could not be understood, so that no row can be.
    pub(crate) const fn is_lost(&self) -> bool {
        self.format.is_none()
    }

    fn next_line(&mut self) -> Result<Option<String>, RowsError> {
        loop {
            let mut bytes = Vec::new();
            let read = (&mut self.input).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes)?;
            self.line += 1;
            let wrong = |message: &str| RowsError::Line { line: self.line, message: message.into() };
            if read as u64 == MAX_LINE_BYTES && bytes.last() != Some(&b'\n') {
                return Err(wrong("the line is too long"));
            }
            if read == 0 {
                return Ok(None);
            }
            let line = String::from_utf8(bytes).map_err(|_| wrong("the line is not text"))?;
            let line = line.trim_start_matches('\u{feff}').trim();
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }

    /// The row in `line`; none if it is a header.
    fn row(&mut self, line: &str) -> Result<Option<Vec<f32>>, String> {
        let format = match self.format.take() {
            Some(format) => format,
            None if line.starts_with('[') => Format::Json,
            None if line.starts_with('{') && !self.shape.features.is_empty() => Format::Objects,
            None if cells(line).all(|cell| value(cell).is_ok()) => Format::Csv(None),
            None => {
                self.format = Some(self.header(line)?);
                return Ok(None);
            }
        };
        let row = match &format {
            Format::Json => serde_json::from_str::<Vec<Option<f32>>>(line)
                .map(|values| values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect())
                .map_err(|error| error.to_string()),
            Format::Objects => self.object(line),
            Format::Csv(None) => cells(line).map(value).collect(),
            Format::Csv(Some(columns)) => {
                let cells: Vec<&str> = cells(line).collect();
                let pick = |column: &usize| match cells.get(*column) {
                    Some(cell) => value(cell),
                    None => Err(format!("there are only {} columns", cells.len())),
                };
                columns.iter().map(pick).collect()
            }
        };
        self.format = Some(format);
        let row: Vec<f32> = row?;
        if row.len() != self.shape.width {
            return Err(format!("{} values, the model wants {}", row.len(), self.shape.width));
        }
        if row.iter().any(|value| value.is_infinite()) {
            return Err("a value is beyond the range of FP32".into());
        }
        Ok(Some(row))
    }

    fn object(&self, line: &str) -> Result<Vec<f32>, String> {
        let values: BTreeMap<String, Option<f32>> =
            serde_json::from_str(line).map_err(|error| error.to_string())?;
        let features = &self.shape.features;
        if let Some(unknown) = values.keys().find(|name| features.iter().all(|feature| feature != *name)) {
            return Err(format!("the model has no feature {unknown:?}"));
        }
        let value = |feature: &String| values.get(feature).copied().flatten().unwrap_or(f32::NAN);
        Ok(features.iter().map(value).collect())
    }

    fn header(&mut self, line: &str) -> Result<Format, String> {
        let names: Vec<&str> = cells(line).collect();
        let features = &self.shape.features;
        if features.is_empty() {
            if names.len() == self.shape.width {
                return Ok(Format::Csv(None));
            }
            return Err(format!("{} columns, the model wants {}", names.len(), self.shape.width));
        }
        let find = |feature: &String| {
            let found = names.iter().position(|name| name == feature);
            found.ok_or_else(|| format!("the column {feature} is missing"))
        };
        let columns = features.iter().map(find).collect::<Result<_, _>>()?;
        let unknown = names.iter().filter(|name| features.iter().all(|feature| feature != *name));
        self.ignored = unknown.map(|name| (*name).to_owned()).collect();
        Ok(Format::Csv(Some(columns)))
    }
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"').trim())
}

fn value(cell: &str) -> Result<f32, String> {
    if cell.is_empty() || cell.eq_ignore_ascii_case("null") || cell.eq_ignore_ascii_case("nan") {
        return Ok(f32::NAN);
    }
    cell.parse().map_err(|_| format!("{cell:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, width: usize, features: &[&str]) -> Result<Vec<String>, String> {
        let shape = RowShape { width, features: features.iter().map(|name| (*name).into()).collect() };
        let mut reader = RowReader::new(text.as_bytes(), shape);
        let mut values = Vec::new();
        while let Some(batch) = reader.next_batch().map_err(|error| error.to_string())? {
            values.extend(batch.iter().map(f32::to_string));
        }
        values.extend(reader.ignored.iter().map(|name| format!("not {name}")));
        Ok(values)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn csv_and_json_lines_hold_the_same_rows() {
        let expected = Ok(texts(&["1", "2.5", "NaN", "-3"]));
        assert_eq!(read("1, 2.5\n\n,-3\n", 2, &[]), expected);
        assert_eq!(read("[1, 2.5]\r\n[null, -3]", 2, &[]), expected);
        assert_eq!(read("\u{feff}\"a\",\"b\"\n1,2.5\nnan,-3", 2, &[]), expected);
    }

    #[test]
    fn objects_hold_values_under_their_names() {
        let text = "{\"b\": 2.5, \"a\": 1}\n{\"b\": -3, \"a\": null}\n{}";
        assert_eq!(read(text, 2, &["a", "b"]), Ok(texts(&["1", "2.5", "NaN", "-3", "NaN", "NaN"])));
        let message = read("{\"c\": 1}", 2, &["a", "b"]).expect_err("no c");
        assert!(message.contains("no feature \"c\""), "{message}");
        let shape = RowShape { width: 1, features: vec!["a".into()] };
        let mut reader = RowReader::new("{\"a\": 1}\n{\"a\": []}\n{\"a\": 3}".as_bytes(), shape);
        assert_eq!(reader.next_row().expect("a row"), Some(vec![1.0]));
        assert!(reader.next_row().is_err() && !reader.is_lost());
        assert_eq!(reader.next_row().expect("the one after"), Some(vec![3.0]));
    }

    #[test]
    fn a_header_names_the_columns_wanted_and_others_are_left_out() {
        let text = "truth,b,a\n9,2,1\n9,4,3\n";
        assert_eq!(read(text, 2, &["a", "b"]), Ok(texts(&["1", "2", "3", "4", "not truth"])));
        let message = read(text, 2, &["a", "c"]).expect_err("no c");
        assert!(message.contains("line 1: the column c is missing"), "{message}");
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        for (text, named) in [
            ("1,2\n3\n", "line 2: 1 values, the model wants 2"),
            ("1,2\nx,3\n", "line 2: \"x\" is not a number"),
            ("[1,2]\n[3,", "line 2"),
            ("1,inf\n", "FP32"),
            ("1,1e39\n", "FP32"),
        ] {
            let message = read(text, 2, &[]).expect_err(text);
            assert!(message.contains(named), "{message}");
        }
        let message = read(&"1".repeat(2 << 20), 2, &[]).expect_err("endless");
        assert!(message.contains("too long"), "{message}");
    }

    #[test]
    fn many_rows_come_in_batches() {
        let text = "1,2\n".repeat(600);
        let shape = RowShape { width: 2, features: vec![] };
        let mut reader = RowReader::new(text.as_bytes(), shape);
        let mut sizes = Vec::new();
        while let Some(batch) = reader.next_batch().expect("numbers") {
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [512, 512, 176]);
    }

    proptest! {
        #[test]
        fn any_text_is_rows_or_an_error(text in "(?s).{0,80}", width in 0_usize..4) {
            let _ = read(&text, width, &["a"]);
        }
    }
}
