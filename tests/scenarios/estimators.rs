//! Models as scikit-learn, `LightGBM` and `XGBoost` are exported to ONNX, and single operators, in a real
//! worker: each must compute what onnxruntime computes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use serin_agent::worker::golden::golden_pass;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_protocol::bundle::BundleFile;
use serin_protocol::golden::{Golden, GoldenCase, GoldenInput, GoldenTensor};
use serin_protocol::ids::{ByteCount, Digest};
use serin_protocol::manifest::Manifest;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};
use serin_tests::process::program;
use tempfile::TempDir;

use super::tuf_interop::script;

/// Estimators whose export does not run here, each with what its refusal says.
const REFUSED: [(&str, &str); 2] = [
    // Written with functions of the model's own.
    ("neighbour_imputer", "local_domain::dict_idx_map"),
    // tract cannot sum up a row count that is left open while it works out shapes.
    ("radius_neighbours_regressor", "CumSum: TDim is not a number"),
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
            let outcome = runtime.block_on(run(&folder.join(name)));
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

    fn golden(&self, name: &str, row: usize) -> Result<GoldenTensor> {
        let number = |value: &Value| match value.as_str() {
            Some(text) => text.parse().expect("nan or inf"),
            None => value.as_f64().expect("number") as f32,
        };
        let values = self.rows[row].iter().map(number).collect();
        Ok(GoldenTensor { name: name.parse()?, values })
    }
}

/// Starts a worker with the model in `folder` and compares each row alone and many together.
async fn run(folder: &Path) -> Result<()> {
    let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json"))?)?;
    let tensors = |name: &str| -> Result<Vec<(String, Tensor)>> {
        let parse = |(at, value)| Ok((format!("{name}_{at}"), Tensor::parse(value)?));
        case[name].as_array().context("list")?.iter().enumerate().map(parse).collect()
    };
    let (inputs, outputs) = (tensors("inputs")?, tensors("outputs")?);
    let manifest = write_release(folder, &inputs, &outputs)?;
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
    let golden = |row: usize, tensors: &[(String, Tensor)]| {
        let numbers = tensors.iter().filter(|(_, tensor)| tensor.kind != "BYTES");
        numbers.map(|(name, tensor)| tensor.golden(name, row)).collect::<Result<Vec<_>>>()
    };
    let cases = (0..rows)
        .map(|row| {
            let input =
                |tensor: GoldenTensor| GoldenInput { name: tensor.name, values: tensor.values.into() };
            Ok(GoldenCase {
                inputs: golden(row, &inputs)?.into_iter().map(input).collect(),
                tensors: vec![],
                outputs: golden(row, &outputs)?,
            })
        })
        .collect::<Result<_>>()?;
    let tolerance = |name: &str| case[name].as_f64().map(|value| value as f32).context("tolerance");
    let golden =
        Golden { relative: tolerance("relative")?, absolute: tolerance("absolute")?, fed: vec![], cases };
    golden_pass(&worker, &golden, &manifest).await?;
    compare_texts(&worker, &golden, &manifest, &outputs).await?;
    worker.stop().await;
    Ok(())
}

/// Asks for all rows at once and compares the outputs that are texts, which golden vectors cannot hold.
async fn compare_texts(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
    outputs: &[(String, Tensor)],
) -> Result<()> {
    let (mut headers, mut body) = (Vec::new(), Vec::new());
    for (at, spec) in manifest.inputs.iter().enumerate() {
        let start = body.len();
        golden.cases.iter().for_each(|case| {
            case.inputs[at].values.write(DataType::Fp32, &mut body);
        });
        let lengths = spec.shape.iter().skip(1).map(|length| *length as u32);
        let shape = std::iter::once(golden.cases.len() as u32).chain(lengths).collect();
        let bytes = (body.len() - start) as u64;
        headers.push(TensorHeader { name: spec.name.clone(), datatype: DataType::Fp32, shape, bytes });
    }
    let inferred = worker.infer(headers, Bytes::from(body)).await?;
    let parts = split_body(&inferred.outputs, &inferred.body).context("parts")?;
    for (name, expected) in outputs.iter().filter(|(_, tensor)| tensor.kind == "BYTES") {
        let header = inferred.outputs.iter().position(|header| header.name.as_str() == name);
        let mut part = parts[header.context("output")?];
        for expected in expected.rows.iter().flatten() {
            let Some((length, rest)) = part.split_first_chunk::<4>() else { bail!("{name} is cut off") };
            let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).context("text")?;
            ensure!(expected.as_str().map(str::as_bytes) == Some(text), "{name}: {expected} is {text:?}");
            part = rest;
        }
        ensure!(part.is_empty(), "{name} has more texts than rows");
    }
    Ok(())
}

/// Writes what a worker reads beside the model: everything is fed and taken as it is.
fn write_release(
    folder: &Path,
    inputs: &[(String, Tensor)],
    outputs: &[(String, Tensor)],
) -> Result<Manifest> {
    let digest = Digest::of(b"");
    let files: Vec<Value> = BundleFile::ALL
        .iter()
        .filter(|file| **file != BundleFile::Manifest)
        .map(|file| json!({ "name": file.name(), "digest": digest, "size": 0 }))
        .collect();
    let specs = |tensors: &[(String, Tensor)]| -> Vec<Value> {
        tensors.iter().map(|(name, tensor)| tensor.spec(name)).collect()
    };
    let manifest = json!({
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
