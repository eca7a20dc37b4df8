//! What a worker computes: a loaded release, and one request against it from raw bytes to raw bytes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serin_model::{Model, ROWS_AT_ONCE, Record, nnef, tells_of_exhaustion};
use serin_pipeline::{Column, Fed, Feed, Preparation, Raw};
use serin_protocol::bundle::BundleFile;
use serin_protocol::frame::{InferFault, LoadFault, MAX_BODY_BYTES, about};
use serin_protocol::ids::ByteCount;
use serin_protocol::manifest::{Manifest, TensorSpec};
use serin_protocol::pipeline::{Pipeline, PostStep};
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

use super::answer::{Answer, Gathered, MEAN_TEXT_BYTES, answered_row_bytes, row_bytes, write_text};
use super::heap;
use crate::resident;

/// Most rows of one request: their predictions, at most 19 bytes each, must fit into a frame header.
pub(super) const MAX_ROWS: usize = 4096;

/// Release files a worker reads.
pub(super) const FILES: [BundleFile; 5] =
    [BundleFile::Manifest, BundleFile::Nnef, BundleFile::Model, BundleFile::Pipeline, BundleFile::Labels];

/// Runs until the heap has seen all that runs need; what is free then is not needed again.
const SETTLED_AFTER: u32 = 3;

/// A loaded release.
pub(super) struct Engine {
    manifest: Manifest,
    preparation: Preparation,
    feeds: Vec<Feed>,
    post: Vec<PostStep>,
    labels: Vec<String>,
    model: Model,
    most_body_bytes: usize,
    /// Most rows of one request.
    most_rows: usize,
    /// After so long, no more of a request's rows are begun.
    patience: Duration,
    /// Requests until the heap is settled.
    unsettled: u32,
}

impl Engine {
    /// Loads the release unpacked in `dir` to be run within `memory` bytes, each request within `patience`.
    pub(super) fn load(dir: &Path, memory: ByteCount, patience: Duration) -> Result<Self, LoadFault> {
        heap::sparingly();
        resident::drop_program();
        let (manifest, steps) = declared(dir)?;
        let labels = String::from_utf8(read(dir, BundleFile::Labels)?)
            .map_err(|error| LoadFault::File(format!("labels.txt: {error}")))?;
        let preparation = preparation(&manifest, &steps)?;
        let feeds = preparation.feeds();
        let outputs = serin_pipeline::taken(&steps);
        let onnx = || Model::load(&dir.join(BundleFile::Model.name()), &feeds, &outputs, resident::give_back);
        let model = match manifest.nnef.as_ref().filter(|form| form.runtime.as_str() == nnef::RUNTIME) {
            Some(form) => {
                let path = dir.join(BundleFile::Nnef.name());
                match Model::load_nnef(&path, &feeds, &outputs, form.rows_at_once, resident::give_back) {
                    Err(LoadFault::Invalid(why)) => {
                        eprintln!("{} is not used: {why}", BundleFile::Nnef.name());
                        onnx()?
                    }
                    model => model?,
                }
            }
            None => onnx()?,
        };
        heap::swiftly();
        resident::drop_program();
        let labels: Vec<String> = labels.lines().map(str::to_owned).collect();
        let answered = answered_row_bytes(&manifest, &labels);
        Ok(Self {
            unsettled: SETTLED_AFTER,
            most_body_bytes: most_bytes(row_bytes(&manifest.inputs, MEAN_TEXT_BYTES), memory.0 / 8)
                .max(preparation.largest_files().min(MAX_BODY_BYTES as usize)),
            most_rows: (most_bytes(answered, memory.0 / 16) / answered.max(1)).max(1),
            patience,
            manifest,
            preparation,
            feeds,
            post: steps.post,
            labels,
            model,
        })
    }

    /// Largest request body in bytes that is even read.
    pub(super) const fn most_body_bytes(&self) -> usize {
        self.most_body_bytes
    }

    /// Rows that the model runs at once.
    pub(super) fn rows_at_once(&self) -> u32 {
        u32::try_from(self.model.rows_at_once()).unwrap_or(1)
    }

    /// Runs pipeline and model over the tensors in `body`.
    pub(super) fn infer(&mut self, inputs: &[TensorHeader], body: &[u8]) -> Result<Answer, InferFault> {
        let answer = self.compute(inputs, body);
        if self.unsettled > 0 {
            self.unsettled -= 1;
            if self.unsettled == 0 {
                resident::give_back();
            }
        }
        answer
    }

