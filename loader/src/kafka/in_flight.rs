//! What the reading thread and the lane tell each other: how many batches are under way, and where commits stand.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::Slot;

/// Position behind the last committed record, by topic and partition.
type Positions = HashMap<(Arc<str>, i32), i64>;

/// Batches handed to the lane and not yet committed, and the positions of those that are.
#[derive(Debug, Default)]
pub struct InFlight {
    batches: Mutex<usize>,
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

    /// One batch fewer is under way.
    pub(super) fn finished(&self) {
        let mut batches = locked(&self.batches);
        *batches = batches.saturating_sub(1);
        self.changed.notify_all();
    }

    /// One batch more is under way.
    pub(super) fn sent(&self) {
        *locked(&self.batches) += 1;
    }

    /// How many batches are under way.
    pub(super) fn count(&self) -> usize {
        *locked(&self.batches)
    }

    /// The positions that moved since the last call.
    pub(super) fn take_positions(&self) -> Positions {
        std::mem::take(&mut locked(&self.positions))
    }

    /// Waits for a commit unless nothing is under way.
    pub(super) fn wait(&self, at_most: Duration) {
        let batches = locked(&self.batches);
        if *batches > 0 {
            drop(self.changed.wait_timeout(batches, at_most));
        }
    }
}

/// A panic elsewhere must not become one here: the data behind our locks is valid at every moment.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
