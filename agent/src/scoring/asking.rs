//! What a model takes, and asking about rows of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use serin_protocol::ids::Millis;
use serin_protocol::raw::RawValues;
use serin_protocol::tensor::DataType;

use super::shape::{Column, RowShape};
use crate::field::FieldReply;
use crate::field::cli::CliError;
use crate::field::client::{Client, ClientError, parse};
use crate::gateway::call::REMEMBER;
use crate::link::backoff::{Backoff, Jitter};

/// Between two tries of an agent that is busy, starting, or between two versions.
const PAUSE: Backoff = Backoff { first: Millis(250), cap: Millis(2000) };
/// Tries before giving up, some three minutes: an agent that was restarted has loaded its model by then.
const TRIES: u32 = 120;
/// Largest request in bytes, as the gateway has it. What is larger need not be sent to be refused.
const MAX_BODY_BYTES: usize = 8 << 20;

#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<InputMetadata>,
    #[serde(default)]
    outputs: Vec<OutputMetadata>,
}

#[derive(Deserialize)]
struct OutputMetadata {
    name: String,
    shape: Vec<i64>,
}

#[derive(Deserialize)]
struct InputMetadata {
    name: String,
    datatype: DataType,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    #[serde(default)]
    features: Vec<String>,
    /// Formats of files, where it takes images.
    #[serde(default)]
    formats: Vec<String>,
}

/// What an inference is answered with.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    /// The version that computed it.
    #[serde(default)]
    pub(crate) model_version: String,
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    data: Vec<Value>,
}

/// A model, and how it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    path: String,
    inputs: Vec<Input>,
    /// What a row must hold.
    pub(crate) shape: RowShape,
    /// Names of the outputs and how many values a row has in each; none where that is known only from answers.
    pub(super) columns: Option<Vec<(String, usize)>>,
}

/// The release that answers now, as model and version.
///
/// # Errors
/// The agent does not answer, or no release is active.
pub(crate) async fn active(client: &mut Client) -> Result<(String, String), CliError> {
    let FieldReply::Status(status) = client.field("status", None).await? else {
        return Err(ClientError::Malformed("not a status".into()).into());
    };
    match status.active {
        Some(slot) => Ok((slot.release.model.to_string(), slot.release.version.to_string())),
        None => Err(CliError::Client(ClientError::Failed {
            status: 503,
            message: "no release is active on this device".into(),
        })),
    }
}

/// One input, some neighbouring values of a row.
#[derive(Clone, Debug)]
struct Input {
    name: String,
    datatype: DataType,
    /// Lengths of one row.
    row: Vec<i64>,
    /// Values of one row.
    width: usize,
    /// Whether they are files of images.
    is_image: bool,
}

impl Model {
    /// What `model` takes, in whatever version answers.
    ///
    /// # Errors
    /// The agent does not know it, or it has several inputs whose values have no names.
    pub(crate) async fn look_up(client: &mut Client, model: &str) -> Result<Self, CliError> {
        let path = format!("/v2/models/{model}");
        let metadata: Metadata = parse(&client.gateway(&path, None).await?)?;
        let mut inputs = Vec::with_capacity(metadata.inputs.len());
        let mut columns = Vec::new();
        for InputMetadata { name, datatype, shape, parameters } in metadata.inputs {
            let row = shape.get(1..).unwrap_or_default().to_vec();
            let width = width_of(&shape)
                .ok_or_else(|| ClientError::Malformed(format!("the shape {shape:?} of {name}")))?;
            let is_image = datatype == DataType::Bytes && !parameters.formats.is_empty();
            let column = |name: Option<String>| Column { name, datatype, is_image };
            match parameters.features.as_slice() {
                [] if row.is_empty() => columns.push(column(Some(name.clone()))),
                [] => columns.extend(std::iter::repeat_n(column(None), width)),
                features => columns.extend(features.iter().cloned().map(|name| column(Some(name)))),
            }
            inputs.push(Input { name, datatype, row, width, is_image });
        }
        if inputs.len() > 1 && columns.iter().any(|column| column.name.is_none()) {
            let message = format!("{model} has {} inputs, and not all values have names", inputs.len());
            return Err(CliError::Usage { message, next: "give a whole request to `infer`, as JSON".into() });
        }
        let outputs = metadata.outputs.into_iter();
        let outputs: Option<Vec<_>> =
            outputs.map(|output| Some((output.name, width_of(&output.shape)?))).collect();
        let known = outputs.filter(|outputs| !outputs.is_empty());
        Ok(Self { path, inputs, shape: RowShape { columns }, columns: known })
    }

    /// The same, but of this version only.
    pub(crate) fn of_version(mut self, version: &str) -> Self {
        self.path = format!("{}/versions/{version}", self.path);
        self
    }

