//! Makes, from a model folder as a data scientist hands it over, the directory of release files that a
//! worker is given on a device. (The packer does this for real; here only what a worker reads.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serin_protocol::bundle::BundleFile;
use serin_protocol::golden::{Golden, GoldenCase, GoldenInput, GoldenTensor, GoldenTexts};
use serin_protocol::ids::{Digest, FieldName};
use serin_protocol::manifest::Manifest;

/// Texts, such as labels, or numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Texts(Vec<String>),
    Numbers(Vec<Option<f32>>),
}

#[derive(Deserialize)]
struct GoldenLine {
    inputs: BTreeMap<FieldName, Vec<Option<f32>>>,
    outputs: BTreeMap<FieldName, Expected>,
}

/// The folder `name` under the fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// Unpacks the fixture `name` into a new directory.
pub(crate) fn unpack(name: &str) -> tempfile::TempDir {
    unpack_with(name, |_| {})
}

/// The same, with changes to the files before the manifest names them.
pub(crate) fn unpack_with(name: &str, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let from = fixture(name);
    let folder = tempfile::tempdir().expect("folder");
    let to = folder.path();
    for file in ["model.onnx", "pipeline.json", "labels.txt", "card.md"] {
        fs::copy(from.join(file), to.join(file)).expect("copied");
    }
    let source: toml::Table =
        fs::read_to_string(from.join("serin.toml")).expect("serin.toml").parse().expect("toml");
    fs::write(to.join("golden.bin"), golden(&from, &source).encode().expect("encodes")).expect("written");
    fs::write(to.join("reference.bin"), b"not read by a worker").expect("written");
    change(to);
    let manifest = serde_json::to_vec(&manifest(to, &source)).expect("json");
    Manifest::parse(&manifest).expect("a valid manifest");
    fs::write(to.join("manifest.json"), manifest).expect("written");
    folder
}

fn golden(from: &Path, source: &toml::Table) -> Golden {
    let tolerance = |name: &str| source["golden"][name].as_float().expect("a tolerance") as f32;
    let numbers = |values: Vec<Option<f32>>| -> Vec<f32> {
        values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect()
    };
    let input = |(name, values)| GoldenInput { name, values: numbers(values).into() };
    let lines = fs::read_to_string(from.join("golden.ndjson")).expect("golden.ndjson");
    let cases = lines.lines().map(|line| {
        let line: GoldenLine = serde_json::from_str(line).expect("a golden case");
        let mut case =
            GoldenCase { inputs: line.inputs.into_iter().map(input).collect(), ..GoldenCase::default() };
        for (name, values) in line.outputs {
            match values {
                Expected::Texts(values) => case.text_outputs.push(GoldenTexts { name, values }),
                Expected::Numbers(values) => {
                    case.outputs.push(GoldenTensor { name, values: numbers(values) });
                }
            }
        }
        case
    });
    Golden {
        relative: tolerance("relative"),
        absolute: tolerance("absolute"),
        fed: vec![],
        cases: cases.collect(),
    }
}

fn manifest(to: &Path, source: &toml::Table) -> serde_json::Value {
    let read = |file: BundleFile| fs::read(to.join(file.name())).expect("a release file");
    let files: Vec<_> = BundleFile::ALL
        .into_iter()
        .filter(|file| *file != BundleFile::Manifest)
        .map(|file| {
            let bytes = read(file);
            serde_json::json!({"name": file, "digest": Digest::of(&bytes), "size": bytes.len()})
        })
        .collect();
    let mut manifest = serde_json::json!({
        "format": 1,
        "runtime": "tract-0.23",
        "measured": {
            "minimum_memory": 0, "memory_limit": 0, "peak_resident": 0,
            "latency_p50_micros": 0, "latency_p99_micros": 0, "load_micros": 0
        },
        "files": files,
    });
    for key in ["model", "version", "owner", "description", "targets", "inputs", "outputs", "prediction"] {
        manifest[key] = serde_json::to_value(&source[key]).expect("json");
    }
    manifest["lineage"] = serde_json::to_value(&source["lineage"]).expect("json");
    manifest["lineage"]["weights"] =
        serde_json::to_value(Digest::of(&read(BundleFile::Model))).expect("json");
    manifest["lineage"]["data"] = serde_json::to_value(Digest::of(b"data")).expect("json");
    manifest
}
