//! What all seeds together show, and whether that is what was promised.

use std::collections::BTreeMap;

use serin_fleet_server::stats::bounds::clopper_pearson_upper;
use serin_protocol::ids::Millis;

use super::judges::{Judge, STRICTNESSES};
use super::run::{End, Ran, STEP};
use super::world::{Harm, SPREADS, Setting};

/// The share of whole rollouts that the plan lets comparisons roll back by mistake.
const ALPHA: f64 = 0.01;

/// What the upper bound may lie above it, with as many rollouts as were played.
const MARGIN: f64 = 0.01;

/// Fewer rollouts than this do not bear the bound.
const ENOUGH: u64 = 2000;

/// Harmful releases stopped before half of the fleet has them.
const STOPPED: f64 = 0.99;

/// What one seed came to.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) setting: Setting,
    pub(crate) ran: Result<Ran, String>,
    /// Points after which other judges stop it, at each strictness.
    pub(crate) judged: Option<BTreeMap<Judge, [Option<usize>; STRICTNESSES.len()]>>,
}

/// Prints the report and returns what was missed.
pub(crate) fn report(outcomes: &[Outcome]) -> Vec<String> {
    let mut missed = Vec::new();
    healthy(outcomes, &mut missed);
    harmful(outcomes, &mut missed);
    compared(outcomes, &mut missed);
    for outcome in outcomes {
        if let Err(error) = &outcome.ran {
            missed.push(format!("seed {}: {error}", outcome.seed));
        }
    }
    missed
}

type Chosen<'a> = Vec<(&'a Outcome, &'a Ran)>;

fn chosen(outcomes: &[Outcome], wanted: impl Fn(&Setting) -> bool) -> Chosen<'_> {
    let ran = outcomes.iter().filter_map(|outcome| Some((outcome, outcome.ran.as_ref().ok()?)));
    ran.filter(|(outcome, _)| wanted(&outcome.setting)).collect()
}

fn count(ran: &Chosen<'_>, end: End) -> u64 {
    ran.iter().filter(|(_, ran)| ran.end == end).count() as u64
}

fn percent(part: u64, whole: usize) -> String {
    format!("{:.2} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn healthy(outcomes: &[Outcome], missed: &mut Vec<String>) {
    println!(
        "\nhealthy releases                rollouts  rolled back   95 % bound  to operator    completed"
    );
    let mut line = |name: &str, ran: &Chosen<'_>| {
        let (n, false_alarms) = (ran.len(), count(ran, End::RolledBack));
        let bound = clopper_pearson_upper(false_alarms, n as u64, 0.95);
        println!(
            "  {name:28} {n:9} {:>12} {:>11.2}% {:>12} {:>12}",
            percent(false_alarms, n),
            100.0 * bound,
            percent(count(ran, End::Operator), n),
            percent(count(ran, End::Completed), n)
        );
        let rate = false_alarms as f64 / n.max(1) as f64;
        if n as u64 >= ENOUGH && (rate > ALPHA || bound > ALPHA + MARGIN) {
            missed.push(format!("{name}: {false_alarms} of {n} healthy releases were rolled back"));
        }
    };
    for cv in SPREADS {
        let ran = chosen(outcomes, |setting| {
            setting.harm == Harm::Nothing && !setting.is_small() && (setting.cv - cv).abs() < 1e-9
        });
        line(&format!("spread between devices {cv}"), &ran);
    }
    line("small fleets", &chosen(outcomes, |setting| setting.harm == Harm::Nothing && setting.is_small()));
    line("all", &chosen(outcomes, |setting| setting.harm == Harm::Nothing));
}

fn harmful(outcomes: &[Outcome], missed: &mut Vec<String>) {
    println!(
        "\nharmful releases                rollouts      stopped  rolled back  median time    had it at most"
    );
    for (name, harm, small, promised) in [
        ("twice the errors", Harm::Errors, false, true),
        ("a feature moved by PSI 0.25", Harm::Feature, false, true),
        ("five times the crashes", Harm::Crashes, false, false),
        ("three times as slow", Harm::Latency, false, false),
        ("a third falls silent", Harm::Silence, false, false),
        ("twice the errors, small fleet", Harm::Errors, true, false),
    ] {
        let ran = chosen(outcomes, |setting| setting.harm == harm && setting.is_small() == small);
        let stopped = ran.iter().filter(|(_, ran)| ran.end != End::Completed && ran.exposed < 0.5).count();
        let mut times: Vec<Millis> = ran.iter().map(|(_, ran)| ran.decided_after).collect();
        times.sort_unstable();
        let mut shares: Vec<f64> = ran.iter().map(|(_, ran)| ran.exposed).collect();
        shares.sort_by(f64::total_cmp);
        let n = ran.len();
        println!(
            "  {name:28} {n:9} {:>12} {:>12} {:>12} {:>11.1} % median",
            percent(stopped as u64, n),
            percent(count(&ran, End::RolledBack), n),
            times.get(n / 2).map_or_else(|| "-".into(), |time| minutes(time.0 as f64 / 60_000.0)),
            100.0 * shares.get(n / 2).copied().unwrap_or(0.0)
        );
        let fewest = (STOPPED * n as f64).floor() as usize;
        if promised && stopped < fewest {
            missed.push(format!("{name}: {stopped} of {n} were stopped before half of the fleet had them"));
        }
    }
}

