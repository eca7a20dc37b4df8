//! Models as scikit-learn, `LightGBM` and `XGBoost` are exported to ONNX, and single operators, in a real
//! worker: each must compute what onnxruntime computes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use serin_agent::worker::golden::golden_proof;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_protocol::bundle::BundleFile;
use serin_protocol::golden::{Golden, GoldenCase, GoldenInput, GoldenTensor, GoldenTexts};
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::Manifest;
use serin_protocol::raw::RawValues;
use serin_tests::process::program;
use tempfile::TempDir;

use super::tuf_interop::script;

/// Estimators whose export does not run here, each with what its refusal says.
const REFUSED: [(&str, &str); 3] = [
    // Written with functions of the model's own.
    ("neighbour_imputer", "local_domain::dict_idx_map"),
    ("rows_mixed", "where other rows are run with it; alone it is right"),
    ("missing_in_a_network", "value 2 of row 0 is missing (null or NaN)"),
];

/// Estimators that cannot be exported, or whose export onnxruntime itself does not run.
const UNEXPORTED: [(&str, &str); 1] = [
    // Labels and probabilities of different numbers of rows.
    ("quadratic_discriminant", "AssertionError"),
];

#[test]
fn exported_estimators_compute_what_onnxruntime_computes() {
    let folder = TempDir::new().expect("folder");
    let output = script("estimators.py").arg(folder.path()).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.path().join("unexported.txt")).expect("written");
    let entries = std::fs::read_dir(folder.path()).expect("listed");
    let names = entries.map(|entry| entry.expect("listed").file_name().into_string().expect("plain"));
    let mut names: Vec<String> = names.filter(|name| folder.path().join(name).is_dir()).collect();
    names.sort_unstable();
    let mut faults = unexported(&text);
    faults.push_str(&run_all(folder.path(), &names));
    assert!(faults.is_empty(), "of {} models:\n{faults}", names.len());
    // What packing then warns of: an output of doubles, and not one of floats that come from doubles.
    let said = warnings(&folder.path().join("op_labels_doubles")).expect("prepared");
    assert!(said.len() == 1 && said[0].contains("\"doubles\""), "{said:?}");
    let said = warnings(&folder.path().join("op_scaler_float64")).expect("prepared");
    assert!(said.is_empty(), "{said:?}");
}

/// What the device program warns of in the model of the release in `dir`.
fn warnings(dir: &Path) -> Result<Vec<String>> {
    Ok(serde_json::from_value(prepared(dir)?.0["warnings"].clone())?)
}

/// What the device program says of the model of the release in `dir`, and its second form.
fn prepared(dir: &Path) -> Result<(Value, Vec<u8>)> {
    let limit = (1_u64 << 30).to_string();
    let mut command = std::process::Command::new(program("serin-agent")?);
    let output = command.args(["prepare", "--memory-limit", &limit, "--dir"]).arg(dir).output()?;
    let mut parts = output.stdout.splitn(2, |byte| *byte == b'\n');
    let said = serde_json::from_slice(parts.next().context("a line")?)?;
    Ok((said, parts.next().context("what follows")?.to_vec()))
}

/// What differs between the list of unexported estimators and `text`.
fn unexported(text: &str) -> String {
    let mut faults = String::new();
    for line in text.lines() {
        let (name, why) = line.split_once(": ").unwrap_or((line, ""));
        let known = UNEXPORTED.iter().any(|(known, reason)| *known == name && why.contains(reason));
        if !known {
            let _ = writeln!(faults, "{name} was not exported: {why}");
        }
    }
    for (name, _) in UNEXPORTED.iter().filter(|(name, _)| !text.contains(&format!("{name}: "))) {
        let _ = writeln!(faults, "{name} is exported now");
    }
    faults
}

