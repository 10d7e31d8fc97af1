//! What happens when Kafka gives partitions to a session or takes them away: claims in Postgres, the check of the
//! broker's offsets, and draining before a partition is given up. Reading is in `session`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

use super::books::Books;
use super::in_flight::{InFlight, locked};
use super::plan::{Ended, OutOfRange, Settings};
use crate::batch::RawBatch;
use crate::error::{Error, Kind, Result};
use crate::pg_errors::{Class, classify};
use crate::position::{self, Claim};
use crate::{fencing, metrics, pg};

/// How long a rebalance may wait for batches in flight, or for Postgres. Far below max.poll.interval.ms.
pub(super) const DRAIN: Duration = Duration::from_secs(20);
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(10);

/// Where batches go in, as the reading thread sees it.
pub struct Entrance {
    /// Closed when the lane has ended.
    pub batches: mpsc::Sender<RawBatch>,
    /// What went in and is not committed yet.
    pub in_flight: Arc<InFlight>,
}

/// What the thread and the callbacks of the consumer share.
pub(super) struct Context {
    pub(super) settings: Arc<Settings>,
    pub(super) handle: Handle,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) lanes: Vec<Entrance>,
    /// The connection for claims; lent out while used.
    pub(super) claims: Mutex<Option<Client>>,
    pub(super) topic_ids: Mutex<HashMap<String, i32>>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) books: Books,
    pub(super) queues: Vec<Queue>,
    pub(super) ended: Option<Ended>,
    /// The consumer is being closed: partitions go without ceremony.
    pub(super) closing: bool,
    /// Kafka has told us which partitions are ours, and each of them was claimed, at least once.
    pub(super) joined: bool,
    /// When partitions came last.
    pub(super) assigned: Option<Instant>,
}

/// What there is of a lane on this side of its entrance, beside the batch being filled.
#[derive(Default)]
pub(super) struct Queue {
    /// A full batch that the lane had no room for yet.
    pub(super) pending: Option<RawBatch>,
    /// The partitions of the lane are paused.
    pub(super) paused: bool,
    /// All but one that has come since.
    pub(super) incomplete: bool,
    /// Since when the lane can take no more records.
    pub(super) blocked: Option<Instant>,
}

impl State {
    /// For so many lanes, with nothing in them, and batches of about so many bytes.
    pub(super) fn new(lanes: usize, batch_bytes: usize) -> Self {
        State {
            books: Books::new(lanes, batch_bytes),
            queues: (0..lanes).map(|_| Queue::default()).collect(),
            ended: None,
            closing: false,
            joined: false,
            assigned: None,
        }
    }

