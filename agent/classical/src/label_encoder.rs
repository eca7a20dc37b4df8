//! `LabelEncoder`, versions 1, 2 and 4, and `CategoryMapper`, version 1 of `ai.onnx.ml`: categories as other categories.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{
    DatumType, TValue, TVec, Tensor, TractResult, bail, ensure, tensor1, tvec,
};

use super::attributes::{floats, ints, tensor, texts};
use super::encode::{Key, Kind, keys};
use super::kernel::{Built, Form, Kernel, built, one_form, only, plain};

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
    let (key_type, keys) = label_keys(context, node)?;
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
    let places = first_places(keys.into_iter().zip(0..).filter(counts));
    built(node, LabelEncoder { key_type, places, names: Vec::new(), values })
}

/// Of keys that are equal the first one counts, as in onnxruntime; of `LabelEncoder`'s version 1 and `CategoryMapper` it is
/// the last one.
fn first_places(keys: impl Iterator<Item = (Key, usize)>) -> HashMap<Key, usize> {
    let mut places = HashMap::new();
    for (key, place) in keys {
        places.entry(key).or_insert(place);
    }
    places
}

/// The version of `ai.onnx.ml` that the model was written for.
fn version(context: &ParsingContext<'_>) -> i64 {
    let imports = &context.model.opset_import;
    imports.iter().find(|import| import.domain == "ai.onnx.ml").map_or(1, |import| import.version)
}

/// The keys and their type.
fn label_keys(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(DatumType, Vec<Key>)> {
    let numbers = ints(node, "keys_int64s")?;
    let reals = floats(node, "keys_floats")?;
    let names = texts(node, "keys_strings")?;
    Ok(if !numbers.is_empty() {
        (DatumType::I64, numbers.iter().copied().map(Key::Int).collect())
    } else if !reals.is_empty() {
        (DatumType::F32, reals.iter().map(|key| Key::float(f64::from(*key))).collect())
    } else if !names.is_empty() {
        (DatumType::String, names.into_iter().map(Key::Text).collect())
    } else {
        let Some(key_type) = tensor_type(context, node, "keys_tensor")? else { bail!("there are no keys") };
        let keys = match key_type {
            DatumType::String => {
                let names = tensor::<String>(context, node, "keys_tensor")?.unwrap_or_default();
                names.into_iter().map(Key::Text).collect()
            }
            DatumType::F32 | DatumType::F64 => {
                let reals = tensor::<f64>(context, node, "keys_tensor")?.unwrap_or_default();
                reals.into_iter().map(Key::float).collect()
            }
            _ => {
                let numbers = tensor::<i64>(context, node, "keys_tensor")?.unwrap_or_default();
                numbers.into_iter().map(Key::Int).collect()
            }
        };
        (key_type, keys)
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

/// Builds `CategoryMapper`: texts replaced by the numbers beside them, and numbers by the texts.
pub(crate) fn mapper(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (names, numbers) = (texts(node, "cats_strings")?, ints(node, "cats_int64s")?);
    let fits = !names.is_empty() && names.len() == numbers.len();
    ensure!(fits, "{} cats_strings for {} cats_int64s", names.len(), numbers.len());
    let of_texts = names.iter().cloned().map(Key::Text).zip(0..).collect();
    let of_numbers = numbers.iter().copied().map(Key::Int).zip(0..).collect();
    let encoder = |key_type, places, mut values: Values| {
        push_default(context, node, &mut values)?;
        TractResult::Ok(LabelEncoder { key_type, places, names: Vec::new(), values })
    };
    built(
        node,
        CategoryMapper {
            of_texts: encoder(DatumType::String, of_texts, Values::Ints(numbers.to_vec()))?,
            of_numbers: encoder(DatumType::I64, of_numbers, Values::Texts(names))?,
        },
    )
}

/// Which way it maps its input's type says.
struct CategoryMapper {
    of_texts: LabelEncoder,
    of_numbers: LabelEncoder,
}

impl CategoryMapper {
    const fn of(&self, datum_type: DatumType) -> &LabelEncoder {
        if matches!(datum_type, DatumType::String) { &self.of_texts } else { &self.of_numbers }
    }
}

impl Kernel for CategoryMapper {
    fn name(&self) -> &'static str {
        "CategoryMapper"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        self.of(only(inputs)?.0).forms(inputs)
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        self.of(only(inputs)?.datum_type()).eval(inputs)
    }
}

struct LabelEncoder {
    key_type: DatumType,
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
        Ok(Self { key_type: DatumType::String, places, names, values: Values::Ints(numbers) })
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
        let (key_type, given) = (self.key_type, plain(*datum_type));
        ensure!(key_type == given, "its keys are {key_type:?}, its input is {given:?}");
        Ok(one_form(self.values.datum_type(), shape.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = only(inputs)?;
        let output = if self.turns_around(input.datum_type()) {
            let places = input.cast_to::<i64>()?;
            let places = places.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
            tensor1(&picked(&self.names, places.into_iter().map(|place| usize::try_from(place).ok())))
        } else {
            let kind = match self.key_type {
                DatumType::String => Kind::Text,
                DatumType::F32 | DatumType::F64 => Kind::Float,
                _ => Kind::Int,
            };
            let keys = keys(input, kind)?;
            let places = keys.iter().map(|key| self.places.get(key.as_ref()?).copied());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_of_the_type_of_their_keys() {
        let encoder = LabelEncoder {
            key_type: DatumType::I64,
            places: HashMap::from([(Key::Int(0), 0)]),
            names: Vec::new(),
            values: Values::Ints(vec![7, -1]),
        };
        assert!(encoder.forms(&[(DatumType::I64, tvec![1.into()])]).is_ok());
        assert!(encoder.forms(&[(DatumType::TDim, tvec![1.into()])]).is_ok());
        // A float that is missing would become key 0.
        assert!(encoder.forms(&[(DatumType::F32, tvec![1.into()])]).is_err());
    }
}
