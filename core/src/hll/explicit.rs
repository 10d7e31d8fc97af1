//! A set of hashes for small sketches: open addressing, linear probing, doubling.
//!
//! Hashes may be chosen by somebody: in bytes freely, and for numbers because our hash can be inverted. Where they lie
//! depends on a secret of the process, so nobody can choose hashes that meet in one place and cost quadratic time. The
//! order of the table is never seen outside: sorted is what is written.
//!
//! Nothing is allocated for an empty set; the first value takes 8 slots (64 bytes). A slot of zero is vacant, the
//! hash zero itself is a flag.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::interrupt::{Interrupt, PART, sort};
use crate::{AVec, Allocator};

/// Different in each process.
static SECRET: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [random.hash_one(0), random.hash_one(1) | 1]
});

/// Slots of the first table.
const FIRST_SLOTS: usize = 8;

pub(super) struct HashSet<A: Allocator> {
    /// Empty or a power of two long, at most three quarters full.
    slots: AVec<u64, A>,
    /// Hashes in `slots`.
    used: usize,
    zero: bool,
}

impl<A: Allocator + Clone> HashSet<A> {
    pub(super) fn new_in(alloc: A) -> Self {
        Self { slots: AVec::new_in(alloc), used: 0, zero: false }
    }

    pub(super) fn allocator(&self) -> &A {
        self.slots.allocator()
    }

    pub(super) fn len(&self) -> usize {
        self.used + usize::from(self.zero)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.zero.then_some(0).into_iter().chain(self.slots.iter().copied().filter(|&slot| slot != 0))
    }

    /// The slot that holds the hash, or the vacant one where it belongs; 0 when there are no slots.
    #[inline]
    fn position(&self, hash: u64) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        // Both halves of the product: every bit of the hash and of the secret counts.
        let [offset, factor] = *SECRET;
        let product = u128::from(hash ^ offset) * u128::from(factor);
        let mut at = ((product >> 64) as u64 ^ product as u64) as usize & mask;
        while let Some(&slot) = self.slots.get(at) {
            if slot == hash || slot == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
        0
    }

    #[inline]
    pub(super) fn contains(&self, hash: u64) -> bool {
        if hash == 0 { self.zero } else { self.slots.get(self.position(hash)) == Some(&hash) }
    }

    /// Adds a hash that the set does not contain.
    pub(super) fn insert_new(&mut self, hash: u64, interrupt: impl Interrupt) {
        if hash == 0 {
            self.zero = true;
            return;
        }
        if self.used >= self.slots.len() / 4 * 3 {
            self.grow(interrupt);
        }
        let at = self.position(hash);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = hash;
            self.used += 1;
        }
    }

    fn grow(&mut self, interrupt: impl Interrupt) {
        let len = (self.slots.len() * 2).max(FIRST_SLOTS);
        let mut slots = AVec::with_capacity_in(len, self.allocator().clone());
        while slots.len() < len {
            interrupt.check();
            slots.resize(len.min(slots.len() + PART), 0);
        }
        let old = std::mem::replace(&mut self.slots, slots);
        for &hash in old.iter().filter(|&&slot| slot != 0) {
            interrupt.check();
            let at = self.position(hash);
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = hash;
            }
        }
    }

    /// The hashes in the order of the storage spec: ascending as signed numbers.
    pub(super) fn sorted(&self, interrupt: impl Interrupt) -> AVec<i64, A> {
        let mut sorted = AVec::with_capacity_in(self.len(), self.allocator().clone());
        sorted.extend(self.iter().map(|hash| {
            interrupt.check();
            hash.cast_signed()
        }));
        sort(&mut sorted, interrupt, i64::cmp);
        sorted
    }

    /// Bytes of memory held by the set's table.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }
}
