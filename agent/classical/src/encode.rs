//! `OneHotEncoder`, version 1, and `LabelEncoder`, versions 1, 2 and 4 of `ai.onnx.ml`: categories as
//! columns, and as other categories.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{
    DatumType, TValue, TVec, Tensor, TractResult, bail, ensure, tensor1, tvec,
};

use super::attributes::{floats, ints, tensor, texts};
use super::kernel::{Built, Form, Kernel, built, one_form, only, plain};

/// Most columns that one category is spread over.
const MAX_CATEGORIES: usize = 1 << 20;

/// What categories are told apart by: numbers by their bits, in which all NaNs and both zeros are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Int(i64),
    Float(u64),
    Text(String),
}

impl Key {
    fn float(value: f64) -> Self {
        let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
        Self::Float(value.to_bits())
    }
}

/// The kind of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Text,
}

/// The keys of all values of `input`.
fn keys(input: &TValue, kind: Kind) -> TractResult<Vec<Key>> {
    Ok(match kind {
        Kind::Int => {
            let values = input.cast_to::<i64>()?;
            values.try_as_plain_ram()?.as_slice::<i64>()?.iter().map(|value| Key::Int(*value)).collect()
        }
        Kind::Float => {
            let values = input.cast_to::<f64>()?;
            values.try_as_plain_ram()?.as_slice::<f64>()?.iter().map(|value| Key::float(*value)).collect()
        }
        Kind::Text => {
            let values = input.try_as_plain_ram()?;
            values.as_slice::<String>()?.iter().map(|value| Key::Text(value.clone())).collect()
        }
    })
}

fn check_kind(kind: Kind, datum_type: DatumType) -> TractResult<()> {
    let is_text = datum_type == DatumType::String;
    ensure!(
        is_text == (kind == Kind::Text),
        "its categories are of kind {kind:?}, its input is {datum_type:?}"
    );
    Ok(())
}

/// Builds `OneHotEncoder`: numbers or texts of any shape to floats, with one more axis: 1 in the column of
/// the category. Unknown categories have no 1, or are an error where `zeros` is 0.
pub(crate) fn one_hot(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (numbers, names) = (ints(node, "cats_int64s")?, texts(node, "cats_strings")?);
    let (kind, categories): (_, Vec<Key>) = match (numbers.is_empty(), names.is_empty()) {
        (false, true) => (Kind::Int, numbers.iter().copied().map(Key::Int).collect()),
        (true, false) => (Kind::Text, names.into_iter().map(Key::Text).collect()),
        _ => bail!("one of cats_int64s and cats_strings must be given"),
    };
    let width = categories.len();
    ensure!(width <= MAX_CATEGORIES, "{width} categories, at most {MAX_CATEGORIES} are allowed");
    let unknown_is_zeros = node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0;
    let columns = categories.into_iter().zip(0..).collect();
    built(node, OneHot { kind, columns, width, unknown_is_zeros })
}

struct OneHot {
    kind: Kind,
    columns: HashMap<Key, usize>,
    width: usize,
    unknown_is_zeros: bool,
}

impl Kernel for OneHot {
    fn name(&self) -> &'static str {
        "OneHotEncoder"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        check_kind(self.kind, *datum_type)?;
        let mut shape = shape.clone();
        shape.push(self.width.into());
        Ok(one_form(DatumType::F32, shape))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let shape: TVec<usize> = input.shape().iter().copied().chain([self.width]).collect();
        let mut output = Tensor::zero::<f32>(&shape)?;
        let mut view = output.try_as_plain_ram_mut()?;
        let rows = view.as_slice_mut::<f32>()?.chunks_exact_mut(self.width);
        for (row, key) in rows.zip(keys(input, self.kind)?) {
            match self.columns.get(&key).and_then(|column| row.get_mut(*column)) {
                Some(slot) => *slot = 1.0,
                None if self.unknown_is_zeros => {}
                None => bail!("category {key:?} is unknown"),
            }
        }
        Ok(tvec![output])
    }
}

