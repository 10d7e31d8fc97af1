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
