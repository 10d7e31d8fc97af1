//! /metrics: one table of all names, each with how its values are read from the state when somebody asks. So a
//! partition that was given up is not shown, and nothing is counted anywhere else.

use std::fmt::{Display, Write};

use crate::event::dead_letter::Reason;
use crate::event::time;
use crate::operations::health::{LIMITS, ready};
use crate::operations::state::{Lane, Now, Partition, State, Topic};
use crate::operations::tally::Histogram;

/// What stands before each name.
pub const PREFIX: &str = "tidemark_loader_";

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Without the prefix.
    pub name: &'static str,
    /// gauge, counter or histogram.
    pub kind: &'static str,
    /// Names of its labels, separated by commas.
    pub labels: &'static str,
    /// What it means.
    pub help: &'static str,
    collect: fn(&State, Now, &mut Samples<'_>),
}

/// Where the values of one metric go.
#[derive(Debug)]
pub struct Samples<'a> {
    metric: &'a Metric,
    out: &'a mut String,
}

impl Samples<'_> {
    fn line(&mut self, suffix: &str, labels: &[&dyn Display], more: &str, value: f64) {
        let mut shown = String::new();
        for (name, value) in self.metric.labels.split(", ").zip(labels) {
            let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let comma = if shown.is_empty() { "" } else { "," };
            let _ = write!(shown, "{comma}{name}=\"{value}\"");
        }
        let comma = if shown.is_empty() || more.is_empty() { "" } else { "," };
        let _ = match shown.len() + more.len() {
            0 => writeln!(self.out, "{PREFIX}{}{suffix} {value}", self.metric.name),
            _ => writeln!(self.out, "{PREFIX}{}{suffix}{{{shown}{comma}{more}}} {value}", self.metric.name),
        };
    }

    fn put(&mut self, labels: &[&dyn Display], value: f64) {
        self.line("", labels, "", value);
    }

    fn flag(&mut self, on: bool) {
        self.put(&[], f64::from(u8::from(on)));
    }

    fn histogram(&mut self, labels: &[&dyn Display], histogram: &Histogram) {
        let mut all = 0;
        for (bound, n) in histogram.buckets() {
            let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
            self.line("_bucket", labels, &format!("le=\"{bound}\""), n as f64);
            all = n;
        }
        self.line("_sum", labels, "", histogram.sum);
        self.line("_count", labels, "", all as f64);
    }

    fn lanes(&mut self, state: &State, value: impl Fn(&Lane) -> f64) {
        for (number, lane) in state.lanes.iter().enumerate() {
            self.put(&[&number], value(lane));
        }
    }

    fn partitions(&mut self, state: &State, value: impl Fn(&Partition) -> Option<f64>) {
        for ((topic, partition), held) in &state.partitions {
            if let Some(value) = value(held) {
                self.put(&[topic, partition], value);
            }
        }
    }

    fn topics(&mut self, state: &State, value: impl Fn(&Topic) -> u64) {
        for (name, topic) in &state.topics {
            self.put(&[name], value(topic) as f64);
        }
    }
}

fn unix(at: Option<(i64, time::Micros)>) -> f64 {
    at.map_or(0.0, |(_, at)| (at - time::UNIX_EPOCH_US) as f64 / 1e6)
}

macro_rules! metrics {
    ($($kind:ident $name:ident [$($label:ident),*] $help:literal, $collect:expr;)*) => {
        /// All of them, sorted by name. The list in docs/loader.md is made from this one.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: stringify!($name),
            kind: stringify!($kind),
            labels: metrics!(@labels $($label),*),
            help: $help,
            collect: $collect,
        }),*];
    };
    (@labels) => { "" };
    (@labels $first:ident $(, $more:ident)*) => { concat!(stringify!($first) $(, ", ", stringify!($more))*) };
}

