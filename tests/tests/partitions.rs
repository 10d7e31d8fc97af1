//! Partitions under maintenance: what several sessions see of it, and what is left when a maintainer dies.
//! Dates count back from today; the guard of the models is played by a table of dates that are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, explain, rows, sqlstate};
use tidemark_tests::events::{self, line};
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
             CREATE OR REPLACE FUNCTION tidemark.date_blockers(source regclass, event_date date)
             RETURNS TABLE (model text, model_date date, reason text) LANGUAGE sql STABLE
             AS $$ SELECT 'w.model', n.d, 'dirty' FROM public.needed AS n WHERE n.d = $2 $$;
             CREATE SCHEMA w AUTHORIZATION tidemark_admin;
             SET ROLE tidemark_admin;
             CREATE TABLE w.events (id bigint, event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('w.events', 1, retention_days => 10, retention_action => '{action}');
             SELECT tidemark.ensure_partitions('w.events', {TODAY} - {oldest}, {TODAY} - 9);
             INSERT INTO w.events SELECT n, ({TODAY} - n)::timestamp AT TIME ZONE 'UTC' FROM generate_series(9, {oldest}) AS n;
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
        "SELECT coalesce(action, ''), coalesce(detail, '') FROM tidemark.maintenance_step('w.events', '{work}')"
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
        work();
        stop.store(true, Ordering::Relaxed);
        waits.into_iter().map(|w| w.join().unwrap()).max().unwrap()
    })
}

