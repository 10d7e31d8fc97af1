//! Every function that users can call, with arguments that are NULL, extreme, long, or bytes that were tampered with.
//!
//! The public ones are called by a superuser, those behind them that anybody may execute by a stranger.

use std::time::{Duration, Instant};

use tidemark_tests::cluster::Database;

use crate::report::{Report, Session};
use crate::{share_out, time};

/// Values by type, or by name and type: an ordinary one, and others. NULL is tried for all.
const VALUES: [(&str, &[&str]); 41] = [
    ("text", &["'public.m'", "''", "'a.b'", "E'\\x01'", "repeat('é', 1000000)", "'public.events'", "'\"'"]),
    (
        "query text",
        &[
            "'SELECT event_date, id FROM public.events WHERE event_date >= $1 AND event_date < $2'",
            "''",
            "'SELECT'",
            "'SELECT 1; SELECT 2'",
            "'SELECT $3'",
            "repeat('SELECT (', 10000)",
            "repeat('x', 1000000)",
        ],
    ),
    ("retention_action text", &["'drop'", "'detach'", "''", "'x'", "repeat('x', 1000000)"]),
    ("fill text", &["'none'", "''", "'x'"]),
    (
        "partition_unique name[]",
        &["NULL", "'{event_time,id}'", "'{}'", "'{NULL}'", "array_fill('id'::name, '{10000}')"],
    ),
    ("partition_schema name", &["NULL", "'public'", "'x'", "''"]),
    ("log2m integer", &["12", "17", "0", "-1", "2147483647"]),
    ("model text", &["'public.m'", "''", "'m'", "'x.y.z'", "repeat('é', 1000000)"]),
    ("name", &["'event_date'", "''", "repeat('x', 63)", "'event_time'", "'pg_catalog'"]),
    ("cstring", &["'\\x'", "''", "'x'", "'\\xzz'", "'\\x0'", "textout('\\x' || repeat('0f', 1000000))"]),
    ("bytea", &["'\\x'", "'\\x00'", "decode(repeat('ff', 1000000), 'hex')"]),
    ("boolean", &["true", "false"]),
    ("oid", &["10", "0", "4294967295"]),
    (
        "regclass",
        &[
            "'public.events'",
            "'pg_class'",
            "'public.plain'",
            "'public.a_view'",
            "'public.m'",
            "0",
            "4294967295",
        ],
    ),
    ("integer", &["3", "0", "-1", "2147483647", "-2147483648"]),
    ("bigint", &["3", "0", "-1", "9223372036854775807", "-9223372036854775808"]),
    ("double precision", &["0.5", "0", "'NaN'", "'Infinity'", "'-Infinity'", "1e308", "-5e-324"]),
    ("numeric", &["0.5", "0", "'NaN'", "'Infinity'", "'-Infinity'", "1e1000", "-1e-1000"]),
    (
        "date",
        &[
            "'2026-01-05'",
            "'infinity'",
            "'-infinity'",
            "'4714-11-24 BC'",
            "'5874897-12-31'",
            "'0001-01-01 BC'",
        ],
    ),
    (
        "interval",
        &[
            "'1 day'",
            "'0'",
            "'-1 day'",
            "'178000000 years'",
            "'-178000000 years'",
            "'1 month -30 days'",
            "'infinity'",
        ],
    ),
    (
        "timestamp with time zone",
        &[
            "'2026-01-05Z'",
            "'infinity'",
            "'-infinity'",
            "'4714-11-24 00:00:00+00 BC'",
            "'294276-12-31 23:59:59.999999Z'",
        ],
    ),
    ("xid", &["'3'", "'4294967295'", "'0'"]),
    ("xid[]", &["'{3}'", "'{}'", "'{NULL}'", "'{{3},{4}}'", "array_fill('3'::xid, '{10000}')"]),
    ("tid", &["'(0,1)'", "'(4294967295,65535)'"]),
    (
        "tid[]",
        &[
            "'{\"(0,1)\"}'",
            "'{}'",
            "'{NULL}'",
            "'{{\"(0,1)\"}}'",
            "array_fill('(4294967295,65535)'::tid, '{10000}')",
        ],
    ),
    ("timeline text", &["'public.timeline'", "''", "'public.m'", "repeat('é', 1000000)"]),
    (
        "datemultirange",
        &["'{[2026-01-05,2026-01-07)}'", "'{}'", "'{(,)}'", "'{(,2026-01-05],[2026-01-07,)}'"],
    ),
    (
        "tidemark_internal.models",
        &["(SELECT m FROM tidemark_internal.models AS m LIMIT 1)", "NULL::tidemark_internal.models"],
    ),
    ("text[]", &["'{a,b}'", "'{}'", "'{NULL}'", "'{{a},{b}}'", "array_fill('a'::text, '{10000}')", "'{m}'"]),
    ("name[]", &["'{event_date,id}'", "'{}'", "'{NULL}'", "'{{a},{b}}'", "array_fill('a'::name, '{10000}')"]),
    (
        "regclass[]",
        &[
            "'{public.events}'",
            "'{}'",
            "'{NULL}'",
            "'{0}'",
            "'{{1},{2}}'",
            "array_fill(1259::regclass, '{10000}')",
        ],
    ),
    (
        "date[]",
        &[
            "'{2026-01-05}'",
            "'{}'",
            "'{NULL}'",
            "'{infinity,-infinity}'",
            "'{5874897-12-31,4714-11-24 BC}'",
            "'{{2026-01-05},{2026-01-06}}'",
            "array_fill('2026-01-05'::date, '{10000}')",
        ],
    ),
    (
        "bigint[]",
        &[
            "'{1}'",
            "'{}'",
            "'{NULL}'",
            "'{9223372036854775807,-9223372036854775808}'",
            "'{{1},{2}}'",
            "array_fill(1::bigint, '{10000}')",
        ],
    ),
    (
        "timestamp with time zone[]",
        &["'{2026-01-05Z}'", "'{}'", "'{NULL}'", "'{infinity,-infinity}'", "'{294276-12-31Z}'"],
    ),
    ("tidemark.hll", &["tidemark.hll_empty()", "(SELECT h FROM one)", "tidemark.hll_empty(17)"]),
    ("tidemark.ddsketch", &["(SELECT s FROM one)", "(SELECT tidemark.ddsketch_agg(1, 0.02))"]),
    ("\"any\"", &["1", "'x'::text", "NULL", "array_fill(1, '{10000}')"]),
    (
        "jsonb",
        &[
            "'[\"view\", \"buy\"]'",
            "'null'",
            "'{}'",
            "'[[]]'",
            "'\"view\"'",
            "'[\"is\", \"country\", [\"AT\"]]'",
            "'[\"matches\", \"country\", [\"(x+x+)+y\"]]'",
            "to_jsonb(repeat('é', 1000000))",
            "(repeat('[', 5000) || repeat(']', 5000))::jsonb",
        ],
    ),
    (
        "source regclass",
        &[
            "'public.log'",
            "'pg_class'",
            "'public.events'",
            "'public.plain'",
            "'public.a_view'",
            "'public.m'",
            "'public.timeline'",
            "0",
            "4294967295",
        ],
    ),
    (
        "tidemark.timeline",
        &["(SELECT data FROM slices LIMIT 1)", "(SELECT data FROM slices OFFSET 1 LIMIT 1)"],
    ),
    ("tidemark.funnel_stats", &["(SELECT fs FROM one)", "(SELECT tidemark.funnel_stats('{}', 32))"]),
];

