//! Records as they came, in one arena, and the stretches of partitions that they cover. An arena's room is used again and
//! again: a batch is as large as the largest blocks that an allocator has to deal with, and given back and taken anew each
//! time it leaves holes, or costs a page fault for every 4 KiB. What becomes of the records is in the parent.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::event::envelope::mapping::{Format, Noted};
use crate::event::envelope::{self, Limits, sha256};
use crate::event::time::Micros;

/// A stretch of one partition that a batch covers, and the claim under which it was read.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Topic, or `file:<sha256>`.
    pub topic: Arc<str>,
    /// `loader.topics.topic_id`.
    pub topic_id: i32,
    /// Kafka partition; 0 for files.
    pub partition: i32,
    /// Epoch of our claim.
    pub epoch: i64,
    /// `loader.offsets.run` at the claim.
    pub run: i32,
    /// First offset, inclusive: where the batch before ended, which may lie before the first record's offset.
    pub from: i64,
    /// Last offset, exclusive.
    pub to: i64,
    /// Kafka's leader epoch of the record before that; `None` when unknown.
    pub leader_epoch: Option<i32>,
}

/// What a record is before anybody has looked into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Has a value.
    Value,
    /// A Kafka record without a value.
    Tombstone,
    /// Skipped on purpose, such as an empty line.
    Filtered,
}

/// A value too long to be kept whole.
#[derive(Clone, Copy, Debug)]
pub struct Oversize {
    /// Its whole length in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole.
    pub sha256: [u8; 32],
}

/// One record; its bytes lie in the arena, one after the other: key, headers, value.
#[derive(Debug)]
pub struct RawRecord {
    /// Index into the batch's slots.
    pub slot: usize,
    /// Kafka offset or line number.
    pub offset: i64,
    /// The broker's time; `None` where there is no broker.
    pub received_at: Option<Micros>,
    /// Whether that time is only there to judge the event's clock by: nobody knows when it was received.
    pub receipt_guessed: bool,
    /// What it is.
    pub kind: RecordKind,
    /// Which of the events of its record it is, counted from 1; 0 where the record is the event.
    pub index: i32,
    /// Number of its record among those that were pushed.
    pub(super) root: usize,
    pub(super) start: usize,
    pub(super) key: Option<usize>,
    pub(super) headers: Option<usize>,
    pub(super) value_at: usize,
    pub(super) value: usize,
    pub(super) oversize: Option<Box<Oversize>>,
    /// Kafka's leader epoch of it; `None` when unknown.
    pub(super) leader_epoch: Option<i32>,
}

impl RawRecord {
    /// Size of the value as it came.
    fn bytes(&self) -> u64 {
        self.oversize.as_ref().map_or(self.value as u64, |oversize| oversize.bytes)
    }
}

/// How large a batch may become.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most records.
    pub rows: usize,
    /// Most bytes.
    pub bytes: usize,
    /// Longest wait for more records.
    pub delay: Duration,
    /// Most bytes kept of one value.
    pub keep: usize,
}

impl BatchLimits {
    /// Whether a batch is full.
    pub fn reached(&self, batch: &RawBatch) -> bool {
        batch.len() >= self.rows || batch.arena_bytes() >= self.bytes
    }
}

/// Records as they came from the source.
#[derive(Debug, Default)]
pub struct RawBatch {
    /// The stretches covered.
    pub slots: Vec<Slot>,
    pub(super) records: Vec<RawRecord>,
    pub(super) arena: Vec<u8>,
    bytes: u64,
    /// How their events are written; set by the encoder.
    pub(super) format: Format,
    /// By which mapping they are read, if that is to be noted.
    pub(super) mapping: Option<Arc<Noted>>,
    /// Where the room for the records came from.
    pool: Option<Arc<Pool>>,
}

impl Drop for RawBatch {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(std::mem::take(&mut self.arena), std::mem::take(&mut self.records));
        }
    }
}

impl RawBatch {
    /// An empty one with room from this pool.
    pub fn with_room_of(pool: &Arc<Pool>) -> Self {
        let (arena, records) = pool.lend();
        let mut batch = RawBatch::default();
        (batch.arena, batch.records, batch.pool) = (arena, records, Some(pool.clone()));
        batch
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is neither a record nor an advance of position.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.slots.iter().all(|s| s.from == s.to)
    }

    /// Bytes held in memory.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Copies a record in. A value longer than `keep` is cut there and remembered as too large.
    #[expect(clippy::too_many_arguments, reason = "the parts of a Kafka record, borrowed until here")]
    pub fn push(
        &mut self,
        slot: usize,
        offset: i64,
        received_at: Option<Micros>,
        kind: RecordKind,
        key: Option<&[u8]>,
        headers: Option<&[u8]>,
        value: &[u8],
        keep: usize,
    ) {
        let oversize =
            (value.len() > keep).then(|| Oversize { bytes: value.len() as u64, sha256: sha256(value) });
        self.push_cut(
            slot,
            offset,
            received_at,
            kind,
            key,
            headers,
            &value[..value.len().min(keep)],
            oversize,
        );
    }

