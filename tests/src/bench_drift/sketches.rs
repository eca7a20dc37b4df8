//! Rows counted per second and bytes on the wire, beside the peers in Python on the same rows.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use serin_protocol::sketch::OpenHistogram;
use serin_protocol::sketch::profile::{FeatureProfile, SketchProfile};
use serin_tests::drifting::{KNOWN, Table, folder};

/// Numbers in the data set of car loans.
const FEATURES: [&str; 5] =
    ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure", "y_pred_proba"];
/// Rows handed over at once where they come in batches.
const BATCH: usize = 1000;
/// Each line is measured for at least as long.
const SPAN: Duration = Duration::from_secs(2);
/// The best of so many counts in that time, here and with the peers: whatever else the machine does only ever slows it down.
const ROUNDS: u32 = 5;
/// How many times the rows of the fastest peer.
const FASTER: f64 = 10.0;
/// Bytes of a feature on the wire.
const WIRE: usize = 1024;

struct Line {
    who: String,
    batch: f64,
    single: f64,
    bytes: f64,
}

pub(crate) fn measure() -> Result<Vec<String>> {
    let [loans, ..] = &KNOWN;
    let (reference, later) = loans.tables()?;
    let rows = matrix(&later)?;
    let own = own(&reference, &rows)?;
    let peers = peers(&rows)?;
    println!(
        "\n| {} features of real rows | rows/s, {BATCH} at once | rows/s, one by one | bytes per feature |\n|---|---|---|---|",
        FEATURES.len()
    );
    for line in std::iter::once(&own).chain(&peers) {
        println!("| {} | {:.0} | {:.0} | {:.0} |", line.who, line.batch, line.single, line.bytes);
    }
    let mut missed = Vec::new();
    for peer in &peers {
        let (batch, single) = (own.batch / peer.batch, own.single / peer.single);
        println!(
            "| … as a multiple of {} | {batch:.1} | {single:.0} | {:.2} |",
            peer.who,
            own.bytes / peer.bytes
        );
        if batch < FASTER || single < FASTER {
            missed.push(format!("{FASTER} times the rows of {}", peer.who));
        }
    }
    if own.bytes > WIRE as f64 {
        missed.push(format!("{WIRE} bytes per feature"));
    }
    Ok(missed)
}

/// The numbers row by row, as they come in a request.
fn matrix(table: &Table) -> Result<Vec<f32>> {
    let columns: Vec<&[f32]> = FEATURES
        .iter()
        .map(|name| table.numbers(name))
        .collect::<Option<_>>()
        .context("a column is missing")?;
    Ok((0..table.len()).flat_map(|row| columns.iter().map(move |column| column[row])).collect())
}

/// As the agent counts: each feature's values of a request at once, out of rows of all features.
fn own(reference: &Table, rows: &[f32]) -> Result<Line> {
    let sketches: Vec<SketchProfile> = FEATURES
        .iter()
        .map(|name| {
            let values = reference.numbers(name).context("a column is missing")?;
            Ok(FeatureProfile::of(name.parse()?, values).sketch)
        })
        .collect::<Result<_>>()?;
    // As they come in a request.
    let raw: Vec<[u8; 4]> = rows.iter().map(|value| value.to_le_bytes()).collect();
    let fresh = || sketches.iter().map(|sketch| OpenHistogram::over_bins(&sketch.bins)).collect::<Vec<_>>();
    let count = |at_once: usize| {
        let mut seen = fresh();
        let rate = rate(rows.len() / FEATURES.len(), || {
            for request in black_box(raw.as_slice()).chunks(at_once * FEATURES.len()) {
                let rows = request.len() / FEATURES.len();
                for (at, (sketch, seen)) in sketches.iter().zip(&mut seen).enumerate() {
                    seen.record_column(&sketch.bins, request, at, FEATURES.len(), rows);
                }
            }
        });
        (rate, seen)
    };
    let ((batch, _), (single, _)) = (count(BATCH), count(1));
    // A window's worth on the wire: what one pass over the rows makes.
    let mut seen = fresh();
    for (at, (sketch, seen)) in sketches.iter().zip(&mut seen).enumerate() {
        seen.record_all(&sketch.bins, rows.iter().skip(at).step_by(FEATURES.len()).copied());
    }
    let bytes: usize = sketches
        .iter()
        .zip(&mut seen)
        .map(|(sketch, seen)| postcard::to_allocvec(&seen.take(&sketch.bins)).map(|bytes| bytes.len()))
        .sum::<Result<_, _>>()?;
    Ok(Line { who: "Serin".to_owned(), batch, single, bytes: bytes as f64 / FEATURES.len() as f64 })
}

/// Rows per second of a pass over so many.
fn rate(rows: usize, mut pass: impl FnMut()) -> f64 {
    pass();
    let mut best = 0.0_f64;
    for _ in 0..ROUNDS {
        let (begin, mut passes) = (Instant::now(), 0);
        while begin.elapsed() < SPAN / ROUNDS {
            pass();
            passes += 1;
        }
        best = best.max((passes * rows) as f64 / begin.elapsed().as_secs_f64());
    }
    best
}

fn peers(rows: &[f32]) -> Result<Vec<Line>> {
    let mut file = tempfile::NamedTempFile::new()?;
    for value in rows {
        file.write_all(&value.to_le_bytes())?;
    }
    file.flush()?;
    let python = folder()?.with_file_name("drift-peers").join("bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/drift_figures.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(file.path())
        .arg(BATCH.to_string())
        .arg(SPAN.as_secs().to_string())
        .args(FEATURES);
    let output = command.output().context("run tests/drift_peers.sh first")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let line = |figure: &Value| {
        let number = |name: &str| figure[name].as_f64().with_context(|| format!("no {name} in {figure}"));
        Ok(Line {
            who: figure["who"].as_str().context("no name")?.to_owned(),
            batch: number("batch")?,
            single: number("single")?,
            bytes: number("bytes")?,
        })
    };
    figures.as_array().context("no list")?.iter().map(line).collect()
}
