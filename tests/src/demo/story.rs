//! What happens, step by step.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serin_tests::lab::{Broker, CANARY, Lab, PATIENCE};
use serin_tests::traffic::{Traffic, rows};
use serin_tests::until;

use crate::watch::Watch;

const DEVICES: usize = 12;

/// Tells the story and checks that it comes true.
pub(crate) fn tell(started: Instant) -> Result<()> {
    let say = |text: &str| println!("{:6.1}s  {text}", started.elapsed().as_secs_f64());
    say("starting a fleet server with its own MQTT broker");
    let mut lab = Lab::new(Broker::Embedded)?;
    say(&format!("open {} to watch", lab.server.url));
    let watch = Watch::start(&lab.server.url, started)?;
    say(&format!("starting {DEVICES} devices"));
    lab.add_devices(DEVICES)?;

    say("step 1: version 1, packed, proved, signed and published, goes to everyone");
    lab.first_release()?;
    ensure!(lab.running("1.0.0") == DEVICES, "not every device runs version 1");
    let answer = lab.devices.first().context("no device")?.infer(&rows()?[..1])?;
    ensure!(answer["model_version"] == "1.0.0", "version 1 does not answer: {answer}");
    let traffic = Traffic::start(&lab.gateways(), Duration::from_millis(20))?;
    say("apps on every device now ask about handwritten digits, 50 rows a second");

    say("step 2: version 2, a better model, goes to a quarter first and then to all");
    lab.publish("digits/v2")?;
    let good = lab.server.roll_out("digits@2.0.0", CANARY)?;
    lab.server.until_rollout_is(good, "completed", PATIENCE)?;
    ensure!(lab.running("2.0.0") == DEVICES, "not every device runs version 2");

    say("step 3: version 3 was trained on inverted scans; its own tests look fine, live rows will not");
    lab.publish("digits/v3")?;
    let bad = lab.server.roll_out("digits@3.0.0", CANARY)?;
    lab.server.until_rollout_is(bad, "rolled back", PATIENCE)?;
    until("everyone is back", PATIENCE, || (lab.running("2.0.0") == DEVICES).then_some(()))?;
    let touched = (1..=DEVICES).filter(|number| {
        let events = lab.server.events(&format!("device-{number:02}")).unwrap_or_default();
        events.iter().any(|event| event.contains("3.0.0"))
    });
    let touched = touched.count();
    say(&format!("only {touched} of {DEVICES} devices ever had version 3"));
    ensure!(touched * 2 < DEVICES, "version 3 went too far");

    let (answered, failed) =
        (traffic.answered.load(Ordering::Relaxed), traffic.failed.load(Ordering::Relaxed));
    drop(traffic);
    say(&format!("apps got {answered} answers; {failed} requests failed while releases were switched"));
    ensure!(failed == 0, "requests failed");

    let keeps_one = |device: &&serin_tests::device::Device| {
        device.status().is_ok_and(|status| status["previous"]["release"]["version"] == "1.0.0")
    };
    let device = lab.devices.iter().find(keeps_one).context("no device keeps version 1")?;
    let leave_page_up = std::env::var_os("DEMO_EXIT").is_none();
    if leave_page_up {
        say("step 4: a field engineer takes one device back to version 1, without asking the server");
    } else {
        say("step 4: server and broker are gone; a field engineer takes one device back to version 1");
        watch.stop();
        lab.server.kill();
    }
    let reply = device.engineer(&["rollback"])?;
    say(&format!(
        "{}: serin-agent rollback → version 1 answers after {} ms, pinned",
        device.name, reply["millis"]
    ));
    ensure!(device.runs("1.0.0"), "version 1 is not active");
    let answer = device.infer(&rows()?[..1])?;
    ensure!(answer["model_version"] == "1.0.0", "version 1 does not answer: {answer}");

    say("every step happened");
    if leave_page_up {
        say(&format!("{} stays up; press Ctrl-C to end", lab.server.url));
        until_told_to_stop()?;
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM, so that server and devices are stopped and their folder removed.
fn until_told_to_stop() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            told = tokio::signal::ctrl_c() => told?,
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
