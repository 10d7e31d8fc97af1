//! Intervals as a fixed number of microseconds.

use pgrx::pg_sys;

use super::error::invalid_argument;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The length of an interval argument in microseconds, a day counted as 24 hours.
///
/// Raises 22023 for months and years, whose length is not fixed, for a negative length and for infinity.
pub fn fixed_microseconds(interval: &pg_sys::Interval, argument: &str) -> i64 {
    if interval.month != 0 {
        invalid_argument(
            format!("{argument} must not contain months or years, whose length is not fixed"),
            "Use days or hours, for example interval '30 days'.",
        );
    }
    let length = i64::from(interval.day)
        .checked_mul(MICROSECONDS_PER_DAY)
        .and_then(|days| days.checked_add(interval.time))
        .filter(|length| *length >= 0);
    match length {
        Some(length) => length,
        None => invalid_argument(
            format!("{argument} must not be negative or out of range"),
            "Use a positive length, for example interval '30 minutes'.",
        ),
    }
}

/// An interval that must be the same for all rows of a group: as it was written, to compare quickly, and its length.
#[derive(Clone, Copy)]
pub struct ConstantInterval {
    written: pg_sys::Interval,
    /// The length in microseconds.
    pub length: i64,
}

impl ConstantInterval {
    /// Reads an argument; see [`fixed_microseconds`].
    pub fn new(written: &pg_sys::Interval, argument: &str) -> Self {
        Self { written: *written, length: fixed_microseconds(written, argument) }
    }

    /// An interval of so many microseconds.
    pub fn of(length: i64) -> Self {
        Self { written: pg_sys::Interval { time: length, day: 0, month: 0 }, length }
    }

    /// Whether another row's argument is as long, however it is written.
    #[inline]
    pub fn is(&self, other: &pg_sys::Interval, argument: &str) -> bool {
        let w = &self.written;
        (w.time, w.day, w.month) == (other.time, other.day, other.month)
            || fixed_microseconds(other, argument) == self.length
    }
}
