//! `serin-agent label`: tells the agent what turned out to be true, one label or a file of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cli::{CliError, Console, Exit};
use super::client::{Client, parse};
use crate::gateway::remember::{MAX_LABELS, NotTaken, Taken};

/// Arguments of `label`.
#[derive(Clone, Debug, Args)]
pub struct LabelArgs {
    /// The request: the id it was made with, or its answer's X-Request-Id.
    #[arg(value_name = "REQUEST-ID", requires = "value", conflicts_with = "file")]
    pub id: Option<String>,
    /// What turned out to be true: a class by name or number, or a value.
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    pub value: Option<String>,
    /// The row of the request, from 0.
    #[arg(long, value_name = "NUMBER", conflicts_with = "file")]
    pub row: Option<usize>,
    /// Many at once: CSV with the columns id and value, or one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Longest line of a file: a name and a label as long as they can be.
const MAX_LINE_BYTES: u64 = 4096;

/// One label.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    id: String,
    #[serde(default)]
    row: Option<usize>,
    value: Value,
}

/// A label with its line in the file.
type Numbered = (u64, Label);

/// What became of all labels.
#[derive(Serialize)]
struct Counted {
    taken: usize,
    refused: Vec<NotCounted>,
}

/// A label that does not count.
#[derive(Serialize)]
struct NotCounted {
    /// Its line in the file, if it came in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(flatten)]
    one: NotTaken,
}

impl Label {
    fn json(&self) -> Value {
        json!({ "id": self.id, "row": self.row.unwrap_or(0), "value": self.value })
    }
}

/// Tells the agent; done when every label counts.
pub(super) async fn run(
    client: &mut Client,
    args: &LabelArgs,
    console: &mut Console,
) -> Result<Exit, CliError> {
    let (mut taken, mut refused) = (0, Vec::new());
    let mut wrong = None;
    match (&args.file, &args.id, &args.value) {
        (Some(path), None, None) => {
            let mut labels = labels(path)?;
            let mut before = 0;
            while wrong.is_none() {
                let mut batch: Vec<Numbered> = Vec::new();
                for label in labels.by_ref().take(MAX_LABELS) {
                    match label {
                        Ok(label) => batch.push(label),
                        // Those of the lines before it count all the same.
                        Err(error) => {
                            wrong = Some(error);
                            break;
                        }
                    }
                }
                if batch.is_empty() {
                    break;
                }
                let told = tell(client, batch.iter().map(|(_, label)| label.json()).collect()).await?;
                taken += told.taken;
                refused.extend(told.refused.into_iter().map(|one| {
                    let line = batch.get(one.at).map(|(line, _)| *line);
                    NotCounted { line, one: NotTaken { at: before + one.at, ..one } }
                }));
                before += batch.len();
            }
        }
        (None, Some(id), Some(value)) => {
            let label = Label { id: id.clone(), row: args.row, value: value.as_str().into() };
            let told = tell(client, vec![label.json()]).await?;
            taken = told.taken;
            refused.extend(told.refused.into_iter().map(|one| NotCounted { line: None, one }));
        }
        (_, _, _) => {
            return Err(CliError::Usage {
                message: "name a request and what turned out to be true, or a file of both".into(),
                next: "`serin-agent label REQUEST-ID VALUE`, or `serin-agent label --file labels.csv`".into(),
            });
        }
    }
    let exit = if refused.is_empty() { Exit::Done } else { Exit::Refused };
    print(&Counted { taken, refused }, args.json, console)?;
    wrong.map_or(Ok(exit), Err)
}

fn print(counted: &Counted, as_json: bool, console: &mut Console) -> Result<(), CliError> {
    if as_json {
        let text = serde_json::to_string(counted).map_err(|error| CliError::malformed(&error))?;
        return console.print(&(text + "\n"));
    }
    let Counted { taken, refused } = counted;
    for NotCounted { line, one: NotTaken { id, row, why, .. } } in refused {
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        console.note(&format!("{line}{id}, row {row}, does not count: {why}"))?;
    }
    let plural = if *taken == 1 { "label counts" } else { "labels count" };
    console.print(&format!("{taken} {plural}, {} not\n", refused.len()))
}

