//! What /metrics offers: the list of all names, and the places that count. Counters and histograms are kept by the crate
//! `metrics`; without a recorder (`http` has it), as in `tidemark load`, counting costs next to nothing.

use std::time::Duration;

use metrics::{counter, histogram};

use crate::batch::{Batch, RawBatch};
use crate::postgres::transaction::{WritePath, Written};

/// What stands before each name.
pub const PREFIX: &str = "tidemark_loader_";

/// Name, type, labels and meaning of each metric. The list in docs/loader.md is made from this one.
pub const METRICS: &[(&str, &str, &str, &str)] = &[
    ("batch_bytes", "histogram", "", "Size of the values of each committed batch"),
    (
        "batch_duration_seconds",
        "histogram",
        "phase",
        "Time that a batch took: encode, write (everything of its transaction but the commit), commit",
    ),
    ("batch_rows", "histogram", "", "Records in each committed batch"),
    ("batches_total", "counter", "path", "Batches committed: direct, probed or staged"),
    ("buffer_bytes", "gauge", "", "Records that were read and are not committed, as they came"),
    ("build_info", "gauge", "version", "Always 1"),
    ("bytes_consumed_total", "counter", "", "Size of the values read"),
    ("circuit_opened_total", "counter", "", "How often the pipeline was paused for too many dead letters"),
    (
        "consumer_lag_records",
        "gauge",
        "topic, partition",
        "Records behind our position in Postgres, as of the last statistics of librdkafka (every 5 s)",
    ),
    (
        "consumer_lag_seconds",
        "gauge",
        "topic, partition",
        "Age of the last record committed; 0 when nothing is left to load",
    ),
    ("fenced_total", "counter", "", "Batches given up because another loader has claimed a partition"),
    ("lane_batches_in_flight", "gauge", "lane", "Batches handed to a lane and not committed"),
    (
        "lane_buffer_bytes",
        "gauge",
        "lane",
        "Records that were read for a lane and are not committed, as they came",
    ),
    (
        "lane_last_commit_timestamp_seconds",
        "gauge",
        "lane",
        "Unix time of the last commit of a lane; 0 before the first",
    ),
    ("lane_partitions", "gauge", "lane", "Partitions that a lane has"),
    (
        "lane_reading_paused",
        "gauge",
        "lane",
        "1 while the partitions of a lane are not read because its batches do not get away fast enough",
    ),
    ("last_commit_timestamp_seconds", "gauge", "", "Unix time of the last commit; 0 before the first"),
    ("last_poll_seconds", "gauge", "", "How long ago the reading thread was last seen alive"),
    ("next_offset", "gauge", "topic, partition", "First offset not committed to Postgres"),
    ("paused", "gauge", "", "1 while the pipeline is paused, by a person or for too many dead letters"),
    (
        "pg_retries_total",
        "counter",
        "sqlstate",
        "Batches tried again because of Postgres; io stands for a lost connection",
    ),
    (
        "reading_paused",
        "gauge",
        "",
        "1 while the partitions of some lane are not read because its batches do not get away fast enough",
    ),
    ("ready", "gauge", "", "1 when /readyz says so"),
    ("rebalances_total", "counter", "kind", "Rebalances: assign, revoke, lost or failed"),
    ("records_consumed_total", "counter", "topic, partition", "Records read"),
    ("records_dead_total", "counter", "stage, reason", "Records that became dead letters"),
    ("records_duplicate_total", "counter", "", "Records whose id was there already"),
    ("records_filtered_total", "counter", "", "Records skipped on purpose"),
    ("records_late_total", "counter", "", "Records that were too late and diverted"),
    ("records_loaded_total", "counter", "", "Records now in bronze.events"),
    ("records_tombstone_total", "counter", "", "Records without a value"),
];

/// Records came from Kafka.
pub fn consumed(batch: &RawBatch, bytes: u64) {
    let mut counts = vec![0_u64; batch.slots.len()];
    batch.slots_of_records().for_each(|slot| counts[slot] += 1);
    for (slot, n) in batch.slots.iter().zip(counts) {
        let labels = [("topic", slot.topic.to_string()), ("partition", slot.partition.to_string())];
        counter!("tidemark_loader_records_consumed_total", &labels).increment(n);
    }
    counter!("tidemark_loader_bytes_consumed_total").increment(bytes);
}

/// A part of the work on a batch is done.
pub fn phase(name: &'static str, took: Duration) {
    histogram!("tidemark_loader_batch_duration_seconds", "phase" => name).record(took.as_secs_f64());
}

/// A batch was committed.
pub fn committed(batch: &Batch, written: &Written) {
    let n = written.counts;
    let path = match written.path {
        WritePath::Direct => "direct",
        WritePath::Probed => "probed",
        WritePath::Staged => "staged",
    };
    counter!("tidemark_loader_batches_total", "path" => path).increment(1);
    counter!("tidemark_loader_records_loaded_total").increment(n.loaded);
    counter!("tidemark_loader_records_duplicate_total").increment(n.duplicate);
    counter!("tidemark_loader_records_late_total").increment(n.late);
    counter!("tidemark_loader_records_filtered_total").increment(n.filtered);
    counter!("tidemark_loader_records_tombstone_total").increment(n.tombstone);
    for dead in &batch.dead {
        let reason = dead.rejection.reason;
        let labels = [("stage", reason.stage().as_str()), ("reason", reason.as_str())];
        counter!("tidemark_loader_records_dead_total", &labels).increment(1);
    }
    histogram!("tidemark_loader_batch_rows").record(n.read as f64);
    histogram!("tidemark_loader_batch_bytes").record(batch.bytes() as f64);
}

/// A batch is tried again.
pub fn retried(error: &tokio_postgres::Error) {
    let code = error.as_db_error().map_or("io", |db| db.code().code()).to_owned();
    counter!("tidemark_loader_pg_retries_total", "sqlstate" => code).increment(1);
}

/// A batch was given up to another loader.
pub fn fenced() {
    counter!("tidemark_loader_fenced_total").increment(1);
}

/// The pipeline was paused for too many dead letters.
pub fn circuit_opened() {
    counter!("tidemark_loader_circuit_opened_total").increment(1);
}

/// Kafka gave or took partitions.
pub fn rebalanced(kind: &'static str) {
    counter!("tidemark_loader_rebalances_total", "kind" => kind).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::health::Health;

    #[test]
    fn the_list_is_sorted_and_holds_every_gauge_and_every_name_counted_here() {
        assert!(METRICS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let listed = |kind: &str, name: &str| METRICS.iter().any(|m| m.0 == name && m.1 == kind);
        let health = Health::new("web", "me");
        health.hold("t", 0, crate::postgres::position::Claim { epoch: 1, next_offset: 1, run: 1 });
        health.ends("t", 0, 1);
        health.loads([crate::operations::health::LaneLoad::default()].into_iter());
        let gauges = health.gauges();
        assert!(gauges.len() >= 9);
        for (name, ..) in &gauges {
            assert!(listed("gauge", name), "{name}");
        }
        let source = include_str!("metrics.rs");
        let mut counted = 0;
        for kind in ["counter", "histogram"] {
            for rest in source.split(&format!("{kind}!(\"{PREFIX}")).skip(1) {
                let name = rest.split('"').next().unwrap();
                assert!(listed(kind, name), "{kind} {name}");
                counted += 1;
            }
        }
        let gauge_kinds = gauges.iter().map(|g| g.0).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!(counted + gauge_kinds, METRICS.len());
    }
}