#[test]
fn maintenance_beside_a_long_reader_and_a_writer_blocks_nobody_for_long() {
    let database = warehouse(12, "drop");
    let mut reader = connect(&database.admin_url());
    reader.batch_execute("BEGIN; SELECT count(*) FROM w.events").unwrap();
    let mut writer = connect(&database.admin_url());
    writer
        .batch_execute(&format!(
            "BEGIN; INSERT INTO w.events VALUES (0, {TODAY}::timestamp AT TIME ZONE 'UTC')"
        ))
        .unwrap();

    // Inside Postgres an exclusive lock is asked for, for 2 s at a time, and others wait behind it.
    let wait = longest_wait(&database, || {
        let error = Maintainer::Procedure.run(&database.admin_url()).unwrap_err();
        assert!(error.contains("1 tables could not be maintained"), "{error}");
    });
    assert!(wait < Duration::from_millis(3500), "somebody waited for {wait:?}");
    assert!(wait > Duration::from_millis(500), "nobody waited ({wait:?}): this proves nothing");
    assert_eq!(health(&database, "lock_timeouts"), "3");
    assert!(health(&database, "last_error").starts_with("55P03 retire: "));
    assert_eq!(attached(&database), "12 11 10 9");

    // Detached concurrently, nobody waits at all, and the detach stays pending.
    let wait = longest_wait(&database, || {
        let finished = tidemark(&["maintain"]).database(&database.admin_url()).run();
        assert_eq!(finished.code, Some(75), "{}", finished.stderr);
        assert!(
            finished.stdout.contains("dates of models recomputed: "),
            "other stages ran: {}",
            finished.stdout
        );
    });
    assert!(wait < Duration::from_millis(1500), "somebody waited for {wait:?}");
    assert_eq!(health(&database, "pending_detach"), "1");
    assert_eq!(retired(&database), "12 detaching");

    reader.batch_execute("COMMIT").unwrap();
    writer.batch_execute("COMMIT").unwrap();
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(retired(&database), "12 dropped, 11 dropped");
    assert_eq!(attached(&database), "10 9");
    assert_eq!(health(&database, "concat(last_error, pending_detach, refused_dates)"), "00");
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

#[test]
fn an_interrupted_detach_is_finished_by_the_next_maintainer() {
    for maintainer in BOTH {
        let database = warehouse(11, "drop");
        let mut reader = connect(&database.admin_url());
        reader.batch_execute("BEGIN; SELECT count(*) FROM w.events").unwrap();
        let mut detacher = connect(&database.admin_url());
        let (action, sql) = step(&mut detacher, "retire concurrently");
        assert_eq!(action, "detach");
        thread::scope(|scope| {
            let detach = scope.spawn(|| detacher.batch_execute(&sql));
            let pid = waiting(&database, "%CONCURRENTLY");
            database.rows(&format!("SELECT pg_terminate_backend({pid})"));
            assert!(detach.join().unwrap().is_err());
        });
        assert_eq!(health(&database, "pending_detach"), "1");
        assert_eq!(retired(&database), "11 detaching");
        let plan = database.column("SELECT action FROM tidemark.plan_maintenance('w.events')");
        assert_eq!(plan, ["finalize"]);
        reader.batch_execute("COMMIT").unwrap();
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(retired(&database), "11 dropped", "{maintainer:?}");
        assert_eq!((attached(&database), tables(&database)), ("10 9".to_owned(), 4), "{maintainer:?}");
    }
}

#[test]
fn a_maintainer_may_die_at_any_point() {
    for maintainer in BOTH {
        // Each time one statement more, then the session ends.
        for point in 0..4 {
            let database = warehouse(11, "drop");
            let mut client = connect(&database.admin_url());
            let (_, sql) = step(&mut client, "retire concurrently");
            let expected = match point {
                0 => "11 detaching",
                1 => {
                    client.batch_execute(&sql).unwrap();
                    "11 detaching"
                }
                _ => {
                    client.batch_execute(&sql).unwrap();
                    assert_eq!(step(&mut client, "retire concurrently").0, "detached");
                    if point == 3 {
                        assert_eq!(step(&mut client, "drop").0, "drop");
                        "11 dropped"
                    } else {
                        "11 detached"
                    }
                }
            };
            assert_eq!(retired(&database), expected);
            drop(client);
            maintainer.run(&database.admin_url()).unwrap();
            let context = format!("{maintainer:?} after {point}");
            assert_eq!(retired(&database), "11 dropped", "{context}");
            assert_eq!((attached(&database), tables(&database)), ("10 9".to_owned(), 4), "{context}");
        }
    }
}

#[test]
fn a_loader_killed_while_it_detaches_is_replaced() {
    let database = warehouse(11, "drop");
    let mut reader = connect(&database.admin_url());
    reader.batch_execute("BEGIN; SELECT count(*) FROM w.events").unwrap();
    let loader = tidemark(&["maintain"]).database(&database.admin_url()).start();
    waiting(&database, "%CONCURRENTLY");
    loader.kill_9();
    reader.batch_execute("COMMIT").unwrap();
    database.settle();
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(retired(&database), "11 dropped");
}

#[test]
fn many_maintainers_at_once_do_the_work_once() {
    let database = warehouse(30, "drop");
    let url = &database.admin_url();
    thread::scope(|scope| {
        let all = [Maintainer::Loader, Maintainer::Procedure, Maintainer::Loader, Maintainer::Procedure]
            .map(|m| scope.spawn(move || m.run(url)));
        for maintainer in all {
            maintainer.join().unwrap().unwrap();
        }
    });
    // Whoever came second passed the table over; whoever was first may have done everything or left it to a last one.
    Maintainer::Loader.run(url).unwrap();
    assert_eq!(attached(&database), "10 9");
    assert_eq!(database.number("SELECT count(*) FROM tidemark.retired_dates WHERE state = 'dropped'"), 20);
    assert_eq!(tables(&database), 4);
}

#[test]
fn a_broken_table_stops_no_other() {
    let database = warehouse(11, "drop");
    let breaking = format!(
        "SET ROLE tidemark_admin;
         CREATE TABLE w.a_broken (event_time timestamptz) PARTITION BY RANGE (event_time);
         SELECT tidemark.manage_partitions('w.a_broken', 0);
         DO $$ BEGIN EXECUTE 'CREATE TABLE ' || format('w.%I', tidemark.partition_name('a_broken', {TODAY} + 1)) || ' ()'; END $$;
         UPDATE tidemark.partition_config SET premake_days = 1 WHERE parent = 'w.a_broken'::regclass"
    );
    database.connect().batch_execute(&breaking).unwrap();
    let errors = || {
        database.column(
            "SELECT concat(parent, ': ', left(last_error, 14), ', ', last_success IS NOT NULL) FROM tidemark.partition_health
              WHERE parent::text LIKE 'w.%' ORDER BY 1",
        )
    };
    let mut admin = connect(&database.admin_url());
    let error = admin.batch_execute("CALL tidemark.run_maintenance()").unwrap_err();
    assert!(explain(&error).contains("1 tables could not be maintained"), "{}", explain(&error));
    assert_eq!(errors(), ["w.a_broken: 42P07 create: , f", "w.events: , t"]);
    assert_eq!(retired(&database), "11 dropped");

    database.rows(&format!(
        "SELECT tidemark.ensure_partitions('w.events', {TODAY} - 8, {TODAY} - 8);
         UPDATE tidemark.partition_config SET retention_days = 9 WHERE parent = 'w.events'::regclass"
    ));
    let finished = tidemark(&["maintain"]).database(&database.admin_url()).run();
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
    assert!(finished.stderr.contains("partitions of w.a_broken"), "{}", finished.stderr);
    assert!(finished.stdout.contains("partitions retired: 1\n"), "{}", finished.stdout);
    assert_eq!(retired(&database), "11 dropped, 10 dropped");

    // Healed, it says so.
    database.rows(&format!("SELECT 1; DO $$ BEGIN EXECUTE 'DROP TABLE ' || format('w.%I', tidemark.partition_name('a_broken', {TODAY} + 1)); END $$"));
    admin.batch_execute("CALL tidemark.run_maintenance()").unwrap();
    assert_eq!(errors(), ["w.a_broken: , t", "w.events: , t"]);
}

#[test]
fn sessions_that_ensure_the_same_dates_make_each_partition_once() {
    let database = warehouse(9, "drop");
    let sql = format!("SELECT tidemark.ensure_partitions('w.events', {TODAY} - 8, {TODAY} - 1)");
    let barrier = Barrier::new(4);
    let created: usize = thread::scope(|scope| {
        let sessions: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = connect(&database.loader_url());
                    barrier.wait();
                    rows(&mut client, &sql).len()
                })
            })
            .collect();
        sessions.into_iter().map(|s| s.join().unwrap()).sum()
    });
    assert_eq!(created, 8);
    assert_eq!(health(&database, "gaps"), "0");
}

