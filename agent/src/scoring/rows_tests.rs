//! Rows are read from CSV and JSON alike, and what is none is named by its line.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(text: &str, width: usize, features: &[&str]) -> Result<Vec<String>, String> {
    let mut reader = RowReader::new(text.as_bytes(), shape(width, features));
    let mut values = Vec::new();
    loop {
        let rows = reader.next_batch().map_err(|error| error.to_string())?;
        if rows.is_empty() {
            break;
        }
        values.extend(rows.iter().flatten().map(Value::to_string));
    }
    values.extend(reader.ignored.iter().map(|name| format!("not {name}")));
    Ok(values)
}

/// `width` numbers, or one for each of `features`.
fn shape(width: usize, features: &[&str]) -> RowShape {
    let column = |name: Option<&str>| Column {
        name: name.map(str::to_owned),
        datatype: DataType::Fp32,
        is_image: false,
    };
    let columns = match features {
        [] => vec![column(None); width],
        features => features.iter().map(|name| column(Some(name))).collect(),
    };
    RowShape { columns }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn csv_and_json_lines_hold_the_same_rows() {
    let expected = Ok(texts(&["1", "2.5", "null", "-3"]));
    assert_eq!(read("1, 2.5\n\n,-3\n", 2, &[]), expected);
    assert_eq!(read("[1, 2.5]\r\n[null, -3]", 2, &[]), expected);
    assert_eq!(read("\u{feff}\"a\",\"b\"\n1,2.5\nnan,-3", 2, &[]), expected);
}

#[test]
fn blanks_around_a_text_are_part_of_it_and_around_a_number_they_are_not() {
    let column = |name: &str, datatype| Column { name: Some(name.into()), datatype, is_image: false };
    let shape = RowShape { columns: vec![column("work", DataType::Bytes), column("age", DataType::Fp32)] };
    for text in [
        "work, age\n Private, 39\n",
        " age , work\n39 , Private\n",
        "{\"work\": \" Private\", \"age\": 39}\n",
    ] {
        let mut reader = RowReader::new(text.as_bytes(), shape.clone());
        assert_eq!(reader.next_row().expect("a row"), Some(vec![json!(" Private"), json!(39)]), "{text}");
    }
}

#[test]
fn objects_hold_values_under_their_names() {
    let text = "{\"b\": 2.5, \"a\": 1}\n{\"b\": -3, \"a\": null}\n{}";
    assert_eq!(read(text, 2, &["a", "b"]), Ok(texts(&["1", "2.5", "null", "-3", "null", "null"])));
    let message = read("{\"c\": 1}", 2, &["a", "b"]).expect_err("no c");
    assert!(message.contains("no feature \"c\""), "{message}");
    let text = "{\"a\": 1}\n{\"a\": []}\n{\"a\": 3}";
    let mut reader = RowReader::new(text.as_bytes(), shape(1, &["a"]));
    assert_eq!(reader.next_row().expect("a row"), Some(vec![json!(1)]));
    assert!(reader.next_row().is_err() && !reader.is_lost());
    assert_eq!(reader.next_row().expect("the one after"), Some(vec![json!(3)]));
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
        ("1,2\nx,3\n", "line 2: column 1: \"x\" is not a number"),
        ("[1,2]\n[3,", "line 2"),
        ("1,inf\n", "too large"),
        ("1,1e39\n", "too large"),
    ] {
        let message = read(text, 2, &[]).expect_err(text);
        assert!(message.contains(named), "{message}");
    }
    let message = read(&"1".repeat(2 << 20), 2, &[]).expect_err("endless");
    assert!(message.contains("too long"), "{message}");
}

#[test]
fn a_row_with_more_or_fewer_cells_than_the_header_is_none() {
    // A thousand written with a comma moves all that follow.
    let mut reader = RowReader::new(
        "id,a,b,note\n1,2,3,x\n1,000,2,3,x\n1,2,3\n2,4,5,\n".as_bytes(),
        shape(2, &["a", "b"]),
    );
    let mut next = || reader.next_row().map_err(|error| error.to_string());
    assert_eq!(next(), Ok(Some(vec![json!(2), json!(3)])));
    assert_eq!(next(), Err("line 3: 5 cells, the header has 4".into()));
    assert_eq!(next(), Err("line 4: 3 cells, the header has 4".into()));
    assert_eq!(next(), Ok(Some(vec![json!(4), json!(5)])));
}

#[test]
fn a_line_that_is_too_long_is_one_row_that_is_none() {
    let long = " ".repeat(2 << 20);
    let long_cell = format!("\"{}\"", "x\n".repeat(1 << 20));
    for (text, lines) in [
        (format!("[1,2]\n[{long}3,4]\n[5,6]"), [1, 2, 3]),
        (format!("1,2\n3{long},4\n5,6\n"), [1, 2, 3]),
        (format!("a,b\n1,2\n3{long},4\n5,6"), [2, 3, 4]),
        // Where it breaks off within quotes, what follows is read as it stands.
        (format!("1,2\n{},4\n5,6\n", long_cell.replace('\n', " ")), [1, 2, 3]),
    ] {
        let mut reader = RowReader::new(text.as_bytes(), shape(2, &["a", "b"]));
        let mut next = || {
            let row = reader.next_row().map_err(|error| error.to_string());
            (row, reader.line())
        };
        assert_eq!(next(), (Ok(Some(vec![json!(1), json!(2)])), lines[0]));
        let (row, line) = next();
        assert!(row.is_err_and(|error| error.contains("too long")) && line == lines[1], "{line}");
        assert_eq!(next(), (Ok(Some(vec![json!(5), json!(6)])), lines[2]));
        assert_eq!(next().0, Ok(None));
    }
    let mut reader = RowReader::new(long_cell.as_bytes(), shape(1, &["a"]));
    assert!(reader.next_row().is_err() && reader.is_lost(), "a header that is none");
}

