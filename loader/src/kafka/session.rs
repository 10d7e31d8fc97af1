//! One membership in a consumer group, on a thread of its own: fills batches and hands them to the lane. Position comes
//! from Postgres alone; what is committed to Kafka is for the eyes of other tools. Claims and rebalances are in
//! `membership`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::End;
use super::in_flight::{InFlight, locked};
use super::membership::{Context, DRAIN, State};
use super::plan::{Ended, Settings};
use super::record;
use crate::batch::RawBatch;
use crate::{pg, position};

/// How long a full lane may keep the thread from polling before partitions are paused. Pausing throws fetched records
/// away, so it must stay rare.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing must have come before the end of a partition is looked at.
const QUIET: Duration = Duration::from_secs(2);

/// Joins the group and reads until there is a reason to stop. Blocks; to be called on a thread of its own.
pub fn run(
    settings: Arc<Settings>,
    handle: Handle,
    stop: watch::Receiver<bool>,
    batches: mpsc::Sender<RawBatch>,
    in_flight: Arc<InFlight>,
) -> Ended {
    let context = Context {
        settings: settings.clone(),
        handle,
        stop,
        batches,
        in_flight,
        claims: Mutex::new(None),
        topic_ids: Mutex::new(HashMap::new()),
        state: Mutex::new(State::default()),
    };
    let config = settings.kafka.consumer_config(&settings.group);
    let consumer: BaseConsumer<Context> = match config.create_with_context(context) {
        Ok(consumer) => consumer,
        Err(e) => return Ended::Failed(settings.kafka.explain("cannot start a Kafka consumer", &e)),
    };
    let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
    if let Err(e) = consumer.subscribe(&topics) {
        return Ended::Failed(settings.kafka.explain("cannot subscribe", &e));
    }
    let ended = Session {
        consumer: &consumer,
        cx: consumer.context(),
        headers: Vec::new(),
        quiet: Mutex::new((Instant::now(), Vec::new())),
        last_record: Instant::now(),
    }
    .read();
    // What is in flight may still finish; what was only read is dropped and read again by the next owner.
    {
        let mut state = locked(&consumer.context().state);
        state.closing = true;
        state.pending = None;
        state.books.clear();
    }
    let cx = consumer.context();
    if matches!(ended, Ended::Stopped | Ended::CaughtUp | Ended::Paused) {
        cx.drain(Instant::now() + DRAIN);
        commit_to_kafka(&consumer, &cx.in_flight, CommitMode::Sync);
    }
    consumer.unsubscribe();
    cx.settings.health.left();
    ended
}

/// Advisory, for tools that watch lag: our position is in Postgres.
fn commit_to_kafka(consumer: &BaseConsumer<Context>, in_flight: &InFlight, mode: CommitMode) {
    let positions = in_flight.take_positions();
    if positions.is_empty() {
        return;
    }
    let mut tpl = TopicPartitionList::with_capacity(positions.len());
    for ((topic, partition), offset) in &positions {
        if tpl.add_partition_offset(topic, *partition, Offset::Offset(*offset)).is_err() {
            return;
        }
    }
    if let Err(e) = consumer.commit(&tpl, mode) {
        tracing::debug!("advisory commit to Kafka failed: {e}");
    }
}

struct Session<'a> {
    consumer: &'a BaseConsumer<Context>,
    cx: &'a Context,
    /// Room for the headers of one record.
    headers: Vec<u8>,
    /// Which partitions are behind their ends at which offsets, and since when nothing has changed about that.
    quiet: Mutex<Quiet>,
    /// When the last record came.
    last_record: Instant,
}

type Quiet = (Instant, Vec<(String, i32, i64)>);

