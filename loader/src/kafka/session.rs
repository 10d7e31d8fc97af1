//! One membership in a consumer group, on a thread of its own: claims partitions in Postgres when Kafka assigns them,
//! fills batches, hands them to the lane, and drains before it gives a partition up. Position comes from Postgres
//! alone; what is committed to Kafka is for the eyes of other tools.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Timestamp, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

use super::End;
use super::books::{Books, Record};
use super::in_flight::{InFlight, locked};
use super::plan::{Ended, OutOfRange, Settings};
use crate::batch::RawBatch;
use crate::error::{Error, Kind, Result};
use crate::pg_errors::{Class, classify};
use crate::position::{self, Claim};
use crate::{pg, time};

/// How long a rebalance may wait for batches in flight, or for Postgres. Far below max.poll.interval.ms.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a full lane may keep the thread from polling before partitions are paused. Pausing throws fetched records
/// away, so it must stay rare.
const PATIENCE: Duration = Duration::from_secs(5);
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(10);

struct Context {
    settings: Arc<Settings>,
    handle: Handle,
    stop: watch::Receiver<bool>,
    batches: mpsc::Sender<RawBatch>,
    in_flight: Arc<InFlight>,
    /// The connection for claims; lent out while used.
    claims: Mutex<Option<Client>>,
    topic_ids: Mutex<HashMap<String, i32>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    books: Books,
    /// A full batch that the lane had no room for yet.
    pending: Option<RawBatch>,
    filling_since: Option<Instant>,
    ended: Option<Ended>,
    /// The consumer is being closed: partitions go without ceremony.
    closing: bool,
    paused: bool,
}

impl State {
    fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // Reaching an end is no error, and poll reports it again.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!("Kafka: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                if !locked(&self.state).closing {
                    self.assigned(consumer, tpl);
                }
                // A paused session must not be flooded by new partitions; it pauses them on its next turn.
                if cooperative { consumer.incremental_assign(tpl) } else { consumer.assign(tpl) }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.revoked(consumer, tpl);
                if cooperative { consumer.incremental_unassign(tpl) } else { consumer.unassign() }
            }
            other => {
                tracing::warn!("Kafka reports a failed rebalance: {}", RDKafkaErrorCode::from(other));
                consumer.unassign()
            }
        };
        if let Err(e) = result {
            locked(&self.state).end(Ended::Restart(format!("rebalance failed: {e}")));
        }
    }
}

impl Context {
    /// Claims what Kafka assigned and sets the offsets to read from. Cooperative rebalances come with empty lists too.
    fn assigned(&self, consumer: &BaseConsumer<Self>, tpl: &mut TopicPartitionList) {
        let partitions: Vec<(String, i32)> =
            tpl.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        for (topic, partition) in partitions {
            match self.claim(consumer, &topic, partition) {
                Ok((topic_id, claim)) => {
                    let offset = Offset::Offset(claim.next_offset);
                    if let Err(e) = tpl.set_partition_offset(&topic, partition, offset) {
                        locked(&self.state).end(Ended::Restart(format!("cannot set the position: {e}")));
                    }
                    tracing::info!(%topic, partition, offset = claim.next_offset, epoch = claim.epoch, "partition claimed");
                    let mut state = locked(&self.state);
                    state.books.hold(&topic, topic_id, partition, claim);
                    state.paused = false;
                }
                // The partition is not held, so that nothing that is still read of it goes anywhere.
                Err(ended) => locked(&self.state).end(ended),
            }
        }
    }