    fn compute(&mut self, inputs: &[TensorHeader], body: &[u8]) -> Result<Answer, InferFault> {
        let began = Instant::now();
        let (rows, raw) = self.check_inputs(inputs, body)?;
        let at_once = self.model.rows_at_once();
        let mut gathered = Gathered::of(&self.manifest, rows)?;
        let mut seen = Vec::new();
        for first in (0..rows).step_by(at_once) {
            if first > 0 && began.elapsed() > self.patience {
                return Err(too_slow(rows, first, self.patience));
            }
            let count = at_once.min(rows - first);
            let values = self.preparation.prepare(&raw, first, count, &mut seen);
            let values = values.map_err(InferFault::Input)?;
            if !self.model.takes_missing() {
                self.nothing_missing(&values, first)?;
            }
            let part = self.model.run(&self.feeds, &values, count)?;
            whole(&part, count)?;
            let made = serin_pipeline::finish(&self.post, &part, &self.labels).map_err(InferFault::Model)?;
            gathered.add(&made, count)?;
        }
        gathered.answer(&seen)
    }

    /// Refuses a value that is missing where nothing in the model tells it from others; `first` is the first of these rows.
    fn nothing_missing(&self, values: &[Fed], first: usize) -> Result<(), InferFault> {
        for (feed, fed) in self.feeds.iter().zip(values) {
            let Fed::Numbers(numbers) = fed else { continue };
            let Some(at) = numbers.first_missing() else { continue };
            let (row, place) = (first + at / feed.row_elements.max(1), at % feed.row_elements.max(1));
            let input = self.manifest.inputs.iter().find(|spec| spec.name == feed.name);
            let what = match input.and_then(|spec| spec.features.get(place)) {
                Some(feature) => format!("feature {feature} of row {row} is missing"),
                None => match feed.names.get(place) {
                    Some(feature) => format!("value {place} ({feature}) of row {row} is missing"),
                    None => format!("value {place} of row {row} is missing"),
                },
            };
            return Err(about(
                &feed.name,
                &format!(
                    "{what} (null or NaN), and neither the model nor a step in pipeline.json says what stands for it"
                ),
            ));
        }
        Ok(())
    }

    /// Runs only the steps before the model, and answers what they hand to it.
    pub(super) fn prepare(&self, inputs: &[TensorHeader], body: &[u8]) -> Result<Answer, InferFault> {
        let (rows, raw) = self.check_inputs(inputs, body)?;
        let values = self.preparation.prepare(&raw, 0, rows, &mut Vec::new()).map_err(InferFault::Input)?;
        let mut answer = Answer::default();
        for (feed, values) in self.feeds.iter().zip(values) {
            let mut fed = Vec::new();
            let datatype = write_fed(&values, &mut fed);
            let lengths = std::iter::once(rows).chain(feed.row_shape.iter().copied());
            answer.outputs.push(TensorHeader {
                name: feed.name.clone(),
                datatype,
                shape: lengths.filter_map(|length| u32::try_from(length).ok()).collect(),
                bytes: fed.len() as u64,
            });
            answer.parts.push(fed);
        }
        if answer.parts.iter().map(Vec::len).sum::<usize>() > MAX_BODY_BYTES as usize {
            return Err(InferFault::Input(format!("{rows} rows are more than {MAX_BODY_BYTES} bytes")));
        }
        Ok(answer)
    }

    /// Each declared input once, as declared, all with equally many rows. Answers the rows and the raw
    /// bytes in manifest order.
    fn check_inputs<'b>(
        &self,
        inputs: &[TensorHeader],
        body: &'b [u8],
    ) -> Result<(usize, Vec<Raw<'b>>), InferFault> {
        let Some(parts) = split_body(inputs, body) else {
            return Err(InferFault::Input("the inputs do not use up the body exactly".into()));
        };
        if let Some(unknown) =
            inputs.iter().find(|input| self.manifest.inputs.iter().all(|spec| spec.name != input.name))
        {
            return Err(about(&unknown.name, "the model has no such input"));
        }
        let mut rows = None;
        let mut raw = Vec::with_capacity(self.manifest.inputs.len());
        for spec in &self.manifest.inputs {
            let mut named = inputs.iter().zip(&parts).filter(|(input, _)| input.name == spec.name);
            let Some((input, part)) = named.next() else {
                return Err(about(&spec.name, "it is missing"));
            };
            if named.next().is_some() {
                return Err(about(&spec.name, "it is given twice"));
            }
            let count = rows_of(spec, input)?;
            if rows.is_some_and(|rows| rows != count) {
                return Err(about(&spec.name, "it has another number of rows than the inputs before it"));
            }
            rows = Some(count);
            raw.push(Raw::of(spec, part, count).map_err(|what| about(&spec.name, &what))?);
        }
        match rows {
            Some(rows) if rows > self.most_rows => {
                let most = self.most_rows;
                Err(InferFault::Input(format!(
                    "what is answered for {rows} rows needs more memory than there is for it: ask for {most} at most"
                )))
            }
            Some(rows) => Ok((rows, raw)),
            None => Err(InferFault::Input("no input is given".into())),
        }
    }
}

/// Not at once in what a request may take; the model is not to blame.
fn too_slow(rows: usize, done: usize, patience: Duration) -> InferFault {
    InferFault::Input(format!(
        "only {done} of {rows} rows were done in {} ms, which is all the time for a request: ask for fewer at once",
        patience.as_millis()
    ))
}

