//! Models that take raw rows: tables of columns of all types, files of images, texts. What the training side
//! (scikit-learn, Pillow, numpy, onnxruntime) prepares and computes is what is prepared and computed here.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use serin_fleet_server::bundle::open::read_bundle;
use serin_tests::bundles::{copy_folder, fleet, text};
use serin_tests::device::Device;
use serin_tests::lab::{ALL_AT_ONCE, Broker, Lab, PATIENCE};
use serin_tests::until;
use tempfile::TempDir;

use crate::tuf_interop::script;

/// Model folders of the training side.
fn folders() -> Result<TempDir> {
    let folder = TempDir::new()?;
    let made = script("pipelines.py").arg(folder.path()).output()?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(folder)
}

fn pack(folder: &Path) -> Result<PathBuf> {
    let bundle = folder.with_extension("serin");
    fleet(&["bundle", "pack", text(folder), "-o", text(&bundle)])?;
    Ok(bundle)
}

fn read_json(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[test]
fn raw_inputs_become_what_the_training_side_hands_to_its_model() -> Result<()> {
    let folder = folders()?;
    let mut faults = Vec::new();
    for name in ["table", "exported", "png", "jpeg", "frames", "texts", "boxes"] {
        if let Err(error) = pack(&folder.path().join(name)) {
            faults.push(format!("{name}: {error:#}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

/// Packs the table after `change`d steps before the model, and tells why that is refused.
fn refused(folder: &Path, change: impl Fn(&mut Vec<Value>)) -> Result<String> {
    let changed = folder.join("changed");
    copy_folder(&folder.join("table"), &changed)?;
    let path = changed.join("pipeline.json");
    let mut pipeline = read_json(&path)?;
    change(pipeline["pre"].as_array_mut().context("steps")?);
    std::fs::write(&path, pipeline.to_string())?;
    let error = pack(&changed).err().context("it is packed")?;
    Ok(format!("{error:#}"))
}

#[test]
fn a_step_that_differs_from_training_is_named_by_its_feature_and_both_values() -> Result<()> {
    let folder = folders()?;
    let find = |steps: &[Value], op: &str| steps.iter().position(|step| step["op"] == op).expect("there");
    // Another mean than the one that was learned.
    let error = refused(folder.path(), |steps| {
        let at = find(steps, "missing");
        steps[at]["replace"] = json!(0);
    })?;
    assert!(error.contains("feature age (model input row[0]): the training side has 4"), "{error}");
    assert!(error.contains("the pipeline here makes 0"), "{error}");
    // Two columns in another order.
    let error = refused(folder.path(), |steps| {
        let at = find(steps, "concat");
        steps[at]["inputs"].as_array_mut().expect("names").swap(5, 6);
    })?;
    assert!(error.contains("feature distance (model input row["), "{error}");
    // Categories in another order: the first row that is told apart says so.
    let error = refused(folder.path(), |steps| {
        let at = find(steps, "one_hot");
        steps[at]["categories"].as_array_mut().expect("names").swap(0, 2);
    })?;
    assert!(error.contains("feature city = "), "{error}");
    // What cannot work is refused before anything runs.
    let error = refused(folder.path(), |steps| {
        let at = find(steps, "log1p");
        steps[at]["input"] = json!("city");
    })?;
    assert!(error.contains("pre step 2 (log1p): it works on numbers, city is texts"), "{error}");
    Ok(())
}

fn install(lab: &Lab, folder: &Path) -> Result<()> {
    lab.publish(text(folder))?;
    let name = folder.file_name().and_then(|name| name.to_str()).context("a name")?;
    let rollout = lab.server.roll_out(&format!("digits@{name}"), ALL_AT_ONCE)?;
    lab.server.until_rollout_is(rollout, "completed", PATIENCE)?;
    Ok(())
}

fn ask(device: &Device, inputs: &Value) -> Result<Value> {
    let url = format!("http://127.0.0.1:{}/v2/models/digits/infer", device.gateway);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    Ok(agent.post(url).send_json(json!({ "inputs": inputs }))?.body_mut().read_json()?)
}

fn output<'a>(answer: &'a Value, name: &str) -> Result<&'a [Value]> {
    let outputs = answer["outputs"].as_array().with_context(|| answer.to_string())?;
    let found = outputs.iter().find(|output| output["name"] == name).context("no such output")?;
    Ok(found["data"].as_array().context("data")?)
}

/// All requests as one, each input a column.
fn columns(requests: &[Value]) -> Value {
    const TYPES: [(&str, &str); 7] = [
        ("age", "FP64"),
        ("visits", "INT64"),
        ("city", "BYTES"),
        ("size", "BYTES"),
        ("income", "FP64"),
        ("distance", "FP64"),
        ("since", "INT64"),
    ];
    let column = |(name, datatype): (&str, &str)| {
        let data: Vec<&Value> = requests.iter().map(|request| &request["inputs"][name][0]).collect();
        json!({ "name": name, "datatype": datatype, "shape": [requests.len()], "data": data })
    };
    TYPES.into_iter().map(column).collect()
}

fn near(a: &Value, b: &Value) -> bool {
    a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| (a - b).abs() < 1e-5)
}

/// The requests as a CSV of columns in any order, one of which the model does not know.
fn csv(requests: &[Value]) -> String {
    const NAMES: [&str; 7] = ["since", "city", "age", "income", "visits", "size", "distance"];
    let cell = |value: &Value| match value {
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::Null => String::new(),
        number => number.to_string(),
    };
    let mut lines = vec![format!("note,{}", NAMES.join(","))];
    for request in requests {
        let cells: Vec<String> = NAMES.iter().map(|name| cell(&request["inputs"][name][0])).collect();
        lines.push(format!("\"of no, interest\",{}", cells.join(",")));
    }
    lines.join("\n") + "\n"
}

#[test]
fn rows_of_a_table_are_answered_over_the_gateway_and_in_bulk_as_at_training() -> Result<()> {
    let folder = folders()?;
    let table = folder.path().join("table");
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    install(&lab, &table)?;
    let requests = read_json(&table.join("requests.json"))?;
    let requests = requests.as_array().context("a list")?;
    let device = &lab.devices[0];

    let answer = ask(device, &columns(requests))?;
    for (at, request) in requests.iter().enumerate() {
        assert!(
            near(&output(&answer, "probability")?[at], &request["outputs"]["probability"][0]),
            "row {at}"
        );
        assert_eq!(output(&answer, "class")?[at], request["outputs"]["class"][0], "row {at}");
    }
    // What no column can hold is the caller's mistake, and named.
    let mut wrong = columns(&requests[..1]);
    wrong[1]["data"] = json!([1.5]);
    let refused = ask(device, &wrong)?;
    assert!(refused["error"].to_string().contains("input visits: value 0: 1.5 is no INT64"), "{refused}");

    let (input, output_path) = (lab.folder().join("in.csv"), lab.folder().join("out.ndjson"));
    std::fs::write(&input, csv(requests))?;
    let done = device.try_engineer(&["batch", text(&input), text(&output_path)])?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("columns left out: note"), "{said}");
    let lines = std::fs::read_to_string(&output_path)?;
    assert_eq!(lines.lines().count(), requests.len());
    for (line, request) in lines.lines().zip(requests) {
        let line: Value = serde_json::from_str(line)?;
        assert!(near(&line["probability"], &request["outputs"]["probability"][0]), "{line}");
    }
    Ok(())
}

/// Sends `file` as the raw bytes of the only element of the input `image`.
fn ask_about_file(device: &Device, file: &[u8]) -> Result<(bool, Value)> {
    let size = file.len() + 4;
    let input = json!({ "name": "image", "datatype": "BYTES", "shape": [1],
        "parameters": { "binary_data_size": size } });
    let head = json!({ "inputs": [input] }).to_string();
    let mut stream = UnixStream::connect(device.folder.join("agent.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = u32::try_from(file.len())?.to_le_bytes();
    let body = [head.as_bytes(), &length, file].concat();
    let lines = format!(
        "POST /v2/models/digits/infer HTTP/1.1\r\nHost: device\r\nConnection: close\r\n\
         Inference-Header-Content-Length: {}\r\nContent-Length: {}\r\n\r\n",
        head.len(),
        body.len()
    );
    stream.write_all(&[lines.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no headers")?;
    let fine = answer.starts_with(b"HTTP/1.1 200");
    Ok((fine, serde_json::from_slice(&answer[end + 4..])?))
}

#[test]
fn a_file_of_an_image_is_answered_and_a_broken_or_huge_one_costs_nothing() -> Result<()> {
    let folder = folders()?;
    let png = folder.path().join("png");
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    install(&lab, &png)?;
    let device = &lab.devices[0];
    let golden = std::fs::read_to_string(png.join("golden.ndjson"))?;
    for (at, case) in golden.lines().enumerate() {
        let case: Value = serde_json::from_str(case)?;
        let (fine, answer) = ask_about_file(device, &std::fs::read(png.join(format!("{at}.png")))?)?;
        assert!(fine, "{answer}");
        let expected = case["outputs"]["best"].as_array().context("classes")?;
        assert_eq!(output(&answer, "best")?, expected.as_slice(), "case {at}");
        let letter =
            expected[0].as_u64().and_then(|class| "abcde".chars().nth(class as usize)).context("class")?;
        assert_eq!(output(&answer, "labels")?[0], json!(letter.to_string()));
    }
    let good = std::fs::read(png.join("0.png"))?;
    let jpeg = std::fs::read(folder.path().join("jpeg/0.jpeg"))?;
    let mut huge = good.clone();
    // Width and height stand behind the signature and the first chunk's name; its checksum is then wrong.
    huge[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
    for (file, says) in [
        (&good[..good.len() / 2], "the PNG file is broken"),
        (b"text".as_slice(), "neither a JPEG nor a PNG"),
        (b"".as_slice(), "the image is missing"),
        (&jpeg, "jpeg files are not accepted"),
        (&huge, "pre step 0 (decode_image), row 0, feature image"),
    ] {
        let (fine, answer) = ask_about_file(device, file)?;
        assert!(!fine && answer["error"].to_string().contains(says), "{answer}");
    }
    assert!(ask_about_file(device, &good)?.0);
    let status = device.status()?;
    assert_eq!(status["active"]["traffic"]["errors"], 0, "{status}");
    Ok(())
}

#[test]
fn what_is_watched_of_pictures_is_the_same_at_packing_and_on_the_device() -> Result<()> {
    const FILES: usize = 7;
    let folder = folders()?;
    let png = folder.path().join("png");
    let declaration = std::fs::read_to_string(png.join("serin.toml"))?;
    let watch = |image: &str| {
        format!(
            "{declaration}\n[[watch.summaries]]\ninput = \"image\"\n{image}\nof = [\"brightness\", \"channels\"]\n"
        )
    };
    for (image, says) in
        [("", "image = \"rgb\" or \"grey\""), ("image = \"grey\"", "no decode_image step makes of image")]
    {
        std::fs::write(png.join("serin.toml"), watch(image))?;
        let error = pack(&png).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    std::fs::write(png.join("serin.toml"), watch("image = \"rgb\""))?;
    let packed = read_bundle(&pack(&png)?)?;
    let names: Vec<_> = packed.profile.features.iter().map(|feature| feature.name.to_string()).collect();
    let watched = ["image.brightness", "image.channel0", "image.channel1", "image.channel2"];
    assert_eq!(names, watched);
    for feature in &packed.profile.features {
        let (low, high) = feature.extremes.context("pictures were seen")?;
        assert!(low >= 0.0 && low < high && high <= 255.0, "{feature:?}");
    }

    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    install(&lab, &png)?;
    let device = &lab.devices[0];
    for at in 0..FILES {
        assert!(ask_about_file(device, &std::fs::read(png.join(format!("{at}.png")))?)?.0);
    }
    let drift = |seen: usize| {
        until(&format!("the server has heard of {seen} pictures"), PATIENCE, || {
            let drift = lab.server.operator(&["drift", "digits@png"]).ok()?;
            let features = drift["features"].as_array()?.clone();
            let all = features.iter().all(|feature| feature["seen"] == seen);
            (all && features.len() == watched.len()).then_some(features)
        })
    };
    for feature in drift(FILES)? {
        // The very pictures of the reference data fall into the very bins.
        assert_eq!(
            (feature["psi"].as_f64(), feature["missing"].as_f64()),
            (Some(0.0), Some(0.0)),
            "{feature}"
        );
    }
    // Always the same picture is something else.
    for _ in 0..FILES {
        assert!(ask_about_file(device, &std::fs::read(png.join("3.png"))?)?.0);
    }
    for feature in drift(2 * FILES)? {
        assert!(feature["psi"].as_f64() > Some(0.1), "{feature}");
    }
    Ok(())
}

/// `bytes` as the text that a CSV holds.
fn base64(bytes: &[u8]) -> String {
    serin_protocol::base64::encode(bytes)
}

#[test]
fn images_in_rows_are_scored_in_bulk_and_a_broken_one_is_named() -> Result<()> {
    let folder = folders()?;
    let png = folder.path().join("png");
    let mut lab = Lab::new(Broker::Embedded)?;
    lab.add_devices(1)?;
    install(&lab, &png)?;
    let device = &lab.devices[0];
    let golden = std::fs::read_to_string(png.join("golden.ndjson"))?;
    let cases = golden.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let files = (0..cases.len()).map(|at| Ok(std::fs::read(png.join(format!("{at}.png")))?));
    let files = files.collect::<Result<Vec<Vec<u8>>>>()?;

    let csv = files.iter().fold("image\n".to_owned(), |text, file| text + &base64(file) + "\n");
    let lines =
        files.iter().fold(String::new(), |text, file| text + &json!([base64(file)]).to_string() + "\n");
    for (name, text_of_rows) in [("in.csv", &csv), ("in.ndjson", &lines)] {
        let (input, output) = (lab.folder().join(name), lab.folder().join(format!("{name}.out")));
        std::fs::write(&input, text_of_rows)?;
        let done = device.try_engineer(&["batch", text(&input), text(&output)])?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let answers = std::fs::read_to_string(&output)?;
        assert_eq!(answers.lines().count(), cases.len());
        for (answer, case) in answers.lines().zip(&cases) {
            let answer: Value = serde_json::from_str(answer)?;
            assert_eq!(answer["best"], case["outputs"]["best"], "{answer}");
        }
    }

    // The third row breaks off in the middle, which only decoding it tells.
    let broken = base64(&files[0][..files[0].len() / 2]);
    let csv = format!("image\n{0}\n{0}\n{broken}\n{0}\nc29tZXRoaW5n\n{0}\n", base64(&files[0]));
    let (input, output) = (lab.folder().join("broken.csv"), lab.folder().join("broken.ndjson"));
    std::fs::write(&input, csv)?;
    let refused = device.try_engineer(&["batch", text(&input), text(&output)])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("line 4: "), "{said}");
    assert!(said.contains("feature image") && said.contains("the PNG file is broken"), "{said}");
    let done = device.try_engineer(&["batch", text(&input), text(&output), "--keep-going", "--restart"])?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answers = std::fs::read_to_string(&output)?;
    let errors: Vec<String> = answers
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).map(|line| line["error"].to_string()))
        .collect::<Result<_, _>>()?;
    assert_eq!(errors.len(), 6, "{answers}");
    for (at, says) in
        [(2, "the PNG file is broken"), (4, "line 6: column image: it is neither a JPEG nor a PNG file")]
    {
        assert!(errors[at].contains(says), "{errors:?}");
    }
    assert_eq!(errors.iter().filter(|error| *error == "null").count(), 4, "{errors:?}");
    Ok(())
}

#[test]
fn images_within_the_reference_data_are_packed_as_those_beside_it() -> Result<()> {
    let folder = folders()?;
    let png = folder.path().join("png");
    let profile =
        |bundle: &Path| -> Result<_> { Ok(serin_fleet_server::bundle::open::read_bundle(bundle)?.profile) };
    let beside = profile(&pack(&png)?)?;
    let within = folder.path().join("within");
    copy_folder(&png, &within)?;
    let _ = std::fs::remove_file(within.join("measured.json"));
    let csv = std::fs::read_to_string(png.join("reference.csv"))?;
    let rows = csv.lines().skip(1).map(|name| Ok(base64(&std::fs::read(png.join(name))?)));
    let rows = rows.collect::<Result<Vec<String>>>()?;
    std::fs::write(within.join("reference.csv"), format!("image\n{}\n", rows.join("\n")))?;
    assert_eq!(profile(&pack(&within)?)?, beside);

    let mut broken = rows;
    broken[1].pop();
    std::fs::write(within.join("reference.csv"), format!("image\n{}\n", broken.join("\n")))?;
    let error = format!("{:#}", pack(&within).expect_err("broken"));
    assert!(error.contains("reference.csv, row 2, column image: base64 comes in groups of 4"), "{error}");
    Ok(())
}
