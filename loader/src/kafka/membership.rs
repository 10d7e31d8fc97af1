//! What happens when Kafka gives partitions to a session or takes them away: who is to be claimed, and draining before a
//! partition is given up. A claim itself is in `claim`, reading in `session`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{DefaultClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::books::Books;
use super::client::read_token;
use super::record;
use super::{Ended, Settings};
use crate::batch::RawBatch;
use crate::operations::state;
use crate::postgres::connection::Kept;

/// How long a rebalance may wait for batches in flight, or for Postgres. Far below max.poll.interval.ms.
pub(super) const DRAIN: Duration = Duration::from_secs(20);

/// How long a question about the ids of topics may hold up the thread that polls.
pub(super) const QUESTION: Duration = Duration::from_secs(2);

/// What the thread and the callbacks of the consumer share.
pub(super) struct Context {
    pub(super) settings: Arc<Settings>,
    pub(super) handle: Handle,
    pub(super) stop: watch::Receiver<bool>,
    /// The connection for claims; lent out while used.
    pub(super) claims: Mutex<Option<Kept>>,
    pub(super) topic_ids: Mutex<HashMap<String, i32>>,
    pub(super) state: Mutex<State>,
    /// The passwords and certificates that the consumer was made with.
    pub(super) credentials: Vec<Option<Vec<u8>>>,
}

pub(super) struct State {
    pub(super) books: Books,
    /// One for each lane.
    pub(super) queues: Vec<Queue>,
    pub(super) ended: Option<Ended>,
    /// The consumer is being closed: partitions go without ceremony.
    pub(super) closing: bool,
    /// Kafka has told us which partitions are ours, and each of them was claimed, at least once.
    pub(super) joined: bool,
    /// When partitions came last.
    pub(super) assigned: Option<Instant>,
    /// Kafka's ids of the topics as they were claimed.
    pub(super) topics: HashMap<String, String>,
}

/// What there is of a lane on this side of its entrance, beside the batch being filled.
pub(super) struct Queue {
    /// Where batches go in; closed when the lane has ended.
    entrance: mpsc::Sender<RawBatch>,
    /// A full batch that the lane had no room for yet.
    pub(super) pending: Option<RawBatch>,
    /// The partitions of the lane are paused.
    pub(super) paused: bool,
    /// All but one that has come since.
    pub(super) incomplete: bool,
    /// Since when the lane can take no more records.
    pub(super) blocked: Option<Instant>,
    /// The brokers that what fills its batch came from.
    pub(super) brokers: BTreeSet<i32>,
}

impl State {
    /// For these lanes, with nothing in them, and batches of about so many bytes.
    pub(super) fn new(lanes: Vec<mpsc::Sender<RawBatch>>, batch_bytes: usize) -> Self {
        let queue = |entrance| Queue {
            entrance,
            pending: None,
            paused: false,
            incomplete: false,
            blocked: None,
            brokers: BTreeSet::new(),
        };
        State {
            books: Books::new(lanes.len(), batch_bytes),
            queues: lanes.into_iter().map(queue).collect(),
            ended: None,
            closing: false,
            joined: false,
            assigned: None,
            topics: HashMap::new(),
        }
    }

