//! Reading a stretch of a topic from here to there, without a consumer group: `assign`, so that nobody who subscribes
//! notices. And questions about the ends of partitions, about offsets at a time, and about partitions that nobody reads
//! for now: while the pipeline is paused or waits to join the group, and those of a lane that has no room.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};

use super::books::{Books, Taken};
use super::client::{Listener, connect};
use super::{Kafka, record};
use crate::batch::{BatchLimits, RawBatch};
use crate::error::{Error, Kind, Result};
use crate::event::time::{self, Micros};
use crate::operations::state::{Now, Shared};
use crate::postgres::position::Claim;

const TIMEOUT: Duration = Duration::from_secs(15);

/// What the broker has of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its number.
    pub partition: i32,
    /// Offset of the oldest record.
    pub low: i64,
    /// Offset behind the newest record that a committed transaction wrote.
    pub high: i64,
    /// Kafka's id of the topic.
    pub topic_id: Option<String>,
    /// Epoch of the leader that the partition has now.
    pub leader_epoch: Option<i32>,
}

impl Range {
    /// Asks for what the broker has of a partition. The id of its topic must have been asked for before: of a topic
    /// that is made anew in between, the ends then come under the old id, which is noticed before anything of it is
    /// loaded.
    pub(super) fn ask<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        topic: &str,
        partition: i32,
        topic_id: Option<String>,
    ) -> KafkaResult<Range> {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        let mut question = TopicPartitionList::new();
        question.add_partition_offset(topic, partition, Offset::End)?;
        let answer = consumer.offsets_for_times(question, TIMEOUT)?;
        let leader_epoch = record::leader_epoch_in(&answer, topic, partition);
        Ok(Range { partition, low, high, topic_id, leader_epoch })
    }
}

/// A part of a partition to be read.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Partition.
    pub partition: i32,
    /// Our claim of it; reading begins at its position.
    pub claim: Claim,
    /// Kafka's id of the topic at that time.
    pub topic_id: Option<String>,
    /// Offset to stop before. The broker's end must have been there already.
    pub end: i64,
}

/// How reading ended.
#[derive(Debug)]
pub enum Read {
    /// Everything was handed out.
    Done,
    /// We were told to stop.
    Stopped,
    /// The lane ended; it knows why.
    LaneEnded,
}

impl Kafka {
    /// A client that only asks questions.
    pub(super) fn questioner(&self) -> Result<BaseConsumer<Listener>> {
        let mut config = self.client_config();
        config.set("log_level", "3");
        connect(&config).map_err(|e| self.explain("cannot reach Kafka", &e))
    }

    /// Oldest and newest offsets of some partitions, or of all of them. Blocks.
    pub fn ranges(&self, topic: &str, partitions: Option<&[i32]>) -> Result<Vec<Range>> {
        let survey = self.survey_one(topic, true)?;
        let all: Vec<i32> = survey.ends.iter().map(|end| end.partition).collect();
        if let Some(unknown) = partitions.and_then(|wanted| wanted.iter().find(|p| !all.contains(p))) {
            return Err(Error::new(
                Kind::Usage,
                format!("there is no partition {unknown}"),
                format!("topic {topic} has {}", all.len()),
                "correct --partition",
            ));
        }
        let client = self.questioner()?;
        let explain = |e: KafkaError| self.explain("cannot read the ends of a partition", &e);
        let topic_id = record::topic_ids(client.client(), &[topic], None, TIMEOUT).map_err(explain)?;
        let topic_id = topic_id.into_values().next().flatten();
        let wanted = all.into_iter().filter(|p| partitions.is_none_or(|wanted| wanted.contains(p)));
        wanted.map(|p| Range::ask(&client, topic, p, topic_id.clone()).map_err(explain)).collect()
    }

    /// Moves each offset to the first record of its partition whose time is `at` or later: the end if there is none.
    pub fn offsets_at(&self, topic: &str, ranges: &[Range], at: Micros) -> Result<HashMap<i32, i64>> {
        let explain = |e: KafkaError| self.explain("cannot look up a time in a topic", &e);
        // Record times are whole milliseconds.
        let millis = time::to_unix_millis(at) + i64::from((at - time::UNIX_EPOCH_US).rem_euclid(1000) != 0);
        let mut question = TopicPartitionList::new();
        for range in ranges {
            question
                .add_partition_offset(topic, range.partition, Offset::Offset(millis.max(0)))
                .map_err(explain)?;
        }
        let answer = self.questioner()?.offsets_for_times(question, TIMEOUT).map_err(explain)?;
        let found = ranges.iter().map(|range| {
            let offset = answer.find_partition(topic, range.partition).map(|e| e.offset());
            let offset = match offset {
                Some(Offset::Offset(offset)) => offset.clamp(range.low, range.high),
                _ => range.high,
            };
            (range.partition, offset)
        });
        Ok(found.collect())
    }

