//! A histogram on the wire: one string of bytes, read and written by loops of its own. A report has up to 67 of them, and
//! a server takes in thousands of reports a second; through serde each counter would be a call.
//!
//! `number of bins u8 · count per bin · under · over · missing · mean f64 · m2 f64`, the counters as LEB128 (seven bits a
//! byte, the lowest first, the top bit set while more follow), the moments little endian. Each histogram has one form
//! only: a counter has no more bytes than it needs. In formats that people read it is a structure with named fields.

use core::fmt;

use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bins::MAX_BINS;
use super::histogram::Histogram;

/// Counters beside the bins: under, over, missing.
const OUTSIDE: usize = 3;
/// Bytes of both moments.
const MOMENTS: usize = 16;
/// Most bytes of a counter: 64 bits, seven in each.
const MAX_COUNTER_BYTES: usize = 10;
/// Most bytes of a histogram: every bin, every counter as large as it can be.
pub(crate) const MAX_PACKED_BYTES: usize = 1 + (MAX_BINS + OUTSIDE) * MAX_COUNTER_BYTES + MOMENTS;

/// Bytes are no histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum PackedError {
    /// More bins than there may be.
    #[error("a histogram of {0} bins, at most {MAX_BINS} are allowed")]
    Bins(u8),
    /// It ends too early.
    #[error("a histogram is cut off")]
    Short,
    /// A counter of more than 64 bits, or of more bytes than it needs.
    #[error("a counter of a histogram is too long")]
    Counter,
    /// Something follows.
    #[error("{0} bytes follow a histogram")]
    Trailing(usize),
}

/// Bytes written one after the other; all of a histogram fit.
struct Packer {
    bytes: [u8; MAX_PACKED_BYTES],
    length: usize,
}

impl Packer {
    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    #[inline]
    fn counter(&mut self, mut count: u64) {
        while count >= 0x80 {
            self.push(count as u8 | 0x80);
            count >>= 7;
        }
        self.push(count as u8);
    }

    /// Writes `counts`, four at a time where each has one byte, as most do in a window of a minute.
    #[inline]
    fn counters(&mut self, counts: &[u64]) {
        let (fours, rest) = counts.as_chunks::<4>();
        for four in fours {
            let small = four.iter().fold(0, |bits, count| bits | count) < 0x80;
            match self.bytes.get_mut(self.length..).and_then(|left| left.first_chunk_mut::<4>()) {
                Some(place) if small => {
                    *place = four.map(|count| count as u8);
                    self.length += 4;
                }
                _ => four.iter().for_each(|count| self.counter(*count)),
            }
        }
        rest.iter().for_each(|count| self.counter(*count));
    }

    #[inline]
    fn moment(&mut self, moment: f64) {
        if let Some(place) = self.bytes.get_mut(self.length..).and_then(|left| left.first_chunk_mut::<8>()) {
            *place = moment.to_le_bytes();
            self.length += 8;
        }
    }
}

#[inline]
fn pack(histogram: &Histogram) -> Packer {
    let mut packer = Packer { bytes: [0; MAX_PACKED_BYTES], length: 0 };
    packer.push(histogram.counts.len() as u8);
    packer.counters(&histogram.counts);
    packer.counter(histogram.under);
    packer.counter(histogram.over);
    packer.counter(histogram.missing);
    packer.moment(histogram.mean);
    packer.moment(histogram.m2);
    packer
}

/// The counter that `bytes` begin with, and what follows it.
#[inline]
fn counter(bytes: &[u8]) -> Result<(u64, &[u8]), PackedError> {
    match bytes {
        [byte @ ..0x80, rest @ ..] => Ok((u64::from(*byte), rest)),
        [low, high @ 1..0x80, rest @ ..] => Ok((u64::from(low & 0x7F) | u64::from(*high) << 7, rest)),
        _ => long_counter(bytes),
    }
}

fn long_counter(bytes: &[u8]) -> Result<(u64, &[u8]), PackedError> {
    let mut count = 0;
    for (at, byte) in bytes.iter().enumerate().take(MAX_COUNTER_BYTES) {
        let bits = u64::from(byte & 0x7F);
        let shifted = bits << (7 * at);
        // The tenth byte has room for one bit.
        if shifted >> (7 * at) != bits {
            return Err(PackedError::Counter);
        }
        count |= shifted;
        if byte & 0x80 == 0 {
            // A last byte without bits adds nothing.
            let needed = *byte != 0 || at == 0;
            let rest = bytes.get(at + 1..).unwrap_or_default();
            return if needed { Ok((count, rest)) } else { Err(PackedError::Counter) };
        }
    }
    Err(if bytes.len() < MAX_COUNTER_BYTES { PackedError::Short } else { PackedError::Counter })
}

