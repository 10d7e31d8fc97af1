//! What only goes up while a process runs: counters and histograms, kept in the state and shown by `metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::batch::Batch;
use crate::postgres::transaction::Written;

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const ROWS: &[f64] = &[1.0, 10.0, 100.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6, 256e6];

/// How often values were up to each bound.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all of them.
    counts: Vec<u64>,
    /// Of all values.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn record(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Each bound, the last of which is infinite, with the number of values up to it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }))
    }
}

/// Parts of the work on a batch.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Its rows are made.
    Encode,
    /// Everything of its transaction but the commit.
    Write,
    /// The commit.
    Commit,
}

/// Counters and histograms.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Size of the values read.
    pub bytes_consumed: u64,
    /// Batches committed, by the path of their rows.
    pub batches: BTreeMap<&'static str, u64>,
    /// Batches given up to another loader.
    pub fenced: u64,
    /// How often Postgres was found to have lost commits.
    pub commits_lost: u64,
    /// Pauses for too many dead letters.
    pub circuit_opened: u64,
    /// Batches tried again, by SQLSTATE.
    pub retries: BTreeMap<String, u64>,
    /// Rebalances, by kind.
    pub rebalances: BTreeMap<&'static str, u64>,
    /// How long the phases took, in their order.
    pub phases: [(&'static str, Histogram); 3],
    /// Records in each batch.
    pub rows: Histogram,
    /// Bytes in each batch.
    pub bytes: Histogram,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            bytes_consumed: 0,
            batches: BTreeMap::from([("direct", 0), ("probed", 0), ("staged", 0)]),
            fenced: 0,
            commits_lost: 0,
            circuit_opened: 0,
            retries: BTreeMap::new(),
            rebalances: BTreeMap::new(),
            phases: ["encode", "write", "commit"].map(|name| (name, Histogram::new(SECONDS))),
            rows: Histogram::new(ROWS),
            bytes: Histogram::new(BYTES),
        }
    }
}

impl Tally {
    /// A batch was committed.
    pub fn committed(&mut self, batch: &Batch, written: &Written) {
        *self.batches.entry(written.path.as_str()).or_default() += 1;
        self.rows.record(written.counts.read as f64);
        self.bytes.record(batch.bytes() as f64);
    }

    /// A part of the work on a batch is done.
    pub fn phase(&mut self, phase: Phase, took: Duration) {
        self.phases[phase as usize].1.record(took.as_secs_f64());
    }

    /// Kafka gave or took partitions.
    pub fn rebalanced(&mut self, kind: &'static str) {
        *self.rebalances.entry(kind).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_up_to_each_bound() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 2.0, 7.0].into_iter().for_each(|value| histogram.record(value));
        let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
        assert_eq!(buckets, [(1.0, 2), (2.0, 4), (f64::INFINITY, 5)]);
        assert_eq!(histogram.sum, 12.0);
    }
}