/// What functions of partitions and models find.
const WORLD: &str = "CREATE TABLE events (event_time timestamptz NOT NULL, event_date date, id integer)
    PARTITION BY RANGE (event_time);
    CREATE TABLE plain (event_date date, id integer); CREATE VIEW a_view AS SELECT * FROM plain;
    SELECT tidemark.manage_partitions('events', 2);
    SELECT tidemark.ensure_partitions('events', '{2026-01-05,2026-01-06,2026-01-07}');
    GRANT SELECT ON plain, one TO PUBLIC;
    SELECT tidemark.create_model('public.m', '{events}',
        'SELECT event_date, id FROM public.events WHERE event_date >= $1 AND event_date < $2', '{event_date,id}');
    CREATE TABLE log AS SELECT '2026-01-05'::date AS event_date, '2026-01-05Z'::timestamptz + n * interval '1 minute' AS event_time,
        'person ' || n % 7 AS person, (ARRAY['view', 'buy'])[n % 3] AS event_type, 'AT'::text AS country FROM generate_series(1, 100) AS n;
    SELECT tidemark.create_timeline('public.timeline', 'log', properties => '{country}', slices => 2);
    CREATE TABLE slices AS SELECT data FROM tidemark_internal.timeline_encode('timeline_rows', 'timeline_codes', 1, 1, '2026-01-05', '2026-01-06');
    GRANT SELECT ON slices TO PUBLIC;
    CREATE ROLE stranger";

