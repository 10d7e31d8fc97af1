//! What the reading thread knows: the partitions it holds with their claims and positions, and the batch that it
//! fills. No I/O, so that the bookkeeping can be tested without a broker.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::{RawBatch, RecordKind, Slot};
use crate::position::Claim;
use crate::time::Micros;

/// A record that Kafka delivered, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
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
    /// In the batch.
    Yes,
    /// Of a partition that we do not hold, or before our position: nothing to do with us.
    NotOurs,
}

/// Held partitions and the batch being filled.
#[derive(Debug, Default)]
pub struct Books {
    /// A slot for each partition held, `from` = `to` = the position behind the last batch handed out.
    held: HashMap<(Arc<str>, i32), Slot>,
    batch: RawBatch,
    last_slot: usize,
}

impl Books {
    /// Takes up a claimed partition.
    pub fn hold(&mut self, topic: &str, topic_id: i32, partition: i32, claim: Claim) {
        let topic: Arc<str> = topic.into();
        let slot = Slot {
            topic: topic.clone(),
            topic_id,
            partition,
            epoch: claim.epoch,
            run: claim.run,
            from: claim.next_offset,
            to: claim.next_offset,
        };
        self.held.insert((topic, partition), slot);
    }

    /// Gives a partition up. Its records must have been handed out or discarded before.
    pub fn release(&mut self, topic: &str, partition: i32) {
        self.held.remove(&(topic.into(), partition));
    }

    /// Gives everything up, the batch included.
    pub fn clear(&mut self) {
        *self = Books::default();
    }

    /// Whether the partition is held.
    pub fn holds(&self, topic: &str, partition: i32) -> bool {
        self.held.contains_key(&(Arc::from(topic), partition))
    }

    /// The batch being filled.
    pub fn batch(&self) -> &RawBatch {
        &self.batch
    }

    /// The slot of a partition in the batch, whose end is to move to `to`; `None` if that is no move forward. A slot
    /// that does not move would be an empty range.
    fn slot(&mut self, topic: &str, partition: i32, to: i64) -> Option<usize> {
        let same = |s: &Slot| s.partition == partition && s.topic.as_ref() == topic;
        if self.batch.slots.get(self.last_slot).is_some_and(same) {
            return Some(self.last_slot).filter(|i| to > self.batch.slots[*i].to);
        }
        let index = match self.batch.slots.iter().position(same) {
            Some(index) => index,
            None => {
                let held = self.held.get(&(Arc::from(topic), partition)).filter(|s| to > s.to)?;
                self.batch.slots.push(held.clone());
                self.batch.slots.len() - 1
            }
        };
        self.last_slot = index;
        Some(index).filter(|i| to > self.batch.slots[*i].to)
    }

    /// Copies a record into the batch; of a value longer than `keep` only the beginning.
    pub fn take(&mut self, record: &Record<'_>, keep: usize) -> Taken {
        let to = record.offset + 1;
        let Some(index) = self.slot(record.topic, record.partition, to) else { return Taken::NotOurs };
        self.batch.slots[index].to = to;
        let kind = if record.value.is_some() { RecordKind::Value } else { RecordKind::Tombstone };
        let value = record.value.unwrap_or_default();
        self.batch.push(
            index,
            record.offset,
            record.received_at,
            kind,
            record.key,
            record.headers,
            value,
            keep,
        );
        Taken::Yes
    }

    /// Notes that nothing more comes before `offset`: transaction markers and compacted records have offsets too.
    pub fn reached(&mut self, topic: &str, partition: i32, offset: i64) {
        if let Some(index) = self.slot(topic, partition, offset) {
            self.batch.slots[index].to = offset;
        }
    }

    /// The position behind everything taken from a partition so far; `None` if it is not held.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        let filling = self.batch.slots.iter().find(|s| s.partition == partition && s.topic.as_ref() == topic);
        filling.or_else(|| self.held.get(&(Arc::from(topic), partition))).map(|s| s.to)
    }

    /// Hands the batch out and starts the next one where it ends; `None` if there is nothing in it.
    pub fn hand_out(&mut self) -> Option<RawBatch> {
        let batch = std::mem::take(&mut self.batch);
        self.last_slot = 0;
        batch.slots.iter().for_each(|slot| {
            if let Some(held) = self.held.get_mut(&(slot.topic.clone(), slot.partition)) {
                held.from = slot.to;
                held.to = slot.to;
            }
        });
        if batch.is_empty() {
            return None;
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64) -> Record<'static> {
        Record {
            topic: "t",
            partition,
            offset,
            received_at: None,
            key: None,
            headers: None,
            value: Some(b"{}"),
        }
    }

    fn ranges(batch: &RawBatch) -> Vec<(i32, i64, i64)> {
        batch.slots.iter().map(|s| (s.partition, s.from, s.to)).collect()
    }

    #[test]
    fn ranges_are_contiguous_over_holes_and_batches() {
        let mut books = Books::default();
        books.hold("t", 1, 0, Claim { epoch: 1, next_offset: 10, run: 1 });
        books.hold("t", 1, 1, Claim { epoch: 1, next_offset: 0, run: 1 });
        assert_eq!(books.take(&record(0, 12), 100), Taken::Yes);
        assert_eq!(books.take(&record(1, 0), 100), Taken::Yes);
        assert_eq!(books.take(&record(0, 15), 100), Taken::Yes);
        assert_eq!(ranges(&books.hand_out().unwrap()), [(0, 10, 16), (1, 0, 1)]);
        assert_eq!(books.take(&record(0, 20), 100), Taken::Yes);
        books.reached("t", 1, 5);
        assert_eq!(books.position("t", 1), Some(5));
        assert_eq!(ranges(&books.hand_out().unwrap()), [(0, 16, 21), (1, 1, 5)]);
        assert!(books.hand_out().is_none());
    }

    #[test]
    fn records_before_the_position_or_of_others_are_left_alone() {
        let mut books = Books::default();
        books.hold("t", 1, 0, Claim { epoch: 1, next_offset: 10, run: 1 });
        assert_eq!(books.take(&record(0, 9), 100), Taken::NotOurs);
        assert_eq!(books.take(&record(1, 10), 100), Taken::NotOurs);
        assert!(books.hand_out().is_none());
        books.release("t", 0);
        assert_eq!(books.take(&record(0, 10), 100), Taken::NotOurs);
        assert_eq!(books.position("t", 0), None);
    }
}