    /// Says of the record that was pushed last that its time of receipt is a guess.
    pub fn receipt_is_guessed(&mut self) {
        if let Some(record) = self.records.last_mut() {
            record.receipt_guessed = true;
        }
    }

    /// Copies a record in whose value the source has cut already if `oversize` is set.
    #[expect(clippy::too_many_arguments, reason = "the parts of a Kafka record, borrowed until here")]
    pub fn push_cut(
        &mut self,
        slot: usize,
        offset: i64,
        received_at: Option<Micros>,
        kind: RecordKind,
        key: Option<&[u8]>,
        headers: Option<&[u8]>,
        value: &[u8],
        oversize: Option<Oversize>,
    ) {
        let start = self.arena.len();
        for part in [key, headers].into_iter().flatten() {
            self.arena.extend_from_slice(part);
        }
        let value_at = self.arena.len();
        self.arena.extend_from_slice(value);
        self.bytes += oversize.map_or(value.len() as u64, |o| o.bytes);
        self.records.push(RawRecord {
            slot,
            offset,
            received_at,
            receipt_guessed: false,
            kind,
            index: 0,
            root: self.records.len(),
            start,
            key: key.map(<[u8]>::len),
            headers: headers.map(<[u8]>::len),
            value_at,
            value: value.len(),
            oversize: oversize.map(Box::new),
            leader_epoch: None,
        });
    }

    /// Says of the record that was pushed last that it is an event of a record that held several.
    pub fn event_of_several(&mut self, index: i32) {
        if let Some(record) = self.records.last_mut() {
            record.index = index;
        }
    }

    /// Puts the events of the last record in its place; one without any is skipped.
    pub(super) fn split_last(&mut self, events: &[Range<usize>]) {
        let Some(whole) = self.records.pop() else { return };
        if events.is_empty() {
            self.records.push(RawRecord { kind: RecordKind::Filtered, ..whole });
            return;
        }
        self.records.extend((1..).zip(events).map(|(index, event)| RawRecord {
            index,
            value_at: whole.value_at + event.start,
            value: event.len(),
            oversize: None,
            ..whole
        }));
    }

    /// Puts, in place of each whole record of which `events` knows any, these.
    pub(super) fn split_all(&mut self, events: impl Fn(&[u8]) -> Option<Vec<Vec<u8>>>) {
        let (records, arena) = (std::mem::take(&mut self.records), std::mem::take(&mut self.arena));
        self.bytes = 0;
        for record in records {
            let value = record.value_at..record.value_at + record.value;
            let whole = record.kind == RecordKind::Value && record.index == 0 && record.oversize.is_none();
            let events = if whole { events(&arena[value.clone()]) } else { None };
            let start = self.arena.len();
            self.arena.extend_from_slice(&arena[record.start..record.value_at]);
            let (kind, first, values) = match &events {
                None => (record.kind, record.index, vec![&arena[value]]),
                // One without any is skipped.
                Some(none) if none.is_empty() => (RecordKind::Filtered, 0, vec![&arena[value]]),
                Some(events) => (record.kind, 1, events.iter().map(Vec::as_slice).collect()),
            };
            let mut oversize = record.oversize;
            for (index, value) in (first..).zip(values) {
                let value_at = self.arena.len();
                self.arena.extend_from_slice(value);
                let (value, oversize) = (value.len(), oversize.take());
                let event = RawRecord { index, kind, start, value_at, value, oversize, ..record };
                self.bytes += event.bytes();
                self.records.push(event);
            }
        }
    }

    /// Whether the record there is the first event of its record, or all of it.
    pub(super) fn is_first(&self, at: usize) -> bool {
        at == 0 || self.records.get(at).is_none_or(|record| record.root != self.records[at - 1].root)
    }

    /// About the middle of the records, where a batch can be cut; 0 if there is no such place.
    pub(super) fn middle(&self) -> usize {
        let half = self.len() / 2;
        let after = (half..self.len()).find(|at| self.is_first(*at));
        after.unwrap_or_else(|| (0..half).rev().find(|at| self.is_first(*at)).unwrap_or(0))
    }

    /// Says in which leader epoch the record was written that was pushed last.
    pub fn leader_epoch_is(&mut self, epoch: Option<i32>) {
        if let Some(record) = self.records.last_mut() {
            record.leader_epoch = epoch;
        }
    }

