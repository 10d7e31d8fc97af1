//! Every aggregate over much that is laborious, under `statement_timeout = 1s`, and cancelled: it ends soon after.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidemark_tests::cluster::Database;

use crate::arguments::Aggregate;
use crate::report::{Outcome, Report, Session};
use crate::share_out;

/// The limit, and as much again for a busy machine.
const AT_MOST: Duration = Duration::from_secs(2);

/// After this time a statement is cancelled; it then has `SOON` left.
const CANCELLED_AFTER: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_secs(1);

/// Times of one key a million times (100,000 where there are conditions, so that a final function is reached): 30 rows
/// a second, or all over 300 years.
const ROWS: [(&str, &str); 2] = [
    ("crowded", "'2026-01-01Z'::timestamptz + i / 30 * interval '1 second'"),
    ("scattered", "'1900-01-01Z'::timestamptz + i * 7919::bigint % 1000003 * interval '157 minutes'"),
];

/// Columns of rows `i` with time `{t}`: as many different values as rows.
pub const COLUMNS: &str =
    "i, ({t}) AS t, true AS c1, true AS c2, false AS c3, i::text AS txt, int4send(i) AS byt,
    (i % 30000)::smallint AS i2, i AS i4, i::bigint AS i8, i::float8 AS f8, i::numeric AS num,
    lpad(i::text, 32, '0')::uuid AS u, date '2026-01-01' + i AS d";

/// Makes table `one` with what such rows have in common. The sketch is one that was made to be slow: its hashes are
/// those that a table which multiplies by 0x9e3779b97f4a7c15 puts into one slot.
pub const ONE: &str = "CREATE TABLE one AS
    SELECT ('\\x12ae5f' || string_agg(lpad(to_hex(h), 16, '0'), '' ORDER BY h))::bytea::tidemark.hll AS h,
           (SELECT tidemark.ddsketch_agg(power(10, n % 600 - 300), 0.001) FROM generate_series(1, 100000) AS n) AS s,
           (SELECT tidemark.funnel_stats(array_fill('2026-01-01Z'::timestamptz, '{3}'), 3)) AS fs,
           array_fill('2026-01-01Z'::timestamptz, '{3}') AS chain, array_fill(true, '{1000}') AS retained,
           array_fill(true, '{31}') || false AS c
      FROM (SELECT (m - CASE WHEN m >= 9223372036854775808 THEN 18446744073709551616 ELSE 0 END)::bigint AS h
              FROM (SELECT (x * 17428512612931826493) % 18446744073709551616 AS m
                      FROM generate_series(1::numeric, 50000) AS x) AS multiples) AS hashes";

pub fn walk(database: &Database<'_>, aggregates: &[Aggregate], report: &Report) {
    database.connect().batch_execute(ONE).unwrap();
    share_out(aggregates.iter().collect(), |aggregate| {
        let mut session = Session::new(report, database, &["57"]);
        session.client.batch_execute("SET statement_timeout = '1s'; SET work_mem = '64MB'").unwrap();
        session.who.clone_from(&aggregate.signature);
        if let Some(call) = aggregate.with_huge_arrays() {
            session.input = format!("huge arrays: {}", call.with(""));
            let from = format!(
                "(SELECT {} FROM generate_series(1, 1) AS i) AS r",
                COLUMNS.replace("{t}", ROWS[0].1)
            );
            in_time(&mut session, &format!("SELECT ({}) IS NULL FROM {from}", call.with("")));
        }
        let mut cancelled = false;
        for (nr, call) in aggregate.laborious_calls().iter().enumerate() {
            let rows = if call.reads("c1") { 100_000 } else { 1_000_000 };
            for (name, t) in &ROWS[..if nr == 0 && call.reads("t") { 2 } else { 1 }] {
                session.input = format!("{name}: {}", call.with(""));
                let columns = COLUMNS.replace("{t}", t);
                let from = format!("(SELECT {columns} FROM generate_series(1, {rows}) AS i) AS r, one");
                let sql = format!("SELECT ({}) IS NULL FROM {from}", call.with(""));
                let took = in_time(&mut session, &sql);
                if !cancelled && took > CANCELLED_AFTER * 2 {
                    cancelled = true;
                    cancel(&mut session, &sql);
                }
            }
        }
    });
}

/// Runs a statement to its end or timeout.
pub fn in_time(session: &mut Session<'_>, sql: &str) -> Duration {
    let began = Instant::now();
    session.ask("timeout 1 s", sql);
    let took = began.elapsed();
    if took > AT_MOST {
        session.fail("timeout 1 s", &format!("took {took:?}"), sql);
    }
    took
}

/// Runs a statement while another session cancels it.
pub fn cancel(session: &mut Session<'_>, sql: &str) {
    let pid = session.pid();
    let mut other = session.another_client();
    let (done, wait) = mpsc::channel::<()>();
    let canceller = std::thread::spawn(move || {
        let _ = wait.recv_timeout(CANCELLED_AFTER);
        let at = Instant::now();
        other.batch_execute(&format!("SELECT pg_cancel_backend({pid})")).unwrap();
        at
    });
    let outcome = session.ask("cancelled", sql);
    let ended = Instant::now();
    let _ = done.send(());
    let took = ended.saturating_duration_since(canceller.join().unwrap());
    if took > SOON {
        session.fail("cancelled", &format!("{outcome} only {took:?} later"), sql);
    }
    if let Outcome::Error(code) = outcome
        && code != "57014"
    {
        session.fail("cancelled", &format!("error {code}"), sql);
    }
}
