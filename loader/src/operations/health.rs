//! What a running loader knows about itself, for /healthz, /readyz, /status, /metrics and the watchdog of systemd.
//! Written by the reading thread, the lanes and the task that watches the pipeline; read by anybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch::{Batch, Counts};
use crate::event::time::{self, Micros};
use crate::postgres::position::Claim;
use crate::postgres::transaction::Written;

/// A reading thread that was silent for longer is stuck.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A partition that we hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Partition {
    /// Epoch of our claim.
    pub epoch: i64,
    /// First offset not committed to Postgres.
    pub next_offset: i64,
    /// End of the partition that a reader of committed records can reach, once the broker has said so.
    pub end: Option<i64>,
    /// Receipt of the last record committed.
    pub received_at: Option<Micros>,
}

impl Partition {
    /// Records not loaded yet.
    pub fn lag(&self) -> Option<i64> {
        self.end.map(|end| (end - self.next_offset).max(0))
    }

    /// How long ago the last record was received that is committed; 0 when nothing is left to load.
    pub fn lag_seconds(&self) -> Option<f64> {
        if self.lag()? == 0 {
            return Some(0.0);
        }
        self.received_at.map(|received| ((time::now() - received) as f64 / 1e6).max(0.0))
    }
}

/// What the reading thread knows about a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneLoad {
    /// Partitions that are its own.
    pub partitions: usize,
    /// Bytes of records that were read for it and are not committed.
    pub bytes: usize,
    /// Batches that went in and are not committed.
    pub batches: usize,
    /// Its partitions are paused.
    pub paused: bool,
}

/// A lane.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    load: LaneLoad,
    last_batch: Option<i64>,
    last_commit: u64,
}

/// Everything there is to know.
#[derive(Debug)]
pub struct Health {
    pipeline: String,
    owner: String,
    started: Instant,
    polled: AtomicU64,
    joined: AtomicBool,
    last_commit: AtomicU64,
    last_batch: AtomicU64,
    lanes: Mutex<Vec<Lane>>,
    /// Why Postgres does not answer.
    postgres: Mutex<Option<String>>,
    /// Why the pipeline is paused.
    paused: Mutex<Option<String>>,
    partitions: Mutex<BTreeMap<(Arc<str>, i32), Partition>>,
    counts: Mutex<Counts>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// Of a process that has just started.
    pub fn new(pipeline: &str, owner: &str) -> Self {
        Health {
            pipeline: pipeline.to_owned(),
            owner: owner.to_owned(),
            started: Instant::now(),
            polled: AtomicU64::new(0),
            joined: AtomicBool::new(false),
            last_commit: AtomicU64::new(0),
            last_batch: AtomicU64::new(0),
            lanes: Mutex::default(),
            postgres: Mutex::new(None),
            paused: Mutex::new(None),
            partitions: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    /// The reading thread, or whoever waits in its place, is alive.
    pub fn polled(&self) {
        self.polled.store(self.started.elapsed().as_millis() as u64, Relaxed);
    }

    /// How long nobody has said so.
    pub fn silence(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.polled.load(Relaxed)))
    }

    /// Kafka has told us which partitions are ours.
    pub fn joined(&self) {
        self.joined.store(true, Relaxed);
    }

    /// We are no member of the group any more.
    pub fn left(&self) {
        self.joined.store(false, Relaxed);
        locked(&self.lanes).iter_mut().for_each(|lane| lane.load = LaneLoad::default());
        locked(&self.partitions).clear();
    }

    /// We have claimed a partition.
    pub fn hold(&self, topic: &str, partition: i32, claim: Claim) {
        let held = Partition { epoch: claim.epoch, next_offset: claim.next_offset, ..Partition::default() };
        locked(&self.partitions).insert((topic.into(), partition), held);
    }

    /// We have given a partition up.
    pub fn release(&self, topic: &str, partition: i32) {
        locked(&self.partitions).remove(&(topic.into(), partition));
    }

    /// The broker said where a partition ends.
    pub fn ends(&self, topic: &str, partition: i32, end: i64) {
        if let Some(held) = locked(&self.partitions).get_mut(&(topic.into(), partition)) {
            held.end = Some(end);
        }
    }