    /// Cuts off the records from this one on, the first event of its record, which are neither all nor none: another
    /// batch.
    pub fn split_off(&mut self, at: usize) -> RawBatch {
        let mut rest = RawBatch::default();
        rest.records = self.records.split_off(at);
        let start = rest.records[0].start;
        rest.arena = self.arena.split_off(start);
        rest.records.iter_mut().for_each(|record| {
            record.start -= start;
            record.value_at -= start;
        });
        rest.bytes = rest.records.iter().map(RawRecord::bytes).sum();
        self.bytes -= rest.bytes;
        // A range that does not move must not be there at all. What lies between two records goes with the second.
        for (index, slot) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            let last = self.records.iter().rfind(|record| record.slot == index);
            let last = last.map(|record| (record.offset + 1, record.leader_epoch));
            let more = rest.records.iter().any(|record| record.slot == index);
            match last {
                Some((to, leader_epoch)) if more => {
                    self.put_slot(index, Slot { to, leader_epoch, ..slot.clone() });
                    rest.put_slot(index, Slot { from: to, ..slot });
                }
                Some(_) => self.put_slot(index, slot),
                None => rest.put_slot(index, slot),
            }
        }
        rest
    }

    /// Adds the slot that its records know by this number, which is not smaller than what they know it by then.
    fn put_slot(&mut self, number: usize, slot: Slot) {
        let new = self.slots.len();
        self.records.iter_mut().filter(|record| record.slot == number).for_each(|record| record.slot = new);
        self.slots.push(slot);
    }

    /// Size of the values as they came.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The index of the slot of each record.
    pub fn slots_of_records(&self) -> impl Iterator<Item = usize> + '_ {
        self.records.iter().map(|r| r.slot)
    }

    pub(super) fn value(&self, r: &RawRecord) -> &[u8] {
        &self.arena[r.value_at..r.value_at + r.value]
    }

    /// Shows each value, to be changed where it stands.
    pub(super) fn for_each_value(&mut self, mut shown: impl FnMut(&mut [u8])) {
        for r in &self.records {
            shown(&mut self.arena[r.value_at..r.value_at + r.value]);
        }
    }

    pub(super) fn headers(&self, r: &RawRecord) -> Option<&[u8]> {
        let start = r.start + r.key.unwrap_or(0);
        r.headers.map(|len| &self.arena[start..start + len])
    }

    /// Id, time and type of a record that is to be a dead letter, as far as it can be read at all.
    pub(super) fn known(&self, r: &RawRecord) -> (Option<Uuid>, Option<Micros>, Option<String>) {
        if r.oversize.is_some() {
            return (None, None, None);
        }
        // It was measured already.
        let limits = Limits { max_bytes: usize::MAX, ..Limits::default() };
        let composed = self.format.compose(self.headers(r), self.value(r));
        let value = composed.as_deref().unwrap_or(self.value(r));
        self.format.parse(value, &limits).map(envelope::Envelope::known).unwrap_or_default()
    }
}

/// Where batches take the room for their records from, and give it back to when they are dropped.
#[derive(Debug)]
pub struct Pool {
    /// Bytes that a batch is going to hold.
    bytes: usize,
    /// How many are kept for later.
    keep: usize,
    idle: Mutex<Vec<Room>>,
}

type Room = (Vec<u8>, Vec<RawRecord>);

impl Pool {
    /// For batches of about so many bytes; keeps the room of at most `keep` batches that nobody uses.
    pub fn new(bytes: usize, keep: usize) -> Self {
        Pool { bytes, keep, idle: Mutex::default() }
    }

    pub(super) fn lend(&self) -> Room {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Address space only, until something is written there. Growing by doubling would take twice what a batch needs.
        idle.unwrap_or_else(|| (Vec::with_capacity(self.bytes + self.bytes / 16), Vec::new()))
    }

    pub(super) fn give_back(&self, mut arena: Vec<u8>, mut records: Vec<RawRecord>) {
        arena.clear();
        records.clear();
        // One that had to grow for a huge record stays no longer than that.
        let usual = arena.capacity() <= self.bytes + self.bytes / 8;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if usual && idle.len() < self.keep {
            idle.push((arena, records));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{RawBatch, RecordKind};
    use super::*;

    fn push(batch: &mut RawBatch, value: &[u8]) {
        batch.push(0, 0, None, RecordKind::Value, None, None, value, usize::MAX);
    }

    #[test]
    fn room_is_used_again_and_no_more_of_it_kept_than_allowed() {
        let pool = Arc::new(Pool::new(1 << 20, 2));
        let idle = || pool.idle.lock().unwrap().len();
        let mut batches: Vec<RawBatch> = (0..3).map(|_| RawBatch::with_room_of(&pool)).collect();
        batches.iter_mut().for_each(|batch| push(batch, b"abc"));
        let places: Vec<*const u8> = batches.iter().map(|batch| batch.arena.as_ptr()).collect();
        drop(batches);
        assert_eq!(idle(), 2);
        let again = RawBatch::with_room_of(&pool);
        assert!(places.contains(&again.arena.as_ptr()));
        assert_eq!((again.len(), again.arena_bytes(), again.bytes(), idle()), (0, 0, 0, 1));
    }

    #[test]
    fn what_grew_for_a_huge_record_is_not_kept() {
        let pool = Arc::new(Pool::new(1 << 10, 2));
        let mut batch = RawBatch::with_room_of(&pool);
        push(&mut batch, &[b' '; 100_000]);
        drop(batch);
        assert!(pool.idle.lock().unwrap().is_empty());
    }
}
