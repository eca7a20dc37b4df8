//! Every format gives the same rows, and every fault its place.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use serin_protocol::sketch::Histogram;
use serin_protocol::sketch::profile::FeatureKind;
use serin_protocol::tensor::DataType;

fn names(names: &[&str]) -> Vec<Column> {
    let column = |name: &&str| Column { name: name.parse().expect("name"), kind: ColumnKind::Number };
    names.iter().map(column).collect()
}

fn name(text: &str) -> FieldName {
    text.parse().expect("name")
}

fn csv(text: &str) -> Result<ReferenceRows, ReferenceError> {
    ReferenceRows::read(Format::Csv, text.into(), names(&["a", "b"]))
}

fn says(format: Format, bytes: impl Into<Vec<u8>>, columns: Vec<Column>) -> String {
    ReferenceRows::read(format, bytes.into(), columns).expect_err("wrong").to_string()
}

fn shown(rows: &ReferenceRows, column: &str) -> String {
    format!("{:?}", rows.numbers(&name(column)).expect("numbers"))
}

/// What `numpy.save` writes.
fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).expect("short").to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
}

#[test]
fn every_format_gives_the_same_rows() {
    let lines = "{\"b\": 2.5, \"a\": 1}\n\n{\"a\": null, \"b\": -3e2}\n";
    let numbers = [1.0_f32, 2.5, f32::NAN, -300.0].map(f32::to_le_bytes).concat();
    for (format, bytes) in [
        (Format::Csv, b"a,b\r\n1, 2.5\r\n,-3e2\r\n".to_vec()),
        (Format::JsonLines, lines.into()),
        (Format::Npy, npy("<f4", "(2, 2)", &numbers)),
    ] {
        let rows = ReferenceRows::read(format, bytes, names(&["a", "b"])).expect("good");
        assert_eq!((rows.len(), shown(&rows, "a").as_str()), (2, "[1.0, NaN]"), "{format:?}");
        assert_eq!(shown(&rows, "b"), "[2.5, -300.0]");
    }
}

#[test]
fn texts_stand_beside_numbers() {
    let mut columns = names(&["a", "city", "b"]);
    columns[1].kind = ColumnKind::Text;
    let bytes = b"a,city,b\n1,\"Rome, Italy\",2\n,,0.1\n".to_vec();
    let rows = ReferenceRows::read(Format::Csv, bytes, columns.clone()).expect("good");
    assert_eq!(rows.texts(&name("city")), Some(&["Rome, Italy".to_owned(), String::new()][..]));
    assert!(rows.texts(&name("a")).is_none() && rows.numbers(&name("city")).is_none());
    let npy = npy("<f8", "(1, 3)", &[0; 24]);
    assert!(says(Format::Npy, npy, columns).contains("city is a text: give reference.csv"));
}

