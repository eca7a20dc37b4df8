//! What people read: replies as text. Pure.

use std::fmt::Write as _;

use serin_protocol::ids::{ByteCount, Millis, UnixMillis};

use super::checkup::{CheckLine, Level};
use super::reply::{
    FieldReply, HistoryEntry, LinkStatus, SlotStanding, SlotStatus, Status, Traffic, TransferStatus,
    WorkerStatus,
};

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn doubtful(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn quiet(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// `reply` as lines.
pub(super) fn reply(reply: &FieldReply, paint: Paint) -> String {
    match reply {
        FieldReply::Status(status) => self::status(status, paint),
        FieldReply::History(history) if history.entries.is_empty() => "nothing has happened yet\n".into(),
        FieldReply::History(history) => history.entries.iter().map(|entry| line(entry, paint)).collect(),
        FieldReply::RolledBack(done) => format!(
            "{} in {} ms: {} answers now instead of {}\nIt stays until `serin-agent unpin`, whatever the fleet says.\n",
            paint.good("rolled back"),
            done.millis,
            done.to,
            done.from
        ),
        FieldReply::Pinned { release } => format!(
            "{}: {release} stays until `serin-agent unpin`, whatever the fleet says\n",
            paint.good("pinned")
        ),
        FieldReply::Checkup(checkup) => checkup.lines.iter().map(|line| check(line, paint)).collect(),
        FieldReply::Held { until } => format!(
            "{}: no order of the fleet is taken until {}, or `serin-agent unpin`\n",
            paint.good("held"),
            date(*until)
        ),
        FieldReply::Sideloaded { release, millis } => format!(
            "{}: {release} answers after {}, on probation\nIt stays until `serin-agent unpin`, whatever the fleet says.\n",
            paint.good("sideloaded"),
            span(*millis)
        ),
        FieldReply::Logs { lines, run: _ } => lines.iter().map(|line| line.text.clone() + "\n").collect(),
        FieldReply::Configuration(configuration) => format!("{configuration:#}\n"),
        FieldReply::Enrolled { device, fleet } => {
            format!("{}: {device} is one of the fleet {fleet}\n", paint.good("enrolled"))
        }
        FieldReply::Unpinned => format!("{}: this device follows its fleet again\n", paint.good("unpinned")),
    }
}

fn check(line: &CheckLine, paint: Paint) -> String {
    let level = match line.level {
        Level::Ok => paint.good("ok  "),
        Level::Warn => paint.doubtful("warn"),
        Level::Fail => paint.bad("fail"),
    };
    let remedy = line.remedy.as_ref().map(|remedy| format!("{:16}next: {remedy}\n", "")).unwrap_or_default();
    format!("{level}  {:<8}  {}\n{remedy}", line.what, line.finding)
}

fn status(status: &Status, paint: Paint) -> String {
    let mut table = Table { text: String::new(), paint };
    let Status { device, fleet, agent, .. } = status;
    table.row("device", &format!("{device} in fleet {fleet}, agent {agent}, up {}", span(status.uptime)));
    if status.safe_mode {
        let text = "no release runs after a crash loop; see `serin-agent doctor`";
        table.row("safe mode", &paint.bad(text));
    }
    table.row("link", &link(&status.link, paint));
    if status.not_enrolled {
        table.row(
            "fleet",
            &paint.doubtful("not enrolled: it has confirmed nothing yet; see `serin-agent doctor`"),
        );
    }
    if let Some(until) = status.paused_until {
        table.row("paused", &paint.doubtful(&format!("the fleet asks to hold back until {}", date(until))));
    }
    match &status.active {
        Some(slot) => {
            let pin = status.pinned_by.map(|uid| paint.doubtful(&format!("  pinned by user {uid}")));
            table.row("active", &(head(slot, paint) + &pin.unwrap_or_default()));
            table.slot(slot);
        }
        None => table.row("active", &paint.bad("none: no release answers on this device")),
    }
    match &status.previous {
        Some(slot) => {
            let state = if slot.worker.is_some() { "  warm" } else { "  cold" };
            table.row("previous", &(head(slot, paint) + state));
            table.slot(slot);
        }
        None => table.row("previous", "none: a rollback is not possible"),
    }
    if let Some(until) = status.held_until {
        table.row("held", &paint.doubtful(&format!("no order of the fleet is taken until {}", date(until))));
    }
    if let Some(candidate) = &status.candidate {
        let transfer = status.transfer.as_ref().map(transfer).unwrap_or_default();
        let trial = status.trial.map(|trial| format!(", as {trial}")).unwrap_or_default();
        table.row("candidate", &format!("{candidate}  {}{transfer}{trial}", status.phase));
    }
    if let Some(waiting) = &status.waiting {
        table.row("waits", &paint.doubtful(&waiting.to_string()));
    }
    let rollout = status.rollout.map(|rollout| format!(" of rollout {rollout}")).unwrap_or_default();
    table.row("assignment", &format!("number {}{rollout}", status.sequence));
    let agent = status.agent_resident.map(|bytes| format!(", agent {}", size(bytes))).unwrap_or_default();
    let (budget, free) = (size(status.memory_budget), size(status.free_space));
    table.row("resources", &format!("{budget} memory for models{agent}, {free} disk free"));
    let (events, reports) = (status.events_waiting, status.reports_waiting);
    table.row("waiting", &format!("{events} events and {reports} reports for the fleet server"));
    table.row("clock", &format!("{}, never before {}", date(status.now), date(status.clock_floor)));
    if let Some(event) = &status.last_event {
        table.row("last event", line(event, paint).trim_end());
    }
    table.text
}

/// The slots of a device, as lines or JSON.
pub(super) fn slots(status: &Status, as_json: bool, paint: Paint) -> String {
    let slots = [("active", &status.active), ("previous", &status.previous)];
    if as_json {
        let fields = slots.map(|(name, slot)| (name.to_owned(), serde_json::json!(slot)));
        let mut all = serde_json::Map::from_iter(fields);
        all.insert("candidate".into(), serde_json::json!(status.candidate));
        return serde_json::Value::Object(all).to_string() + "\n";
    }
    let mut table = Table { text: String::new(), paint };
    for (name, slot) in slots {
        match slot {
            Some(slot) => {
                let warm = if slot.worker.is_some() { "  warm" } else { "  cold" };
                table.row(name, &(head(slot, paint) + warm));
            }
            None => table.row(name, "empty"),
        }
    }
    let candidate = status.candidate.as_ref().map_or_else(|| "none".into(), ToString::to_string);
    table.row("candidate", &candidate);
    table.text
}

struct Table {
    text: String,
    paint: Paint,
}

impl Table {
    fn row(&mut self, name: &str, value: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{}{value}", self.paint.quiet(&format!("{name:<12}")));
    }

    fn slot(&mut self, slot: &SlotStatus) {
        if let Some(traffic) = &slot.traffic {
            self.row("", &self::traffic(traffic, self.paint));
        }
        if let Some(worker) = &slot.worker {
            self.row("", &self::worker(worker, slot.memory_limit, self.paint));
        }
    }
}

fn head(slot: &SlotStatus, paint: Paint) -> String {
    let standing = match slot.standing {
        SlotStanding::Proven => paint.good("proven"),
        SlotStanding::Unproven => paint.doubtful("in probation"),
        SlotStanding::Condemned => paint.bad("taken back earlier"),
    };
    format!("{}  {standing}", slot.release)
}

fn link(link: &LinkStatus, paint: Paint) -> String {
    let since = link.since.map(|since| format!(" since {}", date(since))).unwrap_or_default();
    if link.connected {
        return format!("{} to {}{since}", paint.good("connected"), link.broker);
    }
    let why = link.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{} to {}{since}{why}", paint.bad("not connected"), link.broker)
}

fn traffic(traffic: &Traffic, paint: Paint) -> String {
    let Traffic { requests, errors, refused, latency_p50_micros, latency_p99_micros } = *traffic;
    let failed = format!("{errors} failed");
    let failed = if errors == 0 { failed } else { paint.bad(&failed) };
    let latency = match (latency_p50_micros, latency_p99_micros) {
        (Some(p50), Some(p99)) => format!("; half within {}, 99 % within {}", time(p50), time(p99)),
        (_, _) => String::new(),
    };
    format!("{requests} requests, {failed}, {refused} refused{latency}")
}

fn worker(worker: &WorkerStatus, limit: ByteCount, paint: Paint) -> String {
    let used = worker.data_in_use.map_or_else(|| "?".into(), size);
    let peak = worker.peak_resident.map(|peak| format!(", {} resident at most", size(peak)));
    let lacks: Vec<&str> = worker.sandbox.lacks().collect();
    let sandbox = if lacks.is_empty() {
        "sandboxed".into()
    } else {
        paint.bad(&format!("without {}", lacks.join(", ")))
    };
    format!("worker {}, {used} of {}{}, {sandbox}", worker.pid, size(limit), peak.unwrap_or_default())
}

fn transfer(transfer: &TransferStatus) -> String {
    let TransferStatus { chunks_here, chunks, bytes_here, bytes } = *transfer;
    format!(", {chunks_here} of {chunks} chunks, {} of {}", size(bytes_here), size(bytes))
}

fn line(entry: &HistoryEntry, paint: Paint) -> String {
    format!("{}  {:>5}  {}\n", paint.quiet(&date(entry.at)), entry.number, entry.text)
}

pub(super) fn size(bytes: ByteCount) -> String {
    let bytes = bytes.0;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        1_073_741_824.. => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        1_000_000.. => format!("{:.1} s", micros as f64 / 1e6),
    }
}

fn span(millis: Millis) -> String {
    let seconds = millis.0 / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// UTC, as in `2026-05-09 07:29:33Z`.
pub(super) fn date(at: UnixMillis) -> String {
    let seconds = at.0 / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01, after H. Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`.
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
#[path = "print_tests.rs"]
pub(super) mod tests;
