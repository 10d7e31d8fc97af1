//! Which dates are retired, kept, restored, dropped or made, and who may ask for it.

use std::thread;

use tidemark_tests::cluster::{self, connect, explain, sqlstate};
use tidemark_tests::events::{self, line};
use tidemark_tests::process::tidemark;

use super::*;

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
                  WHERE event_time >= $1::timestamp AT TIME ZONE 'UTC'
                       AND event_time < $2::timestamp AT TIME ZONE 'UTC' GROUP BY 1";
    admin
        .batch_execute(&format!(
            "SET ROLE tidemark_admin;
             CREATE TABLE w.events (event_time timestamptz NOT NULL,
                 event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED)
                      PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('w.events', 1, retention_days => 10);
             SELECT tidemark.ensure_partitions('w.events', ARRAY(SELECT {TODAY} - n FROM generate_series(11, 12) AS n));
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
        let ensure = format!("SELECT tidemark.ensure_partitions('w.events', ARRAY[{TODAY} - 12])");
        assert_eq!(sqlstate(database.connect().simple_query(&ensure)), "55000");

        let restore = format!("SELECT tidemark.restore_partition('w.events', {TODAY} - 11)");
        assert_eq!(sqlstate(connect(&database.loader_url()).simple_query(&restore)), "42501");
        assert_eq!(rows(&mut connect(&database.admin_url()), &restore).len(), 1);
        assert_eq!(attached(&database), "11 10 9");
        assert_eq!(database.number("SELECT count(*) FROM w.events WHERE id = 11"), 1);
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(attached(&database), "11 10 9", "held");
        database.rows("UPDATE tidemark_internal.retention_holds SET held_until = now()");
        maintainer.run(&database.admin_url()).unwrap();
        assert_eq!(retired(&database), "12 detached, 11 detached");

        // Turning to drop spares what was to be kept.
        database.rows("SELECT tidemark.manage_partitions('w.events', retention_action => 'drop')");
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
        database.rows("ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_admin IN SCHEMA w
             GRANT ALL ON TABLES TO tidemark_reader, PUBLIC;
             UPDATE tidemark_internal.partition_config SET premake_days = 3 WHERE parent = 'w.events'::regclass");
        // A loader owns nothing and so cannot detach concurrently; the models are not its business either.
        let _ = maintainer.run(&database.loader_url());
        assert_eq!(retired(&database), "11 dropped", "{maintainer:?}");
        assert_eq!(health(&database, "premade_partitions"), "3");
        let strangers = "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'w'::regnamespace
             AND c.relispartition
             AND (c.relowner <> 'tidemark_admin'::regrole
                  OR EXISTS (SELECT FROM aclexplode(c.relacl) AS x WHERE x.grantee <> c.relowner))";
        assert_eq!(database.column(strangers), [""; 0]);
        let mut loader = connect(&database.loader_url());
        loader.batch_execute("BEGIN").unwrap();
        let result = loader.batch_execute("CALL tidemark.run_maintenance('w.events')");
        assert_eq!(sqlstate(result), "2D000", "or he could keep a lock that shuts others out");
        let mut reader = connect(&database.reader_url());
        let result = reader.batch_execute("SELECT tidemark_internal.maintenance_step('w.events', 'create')");
        assert_eq!(sqlstate(result), "42501");
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
    tidemark(&["load", file.to_str().unwrap()]).database(&database.loader_url()).run().read_all();
    assert_eq!(database.number("SELECT count(*) FROM loader.dead_letters"), 1);
    assert_eq!(database.number(partitions), before);
    for date in ["2100-01-01", "1899-12-31"] {
        let sql = format!("SELECT tidemark.ensure_partitions('bronze.events', '{{{date}}}')");
        assert_eq!(sqlstate(connect(&database.loader_url()).simple_query(&sql)), "22023");
    }
    Maintainer::Loader.run(&database.admin_url()).unwrap();
    assert_eq!(database.number(partitions), before);
}

#[test]
fn broken_clocks_make_no_more_partitions_than_there_are_dates_around_now() {
    let database = cluster::shared().database();
    let count = "SELECT count(*) FROM tidemark.partitions('bronze.events')";
    let before = database.number(count);
    // A date each, eight days apart, back to more than sixteen years ago; and one of today.
    let times =
        "SELECT to_char(now() AT TIME ZONE 'UTC' - n * interval '8 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                   FROM generate_series(0, 749) AS n";
    let lines: Vec<String> = (1..).zip(database.column(times)).map(|(n, time)| line(n, "u", &time)).collect();
    let file = events::file(lines.join("\n").as_bytes());
    let load = |url: &str| tidemark(&["load", file.to_str().unwrap()]).database(url).run().ok().counts();
    let counts = load(&database.loader_url());
    let within = 731 / 8;
    assert_eq!((counts.loaded, counts.dead), (within + 1, 749 - within));
    assert_eq!(database.number(count), before + i64::try_from(within).unwrap());
    let letters = "SELECT DISTINCT concat(reason, ' ', sqlstate) FROM loader.dead_letters";
    assert_eq!(database.column(letters), ["partition_sealed 22023"]);
    // History is loaded by who has the rights of the owner.
    let replay = tidemark(&["dead-letters", "replay", "--reason", "partition_sealed"]);
    replay.database(&database.admin_url()).run().ok();
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 750);
    assert_eq!(database.number(count), before + 749);
}

#[test]
fn a_detach_that_is_refused_keeps_no_other_date_and_no_other_table() {
    for maintainer in BOTH {
        let database = warehouse(11, "drop");
        let mut admin = connect(&database.admin_url());
        // A foreign key refers to a row of the oldest date. The table comes first in the round.
        admin
            .batch_execute(&format!(
                "SET ROLE tidemark_admin;
                 CREATE TABLE w.a_key (event_time timestamptz NOT NULL, id int, event_date date
                     GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED, PRIMARY KEY (id, event_time))
                     PARTITION BY RANGE (event_time);
                 SELECT tidemark.ensure_partitions('w.a_key', ARRAY(SELECT {TODAY} - n
                      FROM generate_series(40, 42) AS n));
                 INSERT INTO w.a_key SELECT ({TODAY} - n)::timestamp AT TIME ZONE 'UTC', n
                      FROM generate_series(40, 42) AS n;
                 CREATE TABLE w.notes (id int, t timestamptz, FOREIGN KEY (id, t) REFERENCES w.a_key (id, event_time));
                 INSERT INTO w.notes SELECT 42, ({TODAY} - 42)::timestamp AT TIME ZONE 'UTC';
                 SELECT tidemark.create_model('w.daily', '{{w.a_key}}', 'SELECT event_date, count(*) AS n FROM w.a_key
                     WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{{event_date}}', live => true)"
            ))
            .unwrap_or_else(|e| panic!("{}", explain(&e)));
        admin.batch_execute("CALL tidemark.refresh()").unwrap();
        admin
            .batch_execute(
                "SELECT tidemark.manage_partitions('w.a_key', premake_days => 0, retention_days => 30)",
            )
            .unwrap();
        let round = || match maintainer {
            Maintainer::Procedure => admin_round(&database),
            Maintainer::Loader => maintainer.run(&database.admin_url()),
        };
        let states = || {
            database.value(&format!(
                "SELECT string_agg(concat({TODAY} - event_date, ' ', state), ', ' ORDER BY event_date)
                   FROM tidemark.retired_dates WHERE parent = 'w.a_key'::regclass"
            ))
        };
        let failed = round().unwrap_err();
        assert!(failed.contains("w.a_key") && failed.contains("foreign key"), "{maintainer:?}: {failed}");
        assert_eq!((states(), retired(&database)), ("41 dropped, 40 dropped".into(), "11 dropped".into()));
        // The date goes on as if nothing had been tried.
        admin
            .batch_execute(&format!(
                "SELECT tidemark.ensure_partitions('w.a_key', ARRAY[{TODAY} - 42]);
                 INSERT INTO w.a_key (event_time, id) SELECT ({TODAY} - 42)::timestamp AT TIME ZONE 'UTC', 77;
                 SELECT tidemark.mark_dirty('w.a_key', ARRAY[{TODAY} - 42])"
            ))
            .unwrap();
        admin.batch_execute("CALL tidemark.refresh()").unwrap();
        let stored = format!("SELECT n FROM w.daily WHERE event_date = {TODAY} - 42");
        assert_eq!(database.value(&stored), "2");
        let verified =
            format!("SELECT status FROM tidemark.verify_model('w.daily', {TODAY} - 42, {TODAY} - 42)");
        assert_eq!(database.value(&verified), "ok");
        // Not tried again at once, but not forgotten either.
        round().unwrap();
        let health = "SELECT concat_ws(' ', refused_dates, pending_detach, left(last_error, 5))
             FROM tidemark.partition_health
                       WHERE parent = 'w.a_key'::regclass";
        assert_eq!(database.value(health), "1 0 23503", "{maintainer:?}");
        database.rows("DELETE FROM w.notes; UPDATE tidemark_internal.retention_holds SET held_until = now()");
        round().unwrap();
        assert_eq!(states(), "42 dropped, 41 dropped, 40 dropped", "{maintainer:?}");
        assert_eq!(database.value(health), "0 0");
    }
}

/// All tables, with the warnings about each in the error.
fn admin_round(database: &Database<'_>) -> Result<(), String> {
    let called = std::process::Command::new(cluster::program("psql"))
        .args(["-XAtc", "CALL tidemark.run_maintenance()", &database.admin_url()])
        .output()
        .unwrap();
    if called.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&called.stderr).into_owned()) }
}
