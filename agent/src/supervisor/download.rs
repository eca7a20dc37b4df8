//! One release on its way here: first the list of chunk digests, then the bundle. Pure transfers decide;
//! this carries their effects out on the disk, and keeps what they ask of the broker until it is asked.

use std::collections::VecDeque;

use serin_protocol::chunk::ChunkMap;
use serin_protocol::ids::{ByteCount, Digest, Millis};
use serin_protocol::message::{Detail, EventKind, Reason, RefusedKind};
use serin_protocol::release::Release;
use serin_protocol::topic::Topic;

use crate::disk::partial::{Complete, Partial, PartialError, PartialStore};
use crate::field::reply::TransferStatus;
use crate::link::backoff::Jitter;
use crate::link::transfer::{ChunkHashes, Effect, Input, Pace, Transfer};

/// How soon requests are tried again that the session had no place for.
const REQUEST_RETRY: Millis = Millis(50);

/// A download of one release.
#[derive(Debug)]
pub struct Download {
    statement: Digest,
    release: Box<Release>,
    partials: PartialStore,
    pace: Pace,
    seed: u64,
    part: Part,
    /// None once it is whole.
    partial: Option<Partial>,
    transfer: Transfer,
    connected: bool,
    /// Requests not made yet, in order. At most two for each chunk of the window.
    requests: VecDeque<(Request, Topic)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    ChunkList,
    Bundle,
}

/// What is asked of the broker about one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Send it, now or when it is there.
    Subscribe,
    /// Send it no more.
    Unsubscribe,
}

/// What the supervisor must do about a download.
#[derive(Debug)]
pub enum Notice {
    /// The chunk list is here; the bundle follows.
    Started {
        /// Bytes to fetch.
        fetch: ByteCount,
        /// Bytes here from an earlier attempt.
        here: ByteCount,
    },
    /// To be reported.
    Report(EventKind),
    /// The bundle is here, whole and with the signed digest.
    Done(Complete),
    /// It will not come.
    Failed(Reason),
}

impl Download {
    /// Begins or resumes the download of `release`. Any other that was begun is forgotten.
    pub fn new(
        statement: Digest,
        release: Box<Release>,
        partials: PartialStore,
        pace: Pace,
        seed: u64,
    ) -> Result<Self, Reason> {
        let list = release.chunk_list;
        if let Err(error) = partials.keep_only(&[list.digest, release.bundle.digest]) {
            tracing::warn!(%error, "old partial downloads could not be removed");
        }
        let (partial, have) = partials.begin(list, None).map_err(|error| storage(&error))?;
        let transfer = Transfer::new(list, None, have, pace, Jitter::new(seed))
            .map_err(|error| statement_error(&error))?;
        Ok(Self {
            statement,
            release,
            partials,
            pace,
            seed,
            part: Part::ChunkList,
            partial: Some(partial),
            transfer,
            connected: false,
            requests: VecDeque::new(),
        })
    }

    /// The release's statement.
    pub const fn statement(&self) -> Digest {
        self.statement
    }

    /// How far the bundle has come.
    pub fn progress(&self) -> TransferStatus {
        let bytes = self.release.bundle.size;
        let chunks = ChunkMap::new(bytes).map_or(0, ChunkMap::count);
        match self.part {
            Part::ChunkList => TransferStatus { chunks_here: 0, chunks, bytes_here: ByteCount(0), bytes },
            Part::Bundle => TransferStatus {
                chunks_here: self.transfer.have().len(),
                chunks,
                bytes_here: self.transfer.bytes_here(),
                bytes,
            },
        }
    }