    /// Asks about `rows`.
    ///
    /// # Errors
    /// The agent's.
    pub(crate) async fn ask(
        &self,
        client: &mut Client,
        rows: &[impl AsRef<[Value]>],
    ) -> Result<Answer, ClientError> {
        let (mut first, mut files) = (0, Vec::new());
        let tensors: Result<Vec<Value>, ClientError> = self
            .inputs
            .iter()
            .map(|input| {
                let places = first..first + input.width;
                first = places.end;
                let data: Vec<&Value> = rows
                    .iter()
                    .flat_map(|row| row.as_ref().get(places.clone()).unwrap_or_default())
                    .collect();
                let lengths = input.row.iter().map(|length| json!(length));
                let shape: Vec<Value> = std::iter::once(json!(rows.len())).chain(lengths).collect();
                let Input { name, datatype, .. } = input;
                if !input.is_image {
                    return Ok(json!({ "name": name, "datatype": datatype, "shape": shape, "data": data }));
                }
                // JSON has no bytes: they go behind it.
                let mut raw = RawValues::new(*datatype);
                let pushed = data.iter().try_for_each(|value| raw.push(*datatype, value));
                pushed.map_err(ClientError::Malformed)?;
                let before = files.len();
                raw.write(*datatype, &mut files);
                let parameters = json!({ "binary_data_size": files.len() - before });
                Ok(json!({ "name": name, "datatype": datatype, "shape": shape, "parameters": parameters }))
            })
            .collect();
        // Rows in bulk would crowd out what apps asked, and nobody knows them by a name.
        let request = json!({ "inputs": tensors?, "parameters": { REMEMBER: false } }).to_string();
        let bytes = request.len() + files.len();
        if bytes > MAX_BODY_BYTES {
            let message = format!("a request of {bytes} bytes, the agent takes {MAX_BODY_BYTES}");
            return Err(ClientError::Failed { status: 413, message });
        }
        parse(&client.infer(&format!("{}/infer", self.path), request, &files).await?)
    }
}

/// Values of one row in a tensor of this shape, the first length of which is of rows; none where it varies.
fn width_of(shape: &[i64]) -> Option<usize> {
    let row = shape.get(1..).unwrap_or_default();
    row.iter().try_fold(1_usize, |product, length| {
        usize::try_from(*length).ok().and_then(|length| product.checked_mul(length))
    })
}

impl Answer {
    /// How many rows it is about.
    pub(crate) fn rows(&self) -> usize {
        self.outputs.iter().filter_map(|output| output.shape.first().copied()).min().unwrap_or(0)
    }

    /// Name and value of each output for row `row`: bare if a row has but one value.
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = (&str, Value)> {
        self.outputs.iter().map(move |output| (output.name.as_str(), output.row(row)))
    }

    /// The same as an object.
    pub(crate) fn object(&self, row: usize) -> Value {
        Value::Object(self.row(row).map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
    }
}

impl Output {
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

/// Asks again and again, over restarts of the agent, for work that nobody stands beside.
pub(super) struct Asker {
    socket: PathBuf,
    client: Option<Client>,
    jitter: Jitter,
}

impl Asker {
    pub(super) fn new(socket: &Path, client: Client) -> Self {
        // Without randomness tries are only less spread.
        let jitter = Jitter::new(getrandom::u64().unwrap_or_default());
        Self { socket: socket.into(), client: Some(client), jitter }
    }

    /// Asks `model` about `rows`; while the agent is away, busy or between two versions, waits and tries again. The answer,
    /// and how long it took at last.
    ///
    /// # Errors
    /// What trying again does not change, or that it did not help.
    pub(super) async fn ask(
        &mut self,
        model: &Model,
        rows: &[impl AsRef<[Value]>],
    ) -> Result<(Answer, Duration), ClientError> {
        let mut tries = 1;
        loop {
            let begun = Instant::now();
            let error = match self.try_once(model, rows).await {
                Ok(answer) => return Ok((answer, begun.elapsed())),
                Err(error) => error,
            };
            let passes = match &error {
                ClientError::Broken(_) | ClientError::Unreachable { .. } => {
                    self.client = None;
                    true
                }
                ClientError::Failed { status, .. } => matches!(status, 429 | 503),
                // The next worker would die of the same.
                ClientError::Deadly { .. } | ClientError::Refused(_) | ClientError::Malformed(_) => false,
            };
            if !passes || tries >= TRIES {
                return Err(error);
            }
            let pause = PAUSE.wait(tries, &mut self.jitter);
            tries += 1;
            tokio::time::sleep(Duration::from_millis(pause.0)).await;
        }
    }

    async fn try_once(&mut self, model: &Model, rows: &[impl AsRef<[Value]>]) -> Result<Answer, ClientError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.socket).await?),
        };
        model.ask(client, rows).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Limits;

    #[test]
    fn what_the_gateway_takes_is_known() {
        assert_eq!(MAX_BODY_BYTES, Limits::default().body);
    }
}
