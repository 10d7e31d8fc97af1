//! Logical replication: a subscriber finds the rows that change by all their columns, sketches among them, and marks
//! their dates.

use std::time::{Duration, Instant};

use tidemark_tests::cluster::{Cluster, Database, rows};
use tidemark_tests::wait_until;

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

#[test]
fn rows_that_a_subscription_applies_are_marked() {
    let cluster = Cluster::start_with("postgres-logical", &["wal_level=logical"]);
    let (publisher, subscriber) = (cluster.empty_database(), cluster.empty_database());
    let table = "CREATE TABLE public.ev (event_time timestamptz, v integer)";
    publisher
        .connect()
        .batch_execute(&format!(
            "{table}; INSERT INTO ev VALUES ('2026-01-01 12:00Z', 0);
             ALTER TABLE ev REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE ev"
        ))
        .unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('slot_s', 'pgoutput')";
    publisher.connect().batch_execute(slot).unwrap();
    let mut client = subscriber.connect();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION tidemark; {table}; SELECT tidemark.track_changes('public.ev')"
        ))
        .unwrap();
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p WITH (create_slot = false, slot_name = 'slot_s')",
        publisher.superuser_url()
    );
    client.batch_execute(&subscribe).unwrap();
    let marks =
        "SELECT concat_ws(' ', event_date, added_by IS NOT NULL, count(*)) FROM tidemark_internal.dirty_log
                  GROUP BY event_date, added_by IS NOT NULL ORDER BY 1";
    wait_until("the first copy", Duration::from_secs(60), || {
        subscriber.number("SELECT count(*) FROM ev") == 1
    });
    assert_eq!(subscriber.column(marks), ["2026-01-01 t 1"]);

    let mut writer = publisher.connect();
    writer
        .batch_execute("INSERT INTO ev SELECT '2026-01-02 12:00Z', i FROM generate_series(1, 20) AS i")
        .unwrap();
    writer.batch_execute("UPDATE ev SET event_time = '2026-01-03 12:00Z' WHERE v = 1").unwrap();
    writer.batch_execute("DELETE FROM ev WHERE v = 0").unwrap();
    let last = "SELECT count(*) FROM ev WHERE v = 0";
    wait_until("the last change", Duration::from_secs(60), || subscriber.number(last) == 0);
    // One mark for each date of a transaction: of twenty rows added, of one changed, where it was and where it is.
    assert_eq!(
        subscriber.column(marks),
        ["2026-01-01 f 1", "2026-01-01 t 1", "2026-01-02 f 1", "2026-01-02 t 1", "2026-01-03 f 1"]
    );
    writer.batch_execute("TRUNCATE ev").unwrap();
    wait_until("the end", Duration::from_secs(60), || subscriber.number("SELECT count(*) FROM ev") == 0);
    assert_eq!(
        rows(&mut client, "SELECT count(*) FROM tidemark_internal.dirty_log WHERE reason = 'truncate'"),
        [["2"]]
    );
    client
        .batch_execute("ALTER SUBSCRIPTION s DISABLE")
        .and_then(|()| client.batch_execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)"))
        .and_then(|()| client.batch_execute("DROP SUBSCRIPTION s"))
        .unwrap();
    wait_until("the slot to be free", Duration::from_secs(60), || {
        publisher.connect().batch_execute("SELECT pg_drop_replication_slot('slot_s')").is_ok()
    });
}
