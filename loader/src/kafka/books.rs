//! What the reading thread knows: the partitions it holds with their claims and positions, and the batches that it
//! fills, one for each lane. No I/O, so that the bookkeeping can be tested without a broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::batch::{Pool, RawBatch, RecordKind, Slot};
use crate::event::time::Micros;
use crate::postgres::position::Claim;

/// A record that Kafka delivered, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Epoch of the leader that wrote it.
    pub leader_epoch: Option<i32>,
    /// The broker's or producer's time.
    pub received_at: Option<Micros>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its headers, encoded.
    pub headers: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// In the batch of this lane, as the first one of its partition there.
    First(usize),
    /// In the batch of this lane.
    Yes(usize),
    /// Of a partition that we do not hold, or before our position: nothing to do with us.
    NotOurs,
}

/// Held partitions and the batches being filled.
#[derive(Debug)]
pub struct Books {
    held: HashMap<(Arc<str>, i32), Held>,
    /// One for each lane.
    filling: Vec<Filling>,
    /// Lane and slot of the record before: most records are of the same partition.
    last: (usize, usize),
    /// Where batches have their room from.
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Held {
    /// `from` = `to` = the position behind the last batch handed out.
    slot: Slot,
    lane: usize,
}

/// A batch being filled.
#[derive(Debug, Default)]
pub struct Filling {
    /// What is in it.
    pub batch: RawBatch,
    /// When the first of that came.
    pub since: Option<Instant>,
}

impl Books {
    /// Books for so many lanes, whose batches become about so many bytes large.
    pub fn new(lanes: usize, batch_bytes: usize) -> Self {
        let lanes = lanes.max(1);
        Books::with_pool(lanes, Arc::new(Pool::new(batch_bytes, 2 * lanes)))
    }

    fn with_pool(lanes: usize, pool: Arc<Pool>) -> Self {
        let filling = (0..lanes).map(|_| Filling::default()).collect();
        Books { held: HashMap::new(), filling, last: (0, 0), pool }
    }

    /// Takes up a claimed partition and returns its lane, which stays the same until it is given up: of those with the
    /// fewest partitions the first one.
    pub fn hold(&mut self, topic: &str, topic_id: i32, partition: i32, claim: Claim) -> usize {
        let topic: Arc<str> = topic.into();
        let slot = Slot {
            topic: topic.clone(),
            topic_id,
            partition,
            epoch: claim.epoch,
            run: claim.run,
            from: claim.next_offset,
            to: claim.next_offset,
            leader_epoch: None,
        };
        let key = (topic, partition);
        let lane = match self.held.get(&key) {
            Some(held) => held.lane,
            None => (0..self.filling.len()).min_by_key(|lane| self.partitions_of(*lane)).unwrap_or(0),
        };
        self.held.insert(key, Held { slot, lane });
        lane
    }

    /// Gives a partition up. Its records must have been handed out or discarded before.
    pub fn release(&mut self, topic: &str, partition: i32) {
        self.held.remove(&(topic.into(), partition));
    }

    /// Gives everything up, the batches included.
    pub fn clear(&mut self) {
        *self = Books::with_pool(self.filling.len(), self.pool.clone());
    }

    /// The lane of a partition; `None` if it is not held.
    pub fn lane(&self, topic: &str, partition: i32) -> Option<usize> {
        self.held.get(&(Arc::from(topic), partition)).map(|held| held.lane)
    }

    /// How many partitions a lane has.
    pub fn partitions_of(&self, lane: usize) -> usize {
        self.held.values().filter(|held| held.lane == lane).count()
    }

    /// The position behind everything taken from each partition so far.
    pub fn positions(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let all = self.held.keys();
        all.filter_map(|(topic, partition)| {
            Some((topic.as_ref(), *partition, self.position(topic, *partition)?))
        })
    }

    /// The batch being filled for a lane.
    pub fn filling(&self, lane: usize) -> &Filling {
        &self.filling[lane]
    }

