//! Lateness: how long after it happened an event was received, and what becomes of those that are too late. Measured
//! between two times of the record itself, never with this machine's clock, so that loading again classifies alike.

use crate::event::time::Micros;

/// What becomes of an event that was received later than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LatePolicy {
    /// Loaded like any other: its date is recomputed
    Recompute,
    /// Kept in bronze.late_events until loader.merge_late_events takes it over
    Divert,
    /// A dead letter with reason too_late
    Refuse,
}

/// How late an event was received, in microseconds; below zero when its producer's clock is ahead.
pub fn lateness(event_time: Micros, received_at: Micros) -> Micros {
    received_at.saturating_sub(event_time)
}
