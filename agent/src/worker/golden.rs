//! Golden vectors against a live worker: the proof that this device computes what the training side
//! computed. Run before a release answers, and by the packer before it is signed.

use bytes::Bytes;
use serin_protocol::golden::{Golden, GoldenCase, GoldenInput, GoldenTensor, Mismatch, Skew};
use serin_protocol::ids::FieldName;
use serin_protocol::manifest::{Manifest, TensorSpec};
use serin_protocol::message::{Detail, Reason};
use serin_protocol::raw::RawValues;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

use super::engine::MAX_ROWS;
use super::process::{InferError, Inferred, Worker};
use serin_model::ROWS_AT_ONCE;

/// Cases that are run in company too; what mixes rows mixes those of any.
const COMPANIONS: usize = 4;

/// What a pass over the golden vectors has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenReport {
    /// Number of cases, all passed.
    pub cases: usize,
    /// Largest difference as a share of what is tolerated there: 0 is equal, 1 the limit.
    pub worst: f32,
    /// Time in pipeline and model for each case alone, in microseconds.
    pub micros: Vec<u64>,
}

/// Why the golden vectors do not pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GoldenFault {
    /// An output differs.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// What is handed to the model differs: the pipeline does not do what the training side did.
    #[error(transparent)]
    Skew(#[from] Skew),
    /// An output that is right when a case is run alone differs when others are run with it.
    #[error("{0}, where other rows are run with it; alone it is right")]
    Mixed(Mismatch),
    /// A case does not fit the manifest.
    #[error("golden case {case}: {what}")]
    Case {
        /// Number of the case, from 0.
        case: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A case was not answered.
    #[error("golden case {case}: {error}")]
    Infer {
        /// Number of the case, from 0; the first one where several ran together.
        case: usize,
        /// Why.
        error: InferError,
    },
}

impl GoldenFault {
    /// The same as a reason to reject a release.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Infer { error: InferError::Died(death) | InferError::Unasked(death), .. } => {
                Reason::WorkerDied(death.clone())
            }
            Self::Mismatch(_) | Self::Mixed(_) | Self::Skew(_) | Self::Case { .. } | Self::Infer { .. } => {
                Reason::GoldenMismatch(Detail::new(&self.to_string()))
            }
        }
    }
}

/// Runs every case alone, as requests usually come, and then as many together as the worker runs at
/// once, because a model may mix up rows. Compares the outputs that a case names.
pub async fn golden_pass(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
) -> Result<GoldenReport, GoldenFault> {
    let mut report = GoldenReport { cases: golden.cases.len(), worst: 0.0, micros: Vec::new() };
    // First, because a difference there explains one behind the model, and names the feature.
    for (number, case) in golden.cases.iter().enumerate().filter(|(_, case)| case.says_fed()) {
        report.worst = report.worst.max(prepared(worker, golden, manifest, (number, case)).await?);
    }
    for case in 0..golden.cases.len() {
        let (inferred, worst) = run(worker, golden, manifest, &[case]).await?;
        report.worst = report.worst.max(worst);
        report.micros.push(inferred.micros);
    }
    report.worst = report.worst.max(golden_batches(worker, golden, manifest).await.map_err(mixed)?);
    Ok(report)
}

/// The same, and once in the company of rows that no case has: all that is to be proved of a release.
pub async fn golden_proof(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
) -> Result<GoldenReport, GoldenFault> {
    let report = golden_pass(worker, golden, manifest).await?;
    in_company(worker, golden, manifest).await.map_err(mixed)?;
    Ok(report)
}

/// `fault` of cases that had passed alone.
fn mixed(fault: GoldenFault) -> GoldenFault {
    match fault {
        GoldenFault::Mismatch(mismatch) => GoldenFault::Mixed(mismatch),
        other => other,
    }
}

/// Runs cases in the company of rows that no case has: where all are alike, a model that computes something over all rows of
/// a request, such as their maximum, would answer as it does alone. Of other apps' rows it would then make other answers.
async fn in_company(worker: &Worker, golden: &Golden, manifest: &Manifest) -> Result<(), GoldenFault> {
    if worker.rows_at_once() < 2 {
        return Ok(());
    }
    for (number, case) in golden.cases.iter().enumerate().take(COMPANIONS) {
        let others: Vec<Vec<GoldenInput>> = (1..ROWS_AT_ONCE).map(|at| altered(case, at as f32)).collect();
        let rows: Vec<&[GoldenInput]> =
            std::iter::once(&case.inputs).chain(&others).map(Vec::as_slice).collect();
        // A row that does not fit, or that the model refuses, says nothing of the case.
        let Ok((headers, body)) = request(manifest, &rows) else { continue };
        match worker.infer(headers, body).await {
            Ok(inferred) => {
                compare(golden, (number, case), &inferred, (0, rows.len()))?;
            }
            Err(InferError::Input(_) | InferError::Model(_)) => {}
            Err(error) => return Err(GoldenFault::Infer { case: number, error }),
        }
    }
    Ok(())
}

