//! Parquet, column by column under the names in `serin.toml`.

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;

use super::images;
use super::{Column, ColumnKind, Format, ReferenceError, ReferenceRows, no_number, sound};

const FILE: &str = Format::Parquet.file();

pub(super) fn read(bytes: Vec<u8>, columns: Vec<Column>) -> Result<ReferenceRows, ReferenceError> {
    let whole = |what: String| ReferenceError::Whole { file: FILE, what };
    let unreadable = |error: parquet::errors::ParquetError| whole(format!("cannot be read: {error}"));
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(unreadable)?;
    let schema = reader.metadata().file_metadata().schema();
    let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let place = |column: &Column| names.iter().position(|name| name == column.name.as_str());
    if let Some(missing) = columns.iter().find(|column| place(column).is_none()) {
        return Err(whole(format!("has no column for the feature {}", missing.name)));
    }
    let places: Vec<usize> = columns.iter().filter_map(place).collect();
    let known = |name: &&String| columns.iter().any(|column| column.name.as_str() == name.as_str());
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(whole(format!("has a column {name:?}, which is not a feature in serin.toml")));
    }
    let mut rows = ReferenceRows::empty(columns);
    for (row, record) in reader.get_row_iter(None).map_err(unreadable)?.enumerate() {
        rows.begin_row(FILE)?;
        let record = record.map_err(unreadable)?;
        let fields: Vec<&Field> = record.get_column_iter().map(|(_, field)| field).collect();
        for (at, place) in places.iter().enumerate() {
            let (Some(column), Some(field)) = (rows.columns.get(at).cloned(), fields.get(*place)) else {
                continue;
            };
            push(&mut rows, at, &column, field).map_err(|what| ReferenceError::At {
                file: FILE,
                place: format!("row {}, column {}", row + 1, column.name),
                what,
            })?;
        }
    }
    Ok(rows)
}

fn push(rows: &mut ReferenceRows, at: usize, column: &Column, field: &Field) -> Result<(), String> {
    match column.kind {
        ColumnKind::Text => {
            rows.push_text(at, text(field)?);
            Ok(())
        }
        ColumnKind::Number => number(field).map(|number| rows.push_number(at, number)),
        ColumnKind::Tensor(width) => {
            let mut count = 0;
            if matches!(field, Field::Null) {
                (0..width).for_each(|_| rows.push_number(at, f64::NAN));
                return Ok(());
            }
            flatten(field, &mut |field| {
                count += 1;
                if count <= width {
                    rows.push_number(at, number(field)?);
                }
                Ok(())
            })?;
            if count == width { Ok(()) } else { Err(format!("{count} values, {width} expected")) }
        }
    }
}

fn flatten(field: &Field, each: &mut impl FnMut(&Field) -> Result<(), String>) -> Result<(), String> {
    match field {
        Field::ListInternal(list) => list.elements().iter().try_for_each(|field| flatten(field, each)),
        other => each(other),
    }
}

fn number(field: &Field) -> Result<f64, String> {
    let number = match field {
        Field::Null => f64::NAN,
        Field::Bool(truth) => f64::from(u8::from(*truth)),
        Field::Byte(number) => f64::from(*number),
        Field::Short(number) => f64::from(*number),
        Field::Int(number) => f64::from(*number),
        Field::Long(number) => *number as f64,
        Field::UByte(number) => f64::from(*number),
        Field::UShort(number) => f64::from(*number),
        Field::UInt(number) => f64::from(*number),
        Field::ULong(number) => *number as f64,
        Field::Float16(number) => f64::from(*number),
        Field::Float(number) => f64::from(*number),
        Field::Double(number) => *number,
        other => return Err(no_number(&other.to_string().chars().take(40).collect::<String>())),
    };
    if number.is_nan() || sound(number) { Ok(number) } else { Err(no_number(&number.to_string())) }
}

fn text(field: &Field) -> Result<String, String> {
    match field {
        Field::Null => Ok(String::new()),
        Field::Str(text) => Ok(text.clone()),
        Field::Bytes(bytes) => match str::from_utf8(bytes.data()) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => images::to_text(bytes.data())
                .ok_or_else(|| "it is neither UTF-8 nor a JPEG or PNG file".to_owned()),
        },
        other => Err(format!("{other} is not a text")),
    }
}