    /// A batch was committed.
    pub fn committed(&self, batch: &Batch, written: &Written) {
        self.last_commit.store(unix_seconds(), Relaxed);
        self.last_batch.store(written.batch_id as u64, Relaxed);
        *locked(&self.counts) += written.counts;
        let mut partitions = locked(&self.partitions);
        for (i, slot) in batch.slots().iter().enumerate() {
            if let Some(held) = partitions.get_mut(&(slot.topic.clone(), slot.partition)) {
                held.next_offset = slot.to;
                held.received_at = batch.last_received(i).or(held.received_at);
            }
        }
    }

    /// What there is to do for each lane, in their order.
    pub fn loads(&self, loads: impl Iterator<Item = LaneLoad>) {
        let mut lanes = locked(&self.lanes);
        for (i, load) in loads.enumerate() {
            if lanes.len() <= i {
                lanes.push(Lane::default());
            }
            lanes[i].load = load;
        }
    }

    /// A lane has committed a batch.
    pub fn lane_committed(&self, lane: usize, batch_id: i64) {
        if let Some(lane) = locked(&self.lanes).get_mut(lane) {
            (lane.last_batch, lane.last_commit) = (Some(batch_id), unix_seconds());
        }
    }

    /// Bytes of records that were read and are not committed, and whether some partitions are not read because batches
    /// do not get away fast enough.
    fn buffered(&self) -> (usize, bool) {
        let lanes = locked(&self.lanes);
        (lanes.iter().map(|lane| lane.load.bytes).sum(), lanes.iter().any(|lane| lane.load.paused))
    }

    /// Postgres answered, or did not for this reason.
    pub fn postgres(&self, failure: Option<String>) {
        *locked(&self.postgres) = failure;
    }

    /// The pipeline is paused for this reason, or not.
    pub fn set_paused(&self, reason: Option<String>) {
        *locked(&self.paused) = reason;
    }

    /// Why the pipeline is paused.
    pub fn paused(&self) -> Option<String> {
        locked(&self.paused).clone()
    }

    /// What was committed since the process started.
    pub fn counts(&self) -> Counts {
        *locked(&self.counts)
    }

