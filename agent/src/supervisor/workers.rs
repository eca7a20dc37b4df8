//! Starting workers, proving them, pointing the gateway to them, and hearing when they die.

use std::sync::Arc;

use serin_protocol::assignment::TrialMode;
use serin_protocol::bundle::BundleFile;
use serin_protocol::frame::Sandbox;
use serin_protocol::golden::Golden;
use serin_protocol::ids::{Digest, FieldName, Millis};
use serin_protocol::message::{Detail, Phase, Reason, Role};
use serin_protocol::pipeline::Pipeline;
use serin_protocol::sketch::profile::Profile;
use tokio::sync::mpsc;

use super::{Inbox, Supervisor, answers};
use crate::config::{Confinement, Models};
use crate::disk::releases::ReleaseStore;
use crate::gateway::{Beside, Served};
use crate::review::{Chooser, Sampler, Tray};
use crate::telemetry::{Recorder, Recording};
use crate::update::effect::{Event, Now};
use crate::update::record::Slot;
use crate::worker::group::Delegated;
use crate::worker::{Worker, WorkerSpec, requalify};

/// A worker that is up, with what is needed to let it answer.
pub(super) struct Running {
    pub(super) worker: Worker,
    pub(super) served: Arc<Served>,
}

/// What starting a worker needs.
struct Start {
    store: ReleaseStore,
    models: Models,
    groups: Option<Arc<Delegated>>,
    slot: Slot,
    golden: bool,
    recording: Option<Recording>,
    window: Millis,
    now: Now,
    /// Where samples for review go, and what is left out of them; none where the device lets none go.
    review: Option<(Tray, Vec<FieldName>)>,
}

impl Supervisor {
    /// Starts a worker in the background, unless it is there already.
    pub(super) fn warm(&self, slot: &Slot, golden: bool) -> Option<Event> {
        if self.workers.contains_key(&slot.statement) {
            return Some(Event::Warmed(slot.statement, Ok(())));
        }
        let start = Start {
            store: self.releases.clone(),
            models: self.config.models.clone(),
            groups: self.groups.clone(),
            slot: slot.clone(),
            golden,
            recording: self.recordings.get(&slot.statement).cloned(),
            window: self.config.window(),
            now: self.now(),
            review: self
                .config
                .review
                .enabled
                .then(|| (self.tray.clone(), self.config.review.redact.clone())),
        };
        let inbox = self.inbox.clone();
        let statement = slot.statement;
        tokio::spawn(async move {
            let release = start.slot.release.clone();
            let said = match start.run().await {
                Ok(running) => {
                    watch_for_death(statement, &running.worker, inbox.clone());
                    Inbox::Started(statement, Box::new(running))
                }
                Err(reason) => {
                    tracing::warn!(%release, %reason, "the worker did not come up");
                    Inbox::Machine(Box::new(Event::Warmed(statement, Err(reason))))
                }
            };
            // The loop ends only with the process.
            let _ = inbox.send(said).await;
        });
        None
    }

    pub(super) fn flip(&mut self, slot: &Slot) {
        let Some(running) = self.workers.get(&slot.statement) else {
            // It died in the same moment; its death is in the inbox.
            tracing::warn!(release = %slot.release, "its worker is gone");
            return;
        };
        tracing::info!(release = %slot.release, "answers from now on");
        let recording = running.served.recording().clone();
        self.router.flip(Some(Arc::clone(&running.served)));
        if self.machine.phase() == Phase::Probation {
            let watched = self.probation.as_ref().is_some_and(|(statement, _)| *statement == slot.statement);
            if !watched {
                self.probation = Some((slot.statement, recording.lock().snapshot().counters));
            }
        } else {
            self.probation = None;
        }
        self.recordings.insert(slot.statement, recording);
        self.rollback_answers(slot);
    }

    /// Has the gateway try a release beside the one that answers, or none.
    pub(super) fn try_beside(&mut self, tried: Option<(Slot, TrialMode)>) {
        self.router.set_beside(None);
        if let Some(statement) = self.trial.take() {
            self.probation.take_if(|(of, _)| *of == statement);
            if let Some(recording) = self.recordings.get(&statement).cloned() {
                self.cut_window(&recording, Recorder::leave_trial);
            }
        }
        let Some((slot, mode)) = tried else { return };
        let (Some(running), Some(with)) = (self.workers.get(&slot.statement), self.router.current()) else {
            // One of them died in the same moment; its death is in the inbox.
            tracing::warn!(release = %slot.release, "cannot be tried now");
            return;
        };
        tracing::info!(release = %slot.release, beside = %with.release(), ?mode, "is tried from now on");
        let served = Arc::clone(&running.served);
        let recording = served.recording().clone();
        self.recordings.insert(slot.statement, recording.clone());
        self.trial = Some(slot.statement);
        let role = match mode {
            TrialMode::Shadow { .. } => Role::Shadow,
            TrialMode::Arm { .. } => Role::Arm,
        };
        let with = with.release().clone();
        self.cut_window(&recording, |recorder| recorder.enter_trial(role, with));
        self.probation = Some((slot.statement, recording.lock().snapshot().counters));
        self.router.set_beside(Some(Beside::new(served, mode)));
    }

