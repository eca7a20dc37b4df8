//! `serin-agent batch`: a file of rows in, a file of outputs out, in the same order, by one version.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};

use super::asking::{Model, active};
use super::bisect::{RowAnswer, RowFault, Scorer, Verdict};
use super::checkpoint::{Origin, Output, OutputError};
use super::cli::BatchArgs;
use super::input::{Rows, is_named};
use super::rows::{Row, RowsError};
use super::shape::{MAX_REQUEST_BYTES, weight};
use crate::field::carry::bar;
use crate::field::cli::{CliError, Console};
use crate::field::client::{Client, ClientError};

/// At most this much is computed again after a crash.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// What an output looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
}

/// Endings of what other programs would read as something else than what is written here.
const NOT_WRITTEN: [&str; 7] = ["parquet", "pq", "npy", "tsv", "xlsx", "gz", "zst"];

impl Format {
    /// What a file of this name holds.
    fn of(path: &Path) -> Result<Self, CliError> {
        if let Some(ending) = NOT_WRITTEN.iter().find(|ending| is_named(path, ending)) {
            return Err(CliError::Usage {
                message: format!("{}: .{ending} is not written", path.display()),
                next: "name the output .csv for CSV, or .ndjson or .jsonl for one JSON object a line".into(),
            });
        }
        Ok(if is_named(path, "csv") { Self::Csv } else { Self::Ndjson })
    }
}

/// Scores `args.input` into `args.output`.
pub(super) async fn run(args: &BatchArgs, socket: &Path, console: &mut Console) -> Result<(), CliError> {
    for path in [&args.input, &args.output] {
        if path.as_os_str() == "-" {
            return Err(CliError::Usage {
                message: "a batch goes from file to file, so that it can go on after an interruption".into(),
                next: "`serin-agent stream` reads standard input and writes standard output".into(),
            });
        }
    }
    let format = Format::of(&args.output)?;
    let (file, bytes, modified) = open(&args.input)?;
    let mut client = Client::connect(socket).await?;
    let (active_model, version) = active(&mut client).await?;
    let name = args.model.as_ref().map_or(active_model, ToString::to_string);
    let model = Model::look_up(&mut client, &name).await?.of_version(&version);
    let release = format!("{name}@{version}");
    let origin = Origin {
        input_bytes: bytes,
        input_modified: modified,
        release: release.clone(),
        keep_going: args.keep_going,
    };
    let mut output = Output::open(&args.output, origin, args.restart).map_err(|error| refused(&error))?;
    if format == Format::Csv
        && output.columns().is_empty()
        && let Some(columns) = &model.columns
    {
        output.append(&header(columns, args.keep_going), 0, 0).map_err(|error| refused(&error))?;
        output.set_columns(columns.clone());
    }
    let read = Rc::new(Cell::new(0));
    let mut reader = Rows::of(&args.input, file, bytes, model.shape.clone(), Rc::clone(&read))?;
    for _ in 0..output.rows() {
        next(&mut reader, args.keep_going)?;
    }
    if output.rows() > 0 {
        console.note(&format!("going on behind row {}", output.rows()))?;
    }
    let scorer = Scorer::new(model, socket, client);
    let mut batch = Batch { scorer, format, keep_going: args.keep_going, output };
    let mut bar = Bar { shown: io::stderr().is_terminal(), read, bytes, percent: None };
    let scored = batch.score(&mut reader, console, &mut bar).await;
    bar.clear(console)?;
    if let Err(error) = scored {
        if let Err(worse) = batch.output.checkpoint() {
            console.note(&format!("what was answered is not kept: {worse}"))?;
        }
        return Err(switched(error, &release));
    }
    let wrong = batch.output.wrong();
    let rows = batch.output.finish().map_err(|error| refused(&error))?;
    let path = args.output.display().to_string();
    let text = if args.json {
        json!({ "file": path, "rows": rows, "wrong": wrong, "release": release }).to_string() + "\n"
    } else {
        let wrong = if wrong == 0 { String::new() } else { format!(", {wrong} of them with an error") };
        format!("{path}: {rows} rows by {release}{wrong}\n")
    };
    console.print(&text)
}

/// How far it is, for people.
struct Bar {
    shown: bool,
    read: Rc<Cell<u64>>,
    bytes: u64,
    percent: Option<u64>,
}

