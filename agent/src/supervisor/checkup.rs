//! Gathering facts for the engineer's `doctor`, and reading everything that must be whole for `verify`.

use serin_protocol::ids::ByteCount;
use tokio::sync::oneshot;

use super::Supervisor;
use crate::field;
use crate::field::checkup::{CheckLine, Checkup, Facts, WayBack, doctor};
use crate::field::reply::FieldReply;
use crate::link::certificates::examine;
use crate::telemetry::resources::available;
use crate::update::record::{Slot, Standing};

impl Supervisor {
    /// How the device is.
    pub(super) fn doctor(&self) -> Checkup {
        let record = self.machine.record();
        let active = record.active.as_ref();
        let running = active.and_then(|slot| self.workers.get(&slot.statement));
        doctor(&Facts {
            clock: self.clock.system(),
            clock_floor: record.clock_floor,
            free: self.releases.free_space().unwrap_or(ByteCount(0)),
            reserve: self.config.models.reserve,
            policy: self.outlook(),
            memory: available(),
            models: self.config.models.memory,
            connected: self.session.is_some(),
            link_problem: self.link_problem.clone(),
            tls: self.config.broker.tls.is_some(),
            certificates: self.config.broker.tls.as_ref().map(examine).unwrap_or_default(),
            device: self.config.device.clone(),
            waiting: self.taken_in.then(|| self.outbox.pending()),
            trusted_until: self.trust.client.trusted_until(),
            trust_problem: self.trust.client.problem().map(ToOwned::to_owned),
            sandbox: running.map(|running| running.worker.sandbox()),
            kernel: self.hardware.kernel_features.clone(),
            active: active.map(|slot| (slot.release.clone(), self.machine.serving() == Some(slot.statement))),
            previous: record.previous.as_ref().map(|slot| self.way_back(slot)),
            restarts: self.restarts,
            sheltered: self.sheltered.clone(),
            safe_mode: self.machine.safe_mode(),
            class_lacks: self.class_lacks.clone(),
        })
    }

    fn way_back(&self, slot: &Slot) -> WayBack {
        let condemned = slot.standing == Standing::Condemned;
        let why = if condemned { self.taken_back(&slot.release) } else { None };
        WayBack { release: slot.release.clone(), condemned, why }
    }

    /// Reads every file of the slots again, where reading may wait, then answers.
    pub(super) fn verify(&self, reply: oneshot::Sender<field::FieldOutcome>) {
        let record = self.machine.record();
        let slots = [("active", record.active.clone()), ("previous", record.previous.clone())];
        let store = self.releases.clone();
        // Should there be no thread for it, the engineer hears that nobody answers.
        let started = self.jobs.spawn(self.now().elapsed, "verifying releases", move || {
            let look = |(name, slot): (&str, Option<Slot>)| {
                let Some(slot) = slot else { return CheckLine::ok(name, "empty") };
                let damaged = |why: String| {
                    let finding = format!("{}: {why}", slot.release);
                    CheckLine::fail(name, finding, "have the fleet roll it out again, or go back")
                };
                match store.open_release(slot.statement) {
                    Ok(Some(release)) => match store.verify(&release, None) {
                        Ok(()) => CheckLine::ok(name, format!("{}: every file is what it was", slot.release)),
                        Err(error) => damaged(error.to_string()),
                    },
                    Ok(None) => damaged("it is not here".into()),
                    Err(error) => damaged(error.to_string()),
                }
            };
            let lines = slots.into_iter().map(look).collect();
            // He may have gone in the meantime.
            let _ = reply.send(Ok(FieldReply::Checkup(Checkup { lines })));
        });
        if let Err(error) = started {
            tracing::error!(%error, "nothing is verified");
        }
    }
}
