//! Who has tables, models and views of his own beside others': what he locks, what his code does or raises, and what he
//! leaves behind holds up nobody else for long, and never runs with rights that are not his.

use std::time::Duration;

use postgres::Client;
use tidemark_tests::cluster::{self, Database, sqlstate};
use tidemark_tests::wait_until;

use crate::strangers::{WAREHOUSE, login, work_goes_on};

/// A role with a schema of its own that may read s.src, as which the client works from now on.
pub(crate) fn neighbour(database: &Database<'_>, name: &str) -> (String, Client) {
    let (role, client) = login(database, name);
    let sql = format!(
        "GRANT USAGE ON SCHEMA s TO {role}; GRANT SELECT ON s.src TO {role}; CREATE SCHEMA own AUTHORIZATION {role}"
    );
    database.connect().batch_execute(&sql).unwrap();
    (role, client)
}

pub(crate) fn forget(database: &Database<'_>, role: &str) {
    let sql = format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}");
    database.connect().batch_execute(&sql).unwrap();
}

#[test]
fn a_model_that_is_being_registered_holds_up_no_mark_and_loses_none() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "owner");
    let mut client = database.connect();
    client.batch_execute("SET lock_timeout = '2s'").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let register = "BEGIN; SELECT tidemark.create_model('own.m', '{s.src}',
         'SELECT event_date, count(*) AS n FROM s.src WHERE event_date >= $1 AND event_date < $2 GROUP BY 1',
         '{event_date}', live => true)";
    let write = |client: &mut Client, date: &str| {
        let sql = format!(
            "BEGIN; INSERT INTO s.src VALUES ('{date}', 1); SELECT tidemark.mark_dirty('s.src', '{{{date}}}'); COMMIT;
             CALL tidemark.refresh()"
        );
        for statement in sql.split(';') {
            client
                .batch_execute(statement)
                .unwrap_or_else(|e| panic!("{statement}: {}", cluster::explain(&e)));
        }
    };
    let log = "SELECT count(*) FROM tidemark_internal.dirty_log";
    let waiting = "SELECT sum(dirty_dates) FROM tidemark.model_status WHERE model = 's.m'";

    // Given up in the end: the marks that were kept for it go.
    owner.batch_execute(register).unwrap();
    write(&mut client, "2026-02-01");
    assert_eq!(
        database.number("SELECT v FROM s.m WHERE event_date = '2026-02-01'"),
        1,
        "refreshed meanwhile"
    );
    assert_eq!((database.number(log), database.number(waiting)), (1, 0), "kept for who is not there yet");
    write(&mut client, "2026-02-02");
    owner.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(database.number(log), 0);

    // Committed in the end: its live view is right at once, its table after a refresh.
    owner.batch_execute(register).unwrap();
    write(&mut client, "2026-02-03");
    write(&mut client, "2026-02-04");
    let others = "SELECT refresh_count FROM tidemark.model_status WHERE model = 's.m'";
    let refreshed = database.number(others);
    owner.batch_execute("COMMIT").unwrap();
    let wrong = |relation: &str| {
        let truth = "SELECT event_date, count(*) FROM s.src GROUP BY 1";
        database.rows(&format!(
            "(SELECT * FROM {relation} EXCEPT {truth}) UNION ALL ({truth} EXCEPT SELECT * FROM {relation})"
        ))
    };
    assert_eq!(wrong("own.m_live"), Vec::<Vec<String>>::new());
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(wrong("own.m"), Vec::<Vec<String>>::new());
    assert_eq!(database.number(log), 0);
    assert_eq!(database.number(others), refreshed, "others had them already");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_slow_model_that_fails_and_takes_locks_leaves_the_others_their_turn() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "a_owner");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date, n FROM generate_series(0, 9) AS n;
             CREATE FUNCTION own.slow(n integer) RETURNS integer LANGUAGE plpgsql AS $f$ BEGIN
                 PERFORM pg_sleep(0.3), pg_advisory_lock('tidemark_internal.models'::regclass::oid::bigint),
                        pg_advisory_lock('tidemark_internal.watermarks'::regclass::oid::bigint);
                 LOCK TABLE own.src IN ACCESS EXCLUSIVE MODE;
                 RETURN n / (n - 9); END $f$;
             SELECT tidemark.create_model('own.a', '{own.src}',
                 'SELECT event_date, own.slow(n) AS n FROM own.src WHERE event_date >= $1 AND event_date < $2',
                 '{event_date}')",
        )
        .unwrap();
    let mut client = database.connect();
    assert_eq!(
        sqlstate(client.batch_execute("CALL tidemark.refresh(NULL, 5)")),
        "P0001",
        "the newest date fails"
    );
    let times =
        "SELECT model || ' ' || refresh_count || ' ' || dirty_dates FROM tidemark.model_status ORDER BY 1";
    let done = database.column(times);
    assert!(done[0].starts_with("own.a ") && done[1] == "s.m 3 0", "{done:?}");
    // In another session its query hangs, since the first one has the locks that it took. That call is lost; the next
    // one leaves it to the end.
    let mut other = database.connect();
    other.batch_execute("SET statement_timeout = '3s'").unwrap();
    assert_eq!(sqlstate(other.batch_execute("CALL tidemark.refresh()")), "57014");
    client.batch_execute("INSERT INTO s.src VALUES ('2026-01-02', 5)").unwrap();
    client.batch_execute("SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')").unwrap();
    assert_eq!(sqlstate(other.batch_execute("CALL tidemark.refresh()")), "57014");
    assert_eq!(database.column(times)[1], "s.m 4 0");
    drop((client, other));
    // Nor are these locks in anybody's way.
    owner.batch_execute("SELECT own.slow(1); SELECT tidemark.drop_model('own.a')").unwrap();
    work_goes_on(&database, "beside locks that a query takes");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn an_owner_who_keeps_his_tables_locked_holds_up_the_others_for_seconds() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let (role, mut owner) = neighbour(&database, "locking_owner");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date, n FROM generate_series(0, 9) AS n;
             SELECT tidemark.create_model('own.a', '{own.src}',
                 'SELECT event_date, n FROM own.src WHERE event_date >= $1 AND event_date < $2', '{event_date}');
             CREATE MATERIALIZED VIEW own.total AS SELECT count(*) AS n FROM own.src;
             CREATE UNIQUE INDEX ON own.total (n);
             SELECT tidemark.manage_materialized_view('own.total', '{own.a}')",
        )
        .unwrap();
    let lock = "BEGIN; LOCK TABLE own.a IN ACCESS EXCLUSIVE MODE; REFRESH MATERIALIZED VIEW own.total";
    owner.batch_execute(lock).unwrap();
    client
        .batch_execute(
            "INSERT INTO s.src VALUES ('2026-01-02', 5); SELECT tidemark.mark_dirty('s.src', '{2026-01-02}');
             SET statement_timeout = '60s'",
        )
        .unwrap();
    // Ten dates wait behind the lock; it is tried once. Nor does it hide the others' health.
    let health =
        "SELECT parent::text FROM tidemark.partition_health; SELECT FROM tidemark.plan_maintenance()";
    owner
        .batch_execute(
            "COMMIT; CREATE TABLE own.ev (event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('own.ev', 1)",
        )
        .unwrap();
    owner.batch_execute("CALL tidemark.run_maintenance()").unwrap();
    owner.batch_execute(&format!("{lock}; LOCK TABLE own.ev IN ACCESS EXCLUSIVE MODE")).unwrap();
    client.batch_execute(&format!("SET lock_timeout = '2s'; {health}; RESET lock_timeout")).unwrap();
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh()")), "P0001");
    let status =
        "SELECT concat_ws(' ', model, dirty_dates, last_error) FROM tidemark.model_status ORDER BY 1";
    assert_eq!(
        database.column(status),
        ["own.a 10 2026-01-10: canceling statement due to lock timeout", "s.m 0"]
    );
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")), "P0001");
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0);
    owner.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(database.column(status), ["own.a 0", "s.m 0"]);
    client.batch_execute("CALL tidemark.refresh_materialized_views()").unwrap();
    drop(owner);
    forget(&database, &role);
}