async fn tell(client: &mut Client, labels: Vec<Value>) -> Result<Taken, CliError> {
    let body = json!({ "labels": labels }).to_string();
    Ok(parse(&client.gateway("/v2/labels", Some(body.into())).await?)?)
}

/// The labels of a file: JSON objects, one a line, or CSV with the columns id, value and perhaps row.
fn labels(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Numbered, CliError>> + Send>, CliError> {
    let wrong = |message: String| {
        CliError::Usage {
        message: format!("{}: {message}", path.display()),
        next: "a file of labels has one JSON object a line, {\"id\": \"order-7\", \"value\": \"cat\"}, or is CSV \
               with the columns id and value, and row where requests have several"
            .into(),
    }
    };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut file = BufReader::new(file);
    let start = file.fill_buf().map_err(|error| wrong(error.to_string()))?;
    let shown = path.to_owned();
    let wrong_line = move |line: u64, message: String| CliError::Usage {
        message: format!("{}, line {line}: {message}", shown.display()),
        next: "correct the line; the labels of lines before it have been told, those from it on have not"
            .into(),
    };
    if start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return Ok(Box::new(lines(file).enumerate().filter_map(move |(at, line)| {
            let number = at as u64 + 1;
            match line {
                Ok(line) if line.trim().is_empty() => None,
                Ok(line) => Some(
                    serde_json::from_str(&line)
                        .map(|label| (number, label))
                        .map_err(|error| wrong_line(number, error.to_string())),
                ),
                Err(error) => Some(Err(wrong_line(number, error.to_string()))),
            }
        })));
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let head = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    if !["id", "value"].iter().all(|column| head.iter().any(|name| name == *column)) {
        return Err(wrong("the first line does not name the columns id and value".into()));
    }
    Ok(Box::new(reader.into_records().map(move |record| {
        let line = |record: &csv::StringRecord| record.position().map_or(0, csv::Position::line);
        let record = record.map_err(|error| {
            wrong_line(error.position().map_or(0, csv::Position::line), error.to_string())
        })?;
        let cell = |name: &str| head.iter().position(|column| column == name).and_then(|at| record.get(at));
        let row = match cell("row").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| wrong_line(line(&record), format!("{text:?} is no number of a row")))?,
            ),
        };
        let label = Label {
            id: cell("id").unwrap_or_default().to_owned(),
            row,
            value: cell("value").unwrap_or_default().into(),
        };
        Ok((line(&record), label))
    })))
}

/// Bounded lines.
fn lines(mut reader: BufReader<File>) -> impl Iterator<Item = std::io::Result<String>> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        let mut bounded = std::io::Read::take(&mut reader, MAX_LINE_BYTES);
        match bounded.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with('\n') => {
                Some(Err(std::io::Error::other(format!("longer than {MAX_LINE_BYTES} bytes"))))
            }
            Ok(_) => Some(Ok(line)),
            Err(error) => Some(Err(error)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Numbered>, String> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("labels");
        std::fs::write(&path, text).expect("written");
        labels(&path).and_then(Iterator::collect).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_are_read_as_csv_and_as_json_lines() {
        for text in [
            "row, id, value\n,order-7,cat\n2,\"order,8\",3\n",
            "\n{\"id\":\"order-7\",\"value\":\"cat\"}\n{\"id\":\"order,8\",\"row\":2,\"value\":\"3\"}\n",
        ] {
            let labels = read(text).expect("good");
            let shown: Vec<_> =
                labels.iter().map(|(line, label)| (*line, label.id.as_str(), label.row)).collect();
            assert_eq!(shown, [(2, "order-7", None), (3, "order,8", Some(2))]);
            assert_eq!(labels[1].1.value, "3");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let says = |text: &str| read(text).err().expect("wrong");
        assert!(says("name,value\na,1\n").contains("columns id and value"));
        assert!(says("id,value,row\na,1,x\n").contains("line 2: \"x\" is no number"));
        assert!(says("id,value\na\n").contains("line 2"));
        assert!(says("{\"id\":\"a\",\"value\":1}\n{\"id\":\"b\"}\n").contains("line 2: missing field"));
    }
}
