//! `tidemark run`: every record of a topic ends exactly once in Postgres, whoever is killed and whatever Kafka
//! believes about offsets.

use std::path::Path;
use std::time::Duration;

use tidemark_tests::broker;
pub use tidemark_tests::broker::topic_of;
use tidemark_tests::cluster::{self, Database, rows};
use tidemark_tests::events::{self, Generated, assert_books, assert_exact, id, line};
use tidemark_tests::process::{Counts, Process, tidemark};
use tidemark_tests::{run, wait_until};

pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn append(path: &Path, topic: &str, partitions: &str) {
    broker::produce_file(path, &broker::shared().address, topic, partitions);
}

/// Starts `tidemark run`. The broker allows no shorter session; after a kill -9 the next one waits for its end.
pub fn start(database: &Database<'_>, topic: &str, more: &[&str]) -> Process {
    let brokers = &broker::shared().address;
    let group = format!("group-of-{topic}");
    let mut arguments = vec!["run", "--brokers", brokers, "--topic", topic, "--maintain-every", "off"];
    arguments.extend([
        "--kafka-config",
        "session.timeout.ms=6000",
        "--kafka-config",
        "heartbeat.interval.ms=500",
    ]);
    if !more.contains(&"--group") {
        arguments.extend(["--group", &group]);
    }
    arguments.extend(more);
    let lanes = run::lanes();
    arguments.extend(lanes.iter().flat_map(|n| ["--lanes", n]));
    tidemark(&arguments).database(&database.loader_url()).start()
}

/// Runs until everything is loaded that the topic holds.
pub fn catch_up(database: &Database<'_>, topic: &str, more: &[&str]) -> Counts {
    let mut arguments = vec!["--until-caught-up"];
    arguments.extend(more);
    start(database, topic, &arguments).wait().ok().counts()
}

fn position(database: &Database<'_>) -> i64 {
    database.number("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets")
}

#[test]
fn a_topic_gives_the_same_rows_as_the_file_that_was_produced_into_it() {
    let file =
        Generated::new("--events 20000 --days 8 --users 300 --seed 11 --malformed 0.01 --duplicates 0.02");
    let (by_file, by_kafka) = (cluster::shared().database(), cluster::shared().database());
    tidemark(&["load", file.path.to_str().unwrap()]).database(&by_file.loader_url()).run().ok();
    let topic = topic_of(&file.path, "3");
    let counts = catch_up(&by_kafka, &topic, &[]);
    assert_eq!(
        (counts.read, counts.loaded, counts.duplicate, counts.dead),
        (file.number("lines"), file.number("events"), file.number("duplicates"), file.number("malformed"))
    );
    assert_exact(&by_kafka, &file.path);
    // All but where it came from and when it was loaded.
    for sql in [
        "SELECT count(*), md5(string_agg(md5(concat_ws('|', event_id, event_time, event_date, event_type, user_id,
                anonymous_id, received_at, payload)), '' ORDER BY event_id, event_time)) FROM bronze.events",
        "SELECT count(*), md5(string_agg(concat_ws('|', payload_sha256, stage, reason, detail), ''
                ORDER BY payload_sha256, reason)) FROM loader.dead_letters",
        "SELECT string_agg(DISTINCT event_date::text, ' ' ORDER BY event_date::text) FROM tidemark_internal.dirty_log",
    ] {
        assert_eq!(by_kafka.rows(sql), by_file.rows(sql), "{sql}");
    }
}

