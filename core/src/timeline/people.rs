//! What is known of the persons of one slice while its dates are read.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A table from hashes to states. Entries lie in the order of hashes, as persons do in a slice, so that walking through
/// a slice walks through the table. Where that crowds them, as the first persons of a slice of very many do, or persons
/// who were made up to be neighbours, they are scattered.
#[derive(Debug)]
pub struct People<P> {
    /// A power of two of them, at most half of them taken.
    entries: Vec<Entry<P>>,
    /// The entries taken.
    taken: Vec<u32>,
    /// All hashes of a slice begin with the same so many bits.
    prefix: u32,
    /// The bits behind them say where an entry is looked for first; the others are shifted out.
    shift: u32,
    /// 1, or what scatters hashes.
    factor: u64,
}

#[derive(Debug)]
struct Entry<P> {
    hash: u64,
    taken: bool,
    person: P,
}

const FIRST_BITS: u32 = 10;

/// Whoever is so far from where he is looked for first is in a crowd.
const CROWD: usize = 64;

impl<P: Default> People<P> {
    pub(super) fn new(prefix: u32) -> Self {
        let prefix = prefix.min(63);
        Self { entries: entries(FIRST_BITS), taken: vec![], prefix, shift: 64 - FIRST_BITS, factor: 1 }
    }

    /// Where a hash is looked for first.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        ((hash.wrapping_mul(self.factor) << self.prefix) >> self.shift) as usize
    }

    /// Where a hash is, or the free entry that it would take.
    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        let mut at = self.home(hash);
        while self.entries[at].taken && self.entries[at].hash != hash {
            at = (at + 1) & (self.entries.len() - 1);
        }
        at
    }

    /// A person's state, a new one if there is none.
    #[inline(always)]
    pub fn get(&mut self, hash: u64) -> &mut P {
        let mut at = self.place(hash);
        if !self.entries[at].taken {
            at = self.take(hash, at);
        }
        &mut self.entries[at].person
    }

    /// A person's state; a new one only if `create`.
    #[inline(always)]
    pub fn find(&mut self, hash: u64, create: bool) -> Option<&mut P> {
        let at = self.place(hash);
        if self.entries[at].taken {
            return Some(&mut self.entries[at].person);
        }
        create.then(|| self.get(hash))
    }

    /// How far an entry is from where its hash is looked for first.
    fn distance(&self, hash: u64, at: usize) -> usize {
        at.wrapping_sub(self.home(hash)) & (self.entries.len() - 1)
    }

    #[cold]
    fn take(&mut self, hash: u64, mut at: usize) -> usize {
        let (taken, room) = (self.taken.len(), self.entries.len());
        let crowded = self.distance(hash, at) > CROWD;
        let grow = 2 * taken >= room || (crowded && 16 * taken >= room);
        let scatter = crowded && !grow && self.factor == 1;
        if grow || scatter {
            let bits = 64 - self.shift + u32::from(grow);
            // Made before anything is taken apart: there may be no memory.
            let mut old = std::mem::replace(&mut self.entries, entries(bits));
            self.shift = 64 - bits;
            if scatter {
                self.factor = RandomState::new().build_hasher().finish() | 1;
                self.prefix = 0;
            }
            for i in 0..self.taken.len() {
                let entry = &mut old[self.taken[i] as usize];
                let to = self.place(entry.hash);
                std::mem::swap(&mut self.entries[to], entry);
                self.taken[i] = to as u32;
            }
            at = self.place(hash);
        }
        let entry = &mut self.entries[at];
        (entry.hash, entry.taken) = (hash, true);
        self.taken.push(at as u32);
        at
    }

    /// Hands out all persons, whose states must be left as new ones are, and forgets them.
    pub(super) fn end(&mut self, mut each: impl FnMut(u64, &mut P)) {
        for at in self.taken.drain(..) {
            let entry = &mut self.entries[at as usize];
            entry.taken = false;
            each(entry.hash, &mut entry.person);
        }
    }
}

fn entries<P: Default>(bits: u32) -> Vec<Entry<P>> {
    (0..1usize << bits).map(|_| Entry { hash: 0, taken: false, person: P::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn nobody_is_far_from_home_in_a_slice_of_many() {
        // All at once in the order of hashes; and neighbours, as somebody could make them up.
        for step in [u64::MAX >> 17, 1] {
            let mut people = People::<u8>::new(0);
            for n in 0..1u64 << 17 {
                people.get(n * step);
                if n.is_power_of_two() {
                    let entries = people.entries.iter().enumerate().filter(|(_, entry)| entry.taken);
                    let far = entries.map(|(at, entry)| people.distance(entry.hash, at)).max();
                    assert!(far < Some(1000), "{n} persons {step} apart: {far:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(
            hashes in prop::collection::vec(prop_oneof![0u64..9, any::<u64>()], 0..3000), prefix in 0u32..70
        ) {
            let (mut people, mut map) = (People::<u32>::new(prefix), BTreeMap::new());
            for _ in 0..2 {
                for &hash in &hashes {
                    prop_assert_eq!(people.find(hash, false).copied(), map.get(&hash).copied());
                    *people.get(hash) += 1;
                    *map.entry(hash).or_default() += 1;
                }
                let mut ended = BTreeMap::new();
                people.end(|hash, n| { ended.insert(hash, std::mem::take(n)); });
                prop_assert_eq!(&ended, &map);
                map.clear();
            }
        }
    }
}
