//! Every aggregate in a server under `ulimit -v`: out of memory is an error, and the session goes on.

use tidemark_tests::cluster::{Cluster, Database, rows};

use crate::arguments::{Aggregate, Call};
use crate::report::{Report, Session};
use crate::time::{COLUMNS, ONE};
use crate::{database, share_out};

/// The kilobytes that a session may take besides what it has after its first aggregate.
const MORE: u64 = 8 << 10;

/// The table of rows has this many.
const ROWS: u32 = 60_000;

pub fn walk(aggregates: &[Aggregate], report: &Report) {
    let cluster = Cluster::start_with(
        "walk-memory",
        &["shared_buffers=16MB", "max_worker_processes=16", "max_parallel_workers=16"],
    );
    let database = database(&cluster);
    let mut client = database.connect();
    client.batch_execute(ONE).unwrap();
    let table = format!(
        "CREATE TABLE many AS SELECT i FROM generate_series(1, {ROWS}) AS i;
         ALTER TABLE many SET (parallel_workers = 2); ANALYZE many"
    );
    client.batch_execute(&table).unwrap();
    drop(client);
    let limit = kilobytes(&database) + MORE;
    cluster.stop();
    cluster.start_again_under(limit);
    share_out(aggregates.iter().collect(), |aggregate| {
        let mut session = Session::new(report, &database, &["53", "57"]);
        session.client.batch_execute("SET work_mem = '1GB'; SET statement_timeout = '2s'").unwrap();
        session.who.clone_from(&aggregate.signature);
        for (nr, call) in aggregate.laborious_calls().iter().enumerate() {
            session.input = call.with("");
            under_limit(&mut session, call, nr == 0);
        }
    });
    let mut session = Session::new(report, &database, &["53"]);
    session.who = "cases".to_owned();
    for case in CASES.iter().chain(&CASES) {
        session.ask("ulimit -v", case);
    }
    report.look_into_log(&database);
    let errors = report.errors("ulimit -v");
    if errors < 50 {
        report.fail(format!("only {errors} statements met the limit of memory, so it is no test"));
    }
}

/// The kilobytes of address space that a session has after its first aggregate.
pub fn kilobytes(database: &Database<'_>) -> u64 {
    let mut client = database.connect();
    let sql = "SELECT tidemark.session_count(now()), pg_backend_pid()";
    let backend = rows(&mut client, sql).remove(0).remove(1);
    let status = std::fs::read_to_string(format!("/proc/{backend}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    size.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Small inputs that are made to be large.
const CASES: [&str; 5] = [
    "SELECT tidemark.sequence_match(repeat('.', 4000000), now(), true)",
    "SELECT tidemark.session_id(repeat('x', 4000000), now())",
    "SELECT tidemark.channel_group(repeat('x', 4000000), NULL, NULL, NULL, NULL)",
    "SELECT tidemark_internal.hll_in(textout('\\x' || repeat('00', 2000000)))",
    "SELECT tidemark.cohort_member('day', 'recurring', 1000, '2026-01-01',
                timestamptz '2000-01-01 BC' + n * interval '1 day', true, true)::text IS NULL
       FROM generate_series(1, 1400000) AS n",
];

/// One group, as many groups as rows, partial states, and long values.
fn under_limit(session: &mut Session<'_>, call: &Call, thorough: bool) {
    let way = "ulimit -v";
    let pid = session.pid();
    let t = "'1900-01-01Z'::timestamptz + i * 7919::bigint % 1000003 * interval '157 minutes'";
    let columns = COLUMNS.replace("{t}", t);
    let (plain, rows) = (call.with(""), format!("(SELECT {columns} FROM many) AS r, one"));
    session.ask(way, &format!("SELECT md5({plain}::text) FROM {rows}"));
    if !thorough {
        return;
    }
    let groups =
        |key: &str| format!("SELECT count(a) FROM (SELECT {plain} AS a FROM {rows} GROUP BY {key}) AS q");
    session.ask(way, &format!("SET enable_sort = off; {}; RESET enable_sort", groups("i")));
    session.ask(
        way,
        &format!(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 1; SET cpu_tuple_cost = 1; {}",
            groups("i % 10")
        ),
    );
    session.ask(
        way,
        "RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET cpu_tuple_cost; RESET enable_sort",
    );
    if call.reads_long_values() {
        let long = "repeat(chr(97 + i % 7), 3000000)";
        let columns =
            columns.replace("i::text", long).replace("int4send(i)", &format!("convert_to({long}, 'UTF8')"));
        session.ask(
            way,
            &format!("SELECT length({plain}::text) FROM (SELECT {columns} FROM many WHERE i < 40) AS r, one"),
        );
    }
    if session.pid() != pid {
        session.fail(way, "the session is another one", &plain);
    }
}
