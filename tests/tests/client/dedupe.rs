//! The modes of `--dedupe`: what counts as the same event in each, and which tables they refuse.

use std::time::Duration;

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books, id, line, line_received};
use tidemark_tests::process::{Counts, Finished, Process, tidemark};
use tidemark_tests::run::Barrier;

use crate::kafka::{catch_up, topic_of};

fn load(database: &Database<'_>, lines: &[String], more: &[&str]) -> Finished {
    let path = events::file(format!("{}\n", lines.join("\n")).as_bytes());
    let mut arguments = vec!["load", path.to_str().unwrap()];
    arguments.extend(more);
    tidemark(&arguments).database(&database.loader_url()).run()
}

fn outcome(counts: &Counts) -> (u64, u64, u64) {
    (counts.loaded, counts.duplicate, counts.dead)
}

#[test]
fn by_offsets_every_record_is_loaded_once_whatever_its_id() {
    let database = cluster::shared().database();
    let same = line(1, "u", "2026-09-01T10:00:00Z");
    let offsets = ["--dedupe", "offsets"];
    // A table whose partitions have the unique index is refused before anything happens.
    let refused = load(&database, std::slice::from_ref(&same), &offsets);
    assert!(refused.refused(78).contains("partition_unique"), "{}", refused.stderr);
    database
        .connect()
        .batch_execute(
            "SELECT tidemark.manage_partitions('bronze.events', partition_schema => 'bronze_partitions',
                 partition_unique => '{}');
             DO $$ DECLARE i regclass; BEGIN
                 FOR i IN SELECT indexrelid FROM pg_index
                           WHERE indisunique AND indrelid IN (SELECT inhrelid FROM pg_inherits
                                                               WHERE inhparent = 'bronze.events'::regclass)
                 LOOP EXECUTE format('DROP INDEX %s', i); END LOOP; END $$",
        )
        .unwrap();
    let topic = topic_of(&events::file([same.as_str(), &same, &same].join("\n").as_bytes()), "1");
    assert_eq!(outcome(&catch_up(&database, &topic, &offsets)), (3, 0, 0));
    assert_eq!(catch_up(&database, &topic, &offsets).read, 0);
    let sql = "SELECT count(*), count(DISTINCT event_id), count(DISTINCT (source_partition, source_offset))
                 FROM bronze.events";
    assert_eq!(database.rows(sql), [["3", "1", "3"]]);
    // And the other modes are refused there: they would load everything twice.
    assert!(load(&database, &[same], &[]).refused(78).contains("--dedupe offsets"));
    assert_books(&database);
}

#[test]
fn by_id_and_date_the_same_id_on_two_dates_is_two_events() {
    let database = cluster::shared().database();
    let lines = [line(1, "u", "2026-09-01T10:00:00Z"), line(1, "u", "2026-09-02T10:00:00Z")];
    assert_eq!(outcome(&load(&database, &lines, &[]).ok().counts()), (2, 0, 0));
}

#[test]
fn by_uuidv7_an_id_is_one_event_whatever_its_time() {
    let database = cluster::shared().database();
    let v7 = ["--dedupe", "id_uuidv7"];
    // 2026-09-01T23:59:59.999Z
    let late = "01a05f6a-57ff-7000-8000-000000000001";
    let ms = u64::from_str_radix("01a05f6a57ff", 16).unwrap();
    let made =
        database.value(&format!("SET TIME ZONE 'UTC'; SELECT to_timestamp({ms} / 1000.0)::timestamptz(3)"));
    let day = &made[..10];
    let next = database.value(&format!("SELECT '{day}'::date + 1"));
    let event = |id: &str, time: &str| {
        line_received(1, "u", time, &format!("{next}T00:10:00Z")).replace(&events::id(1), id)
    };
    let own = format!("{day}T00:00:00.000001Z");
    let other = format!("{next}T00:00:00.5Z");
    // Its own time on the id's date stays; another date is replaced by the id's time.
    assert_eq!(outcome(&load(&database, &[event(late, &own)], &v7).ok().counts()), (1, 0, 0));
    // It says something else with another time, which makes it a conflict; behind it comes what is there already.
    assert_eq!(
        outcome(&load(&database, &[event(late, &other), event(late, &own)], &v7).ok().counts()),
        (0, 1, 1)
    );
    assert_eq!(database.column("SELECT reason FROM loader.dead_letters"), ["duplicate_id_conflict"]);
    database.connect().batch_execute("UPDATE loader.dead_letters SET status = 'discarded'").unwrap();
    let second = late.replace("0001", "0002");
    assert_eq!(outcome(&load(&database, &[event(&second, &other)], &v7).ok().counts()), (1, 0, 0));
    let sql = "SET TIME ZONE 'UTC'; SELECT event_time, event_date FROM bronze.events ORDER BY event_id";
    assert_eq!(
        database.rows(sql),
        [[format!("{day} 00:00:00.000001+00"), day.to_owned()], [made.clone(), day.to_owned()]]
    );
    // Anything but a UUIDv7 is a dead letter.
    let none = event(late, &own).replace(&format!("\"messageId\":\"{late}\","), "");
    let counts = load(&database, &[event(&id(5), &own), event("text", &own), none], &v7).read_all().counts();
    assert_eq!(outcome(&counts), (0, 0, 3));
    let reasons = "SELECT DISTINCT reason FROM loader.dead_letters WHERE status = 'open'";
    assert_eq!(database.column(reasons), ["not_uuidv7"]);
    assert_books(&database);
}

