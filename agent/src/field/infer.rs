//! `serin-agent infer`: rows or a whole request in, one line of outputs per row out.

use std::fmt::Write as _;
use std::io::{BufRead, Read as _};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cli::{CliError, Console};
use super::client::{Client, ClientError, parse};
use super::reply::FieldReply;
use super::rows::{RowReader, RowShape};

/// Largest request taken whole: what the gateway takes.
const MAX_REQUEST_BYTES: u64 = 8 << 20;

#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<InputMetadata>,
}

#[derive(Deserialize)]
struct InputMetadata {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    data: Vec<Value>,
}

/// Asks `model`, or the model that is active, about everything in `input`.
pub(super) async fn run<R: BufRead>(
    client: &mut Client,
    model: Option<String>,
    mut input: R,
    as_json: bool,
    console: &mut Console,
) -> Result<(), CliError> {
    let model = match model {
        Some(model) => model,
        None => active_model(client).await?,
    };
    let path = format!("/v2/models/{model}");
    if starts_with_object(&mut input)? {
        let mut request = Vec::new();
        input.take(MAX_REQUEST_BYTES + 1).read_to_end(&mut request).map_err(CliError::input)?;
        let answer = client.gateway(&format!("{path}/infer"), Some(request.into())).await?;
        return print(&answer, as_json, console);
    }
    let metadata: Metadata = parse(&client.gateway(&path, None).await?)?;
    let [input_metadata] = metadata.inputs.as_slice() else {
        let message = format!("{model} has {} inputs; rows fit only a model of one", metadata.inputs.len());
        return Err(CliError::Usage { message, next: "give a whole request as JSON".into() });
    };
    let InputMetadata { name, datatype, shape, parameters } = input_metadata;
    let row = shape.get(1..).unwrap_or_default();
    let width = row.iter().try_fold(1_usize, |product, length| {
        usize::try_from(*length).ok().and_then(|length| product.checked_mul(length))
    });
    let width = width.ok_or_else(|| ClientError::Malformed(format!("the shape {shape:?} of {name}")))?;
    let mut reader = RowReader::new(input, RowShape { width, features: parameters.features.clone() });
    let mut told = false;
    while let Some(values) = reader.next_batch().map_err(CliError::rows)? {
        if !told && !reader.ignored.is_empty() {
            console.note(&format!("columns left out: {}", reader.ignored.join(", ")))?;
            told = true;
        }
        let rows = (values.len() / width.max(1)) as i64;
        let shape: Vec<i64> = std::iter::once(rows).chain(row.iter().copied()).collect();
        // What is not a number is written as null: a missing value.
        let tensor = json!({ "name": name, "datatype": datatype, "shape": shape, "data": values });
        let request = Bytes::from(json!({ "inputs": [tensor] }).to_string());
        let answer = client.gateway(&format!("{path}/infer"), Some(request)).await?;
        print(&answer, as_json, console)?;
    }
    Ok(())
}

async fn active_model(client: &mut Client) -> Result<String, CliError> {
    let FieldReply::Status(status) = client.field("status", None).await? else {
        return Err(ClientError::Malformed("not a status".into()).into());
    };
    match status.active {
        Some(slot) => Ok(slot.release.model.to_string()),
        None => Err(CliError::Client(ClientError::Failed {
            status: 503,
            message: "no release is active on this device".into(),
        })),
    }
}

/// Whether the first thing in `input` is a JSON object, which only a whole request is.
fn starts_with_object<R: BufRead>(input: &mut R) -> Result<bool, CliError> {
    loop {
        let buffer = input.fill_buf().map_err(CliError::input)?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match buffer.get(blank) {
            Some(first) => return Ok(*first == b'{'),
            None if blank == 0 => return Ok(false),
            None => input.consume(blank),
        }
    }
}

fn print(answer: &[u8], as_json: bool, console: &mut Console) -> Result<(), CliError> {
    let answer: Answer = parse(answer)?;
    let rows = answer.outputs.iter().filter_map(|output| output.shape.first().copied()).min().unwrap_or(0);
    for row in 0..rows {
        let mut line = String::new();
        if as_json {
            let named = answer.outputs.iter().map(|output| (output.name.clone(), output.row(row)));
            let _ = write!(line, "{}", Value::Object(named.collect::<Map<_, _>>()));
        } else {
            for output in &answer.outputs {
                let gap = if line.is_empty() { "" } else { "  " };
                let _ = write!(line, "{gap}{}={}", output.name, output.row(row));
            }
        }
        line.push('\n');
        console.print(&line)?;
    }
    Ok(())
}

impl Output {
    /// The values of row `row`: bare if a row has but one.
    fn row(&self, row: usize) -> Value {
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        let width = self.data.len() / rows;
        let values = self.data.get(row * width..(row + 1) * width).unwrap_or_default();
        match (self.shape.len(), values) {
            (1, [value]) => value.clone(),
            (_, values) => Value::Array(values.to_vec()),
        }
    }
}