    /// Reports what a release did before `change`.
    fn cut_window(&mut self, recording: &Recording, change: impl FnOnce(&mut Recorder)) {
        let now = self.now();
        let reports = {
            let mut recorder = recording.lock();
            let reports = recorder.cut(now, &mut self.stamp);
            change(&mut recorder);
            reports
        };
        self.store_reports(&reports);
    }

    /// What the release on probation, or the one being tried, has done since that began.
    pub(super) fn health(&self) -> Option<(u32, u32)> {
        if !matches!(self.machine.phase(), Phase::Probation | Phase::Shadowing) {
            return None;
        }
        let (statement, before) = self.probation.as_ref()?;
        let counters = self.recordings.get(statement)?.lock().snapshot().counters.since(*before);
        let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Some((count(counters.requests), count(counters.errors)))
    }

    /// Closes telemetry windows that are over, and forgets recordings of releases that are gone.
    pub(super) fn roll_windows(&mut self) {
        let now = self.now();
        for (statement, running) in &self.workers {
            if let (Some(recording), Some(peak)) =
                (self.recordings.get(statement), running.worker.peak_resident())
            {
                recording.lock().saw_peak(peak);
            }
        }
        let named = self.machine.record().named();
        let mut reports = Vec::new();
        self.recordings.retain(|statement, recording| {
            let mut recorder = recording.lock();
            let kept = named.contains(statement);
            let rolled =
                if kept { recorder.roll(now, &mut self.stamp) } else { recorder.cut(now, &mut self.stamp) };
            reports.extend(rolled);
            if !kept {
                recorder.close();
            }
            kept
        });
        if !reports.is_empty() {
            self.settling.worked(now.elapsed);
        }
        self.store_reports(&reports);
    }
}

impl Start {
    async fn run(self) -> Result<Running, Reason> {
        let load = |text: &str| Reason::LoadFailed(Detail::new(text));
        let Self { store, models, groups, slot, golden, recording, window, now, review } = self;
        let staged = store
            .open_release(slot.statement)
            .map_err(|error| load(&error.to_string()))?
            .ok_or_else(|| load("it is not on this device"))?;
        let read = |file: BundleFile| {
            std::fs::read(staged.path(file)).map_err(|error| load(&format!("{}: {error}", file.name())))
        };
        let manifest = Arc::new(staged.manifest.clone());
        let recording = if let Some(recording) = recording {
            recording
        } else {
            answers::recording(&staged, window, now)?
        };
        let spec = WorkerSpec {
            program: WorkerSpec::own_program(),
            dir: staged.dir.clone(),
            release: slot.release.clone(),
            memory_limit: slot.memory,
            groups,
            load_deadline: models.load_deadline,
            request_deadline: models.request_deadline,
            require_sandbox: models.sandbox == Confinement::Require,
        };
        let worker = Worker::start(spec).await.map_err(|fault| fault.reason())?;
        confined_as_required(models.sandbox, worker.sandbox()).map_err(|lack| load(&lack))?;
        if golden {
            let golden =
                Golden::parse(&read(BundleFile::Golden)?).map_err(|error| load(&error.to_string()))?;
            let proved = requalify(&worker, &golden, &manifest).await.map_err(|fault| fault.reason());
            let (report, rounds) = proved?;
            tracing::info!(release = %slot.release, ?report, rounds, "golden vectors hold");
        }
        let sampler = match review.filter(|_| manifest.review.is_some()) {
            Some((tray, redact)) => {
                let profile = Profile::parse(&read(BundleFile::Reference)?);
                let profile = Arc::new(profile.map_err(|error| load(&error.to_string()))?);
                let chooser = Chooser::new(&manifest, &profile, &redact);
                chooser.map(|chooser| Sampler::new(chooser, manifest.id(), tray))
            }
            None => None,
        };
        let pipeline =
            Pipeline::read(&read(BundleFile::Pipeline)?).map_err(|error| load(&error.to_string()))?;
        let served = Served::new(manifest, worker.clone(), recording).sampled(sampler).preparing(&pipeline);
        let served = Arc::new(served);
        Ok(Running { worker, served })
    }
}

fn confined_as_required(wanted: Confinement, sandbox: Sandbox) -> Result<(), String> {
    let lacks: Vec<&str> = sandbox.lacks().collect();
    if wanted == Confinement::Prefer || lacks.is_empty() {
        return Ok(());
    }
    Err(format!("models.sandbox requires what is not to be had here: {}", lacks.join(", ")))
}

fn watch_for_death(statement: Digest, worker: &Worker, inbox: mpsc::Sender<Inbox>) {
    let death = worker.death();
    tokio::spawn(async move {
        if let Some(death) = death.await {
            let _ = inbox.send(Inbox::Machine(Box::new(Event::WorkerDied(statement, death)))).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_cannot_be_confined_runs_only_where_that_is_not_required() {
        let whole = Sandbox {
            no_new_privileges: true,
            files_closed: true,
            memory_limited: true,
            calls_filtered: true,
        };
        let open = Sandbox { files_closed: false, ..whole };
        assert_eq!(confined_as_required(Confinement::Require, whole), Ok(()));
        assert_eq!(confined_as_required(Confinement::Prefer, open), Ok(()));
        let why = confined_as_required(Confinement::Require, open).expect_err("required");
        assert!(why.ends_with("Landlock"), "{why}");
    }
}
