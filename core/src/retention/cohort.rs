//! Cohort retention of one person: which cohorts the person belongs to, and in which periods since they returned.
//!
//! The events of a person are two sets of times, starts (signed up, first purchase) and returns (visited again); which
//! events are which is the caller's choice, one event can be both. Adding persons up is [`super::matrix`].
//!
//! # Rules
//!
//! 1. The cohort is the UTC calendar period (day, week, month, quarter) of a start. `first_time`: only the
//!    earliest start ever counts, so the caller must not cut the events to a date range first. `recurring`: every
//!    calendar period with a start is a cohort of the person; within one period its earliest start counts.
//! 2. Period 0 is the start itself: always true, so retention of period 0 is 100 %, whatever is incomplete.
//! 3. Calendar periods: period k is the k-th calendar period after that of the start. Rolling periods: period k is
//!    `[start + k*N*24h, start + (k+1)*N*24h)`, measured from the person's own start.
//! 4. `on`: true if a return lies in period k. `on_or_after`: true if a return lies in period k or any later one, also
//!    beyond the last period asked for.
//! 5. Events at or after `as_of` are ignored. A period that ends after `as_of` is *incomplete*: its value is unknown,
//!    not false, even if a return was already seen in it, because a share of those who happened to return early would
//!    be too low today and different tomorrow. A rolling period is also incomplete while the person's cohort is still
//!    open (its calendar period ends after `as_of`): persons yet to join would change it.
//!
//! By rule 5 a cohort's value, once known, never becomes unknown again as `as_of` moves on. With `on` it does not even
//! change, unless late events arrive; with `on_or_after` it can still grow, because "later" has no end.

use super::calendar::{DAY, Unit, UnknownUnit};
use crate::codec::{DecodeError, Reader, Writer};
use crate::interrupt::{Interrupt, sort};
use crate::{AVec, Allocator};

/// The longest text of a period or a mode, in bytes.
const MAX_TEXT: usize = 1000;

/// The largest number of periods one may ask for.
pub const MAX_PERIODS: u32 = 1000;

/// The longest rolling period, in days (a century).
pub const MAX_ROLLING_DAYS: u32 = 36_525;

/// Why a specification was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The period is not one of the four.
    #[error(transparent)]
    Unit(#[from] UnknownUnit),
    /// A period or mode longer than any; it is not read.
    #[error("period and mode have at most {MAX_TEXT} bytes, got {0}")]
    TooLong(usize),
    /// A mode token nobody knows.
    #[error(
        "unknown mode \"{0}\", expected on, on_or_after, first_time, recurring, calendar, rolling, rolling=DAYS or \
         time_zone=NAME"
    )]
    UnknownMode(String),
    /// Two tokens that answer the same question.
    #[error("mode \"{0}\" repeats or contradicts an earlier one")]
    Conflict(String),
    /// The number of days is not usable.
    #[error("rolling period must be 1 to {MAX_ROLLING_DAYS} days, not \"{0}\"")]
    RollingDays(String),
    /// The number of periods is not usable.
    #[error("number of periods must be 1 to {MAX_PERIODS}, not {0}")]
    Periods(i64),
}

/// How a token begins that names a time zone.
const TIME_ZONE: &str = "time_zone=";

/// The time zone that a mode names, as [`Spec::parse`] takes it.
pub fn time_zone(mode: &str) -> Option<&str> {
    mode.split(',').find_map(|token| token.trim().strip_prefix(TIME_ZONE))
}

/// FNV-1a (Fowler, Noll, Vo), never 0.
fn hash(text: &str) -> i64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix).max(1).cast_signed()
}

/// What is asked for; the same for all persons of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Calendar period of the cohorts, and of the columns unless they roll.
    unit: Unit,
    /// Days of a rolling period, 0 for calendar periods.
    rolling_days: u32,
    on_or_after: bool,
    recurring: bool,
    periods: u32,
    as_of: i64,
    /// Hash of the time zone of whose clock times are; 0 for UTC.
    clock: i64,
}

