//! What a running loader knows about itself: one plain tree, written by the reading thread, the lanes and the task that
//! watches the pipeline. What is said of it are functions of the tree and a moment, in `health` and `metrics`. No I/O.

mod topics;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::topics::PausedTopic;
use crate::batch::{Batch, Counts, RawBatch};
use crate::event::time::{self, Micros};
use crate::operations::tally::Tally;
use crate::postgres::position::{Claim, Holding};
use crate::postgres::transaction::Written;

/// A moment, by the clock that nobody sets, and by the one that records are dated by.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For how long something lasts.
    pub clock: Instant,
    /// For the age of a record.
    pub time: Micros,
}

impl Now {
    /// This moment.
    pub fn get() -> Self {
        Now { clock: Instant::now(), time: time::now() }
    }
}

/// A partition: ours, or the one that was ours until the group was left.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Epoch of our claim.
    pub epoch: i64,
    /// Whether we are still to read it.
    pub held: bool,
    /// First offset not read.
    pub read: i64,
    /// First offset not committed, as far as we were told.
    pub committed: i64,
    /// `loader.offsets.next_offset` when it was last looked at: what Postgres holds.
    pub next: Option<i64>,
    /// Where a reader of committed records gets to.
    pub end: i64,
    /// Offset and receipt of the first record of each batch that is not committed.
    waiting: VecDeque<(i64, Micros)>,
    /// Since when there is something to load of which nothing was read yet.
    noticed: Option<Micros>,
    /// Position that Kafka was told.
    told: i64,
}

impl Partition {
    /// Offsets not committed yet.
    pub fn lag(&self) -> i64 {
        (self.end.max(self.read) - self.committed).max(0)
    }

    /// Age of the oldest record that is not committed; 0 when there is none.
    pub fn lag_seconds(&self, now: Now) -> f64 {
        let oldest = self.waiting.front().map(|(_, received)| *received).or(self.noticed);
        oldest.map_or(0.0, |since| ((now.time - since) as f64 / 1e6).max(0.0))
    }

    /// After each change.
    fn settle(&mut self, now: Micros) {
        while self.waiting.front().is_some_and(|(offset, _)| *offset < self.committed) {
            self.waiting.pop_front();
        }
        let unknown = self.waiting.is_empty() && self.lag() > 0;
        self.noticed = unknown.then(|| self.noticed.unwrap_or(now));
    }
}

/// What went wrong in a lane last, until its next commit.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What Postgres said.
    pub error: String,
    /// When.
    pub at: Micros,
    /// How often in a row.
    pub times: u32,
    /// How long it waits before it tries again.
    pub backoff: Duration,
}

/// A lane.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    /// Partitions that are its own.
    pub partitions: usize,
    /// Bytes of records that were read for it and not handed to it yet.
    pub waiting: usize,
    /// Its partitions are paused.
    pub paused: bool,
    /// Sizes of the batches that it was given and has not committed, the oldest first.
    in_flight: VecDeque<usize>,
    /// Since when it works on the oldest of them.
    since: Option<Instant>,
    /// Number and time of its last commit.
    pub last: Option<(i64, Micros)>,
    /// Why it is not getting on.
    pub trouble: Option<Trouble>,
}

impl Lane {
    /// Batches given to it and not committed.
    pub fn batches(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of records that were read for it and are not committed.
    pub fn bytes(&self) -> usize {
        self.waiting + self.in_flight.iter().sum::<usize>()
    }

    /// For how long it has worked on its oldest batch.
    pub fn oldest(&self, now: Now) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.clock.saturating_duration_since(since))
    }
}

/// A topic since the process started.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// Records handed to lanes, those included that were given up and read again.
    pub consumed: u64,
    /// How they ended.
    pub counts: Counts,
    /// Dead letters by reason.
    pub dead: BTreeMap<&'static str, u64>,
}

/// Everything there is to know.
#[derive(Clone, Debug)]
pub struct State {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Who we are.
    pub owner: String,
    /// When the process started.
    pub started: Instant,
    polled: Instant,
    /// Kafka has told us which partitions are ours.
    pub joined: bool,
    /// Why the pipeline is paused.
    pub paused: Option<String>,
    /// Why Postgres does not answer.
    pub postgres: Option<String>,
    /// Why Kafka does not answer.
    pub kafka: Option<String>,
    /// Why our claims are void.
    pub void: Option<String>,
    /// Topics that are wanted and cannot be read, and patterns that none matches, each with why.
    pub missing: BTreeMap<String, String>,
    /// By name.
    pub paused_topics: BTreeMap<Arc<str>, PausedTopic>,
    /// Lanes in their order.
    pub lanes: Vec<Lane>,
    /// By topic and number.
    pub partitions: BTreeMap<(Arc<str>, i32), Partition>,
    /// By name.
    pub topics: BTreeMap<Arc<str>, Topic>,
    /// What only goes up.
    pub tally: Tally,
}

