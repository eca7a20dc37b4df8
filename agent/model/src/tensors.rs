//! Prepared values as the tensors that a graph takes, and its outputs as what can be answered.

use std::borrow::Cow;

use serin_protocol::frame::LoadFault;
use tract_onnx::tract_hir::internal::{
    DatumType, TValue, TVec, Tensor, TractResult, TypedModel, bail, tensor1,
};

use super::graph::{self, Element};
use serin_pipeline::{Column, Data, Fed, Feed, Numbers};

impl Element {
    /// What takes tensors of this type.
    pub(crate) fn of_datum(datum_type: DatumType) -> Option<Self> {
        [Self::Float, Self::Double, Self::Int64, Self::Int32, Self::Byte, Self::Bool, Self::Text]
            .into_iter()
            .find(|element| self::datum_type(*element) == datum_type)
    }
}

/// For each of the feeds, what the graph takes there.
pub(crate) fn elements(inputs: &[graph::GraphInput], feeds: &[Feed]) -> Result<Vec<Element>, LoadFault> {
    let element = |feed: &Feed| {
        let Some(input) = inputs.iter().find(|input| input.name == feed.model_input) else {
            return Err(LoadFault::Invalid(format!(
                "{} is fed to {:?}, which the model does not have",
                feed.name, feed.model_input
            )));
        };
        let fits = |element: &Element| feed.is_text == (*element == Element::Text);
        input.element.filter(fits).ok_or_else(|| {
            let (name, takes) = (&input.name, input.type_name);
            LoadFault::Invalid(match input.element {
                Some(_) if feed.is_text => {
                    format!("the model's input {name:?} takes {takes}, and {} holds texts", feed.name)
                }
                Some(_) => format!("the model's input {name:?} takes texts, and {} holds numbers", feed.name),
                None => format!(
                    "the model's input {name:?} takes {takes}; steps make FLOAT, DOUBLE, INT64, INT32, UINT8 and BOOL: export \
                     the model with an input of one of these, and a Cast to {takes} behind it"
                ),
            })
        })
    };
    feeds.iter().map(element).collect()
}

pub(crate) const fn datum_type(element: Element) -> DatumType {
    match element {
        Element::Float => DatumType::F32,
        Element::Double => DatumType::F64,
        Element::Int64 => DatumType::I64,
        Element::Int32 => DatumType::I32,
        Element::Byte => DatumType::U8,
        Element::Bool => DatumType::Bool,
        Element::Text => DatumType::String,
    }
}

/// Largest whole number that is exact in double precision.
const EXACT: f64 = serin_protocol::raw::MAX_WHOLE as f64;

/// `rows` rows of prepared values as the graph takes them.
pub(crate) fn tensor(feed: &Feed, element: Element, fed: &Fed, rows: usize) -> TractResult<TValue> {
    let shape: TVec<usize> = std::iter::once(rows).chain(feed.row_shape.iter().copied()).collect();
    match fed {
        Fed::Numbers(values) => numbers(feed, element, values, &shape),
        Fed::Texts(texts) if element == Element::Text => Ok(tensor1(texts).into_shape(&shape)?.into()),
        Fed::Texts(_) => bail!("{} holds texts, the model takes {element:?}", feed.name),
    }
}

fn numbers(feed: &Feed, element: Element, values: &Numbers, shape: &[usize]) -> TractResult<TValue> {
    let whole = |least: f64, most: f64| -> TractResult<Vec<f64>> {
        let values: Vec<f64> = (0..values.len()).map(|at| values.at(at)).collect();
        let broken = values.iter().position(|value| !(least..=most).contains(value) || value.fract() != 0.0);
        if let Some((at, value)) = broken.and_then(|at| Some((at, values.get(at)?))) {
            let (row, column) = (at / feed.row_elements.max(1), at % feed.row_elements.max(1));
            bail!(
                "{}[{column}] of row {row} is {value}, the model takes whole numbers from {least} to {most}",
                feed.name
            );
        }
        Ok(values)
    };
    let tensor = match (element, values) {
        (Element::Float, Numbers::Singles(values)) => Tensor::from_shape(shape, values)?,
        (Element::Double, Numbers::Doubles(values)) => Tensor::from_shape(shape, values)?,
        (Element::Byte, Numbers::Bytes(values)) => Tensor::from_shape(shape, values)?,
        (Element::Float, values) => {
            Tensor::from_shape(shape, &(0..values.len()).map(|at| values.at(at) as f32).collect::<Vec<_>>())?
        }
        (Element::Double, values) => {
            Tensor::from_shape(shape, &(0..values.len()).map(|at| values.at(at)).collect::<Vec<_>>())?
        }
        (Element::Int64, _) => {
            let values: Vec<i64> = whole(-EXACT, EXACT)?.into_iter().map(|value| value as i64).collect();
            Tensor::from_shape(shape, &values)?
        }
        (Element::Int32, _) => {
            let values = whole(f64::from(i32::MIN), f64::from(i32::MAX))?;
            Tensor::from_shape(shape, &values.into_iter().map(|value| value as i32).collect::<Vec<_>>())?
        }
        (Element::Byte, _) => {
            let values = whole(0.0, 255.0)?;
            Tensor::from_shape(shape, &values.into_iter().map(|value| value as u8).collect::<Vec<_>>())?
        }
        (Element::Bool, _) => {
            let values = whole(0.0, 1.0)?;
            Tensor::from_shape(shape, &values.into_iter().map(|value| value != 0.0).collect::<Vec<_>>())?
        }
        (Element::Text, _) => bail!("{} holds numbers, the model takes texts", feed.name),
    };
    Ok(tensor.into())
}

/// Which of `outputs` of `graph` lose digits where [`column`] makes single precision of them, a sentence each.
pub(crate) fn rounded(graph: &TypedModel, outputs: &[&str]) -> Vec<String> {
    let outlets = graph.outputs.iter().zip(outputs);
    let doubles = outlets.filter(|(outlet, _)| {
        graph.outlet_fact(**outlet).is_ok_and(|fact| fact.datum_type == DatumType::F64)
    });
    doubles
        .map(|(_, name)| {
            format!(
                "output {name:?} of the model is of double precision and is rounded to single precision before any \
                 step behind the model: digits beyond the seventh are lost"
            )
        })
        .collect()
}

/// An output as one of the types that can be answered.
pub(crate) fn column(value: &Tensor) -> TractResult<Column<'static>> {
    let data = match value.datum_type() {
        DatumType::F32 | DatumType::F64 | DatumType::F16 => {
            Data::Floats(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        }
        DatumType::String => {
            let texts = value.try_as_plain_ram()?.as_slice::<String>()?;
            Data::Texts(texts.iter().map(|text| Cow::Owned(text.clone())).collect())
        }
        DatumType::Blob => bail!("outputs of type {:?} are not supported", value.datum_type()),
        _ => Data::Integers(value.cast_to::<i64>()?.try_as_plain_ram()?.as_slice::<i64>()?.to_vec()),
    };
    Ok(Column { shape: value.shape().to_vec(), data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_hir::internal::{DatumTypeExt as _, tvec};

    #[test]
    fn only_outputs_of_double_precision_are_rounded() {
        let mut graph = TypedModel::default();
        for (name, datum_type) in [("a", DatumType::F32), ("b", DatumType::F64), ("c", DatumType::Bool)] {
            let outlet = graph.add_source(name, datum_type.fact(tvec![1])).expect("added");
            graph.outputs.push(outlet);
        }
        let said = rounded(&graph, &["probabilities", "price", "late"]);
        assert!(said.len() == 1 && said[0].contains("\"price\""), "{said:?}");
    }
}