/// Runs every model of `folder`, as many at once as there are processors, and tells what was unexpected.
fn run_all(folder: &Path, names: &[String]) -> String {
    let faults = Mutex::new(String::new());
    let next = AtomicUsize::new(0);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = runtime.block_on(async {
                run(&folder.join(name), None).await?;
                // Operators that are made of others must be the same when they are written down so.
                if name.starts_with("plain_") { second(&folder.join(name)).await } else { Ok(()) }
            });
            let refused = REFUSED.iter().find(|(refused, _)| refused == name).map(|(_, why)| *why);
            let fault = match (outcome, refused) {
                (Ok(()), None) => continue,
                (Ok(()), Some(_)) => "runs now".to_owned(),
                (Err(error), Some(why)) if format!("{error:#}").contains(why) => continue,
                (Err(error), _) => format!("{error:#}"),
            };
            let _ = writeln!(faults.lock().expect("unbroken"), "{name}: {fault}");
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    faults.into_inner().expect("unbroken")
}

/// One input or output of `case.json`.
struct Tensor {
    /// Its name in the graph.
    model_name: String,
    kind: String,
    row: Vec<i64>,
    rows: Vec<Vec<Value>>,
}

impl Tensor {
    fn parse(value: &Value) -> Result<Self> {
        let list = |name: &str| value[name].as_array().context("list");
        Ok(Self {
            model_name: value["name"].as_str().context("name")?.into(),
            kind: value["kind"].as_str().context("kind")?.into(),
            row: list("row")?.iter().filter_map(Value::as_i64).collect(),
            rows: list("rows")?.iter().map(|row| row.as_array().cloned().unwrap_or_default()).collect(),
        })
    }

    fn spec(&self, name: &str) -> Value {
        let shape: Vec<i64> = std::iter::once(-1).chain(self.row.iter().copied()).collect();
        json!({ "name": name, "datatype": self.kind, "shape": shape })
    }

    fn output(&self, name: &str, row: usize) -> Result<GoldenTensor> {
        let values = self.rows[row].iter().map(|value| number(value) as f32).collect();
        Ok(GoldenTensor { name: name.parse()?, values })
    }

    fn texts(&self, name: &str, row: usize) -> Result<GoldenTexts> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("text");
        Ok(GoldenTexts {
            name: name.parse()?,
            values: self.rows[row].iter().map(text).collect::<Result<_>>()?,
        })
    }

    fn input(&self, name: &str, row: usize) -> Result<GoldenInput> {
        let row = self.rows[row].iter();
        let values = match self.kind.as_str() {
            "FP32" => RawValues::Singles(row.map(|value| number(value) as f32).collect()),
            "FP64" => RawValues::Doubles(row.map(number).collect()),
            "BYTES" => {
                let texts =
                    row.map(|value| value.as_str().context("text").map(|text| text.as_bytes().to_vec()));
                RawValues::Texts(texts.collect::<Result<_>>()?)
            }
            _ => {
                RawValues::Integers(row.map(|value| value.as_i64().context("whole")).collect::<Result<_>>()?)
            }
        };
        Ok(GoldenInput { name: name.parse()?, values })
    }
}

/// A number, or a text where JSON has none for it.
fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some(text) => text.parse().expect("nan or inf"),
        None => value.as_f64().expect("number"),
    }
}

/// The same with nothing but the second form of the model, which must be written for many rows.
async fn second(folder: &Path) -> Result<()> {
    let (said, form) = prepared(folder)?;
    let rows = said["nnef"]["Ok"].as_u64().with_context(|| format!("no second form: {said}"))?;
    let is_two_way = folder.ends_with("plain_lstm_bidirectional");
    // Of such an LSTM tract itself fixes the rows.
    ensure!((rows > 1) != is_two_way, "it runs {rows} rows at once");
    std::fs::write(folder.join(BundleFile::Nnef.name()), form)?;
    std::fs::remove_file(folder.join(BundleFile::Model.name()))?;
    run(folder, Some(rows)).await.context("as its second form")
}

