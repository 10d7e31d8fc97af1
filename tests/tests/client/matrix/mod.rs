//! The failure matrix of the loader, one test a row, named by the row's number. The oracle is everywhere the same: the
//! exact set of events and dead letters of what was produced, and the invariants of the books. Some rows are tested in
//! other modules, under the same kind of name; `docs/loader.md` lists all of them.

mod failover;
mod kafka;
mod kills;
mod log_changes;
mod outages;
mod poison;
mod rest;
mod zombies;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use tidemark_tests::broker::{produce_file as produce, topic_of};
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Generated, assert_exact, line};
use tidemark_tests::oracle::assert_first_pass;
use tidemark_tests::process::tidemark;
use tidemark_tests::storm::{Plan, Verdict};

/// Events of two days in turn, one line in a hundred malformed and one in fifty a repetition: every batch has all.
pub fn mixed_file(lines: u64) -> PathBuf {
    let mut content = String::new();
    for n in 0..lines {
        let n = if n % 50 == 49 { n - 10 } else { n };
        if n % 100 == 7 {
            content.push_str(&format!("no event {n}\n"));
        } else {
            let time = format!("2026-09-0{}T10:{:02}:{:02}Z", 1 + n % 2, n / 60 % 60, n % 60);
            content.push_str(&line(n + 1, &format!("user-{}", n % 97), &time));
            content.push('\n');
        }
    }
    events::file(content.as_bytes())
}

/// The whole oracle for a topic that was read once from its beginning.
pub fn assert_all(database: &Database<'_>, path: &Path) {
    assert_exact(database, path);
    assert_first_pass(database);
}

pub fn lines_of(path: &Path) -> i64 {
    std::fs::read(path).unwrap().split(|b| *b == b'\n').filter(|line| !line.is_empty()).count() as i64
}

/// 30,000 events with duplicates, late and malformed ones: enough to be in the middle of.
pub fn medium_file() -> &'static Generated {
    static FILE: OnceLock<Generated> = OnceLock::new();
    FILE.get_or_init(|| {
        Generated::new("--events 30000 --days 4 --users 900 --seed 41 --malformed 0.003 --duplicates 0.02")
    })
}

#[test]
fn the_oracle_notices_each_thing_that_can_be_wrong() {
    let database = cluster::shared().database();
    let file = mixed_file(2_000);
    let lines = lines_of(&file) as u64;
    let load = ["load", file.to_str().unwrap(), "--batch-rows", "500"];
    tidemark(&load).database(&database.loader_url()).run().ok();
    let plan = Plan { seed: 0, kills: 0, events: 0, minutes: 0 };
    let judge = || Verdict::of(&database, &file, lines, lines, plan);
    assert!(judge().is_clean(), "{}: {:?}", judge(), judge().complaints);

    let mut client = database.connect();
    let found = |sabotage: &str, client: &mut postgres::Client| -> (String, String) {
        client.batch_execute(sabotage).unwrap();
        let verdict = judge();
        assert!(!verdict.is_clean(), "nobody noticed: {sabotage}");
        (verdict.to_string(), verdict.complaints.join(" / "))
    };
    let broken = "UPDATE loader.batch_ranges SET to_offset = to_offset - 1 WHERE from_offset = 0";
    let (_, complaints) = found(broken, &mut client);
    assert!(complaints.contains("I1: ranges"), "{complaints}");
    client
        .batch_execute("UPDATE loader.batch_ranges SET to_offset = to_offset + 1 WHERE from_offset = 0")
        .unwrap();
    let (_, complaints) = found("UPDATE loader.offsets SET next_offset = next_offset - 1", &mut client);
    assert!(complaints.contains("I1: positions"), "{complaints}");
    client.batch_execute("UPDATE loader.offsets SET next_offset = next_offset + 1").unwrap();
    assert!(judge().is_clean());

    let lose = "DELETE FROM bronze.events WHERE source_offset = 0";
    let (summary, complaints) = found(lose, &mut client);
    assert!(summary.contains("lost=1 doubled=0 invented=0"), "{summary}");
    assert!(complaints.contains("I3: batches with another number of rows"), "{complaints}");
    let invent = "INSERT INTO bronze.events (event_id, event_time, event_type, received_at, payload)
                  VALUES (gen_random_uuid(), '2026-09-01', 'x', now(), '{}')";
    let (summary, _) = found(invent, &mut client);
    assert!(summary.contains("lost=1 doubled=0 invented=1"), "{summary}");
    let forget = "DELETE FROM loader.dead_letters WHERE \"offset\" = 7";
    let (summary, complaints) = found(forget, &mut client);
    assert!(summary.contains("missing_dead_letters=1 double_dead_letters=0"), "{summary}");
    assert!(complaints.contains("I3: batches with another number of dead letters"), "{complaints}");
    // A row that is there twice, which the unique index must be out of the way for.
    let index = database.value(
        "SELECT i.indexrelid::regclass FROM pg_index AS i
           JOIN tidemark.partitions('bronze.events') AS p ON p.partition = i.indrelid
          WHERE i.indisunique AND p.from_date = '2026-09-02'",
    );
    let double = format!(
        "DROP INDEX {index}; INSERT INTO bronze.events (event_id, event_time, event_type, received_at, payload)
         SELECT event_id, event_time, event_type, received_at, payload FROM bronze.events WHERE source_offset = 1"
    );
    let (summary, _) = found(&double, &mut client);
    assert!(summary.contains("lost=1 doubled=1 invented=1"), "{summary}");
}

/// Every test of a row, by its name, in any module.
fn tests_of_rows() -> Vec<String> {
    let mut open = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client"))];
    let mut names = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let found = text.lines().filter_map(|line| line.strip_prefix("fn row_"));
        names.extend(found.map(|rest| format!("row_{}", rest.split('(').next().unwrap())));
    }
    names.sort();
    names
}

#[test]
fn the_documentation_names_the_tests_of_each_row() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loader.md")).unwrap();
    let mut named: Vec<String> =
        page.split('`').filter(|word| word.starts_with("row_")).map(str::to_owned).collect();
    named.sort();
    assert_eq!(named, tests_of_rows());
    for row in 1..=28 {
        let (begin, test) = (format!("| {row} |"), format!("`row_{row:02}_"));
        let found = page.lines().any(|line| line.starts_with(&begin) && line.contains(&test));
        assert!(found, "row {row} names no test");
    }
}

/// Has each batch take this much longer, so that there is time to do something meanwhile.
pub fn slow_down(database: &Database<'_>, milliseconds: u32) {
    let sql = format!(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_sleep({milliseconds} / 1000.0); RETURN NULL; END$$;
         CREATE TRIGGER slow AFTER INSERT ON loader.batches EXECUTE FUNCTION public.slow()"
    );
    database.connect().batch_execute(&sql).unwrap();
}