    /// A consumer that reads these partitions from these offsets, tells where they end, and belongs to no group.
    pub(super) fn reader(
        &self,
        topic: &str,
        from: &[(i32, i64)],
        settings: &[(&str, &str)],
    ) -> Result<BaseConsumer<Listener>> {
        let explain = |e: KafkaError| self.explain("cannot read the topic", &e);
        // librdkafka wants a name although nobody joins anything.
        let mut config = self.consumer_config(&format!("tidemark-bounded-{}", uuid::Uuid::new_v4().simple()));
        config.set("enable.partition.eof", "true");
        // No group waits for us: a slow database must not end the reading.
        config.set("max.poll.interval.ms", "86400000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let consumer = connect(&config).map_err(explain)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(explain)?;
        }
        consumer.assign(&list).map_err(explain)?;
        Ok(consumer)
    }

    /// Whether a partition has no record for us from this offset up to its end: what is there was compacted away, or
    /// belongs to transactions that were aborted. `None` when the broker does not say in time.
    pub fn tail_is_empty(&self, topic: &str, partition: i32, from: i64, limit: Duration) -> Option<bool> {
        let consumer = self.reader(topic, &[(partition, from)], &[]).ok()?;
        let started = Instant::now();
        while started.elapsed() < limit {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => return Some(false),
                Some(Err(KafkaError::PartitionEOF(_))) => return Some(true),
                Some(Err(_)) | None => {}
            }
        }
        None
    }

    /// Reads the stretches and hands batches out. `read` hears how many offsets were passed. Blocks.
    pub fn read_stretches(
        &self,
        topic: &str,
        topic_id: i32,
        stretches: &[Stretch],
        limits: BatchLimits,
        stop: &watch::Receiver<bool>,
        batches: &mpsc::Sender<RawBatch>,
    ) -> Result<Read> {
        let from: Vec<(i32, i64)> = stretches.iter().map(|s| (s.partition, s.claim.next_offset)).collect();
        let consumer = self.reader(topic, &from, &[])?;
        let mut books = Books::new(1, limits.bytes);
        let mut left: HashMap<i32, i64> = HashMap::new();
        let known = stretches.iter().find_map(|s| Some((topic.to_owned(), s.topic_id.clone()?)));
        let known: HashMap<String, String> = known.into_iter().collect();
        for stretch in stretches {
            books.hold(topic, topic_id, stretch.partition, stretch.claim);
            left.insert(stretch.partition, stretch.end);
        }
        let (mut headers, mut brokers) = (Vec::new(), BTreeSet::new());
        let mut filling_since = Instant::now();
        loop {
            if *stop.borrow() {
                return Ok(Read::Stopped);
            }
            let full = limits.reached(&books.filling(0).batch);
            if full || left.is_empty() || filling_since.elapsed() >= limits.delay {
                filling_since = Instant::now();
                // Only what came before this question is handed out, so it is of the topic that was claimed.
                let anew = record::made_anew(consumer.client(), &known, &brokers, TIMEOUT);
                brokers.clear();
                if anew.map_err(|e| self.explain("cannot ask for the topic", &e))?.is_some() {
                    return Err(Error::new(
                        Kind::Temporary,
                        format!("cannot go on reading {topic}"),
                        "the topic was made anew meanwhile",
                        "run the same command again: it begins with the new one",
                    ));
                }
                if let Some(batch) = books.hand_out(0)
                    && batches.blocking_send(batch).is_err()
                {
                    return Ok(Read::LaneEnded);
                }
                if left.is_empty() {
                    return Ok(Read::Done);
                }
            }
            if batches.is_closed() {
                return Ok(Read::LaneEnded);
            }
            let ended = match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let record = record::borrow(&message, &mut headers);
                    brokers.insert(record::broker(&message));
                    let (partition, offset) = (record.partition, record.offset);
                    let end = left.get(&partition).copied().unwrap_or(i64::MIN);
                    if offset < end && books.take(&record, limits.keep) == Taken::NotOurs {
                        tracing::debug!(partition, offset, "a record before our position");
                    }
                    (offset + 1 >= end).then_some(partition)
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    return Err(Error::new(
                        Kind::Temporary,
                        format!("cannot go on reading {topic}"),
                        "the broker deleted records that were still to be read",
                        "run the same command again: it goes on behind what is missing",
                    ));
                }
                Some(Err(e @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(self.explain("cannot read the topic", &e));
                }
                Some(Err(e)) => {
                    tracing::warn!("Kafka: {e}");
                    None
                }
                None => None,
            };
            if let Some(partition) = ended
                && let Some(end) = left.remove(&partition)
            {
                books.reached(topic, partition, end, None);
                let mut list = TopicPartitionList::new();
                list.add_partition(topic, partition);
                // Only to save what it would fetch in vain.
                if let Err(e) = consumer.pause(&list) {
                    tracing::debug!("cannot pause partition {partition}: {e}");
                }
            }
        }
    }
}

/// How often partitions that are not read are looked at.
const PERIOD: Duration = Duration::from_secs(5);
/// Longest wait for a broker when one looks.
const PATIENCE: Duration = Duration::from_secs(2);

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
                .fetch_watermarks(topic, *partition, PATIENCE)
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
            while first.len() < behind.len() && started.elapsed() < PATIENCE {
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
