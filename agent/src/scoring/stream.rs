//! `serin-agent stream`: a line in, a line out, in order. What has come while the model was busy is asked about
//! together, nothing is waited for, and no more is read than fits into a short queue: whoever writes feels it.

use std::io::{self, BufReader, Read};
use std::path::Path;

use serde_json::{Value, json};
use serin_protocol::ids::ModelName;
use tokio::sync::mpsc;

use super::asking::{Asker, Model, active};
use super::rows::{RowReader, RowShape, RowValues, RowsError};
use crate::field::cli::{CliError, Console};
use crate::field::client::{Client, ClientError};

/// A row, or why it is none.
pub(super) type Row = Result<RowValues, String>;

/// Answers the rows of `input` until it ends.
pub(super) async fn run(
    model: Option<&ModelName>,
    socket: &Path,
    input: impl Read + Send + 'static,
    console: &mut Console,
) -> Result<(), CliError> {
    let (model, mut asker) = look_up(model, socket).await?;
    // As many rows are read ahead as are asked about at once.
    let (rows, mut coming) = mpsc::channel(model.shape.rows_at_once());
    let shape = model.shape.clone();
    // Not a task that blocks: the runtime would wait for one whose input never ends.
    std::thread::spawn(move || read(input, shape, &rows));
    let mut some = Vec::new();
    while coming.recv_many(&mut some, model.shape.rows_at_once()).await > 0 {
        let rows: Vec<Row> =
            some.drain(..).collect::<Result<_, RowsError>>().map_err(|error| CliError::rows(&error))?;
        let lines = answers(&model, &mut asker, &rows).await?;
        let text = lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
        console.print(&text)?;
    }
    Ok(())
}

/// The model to ask, in whatever version answers at the time.
pub(super) async fn look_up(model: Option<&ModelName>, socket: &Path) -> Result<(Model, Asker), CliError> {
    let mut client = Client::connect(socket).await?;
    let name = match model {
        Some(name) => name.to_string(),
        None => active(&mut client).await?.0,
    };
    let model = Model::look_up(&mut client, &name).await?;
    Ok((model, Asker::new(socket, client)))
}

/// Reads rows until the input ends, or makes no sense altogether, or nobody wants them.
fn read(input: impl Read, shape: RowShape, rows: &mpsc::Sender<Result<Row, RowsError>>) {
    let mut reader = RowReader::new(BufReader::new(input), shape);
    loop {
        let row = match reader.next_row() {
            Ok(None) => return,
            Ok(Some(row)) => Ok(Ok(row)),
            Err(RowsError::Line { line, message }) if !reader.is_lost() => {
                Ok(Err(format!("line {line}: {message}")))
            }
            Err(error) => Err(error),
        };
        let over = row.is_err();
        if rows.blocking_send(row).is_err() || over {
            return;
        }
    }
}

/// One answer for each of `rows`: version and outputs, or the error of one that makes no sense.
pub(super) async fn answers(model: &Model, asker: &mut Asker, rows: &[Row]) -> Result<Vec<Value>, CliError> {
    let sensible: Vec<RowValues> = rows.iter().flatten().cloned().collect();
    let answer = if sensible.is_empty() { None } else { Some(asker.ask(model, &sensible).await) };
    let answer = match (answer, rows) {
        // A broken image is known to be the one that was asked about.
        (Some(Err(CliError::Client(ClientError::Failed { status: 400, message }))), [_])
            if model.shape.has_images() =>
        {
            return Ok(vec![json!({ "error": message })]);
        }
        (answer, _) => answer.transpose()?,
    };
    let mut at = 0;
    let line = |row: &Row| match (row, &answer) {
        (Err(why), _) => json!({ "error": why }),
        (Ok(_), Some(answer)) if at < answer.rows() => {
            at += 1;
            json!({ "version": answer.model_version, "outputs": answer.object(at - 1) })
        }
        (Ok(_), _) => json!({ "error": "the model did not answer this row" }),
    };
    Ok(rows.iter().map(line).collect())
}

/// A row on its own, as one message holds it.
pub(super) fn row_of(payload: &[u8], shape: &RowShape) -> Row {
    match RowReader::new(io::Cursor::new(payload), shape.clone()).next_row() {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err("the message is empty".into()),
        Err(RowsError::Line { message, .. }) => Err(message),
        Err(error @ RowsError::Read(_)) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
