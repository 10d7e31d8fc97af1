//! What is in the database after the storm, held against the file that was produced.

use std::cmp::Ordering;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::Plan;
use crate::cluster::Database;
use crate::events::Expected;
use crate::oracle;

/// What the storm found.
#[derive(Debug)]
pub struct Verdict {
    /// What was done.
    pub plan: Plan,
    /// How long it took.
    pub seconds: u64,
    /// Events that are not in bronze.
    pub lost: usize,
    /// Rows of bronze beyond one for each event.
    pub doubled: usize,
    /// Rows of bronze that nobody produced.
    pub invented: usize,
    /// Malformed lines that are not among the dead letters.
    pub missing_dead_letters: usize,
    /// Dead letters beyond one for each malformed line.
    pub double_dead_letters: usize,
    /// Difference between the duplicates produced and those counted.
    pub duplicates_off: i64,
    /// Batches that were begun and not committed: how often a blow hit one.
    pub rolled_back: i64,
    /// Sentences about whatever else went wrong.
    pub complaints: Vec<String>,
}

impl Verdict {
    /// Compares. `records` is what the topic holds of the `lines` of the file.
    pub fn of(database: &Database<'_>, path: &Path, lines: u64, records: u64, plan: Plan) -> Verdict {
        let Expected { events, duplicates, dead } = Expected::of(path);
        // Pairs come sorted from the set, and so do the lines made of them: ids have one length.
        let wanted: Vec<String> = events.into_iter().map(|(id, date)| format!("{id}\t{date}")).collect();
        let found = copied(database, "SELECT event_id, event_date FROM bronze.events");
        let (lost, beyond) = difference(&wanted, &found);
        let doubled = found.len() - {
            found.iter().zip(found.iter().skip(1)).filter(|(a, b)| a != b).count()
                + usize::from(!found.is_empty())
        };
        let letters = copied(database, "SELECT encode(payload, 'hex') FROM loader.dead_letters");
        let (missing_dead_letters, double_dead_letters) = difference(&dead, &letters);
        let counted = database.number("SELECT coalesce(sum(n_duplicate), 0)::bigint FROM loader.batches");
        // During an hour models are refreshed.
        let mut complaints = match plan.minutes {
            0 => oracle::violations_of_a_first_pass(database),
            _ => oracle::violations(database),
        };
        let read = database.number("SELECT coalesce(sum(n_read), 0)::bigint FROM loader.batches");
        if read as u64 != records || lines != records {
            complaints
                .push(format!("{lines} lines, {records} records in Kafka, {read} read by committed batches"));
        }
        Verdict {
            plan,
            seconds: 0,
            lost,
            doubled,
            invented: beyond - doubled,
            missing_dead_letters,
            double_dead_letters,
            duplicates_off: counted - duplicates as i64,
            rolled_back: database
                .number("SELECT (SELECT last_value FROM loader.batch_ids) - count(*) FROM loader.batches"),
            complaints,
        }
    }

    /// Whether nothing at all is wrong.
    pub fn is_clean(&self) -> bool {
        let wrong =
            self.lost + self.doubled + self.invented + self.missing_dead_letters + self.double_dead_letters;
        wrong == 0 && self.duplicates_off == 0 && self.complaints.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, kills, events, minutes } = self.plan;
        write!(
            f,
            "storm seed={seed} kills={kills} events={events} minutes={minutes} seconds={} rolled_back={}: lost={} doubled={} invented={} \
             missing_dead_letters={} double_dead_letters={} duplicates_off={} complaints={}",
            self.seconds,
            self.rolled_back,
            self.lost,
            self.doubled,
            self.invented,
            self.missing_dead_letters,
            self.double_dead_letters,
            self.duplicates_off,
            self.complaints.len()
        )
    }
}

/// The lines of a query, sorted by their bytes.
fn copied(database: &Database<'_>, sql: &str) -> Vec<String> {
    let mut client = database.connect();
    let reader = client.copy_out(&format!("COPY ({sql}) TO STDOUT")).expect("cannot copy out");
    let mut lines: Vec<String> = BufReader::with_capacity(1 << 18, reader)
        .lines()
        .map(|line| line.expect("cannot copy out"))
        .collect();
    lines.sort_unstable();
    lines
}

/// How many of `wanted` are not among `found`, and the other way round; both sorted, each occurrence counts.
fn difference(wanted: &[String], found: &[String]) -> (usize, usize) {
    let (mut i, mut j, mut missing, mut surplus) = (0, 0, 0, 0);
    while i < wanted.len() || j < found.len() {
        let order = match (wanted.get(i), found.get(j)) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => (i, missing) = (i + 1, missing + 1),
            Ordering::Greater => (j, surplus) = (j + 1, surplus + 1),
            Ordering::Equal => (i, j) = (i + 1, j + 1),
        }
    }
    (missing, surplus)
}
