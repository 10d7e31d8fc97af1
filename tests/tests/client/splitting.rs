//! Records that hold several events, in files and in Kafka: positions count records, books count events, and a dead letter
//! is one event.

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books, id};
use tidemark_tests::oracle::assert_invariants;
use tidemark_tests::process::{Finished, tidemark};

use crate::kafka::{catch_up, topic_of};

fn event(n: u64) -> String {
    let second = 20 + n % 30;
    let id = id(n);
    format!(r#"{{"messageId":"{id}","event":"x","timestamp":"2026-10-02T08:15:{second}Z","userId":"u{n}"}}"#)
}

fn lines() -> [String; 5] {
    let no_time = r#"{"messageId":"bad","event":"x","at":"2026-10-02T08:16:00Z","userId":"late"}"#;
    [
        format!("[{}, {}]", event(1), event(2)),
        format!(r#"{{"batch": [{}, {no_time}, {}], "sentAt": "2026-10-02T08:15:22Z"}}"#, event(3), event(1)),
        event(4),
        r#"{"events":[]}"#.to_owned(),
        format!("{}{}", event(5), event(6)),
    ]
}

const LOADED: &str =
    "SELECT right(event_id::text, 2), source_offset, source_index FROM bronze.events ORDER BY 1";

fn letters(database: &Database<'_>, arguments: &[&str]) -> Finished {
    tidemark(&[&["dead-letters"], arguments].concat()).database(&database.admin_url()).run()
}

fn is_as_the_lines_say(database: &Database<'_>, name: &str) {
    assert_eq!(
        database.rows(LOADED),
        [["01", "0", "1"], ["02", "0", "2"], ["03", "1", "1"], ["04", "2", "NULL"]]
    );
    let dead = "SELECT \"offset\", source_index, reason, detail, convert_from(payload, 'UTF8') LIKE '{\"messageId\":\"bad\"%'
                  FROM loader.dead_letters ORDER BY 1";
    assert_eq!(
        database.rows(dead),
        [
            ["1", "2", "missing_event_time", "neither timestamp nor originalTimestamp is set", "t"],
            ["4", "0", "invalid_json", "2 JSON values, where one event is expected", "f"],
        ]
    );
    // Five records, eight events and an empty one.
    let books = "SELECT sum(n_records), sum(n_read), sum(n_loaded), sum(n_duplicate), sum(n_dead), sum(n_filtered) FROM loader.batches";
    assert_eq!(database.rows(books), [["5", "8", "4", "1", "2", "1"]]);
    assert_eq!(database.number("SELECT next_offset FROM loader.offsets"), 5);
    assert_books(database);
    assert_invariants(database);

    let list = letters(database, &["list"]).ok().stdout;
    assert!(list.contains(&format!("{name}:0:1#2 ")) && list.contains(&format!("{name}:0:4 ")), "{list}");
    let page = letters(database, &["show", &format!("{name}:0:1#2")]).ok().stdout;
    assert!(page.contains(&format!("{name}:0:1#2")) && page.contains("\n{\"messageId\":\"bad\""), "{page}");
    // The one event is tried again, and not the record that it came with.
    let pointer = "event_time=/at";
    let replay =
        letters(database, &["replay", "--letter", &format!("{name}:0:1#2"), "--envelope", pointer]).ok();
    assert!(replay.stdout.starts_with("tried 1 dead letters\n  1 loaded"), "{}", replay.stdout);
    let sql = "SELECT user_id, source_offset, source_index FROM bronze.events WHERE user_id = 'late'";
    assert_eq!(database.rows(sql), [["late", "1", "2"]]);
    let open = "SELECT \"offset\", source_index FROM loader.dead_letters WHERE status = 'open'";
    assert_eq!(database.rows(open), [["4", "0"]]);
    assert_books(database);
}

#[test]
fn lines_of_a_file_that_hold_several_events_are_split() {
    let database = cluster::shared().database();
    let file = events::file(lines().join("\n").as_bytes());
    let load = ["load", file.to_str().unwrap(), "--batch-rows", "2"];
    tidemark(&load).database(&database.loader_url()).run().ok();
    let name = database.column("SELECT topic FROM loader.dead_letters LIMIT 1").remove(0);
    is_as_the_lines_say(&database, &name);
    let again = tidemark(&[&load[..], &["--restart"]].concat()).database(&database.loader_url()).run().ok();
    let counts = again.counts();
    assert_eq!((counts.loaded, counts.duplicate, counts.dead, counts.filtered), (0, 5, 2, 1));
}

#[test]
fn records_of_kafka_that_hold_several_events_are_split() {
    let database = cluster::shared().database();
    broker::shared();
    let topic = topic_of(&events::file(lines().join("\n").as_bytes()), "1");
    let counts = catch_up(&database, &topic, &[]);
    assert_eq!((counts.loaded, counts.dead), (4, 2));
    is_as_the_lines_say(&database, &topic);
}

#[test]
fn a_letter_of_a_whole_record_becomes_letters_of_its_events() {
    let database = cluster::shared().database();
    let mapping = events::file(
        b"about = 'rows'\nsplit = '/d/rows'\nevent_id = '/id'\nevent_time = '/t:s'\nevent_type = '=x'\nuser_id = '/u'",
    );
    let record = r#"{"d":{"rows":[{"id":"a","t":1790928922,"u":"ada"},{"id":"b","u":"bob"},{"id":"c","t":1790928923,"u":"eve"}]}}"#;
    let file = events::file(record.as_bytes());
    let load = tidemark(&["load", file.to_str().unwrap()]).database(&database.loader_url()).run();
    assert_eq!(load.counts().dead, 1);
    let replay = letters(&database, &["replay", "--mapping", mapping.to_str().unwrap()]).ok();
    assert!(
        replay.stdout.contains("  2 loaded\n") && replay.stdout.contains("  1 cannot be loaded"),
        "{}",
        replay.stdout
    );
    let users = "SELECT user_id, source_index FROM bronze.events ORDER BY event_time";
    assert_eq!(database.rows(users), [["ada", "1"], ["eve", "3"]]);
    let letters_now =
        "SELECT source_index, status, convert_from(payload, 'UTF8') FROM loader.dead_letters ORDER BY 1";
    assert_eq!(
        database.rows(letters_now),
        [["0", "replayed", record], ["2", "open", r#"{"id":"b","u":"bob"}"#]]
    );
}