impl Spec {
    /// Parses a specification.
    ///
    /// * `period`: `day`, `week`, `week from sunday` (or another day), `month` or `quarter`.
    /// * `mode`: comma-separated tokens, blanks around them ignored, may be empty. `on` (default) or `on_or_after`;
    ///   `first_time` (default) or `recurring`; `calendar` (default), `rolling` (1, 7, 30 or 90 days by `period`) or
    ///   `rolling=DAYS`; `time_zone=NAME`: the caller gives times, `as_of` among them, of the clock of this zone as if
    ///   they were UTC (see [`time_zone`]).
    /// * `periods`: how many periods, period 0 included, 1 to [`MAX_PERIODS`].
    /// * `as_of`: events before this time are known to be complete; microseconds since 2000-01-01 UTC.
    ///
    /// # Errors
    /// An unknown word, two tokens for the same choice, a number out of range.
    pub fn parse(period: &str, mode: &str, periods: i64, as_of: i64) -> Result<Self, SpecError> {
        let longest = period.len().max(mode.len());
        if longest > MAX_TEXT {
            return Err(SpecError::TooLong(longest));
        }
        let unit: Unit = period.parse()?;
        let (mut on_or_after, mut recurring, mut rolling, mut clock) = (None, None, None, None);
        for token in mode.split(',').map(str::trim).filter(|_| !mode.trim().is_empty()) {
            let fresh = match token {
                "on" => on_or_after.replace(false).is_none(),
                "on_or_after" => on_or_after.replace(true).is_none(),
                "first_time" => recurring.replace(false).is_none(),
                "recurring" => recurring.replace(true).is_none(),
                "calendar" => rolling.replace(0).is_none(),
                "rolling" => rolling.replace(unit.rolling_days()).is_none(),
                _ if token.starts_with(TIME_ZONE) => clock.replace(hash(token)).is_none(),
                _ => {
                    let days = token.strip_prefix("rolling=");
                    let days = days.ok_or_else(|| SpecError::UnknownMode(token.to_owned()))?;
                    let valid = days.parse().ok().filter(|d| (1..=MAX_ROLLING_DAYS).contains(d));
                    rolling.replace(valid.ok_or_else(|| SpecError::RollingDays(days.to_owned()))?).is_none()
                }
            };
            if !fresh {
                return Err(SpecError::Conflict(token.to_owned()));
            }
        }
        let valid = u32::try_from(periods).ok().filter(|n| (1..=MAX_PERIODS).contains(n));
        Ok(Self {
            unit,
            rolling_days: rolling.unwrap_or(0),
            on_or_after: on_or_after.unwrap_or(false),
            recurring: recurring.unwrap_or(false),
            periods: valid.ok_or(SpecError::Periods(periods))?,
            as_of,
            clock: clock.unwrap_or(0),
        })
    }

    /// Whether times are of UTC.
    pub fn is_utc(&self) -> bool {
        self.clock == 0
    }

    /// How many periods, period 0 included.
    pub fn periods(&self) -> i64 {
        self.periods.into()
    }

    /// Events before this time are known to be complete.
    pub fn as_of(&self) -> i64 {
        self.as_of
    }

    /// The calendar period, unless periods roll.
    pub(crate) fn calendar(&self) -> Option<Unit> {
        (self.rolling_days == 0).then_some(self.unit)
    }

    /// Start of period `k` of a person who started at `start`; saturating.
    fn period_start(&self, start: i64, k: u32) -> i64 {
        if self.rolling_days == 0 {
            self.unit.start(self.unit.index(start) + i64::from(k))
        } else {
            start.saturating_add((i64::from(self.rolling_days) * DAY).saturating_mul(i64::from(k)))
        }
    }
}

/// Two partial states were built for different questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("partial states of cohort retention have different arguments")]
pub struct SpecMismatch;

/// A person in a cohort.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Start of the cohort's calendar period, in microseconds since 2000-01-01 UTC.
    pub cohort: i64,
    spec: &'a Spec,
    start: i64,
    /// Sorted.
    returns: &'a [i64],
}

impl Member<'_> {
    /// One element per period from period 0; `None` where the period is incomplete.
    pub fn retained(&self) -> impl ExactSizeIterator<Item = Option<bool>> {
        let Self { spec, start, returns, .. } = *self;
        let cohort_end = spec.unit.start(spec.unit.index(start) + 1);
        let returned = move |k| {
            let (from, to) = (spec.period_start(start, k), spec.period_start(start, k + 1));
            if cohort_end.max(to) > spec.as_of {
                return None;
            }
            let first = returns.get(returns.partition_point(|&time| time < from));
            Some(first.is_some_and(|&time| spec.on_or_after || time < to))
        };
        (0..spec.periods).map(move |k| if k == 0 { Some(true) } else { returned(k) })
    }
}

/// The starts and returns of one person; a mergeable state.
///
/// Takes 8 bytes per start (`recurring`; one start in all for `first_time`) and per return. With calendar periods times
/// are cut to their period, and a repetition of the last one is not stored.
pub struct CohortLog<A: Allocator> {
    spec: Spec,
    starts: Times<A>,
    returns: Times<A>,
}

