//! NumPy's own format, versions 1 to 3 (numpy.lib.format): a dictionary in Python's notation, then raw numbers.

use super::{Column, ColumnKind, Format, ReferenceError, ReferenceRows, sound};

const FILE: &str = Format::Npy.file();

/// What a file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// What the dictionary says.
struct Header<'a> {
    /// Byte order, kind and size of a number, such as `<f4`.
    kind: &'a str,
    /// Length of each axis.
    shape: Vec<usize>,
}

pub(super) fn read(bytes: &[u8], columns: Vec<Column>) -> Result<ReferenceRows, ReferenceError> {
    let whole = |what: String| ReferenceError::Whole { file: FILE, what };
    if let Some(column) = columns.iter().find(|column| column.kind == ColumnKind::Text) {
        return Err(whole(format!(
            "holds numbers, and {} is a text: give reference.csv or reference.ndjson instead",
            column.name
        )));
    }
    let (header, data) = header(bytes).map_err(whole)?;
    let width: usize = columns.iter().map(Column::width).sum();
    let (count, found) = match header.shape.as_slice() {
        [] => return Err(whole("is a single number, not rows of them".into())),
        [count, lengths @ ..] => (*count, lengths.iter().try_fold(1_usize, |all, one| all.checked_mul(*one))),
    };
    if found != Some(width) {
        return Err(whole(format!(
            "has the shape {:?}, so that its rows have not the {width} values of the features in serin.toml",
            header.shape
        )));
    }
    let (size, number) = decoder(header.kind).map_err(whole)?;
    let expected = count.checked_mul(width).and_then(|numbers| numbers.checked_mul(size));
    if expected != Some(data.len()) {
        return Err(whole(format!("has {} bytes of numbers, which its shape contradicts", data.len())));
    }
    let mut rows = ReferenceRows::empty(columns);
    let mut numbers = data.chunks_exact(size).map(number);
    for row in 0..count {
        rows.begin_row(FILE)?;
        for at in 0..rows.columns.len() {
            let Some((name, width)) =
                rows.columns.get(at).map(|column| (column.name.clone(), column.width()))
            else {
                continue;
            };
            for value in numbers.by_ref().take(width) {
                if !value.is_nan() && !sound(value) {
                    let place = format!("row {}, column {name}", row + 1);
                    let what = format!("{value} is not a finite number; NaN is a missing value");
                    return Err(ReferenceError::At { file: FILE, place, what });
                }
                rows.push_number(at, value);
            }
        }
    }
    Ok(rows)
}

fn header(bytes: &[u8]) -> Result<(Header<'_>, &[u8]), String> {
    let none = || "is no file of numpy.save".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(none)?;
    let ([major, _minor], rest) = rest.split_first_chunk::<2>().ok_or_else(none)?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(none)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(none)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("is of version {other} of NumPy's format; 1 to 3 are read")),
    };
    let (text, data) = rest.split_at_checked(length).ok_or_else(none)?;
    let text = std::str::from_utf8(text).map_err(|_| none())?;
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    if !value("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err("lies in Fortran's order: save numpy.ascontiguousarray of it".into());
    }
    let kind = value("descr").and_then(|rest| rest.strip_prefix('\'')).and_then(|rest| rest.split_once('\''));
    let (kind, _) = kind.ok_or("holds records or objects: save a plain array of numbers")?;
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.split_once(')'));
    let (shape, _) = shape.ok_or_else(none)?;
    let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty()).map(str::parse);
    let shape = lengths.collect::<Result<_, _>>().map_err(|_| none())?;
    Ok((Header { kind, shape }, data))
}

type Decode = fn(&[u8]) -> f64;

/// Bytes of a number of this kind, and how it is read.
fn decoder(kind: &str) -> Result<(usize, Decode), String> {
    macro_rules! little {
        ($number:ty, $double:expr) => {
            (size_of::<$number>(), |raw: &[u8]| {
                raw.first_chunk().map_or(f64::NAN, |raw| $double(<$number>::from_le_bytes(*raw)))
            })
        };
    }
    Ok(match kind {
        "<f4" => little!(f32, f64::from),
        "<f8" => little!(f64, f64::from),
        "|i1" => little!(i8, f64::from),
        "<i2" => little!(i16, f64::from),
        "<i4" => little!(i32, f64::from),
        "<i8" => little!(i64, |number| number as f64),
        "|u1" | "|b1" => little!(u8, f64::from),
        "<u2" => little!(u16, f64::from),
        "<u4" => little!(u32, f64::from),
        "<u8" => little!(u64, |number| number as f64),
        other => {
            return Err(format!(
                "holds numbers of the type {other:?}: save them as float32, float64 or little-endian integers"
            ));
        }
    })
}
