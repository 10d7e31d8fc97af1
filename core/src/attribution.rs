//! Attribution of conversions to touches of one person: which touches get how much of a conversion.
//!
//! A touch is a time and a channel (text), a conversion a time and what it is worth, bytes that only the caller
//! understands. Splitting the worth by the weights is the caller's business, as is finding the channel of a visit
//! ([`crate::channel`]).
//!
//! # Rules
//!
//! 1. A conversion is credited to the touches at most `look_back` before it and not after it, both inclusive.
//! 2. Direct touches get nothing if any of these touches is not direct, unless the model says `direct`.
//! 3. Touches are in order of time, those at one time in the order of their channels' bytes.
//! 4. `first` and `last`: all of it to one of them. `linear`: to each the same. `position`: 40 % to the first, 40 % to
//!    the last, the rest to those between alike; half to each of two. `time_decay`: by half less for each half-life that
//!    a touch is older.
//! 5. Weights are 1 together. A conversion without touches has none.

use crate::codec::{DecodeError, Reader, Writer};
use crate::interrupt::{Interrupt, extend, sort};
use crate::{AVec, Allocator};

/// What a visit without a known origin is called ([`crate::channel::channel_group`]).
pub const DIRECT: &str = "Direct";

/// The longest text of a model, in bytes.
const MAX_TEXT: usize = 1000;

/// The longest half-life, in days (a century).
pub const MAX_HALF_LIFE_DAYS: u32 = 36_525;

/// A day in microseconds.
const DAY: u64 = 86_400_000_000;

/// Why a model was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A text longer than any; it is not read.
    #[error("model has at most {MAX_TEXT} bytes, got {0}")]
    TooLong(usize),
    /// A word nobody knows.
    #[error("unknown model \"{0}\", expected first, last, linear, position, time_decay or time_decay=DAYS")]
    Unknown(String),
    /// Two words that answer the same question.
    #[error("model \"{0}\" repeats or contradicts an earlier one")]
    Conflict(String),
    /// No model at all.
    #[error("model must be first, last, linear, position or time_decay")]
    Missing,
    /// The number of days is not usable.
    #[error("half-life must be 1 to {MAX_HALF_LIFE_DAYS} days, not \"{0}\"")]
    HalfLife(String),
}

/// Two logs were made for different questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecMismatch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    First,
    Last,
    Linear,
    Position,
    /// With the days of a half-life.
    TimeDecay(u32),
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    model: Model,
    /// Whether direct touches count like others.
    direct: bool,
    look_back: u64,
}

impl Spec {
    /// Parses a model: comma-separated words, blanks around them ignored. `first`, `last`, `linear`, `position`,
    /// `time_decay` (7 days) or `time_decay=DAYS`; `direct`. A negative `look_back` (microseconds) counts as 0.
    ///
    /// # Errors
    /// An unknown word, two models or none, a number out of range.
    pub fn parse(model: &str, look_back: i64) -> Result<Self, SpecError> {
        if model.len() > MAX_TEXT {
            return Err(SpecError::TooLong(model.len()));
        }
        let (mut found, mut direct) = (None, false);
        for word in model.split(',').map(str::trim).filter(|_| !model.trim().is_empty()) {
            let new = match word {
                "direct" if !std::mem::replace(&mut direct, true) => continue,
                "direct" => return Err(SpecError::Conflict(word.to_owned())),
                "first" => Model::First,
                "last" => Model::Last,
                "linear" => Model::Linear,
                "position" => Model::Position,
                "time_decay" => Model::TimeDecay(7),
                _ => {
                    let days = word.strip_prefix("time_decay=");
                    let days = days.ok_or_else(|| SpecError::Unknown(word.to_owned()))?;
                    let valid = days.parse().ok().filter(|days| (1..=MAX_HALF_LIFE_DAYS).contains(days));
                    Model::TimeDecay(valid.ok_or_else(|| SpecError::HalfLife(days.to_owned()))?)
                }
            };
            if found.replace(new).is_some() {
                return Err(SpecError::Conflict(word.to_owned()));
            }
        }
        let look_back = u64::try_from(look_back).unwrap_or(0);
        Ok(Self { model: found.ok_or(SpecError::Missing)?, direct, look_back })
    }

