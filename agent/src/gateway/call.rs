//! An inference request as JSON, parsed and checked against the manifest of the release asked. Pure.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::{MAX_TENSORS, Manifest, TensorSpec};
use serin_protocol::tensor::{DataType, MAX_DIMENSIONS, TensorHeader};

use super::values::Values;

/// Longest request id that is repeated in the answer; apps use UUIDs.
const MAX_ID_BYTES: usize = 256;

/// What a worker is to be asked, and what the caller wants of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// Repeated in the answer.
    pub(super) id: Option<String>,
    /// What the body holds.
    pub(super) inputs: Vec<TensorHeader>,
    /// Raw values of all inputs, one after another.
    pub(super) body: Bytes,
    /// Outputs wanted, in this order; all of them when none is named.
    pub(super) outputs: Vec<FieldName>,
}

#[derive(Deserialize)]
struct Request {
    id: Option<String>,
    inputs: Few<Input>,
    #[serde(default)]
    outputs: Few<Output>,
}

#[derive(Deserialize)]
struct Input {
    name: FieldName,
    datatype: DataType,
    shape: heapless::Vec<u32, MAX_DIMENSIONS>,
    data: Option<Values>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    binary_data_size: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Output {
    name: FieldName,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: bool,
    classification: Option<IgnoredAny>,
}

impl Call {
    /// Parses `text` as a request to the release of `manifest`.
    pub(super) fn parse(text: &[u8], manifest: &Manifest) -> Result<Self, String> {
        let request: Request =
            serde_json::from_slice(text).map_err(|error| format!("malformed request: {error}"))?;
        if request.id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return Err(format!("the id is longer than {MAX_ID_BYTES} bytes"));
        }
        let mut inputs = Vec::with_capacity(request.inputs.0.len());
        let mut bodies = Vec::with_capacity(request.inputs.0.len());
        for input in request.inputs.0 {
            let (header, bytes) = input.tensor()?;
            inputs.push(header);
            bodies.push(bytes);
        }
        let outputs = request.outputs.0.into_iter().map(Output::named).collect::<Result<_, _>>()?;
        let call = Self { id: request.id, inputs, body: join(bodies), outputs };
        call.check(manifest)?;
        Ok(call)
    }

    /// Whether the release of `manifest` can be asked this: it names each input once, of the declared
    /// type and shape and all of equally many rows, and only outputs that exist.
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
        let unknown = |name: &&FieldName| manifest.outputs.iter().all(|spec| spec.name != **name);
        match self.outputs.iter().find(unknown) {
            Some(name) => Err(format!("the model has no output {name}")),
            None => Ok(()),
        }
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
    fn tensor(self) -> Result<(TensorHeader, Vec<u8>), String> {
        let Self { name, datatype, shape, data, parameters } = self;
        if parameters.binary_data_size.is_some() {
            return Err(format!("input {name}: binary tensors are not supported, only JSON"));
        }
        let Some(values) = data else {
            return Err(format!("input {name}: data is missing"));
        };
        if datatype != DataType::Fp32 {
            return Err(format!("input {name}: only FP32 inputs are supported, not {}", datatype.name()));
        }
        let (count, lengths) = (values.count(), values.lengths);
        let bytes = values.bytes.len() as u64;
        let header = TensorHeader { name, datatype, shape, bytes };
        if header.elements() != Some(count) {
            let (name, shape) = (&header.name, header.shape.as_slice());
            return Err(format!(
                "input {name}: the shape {shape:?} does not hold the {count} values of data"
            ));
        }
        if lengths.len() > 1 && lengths != header.shape {
            let (name, shape, nested) = (&header.name, header.shape.as_slice(), lengths.as_slice());
            return Err(format!("input {name}: data is nested as {nested:?}, the shape is {shape:?}"));
        }
        Ok((header, values.bytes))
    }
}

impl Output {
    fn named(self) -> Result<FieldName, String> {
        if self.parameters.binary_data {
            return Err(format!("output {}: binary tensors are not supported, only JSON", self.name));
        }
        if self.parameters.classification.is_some() {
            return Err(format!("output {}: the classification extension is not supported", self.name));
        }
        Ok(self.name)
    }
}

/// One input, the usual case, is not copied.
fn join(mut parts: Vec<Vec<u8>>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().map_or_else(Bytes::new, Bytes::from);
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Vec::len).sum());
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined.freeze()
}

/// A list of as many entries as a model may have inputs or outputs.
struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FewVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
            type Value = Few<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_TENSORS} tensors")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Few<T>, A::Error> {
                let mut few = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if few.len() == MAX_TENSORS {
                        return Err(A::Error::invalid_length(MAX_TENSORS + 1, &self));
                    }
                    few.push(element);
                }
                Ok(Few(few))
            }
        }
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
