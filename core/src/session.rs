//! Sessions: runs of events whose gaps never exceed a limit.
//!
//! [`Sessions`] is the mergeable state behind the aggregates, [`Sessionizer`] the running state behind the window
//! functions. What a session contains besides times (pages, channels) is SQL on top of these and does not live here.
//!
//! Times may be any `i64`: differences are taken without overflow, so even the two extremes, which Postgres uses for
//! `-infinity` and `infinity`, are ordinary instants here. The caller decides whether to let them in.

use std::cell::Cell;

use crate::codec::{DecodeError, Reader, Writer};
use crate::interrupt::{Interrupt, extend, sort};
use crate::{AVec, Allocator};

/// One session: a maximal run of events with no gap greater than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// Time of the first event, in microseconds.
    pub started_at: i64,
    /// Time of the last event, in microseconds (inclusive; equal to `started_at` for a single event).
    pub ended_at: i64,
    /// How many events it holds, at least 1; stops at `i64::MAX`.
    pub events: i64,
}

/// Two partial states with different gaps were merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot merge sessions with a gap of {left} microseconds and sessions with a gap of {right} microseconds"
)]
pub struct Mismatch {
    /// The gap of the state merged into.
    pub left: i64,
    /// The gap of the other state.
    pub right: i64,
}

/// A mergeable set of sessions, fed in any order.
///
/// A run of events whose gaps are within the limit can be kept as (first, last, count) without loss, because further
/// events never split it; a run of one event is its time alone. Runs that touch are joined whenever their number has
/// doubled, so memory follows the number of sessions and not that of events: it is at most twice what the sessions
/// take, plus a constant.
pub struct Sessions<A: Allocator> {
    gap: u64,
    /// The run touched last; without events before the first one and after an answer.
    run: Session,
    /// All other runs of one event, in any order.
    singles: AVec<i64, A>,
    /// All other runs of several events, in any order.
    runs: AVec<Session, A>,
    /// How many singles and runs are kept before those that touch are joined.
    limit: usize,
}

/// So many runs are always kept without joining: half a kilobyte of singles.
const FIRST_LIMIT: usize = 64;

impl Session {
    const NONE: Self = Self { started_at: 0, ended_at: 0, events: 0 };

    fn single(time: i64) -> Self {
        Self { started_at: time, ended_at: time, events: 1 }
    }
}

impl<A: Allocator + Clone> Sessions<A> {
    /// An empty state; allocates nothing yet. `gap_us` is the longest pause inside a session, inclusive, in
    /// microseconds; a negative gap counts as 0 (equal times always share a session).
    pub fn new_in(gap_us: i64, alloc: A) -> Self {
        Self {
            gap: u64::try_from(gap_us).unwrap_or(0),
            run: Session::NONE,
            singles: AVec::new_in(alloc.clone()),
            runs: AVec::new_in(alloc),
            limit: FIRST_LIMIT,
        }
    }

    /// The gap this state was made with, in microseconds.
    pub fn gap(&self) -> i64 {
        i64::try_from(self.gap).unwrap_or(i64::MAX)
    }

    /// Whether no event was added.
    pub fn is_empty(&self) -> bool {
        self.run.events == 0 && self.singles.is_empty() && self.runs.is_empty()
    }

    /// Adds one event. Constant time when it continues the run touched last, amortized logarithmic otherwise.
    #[inline]
    pub fn push(&mut self, time: i64, interrupt: impl Interrupt) {
        let run = &mut self.run;
        let pause = if time > run.ended_at {
            time.abs_diff(run.ended_at)
        } else if time < run.started_at {
            time.abs_diff(run.started_at)
        } else {
            0
        };
        if pause <= self.gap && run.events > 0 {
            run.started_at = run.started_at.min(time);
            run.ended_at = run.ended_at.max(time);
            run.events = run.events.saturating_add(1);
            return;
        }
        self.put_aside(interrupt);
        self.run = Session::single(time);
    }

    /// Puts the run touched last among the others.
    fn put_aside(&mut self, interrupt: impl Interrupt) {
        match self.run.events {
            0 => {}
            1 => self.singles.push(self.run.started_at),
            _ => self.runs.push(self.run),
        }
        self.run = Session::NONE;
        self.fit(interrupt);
    }

    #[inline]
    fn fit(&mut self, interrupt: impl Interrupt) {
        if self.singles.len() + self.runs.len() >= self.limit {
            self.join(interrupt);
        }
    }

    /// Joins runs that touch, except the one touched last.
    #[cold]
    fn join(&mut self, interrupt: impl Interrupt) {
        self.sort(interrupt);
        let mut runs = AVec::with_capacity_in(self.runs.len(), self.runs.allocator().clone());
        // In place: each single that stays was read before.
        let singles = Cell::from_mut(&mut self.singles[..]).as_slice_of_cells();
        let mut kept = singles.iter();
        let all = joined(singles.iter().map(Cell::get), self.runs.iter().copied(), self.gap, interrupt);
        for session in all {
            if session.events > 1 {
                runs.push(session);
            } else if let Some(place) = kept.next() {
                place.set(session.started_at);
            }
        }
        let kept = singles.len() - kept.len();
        self.singles.truncate(kept);
        self.runs = runs;
        self.limit = FIRST_LIMIT.max(2 * (self.singles.len() + self.runs.len()));
    }

    fn sort(&mut self, interrupt: impl Interrupt) {
        sort(&mut self.singles, interrupt, i64::cmp);
        sort(&mut self.runs, interrupt, Session::cmp);
    }

