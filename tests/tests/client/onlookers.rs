//! What others see and do while somebody has models, marks, policies, locks and open registrations of his own: it is there
//! at once, runs none of his code and waits for none of his locks.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tidemark_tests::cluster::{self, sqlstate};

use crate::neighbours::{forget, neighbour};
use crate::strangers::WAREHOUSE;

#[test]
fn who_looks_how_things_stand_meets_no_code_and_no_lock_of_others() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "guarded");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date, timestamptz '2026-01-01Z'
                 + n * interval '1 day' AS event_time, 'p' || n AS person, 'view' AS event_type
                 FROM generate_series(0, 4) AS n;
             SELECT tidemark.create_model('own.m', '{own.src}', 'SELECT event_date, person, count(*) AS n FROM own.src
                 WHERE event_date >= $1 AND event_date < $2 GROUP BY 1, 2', '{event_date,person}', scope => 'person');
             SELECT tidemark.create_timeline('own.line', 'own.src');
             CREATE TABLE own.days (event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             CREATE TABLE own.rest PARTITION OF own.days DEFAULT;
             INSERT INTO own.days VALUES ('2026-01-01Z');
             SELECT tidemark.manage_partitions('own.days', 0, retention_days => 1);",
        )
        .unwrap();
    owner.batch_execute("CALL tidemark.refresh()").unwrap();
    owner
        .batch_execute(
            "CREATE FUNCTION own.trap() RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN
                 LOOP BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $f$;
             CREATE POLICY trap ON own.src USING (own.trap());
             ALTER TABLE own.src ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             SELECT tidemark.mark_persons('own.src', '{p1}')",
        )
        .unwrap();
    let look = |when: &str| {
        let mut client = database.connect();
        client.batch_execute("SET statement_timeout = '3s'").unwrap();
        for sql in [
            "SELECT * FROM tidemark.model_status",
            "SELECT * FROM tidemark.timeline_status",
            "SELECT * FROM tidemark.source_status",
            "SELECT * FROM tidemark.partition_health",
            "SELECT * FROM tidemark.plan_maintenance()",
            "SELECT * FROM tidemark.partitions('own.days')",
            "SELECT * FROM tidemark_internal.date_blockers('own.src', '2026-01-01')",
            "CALL tidemark.run_maintenance('s.ev')",
        ] {
            client.batch_execute(sql).unwrap_or_else(|e| panic!("{when}: {sql}: {}", cluster::explain(&e)));
        }
    };
    look("a policy that never ends");
    let dirty = "SELECT dirty_dates FROM tidemark.model_status WHERE model = 'own.m'";
    assert_eq!(database.number(dirty), 5, "every date that was ever refreshed");
    let blockers = "SELECT count(*) FROM tidemark_internal.date_blockers('own.src', '2026-01-09')
                     WHERE reason = 'waits for a recompute'";
    assert_eq!(
        database.number(blockers),
        2,
        "and keeps every date of the source, of the model and the timeline"
    );
    let health = "SELECT other_bounds FROM tidemark.partition_health WHERE parent = 'own.days'::regclass";
    assert_eq!(database.number(health), 1);
    let bytes = "SELECT coalesce(bytes, 0) FROM tidemark.timeline_status";
    assert!(database.number(bytes) > 8192);

    owner
        .batch_execute(
            "BEGIN; LOCK TABLE own.src, own.m, own.line, own.days, own.rest IN ACCESS EXCLUSIVE MODE",
        )
        .unwrap();
    look("locks");
    assert_eq!((database.number(bytes), database.number(health)), (0, 0), "not known while it is locked");
    owner.batch_execute("ROLLBACK").unwrap();
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_registration_that_stays_open_is_named_to_who_waits_for_it() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "open");
    let create = |name: &str| {
        format!(
            "SELECT tidemark.create_model('{name}', '{{s.src}}', 'SELECT event_date, count(*) AS n FROM s.src
                 WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{{event_date}}')"
        )
    };
    let pid: i32 = owner.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    owner.batch_execute(&format!("BEGIN; {}", create("own.m"))).unwrap();
    let mut client = database.connect();
    for (limit, seconds) in [("300ms", 0.2..2.0), ("0", 9.0..20.0)] {
        for work in [&create("s.second"), "SELECT tidemark.drop_model('s.m')"] {
            client.batch_execute(&format!("SET lock_timeout = '{limit}'")).unwrap();
            let began = Instant::now();
            let error = client.batch_execute(work).unwrap_err();
            let took = began.elapsed().as_secs_f64();
            let said = error.as_db_error().unwrap();
            let open = "another transaction registers or drops a model and is still open";
            assert_eq!((said.code().code(), said.message()), ("55P03", open));
            let hint = said.hint().unwrap_or_default();
            assert!(hint.contains(&format!("{pid} ({role})")), "{hint}");
            assert!(seconds.contains(&took), "{limit}: {took}");
        }
    }
    owner.batch_execute("COMMIT").unwrap();
    client.batch_execute(&format!("BEGIN; {}", create("s.second"))).unwrap();
    let limit: String = client.query_one("SHOW lock_timeout", &[]).unwrap().get(0);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(limit, "0", "as it was");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_model_of_a_reader_keeps_no_owner_from_dropping_his() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut reader) = neighbour(&database, "reader");
    let mut client = database.connect();
    client.batch_execute(&format!("GRANT SELECT ON s.m TO {role}")).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    reader
        .batch_execute(
            "SELECT tidemark.create_model('own.m', '{s.m}', 'SELECT event_date, v FROM s.m
                 WHERE event_date >= $1 AND event_date < $2', '{event_date}')",
        )
        .unwrap();
    assert_eq!(sqlstate(client.batch_execute("SELECT tidemark.drop_model('s.m', true)")), "2BP01");
    client.batch_execute("SELECT tidemark.drop_model('s.m')").unwrap();
    reader.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(database.number("SELECT count(*) FROM own.m JOIN s.m USING (event_date, v)"), 3);
    drop(reader);
    forget(&database, &role);
}

