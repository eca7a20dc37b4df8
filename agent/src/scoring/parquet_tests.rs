//! Files as other programs write them are read column by column.

use std::io::Seek as _;
use std::sync::Arc;

use super::*;
use parquet::basic::Compression;
use parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use serin_protocol::tensor::DataType;

use crate::scoring::shape::Column;

/// Three rows of a text, a whole number and a number that may be missing, compressed.
fn file(compression: Compression) -> (File, u64) {
    let schema = "message rows {
        REQUIRED BYTE_ARRAY city (UTF8);
        REQUIRED INT64 visits;
        OPTIONAL DOUBLE age;
    }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut file = tempfile::tempfile().expect("file");
    let mut writer =
        SerializedFileWriter::new(file.try_clone().expect("cloned"), schema, properties).expect("begun");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("ready").expect("city");
    let cities = ["Rome", "", "Oslo, north"].map(parquet::data_type::ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&cities, None, None).expect("written");
    column.close().expect("closed");
    let mut column = group.next_column().expect("ready").expect("visits");
    column.typed::<Int64Type>().write_batch(&[1, -2, 9_007_199_254_740_993], None, None).expect("written");
    column.close().expect("closed");
    let mut column = group.next_column().expect("ready").expect("age");
    column.typed::<DoubleType>().write_batch(&[0.1, f64::NAN], Some(&[1, 0, 1]), None).expect("written");
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
    let bytes = file.seek(std::io::SeekFrom::End(0)).expect("known");
    (file, bytes)
}

fn shape(columns: &[(&str, DataType)]) -> RowShape {
    let column = |(name, datatype): &(&str, DataType)| Column {
        name: Some((*name).into()),
        datatype: *datatype,
        is_image: *name == "photo",
    };
    RowShape { columns: columns.iter().map(column).collect() }
}

#[test]
fn columns_are_found_by_name_and_missing_values_are_missing() {
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let (file, bytes) = file(compression);
        let read = Rc::new(Cell::new(0));
        let wanted = shape(&[("age", DataType::Fp64), ("city", DataType::Bytes)]);
        let mut rows = ParquetRows::open(file, bytes, wanted, Rc::clone(&read)).expect("opens");
        assert_eq!(rows.ignored, ["visits"]);
        let mut next = || rows.next_row().expect("a row");
        assert_eq!(next(), Some(vec![json!(0.1), json!("Rome")]));
        assert_eq!(next(), Some(vec![json!(null), json!("")]));
        assert_eq!(next(), Some(vec![json!(null), json!("Oslo, north")]));
        assert_eq!((next(), read.get()), (None, bytes));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let open = |columns: &[(&str, DataType)]| {
        let (file, bytes) = file(Compression::SNAPPY);
        ParquetRows::open(file, bytes, shape(columns), Rc::default())
    };
    let missing = open(&[("size", DataType::Fp32)]).err().expect("no size").to_string();
    assert!(missing.contains("the column size is missing"), "{missing}");
    let mut rows = open(&[("visits", DataType::Int64)]).expect("opens");
    assert!(rows.next_row().is_ok() && rows.next_row().is_ok());
    let gap = rows.next_row().expect_err("beyond").to_string();
    assert!(gap.starts_with("line 3: ") && gap.contains("no INT64"), "{gap}");
    let text = open(&[("city", DataType::Fp32)]).expect("opens").next_row().expect_err("a text").to_string();
    assert!(text.contains("no number"), "{text}");
    let none = tempfile::tempfile().expect("file");
    assert!(ParquetRows::open(none, 0, shape(&[]), Rc::default()).is_err());
}

/// A column of bytes, and what is read of it as one of images.
#[cfg(any(feature = "jpeg", feature = "png"))]
fn photos(annotation: &str, files: &[&[u8]]) -> Vec<Result<Option<RowValues>, String>> {
    let schema = format!("message rows {{ OPTIONAL BYTE_ARRAY photo {annotation}; }}");
    let schema = Arc::new(parse_message_type(&schema).expect("a schema"));
    let mut file = tempfile::tempfile().expect("file");
    let mut writer =
        SerializedFileWriter::new(file.try_clone().expect("cloned"), schema, Arc::default()).expect("begun");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("ready").expect("photo");
    let levels: Vec<i16> = files.iter().map(|file| i16::from(!file.is_empty())).collect();
    let values: Vec<_> =
        files.iter().filter(|file| !file.is_empty()).map(|file| file.to_vec().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).expect("written");
    column.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
    let bytes = file.seek(std::io::SeekFrom::End(0)).expect("known");
    let mut rows =
        ParquetRows::open(file, bytes, shape(&[("photo", DataType::Bytes)]), Rc::default()).expect("opens");
    files.iter().map(|_| rows.next_row().map_err(|error| error.to_string())).collect()
}

#[cfg(any(feature = "jpeg", feature = "png"))]
#[test]
fn images_are_bytes_or_base64_and_what_is_none_is_named_by_row_and_column() {
    let jpeg = &b"\xFF\xD8\xFFthe rest"[..];
    let expected = Ok(Some(vec![json!({ "base64": serin_protocol::base64::encode(jpeg) })]));
    let rows = photos("", &[jpeg, b"text", b""]);
    assert_eq!(rows[0], expected);
    assert_eq!(rows[1], Err("line 2: column photo: it is neither a JPEG nor a PNG file".into()));
    assert_eq!(rows[2], Err("line 3: column photo: the image is missing".into()));
    let rows = photos("(UTF8)", &[serin_protocol::base64::encode(jpeg).as_bytes(), b"photo.jpeg"]);
    assert_eq!(rows[0], expected);
    assert!(rows[1].as_ref().is_err_and(|error| error.contains("column photo: base64")), "{rows:?}");
}
