//! Rows 21 and 23 to 25: partitions that come and go under the loader, other binaries, replays, and a backlog that is
//! larger than the loader may become.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemark_tests::broker::{self, Record};
use tidemark_tests::cluster::{self, explain};
use tidemark_tests::events::{Expected, Generated, line};
use tidemark_tests::oracle::{assert_first_pass, assert_invariants};
use tidemark_tests::process::tidemark;
use tidemark_tests::run::{Barrier, Run, position, wait_for};

use super::{assert_all, mixed_file, slow_down, topic_of};

#[test]
fn row_21_partitions_made_by_the_extension_and_two_loaders_at_once() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 20000 --days 60 --users 400 --seed 61 --malformed 0.003");
    let topic = topic_of(&file.path, "4");
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (database, busy) = (&database, &busy);
            scope.spawn(move || {
                let mut client = database.connect();
                let mut n = 0;
                while busy.load(Ordering::Relaxed) {
                    let from = (n * 7 + worker * 3) % 60;
                    let sql = format!(
                        "SELECT tidemark.ensure_partitions('bronze.events',
                             ARRAY[date '2026-09-01' + {from}, date '2026-09-01' + {from} + 1])"
                    );
                    client.simple_query(&sql).unwrap_or_else(|e| panic!("{}", explain(&e)));
                    n += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let run = Run::new(&database, &topic).batch_rows(400).with(&["--until-caught-up"]);
        let both = [run.start(), run.start()];
        let ended = both.map(|process| process.wait());
        busy.store(false, Ordering::Relaxed);
        for finished in ended {
            let finished = finished.ok();
            assert!(!finished.stderr.contains("40P01"), "a deadlock: {}", finished.stderr);
        }
    });
    assert_all(&database, &file.path);
}

#[test]
fn row_21_a_partition_that_is_detached_under_a_running_load() {
    let database = cluster::shared().database();
    let file = Generated::new(
        "--events 30000 --days 3 --users 900 --seed 62 --malformed 0.003 --duplicates 0 --late 0.3",
    );
    let topic = topic_of(&file.path, "2");
    slow_down(&database, 20);
    // A third of the records belongs to that date, and some batches have nothing else: not for the breaker here.
    let run = Run::new(&database, &topic).batch_rows(500).setting("dead_letters.max_ratio", "1");
    let mut process = run.with(&["--until-caught-up"]).start();
    wait_for(&database, &mut process, 6_000);
    let day = "2026-09-01";
    let find =
        format!("SELECT partition FROM tidemark.partitions('bronze.events') WHERE from_date = '{day}'");
    let partition = database.value(&find);
    let detach = format!("ALTER TABLE bronze.events DETACH PARTITION {partition} CONCURRENTLY");
    database.connect().simple_query(&detach).unwrap_or_else(|e| panic!("{}", explain(&e)));
    let finished = process.wait().ok();
    assert!(!finished.stderr.contains("40P01"), "a deadlock: {}", finished.stderr);
    assert_eq!(finished.counts().read, file.number("lines"));

    let mut expected = Expected::of(&file.path);
    let all = format!(
        "SELECT event_id, event_date FROM bronze.events UNION ALL SELECT event_id, event_date FROM {partition}
         UNION ALL SELECT event_id, '{day}' FROM loader.dead_letters WHERE reason = 'partition_sealed'"
    );
    let found = database.rows(&all);
    let n = found.len();
    let found: std::collections::BTreeSet<(String, String)> =
        found.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
    assert_eq!(found.len(), n, "an event is there twice");
    assert!(found == expected.events, "{} of {}", found.len(), expected.events.len());
    let other = "SELECT encode(payload, 'hex') FROM loader.dead_letters WHERE reason <> 'partition_sealed' ORDER BY 1";
    assert!(database.column(other) == std::mem::take(&mut expected.dead), "other dead letters");
    let sealed = "SELECT count(*) FROM loader.dead_letters WHERE reason = 'partition_sealed'";
    assert!(database.number(sealed) > 0, "the detach came too late to matter");
}

