//! Files of events, generated or written by hand, with what must be in the database once they are loaded. Judges lines
//! on its own, without any code of the loader.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use crate::cluster::Database;
use crate::{process, server};

/// A new file with this content.
pub fn file(content: &[u8]) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = server::scratch().join(format!("events-{number}.ndjson"));
    std::fs::write(&path, content).expect("cannot write to the directory for temporary files");
    path
}

/// A message id made from a number.
pub fn id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// One page view as a line without its end, received one second after it happened.
pub fn line(number: u64, user: &str, time: &str) -> String {
    let received = time.replace('Z', "500Z");
    let received = if time.contains('.') { received } else { time.replace('Z', ".500Z") };
    line_received(number, user, time, &received)
}

/// One page view as a line without its end.
pub fn line_received(number: u64, user: &str, time: &str, received: &str) -> String {
    format!(
        concat!(
            r#"{{"messageId":"{}","type":"track","event":"page_viewed","timestamp":"{}","receivedAt":"{}","#,
            r#""userId":"{}","properties":{{"n":{}}},"context":{{"page":{{"path":"/"}}}}}}"#
        ),
        id(number),
        time,
        received,
        user,
        number
    )
}

/// A generated file and what the generator said about it.
pub struct Generated {
    /// The file.
    pub path: PathBuf,
    /// The numbers of the generator's summary.
    pub summary: HashMap<String, u64>,
}

impl Generated {
    /// Generates a file. `arguments` are those of `tidemark-shop generate`, as one text.
    pub fn new(arguments: &str) -> Generated {
        let path = file(b"");
        let mut all = vec!["generate", "--out", path.to_str().expect("paths of temporary files are text")];
        all.extend(arguments.split_whitespace());
        let finished = process::shop(&all).run().ok();
        let line = finished.stderr.lines().find_map(|line| line.strip_prefix("generated "));
        let line = line.unwrap_or_else(|| panic!("the generator printed no summary: {}", finished.stderr));
        let numbers = line.split_whitespace().filter_map(|word| word.split_once('='));
        let summary = numbers.map(|(name, n)| (name.to_owned(), n.parse().expect("a number"))).collect();
        Generated { path, summary }
    }

    /// A number of the summary.
    pub fn number(&self, name: &str) -> u64 {
        *self.summary.get(name).unwrap_or_else(|| panic!("the generator's summary has no {name}"))
    }
}

/// What must be in the database after some files are loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Ids of the events that can be loaded, with the UTC dates on which they happened.
    pub events: BTreeSet<(String, String)>,
    /// Lines that repeat an event.
    pub duplicates: u64,
    /// The lines that cannot be loaded, as hexadecimal digits, sorted.
    pub dead: Vec<String>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "messageId")]
    message_id: String,
    timestamp: String,
}