/// What categories become; the last value stands for unknown ones.
#[derive(Clone, Debug)]
enum Values {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Texts(Vec<String>),
}

impl Values {
    const fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Doubles(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    const fn datum_type(&self) -> DatumType {
        match self {
            Self::Ints(_) => DatumType::I64,
            Self::Floats(_) => DatumType::F32,
            Self::Doubles(_) => DatumType::F64,
            Self::Texts(_) => DatumType::String,
        }
    }
}

/// Builds `LabelEncoder`: numbers or texts of any shape, each replaced by its value.
pub(crate) fn labels(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let classes = texts(node, "classes_strings")?;
    if !classes.is_empty() {
        return built(node, LabelEncoder::numbering(node, classes)?);
    }
    let (kind, keys) = label_keys(context, node)?;
    let nan_is_a_key = version(context) >= 4;
    let mut values = label_values(context, node)?;
    ensure!(
        !keys.is_empty() && keys.len() == values.len(),
        "{} keys for {} values",
        keys.len(),
        values.len()
    );
    push_default(context, node, &mut values)?;
    // Before version 4 a NaN equals nothing, not even a key that is one.
    let counts = |(key, _): &(Key, usize)| nan_is_a_key || *key != Key::float(f64::NAN);
    let places = keys.into_iter().zip(0..).filter(counts).collect();
    built(node, LabelEncoder { kind, places, names: Vec::new(), values })
}

/// The version of `ai.onnx.ml` that the model was written for.
fn version(context: &ParsingContext<'_>) -> i64 {
    let imports = &context.model.opset_import;
    imports.iter().find(|import| import.domain == "ai.onnx.ml").map_or(1, |import| import.version)
}

fn label_keys(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Kind, Vec<Key>)> {
    let numbers = ints(node, "keys_int64s")?;
    let reals = floats(node, "keys_floats")?;
    let names = texts(node, "keys_strings")?;
    Ok(if !numbers.is_empty() {
        (Kind::Int, numbers.iter().copied().map(Key::Int).collect())
    } else if !reals.is_empty() {
        (Kind::Float, reals.iter().map(|key| Key::float(f64::from(*key))).collect())
    } else if !names.is_empty() {
        (Kind::Text, names.into_iter().map(Key::Text).collect())
    } else {
        match tensor_type(context, node, "keys_tensor")? {
            Some(DatumType::String) => {
                let names = tensor::<String>(context, node, "keys_tensor")?.unwrap_or_default();
                (Kind::Text, names.into_iter().map(Key::Text).collect())
            }
            Some(DatumType::F32 | DatumType::F64) => {
                let reals = tensor::<f64>(context, node, "keys_tensor")?.unwrap_or_default();
                (Kind::Float, reals.into_iter().map(Key::float).collect())
            }
            Some(_) => {
                let numbers = tensor::<i64>(context, node, "keys_tensor")?.unwrap_or_default();
                (Kind::Int, numbers.into_iter().map(Key::Int).collect())
            }
            None => bail!("there are no keys"),
        }
    })
}

fn label_values(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Values> {
    let numbers = ints(node, "values_int64s")?;
    let reals = floats(node, "values_floats")?;
    let names = texts(node, "values_strings")?;
    Ok(if !numbers.is_empty() {
        Values::Ints(numbers.to_vec())
    } else if !reals.is_empty() {
        Values::Floats(reals.to_vec())
    } else if !names.is_empty() {
        Values::Texts(names)
    } else {
        match tensor_type(context, node, "values_tensor")? {
            Some(DatumType::String) => {
                Values::Texts(tensor(context, node, "values_tensor")?.unwrap_or_default())
            }
            Some(DatumType::F32) => {
                Values::Floats(tensor(context, node, "values_tensor")?.unwrap_or_default())
            }
            Some(DatumType::F64) => {
                Values::Doubles(tensor(context, node, "values_tensor")?.unwrap_or_default())
            }
            Some(DatumType::I64) => Values::Ints(tensor(context, node, "values_tensor")?.unwrap_or_default()),
            Some(other) => bail!("values of type {other:?} are not supported"),
            None => bail!("there are no values"),
        }
    })
}

fn tensor_type(context: &ParsingContext<'_>, node: &NodeProto, name: &str) -> TractResult<Option<DatumType>> {
    let proto = node.get_attr_opt::<&tract_onnx::pb::TensorProto>(name)?;
    proto.map(|proto| Ok(context.load_tensor(proto)?.datum_type())).transpose()
}

/// Adds what unknown categories become, with the specification's defaults.
fn push_default(context: &ParsingContext<'_>, node: &NodeProto, values: &mut Values) -> TractResult<()> {
    const TENSOR: &str = "default_tensor";
    match values {
        Values::Ints(values) => {
            let given = tensor::<i64>(context, node, TENSOR)?.and_then(|given| given.first().copied());
            values.push(given.or(node.get_attr_opt::<i64>("default_int64")?).unwrap_or(-1));
        }
        Values::Floats(values) => {
            let given = tensor::<f32>(context, node, TENSOR)?.and_then(|given| given.first().copied());
            values.push(given.or(node.get_attr_opt::<f32>("default_float")?).unwrap_or(-0.0));
        }
        Values::Doubles(values) => {
            let given = tensor::<f64>(context, node, TENSOR)?.and_then(|given| given.first().copied());
            values.push(given.unwrap_or(-0.0));
        }
        Values::Texts(values) => {
            let given = tensor::<String>(context, node, TENSOR)?.and_then(|given| given.first().cloned());
            let given = given.or(node.get_attr_opt::<String>("default_string")?);
            values.push(given.unwrap_or_else(|| "_Unused".into()));
        }
    }
    Ok(())
}

struct LabelEncoder {
    kind: Kind,
    places: HashMap<Key, usize>,
    /// Of version 1, which also turns numbers into these.
    names: Vec<String>,
    values: Values,
}

impl LabelEncoder {
    /// Version 1: a text becomes its place in `classes`, and a place its text.
    fn numbering(node: &NodeProto, classes: Vec<String>) -> TractResult<Self> {
        let mut numbers: Vec<i64> = (0..).take(classes.len()).collect();
        numbers.push(node.get_attr_opt::<i64>("default_int64")?.unwrap_or(-1));
        let places = classes.iter().cloned().map(Key::Text).zip(0..).collect();
        let mut names = classes;
        names.push(node.get_attr_opt::<String>("default_string")?.unwrap_or_else(|| "_Unused".into()));
        Ok(Self { kind: Kind::Text, places, names, values: Values::Ints(numbers) })
    }

    fn turns_around(&self, datum_type: DatumType) -> bool {
        !self.names.is_empty() && plain(datum_type) == DatumType::I64
    }
}

/// The values at `places`, those of unknown keys at the end.
fn picked<T: Clone>(values: &[T], places: impl Iterator<Item = Option<usize>>) -> Vec<T> {
    places.filter_map(|place| place.and_then(|place| values.get(place)).or(values.last()).cloned()).collect()
}

impl Kernel for LabelEncoder {
    fn name(&self) -> &'static str {
        "LabelEncoder"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        if self.turns_around(*datum_type) {
            return Ok(one_form(DatumType::String, shape.clone()));
        }
        check_kind(self.kind, *datum_type)?;
        Ok(one_form(self.values.datum_type(), shape.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let output = if self.turns_around(input.datum_type()) {
            let places = input.cast_to::<i64>()?;
            let places = places.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
            tensor1(&picked(&self.names, places.into_iter().map(|place| usize::try_from(place).ok())))
        } else {
            let keys = keys(input, self.kind)?;
            let places = keys.iter().map(|key| self.places.get(key).copied());
            match &self.values {
                Values::Ints(values) => tensor1(&picked(values, places)),
                Values::Floats(values) => tensor1(&picked(values, places)),
                Values::Doubles(values) => tensor1(&picked(values, places)),
                Values::Texts(values) => tensor1(&picked(values, places)),
            }
        };
        Ok(tvec![output.into_shape(input.shape())?])
    }
}
