//! Brings the repository to the broker: at each change, at each new session, and signed anew in time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serin_protocol::topic::{FileName, Topic};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::error;

use super::Repository;
use crate::broker::link::Link;
use crate::serve::seconds;

/// How often the repository is looked at for what will expire: often against half a timestamp's life.
const FRESHNESS: Duration = Duration::from_mins(10);

/// Works until the link ends. `changes` are the repository's.
pub async fn keep(repository: Arc<Repository>, link: Link, changes: watch::Receiver<u64>) {
    // Apart from each other: while the broker is away the repository is still read over HTTP.
    tokio::select! {
        () = freshen(&repository) => {}
        () = bring(&repository, &link, changes) => {}
    }
}

/// Signs anew in time.
async fn freshen(repository: &Arc<Repository>) {
    let mut fresh = tokio::time::interval(FRESHNESS);
    fresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        fresh.tick().await;
        let repository = Arc::clone(repository);
        let signed = tokio::task::spawn_blocking(move || repository.keep_fresh(seconds()));
        if let Ok(Err(error)) = signed.await {
            error!(%error, "the repository could not be signed anew");
        }
    }
}

/// Says all of it at each change.
async fn bring(repository: &Repository, link: &Link, mut changes: watch::Receiver<u64>) {
    let mut said: BTreeSet<FileName> = BTreeSet::new();
    while changes.changed().await.is_ok() && link.connected().await {
        say(repository, link, &mut said).await;
    }
}

/// Says all files, and clears those of `said` that are superseded. When the link breaks on the way, the next
/// session begins with all of it.
async fn say(repository: &Repository, link: &Link, said: &mut BTreeSet<FileName>) {
    let files = repository.files();
    let names: BTreeSet<_> = files.iter().map(|(file, _)| file.clone()).collect();
    // By an empty message, once the new timestamp is there: a device in the middle of a refresh begins it
    // again.
    let superseded = said.difference(&names).map(|file| (file.clone(), Bytes::new()));
    let all: Vec<_> = files.into_iter().chain(superseded).collect();
    for (file, bytes) in all {
        said.insert(file.clone());
        if link.retain(Topic::Metadata(file), bytes).await.is_err() {
            return;
        }
    }
    *said = names;
}
