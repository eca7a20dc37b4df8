//! Reference data as a data scientist writes it (`reference.csv`, RFC 4180: a header with the feature names, a row
//! a line, an empty cell for a missing value). Every fault is named by its column or line.

use std::borrow::Cow;

use serin_protocol::ids::FieldName;
use serin_protocol::sketch::profile::FeatureProfile;

/// Largest `reference.csv` in bytes. It is read whole, on the packer's machine.
pub const MAX_REFERENCE_BYTES: u64 = 256 << 20;

/// Most rows: what the device program predicts in one run; more make no finer bins.
pub const MAX_REFERENCE_ROWS: usize = 200_000;

/// A column of the reference data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceColumn {
    /// The feature, or the input where a row of it is one text.
    pub name: FieldName,
    /// Whether it holds texts, which have no profile.
    pub is_text: bool,
}

/// The reference data, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceRows {
    columns: Vec<ReferenceColumn>,
    count: usize,
    /// All numbers, one row after the other; NaN where a cell is empty.
    numbers: Vec<f64>,
    /// All texts, one row after the other.
    texts: Vec<String>,
}

/// `reference.csv` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A feature has no column.
    #[error("reference.csv has no column for the feature {0}")]
    MissingColumn(FieldName),
    /// A column that is no feature.
    #[error("reference.csv, column {at}: {name:?} is not a feature in serin.toml")]
    ExtraColumn {
        /// Column, from 1.
        at: usize,
        /// Its name.
        name: String,
    },
    /// A feature has more than one column.
    #[error("reference.csv has more than one column {0:?}")]
    RepeatedColumn(String),
    /// Right columns in the wrong order.
    #[error(
        "reference.csv, column {at} is {found:?}, the features in serin.toml are ordered: {expected} is next"
    )]
    ColumnOrder {
        /// Column, from 1.
        at: usize,
        /// Its name.
        found: String,
        /// The feature that belongs there.
        expected: FieldName,
    },
    /// A row with too many or too few cells.
    #[error("reference.csv, line {line}: {found} cells, {expected} expected")]
    Cells {
        /// Line, from 1.
        line: usize,
        /// Cells found.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A cell that is not a number.
    #[error(
        "reference.csv, line {line}, column {column}: {cell:?} is not a finite number; leave a missing value empty"
    )]
    Number {
        /// Line, from 1.
        line: usize,
        /// The feature.
        column: FieldName,
        /// What is there.
        cell: String,
    },
    /// There are none, or too many.
    #[error("reference.csv has {0} rows, 1 to {MAX_REFERENCE_ROWS} are needed")]
    Count(usize),
}

impl ReferenceRows {
    /// Reads `text`, whose header must be `columns` in their order.
    pub fn parse(text: &str, columns: Vec<ReferenceColumn>) -> Result<Self, ReferenceError> {
        let text = if columns.len() == 1 { quoted_blanks(text) } else { Cow::Borrowed(text) };
        let mut reader = csv::ReaderBuilder::new();
        let reader = reader.has_headers(false).flexible(true).trim(csv::Trim::All);
        let mut records = reader.from_reader(text.as_bytes()).into_records();
        // Text was read as UTF-8 and lies in memory: no record can fail.
        let header = records.next().and_then(Result::ok).unwrap_or_default();
        check_header(&header.iter().collect::<Vec<_>>(), &columns)?;
        let mut rows = Self { columns, count: 0, numbers: Vec::new(), texts: Vec::new() };
        for record in records.filter_map(Result::ok) {
            rows.count += 1;
            if rows.count <= MAX_REFERENCE_ROWS {
                rows.push(&record)?;
            }
        }
        if rows.count > MAX_REFERENCE_ROWS || (rows.count == 0 && !rows.columns.is_empty()) {
            return Err(ReferenceError::Count(rows.count));
        }
        Ok(rows)
    }

    fn push(&mut self, record: &csv::StringRecord) -> Result<(), ReferenceError> {
        let line = record.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(0));
        let (found, expected) = (record.len(), self.columns.len());
        if found != expected {
            return Err(ReferenceError::Cells { line, found, expected });
        }
        for (cell, column) in record.iter().zip(&self.columns) {
            if column.is_text {
                self.texts.push(cell.to_owned());
                continue;
            }
            self.numbers.push(match cell.parse::<f64>() {
                _ if cell.is_empty() => f64::NAN,
                // What a sketch holds is single precision.
                Ok(value) if (value as f32).is_finite() => value,
                Ok(_) | Err(_) => {
                    let (column, cell) = (column.name.clone(), cell.chars().take(40).collect());
                    return Err(ReferenceError::Number { line, column, cell });
                }
            });
        }
        Ok(())
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row, as for a model without named features.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The numbers of every row, and its texts.
    pub fn rows(&self) -> impl Iterator<Item = (&[f64], &[String])> {
        let texts = self.columns.iter().filter(|column| column.is_text).count();
        let numbers = self.columns.len() - texts;
        (0..self.count).map(move |row| {
            let part = |width: usize| row * width..(row + 1) * width;
            let numbers = self.numbers.get(part(numbers)).unwrap_or_default();
            (numbers, self.texts.get(part(texts)).unwrap_or_default())
        })
    }

