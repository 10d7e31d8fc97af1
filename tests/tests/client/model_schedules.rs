//! Models under several sessions: marks that commit late, live views under open transactions, kills at random, and
//! whose rights a refresh uses. The models here are small ones of their own, not those of the warehouse.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, rows, sqlstate};
use tidemark_tests::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// A source with a row per event, a model that counts by date, and one above it that looks a day back and ahead.
fn shop(database: &Database<'_>) {
    let sql = "CREATE EXTENSION tidemark;
        CREATE SCHEMA s;
        CREATE TABLE s.events (event_date date NOT NULL, person integer NOT NULL, amount integer NOT NULL);
        CREATE INDEX ON s.events (event_date);
        INSERT INTO s.events SELECT '2026-01-01'::date + i % 10, i % 7, i FROM generate_series(1, 200) AS i;
        SELECT tidemark.create_model('s.daily', '{s.events}', $q$
            SELECT event_date, person, count(*) AS events, sum(amount) AS amount FROM s.events
             WHERE event_date >= $1 AND event_date < $2
             GROUP BY event_date, person $q$, '{event_date,person}', live => true);
        SELECT tidemark.create_model('s.around', '{s.daily}', $q$
            SELECT d::date AS event_date, sum(x.events) AS events, sum(x.amount) AS amount
              FROM generate_series($1::timestamp, $2::timestamp - interval '1 day', interval '1 day') AS d
              JOIN s.daily x ON x.event_date BETWEEN d::date - 1 AND d::date + 1
             GROUP BY 1 $q$, '{event_date}', 1, 1, true)";
    database.connect().batch_execute(sql).unwrap();
}

/// What the models and their live views must be, from the source alone: each query returns the rows that differ.
const DAILY: &str =
    "SELECT event_date, person, count(*) AS events, sum(amount) AS amount FROM s.events GROUP BY 1, 2";
const AROUND: &str =
    "SELECT d::date AS event_date, count(*)::numeric AS events, sum(e.amount)::numeric AS amount
    FROM generate_series('2025-12-01'::date, '2026-02-28', interval '1 day') AS d
    JOIN s.events e ON e.event_date BETWEEN d::date - 1 AND d::date + 1 GROUP BY 1";

fn differences(relation: &str, truth: &str) -> String {
    format!(
        "(SELECT * FROM {relation} EXCEPT ALL ({truth})) UNION ALL (({truth}) EXCEPT ALL SELECT * FROM {relation})"
    )
}

/// Panics unless both live views are exact in what this connection sees now.
fn assert_live(client: &mut Client, when: &str) {
    for (view, truth) in [("s.daily_live", DAILY), ("s.around_live", AROUND)] {
        // One query, so one snapshot, at any isolation level.
        let wrong = rows(client, &differences(view, truth));
        assert!(wrong.is_empty(), "{when}: {view} differs in {} rows, such as {:?}", wrong.len(), wrong[0]);
    }
}

fn assert_stored(database: &Database<'_>) {
    for (table, truth) in [("s.daily", DAILY), ("s.around", AROUND)] {
        let wrong = database.rows(&differences(table, truth));
        assert!(wrong.is_empty(), "{table} differs in {} rows, such as {:?}", wrong.len(), wrong[0]);
    }
    assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);
}

fn refresh(client: &mut Client) {
    client.batch_execute("CALL tidemark.refresh()").unwrap();
}

/// A late event with its mark, in the transaction that is open.
fn write(client: &mut Client, date: &str) {
    let sql = format!(
        "INSERT INTO s.events VALUES ('{date}', 3, 1000);
         SELECT tidemark.mark_dirty('s.events', ARRAY['{date}']::date[])"
    );
    rows(client, &sql);
}

#[test]
fn no_order_of_commits_loses_a_mark() {
    let database = cluster::shared().empty_database();
    shop(&database);
    let mut refresher = database.connect();
    refresh(&mut refresher);
    assert_stored(&database);
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for refreshers in ["read committed", "repeatable read"] {
            refresher.batch_execute(&format!("SET default_transaction_isolation = '{refreshers}'")).unwrap();
            // The trap: a mark of the same date is there, and is taken away while the writer's is not to be seen.
            write(&mut database.connect(), "2026-01-05");
            let mut writer = database.connect();
            writer.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).unwrap();
            write(&mut writer, "2026-01-05");
            assert_live(&mut writer, "the writer sees his own rows and marks");
            refresh(&mut refresher);
            assert_stored(&database);
            assert_live(&mut writer, "and goes on doing so after a refresh");
            writer.batch_execute("COMMIT").unwrap();
            assert_live(&mut database.connect(), "before the refresh");
            refresh(&mut refresher);
            assert_stored(&database);
        }
    }
    // A writer that takes back what it did, in part or in whole, leaves no mark.
    let mut writer = database.connect();
    writer.batch_execute("BEGIN; SAVEPOINT a").unwrap();
    write(&mut writer, "2026-01-05");
    writer.batch_execute("ROLLBACK TO a; COMMIT").unwrap();
    assert_stored(&database);
}

