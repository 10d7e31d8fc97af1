//! How far behind partitions are that nobody reads: while the pipeline is paused or waits to join the group, and those
//! of a lane that has no room. What is read says so itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::Consumer;
use tokio::sync::watch;

use super::{Kafka, record};
use crate::error::Result;
use crate::operations::state::{Now, Shared};

/// How often partitions that are not read are looked at.
const PERIOD: Duration = Duration::from_secs(5);
/// Longest wait for a broker.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Looks until told to stop.
pub async fn watch(kafka: Kafka, state: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let unread = state.with(|state| state.unread(Now::get()));
        if unread.is_empty() {
            continue;
        }
        let (asked, seen) = (kafka.clone(), state.clone());
        let looked = tokio::task::spawn_blocking(move || {
            // One that cannot be looked at hides no other one.
            let topics = unread.chunk_by(|a, b| a.0 == b.0);
            topics.map(|of_topic| asked.look(of_topic, &seen)).fold(Ok(()), Result::and)
        });
        // While the group is left nobody else finds out whether Kafka is there.
        if let Ok(looked) = looked.await {
            state.with(|state| {
                if !state.joined {
                    state.kafka = looked.err().map(|e| e.to_string());
                }
            });
        }
    }
}

impl Kafka {
    /// Looks at partitions of one topic from these positions on. Blocks.
    fn look(&self, unread: &[(Arc<str>, i32, i64)], state: &Shared) -> Result<()> {
        let Some((topic, ..)) = unread.first() else { return Ok(()) };
        let questioner = self.questioner()?;
        let mut ends = HashMap::new();
        let mut behind = Vec::new();
        for (_, partition, from) in unread {
            let (low, high) = questioner
                .fetch_watermarks(topic, *partition, TIMEOUT)
                .map_err(|e| self.explain("cannot read the end of a partition", &e))?;
            ends.insert(*partition, high);
            if (low..high).contains(from) {
                behind.push((*partition, *from));
            }
        }
        let mut first = HashMap::new();
        if !behind.is_empty() {
            // One record is wanted of each, not what a reader fetches ahead.
            let little = [("queued.min.messages", "1"), ("fetch.message.max.bytes", "1024")];
            let reader = self.reader(topic, &behind, &little)?;
            let started = Instant::now();
            while first.len() < behind.len() && started.elapsed() < TIMEOUT {
                if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
                    let received = record::received_at(&message).map(|at| (message.offset(), at));
                    first.entry(message.partition()).or_insert(received);
                }
            }
        }
        state.with(|state| {
            for (_, partition, from) in unread {
                let first = first.get(partition).copied().flatten();
                state.looked(topic, *partition, *from, ends[partition], first);
            }
        });
        Ok(())
    }
}