metrics! {
    histogram batch_bytes [] "Size of the values of each committed batch",
        |s, _, out| out.histogram(&[], &s.tally.bytes);
    histogram batch_duration_seconds [phase]
        "Time that a batch took: encode, write (everything of its transaction but the commit), commit",
        |s, _, out| s.tally.phases.iter().for_each(|(name, histogram)| out.histogram(&[name], histogram));
    histogram batch_rows [] "Records in each committed batch",
        |s, _, out| out.histogram(&[], &s.tally.rows);
    counter batches_total [path] "Batches committed: direct, probed or staged",
        |s, _, out| s.tally.batches.iter().for_each(|(path, n)| out.put(&[path], *n as f64));
    gauge buffer_bytes [] "Records that were read and are not committed, as they came",
        |s, _, out| out.put(&[], s.lanes.iter().map(Lane::bytes).sum::<usize>() as f64);
    gauge build_info [pipeline, version] "Always 1",
        |s, _, out| out.put(&[&s.pipeline, &env!("CARGO_PKG_VERSION")], 1.0);
    counter bytes_consumed_total [] "Size of the values read",
        |s, _, out| out.put(&[], s.tally.bytes_consumed as f64);
    counter circuit_opened_total [] "How often a topic was paused for too many dead letters",
        |s, _, out| out.put(&[], s.tally.circuit_opened as f64);
    counter commits_lost_total []
        "How often Postgres was found to have lost what it had committed, as after a failover; it is read again",
        |s, _, out| out.put(&[], s.tally.commits_lost as f64);
    gauge committed_offset [topic, partition] "First offset not committed to Postgres",
        |s, _, out| out.partitions(s, |held| Some(held.committed as f64));
    gauge end_offset [topic, partition]
        "Where a reader of committed records gets to, as of the last statistics of librdkafka (every 5 s)",
        |s, _, out| out.partitions(s, |held| Some(held.end as f64));
    counter fenced_total [] "Batches given up because another loader has claimed a partition",
        |s, _, out| out.put(&[], s.tally.fenced as f64);
    gauge kafka_up [] "1 while a broker is connected",
        |s, _, out| out.flag(s.kafka.is_none());
    gauge lag_records [topic, partition] "Offsets up to the end that are not committed",
        |s, _, out| out.partitions(s, |held| Some(held.lag() as f64));
    gauge lag_seconds [topic, partition] "Age of the oldest record that is not committed; 0 when there is none",
        |s, now, out| out.partitions(s, |held| Some(held.lag_seconds(now)));
    gauge lane_backoff_seconds [lane] "How long a lane waits before it tries its batch again; 0 when nothing failed",
        |s, _, out| out.lanes(s, |lane| lane.trouble.as_ref().map_or(0.0, |t| t.backoff.as_secs_f64()));
    gauge lane_batches_in_flight [lane] "Batches handed to a lane and not committed",
        |s, _, out| out.lanes(s, |lane| lane.batches() as f64);
    gauge lane_buffer_bytes [lane] "Records that were read for a lane and are not committed, as they came",
        |s, _, out| out.lanes(s, |lane| lane.bytes() as f64);
    gauge lane_last_commit_timestamp_seconds [lane] "Unix time of the last commit of a lane; 0 before the first",
        |s, _, out| out.lanes(s, |lane| unix(lane.last));
    gauge lane_oldest_batch_seconds [lane] "For how long a lane has worked on its oldest batch; 0 when it has none",
        |s, now, out| out.lanes(s, |lane| lane.oldest(now).as_secs_f64());
    gauge lane_partitions [lane] "Partitions that a lane has",
        |s, _, out| out.lanes(s, |lane| lane.partitions as f64);
    gauge lane_reading_paused [lane]
        "1 while the partitions of a lane are not read because its batches do not get away fast enough",
        |s, _, out| out.lanes(s, |lane| f64::from(u8::from(lane.paused)));
    gauge lane_retries [lane] "How often in a row a lane has tried its batch in vain",
        |s, _, out| out.lanes(s, |lane| lane.trouble.as_ref().map_or(0.0, |t| f64::from(t.times)));
    gauge last_commit_timestamp_seconds [] "Unix time of the last commit; 0 before the first",
        |s, _, out| out.put(&[], unix(s.last()));
    gauge last_poll_seconds [] "How long ago the reading thread was last seen alive",
        |s, now, out| out.put(&[], s.silence(now).as_secs_f64());
    gauge next_offset [topic, partition]
        "What Postgres holds: loader.offsets.next_offset, looked at every 2 s",
        |s, _, out| out.partitions(s, |held| held.next.map(|next| next as f64));
    gauge paused [] "1 while the whole pipeline is paused",
        |s, _, out| out.flag(s.paused.is_some());
    counter pg_retries_total [sqlstate]
        "Batches tried again because of Postgres; io stands for a lost connection",
        |s, _, out| s.tally.retries.iter().for_each(|(code, n)| out.put(&[code], *n as f64));
    gauge postgres_up [] "1 while Postgres answers, asked every 2 s",
        |s, _, out| out.flag(s.postgres.is_none());
    gauge read_offset [topic, partition] "First offset not read from Kafka",
        |s, _, out| out.partitions(s, |held| Some(held.read as f64));
    gauge reading_paused []
        "1 while the partitions of some lane are not read because its batches do not get away fast enough",
        |s, _, out| out.flag(s.lanes.iter().any(|lane| lane.paused));
    gauge ready [] "1 when /readyz says so",
        |s, now, out| out.flag(ready(s, now, &LIMITS).is_ok());
    counter rebalances_total [kind] "Rebalances: assign, revoke, lost or failed",
        |s, _, out| s.tally.rebalances.iter().for_each(|(kind, n)| out.put(&[kind], *n as f64));
    counter records_consumed_total [topic] "Records read, those included that were given up and read again",
        |s, _, out| out.topics(s, |topic| topic.consumed);
    counter records_dead_total [topic, stage, reason] "Records that became dead letters",
        |s, _, out| {
            for (name, topic) in &s.topics {
                // Those that never happened as well: a counter that begins with its first case shows no increase.
                for reason in Reason::ALL {
                    let n = topic.dead.get(reason.as_str()).copied().unwrap_or(0);
                    out.put(&[name, &reason.stage().as_str(), &reason.as_str()], n as f64);
                }
            }
        };
    counter records_duplicate_total [topic] "Records whose id was there already",
        |s, _, out| out.topics(s, |topic| topic.counts.duplicate);
    counter records_filtered_total [topic] "Records skipped on purpose",
        |s, _, out| out.topics(s, |topic| topic.counts.filtered);
    counter records_late_total [topic] "Records that were too late and diverted",
        |s, _, out| out.topics(s, |topic| topic.counts.late);
    counter records_loaded_total [topic] "Records now in bronze.events",
        |s, _, out| out.topics(s, |topic| topic.counts.loaded);
    counter records_tombstone_total [topic] "Records without a value",
        |s, _, out| out.topics(s, |topic| topic.counts.tombstone);
    gauge topic_not_read [topic, cause]
        "1 for each topic that is not read while others are: paused, or missing, also for a pattern that no topic \
         matches",
        |s, _, out| {
            s.paused_topics.keys().for_each(|topic| out.put(&[topic, &"paused"], 1.0));
            s.missing.keys().for_each(|topic| out.put(&[topic, &"missing"], 1.0));
        };
}