    /// Lane and slot of a partition in the batch of its lane, whose end is to move to `to`; `None` if that is no move
    /// forward. A slot that does not move would be an empty range.
    fn slot(&mut self, topic: &str, partition: i32, to: i64) -> Option<(usize, usize)> {
        let same = |s: &Slot| s.partition == partition && s.topic.as_ref() == topic;
        let forward =
            |books: &Self, (lane, index): (usize, usize)| to > books.filling[lane].batch.slots[index].to;
        if self.filling[self.last.0].batch.slots.get(self.last.1).is_some_and(same) {
            return Some(self.last).filter(|at| forward(self, *at));
        }
        let mut lanes = self.filling.iter().enumerate();
        let found = lanes.find_map(|(lane, f)| Some((lane, f.batch.slots.iter().position(same)?)));
        self.last = match found {
            Some(at) => at,
            None => {
                let held = self.held.get(&(Arc::from(topic), partition)).filter(|held| to > held.slot.to)?;
                let batch = &mut self.filling[held.lane].batch;
                if batch.slots.is_empty() {
                    *batch = RawBatch::with_room_of(&self.pool);
                }
                let slots = &mut batch.slots;
                slots.push(held.slot.clone());
                (held.lane, slots.len() - 1)
            }
        };
        Some(self.last).filter(|at| forward(self, *at))
    }

    /// Copies a record into the batch of its lane; of a value longer than `keep` only the beginning.
    pub fn take(&mut self, record: &Record<'_>, keep: usize) -> Taken {
        let to = record.offset + 1;
        let Some((lane, index)) = self.slot(record.topic, record.partition, to) else {
            return Taken::NotOurs;
        };
        let Filling { batch, since } = &mut self.filling[lane];
        since.get_or_insert_with(Instant::now);
        let slot = &mut batch.slots[index];
        let first = slot.from == slot.to;
        (slot.to, slot.leader_epoch) = (to, record.leader_epoch);
        let kind = if record.value.is_some() { RecordKind::Value } else { RecordKind::Tombstone };
        let value = record.value.unwrap_or_default();
        batch.push(index, record.offset, record.received_at, kind, record.key, record.headers, value, keep);
        batch.leader_epoch_is(record.leader_epoch);
        if first { Taken::First(lane) } else { Taken::Yes(lane) }
    }

    /// Notes that nothing more comes before `offset`: transaction markers and compacted records have offsets too. What
    /// lies directly before it has that leader epoch.
    pub fn reached(&mut self, topic: &str, partition: i32, offset: i64, leader_epoch: Option<i32>) {
        if let Some((lane, index)) = self.slot(topic, partition, offset) {
            let Filling { batch, since } = &mut self.filling[lane];
            since.get_or_insert_with(Instant::now);
            (batch.slots[index].to, batch.slots[index].leader_epoch) = (offset, leader_epoch);
        }
    }

    /// The position behind everything taken from a partition so far; `None` if it is not held.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        let held = self.held.get(&(Arc::from(topic), partition))?;
        let mut slots = self.filling[held.lane].batch.slots.iter();
        let filling = slots.find(|s| s.partition == partition && s.topic.as_ref() == topic);
        Some(filling.unwrap_or(&held.slot).to)
    }

    /// Hands the batch of a lane out and starts the next one where it ends; `None` if there is nothing in it.
    pub fn hand_out(&mut self, lane: usize) -> Option<RawBatch> {
        let Filling { batch, .. } = std::mem::take(&mut self.filling[lane]);
        batch.slots.iter().for_each(|slot| {
            if let Some(held) = self.held.get_mut(&(slot.topic.clone(), slot.partition)) {
                held.slot.from = slot.to;
                held.slot.to = slot.to;
            }
        });
        if batch.is_empty() {
            return None;
        }
        Some(batch)
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn record(partition: i32, offset: i64) -> Record<'static> {
        Record {
            topic: "t",
            partition,
            offset,
            leader_epoch: Some(offset as i32 / 16),
            received_at: None,
            key: None,
            headers: None,
            value: Some(b"{}"),
        }
    }

