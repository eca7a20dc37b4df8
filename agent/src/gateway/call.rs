//! An inference request as JSON, with raw values behind it or not, parsed and checked against the manifest
//! of the release asked. Pure.

use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::{Manifest, TensorSpec};
use serin_protocol::tensor::{DataType, MAX_DIMENSIONS, TensorHeader};

use super::binary::{self, Raw};
use super::few::Few;
use super::parameters::Parameters;
use super::values::Values;
use crate::telemetry::Asked;

/// Longest request id that is repeated in the answer; apps use UUIDs.
const MAX_ID_BYTES: usize = 256;

/// The parameter that, being false, says that nobody will tell the truth about a request.
pub(crate) const REMEMBER: &str = "remember";

/// The parameter that asks for all outputs as raw values.
const BINARY_OUTPUT: &str = "binary_data_output";

/// What a worker is to be asked, and what the caller wants of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// Repeated in the answer.
    pub(super) id: Option<String>,
    /// The request's own parameters.
    pub(super) parameters: Parameters,
    /// What the body holds.
    pub(super) inputs: Vec<TensorHeader>,
    /// Raw values of all inputs, one after another.
    pub(super) body: Bytes,
    /// Outputs wanted, and how.
    pub(super) wanted: Wanted,
}

/// What a caller wants of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Outputs, in this order; all of them when none is named.
    pub(super) outputs: Vec<WantedOutput>,
    /// Whether outputs are wanted as raw values when none is named.
    pub(super) binary: bool,
}

/// One output that is asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedOutput {
    pub(super) name: FieldName,
    /// As raw values, not as JSON.
    pub(super) binary: bool,
}

// Parameters that nobody here knows are ignored, as the protocol has it.
#[derive(Deserialize)]
struct Request {
    id: Option<String>,
    inputs: Few<Input>,
    #[serde(default, deserialize_with = "or_default")]
    outputs: Few<Output>,
    #[serde(default, deserialize_with = "or_default")]
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Input {
    name: FieldName,
    datatype: DataType,
    shape: heapless::Vec<u32, MAX_DIMENSIONS>,
    data: Option<Values>,
    #[serde(default, deserialize_with = "or_default")]
    parameters: InputParameters,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    binary_data_size: Option<u64>,
    shared_memory_region: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Output {
    name: FieldName,
    #[serde(default, deserialize_with = "or_default")]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    shared_memory_region: Option<IgnoredAny>,
    classification: Option<IgnoredAny>,
}

/// What is there, where `null` is as good as nothing: some clients write all fields that there are.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Call {
    /// Whether the truth about it may be told later.
    pub(super) fn may_be_labelled(&self) -> bool {
        self.parameters.0.get(REMEMBER) != Some(&Value::Bool(false))
    }

    /// What of it is looked at by whoever counts.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { inputs: &self.inputs, body: &self.body, parameters: &self.parameters.0 }
    }

    /// Parses `body`, of which the first `json` bytes are JSON (all of them if `None`), as a request to the
    /// release of `manifest`. Raw values are not copied unless other inputs came as JSON.
    pub(super) fn parse(body: &Bytes, json: Option<u64>, manifest: &Manifest) -> Result<Self, String> {
        let (text, mut raw) = Raw::divide(body, json).map_err(|fault| fault.to_string())?;
        // A list would be taken for the fields in their order.
        if text.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
            return Err("malformed request: it is no JSON object".into());
        }
        let request: Request =
            serde_json::from_slice(&text).map_err(|error| format!("malformed request: {error}"))?;
        if request.id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return Err(format!("the id is longer than {MAX_ID_BYTES} bytes"));
        }
        let Few(given) = request.inputs;
        let all_raw = given.iter().all(|input| input.parameters.binary_data_size.is_some());
        let mut inputs = Vec::with_capacity(given.len());
        let mut bodies = Vec::with_capacity(given.len());
        for input in given {
            let (header, bytes) = input.tensor(&mut raw)?;
            inputs.push(header);
            bodies.push(bytes);
        }
        let whole = raw.finish().map_err(|fault| fault.to_string())?;
        let body = if all_raw { whole } else { join(bodies) };
        let binary = match request.parameters.0.get(BINARY_OUTPUT) {
            None => false,
            Some(Value::Bool(binary)) => *binary,
            Some(other) => {
                return Err(format!("malformed request: {BINARY_OUTPUT} is {other}, neither true nor false"));
            }
        };
        let outputs = request.outputs.0.into_iter().map(|output| output.named(binary));
        let wanted = Wanted { outputs: outputs.collect::<Result<_, _>>()?, binary };
        let call = Self { id: request.id, parameters: request.parameters, inputs, body, wanted };
        call.check(manifest)?;
        Ok(call)
    }

    /// Whether the release of `manifest` can be asked this: it names each input once, of the declared
    /// type and shape and all of equally many rows, and only outputs that exist, none of them twice.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), String> {
        for input in &self.inputs {
            let Some(spec) = manifest.inputs.iter().find(|spec| spec.name == input.name) else {
                return Err(format!("the model has no input {}", input.name));
            };
            check_input(input, spec)?;
        }
        for spec in &manifest.inputs {
            match self.inputs.iter().filter(|input| input.name == spec.name).count() {
                0 => return Err(format!("the input {} is missing", spec.name)),
                1 => {}
                _ => return Err(format!("the input {} is given twice", spec.name)),
            }
        }
        let rows = |input: &TensorHeader| input.shape.first().copied();
        if let [first, others @ ..] = self.inputs.as_slice()
            && let Some(other) = others.iter().find(|other| rows(other) != rows(first))
        {
            return Err(format!(
                "the inputs {} and {} have different numbers of rows",
                first.name, other.name
            ));
        }
        for (at, WantedOutput { name, .. }) in self.wanted.outputs.iter().enumerate() {
            if manifest.outputs.iter().all(|spec| spec.name != *name) {
                return Err(format!("the model has no output {name}"));
            }
            if self.wanted.outputs.iter().take(at).any(|before| before.name == *name) {
                return Err(format!("the output {name} is asked for twice"));
            }
        }
        Ok(())
    }
}

