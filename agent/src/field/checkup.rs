//! What is well on a device and what is not, each with its remedy. Pure: the supervisor brings the facts.

use serde::{Deserialize, Serialize};
use serin_protocol::frame::Sandbox;
use serin_protocol::ids::{ByteCount, DeviceId, Millis, ReleaseId, UnixMillis};
use serin_protocol::message::Reason;
use serin_protocol::target::KernelFeature;

use super::class;
use super::held_up::{self, Outlook};
use super::print::{date, size};
use super::protections::sandbox;
use crate::link::certificates::LinkFile;
use crate::link::mqtt::Problem;

/// Trust that ends sooner than this is worth a word: the server renews it daily.
const SOON: Millis = Millis::from_secs(12 * 3600);
/// Certificates that end sooner than this are worth a word: somebody has to come or send.
const CERTIFICATES_SOON: Millis = Millis::from_secs(30 * 24 * 3600);

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not for long.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckLine {
    /// What, a stable word such as `clock`.
    pub what: String,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// What to do about it; none when all is well.
    pub remedy: Option<String>,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// In the order in which they were looked at.
    pub lines: Vec<CheckLine>,
}

impl Checkup {
    /// The worst of it.
    pub fn worst(&self) -> Level {
        self.lines.iter().map(|line| line.level).max().unwrap_or(Level::Ok)
    }
}

impl CheckLine {
    /// All is well.
    pub fn ok(what: &str, finding: impl Into<String>) -> Self {
        Self { what: what.into(), level: Level::Ok, finding: finding.into(), remedy: None }
    }

    /// It works, and may not for long.
    pub fn warn(what: &str, finding: impl Into<String>, remedy: &str) -> Self {
        Self { level: Level::Warn, remedy: Some(remedy.into()), ..Self::ok(what, finding) }
    }

    /// It does not work.
    pub fn fail(what: &str, finding: impl Into<String>, remedy: &str) -> Self {
        Self { level: Level::Fail, remedy: Some(remedy.into()), ..Self::ok(what, finding) }
    }
}

/// What a doctor looks at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the system's clock says.
    pub clock: UnixMillis,
    /// The highest signed time seen.
    pub clock_floor: UnixMillis,
    /// Disk space free.
    pub free: ByteCount,
    /// Disk space that is never used.
    pub reserve: ByteCount,
    /// What local conditions hold up.
    pub policy: Outlook,
    /// Memory that could be had now, where the kernel says.
    pub memory: Option<ByteCount>,
    /// Memory that models may use.
    pub models: ByteCount,
    /// Whether the broker is there.
    pub connected: bool,
    /// Why it is not.
    pub link_problem: Option<Problem>,
    /// Whether the link is encrypted.
    pub tls: bool,
    /// The files of the link's encryption; none without it.
    pub certificates: Vec<LinkFile>,
    /// This device.
    pub device: DeviceId,
    /// Events that the fleet has not acknowledged; none where it never acknowledged anything that this device said.
    pub waiting: Option<u64>,
    /// Until when trusted metadata holds.
    pub trusted_until: Option<UnixMillis>,
    /// Why the last refresh failed.
    pub trust_problem: Option<String>,
    /// Which protections hold around the active release's worker; none while there is none.
    pub sandbox: Option<Sandbox>,
    /// What the kernel has for the next worker.
    pub kernel: Vec<KernelFeature>,
    /// The release that should answer, and whether it does.
    pub active: Option<(ReleaseId, bool)>,
    /// The release to go back to.
    pub previous: Option<WayBack>,
    /// Starts shortly before this run without a stop.
    pub restarts: u32,
    /// Why the disk takes no events, if it does not.
    pub sheltered: Option<String>,
    /// No release runs, after a crash loop.
    pub safe_mode: bool,
    /// What the device lacks of its class.
    pub class_lacks: Vec<String>,
}

/// The release that a rollback leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// Model and version.
    pub release: ReleaseId,
    /// Whether it was taken back here, so that it comes back by name only.
    pub condemned: bool,
    /// Why, where that is known.
    pub why: Option<Reason>,
}

