//! `loader.keep_books`: what the loader writes about its work is bounded, and no sum is lost by that.

use tidemark_tests::cluster::{self, Database, connect, sqlstate};
use tidemark_tests::events::{self, id, line};
use tidemark_tests::process::tidemark;

const TOTALS: &str =
    "SELECT concat_ws(' ', pipeline, read, loaded, duplicate, late_diverted, dead, filtered, tombstone,
                                       missing, batches)
                        FROM loader.pipeline_totals ORDER BY 1";
const RANGES: &str = "SELECT topic || ' ' || int8range(from_offset, to_offset) FROM loader.batch_ranges ORDER BY topic, from_offset";

/// Loads lines in batches of ten.
fn load(database: &Database<'_>, lines: &[String]) {
    let path = events::file((lines.join("\n") + "\n").as_bytes());
    let arguments = ["load", path.to_str().unwrap(), "--batch-rows", "10"];
    tidemark(&arguments).database(&database.loader_url()).run().ok();
}

/// As if everything had been done so long ago.
fn let_pass(database: &Database<'_>, interval: &str) {
    let sql = format!(
        "UPDATE loader.batches SET committed_at = committed_at - interval '{interval}';
         UPDATE loader.dead_letters SET resolved_at = resolved_at - interval '{interval}'"
    );
    database.connect().batch_execute(&sql).unwrap();
}

/// Counted, missing, removed batches, removed letters, whether there is more.
fn keep_books(database: &Database<'_>) -> String {
    let sql = "SELECT concat_ws(' ', counted, missing, removed_batches, removed_letters, more) FROM loader.keep_books()";
    let mut admin = connect(&database.admin_url());
    admin.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn counted_batches_are_summed_up_exactly_and_their_ranges_merged() {
    let database = cluster::shared().database();
    let day = |n: u64| format!("2026-11-{:02}T12:00:00Z", 10 + n % 3);
    let mut lines: Vec<String> = (0..100).map(|n| line(n, "anna", &day(n))).collect();
    lines[42] = "no event".to_owned();
    load(&database, &lines);
    let before = database.column(TOTALS);
    assert_eq!(before, ["file 100 99 0 0 1 0 0 0 10"]);
    assert_eq!(database.number("SELECT count(*) FROM loader.batch_ranges"), 10);

    assert_eq!(keep_books(&database), "0 0 0 0 f", "an hour must be over");
    let_pass(&database, "3 hours");
    // One that goes on meanwhile stays as it is.
    load(&database, &[line(200, "anna", &day(0))]);
    let before = database.column(TOTALS);
    assert_eq!(keep_books(&database), "10 0 0 0 f");
    assert_eq!(database.column(TOTALS), before);
    assert_eq!(database.number("SELECT sum(n_batches) FROM loader.batch_totals"), 10);
    let ranges = database.column(RANGES);
    assert_eq!(ranges.iter().filter(|r| r.ends_with("[0,100)")).count(), 1, "{ranges:?}");
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert_eq!(database.number("SELECT count(*) FROM loader.batches"), 11, "bronze refers to them");

    assert_eq!(keep_books(&database), "0 0 0 0 f", "once");
    assert_eq!(database.column(TOTALS), before);
    // Nobody but the admin may.
    let mut loader = connect(&database.loader_url());
    assert_eq!(sqlstate(loader.batch_execute("SELECT FROM loader.keep_books()")), "42501");
    let maintained = tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    assert!(maintained.stdout.contains("batches of past hours counted: 0\n"), "{}", maintained.stdout);
}

#[test]
fn ranges_of_a_batch_whose_rows_are_gone_stay_and_the_rows_are_counted() {
    let database = cluster::shared().database();
    let lines: Vec<String> = (0..50).map(|n| line(n, "anna", "2026-11-10T12:00:00Z")).collect();
    load(&database, &lines);
    let delete =
        format!("DELETE FROM bronze.events WHERE event_id IN ('{}', '{}', '{}')", id(21), id(22), id(49));
    database.connect().batch_execute(&delete).unwrap();
    let_pass(&database, "3 hours");
    assert_eq!(keep_books(&database), "5 3 0 0 f");
    assert_eq!(database.column(TOTALS), ["file 50 50 0 0 0 0 0 3 5"]);
    let ranges: Vec<String> =
        database.column(RANGES).iter().map(|r| r.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(ranges, ["[0,20)", "[20,30)", "[30,40)", "[40,50)"]);
}

#[test]
fn batches_go_with_the_last_partition_that_may_hold_their_rows_and_resolved_letters_after_90_days() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    let day = |date: &str, n: u64| line(n, "anna", &format!("{date}T12:00:00Z"));
    // The first batch is of one date, the second of two.
    let mut lines: Vec<String> = (0..10).map(|n| day("2026-10-01", n)).collect();
    lines.extend((10..19).map(|n| day("2026-10-01", n)));
    lines.push(day("2026-11-20", 19));
    lines.extend(["broken".to_owned(), "broken, too".to_owned()]);
    load(&database, &lines);
    admin
        .batch_execute(
            "UPDATE loader.dead_letters SET status = 'discarded', resolved_at = now() WHERE \"offset\" = 20",
        )
        .unwrap();
    let before = database.column(TOTALS);
    let_pass(&database, "40 days");
    assert_eq!(keep_books(&database), "3 0 0 0 f", "bronze keeps all its dates, and so do the books");
    admin
        .batch_execute("SELECT tidemark.manage_partitions('bronze.events'::regclass, retention_days => 30)")
        .unwrap();
    assert_eq!(keep_books(&database), "0 0 1 0 f", "only the batch that loaded nothing");
    drop(admin);
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    assert_eq!(database.column("SELECT DISTINCT event_date::text FROM bronze.events"), ["2026-11-20"]);
    let left = "SELECT min_event_time::date || ' ' || max_event_time::date FROM loader.batches";
    assert_eq!(database.column(left), ["2026-10-01 2026-11-20"]);
    assert_eq!(database.column(TOTALS), before);

    let_pass(&database, "60 days");
    assert_eq!(keep_books(&database), "0 0 0 1 f");
    assert_eq!(
        database.column("SELECT \"offset\"::text FROM loader.dead_letters"),
        ["21"],
        "open letters stay"
    );
    let totals = "SELECT concat_ws(' ', name, reason, status, letters)
                    FROM loader.dead_letter_totals JOIN loader.pipelines USING (pipeline_id)";
    assert_eq!(database.column(totals), ["file invalid_json discarded 1"]);
    assert_eq!(database.column(TOTALS), before);
}
