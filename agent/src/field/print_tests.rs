//! What people read.

use super::super::reply::{History, RolledBack};
use super::*;
use serin_protocol::frame::Sandbox;
use serin_protocol::ids::EventNumber;
use serin_protocol::message::Phase;

pub(in crate::field) fn full() -> Status {
    let slot = |release: &str, warm: bool| SlotStatus {
        release: release.parse().expect("id"),
        standing: SlotStanding::Proven,
        memory_limit: ByteCount::from_mib(32),
        worker: warm.then_some(WorkerStatus {
            pid: 77,
            peak_resident: Some(ByteCount::from_mib(20)),
            data_in_use: Some(ByteCount(12_900_000)),
            sandbox: Sandbox {
                no_new_privileges: true,
                files_closed: false,
                memory_limited: true,
                calls_filtered: true,
            },
        }),
        traffic: warm.then_some(Traffic {
            requests: 1204,
            errors: 3,
            refused: 1,
            latency_p50_micros: Some(254),
            latency_p99_micros: Some(1016),
        }),
    };
    Status {
        device: "d1".parse().expect("id"),
        fleet: "f".parse().expect("id"),
        agent: "0.1.0".into(),
        now: UnixMillis(1_778_311_773_000),
        uptime: Millis::from_secs(11_520),
        clock_floor: UnixMillis(1_778_311_000_000),
        link: LinkStatus {
            connected: false,
            since: Some(UnixMillis(1_778_311_700_000)),
            broker: "broker:1883".into(),
            last_error: Some("connection refused".into()),
        },
        active: Some(slot("digits@2.0.0", true)),
        previous: Some(slot("digits@1.0.0", false)),
        candidate: Some("digits@3.0.0".parse().expect("id")),
        phase: Phase::Fetching,
        waiting: None,
        transfer: Some(TransferStatus {
            chunks_here: 57,
            chunks: 120,
            bytes_here: ByteCount(3_502_080),
            bytes: ByteCount::from_mib(7),
        }),
        pinned_by: Some(1000),
        held_until: None,
        sequence: serin_protocol::ids::SequenceNumber(17),
        rollout: Some(serin_protocol::ids::RolloutId(3)),
        memory_budget: ByteCount::from_mib(256),
        free_space: ByteCount(5 << 30),
        agent_resident: Some(ByteCount::from_mib(9)),
        events_waiting: 2,
        reports_waiting: 0,
        last_event: Some(HistoryEntry {
            number: EventNumber(9),
            at: UnixMillis(1_778_311_773_000),
            kind: "pinned".into(),
            release: None,
            text: "user 1000 pinned digits@2.0.0".into(),
        }),
        safe_mode: false,
        restarts: 0,
        paused_until: None,
        trial: None,
        not_enrolled: false,
    }
}

#[test]
fn the_status_says_what_runs_and_how_it_is() {
    let expected = "\
device      d1 in fleet f, agent 0.1.0, up 3 h 12 min
link        not connected to broker:1883 since 2026-05-09 07:28:20Z: connection refused
active      digits@2.0.0  proven  pinned by user 1000
            1204 requests, 3 failed, 1 refused; half within 254 µs, 99 % within 1.0 ms
            worker 77, 12.3 MiB of 32.0 MiB, 20.0 MiB resident at most, without Landlock
previous    digits@1.0.0  proven  cold
candidate   digits@3.0.0  fetching, 57 of 120 chunks, 3.3 MiB of 7.0 MiB
assignment  number 17 of rollout 3
resources   256.0 MiB memory for models, agent 9.0 MiB, 5.0 GiB disk free
waiting     2 events and 0 reports for the fleet server
clock       2026-05-09 07:29:33Z, never before 2026-05-09 07:16:40Z
last event  2026-05-09 07:29:33Z      9  user 1000 pinned digits@2.0.0
";
    assert_eq!(status(&full(), Paint(false)), expected);
}

#[test]
fn a_status_says_what_an_arm_answers_and_that_a_device_is_not_enrolled() {
    let mode =
        serin_protocol::assignment::TrialMode::Arm { share: serin_protocol::ids::BasisPoints(3000), salt: 1 };
    let trial = Status { phase: Phase::Shadowing, transfer: None, trial: Some(mode.into()), ..full() };
    let said = status(&trial, Paint(false));
    let line = "candidate   digits@3.0.0  on trial, as an arm that answers 30 % of request keys\n";
    assert!(said.contains(line), "{said}");
    assert!(!said.contains("enrolled"), "{said}");
    let said = status(&Status { not_enrolled: true, ..full() }, Paint(false));
    assert!(said.contains("\nfleet       not enrolled"), "{said}");
}

#[test]
fn a_status_survives_json() {
    let reply = FieldReply::Status(Box::new(full()));
    let text = serde_json::to_string(&reply).expect("plain");
    assert_eq!(serde_json::from_str::<FieldReply>(&text).expect("own"), reply);
}

#[test]
fn colours_come_only_when_wanted() {
    let done = FieldReply::RolledBack(RolledBack {
        from: "m@2".parse().expect("id"),
        to: "m@1".parse().expect("id"),
        millis: Millis(12),
    });
    let plain = reply(&done, Paint(false));
    assert!(plain.starts_with("rolled back in 12 ms: m@1 answers now instead of m@2\n"), "{plain}");
    assert!(reply(&done, Paint(true)).starts_with("\x1b[32mrolled back\x1b[0m in"));
    let nothing = FieldReply::History(History { entries: vec![] });
    assert_eq!(reply(&nothing, Paint(true)), "nothing has happened yet\n");
}

#[test]
fn dates_are_civil() {
    for (seconds, text) in [
        (0, "1970-01-01 00:00:00Z"),
        (951_782_399, "2000-02-28 23:59:59Z"),
        (951_782_400, "2000-02-29 00:00:00Z"),
        (4_107_542_400, "2100-03-01 00:00:00Z"),
        (1_767_225_599, "2025-12-31 23:59:59Z"),
    ] {
        assert_eq!(date(UnixMillis(seconds * 1000)), text);
    }
}
