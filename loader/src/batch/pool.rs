//! Room for the records of batches, used again and again: a batch is as large as the largest blocks that an allocator
//! has to deal with, and given back and taken anew each time it leaves holes, or costs a page fault for every 4 KiB.

use std::sync::{Mutex, PoisonError};

use super::RawRecord;

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
