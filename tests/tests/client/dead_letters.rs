//! `tidemark dead-letters`: nothing of a letter is lost on the way to a person, and what can be loaded after all is
//! loaded exactly once.

use serde_json::Value;
use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Generated, assert_books, hex, id, line};
use tidemark_tests::process::{Finished, tidemark};

use crate::kafka::{catch_up, topic_of};

fn letters(database: &Database<'_>, arguments: &[&str]) -> Finished {
    let mut all = vec!["dead-letters"];
    all.extend(arguments);
    tidemark(&all).database(&database.admin_url()).run()
}

fn load(database: &Database<'_>, lines: &[&[u8]], more: &[&str]) -> String {
    let path = events::file(&lines.join(&b'\n'));
    let mut arguments = vec!["load", path.to_str().unwrap()];
    arguments.extend(more);
    tidemark(&arguments).database(&database.loader_url()).run().read_all();
    database.value("SELECT max(topic) FROM loader.dead_letters")
}

fn json(text: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(text).unwrap().as_array().unwrap().clone()
}

fn said(finished: &Finished, what: &str) -> u64 {
    let line = finished.stdout.lines().find(|line| line.contains(what));
    let line = line.unwrap_or_else(|| panic!("no {what} in {}", finished.stdout));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn letters_are_listed_shown_and_exported_whole() {
    let database = cluster::shared().database();
    let good = line(1, "u", "2026-09-01T10:00:00Z");
    let late = line(2, "u", "1969-12-31T10:00:00Z");
    let bytes = b"\xff\x00\x1b[2J";
    let topic = load(&database, &[good.as_bytes(), b"{\"a\":1", bytes, late.as_bytes()], &[]);

    let table = letters(&database, &["list"]).ok().stdout;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains(&format!("{topic}:0:2")) && table.contains("invalid_utf8"), "{table}");
    let all = json(&letters(&database, &["list", "--output", "json"]).ok().stdout);
    assert_eq!(all.len(), 3);
    for (filter, expected) in [
        (&["--reason", "invalid_json"][..], 1),
        (&["--stage", "decode"], 2),
        (&["--stage", "envelope", "--event-date", "1969-12-31"], 1),
        (&["--event-date", "1969-12-30"], 0),
        (&["--pipeline", "file"], 3),
        (&["--pipeline", "web"], 0),
        (&["--since", "1h"], 3),
        (&["--until", "1h"], 0),
        (&["--since", "2026-01-01", "--limit", "2"], 2),
        (&["--status", "replayed"], 0),
        (&["--status", "all"], 3),
    ] {
        let mut arguments = vec!["list", "--output", "json"];
        arguments.extend(filter);
        assert_eq!(json(&letters(&database, &arguments).ok().stdout).len(), expected, "{filter:?}");
    }
    tidemark(&["dead-letters", "list", "--since", "yesterday"]).run_usage();

    let page = letters(&database, &["show", &format!("{topic}:0:2")]).ok().stdout;
    assert!(page.contains("\n\\xff\\x00\\x1b[2J\n") && page.contains("invalid_utf8"), "{page}");
    assert!(!page.contains('\x1b'), "a terminal would obey");
    assert!(letters(&database, &["show", "nothing:0:1"]).refused(64).contains("nothing:0:1"));

    let exported = letters(&database, &["export"]).ok().stdout;
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.len(), 3);
    let of = |reason: &str| exported.iter().find(|l| l["reason"] == reason).unwrap();
    assert_eq!(of("invalid_json")["payload"], "{\"a\":1");
    assert_eq!(of("event_time_too_old")["payload"], late.as_str());
    assert_eq!(of("event_time_too_old")["event_id"], id(2).as_str());
    assert_eq!(
        (&of("invalid_utf8")["payload_base64"], &of("invalid_utf8")["offset"]),
        (&"/wAbWzJK".into(), &2.into())
    );
    let file = events::file(b"");
    letters(&database, &["export", "--reason", "invalid_json", "--out", file.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 1);
}

