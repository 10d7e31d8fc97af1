//! One membership in a consumer group, on a thread of its own: fills batches and hands them to the lanes. Position
//! comes from Postgres alone; what is committed to Kafka is for the eyes of other tools. Claims and rebalances are in
//! `membership`.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::End;
use super::books::Taken;
use super::membership::{Context, DRAIN, QUESTION, State, locked};
use super::{Ended, Settings};
use super::{record, topics};
use crate::batch::RawBatch;
use crate::postgres::position;

/// How long a full lane may keep the thread from polling before its partitions are paused. Pausing throws fetched
/// records away, so it must stay rare.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same while there are lanes with room, which get nothing as long as nobody polls.
const PATIENCE_OF_OTHERS: Duration = Duration::from_secs(2);

/// Most records taken before anything else is looked at.
const AT_ONCE: usize = 64;

/// How often a session asks whether its topics are still the same. What is handed out is proved in any case; this is
/// for topics of which nothing comes.
const LOOK: Duration = Duration::from_secs(5);

/// How long nothing must have come before the end of a partition is looked at.
const QUIET: Duration = Duration::from_secs(2);

/// How long to wait until a consumer is closed.
const CLOSE: Duration = Duration::from_secs(5);

/// Joins the group and reads until there is a reason to stop. Blocks; to be called on a thread of its own.
pub fn run(
    settings: Arc<Settings>,
    handle: Handle,
    stop: watch::Receiver<bool>,
    lanes: Vec<mpsc::Sender<RawBatch>>,
) -> Ended {
    let context = Context {
        settings: settings.clone(),
        handle,
        stop,
        state: Mutex::new(State::new(lanes, settings.limits.bytes)),
        claims: Mutex::new(None),
        topic_ids: Mutex::new(HashMap::new()),
        credentials: settings.kafka.credentials(),
    };
    let config = settings.kafka.consumer_config(&settings.group);
    let consumer: BaseConsumer<Context> = match config.create_with_context(context) {
        Ok(consumer) => consumer,
        Err(e) => return Ended::Failed(settings.kafka.explain("cannot start a Kafka consumer", &e)),
    };
    let every = config.get(topics::REFRESH).and_then(|millis| millis.parse().ok()).unwrap_or(30_000);
    let parked = settings.state.with(|state| state.paused_topics.keys().cloned().collect());
    let ended = Session {
        consumer: &consumer,
        cx: consumer.context(),
        parked,
        every: Duration::from_millis(every),
        looked: None,
        subscribed: None,
        headers: Vec::new(),
        quiet: Mutex::new((Instant::now(), Vec::new())),
        last_record: Instant::now(),
    }
    .read();
    // What is in flight may still finish; what was only read is dropped and read again by the next owner.
    {
        let mut state = locked(&consumer.context().state);
        state.closing = true;
        state.discard();
    }
    let cx = consumer.context();
    if matches!(ended, Ended::Stopped | Ended::CaughtUp | Ended::Paused) {
        cx.drain_all(&consumer, Instant::now() + DRAIN);
        cx.tell_kafka(&consumer);
    }
    consumer.unsubscribe();
    locked(&cx.state).queues.clear();
    settings.state.with(|state| state.left());
    close(consumer);
    ended
}

/// librdkafka closes a consumer once the coordinator of the group has answered everything, for which it waits without
/// an end while brokers are away or refuse us.
fn close(consumer: BaseConsumer<Context>) {
    let (closing, closed) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        drop(consumer);
        drop(closing);
    });
    if closed.recv_timeout(CLOSE) == Err(RecvTimeoutError::Timeout) {
        tracing::debug!("Kafka does not answer while a consumer is closed; nobody waits for it any longer");
    }
}

struct Session<'a> {
    consumer: &'a BaseConsumer<Context>,
    cx: &'a Context,
    /// Topics that are paused. When they become others, the group is joined anew.
    parked: BTreeSet<Arc<str>>,
    /// How often to look which topics there are.
    every: Duration,
    /// When that was done last.
    looked: Option<Instant>,
    /// Those that are subscribed to.
    subscribed: Option<BTreeSet<String>>,
    /// Room for the headers of one record.
    headers: Vec<u8>,
    /// Which partitions are behind their ends at which offsets, and since when nothing has changed about that.
    quiet: Mutex<Quiet>,
    /// When the last record came.
    last_record: Instant,
}

type Quiet = (Instant, Vec<(String, i32, i64)>);

/// How to go on.
#[derive(Default)]
struct Turn {
    /// How long to wait for a record.
    wait: Duration,
    /// Do not poll.
    hold: bool,
    pause: Vec<usize>,
    resume: Vec<usize>,
}