#[test]
fn many_rows_come_in_batches() {
    let text = "1,2\n".repeat(600);
    let mut reader = RowReader::new(text.as_bytes(), shape(2, &[]));
    let mut next = || reader.next_batch().expect("numbers").len();
    assert_eq!([next(), next(), next(), next()], [256, 256, 88, 0]);
}

#[test]
fn quoted_cells_hold_commas_quotes_and_lines_and_texts_are_texts() {
    let column = |name: &str, datatype| Column { name: Some(name.into()), datatype, is_image: false };
    let columns = vec![
        column("city", DataType::Bytes),
        column("visits", DataType::Int64),
        column("age", DataType::Fp64),
        column("member", DataType::Bool),
    ];
    let text = "age,city,visits,member\n0.1,\"Rome, \"\"the\"\"\nold one\",9007199254740991,TRUE\n,,1,0\n1,x,1.5,0\n1,x,,0\n";
    let mut reader = RowReader::new(text.as_bytes(), RowShape { columns });
    let mut next = || reader.next_row().map_err(|error| error.to_string());
    let city = "Rome, \"the\"\nold one";
    assert_eq!(
        next(),
        Ok(Some(vec![json!(city), json!(9_007_199_254_740_991_i64), json!(0.1), json!(true)]))
    );
    assert_eq!(next(), Ok(Some(vec![json!(""), json!(1), Value::Null, json!(0)])));
    assert!(next().is_err_and(|error| error.starts_with("line 5: column visits: 1.5 is no INT64")));
    assert!(next().is_err_and(|error| error.starts_with("line 6: column visits: a value is missing")));
    assert_eq!(next(), Ok(None));
}

proptest! {
    #[test]
    fn any_text_is_rows_or_an_error(text in "(?s).{0,80}", width in 0_usize..4) {
        let _ = read(&text, width, &["a"]);
    }
}

/// A row of a number and a file of an image.
#[cfg(any(feature = "jpeg", feature = "png"))]
fn photo(text: &str) -> Vec<Result<Option<RowValues>, String>> {
    let column = |name: &str, datatype, is_image| Column { name: Some(name.into()), datatype, is_image };
    let columns = vec![column("age", DataType::Fp32, false), column("photo", DataType::Bytes, true)];
    let mut reader = RowReader::new(text.as_bytes(), RowShape { columns });
    assert_eq!(reader.shape.rows_at_once(), 1);
    let mut rows = Vec::new();
    while !matches!(rows.last(), Some(Ok(None))) {
        rows.push(reader.next_row().map_err(|error| error.to_string()));
    }
    rows
}

#[cfg(any(feature = "jpeg", feature = "png"))]
#[test]
fn images_are_base64_in_cells_and_in_lines_of_json() {
    let file = serin_protocol::base64::encode(b"\xFF\xD8\xFFthe rest");
    let expected = [Ok(Some(vec![json!(3), json!({ "base64": file })])), Ok(None)];
    assert_eq!(photo(&format!("photo,age\n{file},3\n")), expected);
    assert_eq!(photo(&format!("3,{file}\n")), expected);
    assert_eq!(photo(&format!("{{\"photo\": \"{file}\", \"age\": 3}}")), expected);
    assert_eq!(photo(&format!("[3, \"{file}\"]")), expected);
    let hex = json!({ "hex": "ffd8ff" });
    assert_eq!(photo(&json!([3, hex]).to_string())[0], Ok(Some(vec![json!(3), hex])));
}

#[cfg(any(feature = "jpeg", feature = "png"))]
#[test]
fn a_cell_that_is_no_image_is_named_by_line_and_column() {
    let rows = photo("age,photo\n1,\n2,Zg==\n3,Zg\n4,../secret.png\n");
    for (row, says) in rows.iter().zip([
        "line 2: column photo: the image is missing",
        "line 3: column photo: it is neither a JPEG nor a PNG file",
        "line 4: column photo: base64 comes in groups of 4 characters",
        "line 5: column photo: base64 comes in groups",
    ]) {
        assert!(row.as_ref().is_err_and(|error| error.starts_with(says)), "{says}: {row:?}");
    }
    // As large as it may be, and a byte more.
    let file = |bytes: usize| {
        serin_protocol::base64::encode(&[&b"\x89PNG\r\n\x1A\n"[..], &vec![7; bytes - 8]].concat())
    };
    let most = images::MAX_ROW_BYTES;
    assert!(photo(&format!("1,{}\n", file(most)))[0].is_ok());
    let error = photo(&format!("1,{}\n", file(most + 1)))[0].clone().expect_err("too large");
    assert!(error.starts_with("line 1: column photo: with 4194305 bytes"), "{error}");
    let error = photo(&format!("1,{}\n", "Q".repeat(12 << 20)))[0].clone().expect_err("endless");
    assert!(error.contains("too long"), "{error}");
}