    fn ranges(batch: &RawBatch) -> Vec<(i32, i64, i64)> {
        batch.slots.iter().map(|s| (s.partition, s.from, s.to)).collect()
    }

    fn leader_epochs(batch: &RawBatch) -> Vec<Option<i32>> {
        batch.slots.iter().map(|s| s.leader_epoch).collect()
    }

    #[test]
    fn ranges_are_contiguous_over_holes_and_batches() {
        let mut books = Books::new(1, 1 << 10);
        books.hold("t", 1, 0, Claim { epoch: 1, next_offset: 10, run: 1 });
        books.hold("t", 1, 1, Claim { epoch: 1, next_offset: 0, run: 1 });
        assert_eq!(books.take(&record(0, 12), 100), Taken::First(0));
        assert_eq!(books.take(&record(1, 0), 100), Taken::First(0));
        assert_eq!(books.take(&record(0, 15), 100), Taken::Yes(0));
        assert_eq!(ranges(&books.hand_out(0).unwrap()), [(0, 10, 16), (1, 0, 1)]);
        assert_eq!(books.take(&record(0, 20), 100), Taken::First(0));
        books.reached("t", 1, 5, None);
        assert_eq!(books.position("t", 1), Some(5));
        let batch = books.hand_out(0).unwrap();
        assert_eq!(ranges(&batch), [(0, 16, 21), (1, 1, 5)]);
        // Of the record before the end, where one was read.
        assert_eq!(leader_epochs(&batch), [Some(1), None]);
        assert!(books.hand_out(0).is_none());
    }

    #[test]
    fn records_before_the_position_or_of_others_are_left_alone() {
        let mut books = Books::new(1, 1 << 10);
        books.hold("t", 1, 0, Claim { epoch: 1, next_offset: 10, run: 1 });
        assert_eq!(books.take(&record(0, 9), 100), Taken::NotOurs);
        assert_eq!(books.take(&record(1, 10), 100), Taken::NotOurs);
        assert!(books.hand_out(0).is_none());
        books.release("t", 0);
        assert_eq!(books.take(&record(0, 10), 100), Taken::NotOurs);
        assert_eq!(books.position("t", 0), None);
    }

    #[test]
    fn each_partition_stays_in_one_lane_and_the_lanes_share_them_evenly() {
        let mut books = Books::new(2, 1 << 10);
        let claim = Claim { epoch: 1, next_offset: 0, run: 1 };
        // As a cooperative assignment may come: every second partition only.
        assert_eq!([0, 2, 4, 6].map(|p| books.hold("t", 1, p, claim)), [0, 1, 0, 1]);
        for partition in [0, 2, 4, 6, 2] {
            let offset = books.position("t", partition).unwrap();
            let lane = partition as usize / 2 % 2;
            let again = (partition, offset) == (2, 1);
            let wanted = if again { Taken::Yes(lane) } else { Taken::First(lane) };
            assert_eq!(books.take(&record(partition, offset), 100), wanted);
        }
        assert!(books.filling(0).since.is_some());
        assert_eq!(ranges(&books.hand_out(0).unwrap()), [(0, 0, 1), (4, 0, 1)]);
        assert!(books.hand_out(0).is_none() && books.filling(0).since.is_none());
        assert_eq!(books.position("t", 2), Some(2));
        // The other lane's batch goes on being filled meanwhile.
        assert_eq!(books.take(&record(0, 1), 100), Taken::First(0));
        assert_eq!(books.take(&record(6, 1), 100), Taken::Yes(1));
        assert_eq!(ranges(&books.hand_out(1).unwrap()), [(2, 0, 2), (6, 0, 2)]);
        assert_eq!(ranges(&books.hand_out(0).unwrap()), [(0, 1, 2)]);
        // Claimed once more it stays where it is; one that comes back goes where room is.
        assert_eq!(books.hold("t", 1, 6, claim), 1);
        books.release("t", 0);
        assert_eq!(books.hold("t", 1, 9, claim), 0);
        assert_eq!((books.lane("t", 9), books.lane("t", 0), books.partitions_of(1)), (Some(0), None, 2));
    }
}
