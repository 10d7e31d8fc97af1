//! The same answer under any plan: serial, parallel, with rows in another order, with little memory.

use tidemark_tests::cluster::{self, Database, rows};
use tidemark_tests::events::Generated;
use tidemark_tests::process::tidemark;

/// Makes parallel plans attractive for the small tables of a test. Users have some hundred events each: with a few
/// dozen the planner rightly gathers rows instead of states.
const PARALLEL: &str = "SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0;
    SET max_parallel_workers_per_gather = 2; SET enable_partitionwise_aggregate = off;
    SET work_mem = '64MB'";

/// Aggregates by person: name, expression, expression made comparable.
const AGGREGATES: [(&str, &str, &str); 3] = [
    (
        "sessions",
        "tidemark.sessions(event_time, interval '30 minutes')",
        "tidemark.sessions(event_time, interval '30 minutes')::text",
    ),
    (
        "window_funnel",
        "tidemark.window_funnel(interval '1 day', event_time, event_type = 'product_viewed',
             event_type = 'product_added', event_type = 'purchase_completed')",
        "tidemark.window_funnel(interval '1 day', event_time, event_type = 'product_viewed',
             event_type = 'product_added', event_type = 'purchase_completed')",
    ),
    ("hll_agg", "tidemark.hll_agg(event_type)", "tidemark.hll_agg(event_type)::bytea"),
];

fn shop(database: &Database<'_>) {
    let file = Generated::new("--events 30000 --days 6 --users 60 --seed 61 --malformed 0");
    tidemark(&["load", file.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    let sql = "ANALYZE bronze.events; CREATE TABLE shuffled AS SELECT * FROM bronze.events ORDER BY md5(event_id::text);
               ANALYZE shuffled";
    database.connect().batch_execute(sql).unwrap();
}

#[test]
fn aggregates_by_user_run_in_parallel_with_partial_and_finalize_steps() {
    let database = cluster::shared().database();
    shop(&database);
    let mut client = database.connect();
    client.batch_execute(PARALLEL).unwrap();
    for (name, expression, _) in AGGREGATES {
        let sql =
            format!("EXPLAIN (COSTS OFF) SELECT user_id, {expression} FROM bronze.events GROUP BY user_id");
        let plan = rows(&mut client, &sql).concat().join("\n");
        for step in ["Partial ", "Finalize ", "Gather"] {
            assert!(plan.contains(step), "{name}: no {step}in\n{plan}");
        }
    }
}

#[test]
fn answers_do_not_depend_on_plan_order_or_memory() {
    let database = cluster::shared().database();
    shop(&database);
    for (name, _, comparable) in AGGREGATES {
        let digest = |settings: &str, table: &str, partial: Option<bool>| {
            let mut client = database.connect();
            client.batch_execute(settings).unwrap();
            let by_user = format!("SELECT user_id, {comparable} AS answer FROM {table} GROUP BY user_id");
            let plan = rows(&mut client, &format!("EXPLAIN (COSTS OFF) {by_user}")).concat().join("\n");
            if let Some(partial) = partial {
                assert_eq!(plan.contains("Partial "), partial, "{name} with {settings}:\n{plan}");
            }
            let sql = format!(
                "SELECT count(*), md5(string_agg(concat(user_id, ' ', answer), E'\\n' ORDER BY user_id NULLS FIRST))
                   FROM ({by_user}) AS q"
            );
            rows(&mut client, &sql)
        };
        let serial = digest("SET max_parallel_workers_per_gather = 0", "bronze.events", Some(false));
        assert!(serial[0][0].parse::<i64>().unwrap() > 30, "{name}: too few users to prove anything");
        let no_hash = format!("{PARALLEL}; SET enable_hashagg = off");
        // Here the planner may prefer to gather first: the states of hll_agg are large.
        let little = format!("{PARALLEL}; SET work_mem = '1MB'");
        let by_partition = "SET max_parallel_workers_per_gather = 0; SET enable_partitionwise_aggregate = on";
        for (how, settings, table, partial) in [
            ("in parallel", PARALLEL, "bronze.events", Some(true)),
            ("in parallel by sorting", &no_hash, "bronze.events", Some(true)),
            ("in parallel with 1 MB", &little, "bronze.events", None),
            (
                "with 64 kB",
                "SET max_parallel_workers_per_gather = 0; SET work_mem = '64kB'",
                "bronze.events",
                Some(false),
            ),
            ("by partition", by_partition, "bronze.events", None),
            ("shuffled", "SET max_parallel_workers_per_gather = 0", "shuffled", Some(false)),
            ("shuffled in parallel with 1 MB", &little, "shuffled", None),
        ] {
            assert_eq!(digest(settings, table, partial), serial, "{name} {how}");
        }
    }
}

#[test]
fn a_filter_and_no_rows_give_the_documented_answers() {
    let database = cluster::shared().database();
    let sql = "SELECT tidemark.sessions(event_time), tidemark.session_count(event_time),
                      tidemark.window_funnel(interval '1 day', event_time, true),
                      tidemark.hll_cardinality(tidemark.hll_agg(user_id)), tidemark.approx_count_distinct(user_id)
                 FROM bronze.events";
    assert_eq!(database.rows(sql), [["{}", "0", "0", "0", "0"]]);
}
