//! `POST /field/v1/sideload`: a parcel as it is read from a stick. Its papers go to the supervisor first; the
//! bundle follows only if he takes it, piece by piece, so that no more of it is held than a few pieces.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serin_protocol::ids::ReleaseId;
use serin_protocol::parcel::{Entry, ParcelError, ParcelReader, Piece};
use tokio::sync::{mpsc, oneshot};

use super::command::{FieldCommand, FieldOutcome, FieldRequest, Sideload};
use super::reply::{FieldCode, FieldError, FieldReply};
use super::routes;
use crate::disk::intake;
use crate::trust::offline::Papers;

/// Metadata of one parcel, held until it is checked: hundreds of roots of usual size.
const MAX_PAPERS: u64 = 4 << 20;
/// Pieces of the bundle that wait for the disk, a read buffer each.
const QUEUE: usize = 16;
/// A stick that gives nothing for this long is broken or pulled.
const STALLED: Duration = Duration::from_mins(1);
/// The rest of a refused file is read and thrown away for this long: a caller who is still sending when the
/// connection closes may not see the answer.
const DISCARD: Duration = Duration::from_secs(30);
/// Time from the last byte to the outcome. The update machine gives up before.
const OUTCOME: Duration = Duration::from_secs(3700);

/// What to do with a file that is none.
const EXPORT: &str = "make one with `serin-fleet release export MODEL@VERSION -o FILE`";

/// Takes the file in and waits for what becomes of it.
pub(super) async fn answer(
    supervisor: &mpsc::Sender<FieldRequest>,
    uid: u32,
    mut body: Incoming,
) -> FieldOutcome {
    let mut taking = Taking { supervisor, uid, reader: ParcelReader::default(), papers: None, given: None };
    let early = loop {
        let frame = match &mut taking.given {
            // Its word may come before the file's end.
            Some(Given { reply, .. }) => tokio::select! {
                biased;
                outcome = reply => break Some(outcome.unwrap_or_else(|_| Err(routes::stopping()))),
                frame = next(&mut body) => frame,
            },
            None => next(&mut body).await,
        };
        let taken = match frame {
            Ok(Some(data)) => taking.take(&data).await,
            Ok(None) => taking.reader.finish().map_err(|error| unusable(&error)).map(|()| false),
            Err(why) => Err(FieldError::new(FieldCode::BadFile, why, "check the stick, then try again")),
        };
        match taken {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => match &taking.given {
                // What has begun ends with a reason in the supervisor's books.
                Some(Given { pieces, .. }) => {
                    let _ = pieces.send(Err(error.message)).await;
                    break None;
                }
                None => break Some(Err(error)),
            },
        }
    };
    let waited = match taking.given {
        Some(Given { reply, pieces }) if early.is_none() => {
            drop(pieces);
            Some(tokio::time::timeout(OUTCOME, reply).await)
        }
        Some(_) | None => None,
    };
    let outcome = match (early, waited) {
        (Some(outcome), _) | (None, Some(Ok(Ok(outcome)))) => outcome,
        (None, Some(Err(_))) => {
            Err(FieldError::new(FieldCode::Timeout, "it takes too long", "look at `serin-agent status`"))
        }
        (None, Some(Ok(Err(_))) | None) => Err(routes::stopping()),
    };
    if outcome.is_err() {
        let rest = async { while body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
        // Whoever sends on for longer sees a broken connection.
        let _ = tokio::time::timeout(DISCARD, rest).await;
    }
    outcome
}

/// The next bytes of the body; none at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    loop {
        match tokio::time::timeout(STALLED, body.frame()).await {
            Err(_) => return Err(format!("nothing came for {} seconds", STALLED.as_secs())),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(format!("the file broke off: {error}")),
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing here.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

struct Taking<'a> {
    supervisor: &'a mpsc::Sender<FieldRequest>,
    uid: u32,
    reader: ParcelReader,
    papers: Option<Papers>,
    given: Option<Given>,
}

/// What the supervisor was given: the bundle's way to him, and his word.
struct Given {
    pieces: mpsc::Sender<intake::Piece>,
    reply: oneshot::Receiver<Result<FieldReply, FieldError>>,
}

impl Taking<'_> {
    /// Takes the next bytes; false when the supervisor wants no more of them.
    async fn take(&mut self, data: &Bytes) -> Result<bool, FieldError> {
        let mut input = &data[..];
        while let Some(piece) = self.reader.next(&mut input).map_err(|error| unusable(&error))? {
            match piece {
                Piece::Release(release) => self.papers = Some(empty(release)),
                Piece::Start(Entry::Bundle, size) => self.give(size)?,
                Piece::Start(entry, size) => self.begin(entry, size)?,
                Piece::Data(bytes) => match &self.given {
                    Some(Given { pieces, .. }) => {
                        if pieces.send(Ok(data.slice_ref(bytes))).await.is_err() {
                            return Ok(false);
                        }
                    }
                    None => self.hold(bytes),
                },
                Piece::End(Entry::Statement) => {
                    if let Some(papers) = &mut self.papers
                        && let Some((_, statement)) =
                            papers.files.pop_if(|(entry, _)| *entry == Entry::Statement)
                    {
                        papers.statement = statement;
                    }
                }
                Piece::End(_) => {}
            }
        }
        Ok(true)
    }

    fn begin(&mut self, entry: Entry, size: u64) -> Result<(), FieldError> {
        let Some(papers) = &mut self.papers else { return Ok(()) };
        let held: usize = papers.files.iter().map(|(_, bytes)| bytes.len()).sum();
        if (held as u64).saturating_add(size) > MAX_PAPERS {
            let message = format!("its metadata has more than {MAX_PAPERS} bytes");
            return Err(FieldError::new(FieldCode::BadFile, message, EXPORT));
        }
        papers.files.push((entry, Vec::new()));
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) {
        if let Some((_, held)) = self.papers.as_mut().and_then(|papers| papers.files.last_mut()) {
            held.extend_from_slice(bytes);
        }
    }

    fn give(&mut self, bundle: u64) -> Result<(), FieldError> {
        let Some(papers) = self.papers.take() else { return Ok(()) };
        let (pieces, coming) = mpsc::channel(QUEUE);
        let sideload = Sideload { papers: Papers { bundle, ..papers }, bundle: coming };
        let command = FieldCommand::Sideload(Box::new(sideload));
        let reply = routes::hand_over(self.supervisor, self.uid, command)?;
        self.given = Some(Given { pieces, reply });
        Ok(())
    }
}

const fn empty(release: ReleaseId) -> Papers {
    Papers { release, files: Vec::new(), statement: Vec::new(), bundle: 0 }
}

fn unusable(error: &ParcelError) -> FieldError {
    FieldError::new(FieldCode::BadFile, error.to_string(), EXPORT)
}