#[test]
fn letters_are_loaded_once_their_cause_is_gone() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 3000 --days 4 --users 60 --seed 51 --malformed 0.01");
    let first = database_day(&file);
    let path = file.path.to_str().unwrap();
    // The day after the first one as a floor: everything before becomes a dead letter.
    let load = ["load", path, "--event-time-floor", &first];
    let counts = tidemark(&load).database(&database.loader_url()).run().ok().counts();
    let early =
        database.number("SELECT count(*) FROM loader.dead_letters WHERE reason = 'event_time_too_old'");
    let malformed = file.number("malformed") as i64;
    assert!(early > 300, "{early}");
    assert_eq!(counts.dead as i64, early + malformed);
    database.connect().batch_execute("DELETE FROM tidemark_internal.dirty_log").unwrap();

    // The cause is still there.
    let replay = letters(&database, &["replay", "--event-time-floor", &first]).ok();
    assert_eq!((said(&replay, " loaded"), said(&replay, "stay open")), (0, counts.dead));
    let sql = "SELECT count(*), min(attempts), max(attempts) FROM loader.dead_letters WHERE status = 'open'";
    assert_eq!(database.rows(sql), [[counts.dead.to_string(), "2".into(), "2".into()]]);
    assert_eq!(database.number("SELECT count(*) FROM tidemark_internal.dirty_log"), 0);

    // A part first.
    let part = letters(&database, &["replay", "--reason", "event_time_too_old", "--limit", "7"]).ok();
    assert_eq!((said(&part, " loaded"), said(&part, "stay open")), (7, 0));
    let replay = letters(&database, &["replay"]).ok();
    let (loaded, known) = (said(&replay, " loaded") as i64, said(&replay, "loaded already") as i64);
    assert_eq!((loaded + known, said(&replay, "stay open") as i64), (early - 7, malformed));
    assert!(known <= file.number("duplicates") as i64, "{known}");
    let sql = "SELECT status, count(*), min(attempts), max(attempts), count(resolved_at), min(resolved_by)
                 FROM loader.dead_letters GROUP BY status ORDER BY 1";
    let rows = database.rows(sql);
    assert_eq!(rows[0][..5], ["open".to_owned(), malformed.to_string(), "3".into(), "3".into(), "0".into()]);
    assert_eq!(
        rows[1][..5],
        ["replayed".to_owned(), early.to_string(), "3".into(), "3".into(), early.to_string()]
    );
    assert!(rows[1][5].starts_with("e2e_admin"), "{rows:?}");
    assert_eq!(database.number("SELECT count(*) FROM bronze.events") as u64, file.number("events"));
    // Exactly the dates that got rows are dirty.
    assert_eq!(
        database.column("SELECT DISTINCT event_date FROM tidemark_internal.dirty_log ORDER BY 1"),
        database.column(
            "SELECT DISTINCT event_date FROM bronze.events JOIN loader.batches USING (batch_id)
               JOIN loader.pipelines USING (pipeline_id) WHERE name = 'dead-letters' ORDER BY 1"
        )
    );
    // A row knows the line that it came from, not the replay.
    let sql = "SELECT count(*) FROM loader.dead_letters AS d JOIN loader.topics AS t ON t.name = d.topic
                 JOIN bronze.events AS e ON (e.source_topic, e.source_offset) = (t.topic_id, d.\"offset\")
                WHERE d.status = 'replayed'";
    assert_eq!(database.number(sql), 7 + loaded);

    // Once more, nothing happens but another try of those that cannot be loaded.
    let before = database.rows("SELECT count(*), max(loaded_at) FROM bronze.events");
    let again = letters(&database, &["replay"]).ok();
    assert_eq!((said(&again, " loaded"), said(&again, "loaded already")), (0, 0));
    assert_eq!(database.rows("SELECT count(*), max(loaded_at) FROM bronze.events"), before);
    assert_books(&database);
}

/// The day after the first one of a generated file.
fn database_day(file: &Generated) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(&file.path).unwrap()).into_owned();
    let times = text.lines().filter_map(|l| l.split("\"timestamp\":\"").nth(1)).map(|t| t[..10].to_owned());
    let mut days: Vec<String> = times.filter(|t| t.starts_with("202")).collect();
    days.sort();
    days.dedup();
    days[2].clone()
}

#[test]
fn row_24_two_replays_at_once_load_every_letter_once() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 4000 --days 2 --users 60 --seed 52 --malformed 0");
    let path = file.path.to_str().unwrap();
    let load = ["load", path, "--event-time-floor", "2999-01-01"];
    let dead = tidemark(&load).database(&database.loader_url()).run().read_all().counts().dead;
    assert_eq!(dead, file.number("lines"));
    let start = || tidemark(&["dead-letters", "replay"]).database(&database.admin_url()).start();
    let both = [start(), start()].map(|process| process.wait().ok());
    let sum = |what| both.iter().map(|f| said(f, what)).sum::<u64>();
    assert_eq!((sum(" loaded"), sum("stay open")), (file.number("events"), 0));
    assert_eq!(database.number("SELECT count(*) FROM bronze.events") as u64, file.number("events"));
    let sql = "SELECT count(*) FROM loader.dead_letters WHERE status = 'replayed' AND attempts = 2";
    assert_eq!(database.number(sql) as u64, dead);
    assert_books(&database);
}