    /// When [`Self::tick`] is due.
    pub fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let retry = (self.connected && !self.requests.is_empty()).then(|| now.plus(REQUEST_RETRY));
        self.transfer.next_deadline().into_iter().chain(retry).min()
    }

    /// Makes the requests that wait, in order, until `send` has no place for one.
    pub fn ask(&mut self, mut send: impl FnMut(Request, &Topic) -> bool) {
        while let Some((request, topic)) = self.requests.front() {
            if !send(*request, topic) {
                break;
            }
            self.requests.pop_front();
        }
    }

    /// A session is there; nothing is subscribed in it yet.
    pub fn connected(&mut self, now: Millis) -> Vec<Notice> {
        self.connected = true;
        self.requests.clear();
        self.feed(now, Input::Connected)
    }

    /// The session is gone.
    pub fn disconnected(&mut self, now: Millis) -> Vec<Notice> {
        self.connected = false;
        self.requests.clear();
        self.feed(now, Input::Disconnected)
    }

    /// Asks to let go of every subscription for now, in a session that goes on; [`Self::disconnected`] follows.
    pub fn let_go(&mut self) {
        self.requests.retain(|(request, _)| *request == Request::Unsubscribe);
        for index in self.transfer.subscribed() {
            self.request(Request::Unsubscribe, index);
        }
    }

    /// A chunk of `object` has come.
    pub fn chunk(&mut self, now: Millis, object: Digest, index: u32, bytes: &[u8]) -> Vec<Notice> {
        if object == self.transfer.object().digest {
            self.feed(now, Input::Chunk { index, bytes })
        } else {
            // Of the chunk list, or of an earlier download, still on its way when it was let go.
            Vec::new()
        }
    }

    /// A deadline has passed.
    pub fn tick(&mut self, now: Millis) -> Vec<Notice> {
        self.feed(now, Input::Tick)
    }

    /// Asks to let go of every subscription, and nothing else. What is written stays for a next attempt.
    pub fn stop(&mut self) {
        self.requests.retain(|(request, _)| *request == Request::Unsubscribe);
        for effect in self.transfer.stop() {
            if let Effect::Unsubscribe(index) = effect {
                self.request(Request::Unsubscribe, index);
            }
        }
    }

    fn feed(&mut self, now: Millis, input: Input<'_>) -> Vec<Notice> {
        let bytes = match input {
            Input::Chunk { bytes, .. } => bytes,
            _ => &[],
        };
        let mut notices = Vec::new();
        let mut effects = VecDeque::from(self.transfer.handle(now, input));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Subscribe(index) => {
                    self.request(Request::Subscribe, index);
                    effects.extend(self.transfer.handle(now, Input::Subscribed(index)));
                }
                Effect::Unsubscribe(index) => self.request(Request::Unsubscribe, index),
                Effect::Write { index } => {
                    let written = self.partial.as_ref().map(|partial| partial.write(index, bytes));
                    if let Some(Err(error)) = &written {
                        tracing::warn!(index, %error, "a chunk could not be written");
                    }
                    let input = match written {
                        Some(Ok(())) => Input::Written(index),
                        Some(Err(_)) | None => Input::WriteFailed(index),
                    };
                    effects.extend(self.transfer.handle(now, input));
                }
                Effect::AskRepublish { first, count } => {
                    let object = self.transfer.object().digest;
                    notices.push(Notice::Report(EventKind::ChunksMissing { object, first, count }));
                }
                Effect::Refuse { index, detail } => {
                    let detail = Detail::new(&format!("chunk {index}: {detail}"));
                    notices.push(Notice::Report(EventKind::Refused { kind: RefusedKind::Chunk, detail }));
                }
                Effect::Complete => notices.extend(self.completed(now)),
                Effect::Stalled(stall) => {
                    let detail = Detail::new(&stall.to_string());
                    notices.push(Notice::Failed(Reason::BadBundle(detail)));
                }
            }
        }
        notices
    }

    fn request(&mut self, request: Request, index: u32) {
        if self.connected {
            let object = self.transfer.object().digest;
            self.requests.push_back((request, Topic::Chunk { object, index }));
        }
    }

    /// All chunks are written: check the whole, then go on to the bundle or end.
    fn completed(&mut self, now: Millis) -> Vec<Notice> {
        let Some(partial) = self.partial.take() else { return Vec::new() };
        let whole = match partial.finish() {
            Ok(whole) => whole,
            Err(error) => return vec![Notice::Failed(unfinished(&error))],
        };
        match self.part {
            Part::Bundle => vec![Notice::Done(whole)],
            Part::ChunkList => match self.begin_bundle(&whole) {
                Ok(started) => {
                    let mut notices = vec![started];
                    let next = if self.connected { Input::Connected } else { Input::Tick };
                    notices.extend(self.feed(now, next));
                    notices
                }
                Err(reason) => vec![Notice::Failed(reason)],
            },
        }
    }

    fn begin_bundle(&mut self, list: &Complete) -> Result<Notice, Reason> {
        let bundle = self.release.bundle;
        let map = ChunkMap::new(bundle.size).map_err(|error| statement_error(&error))?;
        let bytes = list.read().map_err(|error| Reason::Storage(Detail::new(&error.to_string())))?;
        let hashes = ChunkHashes::parse(&bytes, map).map_err(|error| statement_error(&error))?;
        let begun = self.partials.begin(bundle, Some(&hashes));
        let (partial, have) = begun.map_err(|error| storage(&error))?;
        self.transfer = Transfer::new(bundle, Some(hashes), have, self.pace, Jitter::new(self.seed))
            .map_err(|error| statement_error(&error))?;
        self.partial = Some(partial);
        self.part = Part::Bundle;
        let here = self.transfer.bytes_here();
        Ok(Notice::Started { fetch: ByteCount(bundle.size.0.saturating_sub(here.0)), here })
    }
}

fn statement_error(error: &dyn std::fmt::Display) -> Reason {
    Reason::BadStatement(Detail::new(&error.to_string()))
}

fn storage(error: &PartialError) -> Reason {
    Reason::Storage(Detail::new(&error.to_string()))
}

fn unfinished(error: &PartialError) -> Reason {
    Reason::BadBundle(Detail::new(&error.to_string()))
}