#[test]
fn a_run_that_was_killed_in_the_middle_of_a_topic_goes_on_exactly() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let topic = topic_of(&file.path, "4");
    let lines = file.number("lines") as i64;
    assert_eq!(broker::shared().records(&topic), lines, "produced exactly once");
    let mut done = 0;
    for part in 1..=2 {
        let process = start(&database, &topic, &["--batch-rows", "5000"]);
        wait_until("the run to get on", PATIENCE, || position(&database) >= part * 60_000);
        process.kill_9();
        database.settle();
        let now = position(&database);
        assert!(now > done && now < lines, "killed at record {now} of {lines}: not in the middle");
        done = now;
        assert_books(&database);
    }
    let counts = catch_up(&database, &topic, &[]);
    // Nothing that was committed is read again. What a killed process had committed but not reported counts as done.
    assert_eq!(counts.read as i64, lines - done);
    assert_exact(&database, &file.path);
    let sql = "SELECT count(*), count(DISTINCT event_id), (SELECT count(*) FROM loader.dead_letters)
                 FROM bronze.events";
    let events = file.number("events").to_string();
    assert_eq!(database.rows(sql), [[events.clone(), events, file.number("malformed").to_string()]]);
}

#[test]
fn position_comes_from_postgres_whatever_kafka_says() {
    let database = cluster::shared().database();
    let first = Generated::new("--events 3000 --days 2 --users 50 --seed 21 --malformed 0.01");
    let topic = topic_of(&first.path, "3");
    let group = format!("group-of-{topic}");
    assert_eq!(catch_up(&database, &topic, &[]).read, first.number("lines"));
    let broker = broker::shared();

    // Kafka has forgotten the group.
    broker.forget_group(&group);
    assert_eq!(broker.committed(&group, &topic), 0);
    assert_eq!(catch_up(&database, &topic, &[]).read, 0);

    // Another group never had any offsets.
    assert_eq!(catch_up(&database, &topic, &["--group", &format!("other-{group}")]).read, 0);

    // Kafka believes that more was read than was.
    let second = Generated::new("--events 2000 --days 2 --users 50 --seed 22 --malformed 0.01");
    append(&second.path, &topic, "3");
    broker.commit_to_the_end(&group, &topic);
    assert_eq!(broker.committed(&group, &topic), broker.records(&topic));
    assert_eq!(catch_up(&database, &topic, &[]).read, second.number("lines"));

    let both = [std::fs::read(&first.path).unwrap(), std::fs::read(&second.path).unwrap()].concat();
    assert_exact(&database, &events::file(&both));

    // Another pipeline has a position of its own, and the ids keep its events out.
    let counts = catch_up(&database, &topic, &["--pipeline", "again"]);
    assert_eq!((counts.loaded, counts.read), (0, first.number("lines") + second.number("lines")));
    assert_books(&database);
}

#[test]
fn row_02_a_terminated_run_exits_with_0_and_loses_nothing() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let topic = topic_of(&file.path, "2");
    let process = start(&database, &topic, &["--batch-rows", "2000"]);
    wait_until("the run to get on", PATIENCE, || position(&database) >= 20_000);
    process.signal("TERM");
    let counts = process.wait().ok().counts();
    let done = position(&database);
    assert!(done < file.number("lines") as i64, "terminated at record {done}: not in the middle");
    assert_eq!(counts.read as i64, done, "everything it reported is committed, and the other way round");
    assert_books(&database);
    assert_eq!(catch_up(&database, &topic, &[]).read, file.number("lines") - counts.read);
    assert_exact(&database, &file.path);
}

#[test]
fn two_runs_share_a_topic_and_one_is_killed() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let topic = topic_of(&file.path, "4");
    let small = ["--batch-rows", "1000"];
    let one = start(&database, &topic, &small);
    wait_until("the first run to get on", PATIENCE, || position(&database) > 0);
    let two = start(&database, &topic, &small);
    let owners = "SELECT count(DISTINCT owner) FROM loader.offsets";
    let (mut one, mut two) = (one, two);
    wait_until("both runs to own partitions", PATIENCE, || {
        assert!(one.is_running() && two.is_running(), "{}{}", one.errors(), two.errors());
        database.number(owners) == 2
    });
    assert!(position(&database) < file.number("lines") as i64, "all was loaded before there were two runs");
    one.kill_9();
    wait_until("the second run to load everything", PATIENCE, || {
        assert!(two.is_running(), "{}", two.errors());
        position(&database) == file.number("lines") as i64
    });
    two.signal("TERM");
    two.wait().ok();
    assert_exact(&database, &file.path);
}

