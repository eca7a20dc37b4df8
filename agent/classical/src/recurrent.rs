//! `LSTM`, `GRU` and `RNN` without initial states: zeros, of as many rows as there are, which tract writes down as a
//! constant and must know the number for. And those that run from the end, which tract runs from the beginning.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::Downsample;
use tract_onnx::tract_core::ops::array::MultiBroadcastTo;
use tract_onnx::tract_hir::internal::{
    Expansion, OutletId, TDim, TVec, TractErrorContext as _, TractResult, tvec,
};

use super::kernel::Built;
use super::mended::{Mend, Wires, first, mended, own};

/// Places of the inputs in the specification.
const WEIGHTS: usize = 1;
const RECURRENCE: usize = 2;
const STATE: usize = 5;
const CELL: usize = 6;
/// As many as an `LSTM` has.
const INPUTS: usize = 8;

/// Builds `LSTM`, `GRU` and `RNN`.
pub(crate) fn recurrent(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let is_given = |at: usize| node.input.get(at).is_some_and(|name| !name.is_empty());
    let needed: &[usize] = if node.op_type == "LSTM" { &[STATE, CELL] } else { &[STATE] };
    let missing: Vec<usize> = needed.iter().copied().filter(|at| !is_given(*at)).collect();
    let mut whole = node.clone();
    whole.input.resize(INPUTS.max(node.input.len()), String::new());
    for at in &missing {
        if let Some(name) = whole.input.get_mut(*at) {
            "zeros".clone_into(name);
        }
    }
    let given = (0..INPUTS).map(is_given).collect();
    let batch_first = node.get_attr_opt::<i64>("layout")?.unwrap_or(0) == 1;
    let (whole, _) = own(context, &whole)?;
    let from_end = node.get_attr_opt::<&str>("direction")? == Some("reverse");
    let answers_all = node.output.first().is_some_and(|name| !name.is_empty());
    mended(context, node, Recurrent { missing, given, batch_first, from_end, answers_all, whole })
}

#[derive(Clone, Debug)]
struct Recurrent {
    /// Which initial states are not given.
    missing: Vec<usize>,
    /// Which of all inputs are.
    given: Vec<bool>,
    batch_first: bool,
    /// Whether it runs from the last step to the first.
    from_end: bool,
    /// Whether its first output is that of all steps.
    answers_all: bool,
    /// tract's operator with all initial states.
    whole: Box<dyn Expansion>,
}

impl Mend for Recurrent {
    fn wire(&self, wires: &mut Wires<'_>, inputs: &[OutletId]) -> TractResult<Option<TVec<OutletId>>> {
        if self.missing.is_empty() && !self.from_end {
            return Ok(None);
        }
        let zeros = if self.missing.is_empty() { None } else { Some(self.zeros(wires, inputs)?) };
        let mut given = inputs.iter().copied();
        let mut all: TVec<OutletId> = tvec![];
        for (at, is_given) in self.given.iter().enumerate() {
            if *is_given {
                all.push(given.next().context("an input is missing")?);
            } else if self.missing.contains(&at) {
                all.extend(zeros);
            }
        }
        // Turned about before and after; the last state of what is turned is the last one of a run from the end.
        let turned = || Downsample { axis: usize::from(self.batch_first), stride: -1, modulo: 0 };
        if let Some(input) = all.first_mut().filter(|_| self.from_end) {
            *input = wires.put("turned", turned(), &[*input])?;
        }
        let mut outputs = self.whole.wire(wires.prefix, wires.model, &all)?;
        if let Some(steps) = outputs.first_mut().filter(|_| self.from_end && self.answers_all) {
            *steps = wires.put("turned_back", turned(), &[*steps])?;
        }
        Ok(Some(outputs))
    }
}

impl Recurrent {
    /// Zeros of the shape of an initial state.
    fn zeros(&self, wires: &mut Wires<'_>, inputs: &[OutletId]) -> TractResult<OutletId> {
        let length = |input: Option<&OutletId>, axis: usize| -> TractResult<TDim> {
            let fact = wires.model.outlet_fact(*input.context("an input is missing")?)?;
            fact.shape.get(axis).cloned().context("an input has too few axes")
        };
        let rows = length(inputs.first(), usize::from(!self.batch_first))?;
        let directions = length(inputs.get(WEIGHTS), 0)?;
        let width = length(inputs.get(RECURRENCE), 2)?;
        let shape: TVec<TDim> =
            if self.batch_first { tvec![rows, directions, width] } else { tvec![directions, rows, width] };
        // The steps have as many axes, too.
        let zero = wires.number(0.0, first(inputs)?)?;
        wires.put("zeros", MultiBroadcastTo { shape: shape.into() }, &[zero])
    }
}
