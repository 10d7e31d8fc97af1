//! The law of the books: whatever is assigned, revoked, lost, discarded, handed out and committed in whatever order,
//! each record before the position that Postgres holds was loaded once, and none behind it. Two members of a group, and
//! in place of Postgres and Kafka what they promise.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::select;

use super::tests::record;
use super::{Books, Taken};
use crate::batch::RawBatch;
use crate::postgres::position::Claim;

const PARTITIONS: usize = 5;
const LANES: usize = 2;
const MEMBERS: usize = 2;

/// Whether there is a record: transaction markers and compaction leave holes.
fn is_record(partition: usize, offset: i64) -> bool {
    (offset + partition as i64) % 5 != 3
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The group gives the partition to a member, which claims it.
    Assign(usize, usize),
    /// The next offsets are read.
    Read(usize, usize, i64),
    HandOut(usize, usize),
    /// The lane commits its oldest batch, or is told that it may not.
    Commit(usize, usize),
    /// The group takes the partition back, and the member drains the lane.
    Revoke(usize, usize),
    /// The group goes on without a member, which does not know.
    Lose(usize),
    /// It learns that, and forgets what it has read. Batches under way go on.
    Discard(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let (member, partition, lane) = (0..MEMBERS, 0..PARTITIONS, 0..LANES);
    let of_partition = (member.clone(), partition, 1..7i64);
    let of_lane = (member.clone(), lane);
    prop_oneof![
        3 => of_partition.clone().prop_map(|(m, p, _)| Step::Assign(m, p)),
        8 => of_partition.clone().prop_map(|(m, p, n)| Step::Read(m, p, n)),
        4 => of_lane.clone().prop_map(|(m, l)| Step::HandOut(m, l)),
        4 => of_lane.prop_map(|(m, l)| Step::Commit(m, l)),
        1 => of_partition.prop_map(|(m, p, _)| Step::Revoke(m, p)),
        1 => (member, select(&[true, false])).prop_map(|(m, l)| if l { Step::Lose(m) } else { Step::Discard(m) }),
    ]
}

struct Member {
    books: Books,
    under_way: [VecDeque<RawBatch>; LANES],
}

#[derive(Default)]
struct World {
    members: Vec<Member>,
    /// Who has a partition, as the group sees it.
    owner: [Option<usize>; PARTITIONS],
    /// What Postgres holds.
    next: [i64; PARTITIONS],
    epoch: [i64; PARTITIONS],
    loaded: [usize; PARTITIONS],
}

impl World {
    fn new() -> Self {
        let member = || Member { books: Books::new(LANES, 1 << 10), under_way: Default::default() };
        World { members: (0..MEMBERS).map(|_| member()).collect(), ..World::default() }
    }

    fn forget(&mut self, m: usize) {
        self.owner.iter_mut().filter(|owner| **owner == Some(m)).for_each(|owner| *owner = None);
    }

    fn discard(&mut self, m: usize) {
        self.forget(m);
        self.members[m].books.clear();
    }

    fn commit(&mut self, m: usize, lane: usize) {
        let Some(batch) = self.members[m].under_way[lane].pop_front() else { return };
        if batch.slots.iter().any(|s| s.epoch != self.epoch[s.partition as usize]) {
            // Fenced: nothing of it, and the session ends.
            self.members[m].under_way = Default::default();
            self.discard(m);
            return;
        }
        let mut records = vec![0; batch.slots.len()];
        batch.slots_of_records().for_each(|slot| records[slot] += 1);
        for (slot, n) in batch.slots.iter().zip(records) {
            let p = slot.partition as usize;
            assert_eq!(slot.from, self.next[p], "a range does not begin where the one before ends");
            let there = (slot.from..slot.to).filter(|offset| is_record(p, *offset)).count();
            assert_eq!(n, there, "records of partition {p} from {} to {}", slot.from, slot.to);
            self.next[p] = slot.to;
            self.loaded[p] += n;
        }
    }

    fn hand_out(&mut self, m: usize, lane: usize) {
        let member = &mut self.members[m];
        member.under_way[lane].extend(member.books.hand_out(lane));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign(m, p) if self.owner[p].is_none() => {
                // One that was lost learns that before it is given anything anew; with its old batches it is done.
                if self.members[m].books.position("t", p as i32).is_some() {
                    self.discard(m);
                }
                (0..LANES).for_each(|lane| {
                    while !self.members[m].under_way[lane].is_empty() && self.stale(m) {
                        self.commit(m, lane);
                    }
                });
                self.epoch[p] += 1;
                let claim = Claim { epoch: self.epoch[p], next_offset: self.next[p], run: 1 };
                self.members[m].books.hold("t", 1, p as i32, claim);
                self.owner[p] = Some(m);
            }
            Step::Read(m, p, n) => {
                let books = &mut self.members[m].books;
                let Some(from) = books.position("t", p as i32) else {
                    assert_eq!(books.take(&record(p as i32, 0), 100), Taken::NotOurs);
                    return;
                };
                for offset in from..from + n {
                    if is_record(p, offset) {
                        assert_ne!(books.take(&record(p as i32, offset), 100), Taken::NotOurs);
                        assert_eq!(books.take(&record(p as i32, offset), 100), Taken::NotOurs, "twice");
                    }
                }
                books.reached("t", p as i32, from + n, None);
                assert_eq!(books.position("t", p as i32), Some(from + n));
            }
            Step::HandOut(m, lane) => self.hand_out(m, lane),
            Step::Commit(m, lane) => self.commit(m, lane),
            Step::Revoke(m, p) if self.owner[p] == Some(m) => {
                let Some(lane) = self.members[m].books.lane("t", p as i32) else { return };
                self.hand_out(m, lane);
                while !self.members[m].under_way[lane].is_empty() {
                    self.commit(m, lane);
                }
                self.members[m].books.release("t", p as i32);
                self.owner[p] = None;
            }
            Step::Lose(m) => self.forget(m),
            Step::Discard(m) => self.discard(m),
            Step::Assign(..) | Step::Revoke(..) => {}
        }
    }

    /// Whether a member has batches under way of a session that it has given up.
    fn stale(&self, m: usize) -> bool {
        let member = &self.members[m];
        member
            .under_way
            .iter()
            .flatten()
            .flat_map(|batch| &batch.slots)
            .any(|slot| member.books.position("t", slot.partition).is_none())
    }
}

proptest! {
    #[test]
    fn each_record_before_the_position_was_loaded_once(steps in prop::collection::vec(steps(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            for p in 0..PARTITIONS {
                let there = (0..world.next[p]).filter(|offset| is_record(p, *offset)).count();
                prop_assert_eq!(world.loaded[p], there, "partition {}", p);
            }
        }
        // Whatever happened, who holds everything gets on.
        (0..MEMBERS).for_each(|m| (world.members[m].under_way = Default::default(), world.discard(m)).1);
        let before = world.next;
        for p in 0..PARTITIONS {
            world.step(Step::Assign(0, p));
            world.step(Step::Read(0, p, 10));
        }
        for lane in 0..LANES {
            world.step(Step::HandOut(0, lane));
            world.step(Step::Commit(0, lane));
        }
        prop_assert_eq!(world.next, before.map(|next| next + 10));
    }
}
