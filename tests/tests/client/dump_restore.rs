//! `pg_dump` and `pg_restore` into another database and another cluster: nothing is missing, and everything goes on.

use std::process::Command;

use tidemark_tests::cluster::{self, Cluster, Database, connect, program};
use tidemark_tests::events::{Generated, assert_books};
use tidemark_tests::process::tidemark;

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let program = command.get_program().to_string_lossy().into_owned();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// All that people put in or read, as text.
fn content(database: &Database<'_>) -> Vec<Vec<String>> {
    [
        "SELECT * FROM bronze.events ORDER BY event_id, event_time",
        "SELECT * FROM gold.sessions ORDER BY session_id",
        "SELECT * FROM silver.events ORDER BY event_id, event_time",
        "SELECT * FROM silver.purchases ORDER BY event_id, event_time",
        "SELECT * FROM gold.daily_activity ORDER BY 1, 2, 3, 4",
        "SELECT * FROM gold.funnel_daily ORDER BY 1, 2",
        "SELECT * FROM gold.retention_weekly ORDER BY 1, 2",
        "SELECT * FROM gold.sessions_live ORDER BY session_id",
        "SELECT * FROM gold.weekly_actives ORDER BY 1",
        "SELECT * FROM loader.offsets ORDER BY 1, 2, 3",
        "SELECT * FROM loader.batches ORDER BY 1",
        "SELECT * FROM loader.batch_ranges ORDER BY 1, 2, 3",
        "SELECT * FROM loader.dead_letters ORDER BY 1, 2, 3, 4",
        "SELECT name, target, query, key, lookback_days, lookahead_days, refresh_count FROM tidemark.models ORDER BY 1",
        "SELECT model, source FROM tidemark.model_sources ORDER BY 1, 2",
        "SELECT source, event_date, reason FROM tidemark.dirty_log ORDER BY id",
        "SELECT model, event_date FROM tidemark.model_dirty ORDER BY id",
        "SELECT parent, premake_days, partition_schema, unique_columns FROM tidemark.partition_config ORDER BY parent::text",
        "SELECT view, models, seen_count FROM tidemark.materialized_views ORDER BY view::text",
        "SELECT partition, from_date, to_date, state FROM tidemark.partitions('bronze.events')",
        "SELECT partition, from_date, to_date, state FROM tidemark.partitions('silver.events')",
        "SELECT c.oid::regclass::text, c.relkind, c.relowner::regrole, c.relacl FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname IN ('bronze', 'bronze_partitions', 'silver', 'silver_partitions', 'gold', 'loader') ORDER BY 1",
    ]
    .iter()
    .flat_map(|sql| database.rows(sql))
    .collect()
}

/// A database with events, models, one refreshed part and one dirty date; and the file for later.
fn filled() -> (Database<'static>, Generated) {
    let database = cluster::shared().database();
    let [first, second] = [81, 82].map(|seed| {
        Generated::new(&format!("--events 4000 --days 5 --users 100 --malformed 0.01 --seed {seed}"))
    });
    tidemark(&["load", first.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    let mark = "SELECT tidemark.mark_dirty('bronze.events'::regclass, ARRAY['2026-09-03']::date[], 'before the dump')";
    database.rows(mark);
    (database, second)
}

fn dump(database: &Database<'_>) -> std::path::PathBuf {
    let path = tidemark_tests::events::file(b"");
    run(Command::new(program("pg_dump")).args(["-Fc", "-f"]).arg(&path).arg(database.superuser_url()));
    path
}

fn restore(dump: &std::path::Path, into: &Database<'_>) {
    let mut command = Command::new(program("pg_restore"));
    run(command.args(["--exit-on-error", "-d"]).arg(into.superuser_url()).arg(dump));
}

/// Loads and refreshes, and compares with the same done where the dump was made.
fn assert_goes_on(copy: &Database<'_>, original: &Database<'_>, more: &Generated) {
    assert!(
        tidemark(&["migrate"]).database(&copy.superuser_url()).run().ok().stdout.contains("nothing to do")
    );
    for database in [copy, original] {
        tidemark(&["load", more.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
        connect(&database.admin_url())
            .batch_execute(
                "SELECT tidemark.ensure_partitions('bronze.events'::regclass, current_date + 101, current_date + 102)",
            )
            .unwrap();
        tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
        assert_books(database);
        assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);
    }
    for sql in [
        "SELECT event_id, event_time, event_type, user_id, payload FROM bronze.events ORDER BY 1, 2",
        "SELECT * FROM gold.sessions ORDER BY session_id",
        "SELECT event_date, events, active_persons, active_persons_estimate, late_events FROM gold.daily_actives ORDER BY 1",
        "SELECT * FROM gold.weekly_actives ORDER BY 1",
        "SELECT partition, from_date, to_date FROM tidemark.partitions('bronze.events')",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname IN ('bronze_partitions', 'silver_partitions') ORDER BY 1, 2",
    ] {
        assert!(copy.rows(sql) == original.rows(sql), "differs: {sql}");
    }
}

#[test]
fn a_dump_restored_into_another_database_is_complete_and_goes_on() {
    let (original, more) = filled();
    let copy = cluster::shared().empty_database();
    restore(&dump(&original), &copy);
    for (found, expected) in content(&copy).iter().zip(content(&original).iter()) {
        assert_eq!(found, expected);
    }
    assert_eq!(content(&copy).len(), content(&original).len());
    assert_goes_on(&copy, &original, &more);
}

#[test]
fn a_dump_restored_into_another_cluster_is_complete_and_goes_on() {
    let (original, more) = filled();
    let cluster = Cluster::start("postgres-2");
    // The roles first, as pg_dumpall gives them: they belong to the cluster and not to the database.
    let mut dump_roles = Command::new(program("pg_dumpall"));
    let roles = run(dump_roles.args(["--roles-only", "-d"]).arg(original.superuser_url()));
    let roles = String::from_utf8(roles).unwrap();
    let ours = |line: &&str| !line.contains(" ROLE postgres") && !line.starts_with('\\');
    let roles: Vec<&str> = roles.lines().filter(ours).collect();
    cluster.connect("postgres").batch_execute(&roles.join("\n")).unwrap();
    let copy = cluster.empty_database();
    restore(&dump(&original), &copy);
    assert!(content(&copy) == content(&original), "something is missing or differs");
    assert_goes_on(&copy, &original, &more);
}