    fn claim(
        &self,
        consumer: &BaseConsumer<Self>,
        topic: &str,
        partition: i32,
    ) -> Result<(i32, Claim), Ended> {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, WATERMARK_TIMEOUT)
            .map_err(|e| Ended::Restart(format!("cannot read the offsets of {topic} [{partition}]: {e}")))?;
        let started = Instant::now();
        loop {
            match self.handle.block_on(self.claim_once(topic, partition, low, high)) {
                Ok(Ok(claim)) => return Ok(claim),
                Ok(Err(error)) => return Err(Ended::Failed(error)),
                Err(e) if classify(&e) != Class::Retry => {
                    let what = format!("cannot claim {topic} [{partition}]");
                    return Err(Ended::Failed(pg::explain(&what, &self.settings.postgres, &e)));
                }
                Err(e) if started.elapsed() > DRAIN || *self.stop.borrow() => {
                    let why = pg::full_message(&e);
                    return Err(Ended::Restart(format!("cannot claim {topic} [{partition}]: {why}")));
                }
                Err(e) => {
                    tracing::warn!("cannot claim {topic} [{partition}] yet: {}", pg::full_message(&e));
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        }
    }

    /// The outer error is Postgres's, the inner one is for a person.
    async fn claim_once(
        &self,
        topic: &str,
        partition: i32,
        low: i64,
        high: i64,
    ) -> Result<Result<(i32, Claim)>, tokio_postgres::Error> {
        let settings = &self.settings;
        let lent = locked(&self.claims).take().filter(|c| !c.is_closed());
        let client = match lent {
            Some(client) => client,
            None => pg::connect(&settings.postgres).await?,
        };
        let known = locked(&self.topic_ids).get(topic).copied();
        let topic_id = match known {
            Some(id) => id,
            None => {
                let id = position::topic_id(&client, topic).await?;
                locked(&self.topic_ids).insert(topic.to_owned(), id);
                id
            }
        };
        let pipeline_id = settings.pipeline_id;
        let mut claim = position::claim(&client, pipeline_id, topic, partition, low, &settings.owner).await?;
        if claim.next_offset < low || claim.next_offset > high {
            let (cause, why) = if claim.next_offset < low {
                let lost = low - claim.next_offset;
                (
                    "retention",
                    format!("its {lost} records before offset {low} were deleted before they were loaded"),
                )
            } else {
                ("topic_recreated", format!("it ends at offset {high}, before our position"))
            };
            let to = match settings.out_of_range {
                OutOfRange::Earliest => low,
                OutOfRange::Latest => high,
                OutOfRange::Fail => {
                    return Ok(Err(Error::new(
                        Kind::Config,
                        format!("cannot continue {topic} [{partition}] at offset {}", claim.next_offset),
                        why,
                        "choose --on-offset-out-of-range earliest or latest to go on and note the gap, or another --pipeline",
                    )));
                }
            };
            tracing::warn!(
                "{topic} [{partition}] goes on at offset {to} instead of {}: {why}",
                claim.next_offset
            );
            match position::jump(&client, pipeline_id, topic, partition, claim, to, cause).await? {
                Some(moved) => claim = moved,
                // Somebody claimed it in this very moment; the next advance would be fenced, which restarts us.
                None => tracing::warn!("{topic} [{partition}] was claimed by another loader meanwhile"),
            }
        }
        *locked(&self.claims) = Some(client);
        Ok(Ok((topic_id, claim)))
    }

    /// Drains first: work in flight must not be thrown away by the next owner's claim.
    fn revoked(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) {
        if locked(&self.state).closing || tpl.count() == 0 {
            return;
        }
        if consumer.assignment_lost() {
            // Others may have claimed already: what we hold is theirs, and the fence keeps ours out.
            let mut state = locked(&self.state);
            state.pending = None;
            state.books.clear();
            state.end(Ended::Restart("the group went on without us".to_owned()));
            return;
        }
        if !self.drain(Instant::now() + DRAIN) {
            locked(&self.state).end(Ended::Restart("a rebalance could not wait for Postgres".to_owned()));
        }
        let mut state = locked(&self.state);
        for element in tpl.elements() {
            tracing::info!(topic = element.topic(), partition = element.partition(), "partition given up");
            state.books.release(element.topic(), element.partition());
        }
    }

    /// Sends everything that was read and waits for its commit. Returns false at the deadline or when the lane ended.
    fn drain(&self, deadline: Instant) -> bool {
        loop {
            let mut state = locked(&self.state);
            let sent = self.send(&mut state, true);
            drop(state);
            if sent && self.in_flight.count() == 0 {
                return true;
            }
            if self.batches.is_closed() || Instant::now() > deadline {
                return false;
            }
            if sent {
                self.in_flight.wait(Duration::from_millis(100))
            } else {
                std::thread::sleep(Duration::from_millis(5))
            }
        }
    }

    /// Hands batches to the lane as far as it has room: the pending one, then with `flush` the one being filled.
    /// Returns whether none is left.
    fn send(&self, state: &mut State, flush: bool) -> bool {
        loop {
            if state.pending.is_none() && flush {
                state.filling_since = None;
                state.pending = state.books.hand_out();
            }
            let Some(batch) = state.pending.take() else { return true };
            self.in_flight.sent();
            if let Err(refused) = self.batches.try_send(batch) {
                // Not sent after all.
                self.in_flight.finished();
                state.pending = match refused {
                    mpsc::error::TrySendError::Full(batch) => Some(batch),
                    mpsc::error::TrySendError::Closed(_) => {
                        state.end(Ended::LaneEnded);
                        None
                    }
                };
                return state.pending.is_none();
            }
        }
    }
}

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
    let config = settings.kafka.consumer_config(&settings.group, settings.until.is_some());
    let consumer: BaseConsumer<Context> = match config.create_with_context(context) {
        Ok(consumer) => consumer,
        Err(e) => return Ended::Failed(settings.kafka.explain("cannot start a Kafka consumer", &e)),
    };
    let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
    if let Err(e) = consumer.subscribe(&topics) {
        return Ended::Failed(settings.kafka.explain("cannot subscribe", &e));
    }
    let ended = Session { consumer: &consumer, cx: consumer.context(), headers: Vec::new() }.read();
    // What is in flight may still finish; what was only read is dropped and read again by the next owner.
    {
        let mut state = locked(&consumer.context().state);
        state.closing = true;
        state.pending = None;
        state.books.clear();
    }
    let cx = consumer.context();
    if matches!(ended, Ended::Stopped | Ended::CaughtUp) {
        cx.drain(Instant::now() + DRAIN);
        commit_to_kafka(&consumer, &cx.in_flight, CommitMode::Sync);
    }
    consumer.unsubscribe();
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
}

