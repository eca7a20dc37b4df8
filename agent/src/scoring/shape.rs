//! What a row of a model holds, what it weighs, and how many are asked about at once.

use serde_json::Value;
use serin_protocol::raw::RawValues;
use serin_protocol::tensor::DataType;

use super::images;

/// Longest line in bytes, but for files of images: 65,536 values with 16 characters each.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Values asked at once: a request of some hundred kilobytes.
const MAX_BATCH_VALUES: usize = 1 << 15;
/// Rows asked at once: well below what a worker takes.
const MAX_BATCH_ROWS: usize = 256;
/// Bytes of the rows asked at once, as [`weight`] has them: half of what the gateway takes, as texts grow when they are
/// quoted. Those that grow beyond are divided.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Bytes of a value that is no text: it is held in 32, and is written in 25 at most.
const VALUE_BYTES: usize = 32;

/// The values of a row, as JSON has them, each of the type of its column.
pub(crate) type RowValues = Vec<Value>;

/// What a row must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowShape {
    /// Its values, in the order in which the model takes them.
    pub(crate) columns: Vec<Column>,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name, where the model names it.
    pub(crate) name: Option<String>,
    /// Its type.
    pub(crate) datatype: DataType,
    /// Whether it is a file of an image.
    pub(crate) is_image: bool,
}

impl Column {
    /// What it is called in what is said of a row, of which it is value `at`.
    pub(super) fn called(&self, at: usize) -> String {
        match &self.name {
            Some(name) => format!("column {name}"),
            None => format!("column {}", at + 1),
        }
    }
}

impl RowShape {
    /// How many rows to ask about at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        // Two may be too large for a request; workers prepare them one by one anyway, and what is wrong with one is known
        // by its row.
        if self.has_images() {
            return 1;
        }
        (MAX_BATCH_VALUES / self.columns.len().max(1)).clamp(1, MAX_BATCH_ROWS)
    }

    /// Whether any value is a file of an image.
    pub(super) fn has_images(&self) -> bool {
        self.columns.iter().any(|column| column.is_image)
    }

    /// Longest line in bytes.
    pub(super) fn line_bytes(&self) -> u64 {
        if self.has_images() { MAX_LINE_BYTES + images::MAX_ROW_TEXT } else { MAX_LINE_BYTES }
    }

    /// Whether all values have names.
    pub(super) fn is_named(&self) -> bool {
        !self.columns.is_empty() && self.columns.iter().all(|column| column.name.is_some())
    }

    /// Whether there is a value of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name.as_deref() == Some(name))
    }

    /// `values` of a line of JSON, in which the texts of images are base64.
    pub(super) fn with_images(&self, mut values: RowValues) -> RowValues {
        for (value, _) in values.iter_mut().zip(&self.columns).filter(|(_, column)| column.is_image) {
            if let Value::String(text) = value {
                *value = images::of_text(text);
            }
        }
        values
    }

    /// `values` if they are as many as the model wants, each of the type it wants.
    pub(super) fn checked(&self, values: RowValues) -> Result<RowValues, String> {
        if values.len() != self.columns.len() {
            return Err(format!("{} values, the model wants {}", values.len(), self.columns.len()));
        }
        let mut left = images::MAX_ROW_BYTES;
        for (at, (value, column)) in values.iter().zip(&self.columns).enumerate() {
            let mut raw = RawValues::new(column.datatype);
            let pushed = raw.push(column.datatype, value);
            let checked =
                pushed.and_then(|()| if column.is_image { images::check(&raw, &mut left) } else { Ok(()) });
            checked.map_err(|what| format!("{}: {what}", column.called(at)))?;
        }
        Ok(values)
    }
}

/// Bytes that a row takes, held here as in a request.
pub(super) fn weight(row: &[Value]) -> usize {
    let text = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Object(image) => image.values().filter_map(Value::as_str).map(str::len).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => 0,
    };
    row.iter().map(|value| VALUE_BYTES + text(value)).sum()
}
