//! Every aggregate over every kind of rows, in every way that Postgres can compute it: always the same.

use tidemark_tests::cluster::{Database, rows};

use crate::arguments::{Aggregate, Call};
use crate::report::{Outcome, Report, Session};
use crate::{inputs, share_out};

/// What all ways set, so that one does not go on in the next.
const PLAIN: &str =
    "RESET ALL; SET max_parallel_workers_per_gather = 0; SET work_mem = '256MB'; SET timezone = 'UTC'";

/// Scanning is dear here, so that a plan which shares it and sends few rows between processes wins.
const PARALLEL: &str = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; \
    SET parallel_tuple_cost = 1; SET cpu_tuple_cost = 1; SET min_parallel_table_scan_size = 0";

/// The same, sorted below the gathering, and without the leader's own rows.
const PARALLEL_SORTED: &str = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; \
    SET parallel_tuple_cost = 1; SET cpu_tuple_cost = 1; SET min_parallel_table_scan_size = 0; \
    SET enable_hashagg = off; SET parallel_leader_participation = off";

/// A way to ask what is otherwise asked of one process.
struct Way {
    name: &'static str,
    settings: &'static str,
    /// The beginning of the table's name.
    table: &'static str,
    /// Words of the plan for a query with groups that show that it is this way.
    plan: &'static [&'static str],
    /// Whether partial states meet, so that a query without groups is another thing.
    whole: bool,
}

const WAYS: [Way; 6] = [
    Way {
        name: "sorted",
        settings: "SET enable_hashagg = off",
        table: "in",
        plan: &["GroupAggregate", "Sort"],
        whole: false,
    },
    Way {
        name: "spilled",
        settings: "SET enable_sort = off; SET work_mem = '64kB'; SET hash_mem_multiplier = 1",
        table: "in",
        plan: &["HashAggregate"],
        whole: false,
    },
    Way {
        name: "parallel",
        settings: PARALLEL,
        table: "in",
        plan: &["Partial ", "Finalize ", "Gather"],
        whole: true,
    },
    Way {
        name: "parallel, sorted",
        settings: PARALLEL_SORTED,
        table: "in",
        plan: &["Partial ", "Gather"],
        whole: false,
    },
    Way {
        name: "by partition",
        settings: "SET enable_partitionwise_aggregate = on; SET cpu_tuple_cost = 1",
        table: "parts",
        plan: &["Partial ", "Finalize ", "Append"],
        whole: true,
    },
    Way { name: "in a worker", settings: "", table: "in", plan: &["Single Copy: true"], whole: false },
];

/// A query whose one value stands for all groups.
fn grouped(call: &str, table: &str, key: &str) -> String {
    format!(
        "SELECT md5(string_agg(concat_ws(' ', k, coalesce(a, 'NULL')), E'\\n' ORDER BY k))
           FROM (SELECT {key} AS k, {call}::text AS a FROM {table} GROUP BY {key}) AS q"
    )
}

/// One without groups.
fn whole(call: &str, table: &str) -> String {
    format!("SELECT md5({call}::text) FROM {table}")
}

struct Walk<'a> {
    session: Session<'a>,
    in_a_worker: String,
}

