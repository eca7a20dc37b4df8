//! The graph of a model once types and shapes are known: how it comes about, and what is asked of it and changed in it as a
//! whole.

use tract_onnx::tract_core::ops::gru_seq::GruSeq;
use tract_onnx::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::internal::{
    DimLike, InferenceFact, InferenceModel, InferenceModelExt, TDim, TVec, ToDim, TractErrorContext,
    TractResult, TypedModel,
};

use super::graph::Element;
use super::tensors::datum_type;
use serin_pipeline::Feed;

/// Whether an operator of this name tells values that are missing from others.
pub(crate) fn tells_missing(operator: &str) -> bool {
    const THESE: [&str; 5] = ["Imputer", "IsNan", "LabelEncoder", "OneHotEncoder", "CategoryMapper"];
    operator.starts_with("TreeEnsemble") || THESE.contains(&operator)
}

/// The model with known types and shapes for inputs of `rows` rows.
pub(crate) fn typed(
    mut parsed: InferenceModel,
    feeds: &[Feed],
    elements: &[Element],
    order: &[usize],
    rows: &TDim,
) -> TractResult<TypedModel> {
    for (input, place) in order.iter().enumerate() {
        let (feed, element) = feeds.get(*place).zip(elements.get(*place)).context("input without a feed")?;
        let lengths = feed.row_shape.iter().map(ToDim::to_dim);
        let shape: TVec<TDim> = std::iter::once(rows.clone()).chain(lengths).collect();
        parsed.set_input_fact(input, InferenceFact::dt_shape(datum_type(*element), shape))?;
    }
    let mut typed = parsed.into_typed()?;
    begin_anew(&mut typed);
    Ok(typed)
}

/// Makes recurrent operators begin every run with their initial state, as ONNX has it. Left alone, tract
/// carries the state on to the next run: one request's rows would show in the answer to another.
pub(crate) fn begin_anew(model: &mut TypedModel) {
    for node in model.nodes_mut() {
        if let Some(scan) = node.op_as_mut::<Scan>() {
            scan.reset_every_turn = true;
            begin_anew(&mut scan.body);
        } else if let Some(gru) = node.op_as_mut::<GruSeq>() {
            gru.reset_every_turn = true;
        } else if let Some(branches) = node.op_as_mut::<IfThenElse>() {
            begin_anew(&mut branches.then_body);
            begin_anew(&mut branches.else_body);
        }
    }
}

/// Bytes of the largest value that is computed, not stored.
pub(crate) fn largest_value(model: &TypedModel) -> usize {
    let facts = model.nodes().iter().flat_map(|node| &node.outputs).map(|output| &output.fact);
    let bytes = facts.filter(|fact| fact.konst.is_none()).map(|fact| {
        let elements = fact.shape.volume().to_usize().unwrap_or(usize::MAX);
        elements.saturating_mul(fact.datum_type.size_of())
    });
    bytes.max().unwrap_or(0)
}
