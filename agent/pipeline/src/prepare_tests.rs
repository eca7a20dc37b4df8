//! The steps before the model compute what they say, in order, and name the feature that they refuse.

use super::*;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use serin_protocol::manifest::Manifest;
use serin_protocol::pipeline::Pipeline;
use serin_protocol::raw::RawValues;

/// The manifest of inputs with these names, types, row shapes and features.
fn manifest(inputs: &Json) -> Manifest {
    let digest = "1".repeat(64);
    let file = |name: &str| json!({"name": name, "digest": digest, "size": 1});
    let names = ["card.md", "golden.bin", "labels.txt", "model.onnx", "pipeline.json", "reference.bin"];
    let json = json!({
        "format": 1, "model": "m", "version": "1", "owner": "o", "description": "d",
        "lineage": {"git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1"},
        "runtime": "tract-0.23", "targets": [], "inputs": inputs,
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}], "prediction": null,
        "measured": {"minimum_memory": 1, "memory_limit": 1, "peak_resident": 1, "latency_p50_micros": 1,
            "latency_p99_micros": 1, "load_micros": 1},
        "files": names.map(file),
    });
    Manifest::parse(&serde_json::to_vec(&json).expect("json")).expect("sound")
}

fn preparation(inputs: &Json, steps: &Json) -> Result<Preparation, String> {
    let post = json!([{"op": "take", "model_output": "Y", "output": "y"}]);
    let json = json!({"pre": steps, "post": post});
    let manifest = manifest(inputs);
    let pipeline = Pipeline::parse(&serde_json::to_vec(&json).expect("json"), &manifest)
        .map_err(|error| error.to_string())?;
    Preparation::of(pipeline.flow(&manifest.inputs).map_err(|error| error.to_string())?)
}

/// What the model gets of `rows`, for each input its values.
fn run(inputs: &Json, steps: &Json, rows: usize, values: &[Json]) -> Result<Vec<Vec<f64>>, String> {
    let fed = prepared(inputs, steps, rows, values)?;
    let numbers = fed.iter().filter_map(|fed| match fed {
        Fed::Numbers(numbers) => Some((0..numbers.len()).map(|at| numbers.at(at)).collect()),
        Fed::Texts(_) => None,
    });
    Ok(numbers.collect())
}