    /// The weights of touches at these times, ascending; `put` gets the number of each touch that has one.
    fn weights(&self, times: &[i64], mut put: impl FnMut(usize, f64)) {
        let Some((last, last_time)) = times.len().checked_sub(1).zip(times.last()) else { return };
        match self.model {
            Model::First => put(0, 1.0),
            Model::Last => put(last, 1.0),
            Model::Linear => (0..=last).for_each(|n| put(n, 1.0 / times.len() as f64)),
            Model::Position if last < 2 => (0..=last).for_each(|n| put(n, 1.0 / times.len() as f64)),
            Model::Position => (0..=last).for_each(|n| {
                put(n, if n == 0 || n == last { 0.4 } else { 0.2 / (last - 1) as f64 });
            }),
            Model::TimeDecay(days) => {
                // Beside that of the last one, so that none is 0 because all of them are old.
                let half_life = (u64::from(days) * DAY) as f64;
                let of = |time: &i64| (-(last_time.abs_diff(*time) as f64) / half_life).exp2();
                let sum: f64 = times.iter().map(of).sum();
                times.iter().enumerate().for_each(|(n, time)| put(n, of(time) / sum));
            }
        }
    }
}

/// A time with bytes of the log.
#[derive(Debug, Clone, Copy)]
struct Entry {
    time: i64,
    at: usize,
    length: usize,
}

/// The touches and conversions of one person; a mergeable state.
///
/// Takes 24 bytes for each of them, and their texts; a channel that is that of the touch before is not stored again.
pub struct Journey<A: Allocator> {
    spec: Spec,
    touches: AVec<Entry, A>,
    conversions: AVec<Entry, A>,
    bytes: AVec<u8, A>,
}

/// What a touch gets of a conversion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Credit<'a> {
    /// When the touch was.
    pub time: i64,
    /// Its channel.
    pub channel: &'a [u8],
    /// Its share, above 0 and at most 1, but for touches so much older than others that nothing is left.
    pub weight: f64,
}