impl Bar {
    fn show(&mut self, console: &mut Console) -> Result<(), CliError> {
        let now = self.read.get().saturating_mul(100) / self.bytes.max(1);
        if self.shown && self.percent.replace(now) != Some(now) {
            console.progress(&bar(now))?;
        }
        Ok(())
    }

    fn clear(&self, console: &mut Console) -> Result<(), CliError> {
        if self.shown { console.progress("\r\x1b[K") } else { Ok(()) }
    }
}

/// A batch under way.
struct Batch {
    scorer: Scorer,
    format: Format,
    keep_going: bool,
    output: Output,
}

impl Batch {
    /// Answers all rows that are left.
    async fn score(
        &mut self,
        reader: &mut Rows,
        console: &mut Console,
        bar: &mut Bar,
    ) -> Result<(), CliError> {
        let (mut due, mut told) = (Instant::now() + CHECKPOINT_EVERY, false);
        loop {
            let rows = some_rows(reader, self.rows_at_once(), self.keep_going)?;
            if rows.is_empty() {
                return Ok(());
            }
            if !told && !reader.ignored().is_empty() {
                console.note(&format!("columns left out: {}", reader.ignored().join(", ")))?;
                told = true;
            }
            let verdicts = self.scorer.answer(&rows, self.keep_going).await?;
            let text = self.written(&rows, &verdicts)?;
            let wrong = verdicts.iter().filter(|verdict| verdict.is_err()).count();
            self.output.append(&text, rows.len() as u64, wrong as u64).map_err(|error| refused(&error))?;
            if Instant::now() >= due {
                self.output.checkpoint().map_err(|error| refused(&error))?;
                due = Instant::now() + CHECKPOINT_EVERY;
            }
            bar.show(console)?;
        }
    }

    /// As many rows as one request has; until the columns of a CSV are known, as many as it may have at most, of which
    /// one must tell them.
    fn rows_at_once(&self) -> usize {
        if self.format == Format::Csv && self.output.columns().is_empty() {
            return self.scorer.model().shape.rows_at_once();
        }
        self.scorer.rows_at_once()
    }

    /// The lines for `rows`, each with its verdict.
    fn written(&mut self, rows: &[Row], verdicts: &[Verdict]) -> Result<String, CliError> {
        for (row, verdict) in rows.iter().zip(verdicts) {
            if let Err(fault) = verdict
                && (!self.keep_going || *fault == RowFault::Unanswered)
            {
                return Err(ended(row, fault));
            }
        }
        let mut text = String::new();
        if self.format == Format::Csv && self.output.columns().is_empty() {
            let columns = columns(verdicts.iter().flatten().next())?;
            text = header(&columns, self.keep_going);
            self.output.set_columns(columns);
        }
        for (row, verdict) in rows.iter().zip(verdicts) {
            match (verdict, self.format) {
                (Ok(answer), Format::Ndjson) => text.push_str(&json!(answer.object()).to_string()),
                (Ok(answer), Format::Csv) => {
                    self.check(answer)?;
                    let cells: Vec<String> = answer.outputs().flat_map(|(_, value)| cells(&value)).collect();
                    text.push_str(&cells.join(","));
                    text.push_str(if self.keep_going { "," } else { "" });
                }
                (Err(fault), Format::Ndjson) => {
                    text.push_str(&json!({ "error": row.said(fault) }).to_string());
                }
                (Err(fault), Format::Csv) => {
                    let width: usize = self.output.columns().iter().map(|(_, width)| width).sum();
                    let _ = write!(text, "{}{}", ",".repeat(width), quoted(&row.said(fault)));
                }
            }
            text.push('\n');
        }
        Ok(text)
    }

    /// Refuses an answer that does not fit under the columns: models that answer rows with more or fewer values.
    fn check(&self, answer: &RowAnswer) -> Result<(), CliError> {
        let same = columns_of(answer).eq(self.output.columns().iter().cloned());
        if same { Ok(()) } else { Err(ragged()) }
    }
}

fn ragged() -> CliError {
    CliError::Usage {
        message: "the model does not answer each row with as many values, so that a CSV cannot hold them"
            .into(),
        next: "name the output .ndjson, for JSON lines".into(),
    }
}

/// Names of the outputs in `answer`, and how many values each has.
fn columns_of(answer: &RowAnswer) -> impl Iterator<Item = (String, usize)> {
    answer.outputs().map(|(name, value)| (name.to_owned(), value.as_array().map_or(1, Vec::len)))
}

