//! Golden vectors as a data scientist writes them (`golden.ndjson`, one case a line), read into the form
//! that devices check. Every fault is named by its line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serin_protocol::golden::{Golden, GoldenCase, GoldenTensor, MAX_CASES};
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::TensorSpec;
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
    inputs: BTreeMap<FieldName, Vec<Option<f32>>>,
    outputs: BTreeMap<FieldName, Vec<Option<f32>>>,
}

/// Reads the cases in `text`; `null` is a missing value. Every input must be given, and at least one of
/// the outputs that are numbers.
pub fn parse(
    text: &str,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    tolerances: Tolerances,
) -> Result<Golden, GoldenLineError> {
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
        .map(|(at, line)| {
            case(line, inputs, outputs).map_err(|what| GoldenLineError::Line { line: at + 1, what })
        })
        .collect::<Result<_, _>>()?;
    Ok(Golden { relative: tolerances.relative, absolute: tolerances.absolute, cases })
}

fn case(line: &str, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Result<GoldenCase, String> {
    let mut line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if let Some(missing) = inputs.iter().find(|spec| !line.inputs.contains_key(&spec.name)) {
        return Err(format!("input {} is missing", missing.name));
    }
    let inputs = tensors("input", &mut line.inputs, inputs)?;
    let outputs = tensors("output", &mut line.outputs, outputs)?;
    if outputs.is_empty() {
        return Err("no output is given, so that nothing would be checked".into());
    }
    Ok(GoldenCase { inputs, outputs })
}

/// The given tensors in the order of `specs`, which makes equal cases equal bytes.
fn tensors(
    kind: &str,
    given: &mut BTreeMap<FieldName, Vec<Option<f32>>>,
    specs: &[TensorSpec],
) -> Result<Vec<GoldenTensor>, String> {
    let mut tensors = Vec::with_capacity(given.len());
    for spec in specs {
        let Some(values) = given.remove(&spec.name) else {
            continue;
        };
        if spec.datatype == DataType::Bytes {
            return Err(format!("{kind} {} is a text; only numbers are compared", spec.name));
        }
        let expected = spec.row_elements().unwrap_or_default();
        if values.len() != expected {
            return Err(format!("{kind} {} has {} values, {expected} expected", spec.name, values.len()));
        }
        if let Some(at) = values.iter().position(|value| value.is_some_and(|value| !value.is_finite())) {
            return Err(format!("{kind} {}[{at}] is too large for a 32-bit float", spec.name));
        }
        let values = values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect();
        tensors.push(GoldenTensor { name: spec.name.clone(), values });
    }
    match given.keys().next() {
        Some(unknown) => Err(format!("there is no {kind} {unknown} in serin.toml")),
        None => Ok(tensors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCES: Tolerances = Tolerances { relative: 1e-4, absolute: 1e-5 };

    fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec {
            name: name.parse().expect("name"),
            datatype,
            shape: shape.to_vec(),
            features: Vec::new(),
        }
    }

    fn read(text: &str) -> Result<Golden, GoldenLineError> {
        let inputs = [spec("x", DataType::Fp32, &[-1, 2]), spec("a", DataType::Fp32, &[-1])];
        let outputs = [spec("y", DataType::Fp32, &[-1]), spec("label", DataType::Bytes, &[-1])];
        parse(text, &inputs, &outputs, TOLERANCES)
    }

    #[test]
    fn cases_come_in_declared_order_and_null_is_missing() {
        let golden =
            read("{\"inputs\":{\"a\":[1],\"x\":[null,2.5]},\"outputs\":{\"y\":[3]}}\n\n").expect("good");
        let case = &golden.cases[0];
        assert_eq!(case.inputs[0].name.as_str(), "x");
        assert!(case.inputs[0].values[0].is_nan());
        assert_eq!((case.inputs[0].values[1], case.outputs[0].values[0]), (2.5, 3.0));
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
            ("{\"inputs\":{\"a\":[1],\"x\":[1,1e39]},\"outputs\":{\"y\":[3]}}", "x[1] is too large"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"label\":[3]}}", "only numbers"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{}}", "no output"),
            ("{\"inputs\":{\"a\":[1],\"x\":[1,2]},\"outputs\":{\"y\":[3]},\"note\":1}", "note"),
            ("nonsense", "expected"),
        ] {
            let error = read(&format!("{good}{bad}\n")).expect_err(bad).to_string();
            assert!(error.contains("golden.ndjson, line 2") && error.contains(says), "{error}");
        }
        assert!(matches!(read(""), Err(GoldenLineError::Count(0))));
    }

    #[test]
    fn a_tolerance_that_tolerates_everything_is_refused() {
        let lax = Tolerances { relative: f32::INFINITY, absolute: 0.0 };
        assert!(matches!(parse("{}", &[], &[], lax), Err(GoldenLineError::Tolerance)));
    }
}