#[test]
fn row_08_a_run_that_was_frozen_inside_a_transaction_commits_nothing_after_another_took_over() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 30000 --days 3 --users 500 --seed 31 --malformed 0.003");
    let topic = topic_of(&file.path, "1");
    let batches = ["--batch-rows", "3000"];
    let zombie = start(&database, &topic, &batches);
    wait_until("the first run to get on", PATIENCE, || position(&database) > 0);

    // It has copied its rows and waits for our lock on its way to the position: freeze it there.
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE loader.batches IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut observer = database.connect();
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'loader.batches'::regclass AND NOT granted";
    wait_until("a batch to come to its audit row", PATIENCE, || rows(&mut observer, waiting)[0][0] == "1");
    zombie.signal("STOP");
    blocker.batch_execute("ROLLBACK").unwrap();
    let before = position(&database);
    assert!(before < file.number("lines") as i64, "nothing was left for anybody else");

    let mut heir = start(&database, &topic, &batches);
    wait_until("the second run to claim the partition", PATIENCE, || {
        assert!(heir.is_running(), "{}", heir.errors());
        database.number("SELECT max(epoch) FROM loader.offsets") >= 2
    });
    let owner = database.value("SELECT owner FROM loader.offsets");
    zombie.signal("CONT");
    wait_until("everything to be loaded", PATIENCE, || position(&database) == file.number("lines") as i64);
    wait_until("the first run to notice", PATIENCE, || zombie.errors().contains("claimed"));
    assert_exact(&database, &file.path);
    // The batch that was open when the other one claimed the partition is the other one's.
    let next = format!(
        "SELECT owner FROM loader.batch_ranges JOIN loader.batches USING (batch_id) WHERE from_offset = {before}"
    );
    assert_eq!(database.value(&next), owner, "a stale epoch has committed");
    for process in [zombie, heir] {
        process.signal("TERM");
        process.wait().ok();
    }
    assert_exact(&database, &file.path);
}

#[test]
fn a_run_whose_connections_are_cut_ends_exactly() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let topic = topic_of(&file.path, "2");
    let mut process = start(&database, &topic, &["--batch-rows", "2000", "--until-caught-up"]);
    let cut = crate::cut_connections(&database, &mut process, 6);
    assert!(cut >= 3, "the run was over after {cut} cuts");
    let counts = process.wait().ok().counts();
    assert_eq!(counts.read, file.number("lines"), "what it reports is what it did");
    assert_exact(&database, &file.path);
}

#[test]
fn records_without_a_value_and_odd_keys_are_counted_and_passed_over() {
    let database = cluster::shared().database();
    let content =
        format!("{}\n{}\n", line(1, "u", "2026-09-01T10:00:00Z"), line(2, "u", "2026-09-01T10:00:01Z"));
    let topic = topic_of(&events::file(content.as_bytes()), "1");
    let broker = broker::shared();
    let received = 1_788_256_802_000;
    broker.append(&topic, Some(b"u"), None, received);
    broker.append(&topic, Some(b"\xff\x00"), Some(b"no event"), received);
    broker.append(&topic, None, Some(line(3, "u", "2026-09-01T10:00:02Z").as_bytes()), received);
    broker.append(&topic, None, Some(b""), received);
    broker.append(&topic, None, None, received);
    let counts = catch_up(&database, &topic, &[]);
    assert_eq!((counts.read, counts.loaded, counts.tombstone), (7, 3, 2));
    assert_eq!(counts.dead + counts.filtered, 2);
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2), id(3)]);
    let letter =
        "SELECT \"offset\", encode(key, 'hex'), encode(payload, 'escape'), reason FROM loader.dead_letters
                   WHERE payload <> ''";
    assert_eq!(database.rows(letter), [["3", "ff00", "no event", "invalid_json"]]);
    // Read to the very end, tombstones included.
    assert_eq!(position(&database), 7);
    assert_eq!(catch_up(&database, &topic, &[]).read, 0);
    assert_books(&database);
}