impl Session<'_> {
    fn read(&mut self) -> Ended {
        let limits = self.cx.settings.limits;
        let mut blocked_since: Option<Instant> = None;
        let mut last_check = Instant::now();
        loop {
            let health = &self.cx.settings.health;
            health.polled();
            if *self.cx.stop.borrow() {
                return Ended::Stopped;
            }
            if health.paused().is_some() {
                return Ended::Paused;
            }
            let (full, wait) = {
                let mut state = locked(&self.cx.state);
                if let Some(ended) = state.ended.take() {
                    return ended;
                }
                let batch = state.books.batch();
                let full = batch.len() >= limits.rows || batch.arena_bytes() >= limits.bytes;
                let age = state.filling_since.map(|since| since.elapsed());
                let due = full || age.is_some_and(|age| age >= limits.delay);
                let sent = self.cx.send(&mut state, due);
                let waiting = state.pending.as_ref().map_or(0, RawBatch::arena_bytes);
                health.buffered(state.books.batch().arena_bytes() + waiting + self.cx.in_flight.bytes());
                let wait = age.map_or(Duration::from_millis(100), |age| limits.delay.saturating_sub(age));
                // A batch that is due but has no room yet must not make this a busy loop.
                let least = Duration::from_millis(if sent { 0 } else { 5 });
                (full && !sent, wait.clamp(least, Duration::from_millis(100)))
            };
            if self.cx.batches.is_closed() {
                return Ended::LaneEnded;
            }
            if full {
                // One batch waits and the next one is full: take no more data, and after a while say so to Kafka.
                let since = *blocked_since.get_or_insert_with(Instant::now);
                if since.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                self.pause(true);
            } else if blocked_since.take().is_some_and(|since| since.elapsed() >= PATIENCE) {
                self.pause(false);
            }
            match self.consumer.poll(wait) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(e)) => self.failed(&e),
                None => {}
            }
            if last_check.elapsed() >= Duration::from_millis(200) {
                last_check = Instant::now();
                commit_to_kafka(self.consumer, &self.cx.in_flight, CommitMode::Async);
                if self.cx.settings.until.is_none() {
                    self.pass_quiet_markers();
                } else if self.caught_up() {
                    return Ended::CaughtUp;
                }
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let record = record::borrow(message, &mut self.headers);
        let mut state = locked(&self.cx.state);
        self.last_record = Instant::now();
        state.books.take(&record, self.cx.settings.limits.keep);
        state.filling_since.get_or_insert_with(Instant::now);
    }

    fn failed(&self, error: &KafkaError) {
        let mut state = locked(&self.cx.state);
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => {
                // The claim looks at the watermarks and knows what to do.
                state.end(Ended::Restart("Kafka no longer has the records at our position".to_owned()));
            }
            KafkaError::MessageConsumptionFatal(_) => state.end(Ended::Restart(error.to_string())),
            _ => tracing::warn!("Kafka: {error}"),
        }
    }

    fn pause(&self, on: bool) {
        let mut state = locked(&self.cx.state);
        // A rebalance while paused clears the flag although the older partitions still are: resume in any case.
        if on && state.paused {
            return;
        }
        let result = self
            .consumer
            .assignment()
            .and_then(|tpl| if on { self.consumer.pause(&tpl) } else { self.consumer.resume(&tpl) });
        match result {
            Ok(()) => {
                state.paused = on;
                self.cx.settings.health.reading_paused(on);
                tracing::info!(
                    "{}",
                    if on { "reading paused: Postgres is behind" } else { "reading resumed" }
                );
            }
            Err(e) => state.end(Ended::Restart(format!("cannot pause or resume: {e}"))),
        }
    }

    /// Markers of transactions have offsets but are never delivered, so behind the last one our position lies before
    /// the end. The consumer's own position passes them; all that it has passed was delivered and is in the books.
    fn pass_markers(&self, state: &mut State) {
        let Ok(positions) = self.consumer.position() else { return };
        for passed in positions.elements() {
            let Offset::Offset(offset) = passed.offset() else { continue };
            if state.books.position(passed.topic(), passed.partition()).is_some_and(|at| at < offset) {
                state.books.reached(passed.topic(), passed.partition(), offset);
                state.filling_since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// In a run without an end: passes markers behind which nothing comes, or there would be a lag for ever.
    fn pass_quiet_markers(&self) {
        let mut state = locked(&self.cx.state);
        // A partition that comes back has no position in the consumer until something of it was delivered; it has time
        // to forget the old one.
        let quiet = self.last_record.elapsed().min(state.assigned.map_or(Duration::ZERO, |at| at.elapsed()));
        if quiet >= QUIET {
            self.pass_markers(&mut state);
        }
    }

    /// Compaction leaves no record at the end of a partition, and nothing tells our position about that. Once nothing
    /// has come for a while, a second reader looks whether anything is there. Returns whether all ends are reached.
    fn pass_empty_tails(&self, ends: &[End], lagging: &[(String, i32, i64)]) -> bool {
        let mut quiet = locked(&self.quiet);
        if quiet.1 != lagging {
            *quiet = (Instant::now(), lagging.to_vec());
        }
        if quiet.0.elapsed() < QUIET {
            return false;
        }
        quiet.0 = Instant::now();
        let mut all = true;
        for (topic, partition, at) in lagging {
            let empty = self.cx.settings.kafka.tail_is_empty(topic, *partition, *at, PATIENCE);
            let end = ends.iter().find(|end| end.topic == *topic && end.partition == *partition);
            let mut state = locked(&self.cx.state);
            let same = state.books.position(topic, *partition) == Some(*at);
            match (empty, end) {
                (Some(true), Some(end)) if same => {
                    tracing::info!(%topic, partition, from = at, to = end.high, "no record is left up to the end");
                    state.books.reached(topic, *partition, end.high);
                    state.filling_since.get_or_insert_with(Instant::now);
                }
                _ => all = false,
            }
        }
        all
    }

    /// Whether all wanted ends are committed, by us or by other members of the group. Not before each partition that
    /// Kafka gave us was claimed: the claim is what notices that a topic was recreated or has lost records.
    fn caught_up(&self) -> bool {
        let Some(ends) = &self.cx.settings.until else { return false };
        let mut state = locked(&self.cx.state);
        if state.ended.is_some() || !state.joined {
            return false;
        }
        let behind = |state: &State| {
            ends.iter()
                .any(|end| state.books.position(&end.topic, end.partition).is_some_and(|at| at < end.high))
        };
        if behind(&state) {
            self.pass_markers(&mut state);
        }
        let lagging: Vec<(String, i32, i64)> = ends
            .iter()
            .filter_map(|end| {
                let at = state.books.position(&end.topic, end.partition).filter(|at| *at < end.high)?;
                Some((end.topic.clone(), end.partition, at))
            })
            .collect();
        drop(state);
        let behind = !lagging.is_empty() && !self.pass_empty_tails(ends, &lagging);
        if behind || !self.cx.drain(Instant::now() + DRAIN) {
            return false;
        }
        let settings = &self.cx.settings;
        let lent = locked(&self.cx.claims).take();
        self.cx.handle.block_on(async {
            let client = match lent.filter(|c| !c.is_closed()) {
                Some(client) => client,
                None => match pg::connect(&settings.postgres).await {
                    Ok(client) => client,
                    Err(_) => return false,
                },
            };
            let mut done = true;
            for end in ends {
                let next =
                    position::next_offset(&client, settings.pipeline_id, &end.topic, end.partition).await;
                done &= matches!(next, Ok(Some(next)) if next >= end.high);
            }
            *locked(&self.cx.claims) = Some(client);
            done
        })
    }
}
