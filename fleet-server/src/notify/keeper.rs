//! Lets time pass for alerts: looks at rules now and then, and carries out what is due to receivers, to each one
//! after the other and to many at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::outbox::Outcome;
use super::post::Poster;
use super::receiver::ReceiverName;
use crate::fleet::Fleet;
use crate::serve::now;

/// Deliveries under way at a time; each holds a thread and a connection.
const MAX_POSTS: usize = 8;
/// How long to wait for what becomes due, at most: new deliveries wake sooner.
const NAP: Duration = Duration::from_secs(1);

/// Of the time, looking takes a tenth at most: a large fleet's reports are looked at less often.
const LOOKS_SHARE: u32 = 10;

/// Longest pause between two looks: Alertmanager takes an alert that is not said again in time to be over.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// Looks at all rules `every` so often until told to stop.
pub async fn look(fleet: Arc<Fleet>, every: Duration, mut stopped: watch::Receiver<bool>) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let begun = Instant::now();
        let fleet = Arc::clone(&fleet);
        let looked = tokio::task::spawn_blocking(move || {
            fleet.look_at_alerts(now())?;
            fleet.look_at_triggers(now())?;
            fleet.forget_old_samples(now())
        });
        match looked.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "alerts could not be looked at"),
            Err(error) => error!(%error, "looking at alerts ended abnormally"),
        }
        pause = every.max(begun.elapsed().saturating_mul(LOOKS_SHARE - 1)).min(LONGEST_PAUSE);
    }
}

/// Delivers what waits until told to stop. What is under way then is delivered again at the next start.
pub async fn deliver(fleet: Arc<Fleet>, poster: Arc<Poster>, mut stopped: watch::Receiver<bool>) {
    let mut posts: JoinSet<(u64, ReceiverName, Outcome)> = JoinSet::new();
    let mut busy = BTreeSet::new();
    loop {
        for delivery in fleet.due_deliveries(now(), &busy) {
            if posts.len() >= MAX_POSTS {
                break;
            }
            busy.insert(delivery.to.clone());
            let poster = Arc::clone(&poster);
            posts.spawn_blocking(move || {
                let outcome = poster.post(&delivery, now());
                (delivery.id, delivery.to, outcome)
            });
        }
        let done = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = fleet.delivery_waits() => None,
            () = tokio::time::sleep(NAP) => None,
            Some(done) = posts.join_next(), if !posts.is_empty() => Some(done),
        };
        match done {
            Some(Ok((id, to, outcome))) => {
                busy.remove(&to);
                note(&fleet, id, &to, outcome).await;
            }
            // Which one it was is not known: all may be tried again.
            Some(Err(error)) => {
                error!(%error, "a delivery ended abnormally");
                busy.clear();
            }
            None => {}
        }
    }
}

async fn note(fleet: &Arc<Fleet>, id: u64, to: &ReceiverName, outcome: Outcome) {
    match &outcome {
        Outcome::Taken => debug!(receiver = %to, delivery = id, "delivered"),
        Outcome::Later(why) => warn!(receiver = %to, delivery = id, why, "not delivered"),
        Outcome::Refused(why) => warn!(receiver = %to, delivery = id, why, "refused"),
    }
    let mut jitter = [0; 1];
    // Without randomness waits are merely not spread.
    let _ = getrandom::fill(&mut jitter);
    let (fleet, [jitter]) = (Arc::clone(fleet), jitter);
    let noted = tokio::task::spawn_blocking(move || fleet.delivery_tried(id, outcome, jitter, now())).await;
    match noted {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => error!(receiver = %to, delivery = id, "given up"),
        Ok(Err(error)) => error!(%error, "a delivery could not be noted"),
        Err(error) => error!(%error, "noting a delivery ended abnormally"),
    }
}