impl Expected {
    /// Judges the lines of a file. Knows the defects of the generator and nothing beyond them.
    pub fn of(path: &Path) -> Expected {
        let content = std::fs::read(path).expect("cannot read a file of events");
        let mut expected = Expected::default();
        for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let good = std::str::from_utf8(line).ok().filter(|text| {
                text.starts_with('{') && !text.contains("\\u0000") && !text.contains("\\ud83d")
            });
            let envelope = good.and_then(|text| serde_json::from_str::<Envelope>(text).ok());
            // The generator's times are all in UTC and before 2099, except those far in the future.
            match envelope.filter(|e| e.timestamp.starts_with("20") && e.timestamp.as_str() < "2099") {
                Some(e) => {
                    let date = e.timestamp[..10].to_owned();
                    expected.duplicates += u64::from(!expected.events.insert((e.message_id, date)));
                }
                None => expected.dead.push(hex(line)),
            }
        }
        expected.dead.sort();
        expected
    }

    /// What is in the database.
    pub fn found(database: &Database<'_>) -> Expected {
        let events = database.rows("SELECT event_id, event_date FROM bronze.events");
        let count = events.len();
        let events: BTreeSet<(String, String)> =
            events.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
        assert_eq!(events.len(), count, "some event is in bronze.events twice");
        Expected {
            events,
            duplicates: database.number("SELECT coalesce(sum(n_duplicate), 0) FROM loader.batches") as u64,
            dead: database.column("SELECT encode(payload, 'hex') FROM loader.dead_letters ORDER BY 1"),
        }
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Panics unless exactly what the file holds is in the database, and the loader's books agree with it.
pub fn assert_exact(database: &Database<'_>, path: &Path) {
    let (found, expected) = (Expected::found(database), Expected::of(path));
    // Not assert_eq: nobody reads 200,000 ids.
    let missing: Vec<_> = expected.events.difference(&found.events).take(5).collect();
    let surplus: Vec<_> = found.events.difference(&expected.events).take(5).collect();
    let (n, m) = (found.events.len(), expected.events.len());
    assert!(
        n == m && missing.is_empty() && surplus.is_empty(),
        "{n} of {m}, lost {missing:?}, extra {surplus:?}"
    );
    assert_eq!(found.dead.len(), expected.dead.len(), "dead letters");
    assert!(
        found.dead == expected.dead,
        "the bytes of the dead letters differ from those of the malformed lines"
    );
    assert_eq!(found.duplicates, expected.duplicates, "duplicates");
    assert_books(database);
}

/// Panics unless the loader's books are consistent: each batch adds up and covers what it read, ranges are contiguous
/// and end at the position, bronze and dead letters hold what the batches say.
pub fn assert_books(database: &Database<'_>) {
    let wrong = [
        (
            "batches whose outcomes do not add up",
            "SELECT batch_id FROM loader.batches
              WHERE n_read <> n_loaded + n_duplicate + n_late + n_dead + n_filtered + n_tombstone",
        ),
        (
            "batches that read another number of records than their ranges cover",
            "SELECT batch_id FROM loader.batches
               LEFT JOIN (SELECT batch_id, sum(to_offset - from_offset) AS covered
                            FROM loader.batch_ranges GROUP BY batch_id) AS r USING (batch_id)
              WHERE n_records IS DISTINCT FROM covered
                AND pipeline_id NOT IN (SELECT pipeline_id FROM loader.pipelines WHERE name = 'dead-letters')",
        ),
        (
            "ranges that do not begin where the one before ends, or at 0",
            "SELECT topic, partition, from_offset
               FROM (SELECT *, lag(to_offset, 1, 0::bigint)
                               OVER (PARTITION BY pipeline_id, topic, partition, run ORDER BY from_offset) AS before
                       FROM loader.batch_ranges) AS r
              WHERE from_offset <> before",
        ),
        (
            "positions that are not where the last range ends",
            "SELECT topic, partition, next_offset FROM loader.offsets AS o
              WHERE next_offset <> (SELECT coalesce(max(to_offset), 0) FROM loader.batch_ranges AS r
                      WHERE (r.pipeline_id, r.topic, r.partition, r.run)
                          = (o.pipeline_id, o.topic, o.partition, o.run))",
        ),
        (
            // A letter that was tried again names the batch that tried it last.
            "batches with another number of rows than they say",
            "SELECT batch_id FROM loader.batches
               FULL JOIN (SELECT batch_id, count(*) AS n FROM bronze.events GROUP BY 1) AS e USING (batch_id)
               FULL JOIN (SELECT batch_id, count(*) AS m FROM loader.dead_letters GROUP BY 1) AS d USING (batch_id)
              WHERE n_loaded IS DISTINCT FROM coalesce(n, 0)::int
                 OR n_dead IS DISTINCT FROM coalesce(m, 0)::int
                    AND NOT EXISTS (SELECT FROM loader.dead_letters WHERE attempts > 1)",
        ),
        (
            "source coordinates that occur twice",
            "SELECT source_topic, source_partition, source_offset, source_index FROM bronze.events
              GROUP BY 1, 2, 3, 4 HAVING count(*) > 1",
        ),
    ];
    for (what, sql) in wrong {
        let rows = database.rows(sql);
        assert!(rows.is_empty(), "{what}: {:?} and {} more", rows[0], rows.len() - 1);
    }
}