#[test]
fn an_event_that_another_program_wrote_down_again_is_a_duplicate() {
    let database = cluster::shared().database();
    // As a browser wrote them, and as an archive has them: spaces, escapes, another order, other zeros.
    let written = [
        r#"{"messageId":"b1","event":"x","timestamp":"2026-10-02T08:15:22Z","properties":{"a":1,"b":2}}"#,
        r#"{"messageId":"b2","event":"x","timestamp":"2026-10-02T08:15:23Z","properties":{"city":"Köln","n":[1e2]}}"#,
        r#"{"messageId":"b3","event":"x","timestamp":"2026-10-02T08:15:24Z","properties":{"revenue":18.50}}"#,
    ];
    let archived = [
        r#"{"event": "x", "messageId": "b1", "properties": {"b": 2, "a": 1}, "timestamp": "2026-10-02T08:15:22Z"}"#,
        r#"{"event": "x", "messageId": "b2", "properties": {"n": [100], "city": "K\u00f6ln"},
            "timestamp": "2026-10-02T08:15:23Z"}"#,
        r#"{"event": "\u0078", "messageId": "b3", "properties": {"revenue": 18.5},
            "timestamp": "2026-10-02T08:15:24Z"}"#,
    ];
    let lines = |lines: &[&str]| lines.iter().map(|line| line.replace('\n', " ")).collect::<Vec<_>>();
    assert_eq!(outcome(&load(&database, &lines(&written), &[]).ok().counts()), (3, 0, 0));
    assert_eq!(outcome(&load(&database, &lines(&archived), &[]).ok().counts()), (0, 3, 0));
    let stored = database.column("SELECT payload FROM bronze.events");
    assert_eq!(outcome(&load(&database, &stored, &[]).ok().counts()), (0, 3, 0), "out of bronze itself");
    let other = lines(&[&written[2].replace("18.50", "18.51")]);
    assert_eq!(outcome(&load(&database, &other, &[]).read_all().counts()), (0, 0, 1));
    assert_books(&database);
}

#[test]
fn what_a_snowplow_collector_adds_makes_no_other_event() {
    let database = cluster::shared().database();
    let sent = |minute: u32, page: &str| {
        format!(
            r#"{{"event_id":"{}","event_name":"page_view","domain_userid":"d",
                "derived_tstamp":"2026-10-02T08:{minute}:22Z","dvce_created_tstamp":"2026-10-02T08:15:22Z",
                "dvce_sent_tstamp":"2026-10-02T08:{minute}:23Z",
                "collector_tstamp":"2026-10-02T08:{minute}:24Z","etl_tstamp":"2026-10-02T08:{minute}:30Z",
                "network_userid":"n{minute}","v_collector":"{minute}","v_etl":"{minute}","page_urlpath":"{page}"}}"#,
            id(1)
        )
        .replace('\n', " ")
    };
    let snowplow = ["--mapping", "snowplow"];
    let counts =
        load(&database, &[sent(15, "/"), sent(16, "/"), sent(17, "/other")], &snowplow).ok().counts();
    assert_eq!(outcome(&counts), (1, 1, 1));
}

