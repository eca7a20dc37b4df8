//! Golden vectors as a data scientist writes them (`golden.ndjson`, one case a line), read into the form
//! that devices check. Every fault is named by its line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;
use serin_protocol::golden::{
    Golden, GoldenCase, GoldenFed, GoldenInput, GoldenTensor, GoldenTexts, MAX_CASES, MAX_GOLDEN_BYTES,
};
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::TensorSpec;
use serin_protocol::pipeline::{Flow, Kind};
use serin_protocol::raw::RawValues;
use serin_protocol::tensor::DataType;

/// How far a device's outputs may lie from the expected ones: the section `[golden]` of `serin.toml`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerances {
    /// Relative to the expected value.
    pub relative: f32,
    /// Whatever the expected value.
    pub absolute: f32,
}

/// `golden.ndjson` was refused.
#[derive(Debug, thiserror::Error)]
pub enum GoldenLineError {
    /// A line is not a case of this model.
    #[error("golden.ndjson, line {line}: {what}")]
    Line {
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There are none, or too many.
    #[error("golden.ndjson has {0} cases, 1 to {MAX_CASES} are needed")]
    Count(usize),
    /// A tolerance that tolerates nothing sensible.
    #[error("serin.toml, [golden]: relative and absolute must be finite numbers of at least 0")]
    Tolerance,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    inputs: BTreeMap<FieldName, Vec<Value>>,
    #[serde(default)]
    tensors: BTreeMap<String, Vec<Value>>,
    outputs: BTreeMap<FieldName, Vec<Value>>,
}

/// What a case is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Declared inputs.
    pub inputs: &'a [TensorSpec],
    /// The steps from them to the model.
    pub flow: &'a Flow,
    /// Declared outputs.
    pub outputs: &'a [TensorSpec],
    /// Where files are that cases name.
    pub folder: &'a Path,
}

/// Reads the cases in `text`; `null` is a missing value, and `{"file": "NAME"}` a file of the model folder.
/// Every input must be given, and at least one of the outputs; tensors as the training side handed them to the
/// model may be given, under the model's names. What is a text is given as one, and must then be exactly that.
pub fn parse(text: &str, subject: Subject<'_>, tolerances: Tolerances) -> Result<Golden, GoldenLineError> {
    let tolerable = |tolerance: f32| tolerance.is_finite() && tolerance >= 0.0;
    if !tolerable(tolerances.relative) || !tolerable(tolerances.absolute) {
        return Err(GoldenLineError::Tolerance);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let count = lines.clone().count();
    if !(1..=MAX_CASES).contains(&count) {
        return Err(GoldenLineError::Count(count));
    }
    let cases = lines
        .map(|(at, line)| case(line, subject).map_err(|what| GoldenLineError::Line { line: at + 1, what }))
        .collect::<Result<Vec<_>, _>>()?;
    let fed = if cases.iter().any(GoldenCase::says_fed) { fed(subject.flow) } else { Vec::new() };
    Ok(Golden { relative: tolerances.relative, absolute: tolerances.absolute, fed, cases })
}

/// What is handed to the model, with the names of its values.
fn fed(flow: &Flow) -> Vec<GoldenFed> {
    flow.fed()
        .map(|(name, _, kind)| GoldenFed { name: name.clone(), features: kind.names().to_vec() })
        .collect()
}

fn case(line: &str, subject: Subject<'_>) -> Result<GoldenCase, String> {
    let mut line: Line = serde_json::from_str(line).map_err(|error| malformed(line, &error))?;
    let Subject { inputs, flow, outputs, folder } = subject;
    if let Some(missing) = inputs.iter().find(|spec| !line.inputs.contains_key(&spec.name)) {
        return Err(format!("input {} is missing", missing.name));
    }
    let inputs = raw(&mut line.inputs, inputs, folder)?;
    let (tensors, fed_texts) = tensors(&line.tensors, flow)?;
    let (outputs, text_outputs) = expected(&mut line.outputs, outputs)?;
    if outputs.is_empty() && text_outputs.is_empty() {
        return Err("no output is given, so that nothing would be checked".into());
    }
    Ok(GoldenCase { inputs, tensors, outputs, fed_texts, text_outputs })
}

/// What is wrong with a line that is no JSON, and what to write instead of what Python writes of numbers that are none.
fn malformed(line: &str, error: &serde_json::Error) -> String {
    // The column counts bytes, from 1, and may be that of the sign.
    let from = error.column().saturating_sub(2);
    let around = line.as_bytes().get(from..).unwrap_or_default();
    let is_there = |name: &&str| around.windows(name.len()).take(3).any(|found| found == name.as_bytes());
    let written = ["NaN", "Infinity"].into_iter().find(|name| error.is_syntax() && is_there(name));
    match written {
        Some("NaN") => format!("{error}: JSON has no NaN; write null for a missing value"),
        Some(name) => format!("{error}: JSON has no {name}, and devices are sent none"),
        None => error.to_string(),
    }
}

/// The given raw inputs in the order of `specs`, which makes equal cases equal bytes.
fn raw(
    given: &mut BTreeMap<FieldName, Vec<Value>>,
    specs: &[TensorSpec],
    folder: &Path,
) -> Result<Vec<GoldenInput>, String> {
    let mut inputs = Vec::with_capacity(given.len());
    for spec in specs {
        let list = given.remove(&spec.name).unwrap_or_default();
        count("input", spec, list.len())?;
        let mut values = RawValues::new(spec.datatype);
        for (at, value) in list.iter().enumerate() {
            let pushed = match (&mut values, named_file(value)) {
                (RawValues::Texts(texts), Some(name)) => {
                    read_file(folder, name).map(|bytes| texts.push(bytes))
                }
                (values, _) => values.push(spec.datatype, value),
            };
            pushed.map_err(|what| format!("input {}[{at}]: {what}", spec.name))?;
        }
        inputs.push(GoldenInput { name: spec.name.clone(), values });
    }
    match given.keys().next() {
        Some(unknown) => Err(format!("there is no input {unknown} in serin.toml")),
        None => Ok(inputs),
    }
}

fn named_file(value: &Value) -> Option<&str> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.get("file")?.as_str()
}

