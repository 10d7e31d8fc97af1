//! The events of one group, as funnels and sequences see them: a time and which conditions were true.
//!
//! The log keeps rows in arrival order and sorts them once, when an answer is asked for. Nothing here decides what a
//! funnel or a pattern is; see `funnel` and `sequence`.

use crate::codec::{DecodeError, Reader, Writer};
use crate::interrupt::{Interrupt, extend, sort};
use crate::{AVec, Allocator};

/// How many conditions one event can carry: one bit each.
pub const MAX_CONDITIONS: usize = 32;

/// One row: when it happened and which conditions were true (bit `i` is condition `i + 1`).
///
/// The order of the type is the order of processing, (time, conditions): it depends on nothing but the row's own
/// content, so no plan and no arrival order can change an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Event time in microseconds; the epoch does not matter here.
    pub time: i64,
    /// Bit set of true conditions.
    pub conditions: u32,
}

/// A growing, mergeable multiset of events.
pub struct EventLog<A: Allocator> {
    events: AVec<Event, A>,
    sorted: bool,
}

impl<A: Allocator> EventLog<A> {
    /// An empty log whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(alloc: A) -> Self {
        Self { events: AVec::new_in(alloc), sorted: true }
    }

    /// Adds one event. Amortized constant time; rows that arrive in order keep the log sorted for free.
    #[inline]
    pub fn push(&mut self, time: i64, conditions: u32) {
        let event = Event { time, conditions };
        if self.sorted && self.events.last().is_some_and(|last| *last > event) {
            self.sorted = false;
        }
        self.events.push(event);
    }

    /// Adds all events of another log.
    pub fn append<B: Allocator>(&mut self, other: &EventLog<B>, interrupt: impl Interrupt) {
        self.sorted = match (self.events.last(), other.events.first()) {
            (Some(last), Some(first)) => self.sorted && other.sorted && last <= first,
            (None, _) => other.sorted,
            (_, None) => self.sorted,
        };
        extend(&mut self.events, &other.events, interrupt);
    }

    /// How many events the log holds.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the log holds no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events in processing order, sorting them if they are not.
    pub fn sorted(&mut self, interrupt: impl Interrupt) -> &[Event] {
        if !self.sorted {
            sort(&mut self.events, interrupt, Event::cmp);
            self.sorted = true;
        }
        &self.events
    }

    /// Writes the events; the caller has written version and configuration before.
    pub fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>, interrupt: impl Interrupt) {
        w.varint(self.events.len() as u64);
        for event in &self.events {
            interrupt.check();
            w.i64(event.time);
            w.u32(event.conditions);
        }
    }

    /// Reads what [`EventLog::encode`] wrote.
    pub fn decode_in(r: &mut Reader<'_>, alloc: A, interrupt: impl Interrupt) -> Result<Self, DecodeError> {
        let len = usize::try_from(r.varint()?).map_err(|_| DecodeError::Truncated)?;
        if len > r.remaining() / 12 {
            return Err(DecodeError::Truncated);
        }
        let mut log = Self { events: AVec::with_capacity_in(len, alloc), sorted: true };
        for _ in 0..len {
            interrupt.check();
            let time = r.i64()?;
            log.push(time, r.u32()?);
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Global;
    use proptest::prelude::*;

    fn log(rows: &[(i64, u32)]) -> EventLog<Global> {
        let mut log = EventLog::new_in(Global);
        for &(time, conditions) in rows {
            log.push(time, conditions);
        }
        log
    }

    proptest! {
        #[test]
        fn any_split_and_merge_order_gives_the_same_sorted_events(
            rows in prop::collection::vec((-5i64..5, 0u32..4), 0..40), cut in 0usize..40
        ) {
            let mut whole = log(&rows);
            let cut = cut.min(rows.len());
            let (mut a, b) = (log(&rows[..cut]), log(&rows[cut..]));
            let mut other_way = log(&rows[cut..]);
            other_way.append(&a, ());
            a.append(&b, ());
            prop_assert_eq!(whole.sorted(()), a.sorted(()));
            prop_assert_eq!(whole.sorted(()), other_way.sorted(()));
        }

        #[test]
        fn a_log_survives_its_bytes(rows in prop::collection::vec((any::<i64>(), any::<u32>()), 0..40)) {
            let mut before = log(&rows);
            let mut bytes = AVec::new();
            before.encode(&mut Writer::new(&mut bytes, 1), ());
            let mut r = Reader::new(&bytes, 1).unwrap();
            let mut after = EventLog::decode_in(&mut r, Global, ()).unwrap();
            prop_assert!(r.finish().is_ok());
            prop_assert_eq!(before.sorted(()), after.sorted(()));
        }

        #[test]
        fn mutated_bytes_are_refused_or_read_whole(
            rows in prop::collection::vec((any::<i64>(), any::<u32>()), 0..8), at in 0usize..100, byte: u8, cut in 0usize..100
        ) {
            let mut bytes = AVec::new();
            log(&rows).encode(&mut Writer::new(&mut bytes, 1), ());
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            bytes.truncate(cut);
            let Ok(mut r) = Reader::new(&bytes, 1) else { return Ok(()) };
            if let Ok(mut read) = EventLog::decode_in(&mut r, Global, ()) {
                prop_assert!(12 * read.len() + r.remaining() < bytes.len());
                prop_assert!(read.sorted(()).is_sorted());
            }
        }
    }
}
