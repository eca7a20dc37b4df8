//! Reports per second of processor time that the server verifies, stores and merges, beside a subscriber that only
//! counts the same messages from the same broker.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ed25519_dalek::SigningKey;
use serin_agent::telemetry::Asked;
use serin_agent::telemetry::window::{Recorder, Stamp};
use serin_agent::update::effect::Now;
use serin_fleet_server::bundle::open::{OpenedBundle, read_bundle};
use serin_protocol::envelope::{KeyRing, PublicKey, open, seal_to_vec};
use serin_protocol::frame::Prediction;
use serin_protocol::ids::{BootId, Digest, Millis, UnixMillis};
use serin_protocol::message::Report;
use serin_protocol::tag::{TagKey, open_tagged, seal_tagged_to_vec};
use serin_protocol::tensor::{DataType, TensorHeader};
use serin_protocol::topic::Topic;
use serin_tests::lab::{Broker, Lab, PATIENCE};
use serin_tests::many_devices::{Publisher, device, hello, key, topic};
use serin_tests::server::FLEET;

use super::subscriber::{COMMAND, EVERY};

/// Devices that report.
const DEVICES: usize = 100;
/// Reports of each.
const REPORTS: usize = 200;
/// What each is about: all of them are of the hour that drift is read over.
const WINDOW: Millis = Millis::from_secs(15);
/// Inferences in a report.
const INFERENCES: usize = 50;
/// Messages under way at most: what the broker queues for one subscriber, and well below.
const UNDER_WAY: usize = 2000;
/// Share of the counting subscriber's messages per second of processor time.
const GOAL: f64 = 0.5;

/// Messages and the processor time they took.
struct Taken {
    who: &'static str,
    processor: Duration,
    whole: Duration,
}

pub(crate) fn measure() -> Result<Vec<String>> {
    let lab = Lab::configured(Broker::Mosquitto, "enrolment = 'open'")?;
    let bundle = lab.owner.release("digits/v1")?;
    lab.server.publish(&bundle, &lab.owner.trust())?;
    let opened = read_bundle(&bundle)?;
    let mut publisher = Publisher::connect(lab.server.mqtt);
    let keys: Vec<SigningKey> = (0..DEVICES).map(key).collect();
    for (number, key) in keys.iter().enumerate() {
        publisher
            .publish(topic(&Topic::Hello(device(number)?))?, hello(number, key, &opened.manifest.id())?)?;
    }
    serin_tests::until("the server knows all devices", PATIENCE, || {
        let known = lab.server.json("/api/v1/devices").ok()?;
        (known["devices"].as_array()?.len() == DEVICES).then_some(())
    })?;
    let template = reports(&opened)?;
    let server: PublicKey = lab.server.json("/api/v1/keys")?["fleet"].as_str().context("no key")?.parse()?;
    let of_device = |key| TagKey::of_device(key, &server);
    let tags: Vec<TagKey> = keys.iter().map(of_device).collect::<Result<_, _>>()?;
    let messages = messages(&template, |number, report| {
        let tag = tags.get(number).context("a device too many")?;
        Ok(seal_tagged_to_vec(report, tag)?)
    })?;
    let size = messages.iter().map(|(_, payload)| payload.len()).sum::<usize>() / messages.len();

    let pid = lab.server.id();
    let seen = || {
        let text = lab.server.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("serin_messages_total{kind=\"report\"} "));
        Ok(line.map_or(0, |count| count.trim().parse().unwrap_or(0)))
    };
    let server = flood("server: opened, stored, merged", pid, &mut publisher, &messages, seen, || {
        let drift = lab.server.json(&format!("/api/v1/drift?release={}", opened.manifest.id()))?;
        let counted = drift["fleet"]["requests"].as_u64().context("no requests")?;
        let sent = (messages.len() * INFERENCES) as u64;
        ensure!(counted == sent, "{counted} inferences were merged of {sent}");
        Ok(())
    })?;

    let devices: Vec<PublicKey> = keys.iter().map(PublicKey::of).collect();
    let spare = Cell::new(None);
    let tagged = opened_with("opened by their tags, nothing else", &messages, |number, payload| {
        let (device, tag) = (devices.get(number).context("a device too many")?, tags.get(number));
        spare.set(Some(open_tagged::<Report>(payload, device, |_| tag, spare.take())?.0));
        Ok(())
    })?;
    let signed = self::messages(&template, |number, report| {
        Ok(seal_to_vec(report, keys.get(number).context("a device too many")?)?)
    })?;
    let signed = opened_with("signed instead and opened, nothing else", &signed, |number, payload| {
        let ring = KeyRing::<1>::new(devices.get(number).copied()).unwrap_or_default();
        Ok(open::<Report, 1>(payload, &ring).map(drop)?)
    })?;
    let mut counter = Counter::start(lab.server.mqtt)?;
    let pid = counter.child.id();
    let bare = flood("subscriber that counts", pid, &mut publisher, &messages, || counter.came(), || Ok(()))?;

    println!(
        "\n| {} reports of {} features, {size} bytes each | per second of processor time | per second |\n|---|---|---|",
        messages.len(),
        template.features.len()
    );
    for taken in [&server, &tagged, &signed, &bare] {
        let per = |span: Duration| messages.len() as f64 / span.as_secs_f64();
        println!("| {} | {:.0} | {:.0} |", taken.who, per(taken.processor), per(taken.whole));
    }
    let share = bare.processor.as_secs_f64() / server.processor.as_secs_f64();
    println!("| … as a share of the subscriber | {share:.2} | |");
    Ok(if share < GOAL { vec![format!("{GOAL} of a bare subscriber's reports")] } else { Vec::new() })
}

