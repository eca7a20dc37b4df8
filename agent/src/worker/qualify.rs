//! `serin-agent qualify`: loads an unpacked release in the real worker, proves its golden vectors and
//! measures what it needs. The packer calls this program instead of measuring something similar.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serin_protocol::bundle::BundleFile;
use serin_protocol::golden::{Golden, GoldenInput};
use serin_protocol::ids::{ByteCount, FieldName};
use serin_protocol::manifest::{Manifest, Measured, TensorSpec};
use serin_protocol::raw::RawValues;

use super::golden::{golden_batches, golden_pass, golden_proof, request};
use super::process::{Worker, WorkerSpec};
use super::requalify::ROUNDS;
use super::second_form;
use super::verdict::{Fault, FaultKind, GoldenSummary, Predicted, Preparation, Qualified, Refused};
use serin_model::ROWS_AT_ONCE;

/// Inferences of one row that latency is measured over, at least.
const MIN_LATENCIES: usize = 200;
/// Largest limit tried. A model that needs more is not one for the devices this is made for.
pub(super) const CEILING: u64 = 2 << 30;
/// The search ends when the smallest limit is known this exactly.
const RESOLUTION: u64 = 256 << 10;
/// Least margin above the smallest limit. The allocator grows in steps of 128 KiB to 1 MiB, so that less
/// than a step is no margin at all.
const MIN_MARGIN: u64 = 1 << 20;
/// Limits are multiples of the largest page size in use.
const GRANULE: u64 = 64 << 10;
/// Reference rows accepted; 16 features of that many fit easily into memory.
const MAX_REFERENCE_ROWS: usize = 200_000;
/// Longest line of a rows file: an image of 1 megapixel and 3 channels in decimal digits.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Arguments of `serin-agent qualify`.
#[derive(Clone, Debug, clap::Args)]
pub struct QualifyArgs {
    /// Directory with the unpacked release: manifest.json, model.onnx, pipeline.json, labels.txt,
    /// golden.bin.
    #[arg(long)]
    pub dir: PathBuf,
    /// Only check under this memory limit in bytes, which is then printed as minimum and limit; without
    /// it the smallest sufficient one is searched.
    #[arg(long)]
    pub memory_limit: Option<u64>,
    /// Also predict these rows: one JSON object a line, {"inputs": {"NAME": [numbers or null]}}.
    #[arg(long)]
    pub rows: Option<PathBuf>,
    /// Print the result on one line.
    #[arg(long)]
    pub json: bool,
    /// Milliseconds for loading.
    #[arg(long, default_value_t = 30_000)]
    pub load_deadline: u64,
    /// Milliseconds for one inference.
    #[arg(long, default_value_t = 10_000)]
    pub request_deadline: u64,
}

/// Runs the command: the result as JSON on standard output, exit code 1 when it does not qualify.
pub fn run(args: &QualifyArgs) -> ExitCode {
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(qualify(args, WorkerSpec::own_program())),
        Err(error) => Err(Fault::new(FaultKind::Died, format!("no runtime: {error}"))),
    };
    let code = if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let text = match outcome {
        Ok(qualified) => text(&qualified, args.json),
        Err(fault) => text(&Refused { fault }, args.json),
    };
    println!("{text}");
    code
}

fn text<T: Serialize>(value: &T, one_line: bool) -> String {
    let text = if one_line { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
    // Plain data with text keys: nothing to fail on.
    text.unwrap_or_default()
}

/// Qualifies the release in `args.dir` with workers of `program`.
pub async fn qualify(args: &QualifyArgs, program: PathBuf) -> Result<Qualified, Fault> {
    let mut bench = Bench::new(args, program)?;
    if let Some(limit) = args.memory_limit.map(ByteCount) {
        return bench.measure(limit, limit, None, args.rows.as_deref()).await;
    }
    let minimum = bench.search().await?;
    let (preparation, minimum) = second_form::prepare(&mut bench, minimum).await?;
    let limit = ByteCount(round_up(minimum.0 + (minimum.0 * 3 / 10).max(MIN_MARGIN)));
    bench.measure(minimum, limit, Some(preparation), args.rows.as_deref()).await
}

/// Everything needed to try the release under some limit.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) spec: WorkerSpec,
    pub(super) manifest: Manifest,
    pub(super) golden: Golden,
}