/// The columns of a CSV, of which the first answer tells what the model does not declare.
fn columns(answer: Option<&RowAnswer>) -> Result<Vec<(String, usize)>, CliError> {
    let Some(answer) = answer else {
        let message = "not one of the first rows is answered, so that the columns are not known".into();
        return Err(CliError::Usage { message, next: "correct the input, or write JSON lines".into() });
    };
    Ok(columns_of(answer).collect())
}

/// The first line of a CSV.
fn header(columns: &[(String, usize)], keep_going: bool) -> String {
    let names = columns.iter().flat_map(|(name, width)| match width {
        1 => vec![quoted(name)],
        width => (0..*width).map(|at| quoted(&format!("{name}_{at}"))).collect(),
    });
    let error = keep_going.then(|| "error".to_owned());
    names.chain(error).collect::<Vec<_>>().join(",") + "\n"
}

fn open(path: &Path) -> Result<(File, u64, u64), CliError> {
    let unreadable = |why: &dyn std::fmt::Display| CliError::Usage {
        message: format!("{}: {why}", path.display()),
        next: "name a file of rows that can be read: CSV, or one JSON array or object a line".into(),
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err(unreadable(&"it is not a file; `serin-agent stream` takes what keeps coming"));
    }
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified = modified.and_then(|at| u64::try_from(at.as_nanos()).ok()).unwrap_or(0);
    Ok((file, metadata.len(), modified))
}

/// The next row; none at the end.
fn next(reader: &mut Rows, keep_going: bool) -> Result<Option<Row>, CliError> {
    let values = match reader.next_row() {
        Ok(None) => return Ok(None),
        Ok(Some(values)) => Ok(values),
        Err(error @ RowsError::Line { .. }) if keep_going && !reader.is_lost() => Err(error.to_string()),
        Err(error) => return Err(incorrect(&error)),
    };
    Ok(Some(Row { line: Some(reader.line()), values }))
}

/// What ends a batch at `row`.
fn ended(row: &Row, fault: &RowFault) -> CliError {
    let said = row.said(fault);
    match fault {
        RowFault::Unread(_) | RowFault::Refused { status: 400 | 413, .. } => unusable(said),
        // Whatever the status was, trying again does not help.
        RowFault::Refused { .. } => {
            let message = format!("{said}; --keep-going --restart lets it stand with its error");
            ClientError::Failed { status: 500, message }.into()
        }
        RowFault::Unanswered => ClientError::Malformed(said).into(),
    }
}

fn incorrect(error: &RowsError) -> CliError {
    unusable(error.to_string())
}

fn unusable(message: String) -> CliError {
    CliError::Usage {
        message,
        next:
            "correct the input and begin anew with --restart, or let errors stand with --keep-going --restart"
                .into(),
    }
}

/// As many rows as are asked about at once; none at the end.
fn some_rows(reader: &mut Rows, most: usize, keep_going: bool) -> Result<Vec<Row>, CliError> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < most && bytes < MAX_REQUEST_BYTES {
        let Some(row) = next(reader, keep_going)? else { break };
        bytes += row.values.as_ref().map_or_else(String::len, |values| weight(values));
        rows.push(row);
    }
    Ok(rows)
}

/// A value as cells of a CSV line (RFC 4180).
fn cells(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(cells).collect(),
        Value::Null => vec![String::new()],
        Value::String(text) => vec![quoted(text)],
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value.to_string()],
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

fn refused(error: &OutputError) -> CliError {
    let next = match error {
        OutputError::Exists(_) => "name another file, or remove this one",
        OutputError::Other { .. } | OutputError::Uncounted(_) => {
            "begin anew with --restart, or name another file"
        }
        OutputError::Busy(_) => "wait for it, or name another file",
        OutputError::Io { .. } => {
            let next = "see to it that the file can be written, then run this again; it goes on where it was if it can";
            return CliError::Stopped { message: error.to_string(), next: next.into() };
        }
    };
    CliError::Usage { message: error.to_string(), next: next.into() }
}

/// An answer that there is no such version means, in the middle of a file, that another one has taken over.
fn switched(error: CliError, release: &str) -> CliError {
    match error {
        CliError::Client(ClientError::Failed { status: 404, message }) => CliError::Stopped {
            message: format!("{release} does not answer any more: {message}"),
            next: "a file is scored by one version: begin anew with --restart, or run this again when it is back".into(),
        },
        other => other,
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