#[test]
fn a_live_view_is_exact_in_every_transaction() {
    let database = cluster::shared().empty_database();
    shop(&database);
    let mut refresher = database.connect();
    refresh(&mut refresher);
    // Snapshots from before, between and after, which stay open while everything moves on.
    let mut old: Vec<Client> = Vec::new();
    for date in ["2026-01-03", "2026-01-04", "2025-12-31"] {
        let mut reader = database.connect();
        rows(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM s.events");
        old.push(reader);
        write(&mut refresher, date);
        let mut reader = database.connect();
        rows(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM s.events");
        old.push(reader);
        refresh(&mut refresher);
    }
    // A refresh that has taken marks away and not committed.
    write(&mut refresher, "2026-01-09");
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE s.daily IN SHARE MODE").unwrap();
    let mut other = database.connect();
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let thread = std::thread::spawn(move || refresh(&mut other));
    wait_until("the refresh to come to the table", PATIENCE, || {
        database.number(&format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted")) > 0
    });
    assert_live(&mut database.connect(), "while a refresh is at work");
    blocker.batch_execute("ROLLBACK").unwrap();
    thread.join().unwrap();
    for (number, reader) in old.iter_mut().enumerate() {
        assert_live(reader, &format!("snapshot {number}"));
    }
    assert_stored(&database);
}

#[test]
fn writers_refreshers_and_kills_leave_nothing_wrong() {
    let database = cluster::shared().empty_database();
    shop(&database);
    let end = Instant::now() + Duration::from_secs(6);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut helpers = Vec::new();
        for seed in 0..3 {
            let (database, stop) = (&database, &stop);
            helpers.push(scope.spawn(move || {
                let mut client = database.connect();
                client.batch_execute(&format!("SELECT setseed(0.{seed}1)")).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    // Inserts, updates, deletes and moves to another date, each with the marks of what it touched.
                    let sql = "WITH gone AS (DELETE FROM s.events
                                             WHERE event_date = '2026-01-01'::date + (random() * 9)::integer
                                               AND person = (random() * 6)::integer RETURNING event_date),
                             come AS (INSERT INTO s.events
                                      SELECT '2026-01-01'::date + (random() * 9)::integer,
                                             (random() * 6)::integer, (random() * 99)::integer
                                        FROM generate_series(1, 3) RETURNING event_date)
                         SELECT tidemark.mark_dirty('s.events', array_agg(event_date))
                           FROM (SELECT * FROM gone UNION ALL SELECT * FROM come) AS x";
                    match client.simple_query(sql) {
                        Ok(_) => {}
                        Err(e) if e.code().is_some_and(|code| code.code() == "40P01") => {}
                        Err(e) => panic!("{e:?}"),
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }));
            helpers.push(scope.spawn(move || {
                let mut client = database.connect();
                while !stop.load(Ordering::Relaxed) {
                    // Ended by somebody below, or not.
                    let named = client.batch_execute("SET application_name = 'refresher'");
                    if let Err(e) = named.and_then(|()| client.batch_execute("CALL tidemark.refresh()")) {
                        // Without an SQLSTATE the connection was gone before the server could say why.
                        let killed = e.code().is_none_or(|code| code.code() == "57P01");
                        assert!(killed, "a refresh failed with {e:?}");
                        client = database.connect();
                    }
                }
            }));
        }
        let (mut reader, mut killer, mut looks) = (database.connect(), database.connect(), 0);
        while Instant::now() < end || looks < 25 {
            assert_live(&mut reader, "at some moment");
            looks += 1;
            if looks % 5 == 0 {
                killer
                    .simple_query(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                          WHERE application_name = 'refresher' AND datname = current_database()
                          ORDER BY random() LIMIT 1",
                    )
                    .unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for helper in helpers {
            helper.join().unwrap();
        }
    });
    refresh(&mut database.connect());
    assert_stored(&database);
    let verified = "SELECT DISTINCT status FROM unnest('{s.daily,s.around}'::text[]) AS m,
                           tidemark.verify_model(m, '2025-12-30', '2026-01-12')";
    assert_eq!(database.column(verified), ["ok"]);
    let worked = "SELECT count(*) > 20, bool_or(rows_deleted > 0), bool_or(rows_updated > 0)
                    FROM tidemark_internal.refresh_log";
    assert_eq!(database.rows(worked), [["t", "t", "t"]], "the refreshers did too little to prove anything");
}

#[test]
fn the_last_refresh_is_on_record() {
    let database = cluster::shared().empty_database();
    shop(&database);
    let mut client = database.connect();
    refresh(&mut client);
    write(&mut client, "2026-01-05");
    refresh(&mut client);
    let last = "SELECT model, event_date, rows_inserted, rows_updated, rows_deleted FROM tidemark_internal.refresh_log
         WHERE run = (SELECT max(run) FROM tidemark_internal.refresh_log) ORDER BY id";
    let row =
        |model: &str, date: &str| vec![model.to_owned(), date.to_owned(), "0".into(), "1".into(), "0".into()];
    assert_eq!(
        database.rows(last),
        [
            row("s.daily", "2026-01-05"),
            row("s.around", "2026-01-06"),
            row("s.around", "2026-01-05"),
            row("s.around", "2026-01-04")
        ]
    );
    // It does not grow for ever: old entries go with the next refresh that has nothing else to do.
    let age = "UPDATE tidemark_internal.refresh_log SET refreshed_at = now() - interval '31 days'";
    client.batch_execute(age).unwrap();
    refresh(&mut client);
    assert_eq!(database.number("SELECT count(*) FROM tidemark_internal.refresh_log"), 0);
}

#[test]
fn a_superusers_refresh_runs_as_the_owner() {
    let database = cluster::shared().empty_database();
    shop(&database);
    let mut superuser = database.connect();
    let role = format!("mallory_{}", database.value("SELECT current_database()"));
    let sql = format!(
        "CREATE ROLE {role}; CREATE SCHEMA m AUTHORIZATION {role}; SET ROLE {role};
         CREATE TABLE m.events (event_date date); INSERT INTO m.events VALUES ('2026-01-01');
         CREATE FUNCTION m.trap() RETURNS integer LANGUAGE plpgsql SET timezone = 'UTC' AS $f$
         BEGIN
             BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE 'CREATE TABLE public.stolen AS SELECT 1'; EXCEPTION WHEN OTHERS THEN NULL; END;
             PERFORM pg_catalog.set_config('search_path', 'm', false);
             RETURN 1;
         END $f$;
         SELECT tidemark.create_model('m.trap', '{{m.events}}',
             'SELECT event_date, m.trap() AS x FROM m.events WHERE event_date >= $1 AND event_date < $2',
             '{{event_date}}', live => true);
         RESET ROLE"
    );
    superuser.batch_execute(&sql).unwrap();
    let path = rows(&mut superuser, "SHOW search_path");
    refresh(&mut superuser);
    assert_eq!(database.number("SELECT count(*) FROM m.trap"), 1, "the model was refreshed");
    let stolen = format!(
        "SELECT to_regclass('public.stolen') IS NULL AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = '{role}')"
    );
    assert_eq!(database.value(&stolen), "t");
    assert_eq!(rows(&mut superuser, "SHOW search_path"), path);
    assert_eq!(rows(&mut superuser, "SELECT current_user = session_user")[0][0], "t");

    // Mallory may refresh his own model and no other, by name or without.
    superuser.batch_execute(&format!("ALTER ROLE {role} LOGIN PASSWORD 'x'")).unwrap();
    let address = &cluster::shared().address;
    let name = database.value("SELECT current_database()");
    let mut mallory = connect(&format!("postgresql://{role}:x@{address}/{name}"));
    write(&mut superuser, "2026-01-05");
    refresh(&mut mallory);
    assert_eq!(database.number("SELECT dirty_dates FROM tidemark.model_status WHERE model = 's.daily'"), 1);
    assert_eq!(sqlstate(mallory.batch_execute("CALL tidemark.refresh('s.daily')")), "42501");
    // Who owns no model distributes no marks.
    let stranger = format!("stranger_{name}");
    superuser.batch_execute(&format!("CREATE ROLE {stranger} LOGIN PASSWORD 'x'")).unwrap();
    let mut stranger = connect(&format!("postgresql://{stranger}:x@{address}/{name}"));
    assert_eq!(sqlstate(stranger.batch_execute("CALL tidemark.refresh()")), "42501");
    assert_eq!(sqlstate(stranger.simple_query("SELECT tidemark_internal.distribute_dirty()")), "42501");
    refresh(&mut superuser);
    assert_stored(&database);
}

/// What a loader does that never pauses: whenever a date of the first model was computed, its source has new rows.
#[test]
fn a_source_that_is_loaded_without_a_pause_keeps_no_model_waiting() {
    let database = cluster::shared().empty_database();
    shop(&database);
    let mut client = database.connect();
    let sql = "CREATE FUNCTION s.load() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
            INSERT INTO s.events SELECT '2026-01-05', 1, 1;
            PERFORM tidemark.mark_dirty('s.events', ARRAY['2026-01-05']::date[]);
            RETURN NULL; END $f$;
        CREATE TRIGGER load AFTER INSERT ON s.daily EXECUTE FUNCTION s.load()";
    client.batch_execute(sql).unwrap();
    refresh(&mut client);
    let times = "SELECT m.name, m.refresh_count, s.dirty_dates FROM tidemark_internal.models m
                   JOIN tidemark.model_status s ON s.model = m.name ORDER BY 1";
    // 10 dates with events, 12 around them; what came in meanwhile makes one date stale, and the three around it.
    let expected = [["s.around", "12", "3"], ["s.daily", "10", "1"]];
    assert_eq!(rows(&mut client, times), expected);
    assert_live(&mut client, "in between");
    refresh(&mut client);
    let expected = [["s.around", "15", "3"], ["s.daily", "11", "1"]];
    assert_eq!(rows(&mut client, times), expected);
    client.batch_execute("DROP TRIGGER load ON s.daily").unwrap();
    refresh(&mut client);
    assert_stored(&database);
}
