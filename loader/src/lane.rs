//! A lane: one encoder thread and one connection, joined by queues of one batch, so that a batch is encoded while the
//! one before is written. Batches of a lane are committed in the order in which they came.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::batch::{Encoder, RawBatch, Slot};
use crate::sink::{Sink, SinkError};
use crate::transaction::Written;

/// The entrance of a lane. Dropping `batches` lets the lane finish what it holds and end.
pub struct Lane {
    /// Takes batches; blocks or refuses while the lane is busy.
    pub batches: mpsc::Sender<RawBatch>,
    /// Ends when all batches are committed, or with the first that cannot be.
    pub done: JoinHandle<Result<(), SinkError>>,
}

/// Starts a lane on the current runtime. `committed` hears of each batch after its commit.
pub fn start(
    mut sink: Sink,
    mut encoder: Encoder,
    mut committed: impl FnMut(&Written, &[Slot]) + Send + 'static,
) -> Lane {
    let (batches, mut raw) = mpsc::channel::<RawBatch>(1);
    let (encoded, mut ready) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        while let Some(batch) = raw.blocking_recv() {
            if encoded.blocking_send(encoder.encode(batch)).is_err() {
                return;
            }
        }
    });
    let done = tokio::spawn(async move {
        while let Some(mut batch) = ready.recv().await {
            let written = sink.write(&mut batch).await?;
            tracing::debug!(
                batch_id = written.batch_id,
                path = ?written.path,
                read = written.counts.read,
                loaded = written.counts.loaded,
                duplicate = written.counts.duplicate,
                dead = written.counts.dead,
                "batch committed"
            );
            committed(&written, batch.slots());
        }
        Ok(())
    });
    Lane { batches, done }
}