#[test]
fn marks_of_a_model_that_looks_back_for_years_are_cheap_to_others() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "wide");
    let mut client = database.connect();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let create = "CREATE TABLE own.src (event_date date);
         SELECT tidemark.create_model('own.a', '{own.src}', 'SELECT event_date, count(*) AS n FROM own.src
             WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}', 1000, 1000);
         SELECT tidemark.create_model('own.b', '{own.a}', 'SELECT event_date, n FROM own.a
             WHERE event_date >= $1 AND event_date < $2', '{event_date}', 1000, 1000);
         SELECT tidemark.mark_dirty('own.src', ARRAY(SELECT date '2000-01-01' + n FROM generate_series(1, 20000) AS n))";
    owner.batch_execute(create).unwrap();
    client.batch_execute("SET statement_timeout = '2s'").unwrap();
    // One mark a date, and each of 2,001 dates of one model and 4,001 of the next.
    let status =
        "SELECT string_agg(model || ' ' || dirty_dates, ', ' ORDER BY model) FROM tidemark.model_status
                   WHERE model LIKE 'own.%'";
    let counted: String = client.query_one(status, &[]).unwrap().get(0);
    assert_eq!(counted, "own.a 22000, own.b 24000");
    client.batch_execute("SELECT * FROM tidemark_internal.date_blockers('own.src', '2026-01-01')").unwrap();
    client.batch_execute("SET statement_timeout = '30s'").unwrap();
    client.batch_execute("CALL tidemark.refresh('s.m')").unwrap();
    drop(owner);
    forget(&database, &role);
}