#[test]
fn row_23_an_older_binary_leaves_a_newer_schema_alone() {
    let database = cluster::shared().database();
    let newer = "INSERT INTO loader.schema_history SELECT 9999, 'newer', applied_on, checksum, 9999
                   FROM loader.schema_history WHERE version = 1";
    database.connect().batch_execute(newer).unwrap();
    let refused = tidemark(&["migrate"]).database(&database.superuser_url()).run();
    assert!(refused.refused(78).contains("9999"), "{}", refused.stderr);

    let file = mixed_file(10);
    let topic = topic_of(&file, "1");
    let run = Run::new(&database, &topic).with(&["--until-caught-up"]).start().wait();
    let path = file.to_str().unwrap();
    let load = tidemark(&["load", path]).database(&database.loader_url()).run();
    let replay = ["replay", "--topic", &topic, "--brokers", &broker::shared().address];
    let replay = tidemark(&replay).database(&database.admin_url()).run();
    let letters = tidemark(&["dead-letters", "replay"]).database(&database.admin_url()).run();
    for refused in [run, load, replay, letters] {
        let said = refused.refused(78);
        assert!(said.contains("9999") && said.contains("use the newer tidemark"), "{said}");
    }
    let untouched = "SELECT (SELECT count(*) FROM loader.pipelines) + (SELECT count(*) FROM loader.batches)";
    assert_eq!(database.number(untouched), 0);

    // And a newer binary an older schema.
    database.connect().batch_execute("DELETE FROM loader.schema_history WHERE version > 1").unwrap();
    let load = tidemark(&["load", path]).database(&database.loader_url()).run();
    assert!(load.refused(78).contains("run `tidemark migrate`"), "{}", load.stderr);
}

#[test]
fn row_24_a_range_that_is_read_again_changes_nothing() {
    let database = cluster::shared().database();
    let file = mixed_file(5_000);
    let topic = topic_of(&file, "2");
    let run = Run::new(&database, &topic);
    let first = run.catch_up();
    let state =
        "SELECT count(*), md5(string_agg(concat_ws('|', event_id, event_time, batch_id, source_offset), ''
                     ORDER BY event_id, event_time)) FROM bronze.events;
                 SELECT md5(string_agg(concat_ws('|', partition, \"offset\", payload_sha256, reason), ''
                     ORDER BY partition, \"offset\")), count(*) FROM loader.dead_letters;
                 SELECT count(*), max(id) FROM tidemark_internal.dirty_log";
    let before = database.rows(state);
    assert_all(&database, &file);
    for round in 1..=2 {
        let rewind = "UPDATE loader.offsets SET next_offset = 0, run = run + 1";
        database.connect().batch_execute(rewind).unwrap();
        let again = run.clone().group(&round.to_string()).catch_up();
        assert_eq!((again.read, again.loaded, again.dead), (first.read, 0, first.dead));
        assert_eq!(again.duplicate, first.loaded + first.duplicate);
        assert_eq!(database.rows(state), before, "round {round} has changed something");
        let attempts = "SELECT DISTINCT attempts FROM loader.dead_letters";
        assert_eq!(database.column(attempts), [(round + 1).to_string()]);
        assert_invariants(&database);
    }
}

#[test]
fn row_25_a_backlog_larger_than_memory_may_grow_is_read_within_bounds() {
    let database = cluster::shared().database();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 2, &[]);
    // 360 MB of events.
    let padding = "x".repeat(1_500);
    for part in 0..20u64 {
        let values: Vec<String> = (0..10_000)
            .map(|n| {
                line(part * 10_000 + n, "u", "2026-09-05T10:00:00Z")
                    .replace(r#""path":"/""#, &format!(r#""path":"/{padding}""#))
            })
            .collect();
        let records: Vec<Record<'_>> = (0..2i32)
            .cycle()
            .zip(&values)
            .map(|(partition, v)| Record { partition, value: Some(v.as_bytes()), ..Record::default() })
            .collect();
        broker::shared().append_all(&topic, &records);
    }
    let mut barrier = Barrier::hold(&database, "LOCK TABLE loader.batches IN SHARE MODE");
    let run =
        Run::new(&database, &topic).batch_rows(20_000).with(&["--kafka-config", "max.poll.interval.ms=8000"]);
    let mut process = run.start();
    barrier.wait_for_loader(&mut process);
    // Long enough to be thrown out of the group for not polling.
    std::thread::sleep(Duration::from_secs(11));
    barrier.release();
    wait_for(&database, &mut process, 40_000);
    let peak = process.peak_memory();
    println!("{peak} MiB at most with a backlog of 360 MB, more than it may hold");
    // The goal is the budget (256 MiB) and 150 MiB; it is met with room to spare, or a change has made something of that.
    assert!(peak < 256 + 150 - 100, "{peak} MiB");
    assert_eq!(database.number("SELECT max(epoch) FROM loader.offsets"), 1, "{}", process.errors());
    process.signal("TERM");
    process.wait().ok();
    let read = position(&database);
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), read);
    assert_eq!(database.number("SELECT count(DISTINCT event_id) FROM bronze.events"), read);
    assert_first_pass(&database);
}
