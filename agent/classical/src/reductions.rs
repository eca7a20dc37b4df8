//! Reductions that tract gets wrong: `ReduceLogSumExp`, which it takes of numbers as they are, so that their exponentials
//! overflow, and sums of whole numbers, which it adds up in 32 bits. Opsets 1 to 18.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::internal::{
    AxisOp, DatumType, OutletId, TDim, TVec, TractResult, bail, ensure, tvec,
};

use super::kernel::Built;
use super::mended::{Mend, Wires, first, mended};

/// Bits of the lower part that whole numbers are split into. Sums of up to 2^21 of either part are exact in double
/// precision.
const LOWER_BITS: u32 = 32;

/// What is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    LogSumExp,
    Sum,
    Mean,
    L1,
    Squares,
}

/// Builds `ReduceLogSumExp`, `ReduceSum`, `ReduceMean`, `ReduceL1` and `ReduceSumSquare`.
pub(crate) fn reduce(context: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let of = match node.op_type.as_str() {
        "ReduceLogSumExp" => Of::LogSumExp,
        "ReduceMean" => Of::Mean,
        "ReduceL1" => Of::L1,
        "ReduceSumSquare" => Of::Squares,
        _ => Of::Sum,
    };
    let reduction = Reduction {
        of,
        axes: node.get_attr_opt_vec::<i64>("axes")?.unwrap_or_default(),
        keeps: node.get_attr_opt::<i64>("keepdims")?.unwrap_or(1) == 1,
        none_is_none: node.get_attr_opt::<i64>("noop_with_empty_axes")?.unwrap_or(0) == 1,
    };
    mended(context, node, reduction)
}

#[derive(Clone, Debug)]
struct Reduction {
    of: Of,
    /// Those of the attribute, which later versions have as an input.
    axes: Vec<i64>,
    /// Whether the axes stay, of length 1.
    keeps: bool,
    /// Whether no axes mean none, and not all.
    none_is_none: bool,
}

impl Reduction {
    /// The axes in ascending order; `None` where none are meant.
    fn axes(&self, wires: &Wires<'_>, inputs: &[OutletId]) -> TractResult<Option<TVec<usize>>> {
        let rank = wires.model.outlet_fact(first(inputs)?)?.rank();
        let given = match inputs.get(1) {
            Some(input) => match &wires.model.outlet_fact(*input)?.konst {
                Some(axes) => {
                    let axes = axes.cast_to::<i64>()?;
                    axes.try_as_plain_ram()?.as_slice::<i64>()?.to_vec()
                }
                None => return Ok(None),
            },
            None => self.axes.clone(),
        };
        if given.is_empty() {
            return Ok((!self.none_is_none).then(|| (0..rank).collect()));
        }
        let mut axes: TVec<usize> = tvec![];
        for axis in given {
            let at = usize::try_from(axis).ok().or_else(|| {
                usize::try_from(axis.unsigned_abs()).ok().and_then(|from_end| rank.checked_sub(from_end))
            });
            let Some(at) = at.filter(|at| *at < rank) else {
                bail!("axis {axis} of a value with {rank} axes");
            };
            axes.push(at);
        }
        axes.sort_unstable();
        axes.dedup();
        Ok(Some(axes))
    }
}

impl Mend for Reduction {
    fn wire(&self, wires: &mut Wires<'_>, inputs: &[OutletId]) -> TractResult<Option<TVec<OutletId>>> {
        let input = first(inputs)?;
        let datum_type = wires.datum_type(input)?;
        let is_ours = match self.of {
            Of::LogSumExp => datum_type.is_float(),
            _ => datum_type == DatumType::I64,
        };
        if !is_ours {
            return Ok(None);
        }
        let Some(axes) = self.axes(wires, inputs)? else { return Ok(None) };
        let mut wire = match self.of {
            Of::LogSumExp => log_sum_exp(wires, input, &axes)?,
            Of::Sum => whole_sum(wires, input, &axes)?,
            Of::Mean => whole_mean(wires, input, &axes)?,
            Of::L1 => {
                let sizes = wires.put("abs", math::abs(), &[input])?;
                whole_sum(wires, sizes, &axes)?
            }
            Of::Squares => {
                let squares = whole_square(wires, input)?;
                whole_sum(wires, squares, &axes)?
            }
        };
        if !self.keeps {
            for axis in axes.into_iter().rev() {
                wire = wires.put(&format!("without_{axis}"), AxisOp::Rm(axis), &[wire])?;
            }
        }
        Ok(Some(tvec![wire]))
    }
}