impl<A: Allocator + Clone> Journey<A> {
    /// An empty journey whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(spec: Spec, alloc: A) -> Self {
        let entries = || AVec::new_in(alloc.clone());
        Self { spec, touches: entries(), conversions: entries(), bytes: AVec::new_in(alloc) }
    }

    /// The question that this was made for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    fn keep(&mut self, time: i64, text: &[u8], interrupt: impl Interrupt) -> Entry {
        let entry = Entry { time, at: self.bytes.len(), length: text.len() };
        extend(&mut self.bytes, text, interrupt);
        entry
    }

    /// Adds a touch.
    pub fn touch(&mut self, time: i64, channel: &[u8], interrupt: impl Interrupt) {
        let same = self.touches.last().filter(|last| text(&self.bytes, last) == channel).copied();
        let entry = match same {
            Some(last) => Entry { time, ..last },
            None => self.keep(time, channel, interrupt),
        };
        self.touches.push(entry);
    }

    /// Adds a conversion with what it is worth.
    pub fn convert(&mut self, time: i64, worth: &[u8], interrupt: impl Interrupt) {
        let entry = self.keep(time, worth, interrupt);
        self.conversions.push(entry);
    }

    /// Adds all of another journey.
    ///
    /// # Errors
    /// They were made for different questions.
    pub fn append<B: Allocator>(
        &mut self,
        other: &Journey<B>,
        interrupt: impl Interrupt,
    ) -> Result<(), SpecMismatch> {
        if self.spec != other.spec {
            return Err(SpecMismatch);
        }
        for entry in &other.touches {
            interrupt.check();
            self.touch(entry.time, text(&other.bytes, entry), interrupt);
        }
        for entry in &other.conversions {
            interrupt.check();
            self.convert(entry.time, text(&other.bytes, entry), interrupt);
        }
        Ok(())
    }

    /// Hands out each conversion, by time and what it is worth: its time, that, and the credits in order of time.
    ///
    /// O(n log n) to sort, and for each conversion O(log n) and its touches; of `first` and `last`, those that are direct
    /// up to the one that is not.
    pub fn credits(&mut self, interrupt: impl Interrupt, mut each: impl FnMut(i64, &[u8], &[Credit<'_>])) {
        let Self { spec, touches, conversions, bytes } = self;
        let bytes = &bytes[..];
        let order =
            |a: &Entry, b: &Entry| a.time.cmp(&b.time).then_with(|| text(bytes, a).cmp(text(bytes, b)));
        sort(touches, interrupt, order);
        sort(conversions, interrupt, order);
        let alloc = touches.allocator().clone();
        let (mut counted, mut times) = (AVec::new_in(alloc.clone()), AVec::new_in(alloc.clone()));
        let mut credits = AVec::new_in(alloc);
        for conversion in conversions.iter() {
            interrupt.check();
            let from = touches.partition_point(|touch| {
                touch.time < conversion.time && conversion.time.abs_diff(touch.time) > spec.look_back
            });
            let to = touches.partition_point(|touch| touch.time <= conversion.time);
            let within = &touches[from..to.max(from)];
            let counts = |touch: &&Entry| {
                interrupt.check();
                spec.direct || text(bytes, touch) != DIRECT.as_bytes()
            };
            counted.clear();
            match spec.model {
                // Whoever asks for one touch only needs no look at all others.
                Model::First => counted.extend(within.iter().find(counts)),
                Model::Last => counted.extend(within.iter().rfind(counts)),
                _ => counted.extend(within.iter().filter(counts)),
            }
            if counted.is_empty() {
                match spec.model {
                    Model::First => counted.extend(within.first()),
                    Model::Last => counted.extend(within.last()),
                    _ => counted.extend(within),
                }
            }
            times.clear();
            times.extend(counted.iter().map(|touch: &&Entry| touch.time));
            credits.clear();
            spec.weights(&times, |n, weight| {
                interrupt.check();
                if let Some(touch) = counted.get(n) {
                    credits.push(Credit { time: touch.time, channel: text(bytes, touch), weight });
                }
            });
            each(conversion.time, text(bytes, conversion), &credits);
        }
    }

    /// Writes specification and journey; the caller has written a version before.
    pub fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>, interrupt: impl Interrupt) {
        let (model, days) = match self.spec.model {
            Model::First => (0, 0),
            Model::Last => (1, 0),
            Model::Linear => (2, 0),
            Model::Position => (3, 0),
            Model::TimeDecay(days) => (4, days),
        };
        w.u8(model << 1 | u8::from(self.spec.direct));
        w.u32(days);
        w.varint(self.spec.look_back);
        for entries in [&self.touches, &self.conversions] {
            w.varint(entries.len() as u64);
            for entry in entries {
                interrupt.check();
                w.i64(entry.time);
                w.bytes(text(&self.bytes, entry));
            }
        }
    }

    /// Reads what [`Journey::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are too short, or arguments that nobody can ask for.
    pub fn decode_in(r: &mut Reader<'_>, alloc: A, interrupt: impl Interrupt) -> Result<Self, DecodeError> {
        let (kind, days, look_back) = (r.u8()?, r.u32()?, r.varint()?);
        let model = match (kind >> 1, days) {
            (0, 0) => Model::First,
            (1, 0) => Model::Last,
            (2, 0) => Model::Linear,
            (3, 0) => Model::Position,
            (4, 1..=MAX_HALF_LIFE_DAYS) => Model::TimeDecay(days),
            _ => return Err(DecodeError::Malformed("unknown model of attribution")),
        };
        let mut journey = Self::new_in(Spec { model, direct: kind & 1 == 1, look_back }, alloc);
        for touches in [true, false] {
            for _ in 0..r.varint()? {
                interrupt.check();
                let (time, text) = (r.i64()?, r.bytes()?);
                match touches {
                    true => journey.touch(time, text, interrupt),
                    false => journey.convert(time, text, interrupt),
                }
            }
        }
        Ok(journey)
    }
}

/// The bytes of an entry.
fn text<'a>(bytes: &'a [u8], entry: &Entry) -> &'a [u8] {
    bytes.get(entry.at..).and_then(|from| from.get(..entry.length)).unwrap_or(&[])
}

#[cfg(test)]
mod tests;