impl Session<'_> {
    fn read(&mut self) -> Ended {
        let mut last_check = Instant::now();
        let mut last_look = Instant::now();
        let mut last_question = Instant::now();
        loop {
            let (paused, void, same) = self.cx.settings.state.with(|state| {
                state.polled();
                (state.paused.is_some(), state.void.take(), state.paused_topics.keys().eq(&self.parked))
            });
            if *self.cx.stop.borrow() {
                return Ended::Stopped;
            }
            if paused {
                return Ended::Paused;
            }
            if let Some(why) = void {
                return Ended::Restart(why);
            }
            if !same {
                return Ended::Restart("topics were paused or resumed".to_owned());
            }
            let every = if self.subscribed.is_some() { self.every } else { Duration::from_secs(1) };
            if self.looked.is_none_or(|at| at.elapsed() >= every)
                && let Err(ended) = self.subscribe()
            {
                return ended;
            }
            let turn = match self.turn() {
                Ok(turn) => turn,
                Err(ended) => return ended,
            };
            if last_look.elapsed() >= Duration::from_millis(100) {
                last_look = Instant::now();
                self.tell_books();
            }
            if locked(&self.cx.state).lane_ended() {
                return Ended::LaneEnded;
            }
            if last_question.elapsed() >= LOOK {
                last_question = Instant::now();
                let settings = &self.cx.settings;
                if locked(&settings.link).refused() && settings.kafka.credentials() != self.cx.credentials {
                    let why = "the passwords or certificates for Kafka are other ones now";
                    return Ended::Restart(why.to_owned());
                }
                let mut state = locked(&self.cx.state);
                let topics = state.topics.clone();
                self.cx.same(self.consumer, &mut state, &topics, &BTreeSet::new());
            }
            turn.resume.iter().for_each(|lane| self.pause(*lane, false));
            turn.pause.iter().for_each(|lane| self.pause(*lane, true));
            if turn.hold {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            self.poll(turn.wait);
            if last_check.elapsed() >= Duration::from_millis(200) {
                last_check = Instant::now();
                self.cx.tell_kafka(self.consumer);
                if self.cx.settings.until.is_none() {
                    self.pass_quiet_markers();
                } else if self.caught_up() {
                    return Ended::CaughtUp;
                }
            }
        }
    }

    /// Looks which of the topics there are, and subscribes to these if they are others than before. By name: so patterns
    /// mean the same with every protocol of the group, and to all who ask for topics.
    fn subscribe(&mut self) -> Result<(), Ended> {
        let settings = &self.cx.settings;
        let found = settings.topics.find(self.consumer, QUESTION);
        self.looked = Some(Instant::now());
        let found = match found {
            Ok(found) => found,
            // Those that were there are read meanwhile.
            Err(e) => {
                self.cx.failed(false, &format!("cannot ask for topics: {e}"));
                return Ok(());
            }
        };
        settings
            .state
            .with(|state| state.look_missing(&found.missing))
            .iter()
            .for_each(|n| tracing::warn!("{n}"));
        let mut wanted = found.topics;
        wanted.retain(|topic| !self.parked.contains(topic.as_str()));
        if self.subscribed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let names: Vec<&str> = self.subscribed.insert(wanted).iter().map(String::as_str).collect();
        tracing::info!("reading topics {}", names.join(", "));
        if names.is_empty() {
            self.consumer.unsubscribe();
            // Nobody will tell us that nothing is ours.
            locked(&self.cx.state).joined = true;
            settings.state.with(|state| state.joined());
            return Ok(());
        }
        let failed = |e| Ended::Failed(settings.kafka.explain("cannot subscribe", &e));
        self.consumer.subscribe(&names).map_err(failed)
    }

    /// Takes what is there, but no more than a few records, and none for a lane whose batch has become full.
    fn poll(&mut self, wait: Duration) {
        let mut wait = wait;
        for _ in 0..AT_ONCE {
            match self.consumer.poll(wait) {
                Some(Ok(message)) if self.take(&message) => {}
                Some(Ok(_)) | None => return,
                Some(Err(e)) => return self.failed(&e),
            }
            wait = Duration::ZERO;
        }
    }

    /// Hands out what is due and says how to go on. A lane is blocked when one of its batches waits at the entrance and
    /// the next one is full.
    fn turn(&self) -> Result<Turn, Ended> {
        let limits = self.cx.settings.limits;
        let now = Instant::now();
        let mut state = locked(&self.cx.state);
        let state = &mut *state;
        if let Some(ended) = state.ended.take() {
            return Err(ended);
        }
        let mut turn = Turn { wait: Duration::from_millis(100), ..Turn::default() };
        for lane in 0..state.queues.len() {
            let filling = state.books.filling(lane);
            let full = limits.reached(&filling.batch);
            let age = filling.since.map(|since| now.saturating_duration_since(since));
            let due = full || age.is_some_and(|age| age >= limits.delay);
            let sent = self.cx.send(self.consumer, state, lane, due);
            let wait = age.map_or(turn.wait, |age| limits.delay.saturating_sub(age));
            // A batch that is due but has no room yet must not make this a busy loop.
            let least = Duration::from_millis(if sent { 0 } else { 5 });
            turn.wait = turn.wait.min(wait.max(least));
            let blocked = full && !sent;
            let queue = &mut state.queues[lane];
            if blocked {
                queue.blocked.get_or_insert(now);
            } else {
                queue.blocked = None;
                if queue.paused {
                    turn.resume.push(lane);
                }
            }
        }
        if state.queues.iter().all(|queue| queue.blocked.is_none()) {
            return Ok(turn);
        }
        let has_room =
            |lane: usize| state.queues[lane].blocked.is_none() && state.books.partitions_of(lane) > 0;
        let patience = if (0..state.queues.len()).any(has_room) { PATIENCE_OF_OTHERS } else { PATIENCE };
        for (lane, queue) in state.queues.iter().enumerate() {
            let Some(since) = queue.blocked else { continue };
            if queue.paused {
                turn.pause.extend(queue.incomplete.then_some(lane));
            } else if now.saturating_duration_since(since) < patience {
                // Take no more data; after a while say so to Kafka.
                turn.hold = true;
            } else {
                turn.pause.push(lane);
            }
        }
        Ok(turn)
    }

    /// What was read, for the state that everybody sees.
    fn tell_books(&self) {
        let state = locked(&self.cx.state);
        self.cx.settings.state.with(|seen| {
            for (number, (lane, queue)) in seen.lanes.iter_mut().zip(&state.queues).enumerate() {
                let pending = queue.pending.as_ref().map_or(0, RawBatch::arena_bytes);
                lane.waiting = pending + state.books.filling(number).batch.arena_bytes();
                (lane.partitions, lane.paused) = (state.books.partitions_of(number), queue.paused);
            }
            for (topic, partition, at) in state.books.positions() {
                seen.read(topic, partition, at);
            }
        });
    }

    /// Returns whether there is room for another one.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> bool {
        let record = record::borrow(message, &mut self.headers);
        let limits = self.cx.settings.limits;
        let mut state = locked(&self.cx.state);
        self.last_record = Instant::now();
        let lane = match state.books.take(&record, limits.keep) {
            Taken::NotOurs => return true,
            Taken::Yes(lane) => lane,
            Taken::First(lane) => {
                let (topic, partition, received) = (record.topic, record.partition, record.received_at);
                self.cx.settings.state.with(|s| s.begun(topic, partition, record.offset, received));
                lane
            }
        };
        state.queues[lane].brokers.insert(record::broker(message));
        !limits.reached(&state.books.filling(lane).batch)
    }

    fn failed(&self, error: &KafkaError) {
        let mut state = locked(&self.cx.state);
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => {
                // The claim looks at the watermarks and knows what to do.
                state.end(Ended::Restart("Kafka no longer has the records at our position".to_owned()));
            }
            KafkaError::MessageConsumptionFatal(_) => state.end(Ended::Restart(error.to_string())),
            _ => self.cx.failed(false, &error.to_string()),
        }
    }

    /// Pauses or resumes the partitions of a lane. Those that are paused already may be paused once more.
    fn pause(&self, lane: usize, on: bool) {
        let mut state = locked(&self.cx.state);
        let of_lane = |topic: &str, partition| state.books.lane(topic, partition) == Some(lane);
        let result = self.consumer.assignment().and_then(|assigned| {
            let mut list = TopicPartitionList::new();
            for element in assigned.elements().iter().filter(|e| of_lane(e.topic(), e.partition())) {
                list.add_partition(element.topic(), element.partition());
            }
            if on { self.consumer.pause(&list) } else { self.consumer.resume(&list) }
        });
        match result {
            Ok(()) => {
                state.queues[lane].paused = on;
                state.queues[lane].incomplete = false;
                let what = if on { "reading paused: Postgres is behind" } else { "reading resumed" };
                tracing::info!(lane, "{what}");
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
            let (topic, partition) = (passed.topic(), passed.partition());
            if state.books.position(topic, partition).is_some_and(|at| at < offset) {
                let epoch = record::leader_epoch_in(&positions, topic, partition);
                state.books.reached(topic, partition, offset, epoch);
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
            self.cx.settings.state.with(|state| state.polled());
            let empty = self.cx.settings.kafka.tail_is_empty(topic, *partition, *at, PATIENCE);
            let end = ends.iter().find(|end| end.topic == *topic && end.partition == *partition);
            let mut state = locked(&self.cx.state);
            let same = state.books.position(topic, *partition) == Some(*at);
            match (empty, end) {
                (Some(true), Some(end)) if same => {
                    tracing::info!(%topic, partition, from = at, to = end.high, "no record is left up to the end");
                    state.books.reached(topic, *partition, end.high, None);
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
        if behind || !self.cx.drain_all(self.consumer, Instant::now() + DRAIN) {
            return false;
        }
        let settings = &self.cx.settings;
        self.cx.handle.block_on(async {
            let Ok(client) = self.cx.claims().await else { return false };
            let mut done = true;
            for end in ends {
                let next = position::find(&client, settings.pipeline_id, &end.topic, end.partition).await;
                done &= matches!(next, Ok(Some(next)) if next.next_offset >= end.high);
            }
            *locked(&self.cx.claims) = Some(client);
            done
        })
    }
}