fn over(axes: &[usize], reducer: Reducer) -> Reduce {
    Reduce { axes: axes.into(), reducer }
}

/// ln Σ eˣ as m + ln Σ eˣ⁻ᵐ with the largest number m, so that the largest exponential is 1.
fn log_sum_exp(wires: &mut Wires<'_>, input: OutletId, axes: &[usize]) -> TractResult<OutletId> {
    let most = wires.put("max", over(axes, Reducer::Max), &[input])?;
    let most = finite(wires, most)?;
    let below = wires.put("sub", math::sub(), &[input, most])?;
    let exponentials = wires.put("exp", math::exp(), &[below])?;
    let sum = wires.put("sum", over(axes, Reducer::Sum), &[exponentials])?;
    let logarithm = wires.put("ln", math::ln(), &[sum])?;
    wires.put("add", math::add(), &[logarithm, most])
}

/// The nearest number that is not infinite: from an infinite number nothing can be subtracted.
pub(crate) fn finite(wires: &mut Wires<'_>, input: OutletId) -> TractResult<OutletId> {
    let largest = match wires.datum_type(input)? {
        DatumType::F64 => f64::MAX,
        DatumType::F16 => 65_504.0,
        _ => f64::from(f32::MAX),
    };
    let (low, high) = (wires.number(-largest, input)?, wires.number(largest, input)?);
    let above = wires.put("above", math::max(), &[input, low])?;
    wires.put("finite", math::min(), &[above, high])
}

/// The sum in 64 bits. tract adds floats of double precision in double precision, and no whole numbers of 64 bits in 64
/// bits; so both halves of a number are summed up as floats, which is exact, and put together again.
fn whole_sum(wires: &mut Wires<'_>, input: OutletId, axes: &[usize]) -> TractResult<OutletId> {
    let unit = wires.scalar("unit", 1_i64 << LOWER_BITS, input)?;
    let bits = wires.scalar("bits", i64::from(LOWER_BITS), input)?;
    let upper = wires.put("upper", math::shift_right(), &[input, bits])?;
    let whole = wires.put("whole", math::mul(), &[upper, unit])?;
    let lower = wires.put("lower", math::sub(), &[input, whole])?;
    let mut summed = |part: OutletId, what: &str| -> TractResult<OutletId> {
        let floats = wires.put(&format!("{what}.floats"), cast(DatumType::F64), &[part])?;
        let sum = wires.put(&format!("{what}.sum"), over(axes, Reducer::Sum), &[floats])?;
        wires.put(&format!("{what}.whole"), cast(DatumType::I64), &[sum])
    };
    let upper = summed(upper, "upper")?;
    let lower = summed(lower, "lower")?;
    let upper = wires.put("raised", math::mul(), &[upper, unit])?;
    wires.put("total", math::add(), &[upper, lower])
}

/// The mean, cut off as onnxruntime does it.
fn whole_mean(wires: &mut Wires<'_>, input: OutletId, axes: &[usize]) -> TractResult<OutletId> {
    let sum = whole_sum(wires, input, axes)?;
    let fact = wires.model.outlet_fact(input)?;
    let count: TDim = axes.iter().filter_map(|axis| fact.shape.get(*axis)).product();
    ensure!(count != TDim::from(0), "the mean of nothing");
    let count = wires.scalar("count", count, input)?;
    let count = wires.put("counted", cast(DatumType::I64), &[count])?;
    wires.put("mean", math::div(), &[sum, count])
}

/// x² as (x + 1) · x - x: tract makes a square of x · x, which it does not have of whole numbers.
pub(crate) fn whole_square(wires: &mut Wires<'_>, input: OutletId) -> TractResult<OutletId> {
    let one = wires.number(1.0, input)?;
    let next = wires.put("next", math::add(), &[input, one])?;
    let product = wires.put("product", math::mul(), &[next, input])?;
    wires.put("square", math::sub(), &[product, input])
}