impl Session<'_> {
    fn read(&mut self) -> Ended {
        let limits = self.cx.settings.limits;
        let mut blocked_since: Option<Instant> = None;
        let mut last_check = Instant::now();
        loop {
            if *self.cx.stop.borrow() {
                return Ended::Stopped;
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
                if self.caught_up() {
                    return Ended::CaughtUp;
                }
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let received_at = match message.timestamp() {
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => time::from_unix_millis(ms),
            Timestamp::NotAvailable => None,
        };
        let headers = message.headers().map(|headers| {
            self.headers.clear();
            for header in headers.iter() {
                put(&mut self.headers, Some(header.key.as_bytes()));
                put(&mut self.headers, header.value);
            }
            self.headers.as_slice()
        });
        let record = Record {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            received_at,
            key: message.key(),
            headers,
            value: message.payload(),
        };
        let mut state = locked(&self.cx.state);
        state.books.take(&record, self.cx.settings.limits.keep);
        state.filling_since.get_or_insert_with(Instant::now);
    }

    fn failed(&self, error: &KafkaError) {
        let mut state = locked(&self.cx.state);
        match error {
            KafkaError::PartitionEOF(partition) => {
                // The event does not name its topic. Markers of transactions have offsets but are never delivered,
                // so the end is reached although our position may lie before it.
                let ends = self.cx.settings.until.iter().flatten().filter(|end| {
                    end.partition == *partition
                        && state.books.position(&end.topic, end.partition).is_some_and(|at| at < end.high)
                });
                let ends: Vec<&End> = ends.collect();
                if let [end] = ends.as_slice() {
                    state.books.reached(&end.topic, end.partition, end.high);
                    state.filling_since.get_or_insert_with(Instant::now);
                }
            }
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
        if state.paused == on {
            return;
        }
        let result = self
            .consumer
            .assignment()
            .and_then(|tpl| if on { self.consumer.pause(&tpl) } else { self.consumer.resume(&tpl) });
        match result {
            Ok(()) => {
                state.paused = on;
                tracing::info!(
                    "{}",
                    if on { "reading paused: Postgres is behind" } else { "reading resumed" }
                );
            }
            Err(e) => state.end(Ended::Restart(format!("cannot pause or resume: {e}"))),
        }
    }

    /// Whether all wanted ends are committed, by us or by other members of the group.
    fn caught_up(&self) -> bool {
        let Some(ends) = &self.cx.settings.until else { return false };
        let state = locked(&self.cx.state);
        let ours = ends
            .iter()
            .all(|end| state.books.position(&end.topic, end.partition).is_none_or(|at| at >= end.high));
        drop(state);
        if !ours || !self.cx.drain(Instant::now() + DRAIN) {
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

/// Length and bytes; -1 stands for no bytes.
fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let len = bytes.map_or(-1, |b| i32::try_from(b.len()).unwrap_or(i32::MAX));
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}
