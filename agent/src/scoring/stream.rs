//! `serin-agent stream`: a line in, a line out, in order. What has come while the model was busy is asked about
//! together, nothing is waited for, and no more is read than fits into a short queue: whoever writes feels it.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use serin_protocol::ids::ModelName;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::asking::{Model, active};
use super::bisect::{Scorer, Verdict};
use super::rows::{Row, RowReader, RowsError};
use super::shape::{MAX_REQUEST_BYTES, RowShape, weight};
use crate::field::cli::{CliError, Console};
use crate::field::client::Client;

/// Bytes of the rows that are read and not yet answered: what is asked about at once, and as much read ahead.
const MAX_HELD_BYTES: usize = 2 * MAX_REQUEST_BYTES;

/// A row, and its share of [`MAX_HELD_BYTES`].
struct Held {
    row: Row,
    share: OwnedSemaphorePermit,
}

/// Answers the rows of `input` until it ends.
pub(super) async fn run(
    model: Option<&ModelName>,
    socket: &Path,
    input: impl Read + Send + 'static,
    console: &mut Console,
) -> Result<(), CliError> {
    let mut scorer = look_up(model, socket).await?;
    let shape = scorer.model().shape.clone();
    // As many rows are read ahead as are asked about at once.
    let (rows, mut coming) = mpsc::channel(shape.rows_at_once());
    let runtime = Handle::current();
    // Not a task that blocks: the runtime would wait for one whose input never ends.
    std::thread::spawn(move || read(input, shape, &rows, &runtime));
    let mut some = Vec::new();
    while coming.recv_many(&mut some, scorer.rows_at_once()).await > 0 {
        let (mut rows, mut shares, mut end) = (Vec::new(), Vec::new(), None);
        for read in some.drain(..) {
            match read {
                Ok(Held { row, share }) => {
                    rows.push(row);
                    shares.push(share);
                }
                Err(error) => end = Some(error),
            }
        }
        let lines = answers(&mut scorer, &rows).await?;
        let text = lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
        console.print(&text)?;
        if let Some(error) = end {
            return Err(CliError::rows(&error));
        }
    }
    Ok(())
}

/// Who asks the model, in whatever version answers at the time.
pub(super) async fn look_up(model: Option<&ModelName>, socket: &Path) -> Result<Scorer, CliError> {
    let mut client = Client::connect(socket).await?;
    let name = match model {
        Some(name) => name.to_string(),
        None => active(&mut client).await?.0,
    };
    let model = Model::look_up(&mut client, &name).await?;
    Ok(Scorer::new(model, socket, client))
}

/// Reads rows until the input ends, or makes no sense altogether, or nobody wants them.
fn read(input: impl Read, shape: RowShape, rows: &mpsc::Sender<Result<Held, RowsError>>, runtime: &Handle) {
    let room = Arc::new(Semaphore::new(MAX_HELD_BYTES));
    let mut reader = RowReader::new(BufReader::new(input), shape);
    loop {
        let values = match reader.next_row() {
            Ok(None) => return,
            Ok(Some(values)) => Ok(values),
            Err(RowsError::Line { line, message }) if !reader.is_lost() => {
                Err(format!("line {line}: {message}"))
            }
            Err(error) => {
                // Whoever does not want to know has ended.
                let _ = rows.blocking_send(Err(error));
                return;
            }
        };
        let bytes = values.as_ref().map_or_else(String::len, |values| weight(values)).min(MAX_HELD_BYTES);
        let share = runtime.block_on(Arc::clone(&room).acquire_many_owned(bytes as u32));
        // It is never closed.
        let Ok(share) = share else { return };
        let row = Row { line: Some(reader.line()), values };
        if rows.blocking_send(Ok(Held { row, share })).is_err() {
            return;
        }
    }
}

/// One answer for each of `rows`: version and outputs, or the error of one that makes no sense or is refused.
pub(super) async fn answers(scorer: &mut Scorer, rows: &[Row]) -> Result<Vec<Value>, CliError> {
    let verdicts = scorer.answer(rows, true).await?;
    let line = |(row, verdict): (&Row, Verdict)| match verdict {
        Ok(answer) => json!({ "version": answer.version(), "outputs": answer.object() }),
        Err(fault) => json!({ "error": row.said(&fault) }),
    };
    Ok(rows.iter().zip(verdicts).map(line).collect())
}

/// A row on its own, as one message holds it.
pub(super) fn row_of(payload: &[u8], shape: &RowShape) -> Row {
    let mut reader = RowReader::new(io::Cursor::new(payload), shape.clone());
    let values = match reader.next_row() {
        Ok(Some(row)) => match reader.next_row() {
            Ok(None) => Ok(row),
            Ok(Some(_)) | Err(_) => Err("a message holds one row, and there is more in this one".into()),
        },
        Ok(None) => Err("the message is empty".into()),
        Err(RowsError::Line { message, .. }) => Err(message),
        Err(error @ RowsError::Read(_)) => Err(error.to_string()),
    };
    Row { line: None, values }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