/// Manifest and pipeline of the release unpacked in `dir`.
fn declared(dir: &Path) -> Result<(Manifest, Pipeline), LoadFault> {
    let manifest = read(dir, BundleFile::Manifest)?;
    let manifest = Manifest::parse(&manifest).map_err(|error| LoadFault::File(error.to_string()))?;
    let steps = read(dir, BundleFile::Pipeline)?;
    let steps = Pipeline::parse(&steps, &manifest).map_err(|error| LoadFault::File(error.to_string()))?;
    Ok((manifest, steps))
}

fn preparation(manifest: &Manifest, steps: &Pipeline) -> Result<Preparation, LoadFault> {
    let flow = steps.flow(&manifest.inputs).map_err(|error| LoadFault::File(error.to_string()))?;
    let preparation = Preparation::of(flow);
    let preparation =
        preparation.map(|preparation| preparation.watching(manifest.watch.pictures(&manifest.inputs)));
    preparation.map_err(|error| {
        if tells_of_exhaustion(&error) { LoadFault::MemoryLimit } else { LoadFault::Invalid(error) }
    })
}

/// Loads the ONNX file of the release in `dir` and tells what was done to it, with the rows that it runs at once.
pub(super) fn examine(dir: &Path) -> Result<(Record, u32), LoadFault> {
    let (manifest, steps) = declared(dir)?;
    let feeds = preparation(&manifest, &steps)?.feeds();
    let mut record = Record::default();
    let path = dir.join(BundleFile::Model.name());
    let model =
        Model::load_recorded(&path, &feeds, &serin_pipeline::taken(&steps), || {}, Some(&mut record))?;
    Ok((record, u32::try_from(model.rows_at_once()).unwrap_or(1)))
}

/// Bytes that a request, or its answer, may take: beyond the model's limit they would look like the model's fault. What the
/// packer measured contains a full run of rows, of `row` bytes each; beyond that a request has an eighth of the limit and an
/// answer a sixteenth as its `share`, which together are within the margin between measured minimum and limit.
fn most_bytes(row: usize, share: u64) -> usize {
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    row.saturating_mul(ROWS_AT_ONCE).max(share).min(MAX_BODY_BYTES as usize)
}

/// Reads a release file, no further than one byte past its bound.
fn read(dir: &Path, file: BundleFile) -> Result<Vec<u8>, LoadFault> {
    let fail = |error: std::io::Error| LoadFault::File(format!("{}: {error}", file.name()));
    let mut bytes = Vec::new();
    let opened = File::open(dir.join(file.name())).map_err(fail)?;
    opened.take(file.max_bytes() + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > file.max_bytes() {
        return Err(LoadFault::File(format!("{} is larger than {} bytes", file.name(), file.max_bytes())));
    }
    Ok(bytes)
}

fn rows_of(spec: &TensorSpec, input: &TensorHeader) -> Result<usize, InferFault> {
    if input.datatype != spec.datatype {
        let (wanted, given) = (spec.datatype.name(), input.datatype.name());
        return Err(about(&spec.name, &format!("it must be {wanted}, not {given}")));
    }
    let fits = input.shape.len() == spec.shape.len()
        && input.shape.iter().zip(&spec.shape).skip(1).all(|(given, length)| i64::from(*given) == *length);
    if !fits {
        let declared: Vec<String> = spec.shape.iter().skip(1).map(ToString::to_string).collect();
        let given: Vec<String> = input.shape.iter().map(ToString::to_string).collect();
        let what = format!("its shape must be [rows, {}], not [{}]", declared.join(", "), given.join(", "));
        return Err(about(&spec.name, &what));
    }
    if !input.is_consistent() {
        return Err(about(&spec.name, &format!("{} bytes do not fit its shape", input.bytes)));
    }
    let rows = input.shape.first().map_or(0, |rows| *rows as usize);
    if (1..=MAX_ROWS).contains(&rows) {
        Ok(rows)
    } else {
        Err(about(&spec.name, &format!("it must have 1 to {MAX_ROWS} rows, not {rows}")))
    }
}

/// Numbers as little-endian `FP32`, for comparing; texts as they are.
fn write_fed(fed: &Fed, body: &mut Vec<u8>) -> DataType {
    match fed {
        Fed::Numbers(values) => {
            body.extend((0..values.len()).flat_map(|at| (values.at(at) as f32).to_le_bytes()));
            DataType::Fp32
        }
        Fed::Texts(texts) => {
            texts.iter().for_each(|text| write_text(text, body));
            DataType::Bytes
        }
    }
}

/// Checks that there are outputs of `count` rows.
fn whole(part: &[(String, Column<'static>)], count: usize) -> Result<(), InferFault> {
    match part.iter().find(|(_, column)| column.shape.first() != Some(&count)) {
        Some((name, column)) => {
            let shape = &column.shape;
            Err(InferFault::Model(format!("output {name:?} of {count} rows has shape {shape:?}")))
        }
        None => Ok(()),
    }
}