#[test]
fn a_partition_that_is_written_while_it_is_retired_comes_back() {
    for maintainer in BOTH {
        let database = warehouse(11, "drop");
        let mut writer = connect(&database.admin_url());
        // As the loader does: rows and the mark of their date in one transaction.
        writer.batch_execute("BEGIN").unwrap();
        let mut copy = writer.copy_in("COPY w.events FROM STDIN").unwrap();
        let day = database.value(&format!("SELECT {TODAY} - 11"));
        std::io::Write::write_all(&mut copy, format!("77\t{day} 12:00:00+00\n").as_bytes()).unwrap();
        copy.finish().unwrap();
        writer.batch_execute(&format!("INSERT INTO public.needed SELECT {TODAY} - 11")).unwrap();
        thread::scope(|scope| {
            let maintenance = scope.spawn(|| maintainer.run(&database.admin_url()));
            let statement = match maintainer {
                Maintainer::Procedure => "CALL tidemark.run_maintenance%",
                Maintainer::Loader => "%CONCURRENTLY",
            };
            waiting(&database, statement);
            writer.batch_execute("COMMIT").unwrap();
            maintenance.join().unwrap().unwrap();
        });
        assert_eq!(attached(&database), "11 10 9", "{maintainer:?}");
        assert_eq!(retired(&database), "");
        assert_eq!(database.number("SELECT count(*) FROM w.events WHERE id = 77"), 1);
        assert_eq!(health(&database, "refused_dates"), "1");
        assert_eq!(
            database.number(
                "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND connamespace = 'w'::regnamespace"
            ),
            0,
            "no CHECK is left behind"
        );
        // Once the model has read it, it goes.
        database.rows("TRUNCATE public.needed");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(retired(&database), "11 dropped");
    }
}