/// A row unlike that of `case`, in the numbers that may be any: whole ones are often categories, of which there are only so
/// many.
fn altered(case: &GoldenCase, by: f32) -> Vec<GoldenInput> {
    let mut inputs = case.inputs.clone();
    for input in &mut inputs {
        match &mut input.values {
            RawValues::Singles(values) => {
                values.iter_mut().for_each(|value| *value += by + *value * by / 4.0);
            }
            RawValues::Doubles(values) => {
                let by = f64::from(by);
                values.iter_mut().for_each(|value| *value += by + *value * by / 4.0);
            }
            RawValues::Integers(_) | RawValues::Texts(_) => {}
        }
    }
    inputs
}

/// Runs the steps before the model on `case` and compares what they hand to it with the tensors that the
/// training side handed to it. Answers the worst share.
async fn prepared(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
    (number, case): (usize, &GoldenCase),
) -> Result<f32, GoldenFault> {
    let wrong = |what: String| GoldenFault::Case { case: number, what };
    let (headers, body) = request(manifest, &[&case.inputs]).map_err(|(_, what)| wrong(what))?;
    let fed = worker.prepare(headers, body).await;
    let fed = fed.map_err(|error| GoldenFault::Infer { case: number, error })?;
    let mut worst = 0.0_f32;
    for tensor in &case.tensors {
        let actual = values(&fed, &tensor.name, 0, 1);
        let actual = actual.ok_or_else(|| wrong(format!("{} is not handed to the model", tensor.name)))?;
        golden.compare_fed(number, tensor, &actual)?;
        worst = worst.max(share(golden, tensor, &actual));
    }
    for expected in &case.fed_texts {
        let actual = texts(&fed, &expected.name, 0, 1);
        let actual =
            actual.ok_or_else(|| wrong(format!("{} is not handed to the model as text", expected.name)))?;
        golden.compare_fed_texts(number, expected, &actual)?;
    }
    Ok(worst)
}

/// Runs all cases, always as many together as the worker runs at once, and answers the worst share.
pub(super) async fn golden_batches(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
) -> Result<f32, GoldenFault> {
    let mut worst = 0.0_f32;
    for first in (0..golden.cases.len()).step_by(ROWS_AT_ONCE) {
        // The last batch is filled up with cases from the start, so that all need equal memory.
        let batch: Vec<usize> = (first..first + ROWS_AT_ONCE).map(|case| case % golden.cases.len()).collect();
        worst = worst.max(run(worker, golden, manifest, &batch).await?.1);
    }
    Ok(worst)
}

async fn run(
    worker: &Worker,
    golden: &Golden,
    manifest: &Manifest,
    cases: &[usize],
) -> Result<(Inferred, f32), GoldenFault> {
    let rows: Vec<(usize, &GoldenCase)> =
        cases.iter().filter_map(|case| golden.cases.get(*case).map(|row| (*case, row))).collect();
    let inputs: Vec<&[GoldenInput]> = rows.iter().map(|(_, row)| row.inputs.as_slice()).collect();
    let first = cases.first().copied().unwrap_or(0);
    let (headers, body) =
        request(manifest, &inputs).map_err(|(row, what)| GoldenFault::Case { case: first + row, what })?;
    let inferred =
        worker.infer(headers, body).await.map_err(|error| GoldenFault::Infer { case: first, error })?;
    let mut worst = 0.0_f32;
    for (row, (case, expected)) in rows.iter().enumerate() {
        worst = worst.max(compare(golden, (*case, expected), &inferred, (row, rows.len()))?);
    }
    Ok((inferred, worst))
}

