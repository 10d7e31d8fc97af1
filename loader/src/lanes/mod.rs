//! Lanes: from records in memory to committed transactions, several side by side. A lane is one encoder thread and one
//! connection, joined by queues of one batch, so that a batch is encoded while the one before is written. Batches of a
//! lane are committed in the order in which they came: whole, or in parts where one has too many dates or is too much
//! for Postgres.

pub mod sink;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::batch::{Encoder, RawBatch, Slot};
use crate::lanes::sink::{Sink, SinkError};
use crate::operations::tally::Phase;
use crate::postgres::transaction::Written;

/// How often a lane without work looks whether its connection is old.
const IDLE: Duration = Duration::from_secs(60);

/// The entrance of a lane. Dropping `batches` lets the lane finish what it holds and end.
pub struct Lane {
    /// Takes batches; blocks or refuses while the lane is busy.
    pub batches: mpsc::Sender<RawBatch>,
    /// Ends when all batches are committed, or with the first that cannot be.
    pub done: JoinHandle<Result<(), SinkError>>,
}

/// Starts a lane on the current runtime. `committed` hears of each commit.
pub fn start(
    mut sink: Sink,
    mut encoder: Encoder,
    mut committed: impl FnMut(&Written, &[Slot]) + Send + 'static,
) -> Lane {
    let (batches, mut raw) = mpsc::channel::<RawBatch>(1);
    let (encoded, mut ready) = mpsc::channel(1);
    let handle = tokio::runtime::Handle::current();
    let voice = sink.voice.clone();
    let again = encoder.clone();
    tokio::task::spawn_blocking(move || {
        loop {
            // The writer may fail while no batch comes: the entrance must close then, or nobody hears of it.
            let mut next = handle.block_on(async {
                tokio::select! {
                    biased;
                    () = encoded.closed() => None,
                    batch = raw.recv() => batch,
                }
            });
            let ended = next.is_none();
            while let Some(batch) = next {
                let started = Instant::now();
                let mut batch = encoder.encode(batch);
                voice.tell(|state, _| state.tally.phase(Phase::Encode, started.elapsed()));
                next = batch.rest.take();
                if encoded.blocking_send(batch).is_err() {
                    return;
                }
            }
            if ended {
                return;
            }
        }
    });
    let done = tokio::spawn(async move {
        loop {
            let batch = match tokio::time::timeout(IDLE, ready.recv()).await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err(_) => {
                    sink.rest();
                    continue;
                }
            };
            let mut parts = VecDeque::from([batch]);
            while let Some(mut part) = parts.pop_front() {
                match sink.write(&mut part).await {
                    Ok(written) => committed(&written, part.slots()),
                    Err(SinkError::TooMuch(_)) => {
                        let (first, second) = part.halves(&again);
                        second.into_iter().for_each(|second| parts.push_front(second));
                        parts.push_front(first);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    });
    Lane { batches, done }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;
    use crate::event::envelope::Limits;
    use crate::lanes::sink::Patience;

    #[tokio::test]
    async fn a_lane_that_cannot_write_closes_though_no_further_batch_comes() {
        // Nobody listens there.
        let config = crate::postgres::connection::parse_url("postgresql://nobody@127.0.0.1:1/none").unwrap();
        let (_stop, stopped) = watch::channel(false);
        let sink = Sink::new(config, 1, "test".into(), Patience::For(Duration::ZERO), stopped);
        let lane = start(sink, Encoder::new(Limits::default()), |_, _| {});
        let slot = Slot {
            topic: Arc::from("t"),
            topic_id: 1,
            partition: 0,
            epoch: 1,
            run: 1,
            from: 0,
            to: 1,
            leader_epoch: None,
        };
        let mut raw = RawBatch::default();
        raw.slots.push(slot);
        lane.batches.send(raw).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), lane.batches.closed()).await.unwrap();
        assert!(matches!(lane.done.await.unwrap(), Err(SinkError::Fatal(_))));
    }
}
