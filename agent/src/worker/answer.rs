//! What a request is answered with, gathered from one run of the model after another: of all rows only what is sent is kept,
//! so that many rows take little more memory than their answer.

use serin_pipeline::{Column, Data};
use serin_protocol::frame::{InferFault, MAX_BODY_BYTES, Prediction};
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::{Manifest, TensorSpec};
use serin_protocol::tensor::TensorHeader;

use super::predictions;

/// Bytes of a text with its length, for the bounds on a request and its answer; images are within the eighth of the memory.
pub(super) const MEAN_TEXT_BYTES: usize = 256;

/// What a row takes besides its values: its prediction in memory and, written once or twice while a frame's header grows,
/// in the header.
const ROW_BYTES: usize = size_of::<Prediction>() + 2 * 19;

/// What a request is answered with.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Declared outputs, in manifest order.
    pub(super) outputs: Vec<TensorHeader>,
    /// Their values, then numbers about pictures. They are sent from where they lie.
    pub(super) parts: Vec<Vec<u8>>,
    /// One per row, where the manifest declares a prediction.
    pub(super) predictions: Vec<Prediction>,
    /// Numbers about pictures behind the outputs.
    pub(super) pictures: u32,
}

/// Outputs of the rows so far.
pub(super) struct Gathered<'m> {
    manifest: &'m Manifest,
    /// Of each output, row by row.
    values: Vec<Vec<u8>>,
    predictions: Vec<Prediction>,
    rows: usize,
}

impl<'m> Gathered<'m> {
    /// For `rows` rows, with room for what is of fixed width.
    pub(super) fn of(manifest: &'m Manifest, rows: usize) -> Result<Self, InferFault> {
        let mut values = Vec::with_capacity(manifest.outputs.len());
        for spec in &manifest.outputs {
            let row = spec.row_elements().unwrap_or(0).saturating_mul(spec.datatype.width().unwrap_or(0));
            let bytes = row.saturating_mul(rows);
            let mut room = Vec::new();
            if bytes > MAX_BODY_BYTES as usize || room.try_reserve_exact(bytes).is_err() {
                return Err(too_large(rows));
            }
            values.push(room);
        }
        Ok(Self { manifest, values, predictions: Vec::new(), rows: 0 })
    }

    /// Adds what was `made` of `count` more rows.
    pub(super) fn add(&mut self, made: &[(FieldName, Column<'_>)], count: usize) -> Result<(), InferFault> {
        self.rows += count;
        for (spec, values) in self.manifest.outputs.iter().zip(&mut self.values) {
            let column = serin_pipeline::find(made, &spec.name).map_err(InferFault::Model)?;
            serin_pipeline::check(column, spec, count).map_err(InferFault::Model)?;
            write_values(&column.data, values);
        }
        if self.values.iter().map(Vec::len).sum::<usize>() > MAX_BODY_BYTES as usize {
            return Err(too_large(self.rows));
        }
        if let Some(spec) = &self.manifest.prediction {
            self.predictions.extend(predictions::of(spec, made).map_err(InferFault::Model)?);
        }
        Ok(())
    }

    /// All of it, with the numbers about pictures that were `seen`.
    pub(super) fn answer(self, seen: &[f32]) -> Result<Answer, InferFault> {
        let Self { manifest, values: mut parts, predictions, rows } = self;
        let header = |(spec, values): (&TensorSpec, &Vec<u8>)| {
            let lengths = spec.shape.iter().skip(1).filter_map(|length| u32::try_from(*length).ok());
            TensorHeader {
                name: spec.name.clone(),
                datatype: spec.datatype,
                // As many dimensions as declared, which fit; rows are bounded.
                shape: u32::try_from(rows).into_iter().chain(lengths).collect(),
                bytes: values.len() as u64,
            }
        };
        let outputs = manifest.outputs.iter().zip(&parts).map(header).collect();
        parts.push(seen.iter().flat_map(|number| number.to_le_bytes()).collect());
        if parts.iter().map(Vec::len).sum::<usize>() > MAX_BODY_BYTES as usize {
            return Err(too_large(rows));
        }
        // Within the body, which is bounded.
        Ok(Answer { outputs, parts, predictions, pictures: seen.len() as u32 })
    }
}

/// Bytes that the answer for a row takes, at what is declared of it, where texts are one of `labels` if there are any.
pub(super) fn answered_row_bytes(manifest: &Manifest, labels: &[String]) -> usize {
    let text = labels.iter().map(|label| size_of::<u32>() + label.len()).max();
    row_bytes(&manifest.outputs, text.unwrap_or(MEAN_TEXT_BYTES)).saturating_add(ROW_BYTES)
}

/// Bytes of a row of these tensors, of whose texts each takes `text`.
pub(super) fn row_bytes(specs: &[TensorSpec], text: usize) -> usize {
    let bytes = |spec: &TensorSpec| {
        spec.row_elements().unwrap_or(0).saturating_mul(spec.datatype.width().unwrap_or(text))
    };
    specs.iter().map(bytes).fold(0, usize::saturating_add)
}

fn too_large(rows: usize) -> InferFault {
    InferFault::Input(format!("the answer for {rows} rows is larger than {MAX_BODY_BYTES} bytes"))
}

fn write_values(data: &Data<'_>, body: &mut Vec<u8>) {
    match data {
        Data::Floats(values) => values.iter().for_each(|value| body.extend(value.to_le_bytes())),
        Data::Integers(values) => values.iter().for_each(|value| body.extend(value.to_le_bytes())),
        Data::Texts(texts) => texts.iter().for_each(|text| write_text(text, body)),
    }
}

pub(super) fn write_text(text: &str, body: &mut Vec<u8>) {
    // A label comes from a file of at most 256 KiB, from a model of at most 2 GiB, or from a frame.
    body.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    body.extend(text.as_bytes());
}