impl Bench {
    fn new(args: &QualifyArgs, program: PathBuf) -> Result<Self, Fault> {
        let read = |file: BundleFile| {
            let path = args.dir.join(file.name());
            std::fs::read(&path)
                .map_err(|error| Fault::new(FaultKind::Load, format!("{}: {error}", path.display())))
        };
        let manifest = Manifest::parse(&read(BundleFile::Manifest)?)
            .map_err(|error| Fault::new(FaultKind::Load, error.to_string()))?;
        let golden = Golden::parse(&read(BundleFile::Golden)?)
            .map_err(|error| Fault::new(FaultKind::Load, error.to_string()))?;
        let spec = WorkerSpec {
            program,
            dir: args.dir.clone(),
            release: manifest.id(),
            memory_limit: ByteCount(CEILING),
            groups: None,
            load_deadline: Duration::from_millis(args.load_deadline),
            request_deadline: Duration::from_millis(args.request_deadline),
            require_sandbox: false,
        };
        Ok(Self { spec, manifest, golden })
    }

    pub(super) async fn start(&self, limit: ByteCount) -> Result<Worker, Fault> {
        let spec = WorkerSpec { memory_limit: limit, ..self.spec.clone() };
        Worker::start(spec).await.map_err(|fault| Fault::of_start(&fault))
    }

    /// The smallest limit that suffices.
    async fn search(&self) -> Result<ByteCount, Fault> {
        // Any fault but want of memory shows here, where memory is plenty. What is in use at the end
        // must fit into the limit, which makes it the place to begin.
        let worker = self.start(ByteCount(CEILING)).await?;
        golden_proof(&worker, &self.golden, &self.manifest)
            .await
            .map_err(|fault| Fault::of_golden(&fault))?;
        let in_use = worker.data_in_use().unwrap_or_default().0;
        worker.stop().await;

        let mut too_small = in_use.saturating_sub(RESOLUTION);
        let mut enough = round_up(in_use + RESOLUTION);
        while !self.suffices(ByteCount(enough)).await {
            too_small = enough;
            // Peaks while loading lie at two to three times what stays.
            enough = round_up(enough + enough / 2).min(CEILING);
            if too_small >= CEILING {
                return Err(Fault::new(
                    FaultKind::MemoryLimit,
                    format!("{CEILING} bytes of memory do not suffice"),
                ));
            }
        }
        while enough - too_small > RESOLUTION {
            let middle = round_up(too_small.midpoint(enough));
            if self.suffices(ByteCount(middle)).await {
                enough = middle;
            } else {
                too_small = middle;
            }
        }
        Ok(ByteCount(enough))
    }

    /// Whether loading and all rounds pass under `limit`. A worker short of memory fails in many ways,
    /// and everything else was ruled out before.
    pub(super) async fn suffices(&self, limit: ByteCount) -> bool {
        let Ok(worker) = self.start(limit).await else {
            return false;
        };
        for _ in 0..ROUNDS {
            if golden_batches(&worker, &self.golden, &self.manifest).await.is_err() {
                return false;
            }
        }
        worker.stop().await;
        true
    }

    /// The final run, under the limit that will be signed.
    async fn measure(
        &self,
        minimum: ByteCount,
        limit: ByteCount,
        preparation: Option<Preparation>,
        rows: Option<&Path>,
    ) -> Result<Qualified, Fault> {
        let worker = self.start(limit).await?;
        let mut micros = Vec::new();
        let mut worst = 0.0_f32;
        let mut round = 0;
        while round < ROUNDS || micros.len() < MIN_LATENCIES {
            let pass = golden_pass(&worker, &self.golden, &self.manifest);
            let report = pass.await.map_err(|fault| Fault::of_golden(&fault))?;
            worst = worst.max(report.worst);
            micros.extend(report.micros);
            round += 1;
        }
        micros.sort_unstable();
        let measured = Measured {
            minimum_memory: minimum,
            memory_limit: limit,
            peak_resident: worker.peak_resident().unwrap_or_default(),
            latency_p50_micros: percentile(&micros, 50),
            latency_p99_micros: percentile(&micros, 99),
            load_micros: worker.load_micros(),
        };
        let (predictions, pictures) = match rows {
            Some(path) => {
                let (predictions, pictures) = self.predict(&worker, path).await?;
                (Some(predictions), (!pictures.is_empty()).then_some(pictures))
            }
            None => (None, None),
        };
        worker.stop().await;
        let golden = GoldenSummary { cases: self.golden.cases.len(), worst };
        Ok(Qualified { golden, measured, preparation, predictions, pictures })
    }

