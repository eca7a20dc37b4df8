//! One line of the table: rounds of a write, a rollback and a restart of the worker, one after another, so
//! that all three meet the same machine.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::apps::{Apps, Load, Sign};
use crate::report::Line;
use crate::rig::{Rig, kill};

/// Deaths of workers that one run of the agent is given: two of each version. A worker that goes on dying soon
/// after its start is started more and more rarely.
const DEATHS: u32 = 4;

/// Measures `rounds` rounds.
pub(crate) fn measure(rig: &mut Rig, load: Load, rounds: u32) -> Result<Line> {
    let yardstick = rig.yardstick()?;
    let mut line = Line::new(rig.previous, load);
    let apps = start(rig, load)?;
    for round in 1..=rounds {
        let status = rig.until_ready()?;
        let target = status.previous.context("no previous version")?.release.version.to_string();
        line.writes.push(yardstick.write()?);

        let failed = apps.failed();
        apps.expect(Sign::Version(target));
        let (started, replied, answered) = roll_back(rig, &apps)?;
        line.replies.push(replied.duration_since(started));
        line.rollbacks.push(answered.duration_since(started));
        apps.settle()?;
        if apps.failed() > failed {
            line.failed_rollbacks += apps.failed() - failed;
            line.failure = apps.last_failure();
        }

        // A rollback also makes the agent forget deaths before it, so that one a round is no pattern.
        let active = rig.until_ready()?.active.and_then(|slot| slot.worker).context("no worker")?;
        let failed = apps.failed();
        let started = Instant::now();
        kill(active.pid)?;
        apps.expect(Sign::AskedAfter(Instant::now()));
        line.restarts.push(apps.first_answer()?.duration_since(started));
        apps.settle()?;
        line.failed_restarts += apps.failed() - failed;
        if round % DEATHS == 0 {
            rig.prepare(rig.previous)?;
            apps.settle()?;
        }
    }
    line.answered = apps.ended();
    Ok(line)
}

/// The moments of the engineer's command, of the agent's reply, and of the first answer that apps got, which
/// do not wait for the reply.
fn roll_back(rig: &mut Rig, apps: &Apps) -> Result<(Instant, Instant, Instant)> {
    std::thread::scope(|scope| {
        let command = scope.spawn(|| {
            let started = Instant::now();
            rig.roll_back().map(|()| (started, Instant::now()))
        });
        let answered = apps.first_answer()?;
        let (started, replied) = command.join().expect("it does not panic")?;
        Ok((started, replied, answered))
    })
}

/// Measures the whole program, from its start to its end.
pub(crate) fn measure_processes(rig: &mut Rig, load: Load, count: u32, line: &mut Line) -> Result<()> {
    let apps = start(rig, load)?;
    for _ in 0..count {
        rig.until_ready()?;
        let failed = apps.failed();
        let started = Instant::now();
        rig.device().engineer(&["rollback"])?;
        line.processes.push(started.elapsed());
        apps.settle()?;
        if apps.failed() > failed {
            line.failed_rollbacks += apps.failed() - failed;
            line.failure = apps.last_failure();
        }
    }
    Ok(())
}

fn start(rig: &Rig, load: Load) -> Result<Apps> {
    let gateway = rig.device().gateway;
    Apps::start(&format!("http://127.0.0.1:{gateway}/v2/models/digits/infer"), load)
}