    /// Forgets what was read and not handed out; whoever owns the partitions next reads it again.
    pub(super) fn discard(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.pending = None);
        self.books.clear();
    }

    /// Ends the session on its next turn; the first reason counts.
    pub(super) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!("Kafka: {error}: {reason}");
    }

    fn stats(&self, statistics: Statistics) {
        for (topic, t) in &statistics.topics {
            for (partition, p) in &t.partitions {
                // Up to here a reader of committed records can get. -1 and less: not known yet.
                if p.ls_offset >= 0 {
                    self.settings.health.ends(topic, *partition, p.ls_offset);
                }
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                metrics::rebalanced("assign");
                if !locked(&self.state).closing {
                    self.assigned(consumer, tpl);
                }
                // A paused session must not be flooded by new partitions; it pauses them on its next turn.
                if cooperative { consumer.incremental_assign(tpl) } else { consumer.assign(tpl) }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                metrics::rebalanced(if consumer.assignment_lost() { "lost" } else { "revoke" });
                self.revoked(consumer, tpl);
                if cooperative { consumer.incremental_unassign(tpl) } else { consumer.unassign() }
            }
            other => {
                metrics::rebalanced("failed");
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
                    self.settings.health.hold(&topic, partition, claim);
                    let mut state = locked(&self.state);
                    let lane = state.books.hold(&topic, topic_id, partition, claim);
                    // It is not paused like the others: a lane that is still blocked pauses all once more.
                    state.queues[lane].incomplete = state.queues[lane].paused;
                }
                // The partition is not held, so that nothing that is still read of it goes anywhere. The others would
                // be claimed for nothing, and each may take as long as this one did.
                Err(ended) => {
                    locked(&self.state).end(ended);
                    return;
                }
            }
        }
        let mut state = locked(&self.state);
        state.joined = true;
        state.assigned = Some(Instant::now());
        drop(state);
        self.settings.health.joined();
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
            self.settings.health.polled();
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
        if settings.end_stuck_writers {
            let ended =
                fencing::end_stuck_writers(&client, pipeline_id, topic, partition, &settings.owner).await?;
            if ended > 0 {
                tracing::warn!(topic, partition, "ended {ended} stuck connections of the owner before");
            }
        }
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
            state.discard();
            state.end(Ended::Restart("the group went on without us".to_owned()));
            return;
        }
        // The other lanes go on.
        let elements = tpl.elements();
        let lane = |state: &State, lane| {
            elements.iter().any(|e| state.books.lane(e.topic(), e.partition()) == Some(lane))
        };
        let concerned: Vec<usize> = {
            let state = locked(&self.state);
            (0..self.lanes.len()).filter(|l| lane(&state, *l)).collect()
        };
        if !self.drain(&concerned, Instant::now() + DRAIN) {
            locked(&self.state).end(Ended::Restart("a rebalance could not wait for Postgres".to_owned()));
        }
        let mut state = locked(&self.state);
        // Whether one that comes back later is still paused then is up to librdkafka, and nobody would resume it.
        if concerned.iter().any(|lane| state.queues[*lane].paused)
            && let Err(e) = consumer.resume(tpl)
        {
            tracing::debug!("cannot resume what is given up: {e}");
        }
        for element in tpl.elements() {
            tracing::info!(topic = element.topic(), partition = element.partition(), "partition given up");
            self.settings.health.release(element.topic(), element.partition());
            state.books.release(element.topic(), element.partition());
        }
    }

    /// Sends everything that was read for some lanes and waits for its commit. Returns false at the deadline or when one
    /// of them ended.
    pub(super) fn drain(&self, lanes: &[usize], deadline: Instant) -> bool {
        loop {
            self.settings.health.polled();
            let mut state = locked(&self.state);
            let all_sent =
                lanes.iter().filter(|lane| self.send(&mut state, **lane, true)).count() == lanes.len();
            drop(state);
            let busy = lanes.iter().map(|lane| &self.lanes[*lane]).find(|lane| lane.in_flight.count() > 0);
            if all_sent && busy.is_none() {
                return true;
            }
            if lanes.iter().any(|lane| self.lanes[*lane].batches.is_closed()) || Instant::now() > deadline {
                return false;
            }
            match busy {
                Some(lane) if all_sent => lane.in_flight.wait(Duration::from_millis(100)),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The same for all lanes.
    pub(super) fn drain_all(&self, deadline: Instant) -> bool {
        self.drain(&(0..self.lanes.len()).collect::<Vec<_>>(), deadline)
    }

    /// Hands batches to a lane as far as it has room: the pending one, then with `flush` the one being filled.
    /// Returns whether none is left.
    pub(super) fn send(&self, state: &mut State, lane: usize, flush: bool) -> bool {
        let entrance = &self.lanes[lane];
        loop {
            if state.queues[lane].pending.is_none() && flush {
                state.queues[lane].pending = state.books.hand_out(lane);
            }
            let Some(batch) = state.queues[lane].pending.take() else { return true };
            entrance.in_flight.sent(batch.arena_bytes());
            if let Err(refused) = entrance.batches.try_send(batch) {
                entrance.in_flight.taken_back();
                state.queues[lane].pending = match refused {
                    mpsc::error::TrySendError::Full(batch) => Some(batch),
                    mpsc::error::TrySendError::Closed(_) => {
                        state.end(Ended::LaneEnded);
                        None
                    }
                };
                return state.queues[lane].pending.is_none();
            }
        }
    }
}