#[test]
fn the_rest_of_a_model_is_for_who_may_create_its_table_again() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "a_forgetful_owner");
    let (stranger, mut other) = login(&database, "a_stranger_to_both");
    owner
        .batch_execute(
            "SELECT tidemark.create_model('own.a', '{s.src}',
                 'SELECT event_date, v FROM s.src WHERE event_date >= $1 AND event_date < $2', '{event_date,v}');
             DROP TABLE own.a",
        )
        .unwrap();
    client.batch_execute("DROP TABLE s.m CASCADE").unwrap();
    for gone in ["own.a", "s.m"] {
        let drop = format!("SELECT tidemark.drop_model('{gone}')");
        assert_eq!(sqlstate(other.batch_execute(&drop)), "42501", "{gone}");
    }
    assert_eq!(sqlstate(owner.batch_execute("SELECT tidemark.drop_model('s.m')")), "42501");
    owner.batch_execute("SELECT tidemark.drop_model('own.a')").unwrap();
    client.batch_execute("SELECT tidemark.drop_model('s.m')").unwrap();
    assert_eq!(database.number("SELECT count(*) FROM tidemark_internal.models"), 0);
    drop((owner, other));
    forget(&database, &role);
    forget(&database, &stranger);
}

#[test]
fn who_locks_a_source_that_was_made_anew_holds_up_the_others_for_seconds() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "an_owner_of_a_source");
    let source = "CREATE TABLE own.src AS SELECT date '2026-01-01' AS event_date, 1 AS n";
    owner
        .batch_execute(&format!(
            "{source}; SELECT tidemark.create_model('own.a', '{{own.src}}',
                 'SELECT event_date, n FROM own.src WHERE event_date >= $1 AND event_date < $2', '{{event_date}}')"
        ))
        .unwrap();
    owner.batch_execute(&format!("DROP TABLE own.src; {source}")).unwrap();
    owner.batch_execute("BEGIN; LOCK TABLE own.src IN ACCESS EXCLUSIVE MODE").unwrap();
    client.batch_execute("SET statement_timeout = '60s'").unwrap();
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh('s.m')")), "no error");
    owner.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let status =
        "SELECT concat_ws(' ', model, dirty_dates, last_error) FROM tidemark.model_status ORDER BY 1";
    assert_eq!(database.column(status), ["own.a 0", "s.m 0"]);
    drop(owner);
    forget(&database, &role);
}