fn minutes(minutes: f64) -> String {
    if minutes < 120.0 { format!("{minutes:.0} min") } else { format!("{:.1} h", minutes / 60.0) }
}

/// One judge at one strictness.
struct Judged {
    name: String,
    false_alarms: f64,
    /// Mean over harmful releases, those not stopped counted at the end of the streams.
    time: f64,
    power: f64,
}

fn compared(outcomes: &[Outcome], missed: &mut Vec<String>) {
    let streams: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| outcome.judged.is_some() && outcome.ran.is_ok()).collect();
    let of = |harm: Harm| {
        let wanted = |outcome: &&&Outcome| outcome.setting.harm == harm && !outcome.setting.is_small();
        streams.iter().filter(wanted).copied().collect::<Vec<&Outcome>>()
    };
    let (healthy, harmful) = (of(Harm::Nothing), of(Harm::Errors));
    if healthy.is_empty() || harmful.is_empty() {
        return;
    }
    // Both bakes of an hour: who has not stopped it by then has let it go to everybody.
    let end = 120.0;
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    let rolled_back = |outcome: &&&Outcome| outcome.ran.as_ref().is_ok_and(|ran| ran.end == End::RolledBack);
    let own_time = |outcome: &&Outcome| match &outcome.ran {
        Ok(ran) if ran.end == End::RolledBack => (ran.decided_after.0 as f64 / 60_000.0).min(end),
        Ok(_) | Err(_) => end,
    };
    let serin = Judged {
        name: "Serin".into(),
        false_alarms: share(healthy.iter().filter(rolled_back).count(), healthy.len()),
        time: harmful.iter().map(own_time).sum::<f64>() / harmful.len() as f64,
        power: share(harmful.iter().filter(rolled_back).count(), harmful.len()),
    };
    println!(
        "\nthe same streams, {} healthy, {} with twice the errors     false alarms   detected   mean time to stop",
        healthy.len(),
        harmful.len()
    );
    print(&serin);
    for judge in Judge::ALL {
        let all: Vec<Judged> = (0..STRICTNESSES.len())
            .map(|strictness| judged(judge, strictness, &healthy, &harmful, end))
            .collect();
        let Some(usual) = all.get(judge.usual()) else { continue };
        print(&Judged { name: format!("{}, as it is set by default", judge.name()), ..*usual });
        // The least strict that keeps the promise.
        match all.iter().find(|judged| judged.false_alarms <= ALPHA.max(serin.false_alarms)) {
            Some(fair) => {
                print(&Judged {
                    name: format!("{}, at the same false alarms: {}", judge.name(), fair.name),
                    ..*fair
                });
                if fair.time < serin.time {
                    missed.push(format!(
                        "{} stops harm after {:.1} minutes, Serin after {:.1}",
                        judge.name(),
                        fair.time,
                        serin.time
                    ));
                }
            }
            None => println!("  {}: no strictness up to a ratio of 6 has as few false alarms", judge.name()),
        }
    }
}

fn judged(judge: Judge, strictness: usize, healthy: &[&Outcome], harmful: &[&Outcome], end: f64) -> Judged {
    let stop = |outcome: &&Outcome| -> Option<usize> {
        outcome.judged.as_ref()?.get(&judge)?.get(strictness).copied().flatten()
    };
    let share = |outcomes: &[&Outcome]| {
        outcomes.iter().filter(|outcome| stop(outcome).is_some()).count() as f64
            / outcomes.len().max(1) as f64
    };
    let step = STEP.0 as f64 / 60_000.0;
    let time = |outcome: &&Outcome| stop(outcome).map_or(end, |points| (points as f64 * step).min(end));
    Judged {
        name: format!("a ratio of {}", STRICTNESSES[strictness]),
        false_alarms: share(healthy),
        time: harmful.iter().map(time).sum::<f64>() / harmful.len().max(1) as f64,
        power: share(harmful),
    }
}

fn print(judged: &Judged) {
    println!(
        "  {:62} {:>9.2} % {:>8.1} % {:>15}",
        judged.name,
        100.0 * judged.false_alarms,
        100.0 * judged.power,
        minutes(judged.time)
    );
}
