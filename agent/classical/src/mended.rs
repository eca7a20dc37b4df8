//! Operators of ONNX itself that tract has and computes wrongly, or not of every type: what tract says of their types and
//! shapes stays, and how they are made of simpler operators is said anew. Those are tract's own, so that a model stays one
//! that can be written in its second form.

use std::fmt;
use std::sync::LazyLock;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{
    Datum, DatumType, Expansion, OutletId, SpecialOps as _, StaticName, TVec, Tensor, TractErrorContext as _,
    TractResult, TypedModel, TypedOp, Validation, expand, tensor0,
};

use super::kernel::Built;

/// How an operator is made of others.
pub(crate) trait Mend: Clone + fmt::Debug + Send + Sync + 'static {
    /// Puts the operators into `wires` and answers its outputs; `None` where tract's own way is right.
    fn wire(&self, wires: &mut Wires<'_>, inputs: &[OutletId]) -> TractResult<Option<TVec<OutletId>>>;
}

/// tract's operator, mended.
#[derive(Clone, Debug)]
struct Mended<M> {
    own: Box<dyn Expansion>,
    mend: M,
}

/// What the parser makes of `node`: tract's operator, with the outputs that `mend` makes where it does.
pub(crate) fn mended(context: &ParsingContext<'_>, node: &NodeProto, mend: impl Mend) -> Built {
    let (own, unresolved) = own(context, node)?;
    Ok((expand(Mended { own, mend }), unresolved))
}

/// tract's own operator for `node`, and what of its surroundings it reads.
pub(crate) fn own(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn Expansion>, Vec<String>)> {
    static OPERATORS: LazyLock<OnnxOpRegister> = LazyLock::new(|| tract_onnx::onnx().op_register);
    let build = OPERATORS.0.get(&node.op_type).context("tract does not have it")?;
    let (operator, unresolved) = build(context, node)?;
    let expansion = operator.as_op().downcast_ref::<Box<dyn Expansion>>();
    Ok((expansion.context("tract has it of another kind")?.clone(), unresolved))
}

impl<M: Mend> Expansion for Mended<M> {
    fn name(&self) -> StaticName {
        self.own.name()
    }

    fn validation(&self) -> Validation {
        self.own.validation()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.own.nboutputs()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        match self.mend.wire(&mut Wires { prefix, model: &mut *model }, inputs)? {
            Some(outputs) => Ok(outputs),
            None => self.own.wire(prefix, model, inputs),
        }
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.own.rules(solver, inputs, outputs)
    }
}

/// The graph that one node is written out in.
pub(crate) struct Wires<'a> {
    /// The node's name.
    pub(crate) prefix: &'a str,
    pub(crate) model: &'a mut TypedModel,
}

impl Wires<'_> {
    /// Puts in an operator with one output as the step `what`.
    pub(crate) fn put(
        &mut self,
        what: &str,
        operator: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> TractResult<OutletId> {
        let name = format!("{}.{what}", self.prefix);
        let outputs = self.model.wire_node(name, operator, inputs)?;
        outputs.first().copied().context("an operator without output")
    }

    /// A number of the type of `like`, for operators that want equally many axes.
    pub(crate) fn number(&mut self, value: f64, like: OutletId) -> TractResult<OutletId> {
        let number = tensor0(value).cast_to_dt(self.datum_type(like)?)?.into_owned();
        self.constant("number", number, like)
    }

    /// A single value of its own type, with as many axes as `like`.
    pub(crate) fn scalar<T: Datum>(&mut self, what: &str, value: T, like: OutletId) -> TractResult<OutletId> {
        self.constant(what, tensor0(value), like)
    }

    fn constant(&mut self, what: &str, value: Tensor, like: OutletId) -> TractResult<OutletId> {
        let rank = self.model.outlet_fact(like)?.rank();
        self.model.add_const(format!("{}.{what}", self.prefix), value.broadcast_into_rank(rank)?)
    }

    /// The type of a value.
    pub(crate) fn datum_type(&self, outlet: OutletId) -> TractResult<DatumType> {
        Ok(self.model.outlet_fact(outlet)?.datum_type)
    }
}

/// The only input, or an error that says what was there.
pub(crate) fn first(inputs: &[OutletId]) -> TractResult<OutletId> {
    inputs.first().copied().context("it has no input")
}
