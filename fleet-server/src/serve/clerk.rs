//! The clerk takes in what arrives and lets time pass, both on a thread that may block: one flush of the disk for all that
//! arrived together.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

use serin_protocol::topic::Topic;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::error;

use super::now;
use crate::broker::link::{Arrival, Link};
use crate::fleet::{Delivery, Fleet, FleetError, Message};
use crate::repository::Repository;

/// How often rollouts are asked whether something is due.
const TICK: Duration = Duration::from_millis(100);

/// How often old reports become part of sums.
const CLEANING: Duration = Duration::from_hours(1);

/// Messages made durable together at most, about 1 MB of reports; at the end all that the link lets wait.
const MAX_BATCH: usize = 512;

/// How long reports wait for others when nothing else has arrived. Nobody waits for an answer to a report, and to wake up
/// and flush the disk for each costs several times what taking it in does.
const GATHERING: Duration = Duration::from_millis(10);

/// Who takes in what arrives.
pub(super) struct Clerk {
    pub(super) fleet: Arc<Fleet>,
    pub(super) repository: Arc<Repository>,
    pub(super) link: Link,
    /// The broker is embedded, and was started with this server.
    pub(super) own_broker: bool,
}

impl Clerk {
    /// Works until told to stop; what has arrived by then is taken in.
    pub(super) async fn run(self, mut arrivals: mpsc::Receiver<Arrival>, mut stopped: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cleaning = tokio::time::interval(CLEANING);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut sessions = 0_u32;
        loop {
            let mut clean = false;
            let goes_on = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => ControlFlow::Break(()),
                flow = gather(&mut arrivals, &mut batch) => flow,
                _ = ticks.tick() => ControlFlow::Continue(()),
                _ = cleaning.tick() => {
                    clean = true;
                    ControlFlow::Continue(())
                }
            };
            // What was gathered when something else happened, and at the end what waits behind it.
            while (batch.len() < MAX_BATCH || goes_on.is_break())
                && let Ok(arrival) = arrivals.try_recv()
            {
                batch.push(arrival);
            }
            let begun = batch.iter().filter(|arrival| matches!(arrival, Arrival::Connected)).count();
            sessions = sessions.saturating_add(u32::try_from(begun).unwrap_or(u32::MAX));
            if begun > 0 {
                // The broker may have forgotten it.
                self.repository.say_again();
            }
            // Only what was kept from before the first session was said to the broker's last run.
            let fresh = self.own_broker && sessions <= 1;
            self.fleet.metrics().broker_connected(self.link.is_connected());
            let mut arrived = std::mem::take(&mut batch);
            let fleet = Arc::clone(&self.fleet);
            let worked = tokio::task::spawn_blocking(move || {
                let folded = if clean { fleet.fold_old_reports(now()) } else { Ok(()) };
                let worked = folded.and_then(|()| work(&fleet, arrived.drain(..), fresh));
                (arrived, worked)
            })
            .await;
            // A store that failed has been reported, and the server is stopping.
            match worked {
                Ok((emptied, worked)) => {
                    batch = emptied;
                    if let Err(error) = worked {
                        error!(%error, "what arrived could not be taken in");
                    }
                }
                Err(error) => error!(%error, "taking in ended abnormally"),
            }
            if goes_on.is_break() {
                return;
            }
        }
    }
}

/// Waits for something to arrive, and for more while there are reports only; breaks when nothing will arrive any more.
/// What it has gathered is in `batch` also when it is dropped half-way.
async fn gather(arrivals: &mut mpsc::Receiver<Arrival>, batch: &mut Vec<Arrival>) -> ControlFlow<()> {
    if arrivals.recv_many(batch, MAX_BATCH).await == 0 {
        return ControlFlow::Break(());
    }
    let is_report = |arrival: &Arrival| matches!(arrival, Arrival::Message { topic: Topic::Report(_), .. });
    if batch.len() < MAX_BATCH && batch.iter().all(is_report) {
        tokio::time::sleep(GATHERING).await;
    }
    ControlFlow::Continue(())
}

/// `fresh`: the broker has been started after all that it kept was said.
fn work(fleet: &Fleet, arrived: Drain<'_, Arrival>, fresh: bool) -> Result<(), FleetError> {
    let mut messages = Vec::with_capacity(arrived.len());
    let mut connected = false;
    for arrival in arrived {
        match arrival {
            Arrival::Connected => connected = true,
            Arrival::Message { topic, payload, kept } => {
                let delivery = match (kept, fresh) {
                    (false, _) => Delivery::Live,
                    (true, false) => Delivery::Kept,
                    (true, true) => Delivery::Earlier,
                };
                messages.push(Message { topic, payload, delivery });
            }
            Arrival::Strange(_) => fleet.metrics().refused("topic"),
        }
    }
    if !messages.is_empty() {
        fleet.take_in(&messages, now())?;
    }
    if connected {
        fleet.reconnected(now())?;
    }
    fleet.tick(now())
}
