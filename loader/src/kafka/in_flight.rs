//! What the reading thread and the lane tell each other: how many batches are under way, and where commits stand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::Slot;

/// Position behind the last committed record, by topic and partition.
type Positions = HashMap<(Arc<str>, i32), i64>;

/// Batches handed to the lane and not yet committed, and the positions of those that are.
#[derive(Debug, Default)]
pub struct InFlight {
    /// The sizes of the batches under way, the oldest first.
    batches: Mutex<VecDeque<usize>>,
    changed: Condvar,
    positions: Mutex<Positions>,
}

impl InFlight {
    /// To be called by the lane for each committed batch.
    pub fn committed(&self, slots: &[Slot]) {
        let mut positions = locked(&self.positions);
        positions.extend(slots.iter().map(|slot| ((slot.topic.clone(), slot.partition), slot.to)));
        drop(positions);
        self.finished();
    }

    /// The oldest batch is not under way any more.
    pub(super) fn finished(&self) {
        locked(&self.batches).pop_front();
        self.changed.notify_all();
    }

    /// One batch of this many bytes more is under way.
    pub(super) fn sent(&self, bytes: usize) {
        locked(&self.batches).push_back(bytes);
    }

    /// The last one was not sent after all.
    pub(super) fn taken_back(&self) {
        locked(&self.batches).pop_back();
        self.changed.notify_all();
    }

    /// How many batches are under way.
    pub(super) fn count(&self) -> usize {
        locked(&self.batches).len()
    }

    /// How many bytes are under way.
    pub(super) fn bytes(&self) -> usize {
        locked(&self.batches).iter().sum()
    }

    /// The positions that moved since the last call.
    pub(super) fn take_positions(&self) -> Positions {
        std::mem::take(&mut locked(&self.positions))
    }

    /// Waits for a commit unless nothing is under way.
    pub(super) fn wait(&self, at_most: Duration) {
        let batches = locked(&self.batches);
        if !batches.is_empty() {
            drop(self.changed.wait_timeout(batches, at_most));
        }
    }
}

/// A panic elsewhere must not become one here: the data behind our locks is valid at every moment.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