#[test]
fn a_date_that_a_model_waits_for_is_retired_once_it_was_read() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    database.rows("CREATE SCHEMA w AUTHORIZATION tidemark_admin");
    let model = "SELECT (event_time AT TIME ZONE 'UTC')::date AS event_date, count(*) AS events FROM w.events
                  WHERE event_time >= $1::timestamp AT TIME ZONE 'UTC' AND event_time < $2::timestamp AT TIME ZONE 'UTC' GROUP BY 1";
    admin
        .batch_execute(&format!(
            "SET ROLE tidemark_admin;
             CREATE TABLE w.events (event_time timestamptz NOT NULL,
                 event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('w.events', 1, retention_days => 10);
             SELECT tidemark.ensure_partitions('w.events', {TODAY} - 12, {TODAY} - 11);
             INSERT INTO w.events SELECT ({TODAY} - n)::timestamp AT TIME ZONE 'UTC' FROM generate_series(11, 12) AS n;
             SELECT tidemark.create_model('w.daily', '{{w.events}}', $model${model}$model$, '{{event_date}}')"
        ))
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    // Nothing was computed yet: the rows are still needed.
    Maintainer::Procedure.run(&database.admin_url()).unwrap();
    assert_eq!(
        (attached(&database), health(&database, "refused_dates")),
        ("12 11".to_owned(), "2".to_owned())
    );
    // A round of the loader refreshes first.
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(retired(&database), "12 dropped, 11 dropped");
    let kept = "SELECT string_agg(events::text, ' ') FROM w.daily";
    assert_eq!(database.value(kept), "1 1");
    // The model keeps its rows, whatever is marked later.
    database.rows(&format!("SELECT tidemark.mark_dirty('w.events', ARRAY[{TODAY} - 12], 'a test')"));
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(database.value(kept), "1 1");
}

#[test]
fn what_is_kept_can_be_restored_and_is_left_alone_for_a_while() {
    for maintainer in BOTH {
        let database = warehouse(12, "keep");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(retired(&database), "12 detached, 11 detached", "{maintainer:?}");
        assert_eq!((tables(&database), health(&database, "detached_partitions")), (6, "2".to_owned()));
        let ensure = format!("SELECT tidemark.ensure_partitions('w.events', {TODAY} - 12, {TODAY} - 12)");
        assert_eq!(sqlstate(database.connect().simple_query(&ensure)), "55000");

        let restore = format!("SELECT tidemark.restore_partition('w.events', {TODAY} - 11)");
        assert_eq!(sqlstate(connect(&database.loader_url()).simple_query(&restore)), "42501");
        assert_eq!(rows(&mut connect(&database.admin_url()), &restore).len(), 1);
        assert_eq!(attached(&database), "11 10 9");
        assert_eq!(database.number("SELECT count(*) FROM w.events WHERE id = 11"), 1);
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(attached(&database), "11 10 9", "held");
        database.rows("UPDATE tidemark.retention_holds SET held_until = now()");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(retired(&database), "12 detached, 11 detached");

        // Turning to drop spares what was to be kept.
        database.rows("UPDATE tidemark.partition_config SET retention_action = 'drop'");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!((retired(&database), tables(&database)), ("12 detached, 11 detached".to_owned(), 6));
    }
}

#[test]
fn only_the_very_table_that_was_detached_is_dropped() {
    let database = warehouse(11, "drop");
    let mut client = connect(&database.admin_url());
    assert_eq!(step(&mut client, "retire").0, "detached");
    let name = database.value("SELECT partition FROM tidemark.retired_dates");
    let bare = name.trim_start_matches("w.");
    client.batch_execute(&format!("ALTER TABLE {name} RENAME TO moved; CREATE TABLE {name} ()")).unwrap();
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!((retired(&database), tables(&database)), ("11 detached".to_owned(), 6));
    let plan =
        database.column("SELECT concat(action, ' ', reason) FROM tidemark.plan_maintenance('w.events')");
    assert_eq!(plan, [format!("refused {name}: {name} is now called w.moved")]);

    client.batch_execute(&format!("DROP TABLE {name}; ALTER TABLE w.moved RENAME TO {bare}")).unwrap();
    database.rows(&format!("ALTER TABLE {name} OWNER TO postgres"));
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(retired(&database), "11 detached", "it belongs to somebody else");
    database.rows(&format!("ALTER TABLE {name} OWNER TO tidemark_admin"));
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(retired(&database), "11 dropped");
}

