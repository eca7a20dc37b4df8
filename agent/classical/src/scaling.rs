//! `Scaler`, `Normalizer`, `Imputer` and `Binarizer`, `ai.onnx.ml` version 1: features changed in place.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{
    DatumType, DimLike as _, TValue, TVec, Tensor, TractResult, bail, ensure, tvec,
};

use super::attributes::{floats, ints};
use super::kernel::{Built, Form, Kernel, built, one_form, only, plain};

/// Builds `Scaler`: `(x − offset) · scale`, with one number for all features or one for each.
pub(crate) fn scaler(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let (offset, scale) = (floats(node, "offset")?.to_vec(), floats(node, "scale")?.to_vec());
    ensure!(!offset.is_empty() && !scale.is_empty(), "offset or scale is missing");
    built(node, Scaler { offset, scale })
}

/// Builds `Normalizer`: rows divided by their norm, `MAX`, `L1` or `L2`; a row of norm 0 stays as it is.
pub(crate) fn normalizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let norm = match node.get_attr_opt::<&str>("norm")?.unwrap_or("MAX") {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        name => bail!("there is no norm {name:?}"),
    };
    built(node, Normalizer { norm })
}

/// Builds `Imputer`: one value, of floats usually NaN, replaced by one number for all features or one for
/// each. Floats stay floats and integers stay integers.
pub(crate) fn imputer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let values = floats(node, "imputed_value_floats")?.to_vec();
    if !values.is_empty() {
        let replaced = node.get_attr_opt::<f32>("replaced_value_float")?.unwrap_or(0.0);
        return built(node, Imputer { values, replaced });
    }
    let values = ints(node, "imputed_value_int64s")?.to_vec();
    ensure!(!values.is_empty(), "neither imputed_value_floats nor imputed_value_int64s is given");
    let replaced = node.get_attr_opt::<i64>("replaced_value_int64")?.unwrap_or(0);
    built(node, IntImputer { values, replaced })
}

/// Builds `Binarizer`: 1 above `threshold`, else 0, of the input's type.
pub(crate) fn binarizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    built(node, Binarizer { threshold: node.get_attr_opt::<f32>("threshold")?.unwrap_or(0.0) })
}

/// The width of the last axis, where it is known already; texts are refused.
fn last_axis((datum_type, shape): &Form) -> TractResult<Option<usize>> {
    ensure!(*datum_type != DatumType::String, "it takes numbers, not texts");
    let Some(width) = shape.last() else { bail!("a single number has no features") };
    Ok(width.to_usize().ok())
}

/// One number for all features or one for each.
fn check_width(form: &Form, numbers: usize, what: &str) -> TractResult<()> {
    let width = last_axis(form)?;
    ensure!(
        numbers == 1 || width.is_none_or(|width| width == numbers),
        "{what} has {numbers} numbers for {width:?} features"
    );
    Ok(())
}

/// The only input's values of type `T`, changed row by row.
fn changed<T: tract_onnx::tract_hir::internal::Datum + Copy>(
    inputs: &[TValue],
    change: impl FnMut(&mut [T]),
) -> TractResult<TVec<Tensor>> {
    let mut tensor = only(inputs)?.cast_to::<T>()?.into_owned();
    let width = tensor.shape().last().copied().unwrap_or(1).max(1);
    tensor.try_as_plain_ram_mut()?.as_slice_mut::<T>()?.chunks_mut(width).for_each(change);
    Ok(tvec![tensor])
}

struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Kernel for Scaler {
    fn name(&self) -> &'static str {
        "Scaler"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let form = only(inputs)?;
        check_width(form, self.offset.len(), "offset")?;
        check_width(form, self.scale.len(), "scale")?;
        Ok(one_form(DatumType::F32, form.1.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        // A single number stands for all features.
        let numbers = || self.offset.iter().cycle().zip(self.scale.iter().cycle());
        if only(inputs)?.datum_type() == DatumType::F64 {
            // In double precision, as onnxruntime does it: what is left of two large numbers, such as times, is small.
            let scaled = changed::<f64>(inputs, |row| {
                for (value, (offset, scale)) in row.iter_mut().zip(numbers()) {
                    *value = (*value - f64::from(*offset)) * f64::from(*scale);
                }
            })?;
            return scaled.iter().map(|scaled| Ok(scaled.cast_to::<f32>()?.into_owned())).collect();
        }
        changed::<f32>(inputs, |row| {
            row.iter_mut()
                .zip(numbers())
                .for_each(|(value, (offset, scale))| *value = (*value - offset) * scale);
        })
    }
}

#[derive(Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

struct Normalizer {
    norm: Norm,
}

impl Kernel for Normalizer {
    fn name(&self) -> &'static str {
        "Normalizer"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let form = only(inputs)?;
        last_axis(form)?;
        Ok(one_form(DatumType::F32, form.1.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        changed::<f32>(inputs, |row| {
            let norm = match self.norm {
                // The largest value, not the largest magnitude: so the specification has it.
                Norm::Max => row.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                Norm::L1 => row.iter().map(|value| value.abs()).sum(),
                Norm::L2 => row.iter().map(|value| value * value).sum::<f32>().sqrt(),
            };
            if norm != 0.0 {
                row.iter_mut().for_each(|value| *value /= norm);
            }
        })
    }
}

struct Imputer {
    values: Vec<f32>,
    replaced: f32,
}

impl Kernel for Imputer {
    fn name(&self) -> &'static str {
        "Imputer"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let form = only(inputs)?;
        check_width(form, self.values.len(), "imputed_value_floats")?;
        let is_float = matches!(form.0, DatumType::F32 | DatumType::F64);
        ensure!(is_float, "floats are to be imputed, the input is {:?}", form.0);
        Ok(one_form(form.0, form.1.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        if only(inputs)?.datum_type() == DatumType::F64 {
            let replaced = f64::from(self.replaced);
            return changed::<f64>(inputs, |row| {
                for (value, imputed) in row.iter_mut().zip(self.values.iter().cycle()) {
                    if is_same(*value, replaced) {
                        *value = f64::from(*imputed);
                    }
                }
            });
        }
        changed::<f32>(inputs, |row| {
            for (value, imputed) in row.iter_mut().zip(self.values.iter().cycle()) {
                if is_same((*value).into(), self.replaced.into()) {
                    *value = *imputed;
                }
            }
        })
    }
}

/// Whether both are exactly the same number, or no number.
fn is_same(a: f64, b: f64) -> bool {
    a.partial_cmp(&b).map_or(a.is_nan() && b.is_nan(), std::cmp::Ordering::is_eq)
}

struct IntImputer {
    values: Vec<i64>,
    replaced: i64,
}

impl Kernel for IntImputer {
    fn name(&self) -> &'static str {
        "Imputer"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let form = only(inputs)?;
        check_width(form, self.values.len(), "imputed_value_int64s")?;
        let is_int = plain(form.0) == DatumType::I64;
        ensure!(is_int, "integers are to be imputed, the input is {:?}", form.0);
        Ok(one_form(DatumType::I64, form.1.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        changed::<i64>(inputs, |row| {
            for (value, imputed) in row.iter_mut().zip(self.values.iter().cycle()) {
                if *value == self.replaced {
                    *value = *imputed;
                }
            }
        })
    }
}

struct Binarizer {
    threshold: f32,
}

impl Kernel for Binarizer {
    fn name(&self) -> &'static str {
        "Binarizer"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let form = only(inputs)?;
        last_axis(form)?;
        Ok(one_form(plain(form.0), form.1.clone()))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let datum_type = plain(only(inputs)?.datum_type());
        let threshold = f64::from(self.threshold);
        let bits = changed::<f64>(inputs, |row| {
            row.iter_mut().for_each(|value| *value = f64::from(u8::from(*value > threshold)));
        })?;
        bits.iter().map(|bits| Ok(bits.cast_to_dt(datum_type)?.into_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_hir::internal::tensor2;

    fn eval(kernel: &impl Kernel, rows: &[[f32; 2]]) -> Vec<f32> {
        let output = kernel.eval(&[tensor2(rows).into()]).expect("fits").remove(0);
        output.try_as_plain_ram().expect("in memory").as_slice::<f32>().expect("floats").to_vec()
    }

    #[test]
    fn one_number_stands_for_all_features() {
        let scaler = Scaler { offset: vec![1.0], scale: vec![2.0, 3.0] };
        assert_eq!(eval(&scaler, &[[1.0, 2.0], [0.0, 0.0]]), [0.0, 3.0, -2.0, -3.0]);
    }

    #[test]
    fn a_row_of_zeros_is_not_divided() {
        for norm in [Norm::Max, Norm::L1, Norm::L2] {
            assert_eq!(eval(&Normalizer { norm }, &[[0.0, 0.0]]), [0.0, 0.0]);
        }
        assert_eq!(eval(&Normalizer { norm: Norm::L2 }, &[[3.0, -4.0]]), [0.6, -0.8]);
    }

    #[test]
    fn a_missing_value_is_found_although_it_equals_nothing() {
        let imputer = Imputer { values: vec![7.0, 8.0], replaced: f32::NAN };
        assert_eq!(eval(&imputer, &[[f32::NAN, 1.0], [2.0, f32::NAN]]), [7.0, 1.0, 2.0, 8.0]);
    }
}