    /// What is predicted for each row of the file at `path`, and what is watched of each row's pictures, if anything is.
    async fn predict(
        &self,
        worker: &Worker,
        path: &Path,
    ) -> Result<(Vec<Predicted>, Vec<Vec<Option<f32>>>), Fault> {
        let pictured = self.manifest.watch.pictures(&self.manifest.inputs);
        let width = pictured.iter().map(|pictured| pictured.summaries.len()).sum::<usize>();
        let mut pictures = Vec::new();
        let rows = read_rows(path, &self.manifest.inputs)?;
        let mut predictions = Vec::with_capacity(rows.len());
        for (number, batch) in rows.chunks(ROWS_AT_ONCE).enumerate() {
            let inputs: Vec<&[GoldenInput]> = batch.iter().map(Vec::as_slice).collect();
            let at = |row: usize| number * ROWS_AT_ONCE + row + 1;
            let (headers, body) = request(&self.manifest, &inputs)
                .map_err(|(row, what)| Fault::new(FaultKind::Rows, format!("row {}: {what}", at(row))))?;
            let answer = worker.infer(headers, body).await;
            let answer = answer.map_err(|error| Fault::of_infer(&error, &format!("rows from {}", at(0))))?;
            predictions.extend(answer.predictions.iter().map(|row| Predicted::from(*row)));
            let numbers = answer.pictures.as_chunks().0.iter().copied().map(f32::from_le_bytes);
            let finite: Vec<Option<f32>> =
                numbers.map(|number| Some(number).filter(|number| number.is_finite())).collect();
            if width > 0 {
                pictures.extend(finite.chunks(width).map(<[_]>::to_vec));
            }
        }
        Ok((predictions, pictures))
    }
}

/// One line of a rows file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowLine {
    inputs: std::collections::BTreeMap<FieldName, Vec<serde_json::Value>>,
}

fn read_rows(path: &Path, inputs: &[TensorSpec]) -> Result<Vec<Vec<GoldenInput>>, Fault> {
    let fail = |what: String| Fault::new(FaultKind::Rows, format!("{}: {what}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(|error| fail(error.to_string()))?);
    let mut rows = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        let mut bounded = std::io::Read::take(&mut reader, MAX_LINE_BYTES);
        if bounded.read_line(&mut line).map_err(|error| fail(error.to_string()))? == 0 {
            return Ok(rows);
        }
        if line.trim().is_empty() {
            continue;
        }
        if rows.len() == MAX_REFERENCE_ROWS {
            return Err(fail(format!("more than {MAX_REFERENCE_ROWS} rows")));
        }
        let row: RowLine =
            serde_json::from_str(&line).map_err(|error| fail(format!("row {}: {error}", rows.len() + 1)))?;
        let input = |(name, values): (FieldName, Vec<serde_json::Value>)| {
            let wrong = |what: String| fail(format!("row {}: input {name}{what}", rows.len() + 1));
            let spec = inputs.iter().find(|spec| spec.name == name);
            let spec = spec.ok_or_else(|| wrong(" does not exist".into()))?;
            let values = RawValues::parse(spec.datatype, &values).map_err(wrong)?;
            Ok(GoldenInput { name, values })
        };
        let row = row.inputs.into_iter().map(input).collect::<Result<_, Fault>>()?;
        rows.push(row);
    }
}

pub(super) const fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(GRANULE) * GRANULE
}

/// The nearest-rank percentile of sorted values; zero of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 99), 7);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50, 99));
    }

    #[test]
    fn rows_are_named_by_their_line_when_they_are_broken() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("rows.ndjson");
        let spec = TensorSpec {
            name: "x".parse().expect("name"),
            datatype: serin_protocol::tensor::DataType::Fp32,
            shape: vec![-1, 2],
            features: vec![],
        };
        let specs = [spec];
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read_rows(&path, &specs)
        };
        let rows = read("{\"inputs\":{\"x\":[1,null]}}\n\n{\"inputs\":{\"x\":[2.5,3]}}\n").expect("two rows");
        assert_eq!((rows.len(), &rows[1][0].values), (2, &vec![2.5, 3.0].into()));
        let RawValues::Singles(first) = &rows[0][0].values else { panic!("floats") };
        assert!(first[1].is_nan());
        for broken in ["1", "{\"y\":[1]}", "{\"x\":[\"one\"]}"] {
            let text = format!("{{\"inputs\":{{\"x\":[1]}}}}\n{{\"inputs\":{broken}}}\n");
            let error = read(&text).expect_err("broken");
            assert!(error.message.contains("row 2"), "{}", error.message);
        }
    }
}
