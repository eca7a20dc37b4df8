//! Which requests that wait are run together, and whose part of the answer is whose. Pure.
//!
//! Nobody ever waits for company: only those are joined who wait already when the worker becomes free.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serin_protocol::tensor::{TensorHeader, split_body};

use super::process::{Company, Inferred};

/// Most bytes that requests run together have: 16 rows of a small picture. The worker holds a request
/// whole before it runs it, within the model's memory limit; with more in a row, running rows together
/// gains nothing.
const MAX_BYTES: u64 = 1 << 20;
/// Most time by which company makes the answer to a request later, going by the time that rows have
/// taken lately. An app that shows something to a person does not notice it.
const MAX_EXTRA_MICROS: u64 = 20_000;

/// What bounds the requests of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Rows that the model runs at once. More would only be run one after another, with everybody waiting
    /// for the last.
    pub(super) rows: u32,
    /// Time that a row takes, in microseconds; `None` until it is known, and nobody is joined until then.
    pub(super) row_micros: Option<u64>,
}

/// Headers of a joined request, and the parts of its body in order.
#[derive(Debug, PartialEq)]
pub(super) struct Joined {
    pub(super) inputs: Vec<TensorHeader>,
    pub(super) parts: Vec<Bytes>,
}

/// How many of the requests at the head of the queue `waiting` are to be run together: at least the first,
/// if there is one. Nobody is overtaken.
pub(super) fn together<'a>(waiting: impl IntoIterator<Item = &'a [TensorHeader]>, bounds: &Bounds) -> usize {
    let mut waiting = waiting.into_iter();
    let Some(first) = waiting.next() else { return 0 };
    let (Some(first_rows), Some(row_micros)) = (rows(first), bounds.row_micros) else { return 1 };
    let (mut total, mut size, mut count) = (u64::from(first_rows), bytes(first), 1);
    for next in waiting {
        let Some(more) = rows(next).filter(|_| alike(first, next)) else { break };
        total = total.saturating_add(more.into());
        size = size.saturating_add(bytes(next));
        let extra = (total - u64::from(first_rows)).saturating_mul(row_micros);
        if total > bounds.rows.into() || size > MAX_BYTES || extra > MAX_EXTRA_MICROS {
            break;
        }
        count += 1;
    }
    count
}

/// One request of the rows of all `asked`, which [`together`] has put together. No values are copied.
///
/// `None` if they cannot be one, or a body does not agree with its headers.
pub(super) fn join(asked: &[(&[TensorHeader], &Bytes)]) -> Option<Joined> {
    let (first, _) = asked.first()?;
    let mut bodies = Vec::with_capacity(asked.len());
    for (inputs, body) in asked {
        if !alike(first, inputs) {
            return None;
        }
        bodies.push((*body, split_body(inputs, body)?));
    }
    let all_rows = asked.iter().try_fold(0_u32, |sum, (inputs, _)| sum.checked_add(rows(inputs)?))?;
    let mut joined = Joined { inputs: Vec::with_capacity(first.len()), parts: Vec::new() };
    for (at, input) in first.iter().enumerate() {
        let mut header = TensorHeader { bytes: 0, ..input.clone() };
        *header.shape.first_mut()? = all_rows;
        for (body, parts) in &bodies {
            let part = parts.get(at)?;
            header.bytes = header.bytes.checked_add(part.len() as u64)?;
            joined.parts.push(body.slice_ref(part));
        }
        joined.inputs.push(header);
    }
    Some(joined)
}

/// The answers to requests of these numbers of rows, which were `inferred` together, in their order.
///
/// `None` if it cannot be told which part of an output is whose.
pub(super) fn split(inferred: &Inferred, rows: &[u32]) -> Option<Vec<Inferred>> {
    let all: u32 = rows.iter().try_fold(0_u32, |sum, more| sum.checked_add(*more))?;
    let outputs = split_body(&inferred.outputs, &inferred.body)?;
    let mut answers = Vec::with_capacity(rows.len());
    let mut start = 0_u32;
    // Where the texts of each output go on; what is of fixed width needs no such place.
    let mut places = vec![0_usize; outputs.len()];
    for (number, count) in rows.iter().copied().enumerate() {
        let end = start.checked_add(count)?;
        let mut body = BytesMut::new();
        let mut headers = Vec::with_capacity(outputs.len());
        for ((output, raw), place) in inferred.outputs.iter().zip(&outputs).zip(&mut places) {
            if output.shape.first() != Some(&all) {
                return None;
            }
            let range = match output.datatype.width() {
                Some(_) => fixed(raw.len(), all, start..end)?,
                None => texts(raw, *place, output.elements()?, all, count)?,
            };
            *place = range.end;
            let mut header = TensorHeader { bytes: range.len() as u64, ..output.clone() };
            *header.shape.first_mut()? = count;
            headers.push(header);
            body.extend_from_slice(raw.get(range)?);
        }
        let predictions = match inferred.predictions.len() {
            0 => Vec::new(),
            known if known == all as usize => {
                inferred.predictions.get(start as usize..end as usize)?.to_vec()
            }
            _ => return None,
        };
        let pictures = match inferred.pictures.len() {
            0 => Bytes::new(),
            length => inferred.pictures.slice(fixed(length, all, start..end)?),
        };
        answers.push(Inferred {
            outputs: headers,
            body: body.freeze(),
            predictions,
            pictures,
            company: if number == 0 { Company::First } else { Company::Another },
            ..*inferred
        });
        start = end;
    }
    let used_up =
        inferred.outputs.iter().zip(&outputs).zip(&places).all(|((_, raw), place)| raw.len() == *place);
    used_up.then_some(answers)
}

/// Rows of a request; `None` if it has none or its inputs do not agree.
pub(super) fn rows(inputs: &[TensorHeader]) -> Option<u32> {
    let first = *inputs.first()?.shape.first()?;
    let agree = inputs.iter().all(|input| input.shape.first() == Some(&first));
    (agree && first > 0).then_some(first)
}

/// Whether two requests differ in nothing but their numbers of rows.
fn alike(one: &[TensorHeader], other: &[TensorHeader]) -> bool {
    let same = |(a, b): (&TensorHeader, &TensorHeader)| {
        a.name == b.name && a.datatype == b.datatype && a.shape.iter().skip(1).eq(b.shape.iter().skip(1))
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

fn bytes(inputs: &[TensorHeader]) -> u64 {
    inputs.iter().fold(0, |sum, input| sum.saturating_add(input.bytes))
}

/// Where `rows` of all `all` lie in `length` bytes of equally long rows.
fn fixed(length: usize, all: u32, rows: Range<u32>) -> Option<Range<usize>> {
    let all = all as usize;
    let row = length.checked_div(all).filter(|row| row * all == length)?;
    Some(row.checked_mul(rows.start as usize)?..row.checked_mul(rows.end as usize)?)
}

/// Where the texts of the next `count` of all `all` rows lie in `raw`, from `start` on.
fn texts(raw: &[u8], start: usize, elements: u64, all: u32, count: u32) -> Option<Range<usize>> {
    let per_row = elements.checked_div(all.into()).filter(|row| row * u64::from(all) == elements)?;
    let mut end = start;
    for _ in 0..per_row.checked_mul(count.into())? {
        let (length, rest) = raw.get(end..)?.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        rest.get(..length)?;
        end += 4 + length;
    }
    Some(start..end)
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
