//! Late events under every policy, the way back from bronze.late_events, ids that come with another content, dates that
//! are retired, and the books about all of it.

use std::path::Path;
use std::time::Duration;

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database, connect, sqlstate};
use tidemark_tests::events::{self, assert_books, id, line, line_received};
use tidemark_tests::process::{Counts, shop, tidemark};
use tidemark_tests::wait_until;

const RECEIVED: &str = "2026-09-30T12:00:00Z";

/// Events 1 and 2 in time, 3 exactly as late as allowed, 4 a microsecond later, 5 a year late.
fn lines() -> Vec<String> {
    let times = [
        "2026-09-30T11:00:00Z",
        "2026-09-29T11:00:00Z",
        "2026-09-23T12:00:00Z",
        "2026-09-23T11:59:59.999999Z",
        "2025-09-30T12:00:00Z",
    ];
    (1..).zip(times).map(|(n, time)| line_received(n, "u", time, RECEIVED)).collect()
}

/// One whose line does not say when it was received.
fn unreceived(number: u64, time: &str) -> String {
    let line = line_received(number, "u", time, RECEIVED);
    let short = line.replace(&format!(r#""receivedAt":"{RECEIVED}","#), "");
    assert_ne!(short, line);
    short
}

fn file(lines: &[String]) -> std::path::PathBuf {
    events::file((lines.join("\n") + "\n").as_bytes())
}

fn load_path(database: &Database<'_>, path: &Path, more: &[&str]) -> Counts {
    let mut arguments = vec!["load", path.to_str().unwrap()];
    arguments.extend(more);
    tidemark(&arguments).database(&database.loader_url()).run().read_all().counts()
}

fn load(database: &Database<'_>, lines: &[String], more: &[&str]) -> Counts {
    load_path(database, &file(lines), more)
}

fn in_table(database: &Database<'_>, table: &str) -> Vec<String> {
    database.column(&format!("SELECT event_id FROM {table} ORDER BY 1"))
}

fn ids(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(|n| id(*n)).collect()
}

const STATUS: &str = "SELECT watermark, events_loaded, late_events FROM tidemark.source_status";
const DIRTY: &str = "SELECT DISTINCT event_date FROM tidemark_internal.dirty_log ORDER BY 1";

#[test]
fn recompute_loads_late_events_and_counts_them() {
    let database = cluster::shared().database();
    let counts = load(&database, &lines(), &[]);
    assert_eq!((counts.loaded, counts.late_diverted, counts.dead), (5, 0, 0));
    assert_eq!(in_table(&database, "bronze.events"), ids(&[1, 2, 3, 4, 5]));
    assert_eq!(database.column(DIRTY), ["2025-09-30", "2026-09-23", "2026-09-29", "2026-09-30"]);
    assert_eq!(database.rows(STATUS), [["2026-09-23 11:00:00+00", "5", "2"]]);
    let counts = load(
        &database,
        &[line_received(6, "u", "2026-09-30T10:00:00Z", RECEIVED)],
        &["--allowed-lateness", "1h"],
    );
    assert_eq!(counts.loaded, 1);
    assert_eq!(database.rows(STATUS), [["2026-09-23 11:00:00+00", "6", "3"]]);
    assert_books(&database);
}

#[test]
fn where_nobody_knows_the_receipt_nothing_is_late_anywhere() {
    let topic = broker::shared().topic();
    let address = broker::shared().address.as_str();
    let old: Vec<String> = (1..=3).map(|n| unreceived(n, &format!("2026-01-0{n}T23:59:59Z"))).collect();
    let path = file(&old);
    let path = path.to_str().unwrap();
    shop(&["produce", path, "--brokers", address, "--topic", &topic, "--partitions", "1"]).run().ok();
    let run =
        ["run", "--brokers", address, "--topic", &topic, "--maintain-every", "off", "--until-caught-up"];
    for (command, policy) in
        [&["load", path][..], &run].into_iter().flat_map(|c| [(c, "refuse"), (c, "divert")])
    {
        let database = cluster::shared().database();
        let command = [command, &["--late-policy", policy]].concat();
        let counts = tidemark(&command).database(&database.loader_url()).run().ok().counts();
        assert_eq!((counts.loaded, counts.late_diverted, counts.dead), (3, 0, 0), "{command:?}");
        tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
        assert_eq!(database.rows(STATUS), [["2025-12-27 23:59:59+00", "3", "0"]], "{command:?}");
        let gold = "SELECT count(*), sum(events), sum(received_after_day) FROM gold.daily_actives";
        assert_eq!(database.rows(gold), [["3", "3", "0"]], "{command:?}");
        let receipts =
            "SELECT count(*) FROM bronze.events WHERE received_at <> event_time OR loaded_at < '2026-06-01'";
        assert_eq!(database.number(receipts), 0, "{command:?}");
    }

    // Case 13: the receipt that one event has says nothing about those after it.
    let database = cluster::shared().database();
    let lines = [
        line_received(11, "u", "2026-01-02T08:15:22Z", "2026-01-02T08:15:23Z"),
        unreceived(12, "2026-10-02T08:15:22Z"),
        unreceived(13, "2026-10-03T08:15:22Z"),
        unreceived(14, "2025-10-03T08:15:22Z"),
    ];
    let path = file(&lines);
    let finished = tidemark(&["load", path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    assert_eq!(finished.counts().loaded, 4);
    let lateness = "SELECT received_at - event_time FROM bronze.events ORDER BY event_id";
    assert_eq!(database.column(lateness), ["00:00:01", "00:00:00", "00:00:00", "00:00:00"]);

    // What is received on the next day is no more late than the allowed week, but came after its day was over.
    let database = cluster::shared().database();
    load(&database, &[line_received(4, "u", "2026-01-04T23:59:59Z", "2026-01-05T00:00:01Z")], &[]);
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    assert_eq!(database.rows(STATUS), [["2025-12-28 23:59:59+00", "1", "0"]]);
    let gold = "SELECT d.received_after_day, l.received_after_day
                  FROM gold.daily_actives AS d, gold.daily_actives_live AS l";
    assert_eq!(database.rows(gold), [["1", "1"]]);
    assert_books(&database);
}

#[test]
fn a_letter_of_unknown_receipt_is_not_late_when_it_is_replayed() {
    let database = cluster::shared().database();
    // Received nobody knows when; refused for its date at first.
    let old = [unreceived(1, "2026-01-01T10:00:00Z")];
    let floor = ["TIDEMARK__RECORD__EVENT_TIME_FLOOR", "2026-02-01"];
    let path = file(&old);
    let load = tidemark(&["load", path.to_str().unwrap()]).env(floor[0], floor[1]);
    assert_eq!(load.database(&database.loader_url()).run().read_all().counts().dead, 1);
    let replay = ["dead-letters", "replay", "--late-policy", "divert"];
    tidemark(&replay).database(&database.admin_url()).run().ok();
    assert_eq!(in_table(&database, "bronze.events"), ids(&[1]));
    assert_eq!(in_table(&database, "bronze.late_events"), ids(&[]));
    assert_eq!(database.column("SELECT late_events FROM tidemark.source_status"), ["0"]);
    assert_eq!(database.number("SELECT count(*) FROM tidemark.lateness"), 0);
}

#[test]
fn divert_keeps_late_events_aside() {
    let database = cluster::shared().database();
    let counts = load(&database, &lines(), &["--late-policy", "divert"]);
    assert_eq!((counts.loaded, counts.late_diverted, counts.dead), (3, 2, 0));
    assert_eq!(in_table(&database, "bronze.events"), ids(&[1, 2, 3]));
    assert_eq!(in_table(&database, "bronze.late_events"), ids(&[4, 5]));
    assert_eq!(
        database.column(DIRTY),
        ["2026-09-23", "2026-09-29", "2026-09-30"],
        "diverted events mark nothing"
    );
    assert_eq!(database.rows(STATUS), [["2026-09-23 11:00:00+00", "3", "0"]]);
    assert_eq!(database.number("SELECT sum(n_late) FROM loader.batches"), 2);
    let partition =
        "SELECT count(*) FROM tidemark.partitions('bronze.events') WHERE from_date = '2025-09-30'";
    assert_eq!(database.number(partition), 0, "a diverted event makes no partition");

    // Once more, and as a retry that was received later: duplicates, wherever the first one is.
    let again: Vec<String> = lines().iter().map(|l| l.replace(RECEIVED, "2026-10-01T12:00:00Z")).collect();
    let counts = load(&database, &again[1..], &["--late-policy", "divert"]);
    assert_eq!((counts.read, counts.duplicate), (4, 4));
    // The one in time comes again so late that it is diverted: it is in bronze.events all the same.
    let later = vec![lines()[0].replace(RECEIVED, "2026-11-01T12:00:00Z")];
    assert_eq!(load(&database, &later, &["--late-policy", "divert"]).duplicate, 1);
    assert_eq!(in_table(&database, "bronze.late_events"), ids(&[4, 5]));
    // Another event under the id of a diverted one.
    let other = vec![lines()[4].replace(r#""userId":"u""#, r#""userId":"v""#)];
    assert_eq!(load(&database, &other, &["--late-policy", "divert"]).dead, 1);
    assert_eq!(database.column("SELECT reason FROM loader.dead_letters"), ["duplicate_id_conflict"]);
    assert_books(&database);
}

#[test]
fn a_row_that_postgres_refuses_takes_no_diverted_row_along() {
    let database = cluster::shared().database();
    database
        .connect()
        .batch_execute("ALTER TABLE bronze.late_events ADD CONSTRAINT no_bad CHECK (user_id <> 'bad')")
        .unwrap();
    let mut lines = lines();
    lines[3] = lines[3].replace(r#""userId":"u""#, r#""userId":"bad""#);
    let counts = load(&database, &lines, &["--late-policy", "divert"]);
    assert_eq!((counts.loaded, counts.late_diverted, counts.dead), (3, 1, 1));
    assert_eq!(in_table(&database, "bronze.events"), ids(&[1, 2, 3]));
    assert_eq!(in_table(&database, "bronze.late_events"), ids(&[5]));
    assert_eq!(database.column("SELECT reason FROM loader.dead_letters"), ["refused_by_database"]);
    assert_books(&database);
}

#[test]
fn refuse_makes_late_events_dead_letters() {
    let database = cluster::shared().database();
    let counts = load(&database, &lines(), &["--late-policy", "refuse"]);
    assert_eq!((counts.loaded, counts.late_diverted, counts.dead), (3, 0, 2));
    let letters = "SELECT reason, stage, event_id FROM loader.dead_letters ORDER BY event_id";
    assert_eq!(database.rows(letters), [["too_late", "envelope", &id(4)], ["too_late", "envelope", &id(5)]]);
    assert_books(&database);
}

#[test]
fn the_time_after_receipt_that_is_accepted_can_be_set() {
    let database = cluster::shared().database();
    let ahead = [
        line_received(1, "u", "2026-09-30T12:04:00Z", RECEIVED),
        line_received(2, "u", "2026-09-30T12:06:00Z", RECEIVED),
    ];
    let counts = load(&database, &ahead, &["--max-skew", "0s"]);
    assert_eq!((counts.loaded, counts.dead), (0, 2));
    assert_eq!(database.column("SELECT DISTINCT reason FROM loader.dead_letters"), ["event_time_in_future"]);
    let mut again = ahead.to_vec();
    again.push(String::new());
    assert_eq!(load(&database, &again, &["--max-skew", "6m"]).loaded, 2);
    // A later receipt: the same event, in time.
    assert_eq!(
        load(&database, &ahead.map(|l| l.replace(RECEIVED, "2026-09-30T12:10:00Z")), &[]).duplicate,
        2
    );
    for bad in ["6", "-1d", "1w", ""] {
        let arguments = ["load", "-", "--allowed-lateness", bad];
        let refused = tidemark(&arguments).database(&database.loader_url()).run();
        assert_eq!(refused.code, Some(64), "{bad}: {}", refused.stderr);
    }
}

#[test]
fn a_replay_and_a_topic_classify_like_the_file() {
    let path = file(&lines());
    let topic = broker::shared().topic();
    let brokers = &broker::shared().address;
    shop(&["produce", path.to_str().unwrap(), "--brokers", brokers, "--topic", &topic, "--partitions", "1"])
        .run()
        .ok();
    for policy in ["divert", "refuse"] {
        let (by_file, again, by_kafka) =
            (cluster::shared().database(), cluster::shared().database(), cluster::shared().database());
        let policy = ["--late-policy", policy];
        let counts = load_path(&by_file, &path, &policy);
        assert_eq!(load_path(&again, &path, &[&policy[..], &["--batch-rows", "1"]].concat()), counts);
        let group = format!("group-of-{topic}-{}", policy[1]);
        let mut run = vec![
            "run",
            "--brokers",
            brokers,
            "--topic",
            &topic,
            "--group",
            &group,
            "--maintain-every",
            "off",
        ];
        run.extend(["--until-caught-up", "--event-time-floor", "1970-01-01", policy[0], policy[1]]);
        assert_eq!(tidemark(&run).database(&by_kafka.loader_url()).run().ok().counts(), counts);
        for sql in [
            "SELECT event_id, received_at, payload_hash FROM bronze.events ORDER BY 1",
            "SELECT event_id, received_at, payload_hash FROM bronze.late_events ORDER BY 1",
            "SELECT event_id, reason, detail FROM loader.dead_letters ORDER BY 1",
            "SELECT event_date, bucket, events FROM tidemark.lateness ORDER BY 1, 2",
        ] {
            let expected = by_file.rows(sql);
            assert_eq!(again.rows(sql), expected, "{policy:?} {sql}");
            assert_eq!(by_kafka.rows(sql), expected, "{policy:?} {sql}");
        }
    }
}

#[test]
fn merging_moves_each_diverted_event_exactly_once() {
    let database = cluster::shared().database();
    // Event 7 is diverted first and loaded later; 8 too, with another content; then more to make the merges meet.
    let late = |n: u64, user: &str| line_received(n, user, "2026-09-01T10:00:00Z", RECEIVED);
    let mut diverted = vec![late(7, "u"), late(8, "u")];
    diverted.extend((1000..1500).map(|n| late(n, "u")));
    diverted.push(line_received(9, "u", "2026-09-02T10:00:00Z", RECEIVED));
    assert_eq!(load(&database, &diverted, &["--late-policy", "divert"]).late_diverted, 503);
    assert_eq!(load(&database, &[late(7, "u"), late(8, "v")], &["--late-policy", "recompute"]).loaded, 2);
    assert_books(&database);
    assert_eq!(
        sqlstate(connect(&database.loader_url()).simple_query("SELECT * FROM loader.merge_late_events()")),
        "42501"
    );

    database.connect().batch_execute("DELETE FROM tidemark_internal.dirty_log").unwrap();
    let url = database.admin_url();
    let merge = "SELECT coalesce(sum(merged), 0)::bigint, coalesce(sum(duplicates), 0)::bigint
                   FROM loader.merge_late_events('2026-09-01', '2026-09-01')";
    let mut moved = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| connect(&url).query_one(merge, &[]).unwrap())).collect();
        for row in workers.into_iter().map(|w| w.join().unwrap()) {
            moved.0 += row.get::<_, i64>(0);
            moved.1 += row.get::<_, i64>(1);
        }
    });
    assert_eq!(moved, (500, 1));
    let mut expected = ids(&[7, 8]);
    expected.extend((1000..1500).map(id));
    assert_eq!(in_table(&database, "bronze.events"), expected);
    assert_eq!(
        in_table(&database, "bronze.late_events"),
        ids(&[8, 9]),
        "the other date, and the conflict, stay"
    );
    assert_eq!(database.value("SELECT user_id FROM bronze.events WHERE event_id::text LIKE '%008'"), "v");
    let marks =
        "SELECT event_date, rows, late_rows, max_event_time, lateness FROM tidemark_internal.dirty_log
          WHERE rows IS NOT NULL";
    assert_eq!(
        database.rows(marks),
        [["2026-09-01", "500", "500", "2026-09-01 10:00:00+00", "{0,0,0,0,0,0,0,0,0,500,0,0}"]]
    );
    let rest = "SELECT event_date, merged, duplicates, remaining, reason FROM loader.merge_late_events()";
    assert_eq!(
        database.rows(rest),
        [
            ["2026-09-01", "0", "0", "1", "bronze.events has other events with these ids"],
            ["2026-09-02", "1", "0", "0", "NULL"]
        ]
    );
    // Nothing comes twice: neither a second merge nor the same event once more.
    assert_eq!(database.rows(&rest.replace("()", "(from_date => '2026-09-02')")), Vec::<Vec<String>>::new());
    assert_eq!(
        load(&database, &diverted[2..], &["--late-policy", "divert", "--batch-rows", "100"]).duplicate,
        501
    );
}

#[test]
fn an_id_that_comes_with_another_content_is_a_dead_letter() {
    let database = cluster::shared().database();
    let time = "2026-09-01T10:00:00Z";
    let first = line(1, "u", time);
    // What a producer's retry changes is no other content.
    let retry = first.replace(r#""type""#, r#""sentAt":"2026-09-01T10:00:09Z","type""#);
    let other = first.replace(r#""path":"/""#, r#""path":"/x""#);
    // In one batch.
    let counts = load(&database, &[first.clone(), retry.clone(), other.clone(), line(2, "u", time)], &[]);
    assert_eq!((counts.loaded, counts.duplicate, counts.dead), (2, 1, 1));
    // Against what is committed: the direct path first, then, with the known ids taken out, the probed one.
    let counts = load(&database, &[other.clone(), retry.clone(), line(3, "u", time)], &["--batch-rows", "1"]);
    assert_eq!((counts.loaded, counts.duplicate, counts.dead), (1, 1, 1));
    // In pieces: more rows that Postgres refuses than a whole batch is tried again for.
    database
        .connect()
        .batch_execute("ALTER TABLE bronze.events ADD CONSTRAINT no_bad CHECK (user_id <> 'bad')")
        .unwrap();
    let mut lines: Vec<String> = (100..110).map(|n| line(n, "bad", time)).collect();
    lines.extend([retry, line(2, "w", time), line(4, "u", time)]);
    let counts = load(&database, &lines, &[]);
    assert_eq!((counts.loaded, counts.duplicate, counts.dead), (1, 1, 11));
    let paths = "SELECT DISTINCT write_path FROM loader.batches ORDER BY 1";
    assert_eq!(database.column(paths), ["direct", "probed", "staged"]);

    let letters = "SELECT event_id, count(*) FROM loader.dead_letters WHERE reason = 'duplicate_id_conflict'
                    GROUP BY 1 ORDER BY 1";
    assert_eq!(database.rows(letters), [[id(1), "2".to_owned()], [id(2), "1".to_owned()]]);
    let kept = "SELECT payload->'context'->'page'->>'path' FROM bronze.events
                 WHERE event_id = '00000000-0000-4000-8000-000000000001'";
    assert_eq!(database.value(kept), "/", "the first one is kept");
    // A row from before there were fingerprints counts as equal.
    database.connect().batch_execute("UPDATE bronze.events SET payload_hash = NULL").unwrap();
    assert_eq!(load(&database, &[other, String::new()], &[]).duplicate, 1);
    assert_books(&database);
}

#[test]
fn a_retired_date_costs_its_own_events_only() {
    let database = cluster::shared().database();
    let old = line(1, "u", "2026-09-01T10:00:00Z");
    load(&database, &[old], &[]);
    database
        .connect()
        .batch_execute(
            "INSERT INTO tidemark_internal.retired_dates (parent, event_date, partition, state, from_time, to_time,
                                                          retention_action)
             VALUES ('bronze.events', '2026-09-01', 'bronze_partitions.gone', 'dropped', '2026-09-01',
                     '2026-09-02', 'drop');
             DO $$ DECLARE p regclass; BEGIN
                 SELECT partition INTO p FROM tidemark.partitions('bronze.events') WHERE from_date = '2026-09-01';
                 EXECUTE format('ALTER TABLE bronze.events DETACH PARTITION %s', p);
                 EXECUTE format('DROP TABLE %s', p);
             END $$",
        )
        .unwrap();
    let lines = [
        line(2, "u", "2026-09-01T10:00:00Z"),
        line(3, "u", "2026-09-02T10:00:00Z"),
        line(4, "u", "2026-08-31T10:00:00Z"),
    ];
    let counts = load(&database, &lines, &[]);
    assert_eq!((counts.loaded, counts.dead), (2, 1));
    assert_eq!(
        database.rows("SELECT reason, stage, sqlstate FROM loader.dead_letters"),
        [["partition_retired", "partition", "55000"]]
    );
    assert_eq!(in_table(&database, "bronze.events"), ids(&[3, 4]));
    // Diverted events wait: a merge must not bring the date back with them alone.
    let late = [
        line_received(5, "u", "2026-09-01T10:00:00Z", RECEIVED),
        line_received(6, "u", "2026-09-02T10:00:00Z", RECEIVED),
    ];
    assert_eq!(load(&database, &late, &["--late-policy", "divert"]).late_diverted, 2);
    let merged = database
        .rows("SELECT event_date, merged, remaining, reason ~ 'retired' FROM loader.merge_late_events()");
    assert_eq!(merged, [["2026-09-01", "0", "1", "t"], ["2026-09-02", "1", "0", "NULL"]]);
}

#[test]
fn lateness_is_counted_in_the_buckets_of_the_extension() {
    let database = cluster::shared().database();
    // Each bound of each bucket, and a microsecond to both sides of it.
    let sql =
        "SELECT to_char((timestamp '2026-09-30 12:00:00' - b.to_lateness + make_interval(secs => d / 1e6)),
                        'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
           FROM tidemark.lateness_buckets() b CROSS JOIN (VALUES (-1), (0), (1)) AS v(d)
          WHERE b.to_lateness IS NOT NULL";
    let mut times = database.column(sql);
    assert_eq!(times.len(), 33);
    // One before its receipt.
    times.push("2026-09-30T12:00:01Z".to_owned());
    let lines: Vec<String> =
        (1..).zip(&times).map(|(n, time)| line_received(n, "u", time, RECEIVED)).collect();
    assert_eq!(load(&database, &lines, &["--batch-rows", "7"]).loaded, 34);
    let counted = "SELECT event_date, bucket, events FROM tidemark.lateness
                    WHERE source = 'bronze.events'::regclass ORDER BY 1, 2";
    let expected =
        "SELECT e.event_date, b.bucket, count(*) FROM bronze.events e
           JOIN tidemark.lateness_buckets() b ON e.received_at - e.event_time >= coalesce(b.from_lateness, '-1 day')
            AND e.received_at - e.event_time < coalesce(b.to_lateness, '9999 days')
          GROUP BY 1, 2 ORDER BY 1, 2";
    assert_eq!(database.rows(counted), database.rows(expected));
}

#[test]
fn a_refresh_that_takes_long_keeps_nobodys_marks() {
    let database = cluster::shared().database();
    load(&database, &lines()[..1], &[]);
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE gold_storage.session_facts IN ACCESS EXCLUSIVE MODE").unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    std::thread::scope(|scope| {
        let first = scope.spawn(|| database.connect().batch_execute("CALL tidemark.refresh()"));
        wait_until("the first refresh to wait", Duration::from_secs(60), || database.number(waits) == 1);
        load(&database, &lines()[1..2], &[]);
        let mut second = database.connect();
        second.batch_execute("SET lock_timeout = '5s'").unwrap();
        second.batch_execute("CALL tidemark.refresh()").unwrap();
        let log = "SELECT count(*) FROM tidemark_internal.dirty_log";
        assert_eq!(database.number(log), 0, "all marks are passed on");
        let status = "SELECT events_loaded, watermark FROM tidemark.source_status
                       WHERE source = 'bronze.events'::regclass";
        assert_eq!(database.rows(status), [["2", "2026-09-23 11:00:00+00"]]);
        assert_eq!(database.number("SELECT events_loaded FROM tidemark_internal.watermarks"), 2);
        blocker.batch_execute("ROLLBACK").unwrap();
        first.join().unwrap().unwrap();
    });
}
