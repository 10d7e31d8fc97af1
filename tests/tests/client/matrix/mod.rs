//! The failure matrix of the loader, one test a row, named by the row's number. The oracle is everywhere the same: the
//! exact set of events and dead letters of what was produced, and the invariants of the books. Rows that other modules
//! show already: 2 and 8 in part (`kafka`), 16 and 20 for files (`bad_lines`), 23 (`migrate`).

mod kafka;
mod kills;
mod outages;
mod poison;
mod rest;
mod zombies;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tidemark_tests::broker;
use tidemark_tests::cluster::Database;
use tidemark_tests::events::{self, Generated, assert_exact, line};
use tidemark_tests::oracle::assert_first_pass;
use tidemark_tests::process::tidemark;

/// Events of two days in turn, one line in a hundred malformed and one in fifty a repetition: every batch has all.
fn mixed_file(lines: u64) -> PathBuf {
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

/// Produces a file into a new topic of the shared broker.
fn topic_of(path: &Path, partitions: &str) -> String {
    let topic = broker::shared().topic();
    produce(path, &broker::shared().address, &topic, partitions);
    topic
}

fn produce(path: &Path, brokers: &str, topic: &str, partitions: &str) {
    let path = path.to_str().unwrap();
    tidemark(&["produce", path, "--brokers", brokers, "--topic", topic, "--partitions", partitions])
        .run()
        .ok();
}

/// The whole oracle for a topic that was read once from its beginning.
fn assert_all(database: &Database<'_>, path: &Path) {
    assert_exact(database, path);
    assert_first_pass(database);
}

fn lines_of(path: &Path) -> i64 {
    std::fs::read(path).unwrap().split(|b| *b == b'\n').filter(|line| !line.is_empty()).count() as i64
}

/// 30,000 events with duplicates, late and malformed ones: enough to be in the middle of.
fn medium_file() -> &'static Generated {
    static FILE: OnceLock<Generated> = OnceLock::new();
    FILE.get_or_init(|| {
        Generated::new("--events 30000 --days 4 --users 900 --seed 41 --malformed 0.003 --duplicates 0.02")
    })
}

/// Has each batch take this much longer, so that there is time to do something meanwhile.
fn slow_down(database: &Database<'_>, milliseconds: u32) {
    let sql = format!(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_sleep({milliseconds} / 1000.0); RETURN NULL; END$$;
         CREATE TRIGGER slow AFTER INSERT ON loader.batches EXECUTE FUNCTION public.slow()"
    );
    database.connect().batch_execute(&sql).unwrap();
}
