//! `tidemark load`: what is in a file ends exactly once in bronze or among the dead letters.

use std::path::Path;
use std::time::Duration;

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Expected, Generated, assert_books, assert_exact, id, line};
use tidemark_tests::process::{Finished, tidemark};
use tidemark_tests::wait_until;

fn load(database: &Database<'_>, path: &Path, more: &[&str]) -> Finished {
    let mut arguments = vec!["load", path.to_str().unwrap()];
    arguments.extend(more);
    tidemark(&arguments).database(&database.loader_url()).run().ok()
}

#[test]
fn a_generated_file_ends_up_exactly_as_its_summary_says() {
    let database = cluster::shared().database();
    let file =
        Generated::new("--events 20000 --days 10 --users 400 --seed 3 --duplicates 0.02 --malformed 0.01");
    let counts = load(&database, &file.path, &["--batch-rows", "3000"]).counts();
    assert_eq!(
        (counts.read, counts.loaded, counts.duplicate, counts.dead),
        (file.number("lines"), file.number("events"), file.number("duplicates"), file.number("malformed"))
    );
    assert_exact(&database, &file.path);
    let expected = Expected::of(&file.path);
    assert_eq!(
        expected.events.len() as u64,
        file.number("events"),
        "this test misjudges the generator's lines"
    );

    // Each defect of the generator is one reason, and nothing else is.
    let reasons = "SELECT reason || '=' || count(*) FROM loader.dead_letters GROUP BY reason ORDER BY 1";
    let n = |defect| file.number(defect);
    let mut expected = vec![
        format!("event_time_in_future={}", n("far_future")),
        format!("invalid_event_time={}", n("bad_timestamp")),
        format!("invalid_json={}", n("truncated")),
        format!("invalid_utf8={}", n("invalid_utf8")),
        format!("lone_surrogate={}", n("lone_surrogate")),
        format!("missing_event_time={}", n("no_timestamp")),
        format!("missing_event_type={}", n("empty_object")),
        format!("not_an_object={}", n("array")),
        format!("nul_escape={}", n("nul_escape")),
    ];
    expected.sort();
    assert_eq!(database.column(reasons), expected);

    let dirty = "SELECT DISTINCT event_date FROM tidemark_internal.dirty_log
                  WHERE source = 'bronze.events'::regclass ORDER BY 1";
    assert_eq!(
        database.column(dirty),
        database.column("SELECT DISTINCT event_date FROM bronze.events ORDER BY 1")
    );

    let late = "SELECT count(*) FROM bronze.events WHERE received_at - event_time >= interval '1 hour'";
    assert_eq!(database.number(late) as u64, file.number("late"));
}

#[test]
fn a_file_loaded_twice_changes_nothing() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 5000 --days 3 --users 100 --seed 4 --malformed 0.01");
    load(&database, &file.path, &[]);
    let books = "SELECT count(*), max(batch_id), (SELECT count(*) FROM tidemark_internal.dirty_log),
                        (SELECT string_agg(next_offset::text, ',') FROM loader.offsets) FROM loader.batches";
    let before = database.rows(books);
    let nothing = load(&database, &file.path, &[]);
    assert!(nothing.stdout.contains("were read before, nothing to do"), "{}", nothing.stdout);
    assert_eq!(database.rows(books), before);
    assert_exact(&database, &file.path);

    // The same content under another name is the same file.
    let copy = events::file(&std::fs::read(&file.path).unwrap());
    let nothing = load(&database, &copy, &[]);
    assert!(nothing.stdout.contains("were read before, nothing to do"), "{}", nothing.stdout);
    assert_eq!(database.rows(books), before);
}

#[test]
fn a_load_that_was_killed_goes_on_where_it_stopped() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let path = file.path.to_str().unwrap();
    let position = "SELECT coalesce(sum(next_offset), 0) FROM loader.offsets";
    let mut done = 0;
    for part in 1..=2 {
        let process =
            tidemark(&["load", path, "--batch-rows", "2000"]).database(&database.loader_url()).start();
        wait_until("the load to get on", Duration::from_secs(120), || {
            database.number(position) >= part * 40_000
        });
        process.kill_9();
        database.settle();
        let now = database.number(position);
        assert!(now > done && now < file.number("lines") as i64, "killed at line {now}: not in the middle");
        done = now;
        assert_books(&database);
    }
    let counts = load(&database, &file.path, &[]).counts();
    assert_eq!(
        counts.read,
        file.number("lines")
            - database.number(
                "SELECT sum(n_read) FROM loader.batches WHERE owner <> (SELECT owner FROM loader.offsets)"
            ) as u64
    );
    assert_exact(&database, &file.path);
}

#[test]
fn standard_input_is_loaded_and_ids_keep_a_second_reading_out() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 3000 --days 3 --users 100 --seed 5 --malformed 0");
    let load =
        || tidemark(&["load", "-"]).database(&database.loader_url()).stdin(&file.path).run().ok().counts();
    assert_eq!(load().loaded, file.number("events"));
    assert_exact(&database, &file.path);
    let again = load();
    assert_eq!((again.read, again.duplicate), (file.number("lines"), file.number("lines")));
    assert_eq!(database.number("SELECT count(*) FROM bronze.events") as u64, file.number("events"));
    assert_books(&database);
}

#[test]
fn lines_may_end_with_carriage_return_or_the_last_one_with_nothing() {
    let database = cluster::shared().database();
    let good: Vec<String> = (1..=3).map(|n| line(n, "u", "2026-09-01T10:00:00Z")).collect();
    let content = format!("{}\r\n{}\r\nnot json\r\n\r\n\n  \t\n{}", good[0], good[1], good[2]);
    let counts = load(&database, &events::file(content.as_bytes()), &[]).counts();
    assert_eq!((counts.read, counts.loaded, counts.dead, counts.filtered), (7, 3, 1, 3));
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2), id(3)]);
    assert_eq!(database.column("SELECT encode(payload, 'escape') FROM loader.dead_letters"), ["not json"]);
    assert_books(&database);
}

#[test]
fn an_empty_file_loads_nothing_and_is_no_error() {
    let database = cluster::shared().database();
    let nothing = load(&database, &events::file(b""), &[]);
    assert!(nothing.stdout.contains("empty, nothing to do"), "{}", nothing.stdout);
    let empty = events::file(b"");
    assert_eq!(
        tidemark(&["load", "-"]).database(&database.loader_url()).stdin(&empty).run().ok().counts().read,
        0
    );
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 0);
}

#[test]
fn a_load_whose_connections_are_cut_ends_exactly() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let path = file.path.to_str().unwrap();
    let mut process =
        tidemark(&["load", path, "--batch-rows", "2000"]).database(&database.loader_url()).start();
    let cut = crate::cut_connections(&database, &mut process, 6);
    assert!(cut >= 3, "the load was over after {cut} cuts");
    process.wait().ok();
    assert_exact(&database, &file.path);
}
