//! What the tests of the families share: one value, the error of a statement, and the same answer under any plan.
#![allow(clippy::unwrap_used)]

use pgrx::prelude::*;

/// The one value of a query as text; `None` when it is NULL.
pub fn text(query: &str) -> Option<String> {
    Spi::run("SET LOCAL timezone = 'UTC'").unwrap();
    Spi::get_one::<String>(&format!("SELECT ({query})::text")).unwrap()
}

/// SQLSTATE and message of the error that a statement raises.
pub fn error_of(statement: &str) -> String {
    Spi::run(
        "CREATE OR REPLACE FUNCTION pg_temp.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN
             EXECUTE statement;
             RETURN 'no error';
         EXCEPTION WHEN OTHERS THEN
             RETURN SQLSTATE || ' ' || SQLERRM;
         END $$",
    )
    .unwrap();
    Spi::get_one_with_args::<String>("SELECT pg_temp.error_of($1)", &[statement.into()]).unwrap().unwrap()
}

/// Checks that `aggregate` over `rows` (a query with a column `k` to group by) gives the same answers serial,
/// parallel, with the rows shuffled, and with too little memory for all groups; returns them as one text.
pub fn same_under_any_plan(rows: &str, aggregate: &str) -> String {
    const SERIAL: &str = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '256MB'; \
        SET LOCAL enable_sort = on; SET LOCAL enable_hashagg = on";
    // Scanning is dear here, so that a plan which shares it and sends few rows between processes wins.
    const PARALLEL: &str = "SET LOCAL max_parallel_workers_per_gather = 2; SET LOCAL parallel_setup_cost = 0; \
        SET LOCAL parallel_tuple_cost = 1; SET LOCAL cpu_tuple_cost = 1; SET LOCAL min_parallel_table_scan_size = 0";
    const SPILLED: &str = "SET LOCAL work_mem = '64kB'; SET LOCAL hash_mem_multiplier = 1; \
        SET LOCAL enable_sort = off; SET LOCAL max_parallel_workers_per_gather = 0";
    Spi::run(&format!(
        "DROP TABLE IF EXISTS plan_ordered, plan_shuffled;
         CREATE TABLE plan_ordered AS SELECT * FROM ({rows}) r ORDER BY k;
         CREATE TABLE plan_shuffled AS SELECT * FROM plan_ordered r ORDER BY md5(r::text);
         ALTER TABLE plan_ordered SET (parallel_workers = 2); ALTER TABLE plan_shuffled SET (parallel_workers = 2);
         ANALYZE plan_ordered; ANALYZE plan_shuffled; SET LOCAL timezone = 'UTC'"
    ))
    .unwrap();
    let groups = |table: &str| format!("SELECT k, ({aggregate})::text AS v FROM {table} GROUP BY k");
    let answer = |settings: &str, table: &str| {
        Spi::run(settings).unwrap();
        let all = format!(
            "SELECT string_agg(k || '=' || coalesce(v, 'NULL'), E'\\n' ORDER BY k) FROM ({}) g",
            groups(table)
        );
        Spi::get_one::<String>(&all).unwrap().unwrap()
    };
    let plan = |table: &str| {
        Spi::connect(|client| {
            let explain = format!("EXPLAIN (ANALYZE, TIMING off) {}", groups(table));
            let lines = client.select(&explain, None, &[]).unwrap();
            lines.map(|line| line.get::<String>(1).unwrap().unwrap() + "\n").collect::<String>()
        })
    };
    let serial = answer(SERIAL, "plan_ordered");
    assert_eq!(answer(SERIAL, "plan_shuffled"), serial, "shuffled");
    for table in ["plan_ordered", "plan_shuffled"] {
        assert_eq!(answer(PARALLEL, table), serial, "parallel");
        let plan = plan(table);
        assert!(plan.contains("Partial") && plan.contains("Finalize"), "not a parallel plan: {plan}");
    }
    assert_eq!(answer(SPILLED, "plan_ordered"), serial, "spilled");
    let spilled = plan("plan_ordered");
    assert!(spilled.contains("Disk Usage"), "nothing was spilled: {spilled}");
    assert_eq!(answer(SPILLED, "plan_shuffled"), serial, "spilled and shuffled");
    Spi::run(SERIAL).unwrap();
    serial
}