/// Everything in the text format of Prometheus.
pub fn render(state: &State, now: Now) -> String {
    let mut out = String::new();
    for metric in METRICS {
        let Metric { name, kind, help, .. } = metric;
        let _ = writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
        (metric.collect)(state, now, &mut Samples { metric, out: &mut out });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::position::Claim;

    #[test]
    fn the_names_are_sorted_and_every_value_has_the_labels_that_the_list_says() {
        assert!(METRICS.windows(2).all(|pair| pair[0].name < pair[1].name));
        let mut state = State::new("a \"b\"\\", "me");
        state.begin(2);
        state.hold("t", 0, Claim { epoch: 1, next_offset: 1, run: 1 }, 9);
        state.tally.rebalanced("assign");
        state.missing.insert("u".to_owned(), "no such topic".to_owned());
        state.failed(1, "53100", "disk full".to_owned(), std::time::Duration::from_secs(2));
        let page = render(&state, Now::get());
        assert!(page.contains("tidemark_loader_build_info{pipeline=\"a \\\"b\\\"\\\\\",version="), "{page}");
        assert!(page.contains("\ntidemark_loader_lag_records{topic=\"t\",partition=\"0\"} 8\n"), "{page}");
        assert!(page.contains("\ntidemark_loader_lane_retries{lane=\"1\"} 1\n"), "{page}");
        assert!(page.contains("\ntidemark_loader_batch_rows_bucket{le=\"+Inf\"} 0\n"), "{page}");
        let write = "\ntidemark_loader_batch_duration_seconds_bucket{phase=\"write\",le=\"0.001\"} 0\n";
        assert!(page.contains(write), "{page}");
        for metric in METRICS {
            let values =
                page.lines().filter_map(|line| line.strip_prefix(&format!("{PREFIX}{}", metric.name)));
            let mut values = values.filter(|rest| rest.starts_with(['{', ' ', '_'])).peekable();
            assert!(values.peek().is_some(), "{} has no value", metric.name);
            for value in values {
                for label in metric.labels.split(", ").filter(|label| !label.is_empty()) {
                    assert!(value.contains(&format!("{label}=\"")), "{}{value}", metric.name);
                }
            }
        }
    }
}
