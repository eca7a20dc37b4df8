//! All alerts of a fleet: one machine per rule, group and kind, what was told about each, and the silences. A look
//! takes readings and returns what is to be noted and said; all that must survive a restart is in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{Millis, UnixMillis};

use super::condition::Judged;
use super::note::{Alert, Change, Kind, Note, Numbers};
use super::reading::{Group, Reading};
use super::rule::{Rule, RuleName, Severity};
use super::silence::{MAX_SILENCES, Silence, SilenceError, SilenceId};
use super::standing::{Signal, Standing};
use crate::notify::receiver::{ReceiverName, Routes};

/// Most pairs of rule and group watched, about 1 KiB each: 100 rules over 50 releases that run at a time.
pub const MAX_WATCHED: usize = 5000;

/// A rule and a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The rule.
    pub rule: RuleName,
    /// The group.
    pub group: Group,
}

/// What is known of a rule and group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Whether it is beyond its limit.
    pub breach: Standing,
    /// Whether there is something to look at.
    pub absence: Standing,
    /// What the last look found.
    pub found: Judged,
    /// The sums that rests on.
    pub numbers: Numbers,
    /// When that was.
    pub at: UnixMillis,
    /// As the rule says: receivers know an alert by it, so that it must be the same when it is over.
    severity: Severity,
    /// Who was told that it rings.
    told: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    kind: Kind,
    receiver: ReceiverName,
    since: UnixMillis,
    /// When last.
    at: UnixMillis,
}

impl Watched {
    fn new(found: Judged, numbers: Numbers, at: UnixMillis, severity: Severity) -> Self {
        let (breach, absence) = (Standing::Quiet, Standing::Quiet);
        Self { breach, absence, found, numbers, at, severity, told: Vec::new() }
    }

    /// Its standing in one word. No data is one of its own, whatever was before.
    pub const fn word(&self) -> &'static str {
        match (self.found.signal, self.breach) {
            (_, Standing::Firing { .. }) => "firing",
            (Signal::Unknown, _) => "no_data",
            (_, Standing::Clearing { .. }) => "clearing",
            (_, Standing::Pending { .. }) => "pending",
            (_, Standing::Quiet) => "fine",
        }
    }

    /// What of it rings, and since when.
    pub fn firing(&self) -> impl Iterator<Item = (Kind, UnixMillis)> {
        let both = [(Kind::Breach, self.breach), (Kind::NoData, self.absence)];
        both.into_iter().filter_map(|(kind, standing)| Some((kind, standing.firing()?)))
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Which rules hold.
    pub rules: &'a [Rule],
    /// Who is told what.
    pub routes: &'a Routes,
    /// What every group showed in every window that a rule looks at.
    pub readings: &'a BTreeMap<(Group, Millis), Reading>,
}

/// What a look leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// For the record.
    pub notes: Vec<Note>,
    /// For receivers.
    pub notices: Vec<(ReceiverName, Alert)>,
    /// Something else that must be kept has changed.
    pub changed: bool,
}

/// All alerts and silences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Book {
    #[serde(with = "as_list")]
    watched: BTreeMap<Key, Watched>,
    silences: Vec<Silence>,
    last_silence: u64,
    last_note: u64,
}

impl Book {
    /// Everything watched.
    pub fn watched(&self) -> impl Iterator<Item = (&Key, &Watched)> {
        self.watched.iter()
    }

    /// The silences that hold.
    pub fn silences(&self, now: UnixMillis) -> impl Iterator<Item = &Silence> {
        self.silences.iter().filter(move |silence| now < silence.until)
    }

    /// Adds a silence; its number is given here.
    pub fn silence(&mut self, mut silence: Silence, now: UnixMillis) -> Result<SilenceId, SilenceError> {
        silence.check()?;
        self.silences.retain(|other| now < other.until);
        if self.silences.len() >= MAX_SILENCES {
            return Err(SilenceError::TooMany);
        }
        self.last_silence = self.last_silence.saturating_add(1);
        silence.id = SilenceId(self.last_silence);
        let id = silence.id;
        self.silences.push(silence);
        Ok(id)
    }