#[test]
fn marks_that_concern_many_dates_hold_up_nobody_for_long() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "an_owner_of_many_dates");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' AS event_date, 1 AS n;
             SELECT tidemark.create_model('own.wide', '{own.src}',
                 'SELECT event_date, n FROM own.src WHERE event_date >= $1 AND event_date < $2', '{event_date}',
                 1000, 1000);
             SELECT tidemark.mark_dirty('own.src', ARRAY(SELECT date '1000-01-01' + i * 7
                                                           FROM generate_series(1, 20000) AS i))",
        )
        .unwrap();
    client.batch_execute("SET statement_timeout = '60s'; SET temp_file_limit = '200MB'").unwrap();
    client.batch_execute("CALL tidemark.refresh('s.m')").unwrap();
    // 40 million times a mark reaches a date; each one waits once, or twice where one transaction took over from another.
    let waiting = "FROM tidemark_internal.model_dirty WHERE model = 'own.wide' AND event_date < '1900-01-01'";
    let dates = database.number(&format!("SELECT count(DISTINCT event_date) {waiting}"));
    assert_eq!(dates, 19_999 * 7 + 1 + 2000);
    let rows = database.number(&format!("SELECT count(*) {waiting}"));
    assert!(rows < 2 * dates, "{rows}");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn whatever_the_code_of_an_owner_raises_ends_only_his_own_work() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let (role, mut owner) = neighbour(&database, "a_raising_owner");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date FROM generate_series(0, 1) AS n;
             CREATE TABLE own.code AS SELECT text '' AS code;
             CREATE FUNCTION own.boom() RETURNS integer LANGUAGE plpgsql AS $f$
             DECLARE
                 raised text := (SELECT c.code FROM own.code AS c);
             BEGIN
                 ASSERT raised <> 'P0004', 'boom';
                 IF raised <> '' THEN
                     RAISE 'boom' USING ERRCODE = raised;
                 END IF;
                 RETURN 1;
             END $f$;
             CREATE MATERIALIZED VIEW own.a_view AS SELECT own.boom() AS n;
             CREATE UNIQUE INDEX ON own.a_view (n);
             SELECT tidemark.create_model('own.a', '{own.src}',
                 'SELECT event_date, own.boom() AS n FROM own.src WHERE event_date >= $1 AND event_date < $2',
                 '{event_date}');
             SELECT tidemark.manage_materialized_view('own.a_view', '{own.a,s.m}')",
        )
        .unwrap();
    for code in ["57014", "P0004", "57P01", "40001", "XX000", "TM001"] {
        owner.batch_execute(&format!("UPDATE own.code SET code = '{code}'")).unwrap();
        let write =
            "INSERT INTO s.src VALUES ('2026-01-02', 5); SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')";
        client.batch_execute(write).unwrap();
        assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh()")), "P0001", "{code}");
        assert_eq!(
            sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")),
            "P0001",
            "{code}"
        );
        let others = "SELECT dirty_dates FROM tidemark.model_status WHERE model = 's.m'";
        assert_eq!(database.number(others), 0, "{code}");
        assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0, "{code}");
    }
    // A view that takes long leaves others theirs; and a cancel is one all the same.
    owner
        .batch_execute(
            "CREATE OR REPLACE FUNCTION own.boom() RETURNS integer LANGUAGE sql
                          AS 'SELECT 1 FROM pg_sleep(60)'",
        )
        .unwrap();
    let mut slow = database.connect();
    let pid = slow.query_one("SELECT pg_backend_pid()", &[]).unwrap().get::<_, i32>(0);
    let thread = std::thread::spawn(move || {
        sqlstate(slow.batch_execute("CALL tidemark.refresh_materialized_views()"))
    });
    wait_until("the slow view to be at work", Duration::from_secs(60), || {
        database.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
        )) > 0
    });
    let write =
        "INSERT INTO s.src VALUES ('2026-01-02', 5); SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')";
    client.batch_execute(write).unwrap();
    client.batch_execute("CALL tidemark.refresh('s.m')").unwrap();
    client.batch_execute("CALL tidemark.refresh_materialized_views()").unwrap();
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0);
    database.value(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(thread.join().unwrap(), "57014");
    client.batch_execute("SET statement_timeout = '500ms'").unwrap();
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh('own.a')")), "57014");
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")), "57014");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_materialized_view_that_fails_holds_up_no_other() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let sql = "CREATE MATERIALIZED VIEW s.broken AS SELECT 1 AS one, 1 / (SELECT count(*) FROM s.src) AS x WITH NO DATA;
               CREATE UNIQUE INDEX ON s.broken (one);
               SELECT tidemark.manage_materialized_view('s.broken', '{s.m,s.m}')";
    client.batch_execute(sql).unwrap();
    // Not populated, so it cannot be refreshed concurrently.
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")), "P0001");
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0);
    let status = "SELECT view || ' ' || models::text || ' ' || stale || ' ' || refresh_count
                    FROM tidemark.materialized_views ORDER BY 1";
    assert_eq!(database.column(status), ["s.broken {s.m} true 0", "s.total {s.m} false 1"]);
}
