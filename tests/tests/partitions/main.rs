//! Partitions under maintenance: what several sessions see of it, and what is left when a maintainer dies.
//! What they share is here: a table with old partitions, and the two maintainers. Dates count back from today; the guard of
//! the models is played by a table of dates that are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod dates;
mod sessions;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, explain, rows};
use tidemark_tests::process::tidemark;
use tidemark_tests::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const TODAY: &str = "(now() AT TIME ZONE 'UTC')::date";

/// A database with a managed table `w.events` of tidemark_admin: partitions of today, and of the days 9 to `oldest`
/// days ago, each with one row; everything older than 10 days is due.
fn warehouse(oldest: i32, action: &str) -> Database<'static> {
    let database = cluster::shared().database();
    database
        .connect()
        .batch_execute(&format!(
            "CREATE TABLE public.needed (d date); GRANT ALL ON public.needed TO PUBLIC;
             CREATE OR REPLACE FUNCTION tidemark_internal.date_blockers(source regclass, event_date date)
             RETURNS TABLE (model text, model_date date, reason text) LANGUAGE sql STABLE
             AS $$ SELECT 'w.model', n.d, 'dirty' FROM public.needed AS n WHERE n.d = $2 $$;
             CREATE SCHEMA w AUTHORIZATION tidemark_admin;
             SET ROLE tidemark_admin;
             CREATE TABLE w.events (id bigint, event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('w.events', 1, retention_days => 10, retention_action => '{action}');
             SELECT tidemark.ensure_partitions('w.events', ARRAY(SELECT {TODAY} - n
                  FROM generate_series(9, {oldest}) AS n));
             INSERT INTO w.events SELECT n, ({TODAY} - n)::timestamp AT TIME ZONE 'UTC'
                  FROM generate_series(9, {oldest}) AS n;
             GRANT INSERT ON w.events TO tidemark_loader; GRANT USAGE ON SCHEMA w TO tidemark_loader;
             RESET ROLE"
        ))
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    database
}

/// What is attached, as days before today.
fn attached(database: &Database<'_>) -> String {
    database.value(&format!(
        "SELECT coalesce(string_agg(({TODAY} - from_date)::text, ' ' ORDER BY from_date), '')
           FROM tidemark.partitions('w.events') WHERE from_date < {TODAY}"
    ))
}

/// What is retired, as days before today and states.
fn retired(database: &Database<'_>) -> String {
    database.value(&format!(
        "SELECT coalesce(string_agg(concat({TODAY} - event_date, ' ', state), ', ' ORDER BY event_date), '')
           FROM tidemark.retired_dates WHERE parent = 'w.events'::regclass"
    ))
}

/// The tables in schema w beside the parent.
fn tables(database: &Database<'_>) -> i64 {
    database.number("SELECT count(*) FROM pg_class WHERE relnamespace = 'w'::regnamespace AND relkind = 'r'")
}

fn health(database: &Database<'_>, column: &str) -> String {
    database
        .value(&format!("SELECT {column} FROM tidemark.partition_health WHERE parent = 'w.events'::regclass"))
}

/// One of the two maintainers: inside Postgres, or the loader.
#[derive(Clone, Copy, Debug)]
enum Maintainer {
    Procedure,
    Loader,
}

const BOTH: [Maintainer; 2] = [Maintainer::Procedure, Maintainer::Loader];

impl Maintainer {
    fn run(self, url: &str) -> Result<(), String> {
        match self {
            Maintainer::Procedure => connect(url)
                .batch_execute("CALL tidemark.run_maintenance('w.events')")
                .map_err(|e| explain(&e)),
            Maintainer::Loader => {
                let finished = tidemark(&["maintain"]).database(url).run();
                if finished.code == Some(0) { Ok(()) } else { Err(finished.stderr) }
            }
        }
    }
}

fn step(client: &mut Client, work: &str) -> (String, String) {
    let sql = format!(
        "SELECT coalesce(action, ''), coalesce(detail, '')
           FROM tidemark_internal.maintenance_step('w.events', '{work}')"
    );
    let row = rows(client, &sql).remove(0);
    (row[0].clone(), row[1].clone())
}

/// Calls `insert` and `select` in two sessions until `work` is done; the longest time that one of them took.
fn longest_wait(database: &Database<'_>, work: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    let statements = [
        format!("INSERT INTO w.events VALUES (0, {TODAY}::timestamp AT TIME ZONE 'UTC')"),
        format!("SELECT count(*) FROM w.events WHERE event_time >= {TODAY}::timestamp AT TIME ZONE 'UTC'"),
    ];
    thread::scope(|scope| {
        let waits = statements.each_ref().map(|sql| {
            let (mut client, stop) = (connect(&database.admin_url()), &stop);
            scope.spawn(move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    client.simple_query(sql).unwrap_or_else(|e| panic!("{}", explain(&e)));
                    longest = longest.max(began.elapsed());
                    thread::sleep(Duration::from_millis(5));
                }
                longest
            })
        });
        // Also when it fails: the sessions would go on for ever.
        let worked = catch_unwind(AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = worked {
            resume_unwind(panic);
        }
        waits.into_iter().map(|w| w.join().unwrap()).max().unwrap()
    })
}

/// Waits until a session waits for a lock with a statement like this one, and returns its process id.
fn waiting(database: &Database<'_>, statement: &str) -> i64 {
    let sql = format!(
        "SELECT coalesce(max(pid), 0) FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '{statement}'"
    );
    wait_until("a session to wait", PATIENCE, || database.number(&sql) > 0);
    database.number(&sql)
}