impl<A: Allocator + Clone> CohortLog<A> {
    /// An empty log whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(spec: Spec, alloc: A) -> Self {
        Self { spec, starts: Times::new_in(alloc.clone()), returns: Times::new_in(alloc) }
    }

    /// The question this log was made for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Adds one event. Nothing happens if it is neither start nor return, or not before `as_of`.
    pub fn push(&mut self, time: i64, is_start: bool, is_return: bool) {
        if time >= self.spec.as_of || !(is_start || is_return) {
            return;
        }
        // Calendar periods never need more than the period, and equal times in a row are stored once.
        let time =
            if self.spec.rolling_days == 0 { self.spec.unit.start(self.spec.unit.index(time)) } else { time };
        if is_start {
            self.push_start(time);
        }
        if is_return {
            self.returns.push(time);
        }
    }

    fn push_start(&mut self, time: i64) {
        match self.starts.times.first_mut() {
            Some(first) if !self.spec.recurring => *first = time.min(*first),
            _ => self.starts.push(time),
        }
    }

    /// Adds all events of another log.
    ///
    /// # Errors
    /// The logs were made for different questions.
    pub fn append<B: Allocator>(
        &mut self,
        other: &CohortLog<B>,
        interrupt: impl Interrupt,
    ) -> Result<(), SpecMismatch> {
        if self.spec != other.spec {
            return Err(SpecMismatch);
        }
        other.starts.iter(interrupt).for_each(|time| self.push_start(time));
        other.returns.iter(interrupt).for_each(|time| self.returns.push(time));
        Ok(())
    }

    /// The person's cohorts in order of time: none without a start, at most one for `first_time`.
    ///
    /// O(n log n) for n events if they are not sorted yet, plus O(log n) for each cohort and period.
    pub fn members(&mut self, interrupt: impl Interrupt) -> impl Iterator<Item = Member<'_>> {
        let (spec, returns) = (&self.spec, self.returns.sorted(interrupt));
        let mut last = None;
        self.starts.sorted(interrupt).iter().filter_map(move |&start| {
            interrupt.check();
            let cohort = spec.unit.start(spec.unit.index(start));
            (last.replace(cohort) != Some(cohort)).then_some(Member { cohort, spec, start, returns })
        })
    }

    /// Writes specification and log; the caller has written a version before.
    pub fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>, interrupt: impl Interrupt) {
        let spec = &self.spec;
        w.u8(match spec.unit {
            Unit::Day => 0,
            Unit::Month => 1,
            Unit::Quarter => 2,
            Unit::Week(first) => 3 + first,
        });
        w.u8(u8::from(spec.on_or_after) | u8::from(spec.recurring) << 1);
        w.u32(spec.rolling_days);
        w.u32(spec.periods);
        w.i64(spec.as_of);
        w.i64(spec.clock);
        self.starts.encode(w, interrupt);
        self.returns.encode(w, interrupt);
    }

    /// Reads what [`CohortLog::encode`] wrote.
    ///
    /// # Errors
    /// Anything that `encode` would not write again as it is.
    pub fn decode_in(r: &mut Reader<'_>, alloc: A, interrupt: impl Interrupt) -> Result<Self, DecodeError> {
        let unit = match r.u8()? {
            0 => Unit::Day,
            1 => Unit::Month,
            2 => Unit::Quarter,
            week @ 3..=9 => Unit::Week(week - 3),
            _ => return Err(DecodeError::Malformed("unknown calendar period")),
        };
        let flags = r.u8()?;
        let (rolling_days, periods, as_of, clock) = (r.u32()?, r.u32()?, r.i64()?, r.i64()?);
        if flags > 3 || rolling_days > MAX_ROLLING_DAYS || !(1..=MAX_PERIODS).contains(&periods) {
            return Err(DecodeError::Malformed("cohort retention arguments are out of range"));
        }
        let (on_or_after, recurring) = (flags & 1 != 0, flags & 2 != 0);
        let spec = Spec { unit, rolling_days, on_or_after, recurring, periods, as_of, clock };
        let starts = Times::decode_in(r, as_of, alloc.clone(), interrupt)?;
        if !recurring && starts.times.len() > 1 {
            return Err(DecodeError::Malformed("more than one first start"));
        }
        let returns = Times::decode_in(r, as_of, alloc, interrupt)?;
        Ok(Self { spec, starts, returns })
    }
}

/// A growing set of times, sorted when asked for.
struct Times<A: Allocator> {
    times: AVec<i64, A>,
    sorted: bool,
}

impl<A: Allocator> Times<A> {
    fn new_in(alloc: A) -> Self {
        Self { times: AVec::new_in(alloc), sorted: true }
    }

    fn push(&mut self, time: i64) {
        match self.times.last() {
            Some(&last) if last == time => return,
            Some(&last) if last > time => self.sorted = false,
            _ => {}
        }
        self.times.push(time);
    }

    fn iter(&self, interrupt: impl Interrupt) -> impl Iterator<Item = i64> {
        self.times.iter().map(move |&time| {
            interrupt.check();
            time
        })
    }

    fn sorted(&mut self, interrupt: impl Interrupt) -> &[i64] {
        if !self.sorted {
            sort(&mut self.times, interrupt, i64::cmp);
            self.times.dedup();
            self.sorted = true;
        }
        &self.times
    }

    fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>, interrupt: impl Interrupt) {
        w.varint(self.times.len() as u64);
        self.iter(interrupt).for_each(|time| w.i64(time));
    }

    fn decode_in(
        r: &mut Reader<'_>,
        as_of: i64,
        alloc: A,
        interrupt: impl Interrupt,
    ) -> Result<Self, DecodeError> {
        let len = usize::try_from(r.varint()?).map_err(|_| DecodeError::Truncated)?;
        if len > r.remaining() / 8 {
            return Err(DecodeError::Truncated);
        }
        let mut times = Self { times: AVec::with_capacity_in(len, alloc), sorted: true };
        for _ in 0..len {
            interrupt.check();
            let time = r.i64()?;
            if time >= as_of {
                return Err(DecodeError::Malformed("event is not before as_of"));
            }
            if times.times.last() == Some(&time) {
                return Err(DecodeError::Malformed("event is repeated"));
            }
            times.push(time);
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests;