/// The classes of errors besides those about values, types and names: integrity, transactions, schemas, rows that a
/// model's query should not return, the state of objects, cancels, and how many tables could not be maintained.
const CLASSES: &[&str] = &["23", "2D", "3F", "44", "55", "57", "P0"];

/// Thousands of bytes of a long value.
const LONG: usize = 100_000;

/// A timeout, and what comes on top of it on a busy machine.
const TIMEOUT: &str = "SET statement_timeout = '200ms'; SET client_min_messages = error";
const AT_MOST: Duration = Duration::from_secs(2);

/// A function of the catalog.
struct Function {
    signature: String,
    name: String,
    kind: String,
    /// A name, a space and a type.
    arguments: Vec<String>,
    immutable: bool,
}

/// The functions, window functions and procedures that users can call.
fn functions(database: &Database<'_>) -> Vec<Function> {
    let sql = "SELECT p.oid::regprocedure, p.pronamespace::regnamespace || '.' || p.proname, p.prokind,
                      array_to_string(ARRAY(
                          SELECT coalesce(p.proargnames[nr], '') || ' ' || format_type(t, NULL)
                            FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, nr) ORDER BY nr), '|'),
                      p.provolatile = 'i'
                 FROM pg_proc p
                WHERE (p.pronamespace = 'tidemark'::regnamespace
                       OR p.pronamespace = 'tidemark_internal'::regnamespace
                          AND has_function_privilege('public', p.oid, 'EXECUTE'))
                  AND p.prokind <> 'a' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
                  AND 'internal'::regtype <> ALL (p.proargtypes::oid[])
                ORDER BY p.oid::regprocedure::text";
    let rows = database.rows(sql).into_iter().map(|row| {
        let [signature, name, kind, arguments, immutable] = row.try_into().unwrap();
        let arguments = arguments.split('|').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        Function { signature, name, kind, arguments, immutable: immutable == "t" }
    });
    rows.collect()
}

/// An argument is a name, a space, and a type.
fn kind_of(argument: &str) -> &str {
    argument.split_once(' ').map_or("", |(_, kind)| kind)
}

fn values(argument: &str, signature: &str) -> &'static [&'static str] {
    let kind = kind_of(argument);
    let known = |what: &str| VALUES.iter().find(|(k, _)| *k == what).map(|(_, values)| *values);
    known(argument).or_else(|| known(kind)).unwrap_or_else(|| {
        panic!(
            "the test does not know values of type {kind}, which {signature} takes: add some to VALUES here"
        )
    })
}

