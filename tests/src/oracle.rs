//! The invariants that must hold in the loader's books at every moment, whatever was killed. Knows the tables and no
//! code of the loader. What must be in bronze is the business of `events`.

use crate::cluster::Database;

/// What must never be found, each as (what it would be, a query that finds it).
const IMPOSSIBLE: [(&str, &str); 10] = [
    (
        "I1: ranges that do not begin where the one before ends",
        "SELECT topic, partition, from_offset
           FROM (SELECT *, lag(to_offset) OVER (PARTITION BY pipeline_id, topic, partition, run ORDER BY from_offset)
                   AS before FROM loader.batch_ranges) AS r
          WHERE from_offset <> before",
    ),
    (
        "I1: positions that are not where the last range ends",
        "SELECT topic, partition, next_offset
           FROM loader.offsets AS o
           JOIN (SELECT pipeline_id, topic, partition, run, max(to_offset) AS ends
                   FROM loader.batch_ranges GROUP BY 1, 2, 3, 4) AS r USING (pipeline_id, topic, partition, run)
          WHERE next_offset <> ends",
    ),
    (
        "I2: batches whose outcomes do not add up",
        "SELECT batch_id FROM loader.batches
          WHERE n_read <> n_loaded + n_duplicate + n_late + n_dead + n_filtered + n_tombstone",
    ),
    (
        "I2: batches that read more records than their ranges have offsets",
        "SELECT batch_id FROM loader.batches
           LEFT JOIN (SELECT batch_id, sum(to_offset - from_offset) AS covered
                        FROM loader.batch_ranges GROUP BY 1) AS r USING (batch_id)
          WHERE covered IS NULL OR n_records > covered OR n_records > n_read",
    ),
    (
        "I3: ranges without a batch",
        "SELECT batch_id FROM loader.batch_ranges EXCEPT SELECT batch_id FROM loader.batches",
    ),
    (
        "I3: batches with another number of rows than they say",
        "SELECT batch_id, n_loaded, n FROM loader.batches
           FULL JOIN (SELECT batch_id, count(*) AS n FROM bronze.events GROUP BY 1) AS e USING (batch_id)
          WHERE n_loaded IS DISTINCT FROM coalesce(n, 0)",
    ),
    (
        "I3: batches with more dead letters than they say",
        "SELECT batch_id, n_dead, m
           FROM (SELECT batch_id, count(*) AS m FROM loader.dead_letters GROUP BY 1) AS d
           LEFT JOIN loader.batches USING (batch_id)
          WHERE n_dead IS NULL OR n_dead < m",
    ),
    (
        "I3: events from outside the ranges of their batch",
        "SELECT e.batch_id, e.source_partition, e.source_offset
           FROM bronze.events AS e
           JOIN loader.topics AS t ON t.topic_id = e.source_topic
           LEFT JOIN loader.batch_ranges AS r ON r.batch_id = e.batch_id AND r.topic = t.name
                AND r.partition = e.source_partition
                AND e.source_offset >= r.from_offset AND e.source_offset < r.to_offset
          WHERE r.batch_id IS NULL",
    ),
    (
        "I3: dead letters from outside the ranges of their batch",
        "SELECT d.batch_id, d.partition, d.\"offset\"
           FROM loader.dead_letters AS d
           LEFT JOIN loader.batch_ranges AS r ON r.batch_id = d.batch_id AND r.topic = d.topic
                AND r.partition = d.partition AND d.\"offset\" >= r.from_offset AND d.\"offset\" < r.to_offset
          WHERE r.batch_id IS NULL",
    ),
    (
        "events that are dead letters as well",
        "SELECT e.source_partition, e.source_offset FROM bronze.events AS e
           JOIN loader.topics AS t ON t.topic_id = e.source_topic
           JOIN loader.dead_letters AS d ON d.topic = t.name AND d.partition = e.source_partition
                AND d.\"offset\" = e.source_offset AND d.source_index = coalesce(e.source_index, 0)
                AND d.status = 'open'
           JOIN loader.batches AS b ON b.batch_id = e.batch_id AND b.pipeline_id = d.pipeline_id",
    ),
];

/// What must not be found while nobody has consumed the dirty log, moved a position by hand or made a topic anew.
const IMPOSSIBLE_YET: [(&str, &str); 4] = [
    (
        "source coordinates that occur twice",
        "SELECT source_topic, source_partition, source_offset, source_index FROM bronze.events
          GROUP BY 1, 2, 3, 4 HAVING count(*) > 1",
    ),
    (
        "I1: a first range that does not begin at 0",
        "SELECT topic, partition, min(from_offset) FROM loader.batch_ranges
          GROUP BY pipeline_id, 1, 2, run HAVING min(from_offset) <> 0",
    ),
    (
        "I3: events on dates that are not marked dirty",
        "SELECT DISTINCT event_date FROM bronze.events
         EXCEPT SELECT event_date FROM tidemark_internal.dirty_log WHERE source = 'bronze.events'::regclass",
    ),
    (
        "I3: batches with another number of dead letters than they say",
        "SELECT batch_id, n_dead, m FROM loader.batches
           LEFT JOIN (SELECT batch_id, count(*) AS m FROM loader.dead_letters GROUP BY 1) AS d USING (batch_id)
          WHERE n_dead IS DISTINCT FROM coalesce(m, 0)",
    ),
];

/// Everything in the books that can never be right, one sentence each with an example.
pub fn violations(database: &Database<'_>) -> Vec<String> {
    find(database, &IMPOSSIBLE)
}

/// The same for a pipeline that has read its topics once from the beginning, with no refresh since.
pub fn violations_of_a_first_pass(database: &Database<'_>) -> Vec<String> {
    [find(database, &IMPOSSIBLE), find(database, &IMPOSSIBLE_YET)].concat()
}

fn find(database: &Database<'_>, wrong: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (what, sql) in wrong {
        let rows = database.rows(sql);
        if let Some(first) = rows.first() {
            found.push(format!("{what}: {first:?} and {} more", rows.len() - 1));
        }
    }
    found
}

/// Panics unless the books can be right.
pub fn assert_invariants(database: &Database<'_>) {
    let found = violations(database);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Panics unless the books can be right for a first pass over the topics.
pub fn assert_first_pass(database: &Database<'_>) {
    let found = violations_of_a_first_pass(database);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