#[test]
fn models_that_read_each_other_in_many_ways_are_cheap_to_others() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "net");
    owner.batch_execute("CREATE TABLE own.src (event_date date)").unwrap();
    let mut below = "own.src".to_owned();
    for level in 0..9 {
        let days = 1 << level;
        for (kind, back, ahead) in [("x", 0, 0), ("y", days, 0), ("z", 0, days)] {
            let create = format!(
                "SELECT tidemark.create_model('own.{kind}{level}', '{{{below}}}', 'SELECT event_date FROM own.src
                     WHERE event_date >= $1 AND event_date < $2', '{{event_date}}', {back}, {ahead})"
            );
            owner.batch_execute(&create).unwrap();
        }
        below = ["x", "y", "z"].map(|kind| format!("own.{kind}{level}")).join(",");
    }
    let mark = "SELECT tidemark.mark_dirty('own.src', ARRAY(SELECT date '2000-01-01' + 30 * i
                                                              FROM generate_series(1, 300) AS i))";
    owner.batch_execute(mark).unwrap();
    let mut client = database.connect();
    client.batch_execute("SET statement_timeout = '3s'").unwrap();
    // 3^9 ways lead from a mark to the last level: a date moves by up to 511 days to either side.
    let status = "SELECT dirty_dates::text FROM tidemark.model_status WHERE model = 'own.x8'";
    let dirty: String = client.query_one(status, &[]).unwrap().get(0);
    assert_eq!(dirty, (30 * 299 + 1 + 2 * 255).to_string());
    client.batch_execute("SELECT * FROM tidemark.partition_health").unwrap();
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_step_says_nothing_that_its_caller_could_refuse_to_read() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let said = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&said);
    let mut config: postgres::Config = database.superuser_url().parse().unwrap();
    config.notice_callback(move |notice| {
        *heard.lock().unwrap() += notice.message().len() + notice.detail().map_or(0, str::len);
    });
    let mut client = config.connect(postgres::NoTls).unwrap();
    for set in ["client_min_messages = debug5", "debug_print_plan = on", "debug_print_parse = on"] {
        client.batch_execute(&format!("SET {set}")).unwrap();
    }
    client.batch_execute("SELECT count(*) FROM s.src").unwrap();
    let loud = std::mem::take(&mut *said.lock().unwrap());
    assert!(loud > 1000, "{loud}");
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    client.batch_execute("CALL tidemark.run_maintenance('s.ev')").unwrap();
    let quiet = *said.lock().unwrap();
    assert!(quiet < 100_000, "{quiet} bytes");
    drop(client);
}

#[test]
fn a_session_that_refreshed_often_takes_many_marks_as_fast_as_another() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    let set_up = "CREATE EXTENSION tidemark; CREATE SCHEMA w;
         CREATE TABLE w.e (event_date date NOT NULL); CREATE TABLE w.other (event_date date);
         SELECT tidemark.create_model('w.m', '{w.e}',
             'SELECT event_date, count(*) AS n FROM w.e WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}');
         INSERT INTO w.e VALUES ('2026-01-01')";
    client.batch_execute(set_up).unwrap();
    for _ in 0..12 {
        client.batch_execute("SELECT tidemark.mark_dirty('w.e', '{2026-01-01}')").unwrap();
        client.batch_execute("CALL tidemark.refresh()").unwrap();
    }
    let many = "SELECT tidemark.mark_dirty('w.other', ARRAY(SELECT date '0001-01-01' + g FROM generate_series(1, 60000) AS g))";
    client.batch_execute(many).unwrap();
    client.batch_execute("SELECT tidemark.mark_dirty('w.e', '{2026-01-01}')").unwrap();
    let began = Instant::now();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    // A plan that was made for ten marks took a minute and a half for 100,000.
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    assert_eq!(client.query("SELECT FROM tidemark_internal.dirty_log", &[]).unwrap().len(), 0);
}

#[test]
fn thousands_of_dates_that_fail_take_seconds() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    let set_up = "CREATE EXTENSION tidemark; CREATE SCHEMA w; SET client_min_messages = error;
         CREATE TABLE w.e (event_date date NOT NULL);
         INSERT INTO w.e SELECT date '2020-01-01' + g FROM generate_series(1, 2000) AS g;
         SELECT tidemark.create_model('w.m', '{w.e}',
             'SELECT event_date, 1 / (count(*) - count(*)) AS n FROM w.e WHERE event_date >= $1 AND event_date < $2 GROUP BY 1',
             '{event_date}')";
    client.batch_execute(set_up).unwrap();
    let began = Instant::now();
    let error = client.batch_execute("CALL tidemark.refresh()").unwrap_err();
    assert!(error.as_db_error().unwrap().message().ends_with("could not be refreshed: 2000"), "{error:?}");
    println!("2,000 dates failed in {:?}", began.elapsed());
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
