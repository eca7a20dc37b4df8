//! `ArrayFeatureExtractor` and `FeatureVectorizer`, `ai.onnx.ml` version 1: features picked and joined.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{
    Datum, DatumType, TDim, TValue, TVec, Tensor, TractResult, bail, ensure, tensor1, tvec,
};

use super::attributes::ints;
use super::kernel::{Built, Form, Kernel, built, one_form, plain};

/// Builds `ArrayFeatureExtractor`: of values `[…, F]` and `n` places those along the last axis, `[…, n]`;
/// `[1, n]` of values with one axis.
pub(crate) fn extractor(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    built(node, Extractor)
}

/// Builds `FeatureVectorizer`: inputs `[N, Fᵢ]` of numbers side by side as floats, each cut or filled with
/// zeros to its `inputdimensions`.
pub(crate) fn vectorizer(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let width = |width: &i64| usize::try_from(*width).ok().filter(|width| *width <= MAX_WIDTH);
    let given = ints(node, "inputdimensions")?;
    match given.iter().map(width).collect() {
        Some(widths) => built(node, Vectorizer { widths }),
        None => bail!("inputdimensions is {given:?}"),
    }
}

/// Most features of one input.
const MAX_WIDTH: usize = 1 << 24;

struct Extractor;

impl Extractor {
    fn shape<D: Clone + From<usize>>(values: &[D], count: D) -> TVec<D> {
        let mut shape: TVec<D> = values.iter().take(values.len().saturating_sub(1)).cloned().collect();
        if shape.is_empty() {
            shape.push(D::from(1));
        }
        shape.push(count);
        shape
    }

    fn pick<T: Datum + Clone>(values: &Tensor, places: &[i64]) -> TractResult<Tensor> {
        let width = values.shape().last().copied().unwrap_or(0);
        let flat = values.try_as_plain_ram()?.as_slice::<T>()?;
        let mut picked = Vec::with_capacity(flat.len() / width.max(1) * places.len());
        for row in flat.chunks_exact(width.max(1)) {
            for place in places {
                match usize::try_from(*place).ok().and_then(|place| row.get(place)) {
                    Some(value) => picked.push(value.clone()),
                    None => bail!("place {place} is picked, there are {width}"),
                }
            }
        }
        tensor1(&picked).into_shape(&Self::shape(values.shape(), places.len()))
    }
}

impl Kernel for Extractor {
    fn name(&self) -> &'static str {
        "ArrayFeatureExtractor"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let [(datum_type, values), (place_type, places)] = inputs else {
            bail!("it takes values and places, {} inputs are given", inputs.len());
        };
        ensure!(!values.is_empty(), "a single value has nothing to pick");
        ensure!(plain(*place_type).is_integer(), "places are numbers, not {place_type:?}");
        let count = places.iter().fold(TDim::Val(1), |product, length| product * length);
        Ok(one_form(plain(*datum_type), Self::shape(values, count)))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let [values, places] = inputs else { bail!("it takes values and places") };
        let places = places.cast_to::<i64>()?;
        let places = places.try_as_plain_ram()?.as_slice::<i64>()?;
        let values = values.cast_to_dt(plain(values.datum_type()))?;
        Ok(tvec![match values.datum_type() {
            DatumType::F32 => Self::pick::<f32>(&values, places)?,
            DatumType::F64 => Self::pick::<f64>(&values, places)?,
            DatumType::I64 => Self::pick::<i64>(&values, places)?,
            DatumType::I32 => Self::pick::<i32>(&values, places)?,
            DatumType::Bool => Self::pick::<bool>(&values, places)?,
            DatumType::String => Self::pick::<String>(&values, places)?,
            other => bail!("values of type {other:?} are not supported"),
        }])
    }
}

struct Vectorizer {
    /// Features of each input.
    widths: Vec<usize>,
}

impl Kernel for Vectorizer {
    fn name(&self) -> &'static str {
        "FeatureVectorizer"
    }

    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let fits = inputs.len() == self.widths.len() && !inputs.is_empty();
        ensure!(fits, "{} inputs, inputdimensions has {}", inputs.len(), self.widths.len());
        let mut rows = TDim::Val(1);
        for (datum_type, shape) in inputs {
            ensure!(*datum_type != DatumType::String, "it takes numbers, not texts");
            match shape.as_slice() {
                [_] => {}
                [count, _] => rows = count.clone(),
                shape => bail!("its inputs must have rows of features, a shape is {shape:?}"),
            }
        }
        Ok(one_form(DatumType::F32, tvec![rows, self.widths.iter().sum::<usize>().into()]))
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = inputs.iter().map(|input| if input.rank() == 2 { input.shape().first() } else { None });
        let rows = rows.flatten().copied().max().unwrap_or(1);
        let whole: usize = self.widths.iter().sum();
        let mut output = Tensor::zero::<f32>(&[rows, whole])?;
        let mut view = output.try_as_plain_ram_mut()?;
        let slots = view.as_slice_mut::<f32>()?;
        let mut start = 0;
        for (input, width) in inputs.iter().zip(&self.widths) {
            let values = input.cast_to::<f32>()?;
            let given = values.shape().last().copied().unwrap_or(0).max(1);
            let values = values.try_as_plain_ram()?.as_slice::<f32>()?.chunks(given);
            for (row, values) in slots.chunks_mut(whole.max(1)).zip(values) {
                let slots = row.iter_mut().skip(start).take(*width);
                slots.zip(values).for_each(|(slot, value)| *slot = *value);
            }
            start += width;
        }
        Ok(tvec![output])
    }
}