    /// Forgets what was read and not handed out; whoever owns the partitions next reads it again.
    pub(super) fn discard(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.pending = None);
        self.books.clear();
    }

    /// Whether a lane has ended.
    pub(super) fn lane_ended(&self) -> bool {
        self.queues.iter().any(|queue| queue.entrance.is_closed())
    }

    /// Ends the session on its next turn; the first reason counts.
    pub(super) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, file: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        read_token(file)
    }

    /// What it says about connections that fail comes as an error as well.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let level = if matches!(facility, "FAIL" | "ERROR") { RDKafkaLogLevel::Debug } else { level };
        DefaultClientContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if locked(&self.state).closing {
            return;
        }
        let codes = [Some(RDKafkaErrorCode::Authentication), Some(RDKafkaErrorCode::SSL)];
        let refused = codes.contains(&error.rdkafka_error_code());
        self.failed(refused, &format!("{error}: {reason}"));
    }

    fn stats(&self, statistics: Statistics) {
        if locked(&self.state).closing {
            return;
        }
        let up = statistics.brokers.values().any(|broker| broker.state == "UP");
        if up && let Some(news) = locked(&self.settings.link).works(Instant::now()) {
            tracing::info!("{news}");
        }
        self.settings.state.with(|state| {
            state.kafka = (!up).then(|| "no broker is connected".to_owned());
            for (topic, t) in &statistics.topics {
                // Up to here a reader of committed records can get. -1 and less: not known yet.
                for (partition, p) in t.partitions.iter().filter(|(_, p)| p.ls_offset >= 0) {
                    state.ends(topic, *partition, p.ls_offset);
                }
            }
        });
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.rebalanced("assign");
                if !locked(&self.state).closing {
                    self.assigned(consumer, tpl);
                }
                // A paused session must not be flooded by new partitions; it pauses them on its next turn.
                if cooperative { consumer.incremental_assign(tpl) } else { consumer.assign(tpl) }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.rebalanced(if consumer.assignment_lost() { "lost" } else { "revoke" });
                self.revoked(consumer, tpl);
                if cooperative { consumer.incremental_unassign(tpl) } else { consumer.unassign() }
            }
            other => {
                self.rebalanced("failed");
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
    fn rebalanced(&self, kind: &'static str) {
        self.settings.state.with(|state| state.tally.rebalanced(kind));
    }

    /// Something failed between us and Kafka, which librdkafka tries again by itself.
    pub(super) fn failed(&self, refused: bool, why: &str) {
        if let Some(news) = locked(&self.settings.link).failed(Instant::now(), refused, why) {
            tracing::warn!("{news}");
        }
    }

    /// Claims what Kafka assigned and sets the offsets to read from. Cooperative rebalances come with empty lists too.
    fn assigned(&self, consumer: &BaseConsumer<Self>, tpl: &mut TopicPartitionList) {
        let partitions: Vec<(String, i32)> =
            tpl.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        let topics: HashSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = match record::topic_ids(consumer.client(), &topics, None, DRAIN) {
            Ok(ids) => ids,
            Err(e) => return locked(&self.state).end(Ended::Restart(format!("cannot ask for topics: {e}"))),
        };
        for (topic, partition) in partitions {
            let id = ids.get(&topic).cloned().flatten();
            if let Some(id) = &id {
                let mut state = locked(&self.state);
                if state.topics.insert(topic.clone(), id.clone()).is_some_and(|known| known != *id) {
                    return state.end(Ended::Restart(format!("topic {topic} was made anew")));
                }
            }
            match self.claim(consumer, &topic, partition, id) {
                Ok((topic_id, claim, leader_epoch, end)) => {
                    let offset = Offset::Offset(claim.next_offset);
                    if let Err(e) = tpl.set_partition_offset(&topic, partition, offset) {
                        locked(&self.state).end(Ended::Restart(format!("cannot set the position: {e}")));
                    }
                    // For librdkafka, which compares it when the leader changes before anything was read.
                    record::set_leader_epoch(tpl, &topic, partition, leader_epoch);
                    tracing::info!(%topic, partition, offset = claim.next_offset, epoch = claim.epoch, "partition claimed");
                    self.settings.state.with(|state| state.hold(&topic, partition, claim, end));
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
        self.settings.state.with(|state| state.joined());
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
            (0..state.queues.len()).filter(|l| lane(&state, *l)).collect()
        };
        if !self.drain(consumer, &concerned, Instant::now() + DRAIN) {
            locked(&self.state).end(Ended::Restart("a rebalance could not wait for Postgres".to_owned()));
        }
        self.tell_kafka(consumer);
        let mut state = locked(&self.state);
        // Whether one that comes back later is still paused then is up to librdkafka, and nobody would resume it.
        if concerned.iter().any(|lane| state.queues[*lane].paused)
            && let Err(e) = consumer.resume(tpl)
        {
            tracing::debug!("cannot resume what is given up: {e}");
        }
        for element in tpl.elements() {
            tracing::info!(topic = element.topic(), partition = element.partition(), "partition given up");
            self.settings.state.with(|s| s.release(element.topic(), element.partition()));
            state.books.release(element.topic(), element.partition());
        }
    }

    /// Sends everything that was read for some lanes and waits for its commit. Returns false at the deadline or when
    /// one of them ended.
    pub(super) fn drain(&self, consumer: &BaseConsumer<Self>, lanes: &[usize], deadline: Instant) -> bool {
        loop {
            self.settings.state.with(|state| state.polled());
            let mut state = locked(&self.state);
            let all_sent = lanes.iter().filter(|lane| self.send(consumer, &mut state, **lane, true)).count()
                == lanes.len();
            let ended = state.ended.is_some() || state.lane_ended();
            drop(state);
            let idle = |s: &state::State| lanes.iter().all(|lane| s.lanes[*lane].batches() == 0);
            if all_sent && self.settings.state.with(|s| idle(s)) {
                return true;
            }
            if ended || Instant::now() > deadline {
                return false;
            }
            if all_sent {
                self.settings.state.wait(Duration::from_millis(100), idle);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The same for all lanes.
    pub(super) fn drain_all(&self, consumer: &BaseConsumer<Self>, deadline: Instant) -> bool {
        let lanes = locked(&self.state).queues.len();
        self.drain(consumer, &(0..lanes).collect::<Vec<_>>(), deadline)
    }

    /// Advisory, for tools that watch lag: our position is in Postgres.
    pub(super) fn tell_kafka(&self, consumer: &BaseConsumer<Self>) {
        let positions = self.settings.state.with(|state| state.take_positions());
        let mut tpl = TopicPartitionList::with_capacity(positions.len());
        for (topic, partition, offset) in &positions {
            if tpl.add_partition_offset(topic, *partition, Offset::Offset(*offset)).is_err() {
                return;
            }
        }
        if tpl.count() > 0
            && let Err(e) = consumer.commit(&tpl, CommitMode::Async)
        {
            tracing::debug!("advisory commit to Kafka failed: {e}");
        }
    }

    /// Hands batches to a lane as far as it has room: the pending one, then with `flush` the one being filled.
    /// Returns whether none is left.
    pub(super) fn send(
        &self,
        consumer: &BaseConsumer<Self>,
        state: &mut State,
        lane: usize,
        flush: bool,
    ) -> bool {
        loop {
            if state.queues[lane].pending.is_none() && flush {
                if !self.proved(consumer, state, lane) {
                    return false;
                }
                state.queues[lane].pending = state.books.hand_out(lane);
            }
            if state.queues[lane].pending.is_none() {
                return true;
            }
            let queue = &mut state.queues[lane];
            let entrance = match queue.entrance.try_reserve() {
                Ok(entrance) => entrance,
                Err(mpsc::error::TrySendError::Full(())) => return false,
                Err(mpsc::error::TrySendError::Closed(())) => {
                    queue.pending = None;
                    state.ended.get_or_insert(Ended::LaneEnded);
                    return true;
                }
            };
            if let Some(batch) = queue.pending.take() {
                self.settings.state.with(|s| s.sent(lane, &batch));
                entrance.send(batch);
            }
        }
    }

    /// Whether what was read for a lane is of the topics that were claimed. An id never comes back: if it is still the
    /// same, everything that came before the question is of that topic. Nothing is handed out that was not proved, so
    /// that no record of a topic that was made anew is ever loaded under a position in the old one.
    fn proved(&self, consumer: &BaseConsumer<Self>, state: &mut State, lane: usize) -> bool {
        let slots = state.books.filling(lane).batch.slots.iter();
        let topics = slots.filter_map(|s| state.topics.get_key_value(s.topic.as_ref()));
        let topics = topics.map(|(name, id)| (name.clone(), id.clone())).collect();
        let brokers = std::mem::take(&mut state.queues[lane].brokers);
        let proved = self.same(consumer, state, &topics, &brokers);
        if !proved {
            state.queues[lane].brokers = brokers;
        }
        proved
    }

    /// Asks whether topics are still those that were claimed; ends the session if they are not. False when nobody
    /// knows.
    pub(super) fn same(
        &self,
        consumer: &BaseConsumer<Self>,
        state: &mut State,
        topics: &HashMap<String, String>,
        brokers: &BTreeSet<i32>,
    ) -> bool {
        match record::made_anew(consumer.client(), topics, brokers, QUESTION) {
            Ok(None) => true,
            Ok(Some(topic)) => {
                state.end(Ended::Restart(format!("topic {topic} was made anew")));
                false
            }
            Err(e) => {
                tracing::debug!("cannot ask for the ids of topics: {e}");
                false
            }
        }
    }
}

/// A panic elsewhere must not become one here: the data behind our locks is valid at every moment.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
