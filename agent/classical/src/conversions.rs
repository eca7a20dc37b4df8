//! Types made of others: `Cast`, `IsNaN`, `IsInf`, and the type of `ConstantOfShape`. tract makes counts of lengths of all
//! whole numbers that are cast to 64 bits, and keeps 32 bits of them.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::cast as converted;
use tract_onnx::tract_core::ops::logic::comp_eq;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{
    DatumType, Expansion, OutletId, SpecialOps as _, StaticName, TVec, TractResult, TypedModel, bail, expand,
    tensor0, tvec,
};
use tract_onnx::tract_hir::ops::array::ConstantOfShape;

use super::kernel::Built;
use super::mended::{Wires, first, own};

/// Builds `Cast`.
pub(crate) fn cast(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let to = node.get_attr::<DatumType>("to")?;
    let (own, unresolved) = own(context, node)?;
    Ok((expand(Cast { to, own }), unresolved))
}

/// Builds `ConstantOfShape`: of single precision unless a value says otherwise, as the specification has it.
pub(crate) fn constant_of_shape(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    if node.attribute.iter().any(|attribute| attribute.name == "value") {
        let (own, unresolved) = own(context, node)?;
        return Ok((Box::new(own), unresolved));
    }
    Ok((expand(ConstantOfShape::new(tensor0(0.0_f32).into())), Vec::new()))
}

/// Builds `IsNaN` and `IsInf`.
pub(crate) fn is_no_number(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let detects = |name: &str| -> TractResult<bool> { Ok(node.get_attr_opt::<i64>(name)?.unwrap_or(1) != 0) };
    let what = match node.op_type.as_str() {
        "IsInf" => {
            What::Infinite { positive: detects("detect_positive")?, negative: detects("detect_negative")? }
        }
        _ => What::Missing,
    };
    let (own, unresolved) = own(context, node)?;
    Ok((expand(Is { what, own }), unresolved))
}

#[derive(Clone, Debug)]
struct Cast {
    to: DatumType,
    own: Box<dyn Expansion>,
}

impl Cast {
    /// What becomes of values of a type. What tract computes lengths in stays that, and is INT64 in ONNX.
    fn of(&self, from: DatumType) -> DatumType {
        if self.to == DatumType::I64 && from == DatumType::TDim { from } else { self.to }
    }
}

impl Expansion for Cast {
    fn name(&self) -> StaticName {
        "Cast".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let ([input], [output]) = (inputs, outputs) else {
            bail!("it takes one value and makes one");
        };
        solver.equals(&output.rank, &input.rank)?;
        solver.equals(&output.shape, &input.shape)?;
        solver.given(&input.datum_type, move |solver, from| solver.equals(&output.datum_type, self.of(from)))
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let input = first(inputs)?;
        let from = model.outlet_fact(input)?.datum_type;
        // tract knows how ONNX writes floats that are no numbers.
        if from == DatumType::String && self.to == DatumType::F32 {
            return self.own.wire(prefix, model, inputs);
        }
        // onnxruntime writes floats with eight digits, with an exponent where there are more before the point.
        let kind = match from {
            DatumType::Bool => Some("truth values"),
            float if float.is_float() => Some("floats"),
            _ => None,
        };
        if let Some(kind) = kind.filter(|_| self.to == DatumType::String) {
            bail!(
                "Cast of {kind} to texts is not supported: answer the numbers, and make texts of them where they are read"
            );
        }
        model.wire_node(prefix, converted(self.of(from)), inputs)
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Missing,
    Infinite { positive: bool, negative: bool },
}

#[derive(Clone, Debug)]
struct Is {
    what: What,
    own: Box<dyn Expansion>,
}

impl Expansion for Is {
    fn name(&self) -> StaticName {
        self.own.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let ([input], [output]) = (inputs, outputs) else {
            bail!("it takes one value and makes one");
        };
        solver.equals(&output.datum_type, DatumType::Bool)?;
        solver.equals(&output.shape, &input.shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let input = first(inputs)?;
        if model.outlet_fact(input)?.datum_type != DatumType::F64 {
            return self.own.wire(prefix, model, inputs);
        }
        let mut wires = Wires { prefix, model: &mut *model };
        let made = match self.what {
            // Of single precision the same are no numbers.
            What::Missing => {
                let singles = wires.put("singles", converted(DatumType::F32), &[input])?;
                return self.own.wire(prefix, model, &[singles]);
            }
            What::Infinite { positive, negative } => {
                let value = match (positive, negative) {
                    (true, true) => wires.put("abs", math::abs(), &[input])?,
                    _ => input,
                };
                let bound = match (positive, negative) {
                    (true, _) => f64::INFINITY,
                    (false, true) => f64::NEG_INFINITY,
                    // Nothing is asked for, and nothing equals this.
                    (false, false) => f64::NAN,
                };
                let bound = wires.number(bound, input)?;
                wires.put("equals", TypedBinOp(comp_eq(), None), &[value, bound])?
            }
        };
        Ok(tvec![made])
    }
}
