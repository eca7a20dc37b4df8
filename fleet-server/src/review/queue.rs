//! The queue of samples: what is known of each but its contents, what people said of it, and when it is deleted.

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_protocol::ids::{DeviceId, Digest, FieldName, Millis, ReleaseId, UnixMillis};
use serin_protocol::review::{ReviewPolicy, Sample, SampleReason};

/// Most samples kept; beyond it the oldest is deleted. At 32 KiB each 160 MiB.
pub const MAX_SAMPLES: usize = 5000;
/// Longest word of a person.
const MAX_TEXT_BYTES: usize = 300;
const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// A sample's name: 16 hexadecimal digits that follow from device, start and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SampleId(String);

impl SampleId {
    /// The name of a sample.
    pub fn of(sample: &Sample) -> Self {
        let text = format!("{}/{}/{}", sample.device, sample.boot, sample.number);
        let digest = Digest::of(text.as_bytes()).to_string();
        Self(digest.chars().take(16).collect())
    }

    /// Parses one.
    pub fn new(text: &str) -> Option<Self> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 16 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What somebody found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answer is right.
    Right,
    /// It is not.
    Wrong,
    /// It cannot be told.
    Unclear,
}

/// Somebody's word about a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Who.
    pub by: String,
    /// When.
    pub at: UnixMillis,
    /// What.
    pub verdict: Verdict,
    /// The class that would be right, where they say.
    pub class: Option<i64>,
    /// More, for people.
    pub note: String,
}

/// A sample, but its contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: SampleId,
    /// Where it was asked.
    pub device: DeviceId,
    /// Which release answered.
    pub release: ReleaseId,
    /// Why it was taken.
    pub reason: SampleReason,
    /// When it came.
    pub received: UnixMillis,
    /// Bytes of its values.
    pub bytes: u64,
    /// What was left out on the device.
    pub redacted: Vec<FieldName>,
    /// The predicted class.
    pub class: Option<i64>,
    /// The confidence.
    pub confidence: Option<f32>,
    /// What somebody found.
    pub judgement: Option<Judgement>,
}

/// Somebody looked at a sample's contents, judged it or deleted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Counts them.
    pub number: u64,
    /// When.
    pub at: UnixMillis,
    /// Who, as they say.
    pub by: String,
    /// At what.
    pub sample: SampleId,
    /// What they did: `show`, `judge` or `drop`.
    pub act: String,
}

/// Why something about samples is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The release's owner allows none, or not this.
    #[error("the release's signed policy does not allow it: {0}")]
    NotAllowed(&'static str),
    /// It came before.
    #[error("it came before")]
    Known,
    /// There is none of this name.
    #[error("there is no sample {0}; it may have been deleted")]
    Unknown(SampleId),
    /// Nobody said it, or too much was said.
    #[error("say who you are, in at most {MAX_TEXT_BYTES} bytes, and as much in a note")]
    Unsaid,
}

/// What changes with a sample that is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    /// The sample.
    pub listed: Listed,
    /// What had to go for it.
    pub gone: Vec<SampleId>,
}

/// All samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    samples: BTreeMap<SampleId, Listed>,
}

impl Queue {
    /// One of these.
    pub fn of(samples: impl IntoIterator<Item = Listed>) -> Self {
        Self { samples: samples.into_iter().map(|listed| (listed.id.clone(), listed)).collect() }
    }

    /// All, those that nobody has judged first, then by when they came.
    pub fn list(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> = self.samples.values().cloned().collect();
        all.sort_by_key(|listed| (listed.judgement.is_some(), listed.received, listed.id.clone()));
        all
    }

    /// One.
    pub fn get(&self, id: &SampleId) -> Result<&Listed, ReviewError> {
        self.samples.get(id).ok_or_else(|| ReviewError::Unknown(id.clone()))
    }

    /// Takes a sample that came at `now`, if `policy` allows it: opted in, for this reason, within the day's budget, and
    /// without what must be left out.
    pub fn add(
        &mut self,
        sample: &Sample,
        policy: Option<&ReviewPolicy>,
        now: UnixMillis,
    ) -> Result<Added, ReviewError> {
        let policy = policy.ok_or(ReviewError::NotAllowed("it has none"))?;
        let id = SampleId::of(sample);
        if self.samples.contains_key(&id) {
            return Err(ReviewError::Known);
        }
        if !policy.allows(sample.reason) {
            return Err(ReviewError::NotAllowed("the reason"));
        }
        if policy.redact.iter().any(|field| {
            !sample.redacted.contains(field) || sample.inputs.iter().any(|input| input.name == *field)
        }) {
            return Err(ReviewError::NotAllowed("a field that must be left out"));
        }
        let bytes = sample.body.len() as u64;
        let today = self.samples.values().filter(|listed| {
            listed.device == sample.device
                && listed.release == sample.release
                && listed.received.0 / DAY_MILLIS == now.0 / DAY_MILLIS
        });
        let (count, used) = today.fold((0_u32, 0_u64), |(count, used), listed| {
            (count.saturating_add(1), used.saturating_add(listed.bytes))
        });
        if count >= policy.per_day || used.saturating_add(bytes) > policy.bytes_per_day.0 {
            return Err(ReviewError::NotAllowed("the day's budget"));
        }
        let mut gone = Vec::new();
        while self.samples.len() >= MAX_SAMPLES {
            let oldest =
                self.samples.values().min_by_key(|listed| listed.received).map(|listed| listed.id.clone());
            let Some(oldest) = oldest else { break };
            self.samples.remove(&oldest);
            gone.push(oldest);
        }
        let listed = Listed {
            id: id.clone(),
            device: sample.device.clone(),
            release: sample.release.clone(),
            reason: sample.reason,
            received: now,
            bytes,
            redacted: sample.redacted.clone(),
            class: sample.prediction.and_then(|prediction| prediction.class()),
            confidence: sample
                .prediction
                .map(|prediction| prediction.confidence())
                .filter(|it| it.is_finite()),
            judgement: None,
        };
        self.samples.insert(id, listed.clone());
        Ok(Added { listed, gone })
    }