impl State {
    /// Of a process that has just started.
    pub fn new(pipeline: &str, owner: &str) -> Self {
        let now = Instant::now();
        State {
            pipeline: pipeline.to_owned(),
            owner: owner.to_owned(),
            started: now,
            polled: now,
            joined: false,
            paused: None,
            postgres: None,
            kafka: None,
            void: None,
            missing: BTreeMap::new(),
            paused_topics: BTreeMap::new(),
            lanes: Vec::new(),
            partitions: BTreeMap::new(),
            topics: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// The reading thread, or whoever waits in its place, is alive.
    pub fn polled(&mut self) {
        self.polled = Instant::now();
    }

    /// How long nobody has said so.
    pub fn silence(&self, now: Now) -> Duration {
        now.clock.saturating_duration_since(self.polled)
    }

    /// A session begins, with so many lanes.
    pub fn begin(&mut self, lanes: usize) {
        self.void = None;
        self.lanes.resize(lanes, Lane::default());
    }

    /// It has ended, and its lanes have given up what they had in hand.
    pub fn ended(&mut self) {
        self.lanes.iter_mut().for_each(|lane| *lane = Lane { last: lane.last, ..Lane::default() });
    }

    /// We are no member of the group any more, and what was only read is forgotten. The partitions stay until we are
    /// told which are ours: what nobody reads falls behind all the same.
    pub fn left(&mut self) {
        self.joined = false;
        self.lanes.iter_mut().for_each(|lane| (lane.partitions, lane.waiting, lane.paused) = (0, 0, false));
        self.partitions.values_mut().for_each(|held| held.held = false);
    }

    /// We have claimed a partition that ends there.
    pub fn hold(&mut self, topic: &str, partition: i32, claim: Claim, end: i64) {
        let topic: Arc<str> = topic.into();
        self.topics.entry(topic.clone()).or_default();
        let next = claim.next_offset;
        let mut held = Partition {
            epoch: claim.epoch,
            held: true,
            read: next,
            committed: next,
            next: Some(next),
            end,
            waiting: VecDeque::new(),
            noticed: None,
            told: next,
        };
        held.settle(time::now());
        self.partitions.insert((topic, partition), held);
    }

    /// Kafka has told us which partitions are ours, and all were claimed.
    pub fn joined(&mut self) {
        self.joined = true;
        let paused = &self.paused_topics;
        self.partitions.retain(|(topic, _), held| held.held || paused.contains_key(topic));
    }

    /// Others read a partition from now on.
    pub fn release(&mut self, topic: &str, partition: i32) {
        self.partitions.remove(&(topic.into(), partition));
    }

    fn partition(&mut self, topic: &str, partition: i32, change: impl FnOnce(&mut Partition)) {
        if let Some(held) = self.partitions.get_mut(&(topic.into(), partition)) {
            change(held);
            held.settle(time::now());
        }
    }

    /// The first record of a batch came.
    pub fn begun(&mut self, topic: &str, partition: i32, offset: i64, received: Option<Micros>) {
        self.partition(topic, partition, |held| {
            held.read = held.read.max(offset + 1);
            held.waiting.push_back((offset, received.unwrap_or_else(time::now)));
        });
    }

    /// Everything before this offset was read.
    pub fn read(&mut self, topic: &str, partition: i32, to: i64) {
        self.partition(topic, partition, |held| held.read = held.read.max(to));
    }

    /// The broker said where a partition ends.
    pub fn ends(&mut self, topic: &str, partition: i32, end: i64) {
        self.partition(topic, partition, |held| held.end = end);
    }

    /// Partitions with something to load of which nothing is read, so that nobody knows how old that is: with the
    /// position from which to look.
    pub fn unread(&self, now: Now) -> Vec<(Arc<str>, i32, i64)> {
        let long_ago = |since: Micros| now.time - since > 2_000_000;
        let unread = |held: &Partition| !held.held || held.noticed.is_some_and(long_ago);
        let found = self.partitions.iter().filter(|(_, held)| unread(held));
        found.map(|((topic, partition), held)| (topic.clone(), *partition, held.committed)).collect()
    }

    /// Somebody has looked at a partition that is not read: its end, and the first record from that position on.
    pub fn looked(&mut self, topic: &str, partition: i32, from: i64, end: i64, first: Option<(i64, Micros)>) {
        self.partition(topic, partition, |held| {
            held.end = end;
            if held.waiting.is_empty() && held.committed == from {
                held.waiting.extend(first);
            }
        });
    }

    /// A lane was given a batch.
    pub fn sent(&mut self, lane: usize, batch: &RawBatch) {
        for slot in batch.slots_of_records() {
            let topic = &batch.slots[slot].topic;
            if let Some(topic) = self.topics.get_mut(topic) {
                topic.consumed += 1;
            }
        }
        self.tally.bytes_consumed += batch.bytes();
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.in_flight.push_back(batch.arena_bytes());
            lane.since.get_or_insert_with(Instant::now);
        }
    }

    /// A lane has to try a batch again.
    pub fn failed(&mut self, lane: usize, sqlstate: &str, error: String, backoff: Duration) {
        *self.tally.retries.entry(sqlstate.to_owned()).or_default() += 1;
        if let Some(lane) = self.lanes.get_mut(lane) {
            let times = lane.trouble.as_ref().map_or(0, |before| before.times) + 1;
            lane.trouble = Some(Trouble { error, at: time::now(), times, backoff });
        }
    }

    /// A lane has committed its oldest batch, or a part of it.
    pub fn committed(&mut self, lane: usize, batch: &Batch, written: &Written) {
        self.tally.committed(batch, written);
        for (slot, counts) in batch.slots().iter().zip(batch.counts_by_slot()) {
            self.topics.entry(slot.topic.clone()).or_default().counts += counts;
            self.partition(&slot.topic, slot.partition, |held| {
                held.committed = slot.to;
                held.read = held.read.max(slot.to);
            });
        }
        for dead in &batch.dead {
            let topic = self.topics.entry(batch.slot_of(dead.record).topic.clone()).or_default();
            *topic.dead.entry(dead.rejection.reason.as_str()).or_default() += 1;
        }
        if let Some(lane) = self.lanes.get_mut(lane) {
            if !batch.more {
                lane.in_flight.pop_front();
            }
            lane.since = (!lane.in_flight.is_empty()).then(Instant::now);
            lane.last = Some((written.batch_id, time::now()));
            lane.trouble = None;
        }
    }

    /// Positions that moved since Kafka was told.
    pub fn take_positions(&mut self) -> Vec<(Arc<str>, i32, i64)> {
        let moved = self.partitions.iter_mut().filter(|(_, held)| held.committed > held.told);
        moved
            .map(|((topic, partition), held)| {
                held.told = held.committed;
                (topic.clone(), *partition, held.told)
            })
            .collect()
    }

    /// What we believe to hold, to be compared with Postgres.
    pub fn holdings(&self) -> Vec<Holding> {
        let held = self.partitions.iter().filter(|(_, held)| held.held);
        held.map(|((topic, partition), held)| Holding {
            topic: topic.clone(),
            partition: *partition,
            epoch: held.epoch,
            from: held.committed,
        })
        .collect()
    }

    /// Postgres holds this of what we believed to hold when it was asked, and has lost some of it if `why` says so.
    pub fn compared(&mut self, asked: &[Holding], found: &[Option<i64>], why: Option<String>) {
        let mut ours = true;
        for (holding, next) in asked.iter().zip(found) {
            match self.partitions.get_mut(&(holding.topic.clone(), holding.partition)) {
                Some(held) if held.held && held.epoch == holding.epoch => held.next = *next,
                // Claimed anew, or given up, since.
                _ => ours = false,
            }
        }
        let lost = why.filter(|_| ours);
        self.tally.commits_lost += u64::from(lost.is_some() && self.void.is_none());
        self.void = lost;
    }

    /// What was committed since the process started.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.topics.values().for_each(|topic| all += topic.counts);
        all
    }

