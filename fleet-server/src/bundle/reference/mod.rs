//! Reference data as a data scientist has it: CSV, JSON lines, a NumPy array or a Parquet file, read into columns, and
//! what it looks like. Every fault is named by its line and column.

mod csv;
mod images;
mod json_lines;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod profile;

use std::path::{Path, PathBuf};

use serin_protocol::ids::FieldName;
use serin_protocol::manifest::segments::SegmentKey;
use serin_protocol::manifest::{TensorSpec, Watch};

pub use self::images::Images;
pub use self::profile::{Watched, profile};

/// Largest file of reference data in bytes. It is read whole, on the packer's machine.
pub const MAX_REFERENCE_BYTES: u64 = 256 << 20;

/// Most rows: what the device program predicts in one run; more make no finer bins.
pub const MAX_REFERENCE_ROWS: usize = 200_000;

/// Most numbers of all rows and columns: what a file of the largest size holds in two bytes each.
const MAX_NUMBERS: usize = 128 << 20;

/// How reference data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180: a header with the names of the columns, a row a line, an empty cell for a missing value. A file of an
    /// image is base64, or the name of a file of the model folder, here and in JSON lines.
    Csv,
    /// An object a line, with a member for each column; `null` is a missing value.
    JsonLines,
    /// A NumPy array of numbers: rows, then the values of all columns in their order; NaN is a missing value.
    Npy,
    /// Columns of these names; null and NaN are missing values. A file of an image may also be bytes.
    Parquet,
}

impl Format {
    /// All formats, the usual one first.
    pub const ALL: [Self; 4] = [Self::Csv, Self::JsonLines, Self::Npy, Self::Parquet];

    /// Name of the file in a model folder.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Csv => "reference.csv",
            Self::JsonLines => "reference.ndjson",
            Self::Npy => "reference.npy",
            Self::Parquet => "reference.parquet",
        }
    }
}

/// A column of the reference data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The feature, the input, or the parameter of requests.
    pub name: FieldName,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A number a row.
    Number,
    /// The numbers of an input whose values have no names.
    Tensor(usize),
    /// A text a row.
    Text,
}

impl Column {
    /// Numbers in a row of it.
    const fn width(&self) -> usize {
        match self.kind {
            ColumnKind::Number => 1,
            ColumnKind::Tensor(width) => width,
            ColumnKind::Text => 0,
        }
    }
}

/// The columns that a model's reference data has: its features in order, inputs that are texts or have no names where
/// they are watched or needed to predict, and the parameter of requests that tells segments apart.
pub fn columns(inputs: &[TensorSpec], watch: &Watch, predicts: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    for input in inputs {
        let column = |name: &FieldName, kind| Column { name: name.clone(), kind };
        columns.extend(input.features.iter().map(|name| column(name, ColumnKind::Number)));
        let summarized = watch.summaries.iter().any(|summarized| summarized.input == input.name);
        if input.is_text() {
            if predicts || summarized || watch.categorical.contains(&input.name) {
                columns.push(column(&input.name, ColumnKind::Text));
            }
        } else if input.features.is_empty() && (predicts || summarized) {
            columns.push(column(&input.name, ColumnKind::Tensor(input.row_elements().unwrap_or(0))));
        }
    }
    if let Some(SegmentKey::Parameter(name)) = watch.segments.as_ref().map(|segments| &segments.key) {
        columns.push(Column { name: name.clone(), kind: ColumnKind::Text });
    }
    columns
}

/// The reference data, column by column.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceRows {
    columns: Vec<Column>,
    count: usize,
    /// As many as columns.
    values: Vec<Values>,
}

/// The values of one column.
#[derive(Clone, Debug, PartialEq)]
enum Values {
    /// One row after the other; NaN where there is none.
    Numbers(Vec<f64>),
    /// Empty where there is none.
    Texts(Vec<String>),
}

/// Reference data was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Something is wrong somewhere.
    #[error("{file}, {place}: {what}")]
    At {
        /// The file.
        file: &'static str,
        /// The line or row from 1, the column.
        place: String,
        /// What, and what is wanted.
        what: String,
    },
    /// Something is wrong with the whole.
    #[error("{file} {what}")]
    Whole {
        /// The file.
        file: &'static str,
        /// What, and what is wanted.
        what: String,
    },
    /// There are none, or too many.
    #[error("{file} has {rows} rows, 1 to {MAX_REFERENCE_ROWS} are needed")]
    Count {
        /// The file.
        file: &'static str,
        /// How many.
        rows: usize,
    },
}

