//! Arithmetic on rows of numbers, in the precision in which they came.

use std::ops::{Add, Div, Mul, Sub};

use serin_protocol::pipeline::PerValue;

/// Numbers, row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// As they came.
    Bytes(Vec<u8>),
    /// Single precision.
    Singles(Vec<f32>),
    /// Double precision.
    Doubles(Vec<f64>),
}

/// What arithmetic needs of a number.
pub(crate) trait Float:
    Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The nearest one.
    fn of(number: f64) -> Self;
    /// Whether it is a missing value.
    fn is_missing(self) -> bool;
    /// `ln(1 + x)`.
    fn log1p(self) -> Self;
}

impl Float for f32 {
    fn of(number: f64) -> Self {
        number as Self
    }

    fn is_missing(self) -> bool {
        self.is_nan()
    }

    fn log1p(self) -> Self {
        self.ln_1p()
    }
}

impl Float for f64 {
    fn of(number: f64) -> Self {
        number
    }

    fn is_missing(self) -> bool {
        self.is_nan()
    }

    fn log1p(self) -> Self {
        self.ln_1p()
    }
}

/// What a step does to every number of a row.
pub(crate) enum Operation<'s> {
    Missing(&'s PerValue),
    Clip(&'s PerValue, &'s PerValue),
    Affine(&'s PerValue, &'s PerValue),
    Standard(&'s PerValue, &'s PerValue),
    MinMax(&'s PerValue, &'s PerValue),
    Log1p,
}

/// Numbers looked at together; a processor looks at eight or more at once.
const TOGETHER: usize = 64;

fn missing_in<F: Float>(numbers: &[F]) -> Option<usize> {
    let chunk = numbers.chunks(TOGETHER).position(|chunk| {
        // Without an early end, so that it is compiled to few instructions.
        chunk.iter().fold(false, |any, number| any | number.is_missing())
    })?;
    let rest = numbers.get(chunk * TOGETHER..)?;
    rest.iter().position(|number| number.is_missing()).map(|at| chunk * TOGETHER + at)
}

impl Numbers {
    /// Where the first value is missing.
    pub fn first_missing(&self) -> Option<usize> {
        match self {
            Self::Bytes(_) => None,
            Self::Singles(numbers) => missing_in(numbers),
            Self::Doubles(numbers) => missing_in(numbers),
        }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Singles(values) => values.len(),
            Self::Doubles(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number `at`, NaN where there is none.
    pub fn at(&self, at: usize) -> f64 {
        match self {
            Self::Bytes(values) => values.get(at).map(|value| f64::from(*value)),
            Self::Singles(values) => values.get(at).map(|value| f64::from(*value)),
            Self::Doubles(values) => values.get(at).copied(),
        }
        .unwrap_or(f64::NAN)
    }

    /// 1 where one is missing, else 0.
    pub(crate) fn missing(&self) -> Vec<f32> {
        let flag = |missing: bool| f32::from(u8::from(missing));
        match self {
            Self::Bytes(values) => vec![0.0; values.len()],
            Self::Singles(values) => values.iter().map(|value| flag(value.is_nan())).collect(),
            Self::Doubles(values) => values.iter().map(|value| flag(value.is_nan())).collect(),
        }
    }

    /// Adds those of more rows. Steps make the same precision of every row.
    pub(crate) fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Bytes(values), Self::Bytes(more)) => values.extend(more),
            (Self::Singles(values), Self::Singles(more)) => values.extend(more),
            (Self::Doubles(values), Self::Doubles(more)) => values.extend(more),
            (values, more) => {
                let all = (0..values.len()).map(|at| values.at(at));
                *values = Self::Doubles(all.chain((0..more.len()).map(|at| more.at(at))).collect());
            }
        }
    }

    /// Those of single or double precision; bytes become single.
    pub(crate) fn compute(self, row: usize, operation: &Operation<'_>) -> Self {
        match self {
            Self::Bytes(values) => {
                let mut values: Vec<f32> = values.into_iter().map(f32::from).collect();
                apply(&mut values, row, operation);
                Self::Singles(values)
            }
            Self::Singles(mut values) => {
                apply(&mut values, row, operation);
                Self::Singles(values)
            }
            Self::Doubles(mut values) => {
                apply(&mut values, row, operation);
                Self::Doubles(values)
            }
        }
    }

    /// The places `columns` of every row of `row` numbers.
    pub(crate) fn pick(&self, row: usize, columns: &[usize]) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(picked(values, row, columns)),
            Self::Singles(values) => Self::Singles(picked(values, row, columns)),
            Self::Doubles(values) => Self::Doubles(picked(values, row, columns)),
        }
    }
}

/// The places `columns` of every row of `row` values.
pub(crate) fn picked<T: Copy>(values: &[T], row: usize, columns: &[usize]) -> Vec<T> {
    let rows = values.chunks(row.max(1));
    rows.flat_map(|row| columns.iter().filter_map(|at| row.get(*at).copied())).collect()
}

fn apply<F: Float>(values: &mut [F], row: usize, operation: &Operation<'_>) {
    match operation {
        Operation::Missing(replace) => {
            let present = |value: F, replace: F, _: F| if value.is_missing() { replace } else { value };
            with(values, row, replace, replace, present);
        }
        // Unlike `clamp` this cannot panic, and a missing value stays missing.
        Operation::Clip(min, max) => with(values, row, min, max, |value, min, max| {
            if value < min {
                min
            } else if value > max {
                max
            } else {
                value
            }
        }),
        Operation::Affine(scale, offset) => {
            with(values, row, scale, offset, |value, scale, offset| value * scale + offset);
        }
        Operation::Standard(mean, scale) => {
            with(values, row, mean, scale, |value, mean, scale| (value - mean) / scale);
        }
        Operation::MinMax(min, max) => {
            with(values, row, min, max, |value, min, max| (value - min) / (max - min));
        }
        Operation::Log1p => values.iter_mut().for_each(|value| *value = value.log1p()),
    }
}

/// `make` of every value and its two constants. A single constant stands for all values of the row.
fn with<F: Float>(values: &mut [F], row: usize, a: &PerValue, b: &PerValue, make: impl Fn(F, F, F) -> F) {
    let constants = |numbers: &PerValue| -> Vec<F> { numbers.numbers().iter().map(|n| F::of(*n)).collect() };
    let (a, b) = (constants(a), constants(b));
    for row in values.chunks_mut(row.max(1)) {
        for ((value, a), b) in row.iter_mut().zip(a.iter().cycle()).zip(b.iter().cycle()) {
            *value = make(*value, *a, *b);
        }
    }
}