    /// Profile of every feature, in order.
    pub fn feature_profiles(&self) -> Vec<FeatureProfile> {
        let names: Vec<_> = self.columns.iter().filter(|column| !column.is_text).collect();
        let column = |at: usize| -> Vec<f32> {
            self.numbers.iter().skip(at).step_by(names.len().max(1)).map(|value| *value as f32).collect()
        };
        names
            .iter()
            .enumerate()
            .map(|(at, feature)| FeatureProfile::of(feature.name.clone(), &column(at)))
            .collect()
    }
}

/// With a single column an empty line is a row whose value is missing, which CSV would leave out.
fn quoted_blanks(text: &str) -> Cow<'_, str> {
    let lines = text.lines().map(|line| if line.trim().is_empty() { "\"\"" } else { line });
    Cow::Owned(lines.collect::<Vec<_>>().join("\n"))
}

fn check_header(found: &[&str], columns: &[ReferenceColumn]) -> Result<(), ReferenceError> {
    let found = if found == [""] { &[] } else { found };
    let is_absent = |column: &&ReferenceColumn| !found.contains(&column.name.as_str());
    if let Some(missing) = columns.iter().find(is_absent) {
        return Err(ReferenceError::MissingColumn(missing.name.clone()));
    }
    for (at, name) in found.iter().enumerate() {
        if !columns.iter().any(|column| column.name.as_str() == *name) {
            return Err(ReferenceError::ExtraColumn { at: at + 1, name: (*name).into() });
        }
        if found.iter().take(at).any(|other| other == name) {
            return Err(ReferenceError::RepeatedColumn((*name).into()));
        }
    }
    let mut pairs = found.iter().zip(columns).enumerate();
    match pairs.find(|(_, (name, column))| column.name.as_str() != **name) {
        Some((at, (found, expected))) => Err(ReferenceError::ColumnOrder {
            at: at + 1,
            found: (*found).into(),
            expected: expected.name.clone(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &[&str]) -> Vec<ReferenceColumn> {
        let column = |name: &&str| ReferenceColumn { name: name.parse().expect("name"), is_text: false };
        names.iter().map(column).collect()
    }

    #[test]
    fn texts_stand_beside_numbers_and_have_no_profile() {
        let mut columns = names(&["a", "city", "b"]);
        columns[1].is_text = true;
        let rows = ReferenceRows::parse("a,city,b\n1,\"Rome, Italy\",2\n,,0.1\n", columns).expect("good");
        let all: Vec<_> = rows.rows().collect();
        assert_eq!(all[0], ([1.0, 2.0].as_slice(), ["Rome, Italy".to_owned()].as_slice()));
        assert!(all[1].0[0].is_nan() && all[1].1 == [String::new()]);
        assert_eq!(rows.feature_profiles().len(), 2);
    }

    fn read(text: &str) -> Result<ReferenceRows, ReferenceError> {
        ReferenceRows::parse(text, names(&["a", "b"]))
    }

    #[test]
    fn rows_are_read_and_empty_cells_are_missing() {
        let rows = read("a,b\r\n1, 2.5\r\n,-3e2\r\n").expect("good");
        let values: Vec<_> = rows.rows().collect();
        assert_eq!((rows.len(), values[0].0), (2, [1.0, 2.5].as_slice()));
        assert!(values[1].0[0].is_nan());
        let profiles = rows.feature_profiles();
        assert_eq!(profiles[0].sketch.reference.missing, 1);
        assert_eq!((profiles[1].name.as_str(), profiles[1].sketch.reference.present()), ("b", 2));
    }

    #[test]
    fn a_wrong_header_names_the_column() {
        let says = |text: &str| read(text).expect_err(text).to_string();
        assert!(says("a\n1\n").contains("no column for the feature b"));
        assert!(says("").contains("no column for the feature a"));
        assert!(says("a,b,c\n1,2,3\n").contains("column 3: \"c\""));
        assert!(says("a,b,a\n1,2,3\n").contains("more than one column \"a\""));
        assert!(says("b,a\n1,2\n").contains("column 1 is \"b\""));
    }

    #[test]
    fn a_wrong_cell_names_its_line_and_column() {
        let says = |text: &str| read(text).expect_err(text).to_string();
        assert!(says("a,b\n1,2\n1,x\n").contains("line 3, column b: \"x\""));
        assert!(says("a,b\n1,NaN\n").contains("line 2, column b"));
        assert!(says("a,b\n1,1e39\n").contains("1e39"));
        assert!(says("a,b\n1\n").contains("line 2: 1 cells, 2 expected"));
        assert_eq!(read("a,b\n"), Err(ReferenceError::Count(0)));
    }

    #[test]
    fn a_model_without_named_features_has_an_empty_reference() {
        let rows = ReferenceRows::parse("", Vec::new()).expect("nothing to say");
        assert!(rows.is_empty() && rows.feature_profiles().is_empty());
    }

    #[test]
    fn an_empty_line_of_a_single_feature_is_a_missing_value() {
        let rows = ReferenceRows::parse("a\n1\n\n3\n", names(&["a"])).expect("good");
        assert_eq!(rows.len(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_reference_data_or_an_error(text in "(a,b\n)?[0-9a,b.\n-]{0,60}") {
            let _ = read(&text);
        }
    }
}
