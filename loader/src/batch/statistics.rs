//! What a batch reports about its rows with `tidemark.mark_loaded`: counts, times and lateness of each date.

use super::Row;
use crate::event::time::{DAY_US, Micros};

const SECOND: Micros = 1_000_000;
const HOUR: Micros = 3600 * SECOND;

/// The inner bounds of the buckets of `tidemark.lateness_buckets()`; a bound belongs to the bucket after it.
pub const BOUNDS: [Micros; 11] = [
    SECOND,
    10 * SECOND,
    60 * SECOND,
    600 * SECOND,
    HOUR,
    6 * HOUR,
    DAY_US,
    3 * DAY_US,
    7 * DAY_US,
    30 * DAY_US,
    90 * DAY_US,
];

/// What `tidemark.mark_loaded` takes: one element a date, and the buckets of all dates one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The dates, ascending, in days since 2000-01-01.
    pub days: Vec<i32>,
    /// Rows of each date.
    pub rows: Vec<i64>,
    /// Those of them that were later than allowed.
    pub late: Vec<i64>,
    /// Earliest event time of each date.
    pub min_times: Vec<Micros>,
    /// Latest event time of each date.
    pub max_times: Vec<Micros>,
    /// Rows in each bucket; an event whose receipt nobody knows is in none.
    pub lateness: Vec<i64>,
}

impl Statistics {
    /// Counts rows that are sorted by date.
    pub fn of(rows: &[Row], allowed: Micros) -> Self {
        let mut s = Statistics::default();
        for day in rows.chunk_by(|a, b| a.day == b.day) {
            let mut buckets = [0i64; BOUNDS.len() + 1];
            let mut late = 0;
            for lateness in day.iter().filter_map(|row| row.lateness) {
                buckets[BOUNDS.partition_point(|bound| *bound <= lateness)] += 1;
                late += i64::from(lateness > allowed);
            }
            s.days.push(day[0].day);
            s.rows.push(day.len() as i64);
            s.late.push(late);
            s.min_times.push(day.iter().map(|row| row.time).min().unwrap_or(day[0].time));
            s.max_times.push(day.iter().map(|row| row.time).max().unwrap_or(day[0].time));
            s.lateness.extend(buckets);
        }
        s
    }
}
