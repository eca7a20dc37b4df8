//! What an operator is in this module: types and shapes from types and shapes, values from values. One
//! adapter makes tract's inference, typed and running operator of it.

use std::borrow::Cow;
use std::fmt;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::tract_num_traits::Zero;
use tract_onnx::tract_hir::internal::{
    Arc, Datum, DatumType, DatumTypeExt as _, DimLike as _, EvalContext, EvalOp, Expansion, Op, OutletId,
    SpecialOps as _, StaticName, TDim, TValue, TVec, Tensor, TractResult, TypedFact, TypedModel, TypedOp,
    as_op, bail, ensure, expand, op_as_typed_op, op_out_of_plan, tvec,
};

/// What the ONNX parser wants of a function that builds an operator.
pub(crate) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Type and shape of a value.
pub(crate) type Form = (DatumType, TVec<TDim>);

/// One operator with its attributes checked.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Its name in the specification.
    fn name(&self) -> &'static str;

    /// The outputs' types and shapes for inputs of these. Everything that can be wrong with an input's
    /// type or shape is an error here, where the model is loaded.
    fn forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>>;

    /// The kernel that stands for this one where inputs are of these types and shapes, if another one does.
    fn settled(&self, _: &[Form]) -> TractResult<Option<Arc<dyn Kernel>>> {
        Ok(None)
    }

    /// The outputs.
    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>>;
}

/// A kernel as an operator of tract's.
#[derive(Clone)]
struct Operator {
    kernel: Arc<dyn Kernel>,
    /// Which outputs the node names; the others are not given to tract, which does not know of them.
    named: TVec<usize>,
}

/// The kernel as what the parser makes of `node`.
#[expect(clippy::unnecessary_wraps, reason = "it ends the functions that the parser calls")]
pub(crate) fn built(node: &NodeProto, kernel: impl Kernel) -> Built {
    let named = (0..).zip(&node.output).filter(|(_, name)| !name.is_empty()).map(|(at, _)| at).collect();
    Ok((expand(Operator { kernel: Arc::new(kernel), named }), Vec::new()))
}

impl Operator {
    fn named_forms(&self, inputs: &[Form]) -> TractResult<TVec<Form>> {
        let forms = self.kernel.forms(inputs)?;
        self.named
            .iter()
            .map(|at| match forms.get(*at) {
                Some(form) => Ok(form.clone()),
                None => bail!("{} has {} outputs, not {}", self.kernel.name(), forms.len(), at + 1),
            })
            .collect()
    }
}

impl fmt::Debug for Operator {
    // tract puts operators into its error texts, where a forest has no place.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kernel.name())
    }
}

impl PartialEq for Operator {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.named == other.named
    }
}

impl Eq for Operator {}

impl Op for Operator {
    fn name(&self) -> StaticName {
        self.kernel.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Operator {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let outputs = self.kernel.eval(&inputs)?;
        let is_named = |at: &usize| self.named.contains(at);
        Ok((0..).zip(outputs).filter(|(at, _)| is_named(at)).map(|(_, output)| output.into()).collect())
    }
}

impl TypedOp for Operator {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let inputs: TVec<Form> = inputs.iter().copied().map(form).collect();
        let forms = self.named_forms(&inputs)?;
        Ok(forms.into_iter().map(|(datum_type, shape)| datum_type.fact(shape)).collect())
    }

    as_op!();
}

impl Expansion for Operator {
    fn name(&self) -> StaticName {
        self.kernel.name().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.named.len())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let facts = inputs.iter().map(|input| model.outlet_fact(*input));
        let forms = facts.map(|fact| fact.map(form)).collect::<TractResult<TVec<Form>>>()?;
        let kernel = self.kernel.settled(&forms)?.unwrap_or_else(|| Arc::clone(&self.kernel));
        model.wire_node(prefix, Self { kernel, named: self.named.clone() }, inputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        solver.given_all(inputs.iter().map(|input| &input.shape), move |solver, shapes| {
            solver.given_all(inputs.iter().map(|input| &input.datum_type), move |solver, types| {
                let inputs: TVec<Form> = types.into_iter().zip(shapes.iter().cloned()).collect();
                for (output, (datum_type, shape)) in outputs.iter().zip(self.named_forms(&inputs)?) {
                    solver.equals(&output.datum_type, datum_type)?;
                    solver.equals(&output.shape, shape)?;
                }
                Ok(())
            })
        })
    }
}

