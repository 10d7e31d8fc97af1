//! Counts of buckets: a small hash table, so that memory follows the number of buckets and not their spread.

use crate::{AVec, Allocator};

const FIRST_SLOTS: usize = 8;

/// A bucket: index and sign in `key`; vacant when the count is 0.
#[derive(Clone, Copy)]
struct Bin {
    key: i32,
    count: u64,
}

pub(super) struct Bins<A: Allocator> {
    /// Empty or a power of two long, at most three quarters full.
    slots: AVec<Bin, A>,
    used: usize,
}

impl<A: Allocator + Clone> Bins<A> {
    pub(super) fn new_in(alloc: A) -> Self {
        Self { slots: AVec::new_in(alloc), used: 0 }
    }

    /// How many buckets have a count.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn allocator(&self) -> &A {
        self.slots.allocator()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Bin>()
    }

    /// Adds `count` (not 0) to a bucket.
    #[inline]
    pub(super) fn add(&mut self, key: i32, count: u64) {
        if !self.add_to_slot(key, count) {
            self.grow();
            self.add_to_slot(key, count);
        }
    }

    /// Whether there was room.
    #[inline]
    fn add_to_slot(&mut self, key: i32, count: u64) -> bool {
        let len = self.slots.len();
        let mask = len.wrapping_sub(1);
        let mut at =
            (u64::from(key.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.count == 0 {
                if self.used >= len / 4 * 3 {
                    return false;
                }
                *slot = Bin { key, count };
                self.used += 1;
                return true;
            }
            if slot.key == key {
                slot.count = slot.count.saturating_add(count);
                return true;
            }
            at = (at + 1) & mask;
        }
        false
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(FIRST_SLOTS);
        self.rebuild(len, |key| key);
    }

    /// Gives every bucket the key `f` returns, adding up those that meet.
    pub(super) fn rekey(&mut self, f: impl Fn(i32) -> i32) {
        self.rebuild(self.slots.len(), f);
    }

    fn rebuild(&mut self, len: usize, f: impl Fn(i32) -> i32) {
        let mut slots = AVec::with_capacity_in(len, self.allocator().clone());
        slots.resize(len, Bin { key: 0, count: 0 });
        let old = std::mem::replace(&mut self.slots, slots);
        self.used = 0;
        for bin in old.iter().filter(|bin| bin.count != 0) {
            self.add_to_slot(f(bin.key), bin.count);
        }
    }

    /// Buckets and counts, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, u64)> {
        self.slots.iter().filter(|bin| bin.count != 0).map(|bin| (bin.key, bin.count))
    }

    /// Buckets and counts in the order of `rank`, made unique by the key itself.
    pub(super) fn sorted_by_key(&self, rank: impl Fn(i32) -> i32) -> AVec<(i32, u64), A> {
        let mut sorted = AVec::with_capacity_in(self.used, self.allocator().clone());
        sorted.extend(self.iter());
        sorted.sort_unstable_by_key(|&(key, _)| rank(key));
        sorted
    }
}
