//! What the tests inside Postgres share: errors as text, and one answer under every plan.

use pgrx::prelude::*;

/// The error that a statement raises, as "SQLSTATE message"; "no error" if it raises none.
pub fn error_of(sql: &str) -> String {
    // Made once: after SET ROLE it belongs to somebody else and cannot be replaced, only called.
    if text("SELECT to_regprocedure('pg_temp.error_of(text)')") == "NULL" {
        Spi::run(
            "CREATE FUNCTION pg_temp.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN
                 EXECUTE statement;
                 RETURN 'no error';
             EXCEPTION WHEN OTHERS THEN
                 RETURN SQLSTATE || ' ' || SQLERRM;
             END $$",
        )
        .expect("the function is valid");
    }
    Spi::get_one_with_args("SELECT pg_temp.error_of($1)", &[sql.into()])
        .expect("it catches errors")
        .expect("not null")
}

/// The one value of a query as text; "NULL" for NULL.
pub fn text(sql: &str) -> String {
    Spi::get_one_with_args::<String>(&format!("SELECT ({sql})::text"), &[])
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .unwrap_or_else(|| "NULL".to_owned())
}

/// Checks that an aggregate gives the same answers serially, by partial states (workers or not), with rows shuffled
/// and with hardly any memory, and returns them.
///
/// `rows` makes the table; `grouped` is a SELECT with the columns `key` and `answer` over a table written `{t}`.
pub fn same_under_any_plan(rows: &str, grouped: &str) -> String {
    let run = |sql: &str| Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    run(&format!("CREATE TABLE plan_rows AS {rows}"));
    run("CREATE TABLE plan_shuffled AS SELECT * FROM plan_rows ORDER BY random()");
    run("ANALYZE plan_rows, plan_shuffled");
    let query = |table: &str| {
        format!(
            "SELECT string_agg(key || '=' || coalesce(answer::text, 'NULL'), ' ' ORDER BY key) FROM ({}) AS grouped",
            grouped.replace("{t}", table)
        )
    };
    let set = |settings: &[&str]| {
        settings.iter().for_each(|setting| run(&format!("SET LOCAL {setting}")));
    };
    set(&["max_parallel_workers_per_gather = 0", "work_mem = '64MB'"]);
    let serial = text(&query("plan_rows"));
    assert!(serial != "NULL" && !serial.is_empty(), "the rows give no group");
    assert_eq!(serial, text(&query("plan_shuffled")), "rows shuffled");
    set(&["work_mem = '64kB'", "enable_sort = off"]);
    assert_eq!(serial, text(&query("plan_shuffled")), "little memory, hashed");
    set(&["enable_sort = on", "enable_hashagg = off"]);
    assert_eq!(serial, text(&query("plan_shuffled")), "little memory, sorted");
    set(&[
        "enable_hashagg = on",
        "max_parallel_workers_per_gather = 2",
        "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
        "min_parallel_table_scan_size = 0",
    ]);
    for (leader, memory) in [("on", "64MB"), ("off", "64MB"), ("off", "64kB")] {
        set(&[&format!("parallel_leader_participation = {leader}"), &format!("work_mem = '{memory}'")]);
        let plan = Spi::connect(|client| {
            let plan = client
                .select(&format!("EXPLAIN SELECT ({})::text", query("plan_shuffled")), None, &[])
                .expect("it plans");
            plan.filter_map(|row| row.get::<String>(1).expect("text")).collect::<Vec<_>>().join("\n")
        });
        assert!(plan.contains("Partial"), "no partial aggregate in\n{plan}");
        assert_eq!(serial, text(&query("plan_shuffled")), "partial states\n{plan}");
    }
    serial
}
