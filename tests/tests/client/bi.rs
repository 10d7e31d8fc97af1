//! What a BI tool sees of the warehouse, through the JDBC driver that Metabase uses (`scripts/bi-check.sh`): parents
//! and views, comments, plain types; and that the check finds what does not belong there. A missing java is a failure.

use std::process::{Command, Output};

use tidemark_tests::cluster::{self, Database, connect};
use tidemark_tests::events::Generated;
use tidemark_tests::process::tidemark;

fn bi_check(url: &str) -> Output {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let script = root.join("scripts/bi-check.sh");
    let output =
        Command::new(&script).env("BI_URL", url).env("BI_COLUMNS", "1").env("LC_ALL", "C.UTF-8").output();
    output.unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()))
}

/// A warehouse with partitions, a table of its own type and a model of an analyst's own.
fn warehouse() -> Database<'static> {
    let database = cluster::shared().database();
    let file = Generated::new("--events 500 --days 3 --users 30 --seed 5");
    tidemark(&["load", file.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    let made = "SELECT silver.create_event_table('searches', ARRAY['search_performed'],
                                                 '{\"query\": \"text search.query\"}')";
    connect(&database.admin_url()).batch_execute(made).unwrap();
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    database
}

#[test]
fn a_bi_tool_sees_parents_and_views_with_comments_and_plain_types() {
    let database = warehouse();
    let output = bi_check(&database.reader_url());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for line in printed.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    // The same relations and columns as the catalog has, and partitions there are, though none is seen.
    let counted = "SELECT count(DISTINCT c.oid) || ' relations, ' || count(*) || ' columns'
          FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace IN ('silver'::regnamespace, 'gold'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm')";
    assert!(printed.contains(&database.value(counted)), "{printed}");
    for expected in [
        "silver.events ",
        "silver.searches_live ",
        "gold.sessions ",
        "silver.purchases: event_date, event_id",
    ] {
        assert!(printed.contains(expected), "no {expected} in {printed}");
    }
    for hidden in ["_p2026", "session_facts", "_stored", "payload"] {
        assert!(!printed.contains(hidden), "{hidden} in {printed}");
    }
    let partitions = database.number("SELECT count(*) FROM pg_class
                                       WHERE relispartition AND relnamespace = 'silver_partitions'::regnamespace");
    assert!(partitions > 5, "{partitions} partitions are too few to hide");
}

#[test]
fn what_does_not_belong_there_is_named() {
    let database = warehouse();
    let day = "SELECT oid::regclass::text FROM pg_class
                WHERE relispartition AND relnamespace = 'silver_partitions'::regnamespace ORDER BY 1 LIMIT 1";
    let partition = database.value(day);
    database
        .connect()
        .batch_execute(&format!(
            "GRANT USAGE ON SCHEMA silver_partitions, bronze TO tidemark_reader;
             GRANT SELECT ON {partition}, bronze.events TO tidemark_reader;
             CREATE TABLE gold.hidden (a integer);
             COMMENT ON TABLE gold.hidden IS 'x';
             COMMENT ON COLUMN gold.hidden.a IS 'x';
             CREATE MATERIALIZED VIEW gold.stored AS SELECT 1 AS a;
             CREATE VIEW gold.odd AS SELECT 1 AS a, '{{}}'::jsonb AS b, tidemark.hll_empty() AS c;
             COMMENT ON COLUMN gold.odd.a IS 'x';
             COMMENT ON COLUMN gold.odd.b IS 'x';
             GRANT SELECT ON gold.odd, gold.stored TO tidemark_reader"
        ))
        .unwrap();
    let output = bi_check(&database.reader_url());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    let (_, found) = printed.split_once("wrong: ").unwrap_or_else(|| panic!("nothing is wrong in {printed}"));
    let mut found: Vec<&str> = found.lines().skip(1).map(str::trim).collect();
    found.sort_unstable();
    let read = format!("{partition} is a partition and can be read");
    let mut expected = vec![
        "bronze.events can be read outside of [gold, silver]",
        "gold.hidden is listed and cannot be read",
        "gold.odd has no comment",
        "gold.odd.b is of type jsonb",
        "gold.odd.c has no comment",
        "gold.odd.c is of type \"tidemark\".\"hll\"",
        "gold.stored has no comment",
        "gold.stored is a materialized view: tools show no comments of its columns",
        "gold.stored.a has no comment",
        read.as_str(),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);

    let output = bi_check(&database.superuser_url());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("the login is a superuser"), "{printed}");
}