/// Opens every message and does nothing else: of the server's work the part that is about trust.
fn opened_with(
    who: &'static str,
    messages: &[(String, Vec<u8>)],
    open: impl Fn(usize, &[u8]) -> Result<()>,
) -> Result<Taken> {
    let pid = std::process::id();
    let (before, begin) = (processor_time(pid)?, Instant::now());
    for ((_, payload), number) in messages.iter().zip((0..DEVICES).cycle()) {
        open(number, std::hint::black_box(payload))?;
    }
    let processor = processor_time(pid)?.saturating_sub(before);
    Ok(Taken { who, processor, whole: begin.elapsed() })
}

/// Publishes everything, never more ahead of `seen` than the broker queues; then `merge`.
fn flood(
    who: &'static str,
    pid: u32,
    publisher: &mut Publisher,
    messages: &[(String, Vec<u8>)],
    mut seen: impl FnMut() -> Result<usize>,
    merge: impl FnOnce() -> Result<()>,
) -> Result<Taken> {
    let (before, begin) = (processor_time(pid)?, Instant::now());
    let mut sent = 0;
    for part in messages.chunks(EVERY) {
        for (topic, payload) in part {
            publisher.publish(topic.clone(), payload.clone())?;
        }
        sent += part.len();
        let enough = if sent == messages.len() { sent } else { sent.saturating_sub(UNDER_WAY) };
        let deadline = Instant::now() + PATIENCE;
        while seen()? < enough {
            ensure!(Instant::now() < deadline, "{who}: messages were lost");
            publisher.wait(Duration::from_millis(20));
        }
    }
    merge()?;
    Ok(Taken { who, processor: processor_time(pid)?.saturating_sub(before), whole: begin.elapsed() })
}

/// User and system time of a process.
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks; what is counted comes after it.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).context("no time");
    let all = ticks()? + ticks()?;
    Ok(Duration::from_secs_f64(all as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The process that counts.
struct Counter {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Counter {
    fn start(port: u16) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([COMMAND, &port.to_string(), &format!("serin/1/{FLEET}/d/+/up/report")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut counter = Self { child, lines: BufReader::new(out).lines() };
        counter.came()?;
        Ok(counter)
    }

    /// The next word about how many came; waits for it.
    fn came(&mut self) -> Result<usize> {
        Ok(self.lines.next().context("the subscriber has ended")??.parse()?)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What a device counts over one window of this model, by its own recorder.
fn reports(bundle: &OpenedBundle) -> Result<Report> {
    let wall = UnixMillis(jiff::Timestamp::now().as_millisecond().unsigned_abs());
    let now = |seconds: u64| Now {
        wall: wall.plus(Millis::from_secs(seconds)),
        elapsed: Millis::from_secs(seconds),
    };
    let digest = Digest::of(&bundle.profile_bytes);
    let mut recorder =
        Recorder::new(&bundle.manifest, Arc::new(bundle.profile.clone()), digest, WINDOW, now(0))?;
    recorder.enter();
    let input = bundle.manifest.inputs.first().context("no input")?;
    let values: Vec<u8> = (0..input.features.len()).flat_map(|at| ((at % 17) as f32).to_le_bytes()).collect();
    let mut header = TensorHeader {
        name: input.name.clone(),
        datatype: DataType::Fp32,
        shape: heapless::Vec::new(),
        bytes: values.len() as u64,
    };
    for length in [1, input.features.len() as u32] {
        header.shape.push(length).ok().context("a dimension")?;
    }
    let parameters = serde_json::Map::new();
    for at in 0..INFERENCES as u64 {
        let prediction = Prediction::of_class(i64::try_from(at % 10)?, 0.9);
        let asked = Asked { inputs: std::slice::from_ref(&header), body: &values, parameters: &parameters };
        recorder.answered(asked, &[prediction], 150 + at);
    }
    let mut stamp = Stamp::new(device(0)?, BootId(1));
    // The windows before and behind that one are empty.
    let reports = recorder.cut(now(30), &mut stamp);
    reports.into_iter().max_by_key(|report| report.requests).context("no report")
}

/// The same from every device, for one window after another, the last of which ends about now.
fn messages(
    template: &Report,
    seal: impl Fn(usize, &Report) -> Result<Vec<u8>>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut messages = Vec::with_capacity(DEVICES * REPORTS);
    for sequence in 1..=REPORTS as u64 {
        let earlier = (REPORTS as u64 - sequence) * WINDOW.0;
        let at = |time: UnixMillis| UnixMillis(time.0.saturating_sub(earlier));
        let (start, end) = (at(template.start), at(template.end));
        for number in 0..DEVICES {
            let report = Report { device: device(number)?, sequence, start, end, ..template.clone() };
            messages.push((topic(&Topic::Report(device(number)?))?, seal(number, &report)?));
        }
    }
    Ok(messages)
}