fn check_input(input: &TensorHeader, spec: &TensorSpec) -> Result<(), String> {
    if input.datatype != spec.datatype {
        let (wanted, given) = (spec.datatype.name(), input.datatype.name());
        return Err(format!("input {}: the model wants {wanted}, not {given}", input.name));
    }
    let fits = |(length, wanted): (&u32, &i64)| *wanted == -1 || i64::from(*length) == *wanted;
    if input.shape.len() != spec.shape.len() || !input.shape.iter().zip(&spec.shape).all(fits) {
        let (wanted, given) = (&spec.shape, input.shape.as_slice());
        return Err(format!("input {}: the model wants the shape {wanted:?}, not {given:?}", input.name));
    }
    if input.shape.first() == Some(&0) {
        return Err(format!("input {}: there is no row", input.name));
    }
    Ok(())
}

impl Input {
    /// Its header and values, taken from `raw` or from its JSON.
    fn tensor(self, raw: &mut Raw) -> Result<(TensorHeader, Bytes), String> {
        let Self { name, datatype, shape, data, parameters } = self;
        if parameters.shared_memory_region.is_some() {
            return Err(format!("input {name}: shared memory is not supported"));
        }
        match (data, parameters.binary_data_size) {
            (None, None) => Err(format!("input {name}: data is missing")),
            (Some(_), Some(_)) => Err(format!("input {name}: it has both data and binary_data_size")),
            (None, Some(bytes)) => {
                let header = TensorHeader { name, datatype, shape, bytes };
                let part = raw.take(header.name.as_str(), bytes).map_err(|fault| fault.to_string())?;
                binary::check(&header, &part).map_err(|fault| fault.to_string())?;
                Ok((header, part))
            }
            (Some(values), None) => written(name, datatype, shape, values),
        }
    }
}

/// An input whose values are JSON.
fn written(
    name: FieldName,
    datatype: DataType,
    shape: heapless::Vec<u32, MAX_DIMENSIONS>,
    values: Values,
) -> Result<(TensorHeader, Bytes), String> {
    let (count, lengths) = (values.count(), values.lengths.clone());
    let raw = values.bytes(datatype).map_err(|what| format!("input {name}: {what}"))?;
    let bytes = raw.len() as u64;
    let header = TensorHeader { name, datatype, shape, bytes };
    if header.elements() != Some(count) {
        let (name, shape) = (&header.name, header.shape.as_slice());
        return Err(format!("input {name}: the shape {shape:?} does not hold the {count} values of data"));
    }
    if lengths.len() > 1 && lengths != header.shape {
        let (name, shape, nested) = (&header.name, header.shape.as_slice(), lengths.as_slice());
        return Err(format!("input {name}: data is nested as {nested:?}, the shape is {shape:?}"));
    }
    Ok((header, raw.into()))
}

impl Output {
    /// `binary` is what the request says of all outputs; an output's own word counts more.
    fn named(self, binary: bool) -> Result<WantedOutput, String> {
        let Self { name, parameters } = self;
        if parameters.classification.is_some() {
            return Err(format!("output {name}: the classification extension is not supported"));
        }
        if parameters.shared_memory_region.is_some() {
            return Err(format!("output {name}: shared memory is not supported"));
        }
        Ok(WantedOutput { name, binary: parameters.binary_data.unwrap_or(binary) })
    }
}

/// One input, the usual case, is not copied.
fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined.freeze()
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