    /// Offsets not committed, of all partitions.
    pub fn lag(&self) -> i64 {
        self.partitions.values().map(Partition::lag).sum()
    }

    /// Age of the oldest record that is not committed.
    pub fn lag_seconds(&self, now: Now) -> f64 {
        self.partitions.values().map(|held| held.lag_seconds(now)).fold(0.0, f64::max)
    }

    /// Number and time of the last commit.
    pub fn last(&self) -> Option<(i64, Micros)> {
        self.lanes.iter().filter_map(|lane| lane.last).max_by_key(|(_, at)| *at)
    }
}

/// The tree, for whoever writes or reads it.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// Of a process that has just started.
    pub fn new(pipeline: &str, owner: &str) -> Arc<Self> {
        Arc::new(Shared { state: Mutex::new(State::new(pipeline, owner)), changed: Condvar::new() })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes something, for a moment.
    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.locked());
        self.changed.notify_all();
        result
    }

    /// How it is now.
    pub fn get(&self) -> State {
        self.locked().clone()
    }

    /// Waits until something is the case.
    pub fn wait(&self, at_most: Duration, wanted: impl Fn(&State) -> bool) {
        drop(self.changed.wait_timeout_while(self.locked(), at_most, |state| !wanted(state)));
    }
}

#[cfg(test)]
mod tests;