/// A file within the folder; no larger than all golden vectors may be.
pub(super) fn read_file(folder: &Path, name: &str) -> Result<Vec<u8>, String> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !Path::new(name).components().all(plain) {
        return Err(format!("{name:?} is no file within the model folder"));
    }
    let path = folder.join(name);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(failed)?;
    file.take(MAX_GOLDEN_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_GOLDEN_BYTES {
        return Err(format!("{}: more than {MAX_GOLDEN_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// What is to be made: numbers, and texts.
type Expected = (Vec<GoldenTensor>, Vec<GoldenTexts>);

/// The given tensors under their names in the pipeline.
fn tensors(given: &BTreeMap<String, Vec<Value>>, flow: &Flow) -> Result<Expected, String> {
    let (mut tensors, mut texts) = (Vec::new(), Vec::new());
    for (name, values) in given {
        let Some((fed, _, kind)) = flow.fed().find(|(_, model_input, _)| model_input == name) else {
            return Err(format!("no step feeds the model's input {name:?}"));
        };
        let expected = kind.elements().unwrap_or_default();
        if values.len() != expected {
            return Err(format!("tensor {name:?} has {} values, {expected} expected", values.len()));
        }
        let about = |(at, what)| format!("tensor {name:?}[{at}] {what}");
        if let Kind::Texts { .. } = kind {
            texts.push(GoldenTexts { name: fed.clone(), values: all(values, text).map_err(about)? });
        } else {
            tensors.push(GoldenTensor { name: fed.clone(), values: all(values, number).map_err(about)? });
        }
    }
    Ok((tensors, texts))
}

/// The given outputs in the order of `specs`.
fn expected(given: &mut BTreeMap<FieldName, Vec<Value>>, specs: &[TensorSpec]) -> Result<Expected, String> {
    let (mut tensors, mut texts) = (Vec::new(), Vec::new());
    for spec in specs {
        let Some(values) = given.remove(&spec.name) else {
            continue;
        };
        count("output", spec, values.len())?;
        let name = spec.name.clone();
        let about = |(at, what)| format!("output {}[{at}] {what}", spec.name);
        if spec.datatype == DataType::Bytes {
            texts.push(GoldenTexts { name, values: all(&values, text).map_err(about)? });
            continue;
        }
        let values = all(&values, number).map_err(about)?;
        if let Some(at) = values.iter().position(|value| value.is_infinite()) {
            return Err(format!("output {}[{at}] is too large for a 32-bit float", spec.name));
        }
        tensors.push(GoldenTensor { name, values });
    }
    match given.keys().next() {
        Some(unknown) => Err(format!("there is no output {unknown} in serin.toml")),
        None => Ok((tensors, texts)),
    }
}

/// All of `values` as `read` reads one. The error has the place of the one that it does not read.
fn all<T>(values: &[Value], read: fn(&Value) -> Result<T, String>) -> Result<Vec<T>, (usize, String)> {
    values.iter().enumerate().map(|(at, value)| read(value).map_err(|what| (at, what))).collect()
}

/// A number; NaN where it is missing.
fn number(value: &Value) -> Result<f32, String> {
    match value {
        Value::Null => Ok(f32::NAN),
        value => value.as_f64().map(|number| number as f32).ok_or_else(|| format!("is {value}, no number")),
    }
}

fn text(value: &Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("is {value}, no text; texts are compared as texts"))
}

fn count(kind: &str, spec: &TensorSpec, found: usize) -> Result<(), String> {
    let expected = spec.row_elements().unwrap_or_default();
    if found == expected {
        return Ok(());
    }
    Err(format!("{kind} {} has {found} values, {expected} expected", spec.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::pipeline::Pipeline;

    const TOLERANCES: Tolerances = Tolerances { relative: 1e-4, absolute: 1e-5 };

    fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec {
            name: name.parse().expect("name"),
            datatype,
            shape: shape.to_vec(),
            features: Vec::new(),
        }
    }

    fn read_in(folder: &Path, text: &str) -> Result<Golden, GoldenLineError> {
        let mut inputs = [spec("x", DataType::Fp32, &[-1, 2]), spec("a", DataType::Fp32, &[-1])];
        inputs[0].features = vec!["left".parse().expect("name"), "right".parse().expect("name")];
        let outputs = [spec("y", DataType::Fp32, &[-1]), spec("label", DataType::Bytes, &[-1])];
        let steps = br#"{"pre": [{"op": "concat", "inputs": ["x", "a"], "output": "row"},
            {"op": "feed", "input": "row", "model_input": "X"}], "post": []}"#;
        let flow = Pipeline::read(steps).expect("steps").flow(&inputs).expect("sound");
        parse(text, Subject { inputs: &inputs, flow: &flow, outputs: &outputs, folder }, TOLERANCES)
    }

    fn read(text: &str) -> Result<Golden, GoldenLineError> {
        read_in(Path::new("/nowhere"), text)
    }

    #[test]
    fn tensors_of_the_training_side_get_the_names_of_their_features() {
        let line = |tensors: &str| {
            format!(
                "{{\"inputs\":{{\"a\":[1],\"x\":[1,2]}},\"tensors\":{tensors},\"outputs\":{{\"y\":[3]}}}}"
            )
        };
        let golden = read(&line("{\"X\":[1,null,3]}")).expect("good");
        assert_eq!(golden.cases[0].tensors[0].name.as_str(), "row");
        let skew = golden.compare_fed(0, &golden.cases[0].tensors[0], &[1.0, 2.0, 3.0]).expect_err("differs");
        assert_eq!(skew.feature, "right");
        assert!(read(&line("{\"Y\":[1]}")).expect_err("unknown").to_string().contains("no step feeds"));
        assert!(read(&line("{\"X\":[1]}")).expect_err("short").to_string().contains("1 values, 3 expected"));
        assert!(read(&line("{}")).expect("good").fed.is_empty());
    }

    #[test]
    fn texts_are_expected_as_texts() {
        let line = "{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"label\":[\"yes\"]}}";
        let golden = read(line).expect("good");
        let case = &golden.cases[0];
        assert!(case.outputs.is_empty() && case.text_outputs[0].compare(0, &[b"yes"]).is_ok());
        assert_eq!(Golden::parse(&golden.encode().expect("small")), Ok(golden));

        let mut input = spec("city", DataType::Bytes, &[-1, 2]);
        input.features = vec!["from".parse().expect("name"), "to".parse().expect("name")];
        let steps = br#"{"pre": [{"op": "feed", "input": "city", "model_input": "C"}], "post": []}"#;
        let (inputs, outputs) = ([input], [spec("y", DataType::Fp32, &[-1])]);
        let flow = Pipeline::read(steps).expect("steps").flow(&inputs).expect("sound");
        let subject =
            Subject { inputs: &inputs, flow: &flow, outputs: &outputs, folder: Path::new("/nowhere") };
        let line = |tensors: &str| {
            format!(
                "{{\"inputs\":{{\"city\":[\"a\",\"b\"]}},\"tensors\":{{\"C\":{tensors}}},\"outputs\":{{\"y\":[1]}}}}"
            )
        };
        let golden = parse(&line("[\"A\",\"b\"]"), subject, TOLERANCES).expect("good");
        let skew =
            golden.compare_fed_texts(0, &golden.cases[0].fed_texts[0], &[b"a", b"b"]).expect_err("differs");
        assert_eq!(skew.feature, "from");
        let error = parse(&line("[1,2]"), subject, TOLERANCES).expect_err("numbers").to_string();
        assert!(error.contains("tensor \"C\"[0] is 1, no text"), "{error}");
    }

    #[test]
    fn files_are_read_from_within_the_folder_only() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("a.png"), [1, 2]).expect("written");
        let specs = [spec("image", DataType::Bytes, &[-1])];
        let ask = |name: &str| {
            let mut given =
                BTreeMap::from([(specs[0].name.clone(), vec![serde_json::json!({ "file": name })])]);
            raw(&mut given, &specs, folder.path())
        };
        assert_eq!(ask("a.png").expect("read")[0].values, RawValues::Texts(vec![vec![1, 2]]));
        for outside in ["../a.png", "/etc/passwd", "b.png"] {
            assert!(ask(outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn cases_come_in_declared_order_and_null_is_missing() {
        let golden =
            read("{\"inputs\":{\"a\":[1],\"x\":[null,2.5]},\"outputs\":{\"y\":[3]}}\n\n").expect("good");
        let case = &golden.cases[0];
        assert_eq!(case.inputs[0].name.as_str(), "x");
        let RawValues::Singles(values) = &case.inputs[0].values else { panic!("floats") };
        assert!(values[0].is_nan());
        assert_eq!((values[1], case.outputs[0].values[0]), (2.5, 3.0));
        assert!(Golden::parse(&golden.encode().expect("small")).is_ok());
    }

    #[test]
    fn every_fault_names_its_line_and_what_is_wrong() {
        let good = "{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"y\":[3]}}\n";
        for (bad, says) in [
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]}}", "outputs"),
            ("{\"inputs\":{\"a\":[1]},\"outputs\":{\"y\":[3]}}", "input x is missing"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1]},\"outputs\":{\"y\":[3]}}", "1 values, 2 expected"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2],\"b\":[]},\"outputs\":{\"y\":[3]}}", "no input b"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,1e39]},\"outputs\":{\"y\":[3]}}", "x[1]: 1e39 is too large"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"label\":[3]}}", "label[0] is 3, no text"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"y\":[\"3\"]}}", "y[0] is \"3\", no number"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"y\":[1e39]}}", "y[0] is too large"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{}}", "no output"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"y\":[3]},\"note\":1}", "note"),
            ("nonsense", "expected"),
            ("{\"inputs\":{\"a\":[NaN],\"x\":[1,2]},\"outputs\":{\"y\":[3]}}", "write null"),
            ("{\"inputs\":{\"a\":[1],\"x\":[-Infinity,2]},\"outputs\":{\"y\":[3]}}", "no Infinity"),
        ] {
            let error = read(&format!("{good}{bad}\n")).expect_err(bad).to_string();
            assert!(error.contains("golden.ndjson, line 2") && error.contains(says), "{error}");
        }
        assert!(matches!(read(""), Err(GoldenLineError::Count(0))));
    }

    #[test]
    fn a_tolerance_that_tolerates_everything_is_refused() {
        let flow = Flow { stages: vec![], places: 0 };
        let nothing = Subject { inputs: &[], flow: &flow, outputs: &[], folder: Path::new("/nowhere") };
        let lax = Tolerances { relative: f32::INFINITY, absolute: 0.0 };
        assert!(matches!(parse("{}", nothing, lax), Err(GoldenLineError::Tolerance)));
    }
}
