//! What is well on a device and what is not, each with its remedy. Pure: the supervisor brings the facts.

use serde::{Deserialize, Serialize};
use serin_protocol::frame::Sandbox;
use serin_protocol::ids::{ByteCount, Millis, ReleaseId, UnixMillis};

use super::class;
use super::held_up::{self, Outlook};
use super::print::{date, size};
use super::protections::{Kernel, sandbox};
use crate::link::certificates::LinkFile;

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
    pub link_problem: Option<String>,
    /// Whether the link is encrypted.
    pub tls: bool,
    /// The files of the link's encryption; none without it.
    pub certificates: Vec<LinkFile>,
    /// Events that the fleet has not acknowledged.
    pub waiting: u64,
    /// Until when trusted metadata holds.
    pub trusted_until: Option<UnixMillis>,
    /// Why the last refresh failed.
    pub trust_problem: Option<String>,
    /// Which protections hold around the active release's worker; none while there is none.
    pub sandbox: Option<Sandbox>,
    /// What the kernel has for the next worker.
    pub kernel: Kernel,
    /// The release that should answer, and whether it does.
    pub active: Option<(ReleaseId, bool)>,
    /// The release to go back to.
    pub previous: Option<ReleaseId>,
    /// Starts shortly before this run without a stop.
    pub restarts: u32,
    /// Why the disk takes no events, if it does not.
    pub sheltered: Option<String>,
    /// No release runs, after a crash loop.
    pub safe_mode: bool,
    /// What the device lacks of its class.
    pub class_lacks: Vec<String>,
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
        sandbox(facts.sandbox, facts.kernel),
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
            CheckLine::fail(
                "model",
                finding,
                "see `serin-agent history`, or go back with `serin-agent rollback`",
            )
        }
        None => CheckLine::warn("model", "no release was installed yet", "have the fleet roll one out"),
    }
}

fn previous(facts: &Facts) -> CheckLine {
    match &facts.previous {
        Some(release) => CheckLine::ok("rollback", format!("possible, to {release}")),
        None => CheckLine::ok("rollback", "nothing to go back to yet"),
    }
}

