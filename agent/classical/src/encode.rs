//! Categories, and `OneHotEncoder`, `ai.onnx.ml` version 1: categories as columns.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{DatumType, TValue, TVec, Tensor, TractResult, bail, ensure, tvec};

use super::attributes::{ints, texts};
use super::kernel::{Built, Form, Kernel, built, one_form, only};

/// Most columns that one category is spread over.
const MAX_CATEGORIES: usize = 1 << 20;

/// What categories are told apart by: numbers by their bits, in which all NaNs and both zeros are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Int(i64),
    Float(u64),
    Text(String),
}

impl Key {
    /// Of a float.
    pub(crate) fn float(value: f64) -> Self {
        let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
        Self::Float(value.to_bits())
    }
}

/// The kind of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Float,
    Text,
}

/// The keys of all values of `input`; none of a number that is no key whatever the categories are.
pub(crate) fn keys(input: &TValue, kind: Kind) -> TractResult<Vec<Option<Key>>> {
    Ok(match kind {
        Kind::Int if input.datum_type().is_float() => {
            let values = input.cast_to::<f64>()?;
            let values = values.try_as_plain_ram()?.as_slice::<f64>()?;
            values.iter().map(|value| whole(*value).map(Key::Int)).collect()
        }
        Kind::Int => {
            let values = input.cast_to::<i64>()?;
            let values = values.try_as_plain_ram()?.as_slice::<i64>()?;
            values.iter().map(|value| Some(Key::Int(*value))).collect()
        }
        Kind::Float => {
            let values = input.cast_to::<f64>()?;
            let values = values.try_as_plain_ram()?.as_slice::<f64>()?;
            values.iter().map(|value| Some(Key::float(*value))).collect()
        }
        Kind::Text => {
            let values = input.try_as_plain_ram()?;
            values.as_slice::<String>()?.iter().map(|value| Some(Key::Text(value.clone()))).collect()
        }
    })
}

/// A float as the category of that number, its fraction cut off as onnxruntime does it. One that is missing or beyond
/// all integers is none: what C++ makes of it differs from processor to processor.
fn whole(value: f64) -> Option<i64> {
    // The bounds are powers of two, which floats hold exactly.
    const BEYOND: f64 = -(i64::MIN as f64);
    (-BEYOND..BEYOND).contains(&value).then_some(value as i64)
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
            let column = key.as_ref().and_then(|key| self.columns.get(key));
            match (column.and_then(|column| row.get_mut(*column)), key) {
                (Some(slot), _) => *slot = 1.0,
                (None, _) if self.unknown_is_zeros => {}
                (None, Some(key)) => bail!("category {key:?} is unknown"),
                (None, None) => bail!("a value is missing or too large for a category"),
            }
        }
        Ok(tvec![output])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_hir::internal::tensor1;

    fn one_hot(unknown_is_zeros: bool) -> OneHot {
        let columns = [0, i64::MAX, i64::MIN].into_iter().map(Key::Int).zip(0..).collect();
        OneHot { kind: Kind::Int, columns, width: 3, unknown_is_zeros }
    }

    #[test]
    fn a_float_that_is_missing_or_beyond_all_integers_is_no_category() {
        let beyond = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9_223_372_036_854_775_808.0, -1e19];
        for value in beyond {
            let output = one_hot(true).eval(&[tensor1(&[value]).into()]).expect("zeros").remove(0);
            assert_eq!(output, tensor1(&[0.0_f32; 3]).into_shape(&[1, 3]).expect("fits"), "{value}");
            assert!(one_hot(false).eval(&[tensor1(&[value]).into()]).is_err(), "{value}");
            let single = tensor1(&[value as f32]);
            assert!(one_hot(false).eval(&[single.into()]).is_err(), "{value}");
        }
    }

    #[test]
    fn fractions_are_cut_off() {
        for value in [0.75, -0.75, 0.0] {
            let output = one_hot(false).eval(&[tensor1(&[value]).into()]).expect("known").remove(0);
            let row = tensor1(&[1.0_f32, 0.0, 0.0]).into_shape(&[1, 3]).expect("fits");
            assert_eq!(output, row, "{value}");
        }
    }
}
