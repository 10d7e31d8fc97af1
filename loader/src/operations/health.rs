//! What is said of the state: whether events are being loaded, in a line, and everything in JSON. Pure functions, from
//! which /readyz, /healthz, /status, STATUS= for systemd and the log are made.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::batch::Counts;
use crate::event::time::{self, Micros};
use crate::operations::state::{Lane, Now, State};

/// From when on something is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A reading thread that was silent for longer is stuck.
    pub silence: Duration,
    /// A lane that works on one batch for longer loads nothing.
    pub batch: Duration,
}

/// Those in force. A healthy batch takes less than a second, and a lock is waited for for ten.
pub const LIMITS: Limits = Limits { silence: Duration::from_secs(30), batch: Duration::from_secs(15) };

/// Why no events are being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The reading thread said nothing for so many seconds.
    Silent(u64),
    /// Postgres does not answer.
    Postgres(String),
    /// Kafka does not answer.
    Kafka(String),
    /// Somebody paused the pipeline.
    Paused(String),
    /// Kafka has not told us yet what is ours.
    NotJoined,
    /// A topic is paused, and there is no other one for us.
    Topic(String, String),
    /// A lane has worked on one batch for so many seconds.
    Stuck(usize, u64, Option<String>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Silent(seconds) => write!(f, "the reading thread has been silent for {seconds} s"),
            Reason::Postgres(why) => write!(f, "Postgres does not answer: {why}"),
            Reason::Kafka(why) => write!(f, "Kafka does not answer: {why}"),
            Reason::Paused(why) => write!(f, "the pipeline is paused: {why}"),
            Reason::Topic(topic, why) => {
                write!(f, "topic {topic} is paused, and nothing else is read: {why}")
            }
            Reason::NotJoined => f.write_str("not a member of the consumer group yet"),
            Reason::Stuck(lane, seconds, why) => {
                write!(f, "lane {lane} has worked on one batch for {seconds} s")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
        }
    }
}

/// Whether events are being loaded, or could be if there were any.
pub fn ready(state: &State, now: Now, limits: &Limits) -> Result<(), Vec<Reason>> {
    let mut reasons = Vec::new();
    let silence = state.silence(now);
    if silence > limits.silence {
        reasons.push(Reason::Silent(silence.as_secs()));
    }
    reasons.extend(state.postgres.clone().map(Reason::Postgres));
    reasons.extend(state.kafka.clone().map(Reason::Kafka));
    match &state.paused {
        Some(why) => reasons.push(Reason::Paused(why.clone())),
        None if !state.joined => reasons.push(Reason::NotJoined),
        None if state.partitions.values().any(|held| held.held) => {}
        None => {
            let paused = state.paused_topics.iter();
            reasons
                .extend(paused.map(|(topic, paused)| Reason::Topic(topic.to_string(), paused.why.clone())));
        }
    }
    for (number, lane) in state.lanes.iter().enumerate() {
        let age = lane.oldest(now);
        if age > limits.batch {
            let why = lane.trouble.as_ref().map(|trouble| trouble.error.clone());
            reasons.push(Reason::Stuck(number, age.as_secs(), why));
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// The same in one line, as for STATUS= of systemd and the log.
pub fn line(state: &State, now: Now, limits: &Limits) -> String {
    match ready(state, now, limits) {
        Ok(()) => {
            let paused = state.paused_topics.iter();
            let paused = paused.map(|(topic, paused)| format!("; topic {topic} is paused: {}", paused.why));
            let missing =
                state.missing.iter().map(|(topic, why)| format!("; topic {topic} is missing: {why}"));
            let not_read: String = paused.chain(missing).collect();
            format!("loading; {} records so far{not_read}", state.counts().read)
        }
        Err(reasons) => reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn unix_seconds(time: Micros) -> i64 {
    (time - time::UNIX_EPOCH_US) / 1_000_000
}

fn counts_of(n: &Counts) -> Value {
    json!({
        "read": n.read,
        "loaded": n.loaded,
        "duplicate": n.duplicate,
        "late": n.late,
        "dead": n.dead,
        "filtered": n.filtered,
        "tombstone": n.tombstone,
    })
}

/// Everything, for people and scripts.
pub fn status(state: &State, now: Now, limits: &Limits) -> Value {
    let reasons = ready(state, now, limits).err().unwrap_or_default();
    let partitions = state.partitions.iter().map(|((topic, partition), held)| {
        json!({
            "topic": topic.as_ref(),
            "partition": partition,
            "held": held.held,
            "epoch": held.epoch,
            "read_offset": held.read,
            "committed_offset": held.committed,
            "next_offset": held.next,
            "end_offset": held.end,
            "lag_records": held.lag(),
            "lag_seconds": held.lag_seconds(now),
        })
    });
    let lanes = state.lanes.iter().enumerate().map(|(number, lane)| {
        let trouble = lane.trouble.as_ref();
        json!({
            "lane": number,
            "partitions": lane.partitions,
            "buffer_bytes": lane.bytes(),
            "batches_in_flight": lane.batches(),
            "oldest_batch_seconds": lane.oldest(now).as_secs_f64(),
            "reading_paused": lane.paused,
            "last_batch_id": lane.last.map(|(id, _)| id),
            "last_commit_unix_seconds": lane.last.map(|(_, at)| unix_seconds(at)),
            "error": trouble.map(|t| &t.error),
            "error_unix_seconds": trouble.map(|t| unix_seconds(t.at)),
            "retries": trouble.map_or(0, |t| t.times),
            "backoff_seconds": trouble.map_or(0.0, |t| t.backoff.as_secs_f64()),
        })
    });
    let topics = state.topics.iter().map(|(name, topic)| (name.to_string(), counts_of(&topic.counts)));
    let paused_topics =
        state.paused_topics.iter().map(|(topic, paused)| (topic.to_string(), json!(paused.why)));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pipeline": state.pipeline,
        "owner": state.owner,
        "uptime_seconds": now.clock.saturating_duration_since(state.started).as_secs(),
        "ready": reasons.is_empty(),
        "not_ready": reasons.iter().map(Reason::to_string).collect::<Vec<_>>(),
        "paused": state.paused,
        "paused_topics": paused_topics.collect::<serde_json::Map<_, _>>(),
        "missing_topics": state.missing,
        "reading_paused": state.lanes.iter().any(|lane| lane.paused),
        "buffer_bytes": state.lanes.iter().map(Lane::bytes).sum::<usize>(),
        "lag_records": state.lag(),
        "lag_seconds": state.lag_seconds(now),
        "last_batch_id": state.last().map(|(id, _)| id),
        "last_commit_unix_seconds": state.last().map(|(_, at)| unix_seconds(at)),
        "records": counts_of(&state.counts()),
        "topics": topics.collect::<serde_json::Map<_, _>>(),
        "lanes": lanes.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