fn form(fact: &TypedFact) -> Form {
    (fact.datum_type, fact.shape.to_tvec())
}

/// The only input.
pub(crate) fn only<T>(inputs: &[T]) -> TractResult<&T> {
    match inputs {
        [input] => Ok(input),
        _ => bail!("it takes one input, {} are given", inputs.len()),
    }
}

/// Number of rows and their width, of a shape with one axis, which is one row, or two. The width must be
/// `width` where that is given, or at least `least`.
pub(crate) fn rows_and_width(
    (datum_type, shape): &Form,
    width: Option<usize>,
    least: usize,
) -> TractResult<(TDim, TDim)> {
    ensure!(*datum_type != DatumType::String, "it takes numbers, not texts");
    let (rows, columns) = match shape.as_slice() {
        [columns] => (TDim::Val(1), columns.clone()),
        [rows, columns] => (rows.clone(), columns.clone()),
        shape => bail!("its input must have rows of features, the shape is {shape:?}"),
    };
    if let Ok(columns) = columns.to_usize() {
        if let Some(width) = width {
            ensure!(width == columns, "it takes {width} features, {columns} are given");
        }
        ensure!(columns >= least, "it reads feature {}, {columns} are given", least.saturating_sub(1));
    }
    Ok((rows, columns))
}

/// A tensor of features as rows of one type, converted where it has another.
pub(crate) struct Rows<'a> {
    tensor: Cow<'a, Tensor>,
    /// Number of rows.
    pub(crate) count: usize,
    /// Values in a row, at least 1.
    pub(crate) width: usize,
}

impl<'a> Rows<'a> {
    /// The rows of the only input.
    pub(crate) fn of<T: Datum>(inputs: &'a [TValue]) -> TractResult<Self> {
        let tensor = only(inputs)?.cast_to::<T>()?;
        let (count, width) = match *tensor.shape() {
            [width] => (1, width),
            [count, width] => (count, width),
            ref shape => bail!("rows of features are needed, not {shape:?}"),
        };
        ensure!(width > 0, "the rows are empty");
        Ok(Self { tensor, count, width })
    }

    /// One row after the other.
    pub(crate) fn each<T: Datum>(&self) -> TractResult<std::slice::ChunksExact<'_, T>> {
        Ok(self.tensor.try_as_plain_ram()?.as_slice::<T>()?.chunks_exact(self.width))
    }
}

/// A tensor made row by row: `write` is given each input row and the output row to fill, of `width`.
pub(crate) fn by_row<T: Datum + Copy, O: Datum + Copy + Zero>(
    rows: &Rows<'_>,
    width: usize,
    mut write: impl FnMut(&[T], &mut [O]),
) -> TractResult<Tensor> {
    let mut output = Tensor::zero::<O>(&[rows.count, width])?;
    let mut view = output.try_as_plain_ram_mut()?;
    let slots = view.as_slice_mut::<O>()?.chunks_exact_mut(width.max(1));
    rows.each::<T>()?.zip(slots).for_each(|(row, slot)| write(row, slot));
    Ok(output)
}

/// tract counts in a type of its own, which is `INT64` in ONNX.
pub(crate) fn plain(datum_type: DatumType) -> DatumType {
    if datum_type == DatumType::TDim { DatumType::I64 } else { datum_type }
}

/// One output of that form.
pub(crate) fn one_form(datum_type: DatumType, shape: TVec<TDim>) -> TVec<Form> {
    tvec!((datum_type, shape))
}