#[test]
fn who_may_only_insert_maintains_for_the_owner() {
    for maintainer in BOTH {
        let database = warehouse(11, "drop");
        database.rows("ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_admin IN SCHEMA w GRANT ALL ON TABLES TO tidemark_reader, PUBLIC;
             UPDATE tidemark.partition_config SET premake_days = 3 WHERE parent = 'w.events'::regclass");
        // A loader owns nothing and so cannot detach concurrently; the models are not its business either.
        let _ = maintainer.run(&database.loader_url());
        assert_eq!(retired(&database), "11 dropped", "{maintainer:?}");
        assert_eq!(health(&database, "premade_partitions"), "3");
        let strangers = "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'w'::regnamespace AND c.relispartition
             AND (c.relowner <> 'tidemark_admin'::regrole
                  OR EXISTS (SELECT FROM aclexplode(c.relacl) AS x WHERE x.grantee <> c.relowner))";
        assert_eq!(database.column(strangers), [""; 0]);
        let mut reader = connect(&database.reader_url());
        let result = reader.batch_execute("SELECT tidemark.maintenance_step('w.events', 'create')");
        assert_eq!(sqlstate(result), "42501");
        for sql in [
            "UPDATE tidemark.partition_config SET premake_days = 9",
            "DELETE FROM tidemark.retired_dates",
            "UPDATE tidemark.retention_holds SET held_until = 'infinity'",
        ] {
            assert_eq!(reader.execute(sql, &[]).unwrap(), 0, "{sql}");
        }
        let insert = "INSERT INTO tidemark.retired_dates (parent, event_date, partition, state, from_time, to_time, retention_action)
             VALUES ('w.events'::regclass, '2026-01-01', 'x', 'dropped', now(), now(), 'drop')";
        assert_eq!(sqlstate(reader.execute(insert, &[])), "42501");
    }
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let database = warehouse(12, "drop");
    database.rows(&format!("INSERT INTO public.needed SELECT {TODAY} - 12"));
    let finished = tidemark(&["maintain", "--dry-run"]).database(&database.admin_url()).run().ok();
    for expected in [
        "w.events: refused (w.events_p",
        "model w.model still needs it for",
        "w.events: detach concurrently (older than 10 days)",
        "DROP TABLE w.events_p",
    ] {
        assert!(finished.stdout.contains(expected), "no {expected} in {}", finished.stdout);
    }
    assert_eq!((attached(&database), retired(&database)), ("12 11 10 9".to_owned(), String::new()));
    // Its statements are those that do it.
    let mut client = connect(&database.admin_url());
    for sql in finished.stdout.lines().filter(|l| !l.starts_with("--")) {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{}: {sql}", explain(&e)));
    }
    assert_eq!(attached(&database), "12 10 9");
    let finished = tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    assert!(finished.stdout.contains("dates that a model still needs: 1\n"), "{}", finished.stdout);
}

#[test]
fn an_event_of_the_far_future_makes_no_partition() {
    let database = cluster::shared().database();
    let partitions = "SELECT count(*) FROM tidemark.partitions('bronze.events')";
    let before = database.number(partitions);
    let file = events::file(line(1, "u", "2100-01-01T00:00:00Z").as_bytes());
    tidemark(&["load", file.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    assert_eq!(database.number("SELECT count(*) FROM loader.dead_letters"), 1);
    assert_eq!(database.number(partitions), before);
    for (from, to) in [("2100-01-01", "2100-01-01"), ("1899-12-31", "1899-12-31")] {
        let sql = format!("SELECT tidemark.ensure_partitions('bronze.events', '{from}', '{to}')");
        assert_eq!(sqlstate(connect(&database.loader_url()).simple_query(&sql)), "22023");
    }
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(database.number(partitions), before);
}
