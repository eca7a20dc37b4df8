//! An answer or an error for each row, whatever is asked about together. A request that is refused is halved until the row
//! is found that it is refused for, which takes some log2(n) requests more for each such row. One that a worker died of is
//! asked row by row instead: each half of it might cost a worker more.

use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::asking::{Answer, Asker, Model};
use super::pace::Pace;
use super::rows::Row;
use super::shape::{MAX_REQUEST_BYTES, weight};
use crate::field::cli::CliError;
use crate::field::client::{Client, ClientError};

/// What the model said to a row.
#[derive(Clone, Debug)]
pub(super) struct RowAnswer {
    answer: Rc<Answer>,
    row: usize,
}

impl RowAnswer {
    /// The version that computed it.
    pub(super) fn version(&self) -> &str {
        &self.answer.model_version
    }

    /// Name and value of each output: bare if there is but one value.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (&str, Value)> {
        self.answer.row(self.row)
    }

    /// The same as an object.
    pub(super) fn object(&self) -> Map<String, Value> {
        self.outputs().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Why a row has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowFault {
    /// It is no row; the message says where.
    #[error("{0}")]
    Unread(String),
    /// The gateway refuses it, the model fails on it, or a worker died of it.
    #[error("{message}")]
    Refused {
        /// Status of the gateway's answer.
        status: u16,
        /// Why.
        message: String,
    },
    /// Fewer rows were answered than were asked about.
    #[error("the model did not answer this row")]
    Unanswered,
}

/// What becomes of a row.
pub(super) type Verdict = Result<RowAnswer, RowFault>;

/// What is asked about a model, at its pace.
pub(super) struct Scorer {
    model: Model,
    asker: Asker,
    pace: Pace,
}

/// Rows that a worker died of together.
#[derive(Default)]
struct Suspects {
    /// All of them.
    count: usize,
    /// Those that were not asked about alone yet.
    left: usize,
    /// Whether one of them killed a worker alone.
    found: bool,
}

/// What a request that failed says of its rows.
enum Failed {
    /// At least one of them is refused.
    Refused(RowFault),
    /// A worker died of them.
    Deadly(RowFault),
    /// Nothing.
    Otherwise(ClientError),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Deadly { message } => Self::Deadly(RowFault::Refused { status: 503, message }),
            ClientError::Failed { status: status @ (400 | 413 | 500), message } => {
                Self::Refused(RowFault::Refused { status, message })
            }
            error => Self::Otherwise(error),
        }
    }
}

impl Scorer {
    pub(super) fn new(model: Model, socket: &Path, client: Client) -> Self {
        Self { model, asker: Asker::new(socket, client), pace: Pace::new() }
    }

    pub(super) const fn model(&self) -> &Model {
        &self.model
    }

    /// How many rows are best given to it at once.
    pub(super) fn rows_at_once(&self) -> usize {
        self.pace.rows().min(self.model.shape.rows_at_once())
    }

    /// What becomes of each of `rows`, in order; unless `keep_going`, of those up to the first that has no answer.
    ///
    /// # Errors
    /// What is wrong with none of the rows.
    pub(super) async fn answer(&mut self, rows: &[Row], keep_going: bool) -> Result<Vec<Verdict>, CliError> {
        let sensible: Vec<&[Value]> = rows.iter().filter_map(|row| row.values.as_deref().ok()).collect();
        let mut answered = self.ask(&sensible, keep_going).await?.into_iter();
        let verdict = |row: &Row| match &row.values {
            Ok(_) => answered.next(),
            Err(why) => Some(Err(RowFault::Unread(why.clone()))),
        };
        Ok(rows.iter().map_while(verdict).collect())
    }

    async fn ask(&mut self, rows: &[&[Value]], keep_going: bool) -> Result<Vec<Verdict>, CliError> {
        let mut verdicts = Vec::with_capacity(rows.len());
        // What is left to ask about, the next part last.
        let mut parts = vec![rows];
        let mut suspects = Suspects::default();
        while let Some(part) = parts.pop() {
            let most = if suspects.left > 0 { 1 } else { self.rows_at_once() };
            let (now, later) = part.split_at(together(part, most));
            if !later.is_empty() {
                parts.push(later);
            }
            if now.is_empty() {
                continue;
            }
            let failed = match self.asker.ask(&self.model, now).await {
                Ok((answer, took)) => {
                    self.pace.answered(now.len(), took);
                    verdicts.extend(shares(answer, now.len()));
                    self.cleared(&mut suspects, false);
                    continue;
                }
                Err(error) => Failed::from(error),
            };
            match (failed, now) {
                (Failed::Otherwise(error), _) => return Err(error.into()),
                (Failed::Deadly(fault), [_]) => {
                    self.pace.died();
                    verdicts.push(Err(fault));
                    self.cleared(&mut suspects, true);
                }
                (Failed::Refused(fault), [_]) => {
                    verdicts.push(Err(fault));
                    self.cleared(&mut suspects, false);
                }
                (Failed::Deadly(_), rows) => {
                    self.pace.died();
                    suspects = Suspects { count: rows.len(), left: rows.len(), found: false };
                    parts.push(rows);
                }
                (Failed::Refused(_), rows) => {
                    let (first, second) = rows.split_at(rows.len() / 2);
                    parts.extend([second, first]);
                }
            }
            if !keep_going && matches!(verdicts.last(), Some(Err(_))) {
                break;
            }
        }
        Ok(verdicts)
    }

    /// One of `suspects`, if there are any, was asked about alone.
    fn cleared(&mut self, suspects: &mut Suspects, killed: bool) {
        if suspects.left == 0 {
            return;
        }
        suspects.left -= 1;
        suspects.found |= killed;
        if suspects.left == 0 && !suspects.found {
            self.pace.too_many(suspects.count);
        }
    }
}

/// How many of the first of `rows`, at most `most`, go into one request.
fn together(rows: &[&[Value]], most: usize) -> usize {
    let mut bytes = 0_usize;
    let fit = rows.iter().take(most).take_while(|row| {
        bytes = bytes.saturating_add(weight(row));
        bytes <= MAX_REQUEST_BYTES
    });
    // One that is too large alone is refused with its reason.
    fit.count().max(1).min(rows.len())
}

/// What `answer` says to each of `rows` rows.
fn shares(answer: Answer, rows: usize) -> impl Iterator<Item = Verdict> {
    let answer = Rc::new(answer);
    (0..rows).map(move |row| {
        if row < answer.rows() {
            Ok(RowAnswer { answer: Rc::clone(&answer), row })
        } else {
            Err(RowFault::Unanswered)
        }
    })
}

#[cfg(test)]
#[path = "bisect_tests.rs"]
pub(super) mod tests;