/// Starts a worker with the model in `folder`, or its second form for so many rows at once, and compares each row alone
/// and many together.
async fn run(folder: &Path, second: Option<u64>) -> Result<()> {
    let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json"))?)?;
    let tensors = |name: &str| -> Result<Vec<(String, Tensor)>> {
        let parse = |(at, value)| Ok((format!("{name}_{at}"), Tensor::parse(value)?));
        case[name].as_array().context("list")?.iter().enumerate().map(parse).collect()
    };
    let (inputs, outputs) = (tensors("inputs")?, tensors("outputs")?);
    let manifest = write_release(folder, &inputs, &outputs, second)?;
    let spec = WorkerSpec {
        program: program("serin-agent")?,
        dir: folder.into(),
        release: manifest.id(),
        memory_limit: ByteCount(1 << 30),
        groups: None,
        load_deadline: Duration::from_mins(1),
        request_deadline: Duration::from_mins(1),
        require_sandbox: false,
    };
    let worker = Worker::start(spec).await?;
    let rows = inputs.first().context("input")?.1.rows.len();
    let cases = (0..rows)
        .map(|row| {
            let (texts, numbers): (Vec<_>, Vec<_>) =
                outputs.iter().partition(|(_, tensor)| tensor.kind == "BYTES");
            let mut case = GoldenCase::default();
            for (name, tensor) in &inputs {
                case.inputs.push(tensor.input(name, row)?);
            }
            for (name, tensor) in numbers {
                case.outputs.push(tensor.output(name, row)?);
            }
            for (name, tensor) in texts {
                case.text_outputs.push(tensor.texts(name, row)?);
            }
            Ok(case)
        })
        .collect::<Result<_>>()?;
    let tolerance = |name: &str| case[name].as_f64().map(|value| value as f32).context("tolerance");
    let golden =
        Golden { relative: tolerance("relative")?, absolute: tolerance("absolute")?, fed: vec![], cases };
    golden_proof(&worker, &golden, &manifest).await?;
    worker.stop().await;
    Ok(())
}

/// Writes what a worker reads beside the model: everything is fed and taken as it is.
fn write_release(
    folder: &Path,
    inputs: &[(String, Tensor)],
    outputs: &[(String, Tensor)],
    second: Option<u64>,
) -> Result<Manifest> {
    let digest = Digest::of(b"");
    let files: Vec<Value> = BundleFile::ORDER
        .iter()
        .filter(|file| **file != BundleFile::Manifest && (**file != BundleFile::Nnef || second.is_some()))
        .map(|file| json!({ "name": file.name(), "digest": digest, "size": 0 }))
        .collect();
    let specs = |tensors: &[(String, Tensor)]| -> Vec<Value> {
        tensors.iter().map(|(name, tensor)| tensor.spec(name)).collect()
    };
    let mut manifest = json!({
        "format": 1, "model": "estimator", "version": "1.0.0", "owner": "tests", "description": "",
        "lineage": { "git_commit": "0".repeat(40), "weights": digest, "data": digest, "schema_version": "1" },
        "runtime": "tract-0.23", "targets": [], "inputs": specs(inputs), "outputs": specs(outputs),
        "prediction": null,
        "measured": {
            "minimum_memory": 0, "memory_limit": 0, "peak_resident": 0, "latency_p50_micros": 0,
            "latency_p99_micros": 0, "load_micros": 0,
        },
        "files": files,
    });
    if let Some(rows) = second {
        manifest["nnef"] = json!({ "runtime": "tract-0.23.9", "rows_at_once": rows });
    }
    let feed = |(name, tensor): &(String, Tensor)| json!({ "op": "feed", "input": name, "model_input": tensor.model_name });
    let take = |(name, tensor): &(String, Tensor)| json!({ "op": "take", "model_output": tensor.model_name, "output": name });
    let pipeline = json!({
        "pre": inputs.iter().map(feed).collect::<Vec<_>>(),
        "post": outputs.iter().map(take).collect::<Vec<_>>(),
    });
    let manifest = serde_json::to_vec(&manifest)?;
    std::fs::write(folder.join("manifest.json"), &manifest)?;
    std::fs::write(folder.join("pipeline.json"), serde_json::to_vec(&pipeline)?)?;
    std::fs::write(folder.join("labels.txt"), "")?;
    Ok(Manifest::parse(&manifest)?)
}
