//! Functions of single values that tract gets wrong at large numbers, or has of single precision only. What it does have
//! of single precision stays as it is.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::logic::{Iff, comp_lt};
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::internal::{DatumType, OutletId, TVec, TractResult, bail, ensure, tvec};

use super::kernel::Built;
use super::mended::{Mend, Wires, first, mended};
use super::reductions::{finite, whole_square};

/// One of the functions, with its parameters.
#[derive(Clone, Copy, Debug)]
enum Function {
    Sigmoid,
    LeakyRelu {
        alpha: f64,
    },
    HardSwish,
    Swish,
    Round,
    Softplus,
    Celu {
        alpha: f64,
    },
    /// Over one axis, or, of early versions, over all from that one on.
    LogSoftmax {
        axis: i64,
        and_behind: bool,
    },
    /// A product, of a value with itself where it is one of whole numbers.
    Mul,
}

/// Builds the function that `node` is named after.
pub(crate) fn function(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let alpha =
        |usual: f32| -> TractResult<f64> { Ok(node.get_attr_opt::<f32>("alpha")?.unwrap_or(usual).into()) };
    let is_early = context.onnx_operator_set_version < 13;
    let function = match node.op_type.as_str() {
        "LeakyRelu" => Function::LeakyRelu { alpha: alpha(0.01)? },
        "HardSwish" => Function::HardSwish,
        "Swish" => Function::Swish,
        "Round" => Function::Round,
        "Softplus" => Function::Softplus,
        "Celu" => Function::Celu { alpha: alpha(1.0)? },
        "LogSoftmax" => Function::LogSoftmax {
            axis: node.get_attr_opt("axis")?.unwrap_or(if is_early { 1 } else { -1 }),
            and_behind: is_early,
        },
        "Mul" => Function::Mul,
        _ => Function::Sigmoid,
    };
    mended(context, node, function)
}

impl Mend for Function {
    fn wire(&self, wires: &mut Wires<'_>, inputs: &[OutletId]) -> TractResult<Option<TVec<OutletId>>> {
        let input = first(inputs)?;
        let datum_type = wires.datum_type(input)?;
        let is_double = datum_type == DatumType::F64;
        let made = match *self {
            Self::Sigmoid if is_double => sigmoid(wires, input)?,
            Self::Swish if is_double => {
                let share = sigmoid(wires, input)?;
                wires.put("swish", math::mul(), &[input, share])?
            }
            Self::LeakyRelu { alpha } if is_double => {
                let alpha = wires.number(alpha, input)?;
                let small = wires.put("small", math::mul(), &[input, alpha])?;
                let zero = wires.number(0.0, input)?;
                choose_below(wires, input, zero, small, input)?
            }
            Self::HardSwish if is_double => {
                let (sixth, half) = (wires.number(1.0 / 6.0, input)?, wires.number(0.5, input)?);
                let (zero, one) = (wires.number(0.0, input)?, wires.number(1.0, input)?);
                let scaled = wires.put("scaled", math::mul(), &[input, sixth])?;
                let moved = wires.put("moved", math::add(), &[scaled, half])?;
                let low = wires.put("low", math::max(), &[moved, zero])?;
                let share = wires.put("share", math::min(), &[low, one])?;
                wires.put("swish", math::mul(), &[input, share])?
            }
            Self::Round if is_double => round(wires, input)?,
            Self::Softplus if datum_type.is_float() => softplus(wires, input)?,
            Self::Celu { alpha } if datum_type.is_float() => celu(wires, input, alpha)?,
            Self::LogSoftmax { axis, and_behind } if datum_type.is_float() => {
                log_softmax(wires, input, axis, and_behind)?
            }
            Self::Mul if inputs.get(1) == Some(&input) && datum_type.is_integer() => {
                whole_square(wires, input)?
            }
            _ => return Ok(None),
        };
        Ok(Some(tvec![made]))
    }
}

/// 1 / (1 + e⁻ˣ): of a large negative number 1 / ∞, which is 0.
fn sigmoid(wires: &mut Wires<'_>, input: OutletId) -> TractResult<OutletId> {
    let one = wires.number(1.0, input)?;
    let negative = wires.put("neg", math::neg(), &[input])?;
    let exponential = wires.put("exp", math::exp(), &[negative])?;
    let sum = wires.put("sum", math::add(), &[exponential, one])?;
    wires.put("sigmoid", math::recip(), &[sum])
}

