//! `serin-agent infer`: rows or a whole request in, one line of outputs per row out.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};

use super::cli::{CliError, Console, InferArgs};
use super::client::{Client, parse};
use crate::scoring::asking::{Answer, Model, active};
use crate::scoring::rows::RowReader;

/// Largest request taken whole: what the gateway takes.
const MAX_REQUEST_BYTES: u64 = 8 << 20;

/// Carries the command out.
pub(super) async fn command(
    client: &mut Client,
    args: &InferArgs,
    console: &mut Console,
) -> Result<(), CliError> {
    let model = args.model.as_ref().map(ToString::to_string);
    match &args.file {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::open(path).map_err(|error| CliError::Usage {
                message: format!("{}: {error}", path.display()),
                next: "name a file that can be read, or `-` for standard input".into(),
            })?;
            run(client, model, BufReader::new(file), args.json, console).await
        }
        Some(_) | None => run(client, model, io::stdin().lock(), args.json, console).await,
    }
}

/// Asks `model`, or the model that is active, about everything in `input`.
async fn run<R: BufRead>(
    client: &mut Client,
    model: Option<String>,
    mut input: R,
    as_json: bool,
    console: &mut Console,
) -> Result<(), CliError> {
    let model = match model {
        Some(model) => model,
        None => active(client).await?.0,
    };
    if starts_with_object(&mut input)? {
        let mut request = Vec::new();
        input
            .take(MAX_REQUEST_BYTES + 1)
            .read_to_end(&mut request)
            .map_err(|error| CliError::input(&error))?;
        let answer = client.gateway(&format!("/v2/models/{model}/infer"), Some(request.into())).await?;
        return print(&parse(&answer)?, as_json, console);
    }
    let model = Model::look_up(client, &model).await?;
    let mut reader = RowReader::new(input, model.shape.clone());
    let mut told = false;
    loop {
        let rows = reader.next_batch().map_err(|error| CliError::rows(&error))?;
        if rows.is_empty() {
            return Ok(());
        }
        if !told && !reader.ignored.is_empty() {
            console.note(&format!("columns left out: {}", reader.ignored.join(", ")))?;
            told = true;
        }
        print(&model.ask(client, &rows).await?, as_json, console)?;
    }
}

/// Whether the first thing in `input` is a JSON object, which only a whole request is.
fn starts_with_object<R: BufRead>(input: &mut R) -> Result<bool, CliError> {
    loop {
        let buffer = input.fill_buf().map_err(|error| CliError::input(&error))?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match buffer.get(blank) {
            Some(first) => return Ok(*first == b'{'),
            None if blank == 0 => return Ok(false),
            None => input.consume(blank),
        }
    }
}

fn print(answer: &Answer, as_json: bool, console: &mut Console) -> Result<(), CliError> {
    for row in 0..answer.rows() {
        let mut line = String::new();
        if as_json {
            let _ = write!(line, "{}", answer.object(row));
        } else {
            for (name, value) in answer.row(row) {
                let gap = if line.is_empty() { "" } else { "  " };
                let _ = write!(line, "{gap}{name}={value}");
            }
        }
        line.push('\n');
        console.print(&line)?;
    }
    Ok(())
}
