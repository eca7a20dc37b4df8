//! Rows of a Parquet file, column by column under the names of the model. Only files: the end of one is read
//! first.

use std::cell::Cell;
use std::fs::File;
use std::rc::Rc;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::Value;
use serin_protocol::base64;

use super::images;
use super::rows::RowsError;
use super::shape::{Column, RowShape, RowValues};

/// Reads rows.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    shape: RowShape,
    /// For each value of a row its column.
    places: Vec<usize>,
    /// Number of the last row, from 1.
    row: u64,
    /// All rows.
    count: u64,
    bytes: u64,
    read: Rc<Cell<u64>>,
    /// Columns that the model does not know.
    pub(super) ignored: Vec<String>,
}

impl ParquetRows {
    /// The rows of `file`, which has `bytes` bytes; `read` tells how many of them are behind.
    pub(super) fn open(
        file: File,
        bytes: u64,
        shape: RowShape,
        read: Rc<Cell<u64>>,
    ) -> Result<Self, RowsError> {
        let wrong = |message: String| RowsError::Line { line: 0, message };
        let reader =
            SerializedFileReader::new(file).map_err(|error| wrong(format!("no Parquet file: {error}")))?;
        let metadata = reader.metadata().file_metadata();
        let names: Vec<String> =
            metadata.schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
        let count = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let (places, ignored) = places(&names, &shape).map_err(wrong)?;
        Ok(Self { rows: reader.into_iter(), shape, places, row: 0, count, bytes, read, ignored })
    }

    /// Number of the last row, from 1.
    pub(super) const fn row(&self) -> u64 {
        self.row
    }

    /// The next row; none at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<RowValues>, RowsError> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        self.row += 1;
        let part = u128::from(self.bytes) * u128::from(self.row) / u128::from(self.count.max(1));
        self.read.set(u64::try_from(part).unwrap_or(u64::MAX));
        let row = row.map_err(|error| RowsError::Read(std::io::Error::other(error)))?;
        self.values(&row).map(Some).map_err(|message| RowsError::Line { line: self.row, message })
    }

    fn values(&self, row: &Row) -> Result<RowValues, String> {
        let mut fields: Vec<Option<&Field>> = row.get_column_iter().map(|(_, field)| Some(field)).collect();
        let mut take = |(place, column): (&usize, &Column)| {
            let field = fields.get_mut(*place).and_then(Option::take);
            let field = field.ok_or_else(|| format!("there is no column {place}"))?;
            if column.is_image { Ok(image(field)) } else { value(field) }
        };
        let values = self.places.iter().zip(&self.shape.columns).map(&mut take);
        self.shape.checked(values.collect::<Result<_, _>>()?)
    }
}

/// For each value of a row its column, and the columns that are left over.
fn places(names: &[String], shape: &RowShape) -> Result<(Vec<usize>, Vec<String>), String> {
    if !shape.is_named() {
        let wanted = shape.columns.len();
        if names.len() != wanted {
            return Err(format!("{} columns, the model wants {wanted}", names.len()));
        }
        return Ok(((0..wanted).collect(), Vec::new()));
    }
    let wanted = shape.columns.iter().filter_map(|column| column.name.as_ref());
    let place = |name: &String| {
        let found = names.iter().position(|found| found == name);
        found.ok_or_else(|| format!("the column {name} is missing"))
    };
    let places = wanted.map(place).collect::<Result<_, _>>()?;
    Ok((places, names.iter().filter(|name| !shape.has(name)).cloned().collect()))
}

/// A file of an image: bytes, or a text in base64. What is neither is refused when the row is checked.
fn image(field: &Field) -> Value {
    match field {
        Field::Bytes(bytes) => images::of_text(&base64::encode(bytes.data())),
        Field::Str(text) => images::of_text(text),
        Field::Null => Value::Null,
        other => other.to_string().into(),
    }
}

fn value(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => (*truth).into(),
        Field::Byte(number) => (*number).into(),
        Field::Short(number) => (*number).into(),
        Field::Int(number) => (*number).into(),
        Field::Long(number) => (*number).into(),
        Field::UByte(number) => (*number).into(),
        Field::UShort(number) => (*number).into(),
        Field::UInt(number) => (*number).into(),
        Field::ULong(number) => (*number).into(),
        Field::Float16(number) => f64::from(*number).into(),
        // NaN becomes null.
        Field::Float(number) => f64::from(*number).into(),
        Field::Double(number) => (*number).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data());
            text.map_err(|_| "a value is neither a number nor a text".to_owned())?.into()
        }
        other => return Err(format!("{other} is neither a number nor a text")),
    })
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