#[test]
fn a_letter_whose_event_came_another_way_is_resolved_without_a_second_row() {
    let database = cluster::shared().database();
    let event = line(1, "u", "2026-09-01T10:00:00Z");
    load(&database, &[event.as_bytes()], &["--event-time-floor", "2026-10-01"]);
    let path = events::file(format!("{event}\n").as_bytes());
    tidemark(&["load", path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    let replay = letters(&database, &["replay"]).ok();
    assert_eq!((said(&replay, " loaded"), said(&replay, "loaded already")), (0, 1));
    assert_eq!(database.column("SELECT status FROM loader.dead_letters"), ["replayed"]);
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 1);
}

#[test]
fn only_who_may_decide_about_letters_can() {
    let database = cluster::shared().database();
    let topic = load(&database, &[line(1, "u", "1960-09-01T10:00:00Z").as_bytes(), b"x"], &[]);
    for url in [database.loader_url(), database.reader_url()] {
        for command in [&["replay"][..], &["discard", "--note", "x", "--yes"]] {
            let arguments = [&["dead-letters"], command].concat();
            tidemark(&arguments).database(&url).run().refused(77);
        }
    }
    tidemark(&["dead-letters", "list"]).database(&database.reader_url()).run().refused(77);
    tidemark(&["dead-letters", "list"]).database(&database.loader_url()).run().ok();

    // Without a terminal it must be said that it is meant, and why.
    tidemark(&["dead-letters", "discard", "--yes"]).run_usage();
    let letter = format!("{topic}:0:1");
    let discard = ["discard", "--letter", &letter, "--note", "not ours"];
    assert!(letters(&database, &discard).refused(64).contains("--yes"));
    assert_eq!(database.number("SELECT count(*) FROM loader.dead_letters WHERE status = 'open'"), 2);
    let discarded = letters(&database, &[&discard[..], &["--yes"]].concat()).ok();
    assert!(discarded.stdout.contains("discarded 1 "), "{}", discarded.stdout);
    let sql = "SELECT \"offset\", status, note, resolved_by LIKE 'e2e_admin%', encode(payload, 'escape')
                 FROM loader.dead_letters
                WHERE status <> 'open'";
    assert_eq!(database.rows(sql), [["1", "discarded", "not ours", "t", "x"]]);
    // What was discarded is not tried again.
    assert_eq!(said(&letters(&database, &["replay"]).ok(), "stay open"), 1);
}

#[test]
fn a_letter_longer_than_the_limit_stays_open() {
    let database = cluster::shared().database();
    let long = line(1, &"x".repeat(1 << 20), "2026-09-01T10:00:00Z");
    load(&database, &[long.as_bytes()], &[]);
    let replay = letters(&database, &["replay"]).ok();
    assert_eq!((said(&replay, " loaded"), said(&replay, "too long")), (0, 1));
    assert_eq!(database.column("SELECT status || attempts FROM loader.dead_letters"), ["open1"]);
}

#[test]
fn records_read_with_the_wrong_mapping_are_loaded_later_with_their_headers() {
    let database = cluster::shared().database();
    let received = 1_788_256_802_000;
    let structured = format!(
        r#"{{"specversion":"1.0","id":"{}","source":"/shop","type":"sale","time":"2026-09-01T10:00:00Z","data":{{"userId":"ada"}}}}"#,
        id(7)
    );
    let topic = topic_of(&events::file(format!("{structured}\n").as_bytes()), "1");
    let broker = broker::shared();
    let second = id(8);
    let headers: [(&str, &[u8]); 6] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", second.as_bytes()),
        ("ce_source", b"/shop"),
        ("ce_type", b"refund"),
        ("ce_time", b"2026-09-01T10:00:01Z"),
        ("content-type", b"application/json"),
    ];
    broker.append_with_headers(&topic, &headers, br#"{"userId":"bob","sum":1}"#, received);
    assert_eq!(catch_up(&database, &topic, &[]).dead, 2);

    let exported = letters(&database, &["export"]).ok().stdout;
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&Value> = exported[1]["headers"].as_array().unwrap().iter().map(|h| &h["name"]).collect();
    assert_eq!((names.len(), names[0]), (6, &"ce_specversion".into()));
    let page = letters(&database, &["show", &format!("{topic}:0:1")]).ok().stdout;
    assert!(page.contains("ce_type: refund"), "{page}");

    let replay = letters(&database, &["replay", "--mapping", "cloudevents"]).ok();
    assert_eq!((said(&replay, " loaded"), said(&replay, "stay open")), (2, 0));
    let sql =
        "SELECT event_id, event_type, user_id, event_time, payload->>'source' FROM bronze.events ORDER BY 1";
    let expected = [
        [id(7), "sale".into(), "ada".into(), "2026-09-01 10:00:00+00".into(), "/shop".into()],
        [id(8), "refund".into(), "bob".into(), "2026-09-01 10:00:01+00".into(), "/shop".to_owned()],
    ];
    assert_eq!(database.rows(&format!("SET TIME ZONE 'UTC'; {sql}")), expected);

    // Read with the right mapping from the start, the rows are the same.
    let direct = cluster::shared().database();
    assert_eq!(catch_up(&direct, &topic, &["--mapping", "cloudevents"]).loaded, 2);
    assert_eq!(direct.rows(&format!("SET TIME ZONE 'UTC'; {sql}")), expected);
    let payload = "SELECT payload FROM bronze.events ORDER BY event_id";
    assert_eq!(direct.rows(payload), database.rows(payload));
    // The raw bytes of the record were what the letter kept.
    let kept = database.column("SELECT encode(payload, 'hex') FROM loader.dead_letters ORDER BY \"offset\"");
    assert_eq!(kept[1], hex(br#"{"userId":"bob","sum":1}"#));
}