fn prepared(inputs: &Json, steps: &Json, rows: usize, values: &[Json]) -> Result<Vec<Fed>, String> {
    let preparation = preparation(inputs, steps)?;
    let manifest = manifest(inputs);
    let mut bodies = Vec::new();
    for (spec, values) in manifest.inputs.iter().zip(values) {
        let mut body = Vec::new();
        RawValues::parse(spec.datatype, values.as_array().expect("a list"))?.write(spec.datatype, &mut body);
        bodies.push(body);
    }
    let raw = manifest.inputs.iter().zip(&bodies).map(|(spec, body)| Raw::of(spec, body, rows));
    preparation.prepare(&raw.collect::<Result<Vec<_>, _>>()?, 0, rows, &mut Vec::new())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn x(features: &[&str]) -> Json {
    json!([{"name": "x", "datatype": "FP32", "shape": [-1, features.len()], "features": features}])
}

fn feed() -> Json {
    json!({"op": "feed", "input": "x", "model_input": "X"})
}

#[test]
fn numbers_run_through_the_steps_in_order() {
    let steps = json!([
        {"op": "missing", "input": "x", "replace": 20.0},
        {"op": "clip", "input": "x", "min": -1.0, "max": 16.0},
        {"op": "affine", "input": "x", "scale": [2.0], "offset": [0.5, -0.5]},
        feed(),
    ]);
    let fed = run(&x(&["a", "b"]), &steps, 2, &[json!([null, 3, -9, 1e30])]);
    assert_eq!(fed, Ok(vec![vec![32.5, 5.5, -1.5, 31.5]]));
}

#[test]
fn texts_reach_a_model_that_takes_texts() {
    let inputs = json!([{"name": "x", "datatype": "BYTES", "shape": [-1, 1]}]);
    let made = prepared(&inputs, &json!([feed()]), 2, &[json!(["Köln", ""])]);
    assert_eq!(made, Ok(vec![Fed::Texts(vec!["Köln".into(), String::new()])]));
    let preparation = preparation(&inputs, &json!([feed()])).expect("sound");
    let spec = &manifest(&inputs).inputs[0];
    let broken = Raw::of(spec, &[1, 0, 0, 0, 0xff], 1).expect("a text");
    let error = preparation.prepare(&[broken], 0, 1, &mut Vec::new()).expect_err("not UTF-8");
    assert!(error.contains("row 0, feature x: the text is not UTF-8"), "{error}");
}

#[test]
fn a_table_of_columns_becomes_one_row_of_features() {
    let inputs = json!([
        {"name": "age", "datatype": "FP64", "shape": [-1]},
        {"name": "visits", "datatype": "INT64", "shape": [-1]},
        {"name": "city", "datatype": "BYTES", "shape": [-1]},
        {"name": "member", "datatype": "BOOL", "shape": [-1]},
        {"name": "size", "datatype": "BYTES", "shape": [-1]},
    ]);
    let steps = json!([
        {"op": "indicator", "input": "age", "output": "age_missing"},
        {"op": "missing", "input": "age", "replace": 40.0},
        {"op": "standard", "input": "age", "mean": 30.0, "scale": 10.0},
        {"op": "log1p", "input": "visits"},
        {"op": "one_hot", "input": "city", "categories": ["Rome", "Oslo"], "unknown": "zeros"},
        {"op": "ordinal", "input": "size", "categories": ["S", "M"], "numbers": [1, 5], "unknown": {"number": -1}},
        {"op": "concat", "inputs": ["age", "age_missing", "visits", "city", "member", "size"], "output": "row"},
        {"op": "feed", "input": "row", "model_input": "X"},
    ]);
    let rows =
        [json!([20, null]), json!([0, 0]), json!(["Oslo", "Bonn"]), json!([true, false]), json!(["M", ""])];
    let expected = vec![-1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 5.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0];
    assert_eq!(run(&inputs, &steps, 2, &rows), Ok(vec![expected]));
    let names =
        preparation(&inputs, &steps).expect("sound").flow.fed().next().expect("one").2.names().to_vec();
    assert_eq!(names, ["age", "age is missing", "visits", "city = Rome", "city = Oslo", "member", "size"]);
}

#[test]
fn what_a_policy_refuses_is_named_by_step_row_and_feature() {
    let present = json!([{"op": "present", "input": "x"}, feed()]);
    let error = run(&x(&["a", "b"]), &present, 2, &[json!([1, 2, 3, null])]).expect_err("missing");
    assert_eq!(error, "pre step 0 (present), row 1, feature b: the value is missing");
    let inputs = json!([{"name": "x", "datatype": "BYTES", "shape": [-1]}]);
    let steps = json!([{"op": "ordinal", "input": "x", "categories": ["a"], "unknown": "refuse"}, feed()]);
    let error = run(&inputs, &steps, 2, &[json!(["a", "q"])]).expect_err("unknown");
    assert_eq!(error, "pre step 0 (ordinal), row 1, feature x: \"q\" is in no category");
    let steps = json!([{"op": "ordinal", "input": "x", "categories": ["a"], "unknown": "missing"}, feed()]);
    assert!(run(&inputs, &steps, 1, &[json!(["q"])]).expect("runs")[0][0].is_nan());
    let steps =
        json!([{"op": "one_hot", "input": "x", "categories": ["a", "other"], "unknown": "last"}, feed()]);
    assert_eq!(run(&inputs, &steps, 1, &[json!(["q"])]), Ok(vec![vec![0.0, 1.0]]));
}

#[test]
fn whole_numbers_are_categories_too() {
    let inputs = json!([{"name": "x", "datatype": "INT64", "shape": [-1, 2]}]);
    let steps =
        json!([{"op": "ordinal", "input": "x", "categories": [7, 0, -9], "unknown": {"number": 9}}, feed()]);
    assert_eq!(run(&inputs, &steps, 2, &[json!([-9, 7, 0, 1])]), Ok(vec![vec![2.0, 0.0, 1.0, 9.0]]));
}

#[test]
fn large_numbers_keep_their_digits_in_double_precision() {
    let inputs = json!([{"name": "x", "datatype": "INT64", "shape": [-1]}]);
    let steps = json!([{"op": "standard", "input": "x", "mean": 1_700_000_000, "scale": 1.0}, feed()]);
    assert_eq!(run(&inputs, &steps, 1, &[json!([1_700_000_001])]), Ok(vec![vec![1.0]]));
}

#[test]
fn features_are_picked_by_name_and_scaled_between_bounds() {
    let steps = json!([
        {"op": "pick", "input": "x", "features": ["c", "a"], "output": "some"},
        {"op": "min_max", "input": "some", "min": [10, 0], "max": [20, 4]},
        {"op": "feed", "input": "some", "model_input": "X"},
    ]);
    assert_eq!(run(&x(&["a", "b", "c"]), &steps, 1, &[json!([1, 2, 15])]), Ok(vec![vec![0.5, 0.25]]));
}

#[test]
fn a_text_becomes_windows_of_bytes() {
    let inputs = json!([{"name": "x", "datatype": "BYTES", "shape": [-1]}]);
    let windows = |windows: usize, long: &str| {
        json!([{"op": "byte_windows", "input": "x", "length": 3, "stride": 2, "windows": windows, "padding": 0,
            "offset": 1, "long": long}, feed()])
    };
    let fed = run(&inputs, &windows(2, "cut"), 2, &[json!(["abcdefg", "a"])]);
    assert_eq!(fed, Ok(vec![vec![98., 99., 100., 100., 101., 102., 98., 0., 0., 0., 0., 0.]]));
    let error = run(&inputs, &windows(2, "refuse"), 1, &[json!(["abcdef"])]).expect_err("long");
    assert!(error.contains("6 bytes, the windows reach over 5"), "{error}");
    assert_eq!(preparation(&inputs, &windows(1, "cut")).expect("sound").feeds()[0].row_shape, [3]);
    assert_eq!(preparation(&inputs, &windows(2, "cut")).expect("sound").feeds()[0].row_shape, [2, 3]);
}

#[test]
fn pixels_are_laid_out_and_normalised_by_channel() {
    let inputs = json!([{"name": "x", "datatype": "UINT8", "shape": [-1, 1, 2, 3]}]);
    let tensor = |layout: &str, order: &str| {
        json!([
            {"op": "frame", "input": "x"},
            {"op": "image_tensor", "input": "x", "layout": layout, "order": order, "scale": 0.5,
                "mean": [0, 1, 2], "std": 2},
            feed(),
        ])
    };
    let pixels = [json!([0, 4, 8, 12, 16, 20])];
    let fed = |layout: &str, order: &str| run(&inputs, &tensor(layout, order), 1, &pixels);
    assert_eq!(fed("nchw", "same"), Ok(vec![vec![0., 3., 0.5, 3.5, 1., 4.]]));
    assert_eq!(fed("nhwc", "same"), Ok(vec![vec![0., 0.5, 1., 3., 3.5, 4.]]));
    assert_eq!(fed("nhwc", "reversed"), Ok(vec![vec![2., 0.5, -1., 5., 3.5, 2.]]));
}

#[test]
fn steps_that_cannot_work_are_refused_by_name() {
    let image = json!([{"name": "x", "datatype": "BYTES", "shape": [-1]}]);
    let decode =
        json!({"op": "decode_image", "input": "x", "formats": ["png"], "channels": "rgb", "max_pixels": 100});
    let tensor =
        json!({"op": "image_tensor", "input": "x", "layout": "nchw", "scale": 1, "mean": 0, "std": 1});
    for (inputs, steps, says) in [
        (&x(&["a"]), json!([]), "x must be fed"),
        (
            &x(&["a"]),
            json!([feed(), {"op": "log1p", "input": "x"}]),
            "pre step 1 (log1p): x was fed to the model already",
        ),
        (&x(&["a"]), json!([{"op": "standard", "input": "x", "mean": 0, "scale": 0}, feed()]), "scale is 0"),
        (
            &x(&["a"]),
            json!([{"op": "min_max", "input": "x", "min": 1, "max": 1}, feed()]),
            "min is not below max",
        ),
        (
            &x(&["a"]),
            json!([{"op": "pick", "input": "x", "features": ["b"], "output": "p"}, feed()]),
            "no feature b",
        ),
        (
            &x(&["a"]),
            json!([{"op": "ordinal", "input": "x", "categories": ["b"], "unknown": "refuse"}, feed()]),
            "texts",
        ),
        (
            &x(&["a"]),
            json!([{"op": "ordinal", "input": "x", "categories": [1, 1], "unknown": "refuse"}, feed()]),
            "twice",
        ),
        (&x(&["a"]), json!([{"op": "frame", "input": "x"}, feed()]), "UINT8"),
        (&image, json!([decode, feed()]), "works on numbers or texts, x is an image"),
        (&image, json!([decode, tensor, feed()]), "resize or crop it to one before"),
        (
            &image,
            json!([decode, {"op": "resize", "input": "x", "width": 0, "height": 9, "filter": "nearest"}, feed()]),
            "width",
        ),
        (
            &image,
            json!([{"op": "decode_image", "input": "x", "formats": ["gif"], "channels": "rgb", "max_pixels": 1}]),
            "gif",
        ),
        (
            &image,
            json!([{"op": "decode_image", "input": "x", "formats": [], "channels": "rgb", "max_pixels": 1}]),
            "formats",
        ),
        (
            &image,
            json!([{"op": "decode_image", "input": "x", "formats": ["png"], "channels": "rgb", "max_pixels": 99_999_999}]),
            "max_pixels",
        ),
    ] {
        let error = preparation(inputs, &steps).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn broken_and_foreign_images_are_refused_and_large_ones_before_they_are_decoded() {
    let inputs = json!([{"name": "x", "datatype": "BYTES", "shape": [-1]}]);
    let steps = json!([
        {"op": "decode_image", "input": "x", "formats": ["png"], "channels": "rgb", "max_pixels": 100},
        {"op": "resize", "input": "x", "width": 1, "height": 1, "filter": "nearest"},
        {"op": "image_tensor", "input": "x", "layout": "nchw", "scale": 1, "mean": 0, "std": 1},
        feed(),
    ]);
    let refused = |file: &str| run(&inputs, &steps, 1, &[json!([{ "hex": file }])]).expect_err("refused");
    assert!(refused("").contains("missing"));
    assert!(refused("474946").contains("neither"));
    assert!(refused("ffd8ffe0").contains("jpeg files are not accepted"));
    // A PNG of 65,535 x 65,535 pixels, whose header is all there is.
    let head = "89504e470d0a1a0a0000000d494844520000ffff0000ffff08020000005f2c9a2e";
    let error = refused(head);
    assert!(error.starts_with("pre step 0 (decode_image), row 0, feature x: "), "{error}");
    let error = refused(&hex(b"iVBORw0KGgoAAAAN"));
    assert!(error.contains("base64"), "{error}");
}

proptest! {
    #[test]
    fn clipped_values_lie_between_the_bounds(values in prop::collection::vec(-1e30_f32..1e30, 1..20)) {
        let steps = json!([{"op": "clip", "input": "x", "min": -2.0, "max": 3.0}, feed()]);
        let fed = run(&x(&["a"]), &steps, values.len(), &[json!(values)]).expect("runs");
        prop_assert!(fed[0].iter().all(|value| (-2.0..=3.0).contains(value)));
    }

    #[test]
    fn any_bytes_are_an_image_or_an_error(mut file: Vec<u8>, jpeg: bool) {
        let head: &[u8] = if jpeg { &[0xFF, 0xD8, 0xFF] } else { &[0x89, b'P', b'N', b'G', 13, 10, 26, 10] };
        file.splice(0..0, head.iter().copied());
        let all = serin_protocol::release::Decoder::ALL;
        let _ = decode::decode(&file, &all, 1 << 16);
    }

    #[test]
    fn an_image_of_one_colour_keeps_it(width in 1_usize..40, height in 1_usize..40, new in 1_usize..40, grey: u8) {
        use serin_protocol::pipeline::Resampling;
        let image = Image { width, height, channels: 1, pixels: vec![grey; width * height] };
        for filter in [Resampling::Nearest, Resampling::Bilinear] {
            let resized = image.clone().resized(new, new, filter);
            prop_assert_eq!(&resized.pixels, &vec![grey; new * new]);
        }
    }
}

#[cfg(feature = "png")]
#[test]
fn a_picture_that_would_grow_beyond_what_was_tried_is_refused_by_its_step() {
    let steps = json!([
        {"op": "decode_image", "input": "x", "formats": ["png"], "channels": "grey", "max_pixels": 1000},
        {"op": "resize_shorter", "input": "x", "length": 10, "filter": "bilinear"},
        {"op": "center_crop", "input": "x", "width": 8, "height": 8},
        {"op": "image_tensor", "input": "x", "layout": "nchw", "scale": 1, "mean": 0, "std": 1},
        feed(),
    ]);
    let inputs = json!([{"name": "x", "datatype": "BYTES", "shape": [-1]}]);
    let prepared = |width: u32, height: u32| {
        let file = png(width, height, true, &vec![7; (width * height) as usize]);
        run(&inputs, &steps, 1, &[json!([{ "hex": hex(&file) }])])
    };
    // 10 x 300 is three times what is decoded at most.
    assert_eq!(prepared(1, 30), Ok(vec![vec![7.0; 64]]));
    let error = prepared(1, 31).expect_err("too long");
    assert!(error.contains("(resize_shorter)") && error.contains("10 x 310 pixels, at most 3000"), "{error}");
}

/// A PNG file of `pixels`.
#[cfg(feature = "png")]
fn png(width: u32, height: u32, grey: bool, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(if grey { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    let mut writer = encoder.write_header().expect("a head");
    writer.write_image_data(pixels).expect("pixels");
    writer.finish().expect("finished");
    file
}

#[cfg(feature = "png")]
#[test]
fn what_is_watched_of_a_picture_is_of_the_whole_of_it_as_it_was_decoded() {
    use serin_protocol::manifest::Watch;

    let inputs = json!([
        {"name": "n", "datatype": "FP32", "shape": [-1]},
        {"name": "x", "datatype": "BYTES", "shape": [-1]},
    ]);
    let steps = json!([
        {"op": "decode_image", "input": "x", "formats": ["png"], "channels": "rgb", "max_pixels": 100},
        {"op": "resize", "input": "x", "width": 1, "height": 1, "filter": "nearest"},
        {"op": "image_tensor", "input": "x", "layout": "nchw", "scale": 0.5, "mean": 7, "std": 3},
        feed(),
        {"op": "feed", "input": "n", "model_input": "N"},
    ]);
    let watch: Watch = serde_json::from_value(json!({
        "summaries": [{"input": "x", "image": "rgb", "of": ["channels", "brightness", "contrast"]}],
    }))
    .expect("sound");
    let manifest = manifest(&inputs);
    let preparation = preparation(&inputs, &steps).expect("sound");
    let preparation = preparation.watching(watch.pictures(&manifest.inputs));
    let files = [png(2, 1, false, &[0, 10, 20, 100, 30, 20]), png(1, 2, true, &[40, 60])];
    let mut body = Vec::new();
    for file in &files {
        body.extend(u32::try_from(file.len()).expect("small").to_le_bytes());
        body.extend(file);
    }
    let raw = [
        Raw::of(&manifest.inputs[0], &[0; 8], 2).expect("numbers"),
        Raw::of(&manifest.inputs[1], &body, 2).expect("files"),
    ];
    let mut seen = vec![1.0];
    preparation.prepare(&raw, 0, 2, &mut seen).expect("prepared");
    // numpy.std([0, 10, 20, 100, 30, 20]); grey is all three.
    let expected = [1.0, 50.0, 20.0, 20.0, 30.0, 32.659_863, 50.0, 50.0, 50.0, 50.0, 10.0];
    assert_eq!(seen.len(), expected.len());
    for (number, wanted) in seen.iter().zip(expected) {
        assert!((number - wanted).abs() < 1e-4, "{seen:?}");
    }
}
