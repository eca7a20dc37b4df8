//! Reference data as a data scientist writes it (`reference.csv`: a header with the feature names, a row
//! a line, an empty cell for a missing value). Every fault is named by its column or line.

use serin_protocol::ids::FieldName;
use serin_protocol::sketch::profile::FeatureProfile;

/// Largest `reference.csv` in bytes. It is read whole, on the packer's machine.
pub const MAX_REFERENCE_BYTES: u64 = 256 << 20;

/// Most rows: what the device program predicts in one run; more make no finer bins.
pub const MAX_REFERENCE_ROWS: usize = 200_000;

/// The reference data, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceRows {
    names: Vec<FieldName>,
    /// All values, one row after the other; NaN where a cell is empty.
    values: Vec<f32>,
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
    /// Reads `text`, whose header must be exactly `names`.
    pub fn parse(text: &str, names: Vec<FieldName>) -> Result<Self, ReferenceError> {
        let mut lines = text.lines().enumerate();
        check_header(lines.next().map_or("", |(_, header)| header), &names)?;
        // With a single feature an empty line is a row whose value is missing.
        let rows = lines.filter(|(_, line)| names.len() == 1 || !line.is_empty());
        let count = rows.clone().count();
        if count > MAX_REFERENCE_ROWS || (count == 0 && !names.is_empty()) {
            return Err(ReferenceError::Count(count));
        }
        let mut values = Vec::with_capacity(count * names.len());
        for (at, line) in rows {
            read_row(line, at + 1, &names, &mut values)?;
        }
        Ok(Self { names, values })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.names.len()).unwrap_or(0)
    }

    /// Whether there is no row, as for a model without named features.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows, each in the order of the features.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks(self.names.len().max(1))
    }

    /// Bins and counts of every feature, in order.
    pub fn feature_profiles(&self) -> Vec<FeatureProfile> {
        let column = |at: usize| -> Vec<f32> {
            self.values.iter().skip(at).step_by(self.names.len().max(1)).copied().collect()
        };
        let names = self.names.iter().enumerate();
        names.map(|(at, name)| FeatureProfile::of(name.clone(), &column(at))).collect()
    }
}

fn check_header(header: &str, names: &[FieldName]) -> Result<(), ReferenceError> {
    let columns: Vec<&str> =
        if header.is_empty() { Vec::new() } else { header.split(',').map(str::trim).collect() };
    let is_there = |name: &FieldName| columns.contains(&name.as_str());
    if let Some(missing) = names.iter().find(|name| !is_there(name)) {
        return Err(ReferenceError::MissingColumn(missing.clone()));
    }
    for (at, column) in columns.iter().enumerate() {
        if !names.iter().any(|name| name.as_str() == *column) {
            return Err(ReferenceError::ExtraColumn { at: at + 1, name: (*column).into() });
        }
        if columns.iter().take(at).any(|other| other == column) {
            return Err(ReferenceError::RepeatedColumn((*column).into()));
        }
    }
    let mut pairs = columns.iter().zip(names).enumerate();
    match pairs.find(|(_, (column, name))| name.as_str() != **column) {
        Some((at, (found, expected))) => Err(ReferenceError::ColumnOrder {
            at: at + 1,
            found: (*found).into(),
            expected: expected.clone(),
        }),
        None => Ok(()),
    }
}

fn read_row(
    line: &str,
    number: usize,
    names: &[FieldName],
    values: &mut Vec<f32>,
) -> Result<(), ReferenceError> {
    let found = line.split(',').count();
    if found != names.len() {
        return Err(ReferenceError::Cells { line: number, found, expected: names.len() });
    }
    for (cell, name) in line.split(',').zip(names) {
        let cell = cell.trim();
        let value = match cell.parse::<f32>() {
            _ if cell.is_empty() => f32::NAN,
            Ok(value) if value.is_finite() => value,
            Ok(_) | Err(_) => {
                let (column, cell) = (name.clone(), cell.chars().take(40).collect());
                return Err(ReferenceError::Number { line: number, column, cell });
            }
        };
        values.push(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &[&str]) -> Vec<FieldName> {
        names.iter().map(|name| name.parse().expect("name")).collect()
    }

    fn read(text: &str) -> Result<ReferenceRows, ReferenceError> {
        ReferenceRows::parse(text, names(&["a", "b"]))
    }

    #[test]
    fn rows_are_read_and_empty_cells_are_missing() {
        let rows = read("a,b\r\n1, 2.5\r\n,-3e2\r\n").expect("good");
        let values: Vec<&[f32]> = rows.rows().collect();
        assert_eq!((rows.len(), values[0]), (2, [1.0, 2.5].as_slice()));
        assert!(values[1][0].is_nan());
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