    /// Notes what somebody found.
    pub fn judge(&mut self, id: &SampleId, judgement: Judgement) -> Result<Listed, ReviewError> {
        check_person(&judgement.by)?;
        if judgement.note.len() > MAX_TEXT_BYTES {
            return Err(ReviewError::Unsaid);
        }
        let listed = self.samples.get_mut(id).ok_or_else(|| ReviewError::Unknown(id.clone()))?;
        listed.judgement = Some(judgement);
        Ok(listed.clone())
    }

    /// Deletes one.
    pub fn remove(&mut self, id: &SampleId) -> Result<(), ReviewError> {
        self.samples.remove(id).map(drop).ok_or_else(|| ReviewError::Unknown(id.clone()))
    }

    /// Deletes what is older than `keep`, judged or not; what that was.
    pub fn expire(&mut self, keep: Millis, now: UnixMillis) -> Vec<SampleId> {
        let old = |listed: &&Listed| now.since(listed.received) >= keep;
        let gone: Vec<SampleId> = self.samples.values().filter(old).map(|listed| listed.id.clone()).collect();
        gone.iter().for_each(|id| drop(self.samples.remove(id)));
        gone
    }
}

/// Whether somebody has said who they are.
pub fn check_person(by: &str) -> Result<(), ReviewError> {
    if (1..=MAX_TEXT_BYTES).contains(&by.trim().len()) { Ok(()) } else { Err(ReviewError::Unsaid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_protocol::ids::{BasisPoints, BootId, ByteCount};
    use serin_protocol::tensor::{DataType, TensorHeader};

    fn sample(number: u64) -> Sample {
        let header = TensorHeader {
            name: "x".parse().expect("name"),
            datatype: DataType::Fp32,
            shape: [1, 1].into_iter().collect(),
            bytes: 4,
        };
        Sample {
            device: "a".parse().expect("name"),
            boot: BootId(1),
            number,
            at: UnixMillis(0),
            release: "m@1".parse().expect("release"),
            reason: SampleReason::Random,
            inputs: vec![header],
            body: vec![0; 4],
            redacted: vec!["name".parse().expect("name")],
            prediction: None,
            shadow: None,
        }
    }

    fn policy() -> ReviewPolicy {
        ReviewPolicy {
            random: BasisPoints(100),
            below_confidence: None,
            out_of_range: false,
            disagreeing: false,
            redact: vec!["name".parse().expect("name")],
            per_day: 3,
            bytes_per_day: ByteCount(10),
        }
    }

    #[test]
    fn only_what_the_policy_allows_is_taken() {
        let mut queue = Queue::default();
        let now = UnixMillis(0);
        let add = |queue: &mut Queue, sample: &Sample, policy: Option<&ReviewPolicy>, now| {
            queue.add(sample, policy, now).map(drop)
        };
        let not = |what| Err(ReviewError::NotAllowed(what));
        assert_eq!(add(&mut queue, &sample(1), None, now), not("it has none"));
        let other = Sample { reason: SampleReason::OutOfRange, ..sample(1) };
        assert_eq!(add(&mut queue, &other, Some(&policy()), now), not("the reason"));
        let open = Sample { redacted: Vec::new(), ..sample(1) };
        assert_eq!(add(&mut queue, &open, Some(&policy()), now), not("a field that must be left out"));
        assert_eq!(add(&mut queue, &sample(1), Some(&policy()), now), Ok(()));
        assert_eq!(add(&mut queue, &sample(1), Some(&policy()), now), Err(ReviewError::Known));
        assert_eq!(add(&mut queue, &sample(2), Some(&policy()), now), Ok(()));
        assert_eq!(add(&mut queue, &sample(3), Some(&policy()), now), not("the day's budget"), "12 bytes");
        assert_eq!(add(&mut queue, &sample(3), Some(&policy()), UnixMillis(DAY_MILLIS)), Ok(()));
    }

    #[test]
    fn it_is_judged_and_deleted_after_its_time_whatever_was_found() {
        let mut queue = Queue::default();
        let id = queue.add(&sample(1), Some(&policy()), UnixMillis(10)).expect("taken").listed.id;
        queue.add(&sample(2), Some(&policy()), UnixMillis(20)).expect("taken");
        let judgement = |by: &str| Judgement {
            by: by.into(),
            at: UnixMillis(11),
            verdict: Verdict::Wrong,
            class: Some(3),
            note: String::new(),
        };
        assert_eq!(queue.judge(&id, judgement(" ")), Err(ReviewError::Unsaid));
        queue.judge(&id, judgement("ann")).expect("there");
        assert_eq!(queue.list().last().map(|listed| listed.id.clone()), Some(id.clone()), "others are first");
        assert_eq!(queue.expire(Millis(10), UnixMillis(20)), std::slice::from_ref(&id));
        assert_eq!(queue.judge(&id, judgement("ann")), Err(ReviewError::Unknown(id)));
        assert_eq!(queue.list().len(), 1);
    }
}
