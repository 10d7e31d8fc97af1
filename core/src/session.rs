//! Sessions: runs of events whose gaps never exceed a limit.
//!
//! [`Sessions`] is the mergeable state behind the aggregates, [`Sessionizer`] the running state behind the window
//! functions. What a session contains besides times (pages, channels) is SQL on top of these and does not live here.
//!
//! Times may be any `i64`: differences are taken without overflow, so even the two extremes, which Postgres uses for
//! `-infinity` and `infinity`, are ordinary instants here. The caller decides whether to let them in.

use crate::codec::{DecodeError, Reader, Writer};
use crate::{AVec, Allocator};

/// Format version of [`Sessions::encode`].
const VERSION: u8 = 1;

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
/// events never split it. So the state holds runs instead of events: memory follows the number of sessions, at most
/// twice that number plus a constant while input arrives unordered.
pub struct Sessions<A: Allocator> {
    gap: u64,
    runs: AVec<Session, A>,
    /// Whether the runs are sorted and farther apart than the gap, that is, already the answer.
    canonical: bool,
}

impl<A: Allocator> Sessions<A> {
    /// An empty state; allocates nothing yet. `gap_us` is the longest pause inside a session, inclusive, in
    /// microseconds; a negative gap counts as 0 (equal times always share a session).
    pub fn new_in(gap_us: i64, alloc: A) -> Self {
        Self { gap: u64::try_from(gap_us).unwrap_or(0), runs: AVec::new_in(alloc), canonical: true }
    }

    /// The gap this state was made with, in microseconds.
    pub fn gap(&self) -> i64 {
        i64::try_from(self.gap).unwrap_or(i64::MAX)
    }

    /// Whether no event was added.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds one event. Constant time when it continues the run touched last, amortized logarithmic otherwise.
    #[inline]
    pub fn push(&mut self, time: i64) {
        if let Some(run) = self.runs.last_mut() {
            if time > run.ended_at {
                if time.abs_diff(run.ended_at) <= self.gap {
                    run.ended_at = time;
                    run.events = run.events.saturating_add(1);
                    return;
                }
            } else if time >= run.started_at {
                run.events = run.events.saturating_add(1);
                return;
            } else {
                // Reaching back may close the gap to an earlier run, or the new run belongs before this one.
                self.canonical = false;
                if time.abs_diff(run.started_at) <= self.gap {
                    run.started_at = time;
                    run.events = run.events.saturating_add(1);
                    return;
                }
            }
        }
        self.append(Session { started_at: time, ended_at: time, events: 1 });
    }

    /// Appends a run that does not extend the last one; the caller has cleared `canonical` if it starts before it.
    #[cold]
    fn append(&mut self, run: Session) {
        if !self.canonical && self.runs.len() == self.runs.capacity() {
            self.compact();
            // Growing unless half is free keeps compaction amortized: it happens once per doubling of appended runs.
            if self.runs.len() > self.runs.capacity() / 2 {
                self.runs.reserve(self.runs.capacity());
            }
            if self
                .runs
                .last()
                .is_some_and(|last| run.started_at <= last.ended_at || self.touches(last, &run))
            {
                self.canonical = false;
            }
        }
        self.runs.push(run);
    }

    /// Whether `next`, which starts no earlier than `run`, belongs to the same session.
    fn touches(&self, run: &Session, next: &Session) -> bool {
        next.started_at <= run.ended_at || next.started_at.abs_diff(run.ended_at) <= self.gap
    }

    /// Sorts the runs and joins those that touch.
    fn compact(&mut self) {
        if self.canonical {
            return;
        }
        self.runs.sort_unstable();
        let mut kept = 0;
        for i in 1..self.runs.len() {
            let (last, run) = (self.runs[kept], self.runs[i]);
            if self.touches(&last, &run) {
                self.runs[kept].ended_at = last.ended_at.max(run.ended_at);
                self.runs[kept].events = last.events.saturating_add(run.events);
            } else {
                kept += 1;
                self.runs[kept] = run;
            }
        }
        self.runs.truncate(kept + 1);
        self.canonical = true;
    }

    /// Adds all events of another state with the same gap; a different gap is an error and changes nothing.
    pub fn merge<B: Allocator>(&mut self, other: &Sessions<B>) -> Result<(), Mismatch> {
        if self.gap != other.gap {
            return Err(Mismatch { left: self.gap(), right: other.gap() });
        }
        if other.runs.is_empty() {
            return Ok(());
        }
        self.canonical = self.runs.is_empty() && other.canonical;
        self.runs.extend_from_slice(&other.runs);
        self.compact();
        Ok(())
    }

    /// The sessions in order of time, disjoint and more than the gap apart; empty without events. More events may
    /// be added afterwards.
    pub fn finish(&mut self) -> &[Session] {
        self.compact();
        &self.runs
    }

    /// How many sessions there are; 0 without events.
    pub fn count(&mut self) -> usize {
        self.finish().len()
    }