impl ReferenceRows {
    /// Reads `bytes`, whose columns must be `columns`.
    pub fn read(format: Format, bytes: Vec<u8>, columns: Vec<Column>) -> Result<Self, ReferenceError> {
        let rows = match format {
            Format::Csv => csv::read(bytes, columns),
            Format::JsonLines => json_lines::read(&bytes, columns),
            Format::Npy => npy::read(&bytes, columns),
            #[cfg(feature = "parquet")]
            Format::Parquet => parquet::read(bytes, columns),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => Err(ReferenceError::Whole {
                file: format.file(),
                what: "cannot be read: this program was built without the feature parquet".into(),
            }),
        }?;
        if rows.count == 0 && !rows.columns.is_empty() {
            return Err(ReferenceError::Count { file: format.file(), rows: 0 });
        }
        Ok(rows)
    }

    fn empty(columns: Vec<Column>) -> Self {
        let values = columns.iter().map(|column| match column.kind {
            ColumnKind::Number | ColumnKind::Tensor(_) => Values::Numbers(Vec::new()),
            ColumnKind::Text => Values::Texts(Vec::new()),
        });
        Self { values: values.collect(), columns, count: 0 }
    }

    /// Another row begins; refused where there are enough.
    fn begin_row(&mut self, file: &'static str) -> Result<(), ReferenceError> {
        self.count += 1;
        let numbers: usize = self.columns.iter().map(Column::width).sum();
        if self.count > MAX_REFERENCE_ROWS || self.count.saturating_mul(numbers) > MAX_NUMBERS {
            return Err(ReferenceError::Count { file, rows: self.count });
        }
        Ok(())
    }

    fn push_number(&mut self, column: usize, number: f64) {
        if let Some(Values::Numbers(numbers)) = self.values.get_mut(column) {
            numbers.push(number);
        }
    }

    fn push_text(&mut self, column: usize, text: String) {
        if let Some(Values::Texts(texts)) = self.values.get_mut(column) {
            texts.push(text);
        }
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row, as for a model of which nothing is watched.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All numbers of the column `name`, row after row; none where that holds no numbers.
    pub fn numbers(&self, name: &FieldName) -> Option<&[f64]> {
        let named =
            |(column, _): &(&Column, &Values)| column.name == *name && column.kind != ColumnKind::Text;
        match self.columns.iter().zip(&self.values).find(named)?.1 {
            Values::Numbers(numbers) => Some(numbers),
            Values::Texts(_) => None,
        }
    }

    /// All texts of the column `name`; none where that holds no texts.
    pub fn texts(&self, name: &FieldName) -> Option<&[String]> {
        let named =
            |(column, _): &(&Column, &Values)| column.name == *name && column.kind == ColumnKind::Text;
        match self.columns.iter().zip(&self.values).find(named)?.1 {
            Values::Texts(texts) => Some(texts),
            Values::Numbers(_) => None,
        }
    }

    /// The raw numbers of an input, whether its values have names or not; none of one that holds texts.
    pub fn input(&self, input: &TensorSpec) -> InputRows<'_> {
        if input.features.is_empty() {
            let columns = self.numbers(&input.name).into_iter().collect();
            return InputRows { columns, width: input.row_elements().unwrap_or(0) };
        }
        let column = |name| self.numbers(name).unwrap_or_default();
        InputRows { columns: input.features.iter().map(column).collect(), width: 1 }
    }
}

/// The raw numbers of one input.
#[derive(Clone, Debug)]
pub struct InputRows<'a> {
    columns: Vec<&'a [f64]>,
    /// Numbers of a row in each column.
    width: usize,
}

impl InputRows<'_> {
    /// Those of one row, in their order.
    pub fn row(&self, row: usize) -> impl Iterator<Item = f64> + '_ {
        let place = row * self.width..(row + 1) * self.width;
        let part = move |column: &&'_ [f64]| column.get(place.clone()).unwrap_or_default().to_vec();
        self.columns.iter().flat_map(part)
    }
}

/// A number that a sketch can hold: what it holds is single precision.
fn sound(number: f64) -> bool {
    (number as f32).is_finite()
}

/// What is said of a value that is no such number.
fn no_number(shown: &str) -> String {
    format!("{shown} is not a finite number; leave a missing value empty")
}

/// The one file of reference data in a model folder; the usual one where there is none.
pub fn find(folder: &Path) -> Result<(Format, PathBuf), Vec<&'static str>> {
    let mut there = Format::ALL.into_iter().filter(|format| folder.join(format.file()).is_file());
    let first = there.next().unwrap_or(Format::Csv);
    let others: Vec<&'static str> = there.map(Format::file).collect();
    if others.is_empty() {
        Ok((first, folder.join(first.file())))
    } else {
        Err([&[first.file()][..], &others].concat())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