#[test]
fn an_input_without_names_is_a_list_of_numbers() {
    let columns = vec![Column { name: name("image"), kind: ColumnKind::Tensor(4) }];
    let lines = "{\"image\": [[1, 2], [3, null]]}\n{\"image\": null}\n";
    let rows = ReferenceRows::read(Format::JsonLines, lines.into(), columns.clone()).expect("good");
    assert_eq!(shown(&rows, "image"), "[1.0, 2.0, 3.0, NaN, NaN, NaN, NaN, NaN]");
    let pixels = npy("|u1", "(2, 2, 2)", &[0, 1, 2, 3, 4, 5, 6, 255]);
    let rows = ReferenceRows::read(Format::Npy, pixels, columns.clone()).expect("good");
    let spec = TensorSpec {
        name: name("image"),
        datatype: DataType::Uint8,
        shape: vec![-1, 2, 2],
        features: Vec::new(),
    };
    assert_eq!(rows.input(&spec).row(1).collect::<Vec<_>>(), [4.0, 5.0, 6.0, 255.0]);
    let short = "{\"image\": [1, 2, 3]}";
    assert!(
        says(Format::JsonLines, short, columns.clone())
            .contains("line 1, column image: 3 values, 4 expected")
    );
    assert!(says(Format::Csv, "image\n1\n", columns).contains("give reference.ndjson or reference.npy"));
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_read_column_by_column() {
    use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    let schema = "message rows { REQUIRED BYTE_ARRAY city (UTF8); OPTIONAL DOUBLE a; REQUIRED FLOAT b; }";
    let schema = std::sync::Arc::new(parse_message_type(schema).expect("a schema"));
    let file = |cities: [&str; 2], numbers: [f32; 2]| {
        let mut bytes = Vec::new();
        let properties = std::sync::Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(&mut bytes, schema.clone(), properties).expect("begun");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("ready").expect("city");
        let cities = cities.map(ByteArray::from);
        column.typed::<ByteArrayType>().write_batch(&cities, None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("ready").expect("a");
        column.typed::<DoubleType>().write_batch(&[1.5], Some(&[0, 1]), None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("ready").expect("b");
        column.typed::<FloatType>().write_batch(&numbers, None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");
        bytes
    };
    let mut columns = names(&["a", "b", "city"]);
    columns[2].kind = ColumnKind::Text;
    let good = file(["Oslo", ""], [2.0, f32::NAN]);
    let rows = ReferenceRows::read(Format::Parquet, good.clone(), columns.clone()).expect("good");
    assert_eq!((shown(&rows, "a"), shown(&rows, "b")), ("[NaN, 1.5]".into(), "[2.0, NaN]".into()));
    assert_eq!(rows.texts(&name("city")), Some(&["Oslo".to_owned(), String::new()][..]));
    let endless = file(["Oslo", "Rome"], [2.0, f32::INFINITY]);
    assert!(says(Format::Parquet, endless, columns).contains("row 2, column b: inf"));
    assert!(says(Format::Parquet, good, names(&["a", "b"])).contains("\"city\", which is not a feature"));
    assert!(says(Format::Parquet, "a,b\n1,2\n", names(&["a", "b"])).contains("cannot be read"));
}

#[cfg(feature = "parquet")]
#[test]
fn images_in_parquet_are_bytes() {
    use ::parquet::data_type::{ByteArray, ByteArrayType};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    let schema = parse_message_type("message rows { REQUIRED BYTE_ARRAY photo; }").expect("a schema");
    let schema = std::sync::Arc::new(schema);
    let file = |photos: &[&[u8]]| {
        let mut bytes = Vec::new();
        let mut writer =
            SerializedFileWriter::new(&mut bytes, schema.clone(), std::sync::Arc::default()).expect("begun");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("ready").expect("photo");
        let photos: Vec<ByteArray> = photos.iter().map(|photo| photo.to_vec().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&photos, None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");
        bytes
    };
    let mut columns = names(&["photo"]);
    columns[0].kind = ColumnKind::Text;
    let jpeg = &b"\xFF\xD8\xFF\xE0and so on"[..];
    let rows = ReferenceRows::read(Format::Parquet, file(&[jpeg, b"a.png", b""]), columns.clone());
    let base64 = serin_protocol::base64::encode(jpeg);
    let expected = [base64, "a.png".to_owned(), String::new()];
    assert_eq!(rows.expect("good").texts(&name("photo")), Some(&expected[..]));
    let says = says(Format::Parquet, file(&[b"a.png", b"\xFFno image"]), columns);
    assert!(says.contains("row 2, column photo: it is neither UTF-8 nor a JPEG or PNG file"), "{says}");
}

#[test]
fn a_wrong_header_names_the_column() {
    let says = |text: &str| csv(text).expect_err(text).to_string();
    assert!(says("a\n1\n").contains("no column for the feature b"));
    assert!(says("").contains("no column for the feature a"));
    assert!(says("a,b,c\n1,2,3\n").contains("column 3: \"c\""));
    assert!(says("a,b,a\n1,2,3\n").contains("more than one column \"a\""));
    let ordered = says("b,a\n1,2\n");
    assert!(ordered.contains("column 1") && ordered.contains("a is next, not \"b\""), "{ordered}");
}

#[test]
fn a_wrong_cell_names_its_line_and_column() {
    let says = |text: &str| csv(text).expect_err(text).to_string();
    assert!(says("a,b\n1,2\n1,x\n").contains("line 3, column b: \"x\""));
    assert!(says("a,b\n1,NaN\n").contains("line 2, column b"));
    assert!(says("a,b\n1,1e39\n").contains("1e39"));
    assert!(says("a,b\n1\n").contains("line 2: 1 cells, 2 expected"));
    assert_eq!(csv("a,b\n"), Err(ReferenceError::Count { file: "reference.csv", rows: 0 }));
}

#[test]
fn a_wrong_json_line_names_its_line_and_column() {
    let says = |text: &str| self::says(Format::JsonLines, text, names(&["a", "b"]));
    assert!(says("{\"a\":1,\"b\":2}\n{\"a\":1}\n").contains("line 2, column b: it is not there"));
    assert!(says("{\"a\":1,\"b\":\"x\"}").contains("line 1, column b: \"x\" is not a finite number"));
    assert!(says("{\"a\":1,\"b\":1e39}").contains("line 1, column b: 1e+39 is not a finite number"));
    assert!(says("{\"a\":1,\"b\":2,\"c\":3}").contains("line 1, column c: it is not a feature"));
    assert!(says("\n[1, 2]").contains("line 2:"));
}

#[test]
fn a_wrong_array_says_what_it_is() {
    let says = |bytes: Vec<u8>| self::says(Format::Npy, bytes, names(&["a", "b"]));
    assert!(says(b"a,b\n1,2\n".to_vec()).contains("no file of numpy.save"));
    assert!(says(npy("<c8", "(1, 2)", &[0; 16])).contains("type \"<c8\""));
    assert!(says(npy("<f4", "(2, 3)", &[0; 24])).contains("[2, 3]"));
    assert!(says(npy("<f4", "(2, 2)", &[0; 15])).contains("contradicts"));
    assert!(says(npy("<f4", "()", &[0; 4])).contains("single number"));
    let endless = [1.0_f32, f32::INFINITY].map(f32::to_le_bytes).concat();
    assert!(says(npy("<f4", "(1, 2)", &endless)).contains("row 1, column b: inf"));
    let fortran = String::from_utf8_lossy(&npy("<f4", "(0, 2)", b"")).into_owned();
    assert!(says(npy("<f4", "(99999999999999999999, 2)", b"")).contains("no file of numpy.save"));
    assert!(fortran.contains("False"));
}

#[test]
fn a_model_of_which_nothing_is_watched_has_an_empty_reference() {
    let rows = ReferenceRows::read(Format::Csv, Vec::new(), Vec::new()).expect("nothing to say");
    assert!(rows.is_empty());
    assert!(profile(&rows, &[], &Watch::default(), &[]).profile.features.is_empty());
}

#[test]
fn an_empty_line_of_a_single_feature_is_a_missing_value() {
    let rows = ReferenceRows::read(Format::Csv, b"a\n1\n\n3\n".to_vec(), names(&["a"])).expect("good");
    assert_eq!(rows.len(), 3);
}

#[test]
fn one_file_is_the_reference_data() {
    let folder = tempfile::tempdir().expect("folder");
    assert_eq!(find(folder.path()).map(|(format, _)| format), Ok(Format::Csv));
    std::fs::write(folder.path().join("reference.npy"), "").expect("written");
    assert_eq!(find(folder.path()).map(|(format, _)| format), Ok(Format::Npy));
    std::fs::write(folder.path().join("reference.csv"), "").expect("written");
    assert_eq!(find(folder.path()), Err(vec!["reference.csv", "reference.npy"]));
}

fn inputs() -> Vec<TensorSpec> {
    let spec = |text: &str, datatype, shape: &[i64], features: &[&str]| TensorSpec {
        name: name(text),
        datatype,
        shape: shape.to_vec(),
        features: features.iter().map(|feature| name(feature)).collect(),
    };
    vec![
        spec("x", DataType::Fp32, &[-1, 2], &["lux", "kind"]),
        spec("city", DataType::Bytes, &[-1], &[]),
        spec("sound", DataType::Fp32, &[-1, 2], &[]),
    ]
}

#[test]
fn the_profile_counts_what_devices_will_count() {
    let watch: Watch = serde_json::from_value(json!({
        "categorical": ["kind", "city"],
        "segments": { "feature": "lux", "named": [{ "name": "night", "below": 10 }] },
        "summaries": [{ "input": "sound", "of": ["energy", "distance"] }],
    }))
    .expect("watch");
    let lines = [
        json!({ "lux": 1, "kind": 0.1, "city": "Oslo", "sound": [3, 4] }),
        json!({ "lux": 50, "kind": 0.1, "city": "Rome", "sound": [1, 0] }),
        json!({ "lux": null, "kind": 7, "city": "Oslo", "sound": [2, 2] }),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    let columns = columns(&inputs(), &watch, false);
    let rows = ReferenceRows::read(Format::JsonLines, text.into(), columns).expect("good");
    let watched = profile(&rows, &inputs(), &watch, &[]);
    let features = &watched.profile.features;
    let shown: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(shown, ["lux", "kind", "city", "sound.energy", "sound.distance"]);
    // A tenth as a device has it in single precision.
    let kinds = features[1].categories().expect("categorical");
    let tenth = serin_protocol::sketch::categories::Observed::Number(f64::from(0.1_f32));
    assert_eq!(kinds.place(tenth), serin_protocol::sketch::Place::Bin(0));
    assert!(matches!(features[2].kind, FeatureKind::Categorical(_)) && features[2].distinct == 2);
    assert_eq!(watched.profile.centroids[0].values, [2.0, 2.0]);
    assert_eq!(features[4].extremes, Some((0.0, 5.0_f32.sqrt())));
    let by_segment: Vec<u64> = features[0].sketch.segments.iter().map(Histogram::total).collect();
    assert_eq!(by_segment, [2, 1], "what is missing is in no named segment");
    assert_eq!(watched.division().count, 2);
}

#[test]
fn a_parameter_of_requests_is_a_column_too() {
    let watch: Watch = serde_json::from_value(json!({
        "segments": { "parameter": "site", "named": [
            { "name": "north", "values": ["Oslo"] }, { "name": "seven", "values": [7] },
        ] },
    }))
    .expect("watch");
    let columns = columns(&inputs()[..1], &watch, false);
    let text = "lux,kind,site\n1,2,Oslo\n1,2,7.0\n1,2,\n";
    let rows = ReferenceRows::read(Format::Csv, text.into(), columns).expect("good");
    let watched = profile(&rows, &inputs()[..1], &watch, &[]);
    let segments: Vec<u8> = watched.division().rows.iter().map(|segment| segment.0).collect();
    assert_eq!(segments, [1, 2, 0]);
}

proptest! {
    #[test]
    fn any_text_is_reference_data_or_an_error(text in "(a,b\n)?[0-9a,b.\n-]{0,60}") {
        let _ = csv(&text);
    }

    #[test]
    fn any_bytes_are_reference_data_or_an_error(bytes: Vec<u8>, shape in "\\([0-9, ]{0,20}\\)") {
        let array = npy("<f4", &shape, &bytes);
        for (format, bytes) in [(Format::JsonLines, bytes.clone()), (Format::Npy, bytes), (Format::Npy, array)] {
            let _ = ReferenceRows::read(format, bytes, names(&["a", "b"]));
        }
    }
}