    /// Appends the state to `out`: version, gap, then each session as distances to what precedes it.
    pub fn encode<B: Allocator>(&mut self, out: &mut AVec<u8, B>) {
        self.compact();
        let mut w = Writer::new(out, VERSION);
        w.varint(self.gap);
        w.varint(self.runs.len() as u64);
        let mut from = i64::MIN;
        for run in &self.runs {
            w.varint(run.started_at.abs_diff(from));
            w.varint(run.ended_at.abs_diff(run.started_at));
            w.varint(run.events.unsigned_abs());
            from = run.ended_at;
        }
    }

    /// Reads what [`Sessions::encode`] wrote; every other byte string is an error.
    pub fn decode_in(bytes: &[u8], alloc: A) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let gap = r.varint()?;
        if gap > i64::MAX.unsigned_abs() {
            return Err(DecodeError::Malformed("gap out of range"));
        }
        let len = usize::try_from(r.varint()?).map_err(|_| DecodeError::Truncated)?;
        if len > r.remaining() / 3 {
            return Err(DecodeError::Truncated);
        }
        let mut runs = AVec::with_capacity_in(len, alloc);
        let mut from = i64::MIN;
        for i in 0..len {
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
            runs.push(Session { started_at, ended_at, events });
            from = ended_at;
        }
        r.finish()?;
        Ok(Self { gap, runs, canonical: true })
    }
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
mod tests {
    use super::*;
    use crate::Global;
    use proptest::prelude::*;

    /// The definition: sort the times, cut where the pause is greater than the gap.
    fn by_definition(times: &[i64], gap: i64) -> Vec<Session> {
        let mut times = times.to_vec();
        times.sort_unstable();
        let mut sessions: Vec<Session> = Vec::new();
        for time in times {
            match sessions.last_mut() {
                Some(s) if i128::from(time) - i128::from(s.ended_at) <= i128::from(gap) => {
                    s.ended_at = time;
                    s.events += 1;
                }
                _ => sessions.push(Session { started_at: time, ended_at: time, events: 1 }),
            }
        }
        sessions
    }

    fn state(times: &[i64], gap: i64) -> Sessions<Global> {
        let mut state = Sessions::new_in(gap, Global);
        times.iter().for_each(|&t| state.push(t));
        state
    }