impl WayBack {
    /// What brings it back.
    fn command(&self) -> String {
        let Self { release, condemned, .. } = self;
        if *condemned {
            format!("`serin-agent rollback --to {}`", release.version)
        } else {
            "`serin-agent rollback`".into()
        }
    }
}

/// Looks at everything.
pub fn doctor(facts: &Facts) -> Checkup {
    let lines = vec![
        model(facts),
        previous(facts),
        broker(facts),
        certificates(facts),
        fleet(facts),
        trust(facts),
        clock(facts),
        disk(facts),
        held_up::check(&facts.policy),
        memory(facts),
        sandbox(facts.sandbox, &facts.kernel),
        class::check(&facts.class_lacks),
        agent(facts),
    ];
    Checkup { lines }
}

fn model(facts: &Facts) -> CheckLine {
    match &facts.active {
        // Said by the agent's own line.
        Some((release, false)) if facts.safe_mode => CheckLine::ok("model", format!("{release} is left out")),
        Some((release, true)) => CheckLine::ok("model", format!("{release} answers")),
        Some((release, false)) => {
            let finding = format!("{release} does not answer; the agent keeps trying");
            let back = facts.previous.as_ref().map(|back| format!(", or go back with {}", back.command()));
            let remedy = format!("see `serin-agent history`{}", back.unwrap_or_default());
            CheckLine::fail("model", finding, &remedy)
        }
        None => CheckLine::warn("model", "no release was installed yet", "have the fleet roll one out"),
    }
}

fn previous(facts: &Facts) -> CheckLine {
    match &facts.previous {
        Some(back) if back.condemned => {
            let WayBack { release, why, .. } = back;
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let finding =
                format!("{release} was taken back on this device{why}; there is nothing else to go back to");
            let remedy = format!(
                "have the fleet roll out one that holds; {} brings it back all the same",
                back.command()
            );
            CheckLine::warn("rollback", finding, &remedy)
        }
        Some(back) => CheckLine::ok("rollback", format!("possible, to {}", back.release)),
        None => CheckLine::ok("rollback", "nothing to go back to yet"),
    }
}

fn broker(facts: &Facts) -> CheckLine {
    let how = if facts.tls { "with TLS" } else { "without TLS" };
    match (&facts.link_problem, facts.connected) {
        (_, true) => CheckLine::ok("broker", format!("connected {how}")),
        (Some(Problem { text, refused: true }), false) => {
            let remedy = format!(
                "the network is well: have an operator look whether the device was revoked (`serin-fleet device show {}`), \
                 and with TLS whether the certificate in broker.tls is this device's and holds; one that was revoked becomes \
                 one of the fleet again with another key only",
                facts.device
            );
            CheckLine::fail("broker", format!("not connected {how}: {text}"), &remedy)
        }
        (problem, false) => {
            let why = problem.as_ref().map_or("no try has ended yet", |problem| problem.text.as_str());
            let remedy = "check the network, broker.host and broker.port, and the files in broker.tls";
            CheckLine::fail("broker", format!("not connected {how}: {why}"), remedy)
        }
    }
}

fn certificates(facts: &Facts) -> CheckLine {
    let what = "certificates";
    let remedy = "have new ones issued, put them where broker.tls says, and restart the agent";
    let unusable = facts.certificates.iter().find_map(|file| Some((file.what, file.good.as_ref().err()?)));
    if let Some((file, why)) = unusable {
        let remedy = "put the file there, readable for the agent's user";
        return CheckLine::fail(what, format!("broker.tls.{file}: {why}"), remedy);
    }
    let ends = facts.certificates.iter().filter_map(|file| Some((file.good.clone().ok()??, file.what)));
    match ends.min() {
        None => CheckLine::ok(what, "none are configured"),
        Some((until, file)) if until <= facts.clock => {
            CheckLine::fail(what, format!("broker.tls.{file} expired at {}", date(until)), remedy)
        }
        Some((until, file)) if until <= facts.clock.plus(CERTIFICATES_SOON) => {
            CheckLine::warn(what, format!("broker.tls.{file} expires at {}", date(until)), remedy)
        }
        Some((until, _)) => CheckLine::ok(what, format!("good until {}", date(until))),
    }
}

