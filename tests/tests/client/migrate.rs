//! `tidemark migrate`: any number of times, any number at once.

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::process::tidemark;

/// Everything that a migration could change, as text.
fn schema(database: &Database<'_>) -> Vec<Vec<String>> {
    database.rows(
        "SELECT c.oid::regclass, c.oid, c.xmin, c.relkind FROM pg_class AS c
           JOIN pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname IN ('bronze', 'silver', 'gold', 'gold_storage', 'loader', 'tidemark', 'tidemark_internal')
          ORDER BY 1;
         SELECT oid::regprocedure, xmin FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'tidemark%' ORDER BY 1;
         SELECT * FROM loader.schema_history ORDER BY 1;
         SELECT * FROM loader.repeatable_scripts ORDER BY 1;
         SELECT * FROM tidemark_internal.models ORDER BY 1",
    )
}

#[test]
fn a_second_migration_is_no_operation() {
    let database = cluster::shared().empty_database();
    let first = database.migrate();
    assert!(first.stdout.contains("applied "), "{}", first.stdout);
    let before = schema(&database);
    assert!(before.len() > 50, "nothing was compared");
    let second = database.migrate();
    assert!(second.stdout.contains("nothing to do"), "{}", second.stdout);
    assert!(schema(&database) == before, "the second migration changed something");
}

#[test]
fn row_23_migrations_of_one_database_at_once_all_succeed() {
    let database = cluster::shared().empty_database();
    let url = database.superuser_url();
    let running: Vec<_> = (0..3).map(|_| tidemark(&["migrate"]).database(&url).start()).collect();
    let finished: Vec<_> = running.into_iter().map(|process| process.wait().ok()).collect();
    let idle = finished.iter().filter(|f| f.stdout.contains("nothing to do")).count();
    assert_eq!(idle, 2, "one does the work, the others find it done");
    let there = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations")).unwrap().count();
    assert_eq!(database.number("SELECT count(*) FROM loader.schema_history") as usize, there);
    assert!(database.migrate().stdout.contains("nothing to do"));
}

#[test]
fn migrations_of_several_databases_of_a_cluster_at_once_all_succeed() {
    let databases: Vec<_> = (0..3).map(|_| cluster::shared().empty_database()).collect();
    let running: Vec<_> =
        databases.iter().map(|d| tidemark(&["migrate"]).database(&d.superuser_url()).start()).collect();
    for process in running {
        assert!(process.wait().ok().stdout.contains("applied "));
    }
}

#[test]
fn a_migration_that_was_killed_is_finished_by_the_next() {
    let database = cluster::shared().empty_database();
    for _ in 0..3 {
        let process = tidemark(&["migrate"]).database(&database.superuser_url()).start();
        std::thread::sleep(std::time::Duration::from_millis(60));
        // It may have finished already; the next one must succeed either way.
        drop(process);
    }
    database.migrate();
    let whole = cluster::shared().database();
    let objects =
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('bronze', 'silver', 'gold', 'gold_storage', 'loader', 'tidemark', 'tidemark_internal')
         ORDER BY 1";
    assert_eq!(database.column(objects), whole.column(objects));
}
