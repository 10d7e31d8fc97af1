//! Several sessions at once: readers and writers beside maintenance, several maintainers, and some that are killed.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use tidemark_tests::cluster::{connect, explain, rows, sqlstate};
use tidemark_tests::process::tidemark;

use super::*;

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
         DO $$ BEGIN EXECUTE 'CREATE TABLE '
              || format('w.%I', tidemark_internal.partition_name('a_broken', {TODAY} + 1)) || ' ()'; END $$;
         RESET ROLE;
         UPDATE tidemark_internal.partition_config SET premake_days = 1 WHERE parent = 'w.a_broken'::regclass"
    );
    database.connect().batch_execute(&breaking).unwrap();
    let errors = || {
        database.column(
            "SELECT concat(parent, ': ', left(last_error, 14), ', ', last_success IS NOT NULL)
               FROM tidemark.partition_health
              WHERE parent::text LIKE 'w.%' ORDER BY 1",
        )
    };
    let mut admin = connect(&database.admin_url());
    let error = admin.batch_execute("CALL tidemark.run_maintenance()").unwrap_err();
    assert!(explain(&error).contains("1 tables could not be maintained"), "{}", explain(&error));
    assert_eq!(errors(), ["w.a_broken: 42P07 create: , f", "w.events: , t"]);
    assert_eq!(retired(&database), "11 dropped");

    database.rows(&format!(
        "SELECT tidemark.ensure_partitions('w.events', ARRAY[{TODAY} - 8]);
         SELECT tidemark.manage_partitions('w.events', retention_days => 9)"
    ));
    let finished = tidemark(&["maintain"]).database(&database.admin_url()).run();
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
    assert!(finished.stderr.contains("partitions of w.a_broken"), "{}", finished.stderr);
    assert!(finished.stdout.contains("partitions retired: 1\n"), "{}", finished.stdout);
    assert_eq!(retired(&database), "11 dropped, 10 dropped");

    // Healed, it says so.
    database.rows(&format!(
        "SELECT 1; DO $$ BEGIN EXECUTE 'DROP TABLE '
         || format('w.%I', tidemark_internal.partition_name('a_broken', {TODAY} + 1)); END $$"
    ));
    admin.batch_execute("CALL tidemark.run_maintenance()").unwrap();
    assert_eq!(errors(), ["w.a_broken: , t", "w.events: , t"]);
}

#[test]
fn sessions_that_ensure_the_same_dates_make_each_partition_once() {
    let database = warehouse(9, "drop");
    let sql = format!(
        "SELECT tidemark.ensure_partitions('w.events', ARRAY(SELECT {TODAY} - n FROM generate_series(1, 8) AS n))"
    );
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
fn a_table_whose_partition_another_client_detaches_is_passed_over() {
    for maintainer in BOTH {
        let database = warehouse(12, "drop");
        let mut other = connect(&database.admin_url());
        assert_eq!(step(&mut other, "retire concurrently").0, "detach");
        // Others see that the session lives, and nobody else: it holds no lock now.
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!((attached(&database), retired(&database)), ("12 11 10 9".into(), "12 detaching".into()));
        let restore = format!("SELECT tidemark.restore_partition('w.events', {TODAY} - 12)");
        assert_eq!(sqlstate(connect(&database.admin_url()).simple_query(&restore)), "55P03");
        // One that asked long ago has forgotten about it.
        database
            .rows("UPDATE tidemark_internal.retired_dates SET retired_at = now() - interval '11 minutes'");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(retired(&database), "12 dropped, 11 dropped", "{maintainer:?}");
    }
}

#[test]
fn nobody_without_rights_keeps_maintenance_from_its_work() {
    for maintainer in BOTH {
        let database = warehouse(11, "drop");
        let role = format!("stranger_{}", database.name);
        database.connect().batch_execute(&format!("CREATE ROLE {role}")).unwrap();
        let mut stranger = database.connect();
        stranger.batch_execute(&format!("SET SESSION AUTHORIZATION {role}; BEGIN")).unwrap();
        // Everything that takes a lock and that he may do; what he may not do is no news.
        let mut done = Vec::new();
        for sql in [
            "SELECT * FROM tidemark.partition_health",
            "SELECT * FROM tidemark.plan_maintenance()",
            "SELECT * FROM tidemark.retired_dates",
            "SELECT parent FROM tidemark_internal.partition_config FOR UPDATE",
            "LOCK TABLE tidemark_internal.partition_config IN ACCESS SHARE MODE",
            "LOCK TABLE tidemark_internal.retired_dates IN ACCESS SHARE MODE",
            "LOCK TABLE tidemark_internal.retired_dates IN ACCESS EXCLUSIVE MODE",
            "LOCK TABLE tidemark_internal.retention_holds IN ROW SHARE MODE",
            "SELECT tidemark_internal.forget_missing_tables()",
            "SELECT tidemark_internal.maintenance_step(c.oid, 'retire') FROM pg_class AS c WHERE c.relname = 'events'",
            "SELECT tidemark_internal.record_maintenance(c.oid, '55P03') FROM pg_class AS c WHERE c.relname = 'events'",
            "SELECT pg_advisory_lock(1953064045, c.oid::int), pg_advisory_lock(c.oid::bigint) FROM pg_class AS c
               WHERE c.oid > 16000",
            "CREATE TEMP TABLE events (event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time)",
            "CREATE TEMP TABLE all_days PARTITION OF events FOR VALUES FROM ('2000-01-01') TO ('2200-01-01')",
            "SELECT tidemark.manage_partitions('pg_temp.events', 0, retention_days => 1)",
        ] {
            stranger.batch_execute("SAVEPOINT one").unwrap();
            match stranger.batch_execute(sql) {
                Ok(()) => done.push(sql),
                Err(e) => {
                    let code = e.code().map_or("", |code| code.code());
                    assert!(["42501", "42809"].contains(&code), "{sql}: {}", explain(&e));
                    stranger.batch_execute("ROLLBACK TO one").unwrap();
                }
            }
        }
        assert_eq!(done.len(), 8, "{done:?}");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!((attached(&database), retired(&database)), ("10 9".into(), "11 dropped".into()));
        assert_eq!(health(&database, "concat(lock_timeouts, last_error)"), "0", "{maintainer:?}");
        drop(stranger);
        database.settle();
        database.rows(&format!("DROP ROLE {role}"));
    }
}