    fn any_times() -> impl Strategy<Value = Vec<i64>> {
        let time = prop_oneof![
            8 => -60i64..60,
            1 => any::<i64>(),
            1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(i64::MAX - 3)],
        ];
        prop::collection::vec(time, 0..80)
    }

    fn any_gap() -> impl Strategy<Value = i64> {
        prop_oneof![9 => 0i64..6, 1 => Just(i64::MAX)]
    }

    #[test]
    fn a_pause_equal_to_the_gap_stays_in_the_session() {
        assert_eq!(state(&[0, 30, 61], 30).finish().len(), 2);
        assert_eq!(state(&[0, 30, 60], 30).finish(), [Session { started_at: 0, ended_at: 60, events: 3 }]);
    }

    #[test]
    fn no_events_give_no_sessions() {
        assert!(state(&[], 5).finish().is_empty());
        assert_eq!(state(&[], 5).count(), 0);
    }

    #[test]
    fn memory_follows_sessions_not_events() {
        // 200,000 events of 20 interleaved sessions, never in order; for a while each is in up to 9 pieces.
        let mut s = Sessions::new_in(10, Global);
        for i in 0..200_000i64 {
            s.push((i * 7919 % 20) * 10_000 + (i / 20 * 31 % 100));
        }
        assert!(s.runs.capacity() <= 512, "{}", s.runs.capacity());
        assert_eq!(s.count(), 20);
        assert_eq!(s.finish().iter().map(|r| r.events).sum::<i64>(), 200_000);
    }

    #[test]
    fn different_gaps_do_not_merge() {
        let mut a = state(&[1], 5);
        assert_eq!(a.merge(&state(&[2], 6)), Err(Mismatch { left: 5, right: 6 }));
        assert_eq!(a.finish(), [Session { started_at: 1, ended_at: 1, events: 1 }]);
    }

    #[test]
    fn impossible_states_are_refused() {
        let encoded = |f: &dyn Fn(&mut Writer<'_, Global>)| {
            let mut out = AVec::new();
            f(&mut Writer::new(&mut out, VERSION));
            out
        };
        let refused = |bytes: &[u8]| Sessions::decode_in(bytes, Global).err();
        let sessions = |gap: u64, rows: &[(u64, u64, u64)]| {
            encoded(&|w| {
                w.varint(gap);
                w.varint(rows.len() as u64);
                rows.iter().for_each(|&(a, b, c)| [a, b, c].into_iter().for_each(|v| w.varint(v)));
            })
        };
        assert_eq!(refused(&sessions(5, &[(1 << 63, 9, 3), (6, 0, 1)])), None);
        assert!(refused(&sessions(1 << 63, &[])).is_some(), "gap");
        assert!(refused(&sessions(5, &[(0, 0, 1), (5, 0, 1)])).is_some(), "sessions that touch");
        assert!(refused(&sessions(5, &[(0, 0, 0)])).is_some(), "no events");
        assert!(refused(&sessions(5, &[(0, 1, 1)])).is_some(), "one event with a length");
        assert!(refused(&sessions(5, &[(0, 11, 3)])).is_some(), "a pause inside that must exceed the gap");
        assert!(refused(&sessions(5, &[(0, 0, u64::MAX)])).is_some(), "event count");
        assert!(refused(&sessions(0, &[(u64::MAX, 0, 1), (1, 0, 1)])).is_some(), "time");
        assert!(refused(&[VERSION, 0, 200, 1]).is_some(), "count beyond the bytes");
        assert!(refused(&[VERSION + 1, 0, 0]).is_some(), "version");
    }

    proptest! {
        #[test]
        fn sessions_equal_the_definition_in_any_order(times in any_times(), gap in any_gap(), early in 0usize..80) {
            let mut s = Sessions::new_in(gap, Global);
            for (i, &t) in times.iter().enumerate() {
                // Asking for an answer in between must not disturb later ones.
                if i == early { s.count(); }
                s.push(t);
            }
            prop_assert_eq!(s.finish(), &by_definition(&times, gap)[..]);
        }

        #[test]
        fn any_split_and_merge_order_gives_the_same_sessions(
            times in any_times(), gap in any_gap(), cuts in prop::collection::vec(0usize..4, 80)
        ) {
            let mut parts: Vec<_> = (0..4).map(|_| Sessions::new_in(gap, Global)).collect();
            times.iter().zip(&cuts).for_each(|(&t, &p)| parts[p].push(t));
            for order in [[0usize, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
                let mut all = Sessions::new_in(gap, Global);
                order.iter().for_each(|&p| all.merge(&parts[p]).unwrap());
                prop_assert_eq!(all.finish(), &by_definition(&times, gap)[..]);
            }
            let mut parts = parts.into_iter();
            let mut pair = || {
                let (mut a, b) = (parts.next().unwrap(), parts.next().unwrap());
                a.merge(&b).unwrap();
                a
            };
            let (mut a, b) = (pair(), pair());
            a.merge(&b).unwrap();
            a.push(3);
            let with_three: Vec<i64> = times.iter().copied().chain([3]).collect();
            prop_assert_eq!(a.finish(), &by_definition(&with_three, gap)[..]);
        }

        #[test]
        fn sessions_survive_their_bytes(times in any_times(), gap in any_gap()) {
            let mut before = state(&times, gap);
            let mut bytes = AVec::new();
            before.encode(&mut bytes);
            let mut after = Sessions::decode_in(&bytes, Global).unwrap();
            prop_assert_eq!(after.gap(), gap);
            prop_assert_eq!(before.finish(), after.finish());
        }

        #[test]
        fn mutated_bytes_are_refused_or_read_as_a_valid_state(
            times in any_times(), at in 0usize..400, byte: u8, cut in 0usize..400
        ) {
            let mut bytes = AVec::new();
            state(&times, 4).encode(&mut bytes);
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            bytes.truncate(cut);
            if let Ok(mut s) = Sessions::decode_in(&bytes, Global) {
                let gap = s.gap.into();
                for w in s.finish().windows(2) {
                    prop_assert!(i128::from(w[1].started_at) - i128::from(w[0].ended_at) > gap);
                }
            }
        }

        #[test]
        fn the_running_form_agrees_with_the_aggregate(mut times in any_times(), gap in any_gap()) {
            times.sort_unstable();
            let mut running = Sessionizer::new();
            let expected = by_definition(&times, gap);
            for &t in &times {
                let start = running.next(Some(t), gap, false).unwrap().unwrap();
                let session = &expected[running.number() as usize - 1];
                prop_assert_eq!(start, session.started_at);
                prop_assert!(session.started_at <= t && t <= session.ended_at);
            }
            prop_assert_eq!(running.number() as usize, expected.len());
        }
    }

    #[test]
    fn a_forced_cut_starts_a_session_and_a_missing_time_changes_nothing() {
        let mut s = Sessionizer::new();
        assert_eq!(s.next(None, 30, true), Ok(None));
        assert_eq!(s.number(), 0);
        assert_eq!(s.next(Some(5), 30, false), Ok(Some(5)));
        assert_eq!(s.next(Some(6), 30, true), Ok(Some(6)));
        assert_eq!(s.next(None, 30, true), Ok(None));
        assert_eq!(s.next(Some(7), 30, false), Ok(Some(6)));
        assert_eq!(s.number(), 2);
        assert_eq!(s.next(Some(7), 30, true), Ok(Some(7)));
        assert_eq!(s.number(), 3);
    }

    #[test]
    fn unordered_input_is_an_error_not_a_wrong_session() {
        let mut s = Sessionizer::new();
        s.next(Some(5), 30, false).unwrap();
        assert_eq!(s.next(Some(4), 30, false), Err(OutOfOrder));
    }
}