fn broker(facts: &Facts) -> CheckLine {
    let how = if facts.tls { "with TLS" } else { "without TLS" };
    match (&facts.link_problem, facts.connected) {
        (_, true) => CheckLine::ok("broker", format!("connected {how}")),
        (problem, false) => {
            let why = problem.as_deref().unwrap_or("no try has ended yet");
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
    if facts.waiting == 0 {
        return CheckLine::ok("fleet", "every event was acknowledged");
    }
    let finding = format!("{} events wait to be acknowledged", facts.waiting);
    let remedy = "if it stays so: enrol with `serin-agent enroll`, or have an operator look at the server";
    CheckLine::warn("fleet", finding, remedy)
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
        let remedy = "run another release: `serin-agent rollback`, or have the fleet assign one; \
                      `serin-agent unpin` tries the same again";
        return CheckLine::fail("agent", "safe mode: it kept crashing, and no release runs", remedy);
    }
    if facts.restarts > 0 {
        let finding = format!("started {} times in a short time without having been stopped", facts.restarts);
        return CheckLine::warn("agent", finding, "see the system's log for why it ended");
    }
    CheckLine::ok("agent", "it has not crashed of late")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::protections;

    fn well() -> Facts {
        Facts {
            clock: UnixMillis(1_795_000_000_000),
            clock_floor: UnixMillis(1_794_000_000_000),
            free: ByteCount::from_mib(1000),
            reserve: ByteCount::from_mib(64),
            policy: Outlook::default(),
            memory: Some(ByteCount::from_mib(512)),
            models: ByteCount::from_mib(256),
            connected: true,
            link_problem: None,
            tls: true,
            certificates: vec![
                LinkFile { what: "ca", good: Ok(Some(UnixMillis(1_895_000_000_000))) },
                LinkFile { what: "key", good: Ok(None) },
            ],
            waiting: 0,
            trusted_until: Some(UnixMillis(1_795_100_000_000)),
            trust_problem: None,
            sandbox: Some(protections::WHOLE),
            kernel: Kernel { landlock: true, seccomp: true, memory_groups: true },
            active: Some(("m@2".parse().expect("id"), true)),
            previous: Some("m@1".parse().expect("id")),
            restarts: 0,
            sheltered: None,
            safe_mode: false,
            class_lacks: Vec::new(),
        }
    }

    fn found(change: impl FnOnce(&mut Facts), what: &str) -> CheckLine {
        let mut facts = well();
        change(&mut facts);
        let checkup = doctor(&facts);
        let line = checkup.lines.iter().find(|line| line.what == what).expect("is looked at").clone();
        assert_eq!(checkup.worst(), line.level, "nothing else is wrong: {checkup:?}");
        assert_eq!(line.remedy.is_some(), line.level != Level::Ok, "{line:?}");
        line
    }

    #[test]
    fn a_device_that_is_well_needs_nothing() {
        let checkup = doctor(&well());
        assert_eq!(checkup.worst(), Level::Ok, "{checkup:?}");
        assert_eq!(checkup.lines.len(), 13);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let level = |line: CheckLine| line.level;
        let dead_clock = found(|facts| facts.clock_floor = facts.clock.plus(Millis(1)), "clock");
        assert_eq!(level(dead_clock), Level::Fail);
        assert_eq!(level(found(|facts| facts.free = ByteCount::from_mib(63), "disk")), Level::Fail);
        assert_eq!(level(found(|facts| facts.free = ByteCount::from_mib(100), "disk")), Level::Warn);
        let sheltered = found(|facts| facts.sheltered = Some("Read-only file system".into()), "disk");
        assert!(sheltered.finding.contains("Read-only"), "{sheltered:?}");
        assert_eq!(level(sheltered), Level::Fail);
        assert_eq!(level(found(|facts| facts.memory = Some(ByteCount(1)), "memory")), Level::Warn);
        let open = Sandbox { files_closed: false, ..protections::WHOLE };
        assert_eq!(level(found(|facts| facts.sandbox = Some(open), "sandbox")), Level::Warn);
        assert_eq!(level(found(|facts| facts.waiting = 3, "fleet")), Level::Warn);
        assert_eq!(level(found(|facts| facts.active = None, "model")), Level::Warn);
        assert_eq!(level(found(|facts| facts.restarts = 2, "agent")), Level::Warn);
        let safe = found(
            |facts| (facts.safe_mode, facts.active) = (true, Some(("m@2".parse().expect("id"), false))),
            "agent",
        );
        assert_eq!(safe.level, Level::Fail);
        let silent = found(|facts| facts.active = Some(("m@2".parse().expect("id"), false)), "model");
        assert_eq!(level(silent), Level::Fail);
        let alone =
            found(|facts| (facts.connected, facts.link_problem) = (false, Some("refused".into())), "broker");
        assert!(alone.level == Level::Fail && alone.finding.contains("refused"), "{alone:?}");
    }

    #[test]
    fn certificates_are_watched_before_they_end() {
        let until = |days: u64| {
            move |facts: &mut Facts| {
                let until = facts.clock.plus(Millis::from_secs(days * 24 * 3600));
                facts.certificates.push(LinkFile { what: "certificate", good: Ok(Some(until)) });
            }
        };
        assert_eq!(found(until(31), "certificates").level, Level::Ok);
        let soon = found(until(30), "certificates");
        assert!(soon.level == Level::Warn && soon.finding.contains("broker.tls.certificate"), "{soon:?}");
        assert_eq!(found(until(0), "certificates").level, Level::Fail);
        let missing = LinkFile { what: "key", good: Err("No such file".into()) };
        let missing = found(|facts| facts.certificates.push(missing), "certificates");
        assert!(missing.level == Level::Fail && missing.finding.contains("broker.tls.key"), "{missing:?}");
        assert_eq!(found(|facts| facts.certificates.clear(), "certificates").level, Level::Ok);
    }

    #[test]
    fn trust_is_watched_before_it_ends() {
        let until = |seconds: u64| {
            move |facts: &mut Facts| {
                facts.trusted_until = Some(facts.clock.plus(Millis::from_secs(seconds)));
            }
        };
        assert_eq!(found(until(13 * 3600), "trust").level, Level::Ok);
        assert_eq!(found(until(11 * 3600), "trust").level, Level::Warn);
        assert_eq!(found(until(0), "trust").level, Level::Fail);
        assert_eq!(found(|facts| facts.trusted_until = None, "trust").level, Level::Fail);
        let failing = found(|facts| facts.trust_problem = Some("freeze".into()), "trust");
        assert!(failing.level == Level::Warn && failing.finding.contains("freeze"), "{failing:?}");
    }
}