/// Reads `counts.len()` counters; returns what follows them.
#[inline]
fn counters<'a>(counts: &mut [u64], mut bytes: &'a [u8]) -> Result<&'a [u8], PackedError> {
    let (fours, rest) = counts.as_chunks_mut::<4>();
    for four in fours {
        match bytes.split_first_chunk::<4>() {
            Some((small, behind)) if u32::from_le_bytes(*small) & 0x8080_8080 == 0 => {
                *four = small.map(u64::from);
                bytes = behind;
            }
            _ => {
                for count in four {
                    (*count, bytes) = counter(bytes)?;
                }
            }
        }
    }
    for count in rest {
        (*count, bytes) = counter(bytes)?;
    }
    Ok(bytes)
}

#[inline]
fn moment(bytes: &[u8]) -> Result<(f64, &[u8]), PackedError> {
    let (moment, rest) = bytes.split_first_chunk::<8>().ok_or(PackedError::Short)?;
    Ok((f64::from_le_bytes(*moment), rest))
}

/// Reads a histogram to where it is to be: it has 300 bytes, and handing it from call to call takes longer than reading it.
#[inline]
fn unpack_to(histogram: &mut Histogram, bytes: &[u8]) -> Result<(), PackedError> {
    let (bins, rest) = bytes.split_first().ok_or(PackedError::Short)?;
    if histogram.counts.len() != usize::from(*bins) {
        histogram.counts.resize(usize::from(*bins), 0).map_err(|_| PackedError::Bins(*bins))?;
    }
    let rest = counters(&mut histogram.counts, rest)?;
    let (under, rest) = counter(rest)?;
    let (over, rest) = counter(rest)?;
    let (missing, rest) = counter(rest)?;
    let (mean, rest) = moment(rest)?;
    let (m2, rest) = moment(rest)?;
    (histogram.under, histogram.over, histogram.missing) = (under, over, missing);
    (histogram.mean, histogram.m2) = (mean, m2);
    if rest.is_empty() { Ok(()) } else { Err(PackedError::Trailing(rest.len())) }
}

/// As people read it.
#[derive(Serialize)]
#[serde(rename = "Histogram")]
struct Shown<'a> {
    counts: &'a heapless::Vec<u64, MAX_BINS>,
    under: u64,
    over: u64,
    missing: u64,
    mean: f64,
    m2: f64,
}

/// As people write it.
#[derive(Deserialize)]
#[serde(rename = "Histogram")]
struct Written {
    counts: heapless::Vec<u64, MAX_BINS>,
    under: u64,
    over: u64,
    missing: u64,
    mean: f64,
    m2: f64,
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let Self { counts, under, over, missing, mean, m2 } = self;
            let (under, over, missing) = (*under, *over, *missing);
            return Shown { counts, under, over, missing, mean: *mean, m2: *m2 }.serialize(serializer);
        }
        let packer = pack(self);
        serializer.serialize_bytes(packer.bytes.get(..packer.length).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Histogram {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::default();
        Place(&mut histogram).deserialize(deserializer)?;
        Ok(histogram)
    }
}

/// Where a histogram is read to.
pub(crate) struct Place<'a>(pub(crate) &'a mut Histogram);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if deserializer.is_human_readable() {
            let Written { counts, under, over, missing, mean, m2 } = Written::deserialize(deserializer)?;
            *self.0 = Histogram { counts, under, over, missing, mean, m2 };
            return Ok(());
        }
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a packed histogram")
    }

    #[inline]
    fn visit_borrowed_bytes<E: serde::de::Error>(self, bytes: &'de [u8]) -> Result<(), E> {
        unpack_to(self.0, bytes).map_err(E::custom)
    }

    #[inline]
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<(), E> {
        unpack_to(self.0, bytes).map_err(E::custom)
    }
}

/// Histograms one after the other, read to where they are to be.
pub(crate) struct Places<'a, const N: usize>(pub(crate) &'a mut heapless::Vec<Histogram, N>);

impl<'de, const N: usize> DeserializeSeed<'de> for Places<'_, N> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Places<'_, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {N} histograms")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut read = 0;
        loop {
            // What is there already is read over. Only behind the last place may there be nothing more.
            if read == self.0.len() && self.0.push(Histogram::default()).is_err() {
                return match list.next_element::<Histogram>()? {
                    Some(_) => Err(A::Error::invalid_length(N + 1, &self)),
                    None => Ok(()),
                };
            }
            let Some(place) = self.0.get_mut(read) else { return Ok(()) };
            if list.next_element_seed(Place(place))?.is_none() {
                self.0.truncate(read);
                return Ok(());
            }
            read += 1;
        }
    }
}

/// For fields that are lists of histograms.
pub(crate) fn list<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<heapless::Vec<Histogram, N>, D::Error> {
    let mut histograms = heapless::Vec::new();
    Places(&mut histograms).deserialize(deserializer)?;
    Ok(histograms)
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