impl Function {
    /// Arguments for calls: one that is not ordinary, or all.
    fn calls(&self) -> Vec<Vec<String>> {
        let value = |at: usize, nr: usize| {
            let (kind, values) = (kind_of(&self.arguments[at]), values(&self.arguments[at], &self.signature));
            let value = if nr == usize::MAX { "NULL" } else { values[nr % values.len()] };
            if kind == "\"any\"" { value.to_owned() } else { format!("({value})::{kind}") }
        };
        let all = |nr: usize| -> Vec<_> { (0..self.arguments.len()).map(|at| value(at, nr)).collect() };
        let mut calls = vec![all(0)];
        for at in 0..self.arguments.len() {
            let others = 1..values(&self.arguments[at], &self.signature).len();
            for nr in others.clone().chain([usize::MAX]) {
                let mut call = all(0);
                call[at] = value(at, nr);
                calls.push(call);
            }
            calls.extend(others.map(all));
        }
        calls.push(all(usize::MAX));
        calls.sort();
        calls.dedup();
        calls
    }

    fn sql(&self, arguments: &[String]) -> String {
        let call = format!("{}({})", self.name, arguments.join(", "));
        match &self.kind[..] {
            "p" => format!("CALL {call}"),
            "w" => format!(
                "SELECT max(x::text) FROM (SELECT {call} OVER () AS x FROM generate_series(1, 3)) AS q"
            ),
            _ => format!("SELECT count(x::text) FROM (SELECT * FROM {call} AS x LIMIT 1000) AS x"),
        }
    }
}

impl Function {
    /// Calls with one argument that has so many thousand bytes.
    fn long_calls(&self, thousands: usize) -> Vec<String> {
        let mut calls = vec![];
        for at in 0..self.arguments.len() {
            let long = match kind_of(&self.arguments[at]) {
                "text" | "\"any\"" => format!("repeat(repeat('A', 1000), {thousands})"),
                "bytea" => format!("convert_to(repeat(repeat('A', 1000), {thousands}), 'UTF8')"),
                "cstring" => format!("textout('\\x' || repeat(repeat('0f', 500), {thousands}))"),
                _ => continue,
            };
            let mut call = self.calls().remove(0);
            call[at] = long;
            calls.push(self.sql(&call));
        }
        calls
    }
}

pub fn walk(database: &Database<'_>, report: &Report) {
    database.connect().batch_execute(&format!("{}; {WORLD}", time::ONE)).unwrap();
    let functions = functions(database);
    assert!(functions.len() > 60, "only {} functions", functions.len());
    share_out(functions.iter().collect(), |function| {
        let mut session = Session::new(report, database, CLASSES);
        session.client.batch_execute(TIMEOUT).unwrap();
        session.who.clone_from(&function.signature);
        // A superuser gets farther; what stands behind the public functions is for strangers to try.
        let behind = function.name.starts_with("tidemark_internal.");
        let way = if behind { "stranger" } else { "superuser" };
        if behind {
            session.client.batch_execute("SET ROLE stranger").unwrap();
        }
        for arguments in function.calls() {
            session.input = arguments.join(", ").chars().take(300).collect();
            // What it did is undone; a procedure is not called in a transaction.
            if function.kind != "p" {
                session.client.batch_execute("BEGIN").unwrap();
            }
            ask_in_time(&mut session, way, &function.sql(&arguments));
            let _ = session.client.batch_execute("ROLLBACK");
        }
        if function.immutable {
            session.client.batch_execute("SET statement_timeout = '1s'").unwrap();
            for sql in function.long_calls(LONG) {
                session.input = format!("a long value: {}", sql.chars().take(300).collect::<String>());
                ask_in_time(&mut session, "long", &sql);
            }
        }
    });
}

fn ask_in_time(session: &mut Session<'_>, way: &'static str, sql: &str) {
    let began = Instant::now();
    session.ask(way, sql);
    if began.elapsed() > AT_MOST {
        session.fail(way, &format!("took {:?}", began.elapsed()), sql);
    }
}