/// `then` where `input` is below `bound`, `otherwise` elsewhere.
fn choose_below(
    wires: &mut Wires<'_>,
    input: OutletId,
    bound: OutletId,
    then: OutletId,
    otherwise: OutletId,
) -> TractResult<OutletId> {
    let is_below = wires.put("below", TypedBinOp(comp_lt(), None), &[input, bound])?;
    wires.put("chosen", Iff, &[is_below, then, otherwise])
}

/// To the nearest whole number, of two equally near ones to the even one: 2^52 added, no digit is left behind the point.
fn round(wires: &mut Wires<'_>, input: OutletId) -> TractResult<OutletId> {
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    let whole = wires.number(WHOLE, input)?;
    let size = wires.put("abs", math::abs(), &[input])?;
    let sum = wires.put("sum", math::add(), &[size, whole])?;
    let rounded = wires.put("rounded", math::sub(), &[sum, whole])?;
    let sign = wires.put("sign", math::sign(), &[input])?;
    let signed = wires.put("signed", math::mul(), &[rounded, sign])?;
    // What is larger has no digits there, and what is no number is below nothing.
    choose_below(wires, size, whole, signed, input)
}

/// ln(1 + eˣ) as max(x, 0) + ln(1 + e⁻ˡˣˡ), whose exponential is 1 at most.
fn softplus(wires: &mut Wires<'_>, input: OutletId) -> TractResult<OutletId> {
    let (zero, one) = (wires.number(0.0, input)?, wires.number(1.0, input)?);
    let size = wires.put("abs", math::abs(), &[input])?;
    let negative = wires.put("neg", math::neg(), &[size])?;
    let exponential = wires.put("exp", math::exp(), &[negative])?;
    let sum = wires.put("sum", math::add(), &[exponential, one])?;
    let logarithm = wires.put("ln", math::ln(), &[sum])?;
    let above = wires.put("max", math::max(), &[input, zero])?;
    wires.put("softplus", math::add(), &[above, logarithm])
}

/// max(x, 0) + min(0, alpha · (eˣᐟᵃˡᵖʰᵃ - 1)).
fn celu(wires: &mut Wires<'_>, input: OutletId, alpha: f64) -> TractResult<OutletId> {
    ensure!(alpha != 0.0, "Celu: alpha is 0");
    let (zero, one) = (wires.number(0.0, input)?, wires.number(1.0, input)?);
    let alpha = wires.number(alpha, input)?;
    let share = wires.put("share", math::div(), &[input, alpha])?;
    let exponential = wires.put("exp", math::exp(), &[share])?;
    let less = wires.put("less", math::sub(), &[exponential, one])?;
    let scaled = wires.put("scaled", math::mul(), &[less, alpha])?;
    let below = wires.put("min", math::min(), &[scaled, zero])?;
    let above = wires.put("max", math::max(), &[input, zero])?;
    wires.put("celu", math::add(), &[above, below])
}

/// x - m - ln Σ eˣ⁻ᵐ with the largest number m: the logarithm is of 1 at least. tract takes that of a share, which is 0
/// where it is small.
fn log_softmax(wires: &mut Wires<'_>, input: OutletId, axis: i64, and_behind: bool) -> TractResult<OutletId> {
    let rank = wires.model.outlet_fact(input)?.rank();
    let from_end =
        || usize::try_from(axis.unsigned_abs()).ok().and_then(|from_end| rank.checked_sub(from_end));
    let at = usize::try_from(axis).ok().or_else(from_end).filter(|at| *at < rank);
    let Some(at) = at else {
        bail!("LogSoftmax: axis {axis} of a value with {rank} axes");
    };
    let axes: TVec<usize> = if and_behind { (at..rank).collect() } else { tvec![at] };
    let over = |reducer| Reduce { axes: axes.clone(), reducer };
    let most = wires.put("max", over(Reducer::Max), &[input])?;
    let most = finite(wires, most)?;
    let below = wires.put("sub", math::sub(), &[input, most])?;
    let exponentials = wires.put("exp", math::exp(), &[below])?;
    let sum = wires.put("sum", over(Reducer::Sum), &[exponentials])?;
    let logarithm = wires.put("ln", math::ln(), &[sum])?;
    wires.put("log_softmax", math::sub(), &[below, logarithm])
}