    /// Adds all events of another state with the same gap; a different gap is an error and changes nothing.
    pub fn merge<B: Allocator>(
        &mut self,
        other: &Sessions<B>,
        interrupt: impl Interrupt,
    ) -> Result<(), Mismatch> {
        if self.gap != other.gap {
            return Err(Mismatch { left: self.gap(), right: i64::try_from(other.gap).unwrap_or(i64::MAX) });
        }
        if other.run.events > 0 {
            self.put_aside(interrupt);
            self.run = other.run;
        }
        extend(&mut self.singles, &other.singles, interrupt);
        extend(&mut self.runs, &other.runs, interrupt);
        self.fit(interrupt);
        Ok(())
    }

    /// The sessions in order of time, disjoint and more than the gap apart; none without events. More events may be
    /// added afterwards.
    pub fn finish(&mut self, interrupt: impl Interrupt) -> impl Iterator<Item = Session> {
        self.put_aside(interrupt);
        self.sort(interrupt);
        joined(self.singles.iter().copied(), self.runs.iter().copied(), self.gap, interrupt)
    }

    /// How many sessions there are; 0 without events.
    pub fn count(&mut self, interrupt: impl Interrupt) -> usize {
        self.finish(interrupt).count()
    }

    /// Writes the state: gap, then each session as distances to what precedes it.
    pub fn encode<B: Allocator>(&mut self, w: &mut Writer<'_, B>, interrupt: impl Interrupt) {
        w.varint(self.gap);
        w.varint(self.count(interrupt) as u64);
        let mut from = i64::MIN;
        for run in self.finish(interrupt) {
            w.varint(run.started_at.abs_diff(from));
            w.varint(run.ended_at.abs_diff(run.started_at));
            w.varint(run.events.unsigned_abs());
            from = run.ended_at;
        }
    }

    /// Reads what [`Sessions::encode`] wrote; anything else is an error.
    pub fn decode_in(r: &mut Reader<'_>, alloc: A, interrupt: impl Interrupt) -> Result<Self, DecodeError> {
        let gap = r.varint()?;
        let gap_us = i64::try_from(gap).map_err(|_| DecodeError::Malformed("gap out of range"))?;
        let mut sessions = Self::new_in(gap_us, alloc);
        let mut from = i64::MIN;
        for i in 0..r.varint()? {
            interrupt.check();
            let (pause, length, events) = (r.varint()?, r.varint()?, r.varint()?);
            if i > 0 && pause <= gap {
                return Err(DecodeError::Malformed("sessions closer than the gap"));
            }
            let started_at =
                from.checked_add_unsigned(pause).ok_or(DecodeError::Malformed("time out of range"))?;
            let ended_at =
                started_at.checked_add_unsigned(length).ok_or(DecodeError::Malformed("time out of range"))?;
            let events =
                i64::try_from(events).map_err(|_| DecodeError::Malformed("event count out of range"))?;
            if events < 1 || length > gap.saturating_mul(events.unsigned_abs() - 1) {
                return Err(DecodeError::Malformed("too few events for the length of a session"));
            }
            match events {
                1 => sessions.singles.push(started_at),
                _ => sessions.runs.push(Session { started_at, ended_at, events }),
            }
            from = ended_at;
        }
        sessions.limit = FIRST_LIMIT.max(2 * (sessions.singles.len() + sessions.runs.len()));
        Ok(sessions)
    }
}

/// The sessions of sorted runs, those that touch joined.
fn joined(
    singles: impl Iterator<Item = i64>,
    runs: impl Iterator<Item = Session>,
    gap: u64,
    interrupt: impl Interrupt,
) -> impl Iterator<Item = Session> {
    let (mut singles, mut runs) = (singles.map(Session::single).peekable(), runs.peekable());
    let mut first = move || match (singles.peek(), runs.peek()) {
        (Some(single), Some(run)) if run.started_at < single.started_at => runs.next(),
        (Some(_), _) => singles.next(),
        (None, _) => runs.next(),
    };
    let mut next = first();
    std::iter::from_fn(move || {
        let mut session = next?;
        loop {
            interrupt.check();
            next = first();
            match next {
                Some(run)
                    if run.started_at <= session.ended_at
                        || run.started_at.abs_diff(session.ended_at) <= gap =>
                {
                    session.ended_at = session.ended_at.max(run.ended_at);
                    session.events = session.events.saturating_add(run.events);
                }
                _ => return Some(session),
            }
        }
    })
}

/// An event came before the one preceding it, so the input was not ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events are not in ascending order of time")]
pub struct OutOfOrder;

/// The running state of one partition, fed event by event in ascending order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sessionizer {
    started_at: i64,
    last: i64,
    number: i64,
}

impl Sessionizer {
    /// The state before the first event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event and returns the start of its session, in microseconds.
    ///
    /// A session starts at the first event, after a pause greater than `gap_us`, or where `new_session` is true. An
    /// event without a time belongs to no session: it returns `None` and changes nothing, its `new_session` included.
    /// The gap may differ from event to event; a negative one counts as 0. Two sessions cut apart by `new_session`
    /// at the same instant share their start; [`Sessionizer::number`] tells them apart.
    #[inline]
    pub fn next(
        &mut self,
        time: Option<i64>,
        gap_us: i64,
        new_session: bool,
    ) -> Result<Option<i64>, OutOfOrder> {
        let Some(time) = time else { return Ok(None) };
        let first = self.number == 0;
        if !first && time < self.last {
            return Err(OutOfOrder);
        }
        if first || new_session || time.abs_diff(self.last) > u64::try_from(gap_us).unwrap_or(0) {
            self.started_at = time;
            self.number = self.number.saturating_add(1);
        }
        self.last = time;
        Ok(Some(self.started_at))
    }

    /// The number of the current session, counted from 1; 0 before the first event with a time.
    pub fn number(&self) -> i64 {
        self.number
    }
}

#[cfg(test)]
mod tests;