    /// Why no events are being loaded now; empty when they are.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.silence() > SILENCE {
            reasons.push(format!("the reading thread has been silent for {} s", self.silence().as_secs()));
        }
        if let Some(why) = locked(&self.postgres).as_ref() {
            reasons.push(format!("Postgres does not answer: {why}"));
        }
        match self.paused() {
            Some(why) => reasons.push(format!("the pipeline is paused: {why}")),
            None if !self.joined.load(Relaxed) => {
                reasons.push("not a member of the consumer group yet".to_owned())
            }
            None => {}
        }
        reasons
    }

    /// Everything, for people and scripts.
    pub fn status(&self) -> Value {
        let counts = self.counts();
        let partitions: Vec<Value> = locked(&self.partitions)
            .iter()
            .map(|((topic, partition), held)| {
                json!({
                    "topic": topic.as_ref(),
                    "partition": partition,
                    "epoch": held.epoch,
                    "next_offset": held.next_offset,
                    "lag_records": held.lag(),
                    "lag_seconds": held.lag_seconds(),
                })
            })
            .collect();
        let at_least_one = |n: u64| (n > 0).then_some(n);
        let lanes: Vec<Value> = locked(&self.lanes)
            .iter()
            .enumerate()
            .map(|(number, Lane { load, last_batch, last_commit })| {
                json!({
                    "lane": number,
                    "partitions": load.partitions,
                    "buffer_bytes": load.bytes,
                    "batches_in_flight": load.batches,
                    "reading_paused": load.paused,
                    "last_batch_id": last_batch,
                    "last_commit_unix_seconds": at_least_one(*last_commit),
                })
            })
            .collect();
        let (buffered, reading_paused) = self.buffered();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pipeline": self.pipeline,
            "owner": self.owner,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": self.not_ready().is_empty(),
            "not_ready": self.not_ready(),
            "paused": self.paused(),
            "reading_paused": reading_paused,
            "buffer_bytes": buffered,
            "last_batch_id": at_least_one(self.last_batch.load(Relaxed)),
            "last_commit_unix_seconds": at_least_one(self.last_commit.load(Relaxed)),
            "records": {
                "read": counts.read,
                "loaded": counts.loaded,
                "duplicate": counts.duplicate,
                "late": counts.late,
                "dead": counts.dead,
                "filtered": counts.filtered,
                "tombstone": counts.tombstone,
            },
            "lanes": lanes,
            "partitions": partitions,
        })
    }

    /// Name, labels and value of everything that goes up and down.
    pub fn gauges(&self) -> Vec<(&'static str, String, f64)> {
        let flag = |on: bool| f64::from(u8::from(on));
        let (buffered, reading_paused) = self.buffered();
        let mut out = vec![
            ("build_info", format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0),
            ("ready", String::new(), flag(self.not_ready().is_empty())),
            ("paused", String::new(), flag(self.paused().is_some())),
            ("reading_paused", String::new(), flag(reading_paused)),
            ("buffer_bytes", String::new(), buffered as f64),
            ("last_commit_timestamp_seconds", String::new(), self.last_commit.load(Relaxed) as f64),
            ("last_poll_seconds", String::new(), self.silence().as_secs_f64()),
        ];
        for (number, Lane { load, last_commit, .. }) in locked(&self.lanes).iter().enumerate() {
            let labels = format!("lane=\"{number}\"");
            let mut lane = |name, value| out.push((name, labels.clone(), value));
            lane("lane_partitions", load.partitions as f64);
            lane("lane_buffer_bytes", load.bytes as f64);
            lane("lane_batches_in_flight", load.batches as f64);
            lane("lane_reading_paused", flag(load.paused));
            lane("lane_last_commit_timestamp_seconds", *last_commit as f64);
        }
        for ((topic, partition), held) in locked(&self.partitions).iter() {
            // Kafka's rules for names leave nothing to escape.
            let labels = format!("topic=\"{topic}\",partition=\"{partition}\"");
            out.push(("next_offset", labels.clone(), held.next_offset as f64));
            if let Some(lag) = held.lag() {
                out.push(("consumer_lag_records", labels.clone(), lag as f64));
            }
            if let Some(lag) = held.lag_seconds() {
                out.push(("consumer_lag_seconds", labels, lag));
            }
        }
        out.sort_by_key(|(name, _, _)| *name);
        out
    }
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_nothing_speaks_against_it() {
        let health = Health::new("web", "me");
        health.polled();
        assert_eq!(health.not_ready(), ["not a member of the consumer group yet"]);
        health.joined();
        assert!(health.not_ready().is_empty());
        health.postgres(Some("gone".to_owned()));
        health.set_paused(Some("too many".to_owned()));
        assert_eq!(
            health.not_ready(),
            ["Postgres does not answer: gone", "the pipeline is paused: too many"]
        );
    }

    #[test]
    fn lag_is_what_is_not_loaded_yet() {
        let health = Health::new("web", "me");
        health.hold("t", 3, Claim { epoch: 1, next_offset: 10, run: 1 });
        assert_eq!(health.status()["partitions"][0]["lag_records"], Value::Null);
        health.ends("t", 3, 25);
        assert_eq!(health.status()["partitions"][0]["lag_records"], 15);
        assert!(health.gauges().contains(&(
            "consumer_lag_records",
            "topic=\"t\",partition=\"3\"".to_owned(),
            15.0
        )));
        health.release("t", 3);
        assert_eq!(health.status()["partitions"], json!([]));
    }

    #[test]
    fn what_the_lanes_hold_adds_up() {
        let health = Health::new("web", "me");
        let load = |bytes, paused| LaneLoad { partitions: 2, bytes, batches: 1, paused };
        health.loads([load(10, false), load(5, true)].into_iter());
        health.lane_committed(1, 77);
        health.lane_committed(2, 78);
        let status = health.status();
        assert_eq!((&status["buffer_bytes"], &status["reading_paused"]), (&json!(15), &json!(true)));
        assert_eq!(status["lanes"].as_array().unwrap().len(), 2);
        assert_eq!(status["lanes"][0]["last_batch_id"], Value::Null);
        assert_eq!(status["lanes"][1]["last_batch_id"], 77);
        let gauges = health.gauges();
        let of =
            |name, lane| gauges.iter().find(|g| g.0 == name && g.1 == format!("lane=\"{lane}\"")).unwrap().2;
        assert_eq!((of("lane_reading_paused", 0), of("lane_reading_paused", 1)), (0.0, 1.0));
        assert_eq!(of("lane_buffer_bytes", 1), 5.0);
        health.left();
        let status = health.status();
        assert_eq!((&status["buffer_bytes"], &status["lanes"][1]["last_batch_id"]), (&json!(0), &json!(77)));
    }
}
