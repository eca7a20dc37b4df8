//! Categories and what becomes of them, and texts as windows of bytes.

use std::collections::HashMap;

use serin_protocol::pipeline::{Category, LongText, UnknownCode, UnknownColumn};

use super::numbers::Numbers;
use super::raw::Value;

/// Longest part of a value that an error shows.
const MAX_SHOWN_CHARS: usize = 40;

/// The position of each category in its list.
#[derive(Debug)]
pub(crate) struct Positions {
    texts: HashMap<Box<[u8]>, usize>,
    numbers: HashMap<i64, usize>,
}

impl Positions {
    pub(crate) fn of(categories: &[Category]) -> Self {
        let mut positions = Self { texts: HashMap::new(), numbers: HashMap::new() };
        for (at, category) in categories.iter().enumerate() {
            positions.texts.insert(category.to_string().into_bytes().into(), at);
            if let Category::Number(number) = category {
                positions.numbers.insert(*number, at);
            }
        }
        positions
    }

    /// For each value its position, `None` where it is in no category.
    fn find(&self, value: &Value<'_>) -> Vec<Option<usize>> {
        match value {
            Value::Texts(texts) => texts.iter().map(|text| self.texts.get(*text).copied()).collect(),
            Value::Numbers(numbers) => (0..numbers.len())
                .map(|at| whole(numbers.at(at)).and_then(|n| self.numbers.get(&n).copied()))
                .collect(),
            Value::Images(_) | Value::None => Vec::new(),
        }
    }
}

/// A whole number, exactly.
fn whole(number: f64) -> Option<i64> {
    let near = number as i64;
    // The same on the way back, or it was none.
    ((near as f64).to_bits() == number.to_bits() || (near == 0 && number == 0.0)).then_some(near)
}

/// A number for each value. The error names the place of one that is refused.
pub(crate) fn ordinal(
    value: &Value<'_>,
    positions: &Positions,
    numbers: &[f64],
    unknown: UnknownCode,
) -> Result<Numbers, (usize, String)> {
    let code = |(at, found): (usize, Option<usize>)| match (found, unknown) {
        (Some(position), _) => Ok(numbers.get(position).copied().unwrap_or(position as f64)),
        (None, UnknownCode::Missing) => Ok(f64::NAN),
        (None, UnknownCode::Number(number)) => Ok(number),
        (None, UnknownCode::Refuse) => Err((at, stranger(value, at))),
    };
    positions.find(value).into_iter().enumerate().map(code).collect::<Result<_, _>>().map(Numbers::Doubles)
}

/// A column for each category. The error names the place of a value that is refused.
pub(crate) fn one_hot(
    value: &Value<'_>,
    positions: &Positions,
    columns: usize,
    unknown: UnknownColumn,
) -> Result<Numbers, (usize, String)> {
    let found = positions.find(value);
    let mut all = vec![0.0_f32; found.len().saturating_mul(columns)];
    for (at, (row, found)) in all.chunks_mut(columns.max(1)).zip(found).enumerate() {
        let position = match (found, unknown) {
            (Some(position), _) => position,
            (None, UnknownColumn::Zeros) => continue,
            (None, UnknownColumn::Last) => columns.saturating_sub(1),
            (None, UnknownColumn::Refuse) => return Err((at, stranger(value, at))),
        };
        if let Some(column) = row.get_mut(position) {
            *column = 1.0;
        }
    }
    Ok(Numbers::Singles(all))
}

fn stranger(value: &Value<'_>, at: usize) -> String {
    let shown = match value {
        Value::Texts(texts) => {
            let text = String::from_utf8_lossy(texts.get(at).copied().unwrap_or_default());
            format!("{:?}", text.chars().take(MAX_SHOWN_CHARS).collect::<String>())
        }
        Value::Numbers(numbers) => numbers.at(at).to_string(),
        Value::Images(_) | Value::None => String::new(),
    };
    format!("{shown} is in no category")
}

/// How texts are cut into windows.
pub(crate) struct Windows {
    pub(crate) length: usize,
    pub(crate) stride: usize,
    pub(crate) count: usize,
    pub(crate) padding: i32,
    pub(crate) offset: i32,
    pub(crate) long: LongText,
}

impl Windows {
    /// Windows over each text, one after the other. The error names the text that is refused.
    pub(crate) fn over(&self, texts: &[&[u8]]) -> Result<Numbers, (usize, String)> {
        let padding = self.padding as f32;
        let reach = self.stride * self.count.saturating_sub(1) + self.length;
        let mut all = Vec::with_capacity(texts.len() * self.count * self.length);
        for (at, text) in texts.iter().enumerate() {
            if text.len() > reach && self.long == LongText::Refuse {
                return Err((
                    at,
                    format!("the text has {} bytes, the windows reach over {reach}", text.len()),
                ));
            }
            for window in 0..self.count {
                let bytes = text.get(window * self.stride..).unwrap_or_default();
                let numbers = bytes
                    .iter()
                    .take(self.length)
                    .map(|byte| (i32::from(*byte).saturating_add(self.offset)) as f32);
                let given = bytes.len().min(self.length);
                all.extend(numbers);
                all.extend(std::iter::repeat_n(padding, self.length - given));
            }
        }
        Ok(Numbers::Singles(all))
    }
}