/// Compares what was `inferred` for row `row` of `rows` with what `case` expects. Answers the worst share.
fn compare(
    golden: &Golden,
    (number, case): (usize, &GoldenCase),
    inferred: &Inferred,
    (row, rows): (usize, usize),
) -> Result<f32, GoldenFault> {
    let none = |name: &FieldName, what: &str| GoldenFault::Case {
        case: number,
        what: format!("{name} is no {what} output"),
    };
    let mut worst = 0.0_f32;
    for output in &case.outputs {
        let actual = values(inferred, &output.name, row, rows).ok_or_else(|| none(&output.name, "number"))?;
        golden.compare(number, output, &actual)?;
        worst = worst.max(share(golden, output, &actual));
    }
    for output in &case.text_outputs {
        let actual = texts(inferred, &output.name, row, rows).ok_or_else(|| none(&output.name, "text"))?;
        output.compare(number, &actual)?;
    }
    Ok(worst)
}

/// Raw rows as one request. The error names the row and what is wrong with it.
pub(super) fn request(
    manifest: &Manifest,
    rows: &[&[GoldenInput]],
) -> Result<(Vec<TensorHeader>, Bytes), (usize, String)> {
    let mut headers = Vec::with_capacity(manifest.inputs.len());
    let mut body = Vec::new();
    for spec in &manifest.inputs {
        let start = body.len();
        for (number, row) in rows.iter().enumerate() {
            if let Some(unknown) =
                row.iter().find(|value| manifest.inputs.iter().all(|spec| spec.name != value.name))
            {
                return Err((number, format!("there is no input {}", unknown.name)));
            }
            let values = row.iter().find(|value| value.name == spec.name).map(|value| &value.values);
            let values = values.ok_or_else(|| (number, format!("input {} is missing", spec.name)))?;
            if Some(values.len()) != spec.row_elements() {
                let needed = spec.row_elements().unwrap_or(0);
                return Err((
                    number,
                    format!("input {} has {} values, not {needed}", spec.name, values.len()),
                ));
            }
            if !values.fits(spec.datatype) {
                return Err((number, format!("input {} does not fit {}", spec.name, spec.datatype.name())));
            }
            values.write(spec.datatype, &mut body);
        }
        headers.push(header(spec, rows.len(), body.len() - start));
    }
    Ok((headers, Bytes::from(body)))
}

fn header(spec: &TensorSpec, rows: usize, bytes: usize) -> TensorHeader {
    debug_assert!(rows <= MAX_ROWS);
    let lengths = spec.shape.iter().skip(1).filter_map(|length| u32::try_from(*length).ok());
    TensorHeader {
        name: spec.name.clone(),
        datatype: spec.datatype,
        shape: std::iter::once(u32::try_from(rows).unwrap_or(u32::MAX)).chain(lengths).collect(),
        bytes: bytes as u64,
    }
}

/// The values of output `name` for row `row` of `rows`; `None` when there is none or it is text.
fn values(inferred: &Inferred, name: &FieldName, row: usize, rows: usize) -> Option<Vec<f32>> {
    let parts = split_body(&inferred.outputs, &inferred.body)?;
    let (header, part) = inferred.outputs.iter().zip(parts).find(|(header, _)| header.name == *name)?;
    let width = part.len() / rows.max(1);
    let part = part.get(row * width..(row + 1) * width)?;
    match header.datatype {
        DataType::Fp32 => {
            Some(part.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
        // Class numbers are small.
        DataType::Int64 => {
            Some(part.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f32).collect())
        }
        DataType::Bytes | DataType::Fp64 | DataType::Int32 | DataType::Uint8 | DataType::Bool => None,
    }
}

/// The texts of output `name` for row `row` of `rows`; `None` when there is none or it holds no texts.
fn texts<'a>(inferred: &'a Inferred, name: &FieldName, row: usize, rows: usize) -> Option<Vec<&'a [u8]>> {
    let parts = split_body(&inferred.outputs, &inferred.body)?;
    let (_, mut rest) = inferred
        .outputs
        .iter()
        .zip(parts)
        .find(|(header, _)| header.name == *name && header.datatype == DataType::Bytes)?;
    let mut all = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (text, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        all.push(text);
        rest = after;
    }
    let width = all.len() / rows.max(1);
    Some(all.get(row * width..(row + 1) * width)?.to_vec())
}

fn share(golden: &Golden, expected: &GoldenTensor, actual: &[f32]) -> f32 {
    let shares = expected.values.iter().zip(actual).map(|(expected, actual)| {
        let difference = (expected - actual).abs();
        let allowed = golden.absolute + golden.relative * expected.abs();
        // Equal values need no tolerance; both NaN has no difference.
        if difference > 0.0 && allowed > 0.0 { difference / allowed } else { 0.0 }
    });
    shares.filter(|share| share.is_finite()).fold(0.0, f32::max)
}