    /// Ends a silence; the one that was.
    pub fn unsilence(&mut self, id: SilenceId, now: UnixMillis) -> Option<Silence> {
        let at = self.silences.iter().position(|silence| silence.id == id && now < silence.until)?;
        Some(self.silences.remove(at))
    }

    /// The silence that keeps an alert from being told.
    pub fn silenced_by(&self, alert: &Alert, now: UnixMillis) -> Option<SilenceId> {
        self.silences.iter().find(|silence| silence.covers(alert, now)).map(|silence| silence.id)
    }

    /// Every alert that rings, as it would be told.
    pub fn firing(&self, rules: &[Rule], routes: &Routes) -> Vec<Alert> {
        let of_rule = |name: &RuleName| rules.iter().find(|rule| rule.name == *name);
        let all = self.watched.iter().filter_map(|(key, watched)| Some((key, watched, of_rule(&key.rule)?)));
        all.flat_map(|(key, watched, rule)| {
            watched
                .firing()
                .map(|(kind, since)| alert(rule, routes, key, watched, kind, since))
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// Holds readings against rules.
    pub fn look(&mut self, now: UnixMillis, look: Look<'_>) -> Said {
        let mut said = Said::default();
        self.forget_what_is_gone(now, look, &mut said);
        for rule in look.rules {
            let of_rule = look
                .readings
                .iter()
                .filter(|((group, window), _)| *window == rule.window && rule.looks_at(group));
            for ((group, _), reading) in of_rule {
                let key = Key { rule: rule.name.clone(), group: group.clone() };
                self.judge(now, look, rule, key, reading, &mut said);
            }
        }
        let silences = self.silences.len();
        self.silences.retain(|silence| now < silence.until);
        said.changed |= silences != self.silences.len();
        said
    }

    fn judge(
        &mut self,
        now: UnixMillis,
        look: Look<'_>,
        rule: &Rule,
        key: Key,
        reading: &Reading,
        said: &mut Said,
    ) {
        let (found, numbers) = (rule.when.judge(reading), Numbers::from(reading));
        let mut watched = match self.watched.remove(&key) {
            Some(watched) => Watched { found, numbers, at: now, ..watched },
            None if self.watched.len() >= MAX_WATCHED => return,
            None => Watched::new(found, numbers, now, rule.severity),
        };
        let signal = watched.found.signal;
        let breach = watched.breach.step(now, signal, rule.hold, rule.clear_for);
        let there = if signal == Signal::Unknown { Signal::Bad } else { Signal::Good };
        let absence = watched.absence.step(now, there, rule.no_data_for, Millis(0));
        said.changed |= breach != watched.breach || absence != watched.absence;
        for (kind, before, after) in
            [(Kind::Breach, watched.breach, breach), (Kind::NoData, watched.absence, absence)]
        {
            let change = match (before.firing(), after.firing()) {
                (None, Some(since)) => Some((Change::Fired, since, None)),
                (Some(since), None) => Some((Change::Resolved, since, Some(now))),
                (None, None) | (Some(_), Some(_)) => None,
            };
            if let Some((change, since, ended)) = change {
                let alert = Alert { ended, ..alert(rule, look.routes, &key, &watched, kind, since) };
                self.note(now, change, alert, said);
            }
        }
        (watched.breach, watched.absence) = (breach, absence);
        self.tell(now, look.routes, rule, &key, &mut watched, said);
        self.watched.insert(key, watched);
    }

    /// Makes what receivers know agree with what is: who is to hear of it hears, again after a while, and who was
    /// told that it rings is told that it is over, even in a silence.
    fn tell(
        &self,
        now: UnixMillis,
        routes: &Routes,
        rule: &Rule,
        key: &Key,
        watched: &mut Watched,
        said: &mut Said,
    ) {
        for (kind, standing) in [(Kind::Breach, watched.breach), (Kind::NoData, watched.absence)] {
            let Some(since) = standing.firing() else {
                let (over, rest): (Vec<Told>, Vec<Told>) =
                    std::mem::take(&mut watched.told).into_iter().partition(|told| told.kind == kind);
                watched.told = rest;
                said.changed |= !over.is_empty();
                said.notices.extend(over.into_iter().map(|told| {
                    let alert = alert(rule, routes, key, watched, kind, told.since);
                    (told.receiver, Alert { ended: Some(now), ..alert })
                }));
                continue;
            };
            let ringing = alert(rule, routes, key, watched, kind, since);
            if self.silenced_by(&ringing, now).is_some() {
                continue;
            }
            for receiver in routes.of(rule, &key.group) {
                let known =
                    watched.told.iter_mut().find(|told| told.kind == kind && told.receiver == receiver);
                match known {
                    Some(told) if now.since(told.at) < routes.repeat_every(&receiver) => continue,
                    Some(told) => told.at = now,
                    None => {
                        let receiver = receiver.clone();
                        watched.told.push(Told { kind, receiver, since, at: now });
                    }
                }
                said.notices.push((receiver, ringing.clone()));
                said.changed = true;
            }
        }
    }

    fn forget_what_is_gone(&mut self, now: UnixMillis, look: Look<'_>, said: &mut Said) {
        let is_there = |key: &Key, watched: &Watched| {
            let rule = look.rules.iter().find(|rule| rule.name == key.rule);
            rule.is_some_and(|rule| {
                // With another severity it is another alert.
                rule.severity == watched.severity
                    && rule.looks_at(&key.group)
                    && look.readings.contains_key(&(key.group.clone(), rule.window))
            })
        };
        let gone = self.watched.iter().filter(|(key, watched)| !is_there(key, watched));
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            let Some(watched) = self.watched.remove(&key) else { continue };
            said.changed = true;
            let rule = look.rules.iter().find(|rule| rule.name == key.rule);
            for (kind, since) in watched.firing().collect::<Vec<_>>() {
                let over = Alert {
                    rule: key.rule.clone(),
                    severity: watched.severity,
                    kind,
                    group: key.group.clone(),
                    since,
                    ended: Some(now),
                    found: watched.found.clone(),
                    numbers: watched.numbers,
                    contact: look.routes.contact(&key.group),
                    runbook: rule.and_then(|rule| rule.runbook.clone()),
                };
                let told = watched.told.iter().filter(|told| told.kind == kind);
                said.notices.extend(told.map(|told| (told.receiver.clone(), over.clone())));
                self.note(now, Change::Gone, over, said);
            }
        }
    }

    fn note(&mut self, now: UnixMillis, change: Change, alert: Alert, said: &mut Said) {
        self.last_note = self.last_note.saturating_add(1);
        let silenced = self.silenced_by(&alert, now).is_some();
        said.notes.push(Note { number: self.last_note, at: now, change, silenced, alert });
        said.changed = true;
    }
}

fn alert(rule: &Rule, routes: &Routes, key: &Key, watched: &Watched, kind: Kind, since: UnixMillis) -> Alert {
    Alert {
        rule: rule.name.clone(),
        severity: rule.severity,
        kind,
        group: key.group.clone(),
        since,
        ended: None,
        found: watched.found.clone(),
        numbers: watched.numbers,
        contact: routes.contact(&key.group),
        runbook: rule.runbook.clone(),
    }
}

/// JSON has names for keys only; these are more than a name.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{Key, Watched};

    pub(super) fn serialize<S: Serializer>(
        watched: &BTreeMap<Key, Watched>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        watched.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Key, Watched>, D::Error> {
        Ok(Vec::<(Key, Watched)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