#[test]
fn events_of_another_shape_are_read_by_pointers() {
    let database = cluster::shared().database();
    let content = format!(
        r#"{{"meta":{{"id":"{}","at":"2026-09-01T10:00:00Z","got":"2026-09-01T10:00:02Z"}},"what":"sale","who":{{"id":17}}}}"#,
        id(1)
    );
    let lines = [content, r#"{"what":"no time"}"#.to_owned()];
    let pointers = [
        "--envelope",
        "event_id=/meta/id",
        "--envelope",
        "event_time=/meta/at",
        "--envelope",
        "received_at=/meta/got",
        "--envelope",
        "event_type=/what",
        "--envelope",
        "user_id=/who/id",
    ];
    assert_eq!(outcome(&load(&database, &lines, &pointers).ok().counts()), (1, 0, 1));
    let sql = "SET TIME ZONE 'UTC'; SELECT event_id, event_type, user_id, event_time, received_at FROM bronze.events";
    assert_eq!(
        database.rows(sql),
        [[id(1).as_str(), "sale", "17", "2026-09-01 10:00:00+00", "2026-09-01 10:00:02+00"]]
    );
    let detail = "SELECT event_type, detail FROM loader.dead_letters";
    assert_eq!(database.rows(detail), [["no time", "no event_time: /meta/at is not set"]]);
    tidemark(&["load", "x", "--envelope", "user=/x"]).run_usage();
}

/// Makes the ledger so many days older, as if the server had waited.
fn age(database: &Database<'_>, days: i32) {
    let sql = format!(
        "SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD';
         DO $$ DECLARE d date; old text; new text; BEGIN
             LOCK TABLE loader.seen_ids IN ACCESS EXCLUSIVE MODE;
             FOR d IN SELECT received_date FROM loader.seen_dates ORDER BY 1 LOOP
                 old := 'seen_ids_' || to_char(d, 'YYYYMMDD');
                 new := 'seen_ids_' || to_char(d - {days}, 'YYYYMMDD');
                 EXECUTE format('ALTER TABLE loader.seen_ids DETACH PARTITION loader.%I', old);
                 EXECUTE format('UPDATE loader.%I SET received_date = %L', old, d - {days});
                 EXECUTE format('ALTER TABLE loader.%I RENAME TO %I', old, new);
                 EXECUTE format('ALTER TABLE loader.seen_ids ATTACH PARTITION loader.%I FOR VALUES IN (%L)', new,
                                d - {days});
                 UPDATE loader.seen_dates SET received_date = d - {days} WHERE received_date = d;
             END LOOP; END $$"
    );
    database.connect().batch_execute(&sql).unwrap();
}

#[test]
fn by_window_an_id_is_one_event_for_some_days_of_receipt() {
    let database = cluster::shared().database();
    let window = ["--dedupe", "id_window", "--dedupe-window-days", "3"];
    let event = |n, day: u32| line(n, "u", &format!("2026-09-{day:02}T10:00:00Z"));
    let load = |lines: &[String], more: &[&str]| outcome(&load(&database, lines, more).ok().counts());
    // The same id on two dates, in one batch and in two, is one event.
    assert_eq!(load(&[event(1, 1), event(1, 2)], &window), (1, 1, 0));
    age(&database, 2);
    assert_eq!(load(&[event(1, 3), event(2, 3)], &window), (1, 1, 0));
    // Received in the future, by the clock of its producer: nothing is forgotten for that.
    let future = line_received(8, "u", "2026-09-01T00:00:00Z", "2099-01-01T00:00:00Z");
    assert_eq!(load(&[future], &window), (1, 0, 0));
    assert_eq!(load(&[event(1, 4), event(2, 4)], &window), (0, 2, 0));
    // On the third day after the first it is another event; on its own date the index still knows it.
    age(&database, 1);
    assert_eq!(load(&[event(1, 1)], &window), (0, 1, 0));
    age(&database, 3);
    assert_eq!(load(&[event(1, 5), event(3, 1)], &window), (2, 0, 0));
    assert_eq!(load(&[event(1, 6), event(2, 3)], &window), (0, 2, 0));
    assert_eq!(database.number("SELECT count(*) FROM bronze.events WHERE event_id::text LIKE '%1'"), 2);
    // What no window reaches goes with its partition, in maintenance.
    let dates = "SELECT count(*) FROM loader.seen_dates";
    let before = database.number(dates);
    let maintain = tidemark(&["maintain"]).database(&database.loader_url()).run();
    let said = maintain.stdout;
    assert!(before > 1 && said.contains(&format!("dates of seen ids dropped: {}\n", before - 1)), "{said}");
    let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'loader.seen_ids'::regclass";
    assert_eq!((database.number(dates), database.number(parts)), (1, 1));
    // Another table has another ledger; a mode without one does not ask it.
    assert_eq!(load(&[event(3, 19)], &[]), (1, 0, 0));
    assert_books(&database);
}

#[test]
fn by_window_an_id_that_is_just_being_noted_is_waited_for_also_at_midnight() {
    for (end, expected) in [("COMMIT", (0, 1, 0)), ("ROLLBACK", (1, 0, 0))] {
        let database = cluster::shared().database();
        let window = ["--dedupe", "id_window"];
        load(&database, &[line(1, "u", "2026-09-01T10:00:00Z")], &window).ok();
        // The date of yesterday is the last one yet, and a transaction notes an id on it.
        age(&database, 1);
        let mut other = Barrier::hold(
            &database,
            &format!(
                "LOCK TABLE ONLY loader.seen_ids IN ROW EXCLUSIVE MODE;
                 INSERT INTO loader.seen_ids SELECT 'bronze.events', '{}', received_date FROM loader.seen_dates",
                id(2)
            ),
        );
        let file = events::file(line(2, "u", "2026-09-02T10:00:00Z").as_bytes());
        let load = ["load", file.to_str().unwrap(), window[0], window[1]];
        let mut process = tidemark(&load).database(&database.loader_url()).start();
        other.wait_for_loader(&mut process);
        // Longer than it waits for the lock under which a date begins.
        std::thread::sleep(Duration::from_secs(3));
        other.wait_for_loader(&mut process);
        other.end(end);
        assert_eq!(outcome(&process.wait().ok().counts()), expected, "{end}");
    }
}

#[test]
fn by_window_two_loaders_load_each_id_once_whatever_date_begins_meanwhile() {
    let database = cluster::shared().database();
    // No id has the same event date in both: only the ledger knows.
    let files = [1, 2].map(|day| {
        let time = format!("2026-09-0{day}T10:00:00Z");
        let lines: Vec<String> = (1..=4_000).map(|n| line(n, &format!("user-{day}"), &time)).collect();
        events::file(lines.join("\n").as_bytes())
    });
    let mut processes = files.each_ref().map(|file| {
        let load = ["load", file.to_str().unwrap(), "--dedupe", "id_window", "--dedupe-window-days", "366"];
        tidemark(&[&load[..], &["--batch-rows", "50"]].concat()).database(&database.loader_url()).start()
    });
    let mut midnights = 0;
    while processes.iter_mut().all(Process::is_running) && midnights < 300 {
        age(&database, 1);
        midnights += 1;
    }
    let counts = processes.map(|process| process.wait().ok().counts());
    assert!(midnights > 0, "{midnights}");
    assert_eq!(counts.iter().map(|c| c.loaded).sum::<u64>(), 4_000);
    assert_eq!(counts.iter().map(|c| c.duplicate).sum::<u64>(), 4_000);
    let sql = "SELECT count(*), count(DISTINCT event_id), min(event_id::text), max(event_id::text) FROM bronze.events";
    assert_eq!(database.rows(sql), [["4000", "4000", &id(1), &id(4_000)]]);
    assert_books(&database);
}

#[test]
fn an_event_that_postgres_refused_is_not_taken_for_seen() {
    let database = cluster::shared().database();
    database
        .connect()
        .batch_execute("ALTER TABLE bronze.events ADD CONSTRAINT no_bob CHECK (user_id <> 'bob') NOT VALID")
        .unwrap();
    let window = ["--dedupe", "id_window"];
    let lines: Vec<String> =
        (1..=4).map(|n| line(n, if n % 2 == 0 { "bob" } else { "ada" }, "2026-09-01T10:00:00Z")).collect();
    assert_eq!(outcome(&load(&database, &lines, &window).ok().counts()), (2, 0, 2));
    assert_eq!(database.number("SELECT count(*) FROM loader.seen_ids"), 2);
    database.connect().batch_execute("ALTER TABLE bronze.events DROP CONSTRAINT no_bob").unwrap();
    let replay =
        tidemark(&["dead-letters", "replay", "--dedupe", "id_window"]).database(&database.admin_url());
    let replay = replay.run().ok();
    assert!(replay.stdout.contains("  2 loaded\n"), "{}", replay.stdout);
    assert_eq!(database.number("SELECT count(*) FROM loader.seen_ids"), 4);
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 4);
}