fn fleet(facts: &Facts) -> CheckLine {
    let device = &facts.device;
    match facts.waiting {
        None => {
            let finding = "not enrolled: the fleet has confirmed nothing that this device said";
            let remedy = format!(
                "`serin-agent enroll`, with a token that an operator makes by `serin-fleet device invite {device}`"
            );
            CheckLine::warn("fleet", finding, &remedy)
        }
        Some(0) => CheckLine::ok("fleet", "every event was acknowledged"),
        Some(waiting) => {
            let finding = format!("{waiting} events wait to be acknowledged");
            let remedy = format!(
                "if it stays so: have an operator look at the server, and at `serin-fleet device show {device}`"
            );
            CheckLine::warn("fleet", finding, &remedy)
        }
    }
}

fn trust(facts: &Facts) -> CheckLine {
    let remedy = "have the publisher renew what expires, and check trust.root and the clock";
    let why = facts.trust_problem.as_deref().map(|problem| format!(": {problem}")).unwrap_or_default();
    match facts.trusted_until {
        Some(until) if until > facts.clock.plus(SOON) && why.is_empty() => {
            CheckLine::ok("trust", format!("metadata holds until {}", date(until)))
        }
        Some(until) if until > facts.clock => {
            CheckLine::warn("trust", format!("metadata holds until {}{why}", date(until)), remedy)
        }
        Some(until) => CheckLine::fail("trust", format!("metadata expired at {}{why}", date(until)), remedy),
        None => CheckLine::fail("trust", format!("no metadata was verified since the start{why}"), remedy),
    }
}

fn clock(facts: &Facts) -> CheckLine {
    let Facts { clock, clock_floor, .. } = facts;
    if clock < clock_floor {
        let finding = format!("{}, but it is at least {}", date(*clock), date(*clock_floor));
        return CheckLine::fail("clock", finding, "set it, or turn on time synchronisation");
    }
    CheckLine::ok("clock", date(*clock))
}

fn disk(facts: &Facts) -> CheckLine {
    let Facts { free, reserve, .. } = facts;
    let finding = format!("{} free, {} are kept free", size(*free), size(*reserve));
    if let Some(why) = &facts.sheltered {
        let finding =
            format!("takes no events, they are kept in memory until the device is switched off: {why}");
        let remedy = "make room or repair it, then restart the agent";
        return CheckLine::fail("disk", finding, remedy);
    }
    let remedy = "make room, or lower models.reserve";
    if free < reserve {
        return CheckLine::fail("disk", finding, remedy);
    }
    if free.0 < reserve.0.saturating_mul(2) {
        return CheckLine::warn("disk", finding, remedy);
    }
    CheckLine::ok("disk", finding)
}

fn memory(facts: &Facts) -> CheckLine {
    let Some(available) = facts.memory else {
        return CheckLine::warn("memory", "the kernel does not say how much there is", "mount /proc");
    };
    let finding = format!("{} available, models may use {}", size(available), size(facts.models));
    if available < facts.models {
        return CheckLine::warn("memory", finding, "lower models.memory, or end other programs");
    }
    CheckLine::ok("memory", finding)
}

fn agent(facts: &Facts) -> CheckLine {
    if facts.safe_mode {
        let back = facts.previous.as_ref().map(|back| format!("{}, or ", back.command()));
        let remedy = format!(
            "run another release: {}have the fleet assign one; `serin-agent unpin` tries the same again",
            back.unwrap_or_default()
        );
        return CheckLine::fail("agent", "safe mode: it kept crashing, and no release runs", &remedy);
    }
    if facts.restarts > 0 {
        let finding = format!("started {} times in a short time without having been stopped", facts.restarts);
        return CheckLine::warn("agent", finding, "see the system's log for why it ended");
    }
    CheckLine::ok("agent", "it has not crashed of late")
}

#[cfg(test)]
#[path = "checkup_tests.rs"]
mod tests;