impl Walk<'_> {
    fn set(&mut self, settings: &str) {
        self.session.client.batch_execute(&format!("{PLAIN}; {settings}")).unwrap();
    }

    /// One call over one input. What is not about the rows but about the call is left out unless `thorough`.
    fn walk(&mut self, call: &Call, input: &str, thorough: bool) {
        self.session.input = format!("{input}: {}", call.with(""));
        let (rows, plain) = (format!("in_{input}"), call.with(""));
        self.set("");
        let all = self.session.ask("serial", &whole(&plain, &rows));
        let groups = self.session.ask("serial", &grouped(&plain, &rows, "k"));
        for way in &WAYS {
            // Another constant meets the plans in which states meet.
            if !thorough && !way.whole {
                continue;
            }
            let settings = if way.name == "in a worker" { &self.in_a_worker } else { way.settings };
            let (table, settings) = (format!("{}_{input}", way.table), settings.to_owned());
            self.set(&settings);
            if thorough && way.whole {
                self.session.ask_same(way.name, &whole(&plain, &table), &all);
            }
            self.session.ask_same(way.name, &grouped(&plain, &table, "k"), &groups);
            if thorough {
                self.check_plan(way, &format!("SELECT k, {plain} FROM {table} GROUP BY k"));
            }
        }
        if !thorough {
            return;
        }
        self.set("SET enable_hashagg = off");
        let small = self.session.ask("serial", &grouped(&plain, &rows, "g"));
        self.set(WAYS[1].settings);
        self.session.ask_same("spilled", &grouped(&plain, &rows, "g"), &small);
        self.set("");
        self.session.ask_same("ordered", &grouped(&call.with(" ORDER BY i DESC"), &rows, "k"), &groups);
        if let Some(array) = call.as_array() {
            self.session.ask_same("VARIADIC array", &grouped(&array, &rows, "k"), &groups);
        }
        // Rows left out before or behind the aggregate are the same rows.
        let some = format!("(SELECT * FROM {rows} WHERE i % 3 > 0) AS r");
        let expected = self.session.ask("FILTER", &whole(&plain, &some));
        let filtered = format!("{plain} FILTER (WHERE i % 3 > 0)");
        self.session.ask_same("FILTER", &whole(&format!("({filtered})"), &rows), &expected);
        let distinct = format!("(SELECT DISTINCT {} FROM {rows}) AS r", call.columns());
        let expected = self.session.ask("DISTINCT", &whole(&plain, &distinct));
        self.session.ask_same("DISTINCT", &whole(&call.distinct(), &rows), &expected);
        let over_all =
            format!("SELECT max(md5(a::text)) FROM (SELECT {plain} OVER () AS a FROM {rows}) AS q");
        if input != "empty" {
            self.session.ask_same("window", &over_all, &all);
        }
        let numbers = if input == "long" { 4 } else { 40 };
        for (frame, from) in [("3 PRECEDING", "r.i - 3"), ("UNBOUNDED PRECEDING", "0")] {
            let sql = format!(
                "SELECT md5(string_agg(a, E'\\n' ORDER BY i)) FROM (
                    SELECT i, coalesce({plain} OVER w::text, 'NULL') AS a FROM {rows} WHERE i <= {numbers}
                    WINDOW w AS (ORDER BY i ROWS BETWEEN {frame} AND CURRENT ROW)) AS q"
            );
            let oracle = format!(
                "SELECT md5(string_agg(a, E'\\n' ORDER BY i)) FROM (
                    SELECT r.i, coalesce((SELECT {plain}::text FROM {rows} AS s WHERE s.i BETWEEN {from} AND r.i),
                           'NULL') AS a
                      FROM {rows} AS r WHERE r.i <= {numbers}) AS q"
            );
            let expected = self.session.ask("serial", &oracle);
            self.session.ask_same("window", &sql, &expected);
        }
    }

    /// Fails if Postgres does not do it in this way.
    fn check_plan(&mut self, way: &Way, query: &str) {
        let plan = rows(&mut self.session.client, &format!("EXPLAIN {query}")).concat().join("\n");
        if !way.plan.iter().all(|word| plan.contains(word)) {
            self.session.fail(way.name, &format!("the plan is not this way:\n{plan}"), query);
        }
    }
}

pub fn walk(database: &Database<'_>, aggregates: &[Aggregate], report: &Report) {
    let inputs = inputs::make(&mut database.connect());
    let version = database.number("SELECT current_setting('server_version_num')");
    let worker = if version >= 160_000 { "debug_parallel_query" } else { "force_parallel_mode" };
    let in_a_worker = format!("SET {worker} = on; SET max_parallel_workers_per_gather = 2");
    share_out(aggregates.iter().collect(), |aggregate| {
        let mut session = Session::new(report, database, &[]);
        session.who.clone_from(&aggregate.signature);
        let mut walk = Walk { session, in_a_worker: in_a_worker.clone() };
        let call = aggregate.call();
        for input in &inputs {
            if *input != "long" || call.reads_long_values() {
                walk.walk(&call, input, true);
            }
        }
        for other in aggregate.other_calls() {
            walk.walk(&other, "ordinary", false);
        }
    });
    // Locks the types, so at the end.
    for aggregate in aggregates {
        altered(&mut Session::new(report, database, &[]), aggregate);
    }
}

/// A result whose type was altered since the extension was built.
fn altered(session: &mut Session<'_>, aggregate: &Aggregate) {
    session.who.clone_from(&aggregate.signature);
    let sql = format!(
        "SELECT coalesce(max(e.oid::regtype::text), '') FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
           JOIN pg_type e ON e.oid IN (t.oid, t.typelem)
          WHERE p.oid = '{}'::regprocedure AND e.typtype = 'c'",
        aggregate.signature
    );
    let composite = rows(&mut session.client, &sql).concat().concat();
    if composite.is_empty() {
        return;
    }
    let call = aggregate.call().with("");
    session.input = format!("{composite} with six attributes more: {call}");
    let attributes: Vec<_> = (1..=6).map(|nr| format!("ADD ATTRIBUTE more{nr} text")).collect();
    let sql = format!("BEGIN; ALTER TYPE {composite} {}", attributes.join(", "));
    session.client.batch_execute(&sql).unwrap();
    let expected = Outcome::Error("42804".to_owned());
    session.ask_same("altered result", &whole(&call, "in_ordinary"), &expected);
    session.client.batch_execute("ROLLBACK").unwrap();
}
