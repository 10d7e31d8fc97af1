//! Logical replication: a subscriber finds the rows that change by all their columns, sketches among them.

use std::time::{Duration, Instant};

use tidemark_tests::cluster::{Cluster, Database};

/// Waits until a query on the subscriber gives an answer.
fn wait(database: &Database<'_>, sql: &str, answer: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while database.value(sql) != answer {
        assert!(Instant::now() < deadline, "{sql}: {} instead of {answer}", database.value(sql));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn rows_with_sketches_are_updated_and_deleted_on_a_subscriber_by_their_whole_content() {
    let cluster = Cluster::start_with("replication", &["wal_level=logical", "max_wal_senders=4"]);
    let (publisher, subscriber) = (cluster.empty_database(), cluster.empty_database());
    for database in [&publisher, &subscriber] {
        database
            .connect()
            .batch_execute(
                "CREATE EXTENSION tidemark;
                 CREATE TABLE rollups (day integer, people tidemark.hll, times tidemark.ddsketch,
                                       funnel tidemark.funnel_stats);
                 ALTER TABLE rollups REPLICA IDENTITY FULL",
            )
            .unwrap();
    }
    // Within one cluster the slot must be there before: a subscription that makes it waits for its own transaction.
    for sql in [
        "CREATE PUBLICATION rollups FOR TABLE rollups",
        "SELECT pg_create_logical_replication_slot('rollups', 'pgoutput')",
    ] {
        publisher.connect().batch_execute(sql).unwrap();
    }
    subscriber
        .connect()
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION rollups CONNECTION '{}' PUBLICATION rollups
                 WITH (create_slot = false, slot_name = 'rollups', copy_data = false)",
            publisher.superuser_url()
        ))
        .unwrap();
    // Days 1 and 2 have the same day number behind them, so that only the sketches tell the rows apart.
    let rows =
        "SELECT 0, tidemark.hll_agg(n), tidemark.ddsketch_agg(n), tidemark.funnel_stats(ARRAY[now()], 2)
                  FROM generate_series(1, 3) AS size, generate_series(1, size * 3000) AS n GROUP BY size";
    publisher.connect().batch_execute(&format!("INSERT INTO rollups {rows}")).unwrap();
    wait(&subscriber, "SELECT count(*)::text FROM rollups", "3");

    let counts = "SELECT string_agg(day || ':' || tidemark.ddsketch_count(times), ' '
                                    ORDER BY tidemark.ddsketch_count(times)) FROM rollups";
    publisher
        .connect()
        .batch_execute(
            "UPDATE rollups SET day = 7 WHERE tidemark.ddsketch_count(times) = 6000;
             DELETE FROM rollups WHERE tidemark.ddsketch_count(times) = 9000",
        )
        .unwrap();
    wait(&subscriber, counts, "0:3000 7:6000");
    assert_eq!(publisher.value(counts), subscriber.value(counts));
    let content = "SELECT string_agg(md5(r::text), ' ' ORDER BY md5(r::text)) FROM rollups AS r";
    assert_eq!(publisher.value(content), subscriber.value(content));

    subscriber
        .connect()
        .batch_execute(
            "ALTER SUBSCRIPTION rollups DISABLE; ALTER SUBSCRIPTION rollups SET (slot_name = NONE);
             DROP SUBSCRIPTION rollups",
        )
        .unwrap();
    wait(&publisher, "SELECT bool_or(active)::text FROM pg_replication_slots", "false");
    publisher.connect().batch_execute("SELECT pg_drop_replication_slot('rollups')").unwrap();
}
