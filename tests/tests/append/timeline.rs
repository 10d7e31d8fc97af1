//! Timelines that gain parts: when they do, and that every report stays as rows are.

use std::thread::JoinHandle;
use std::time::Duration;

use postgres::{Client, NoTls};
use tidemark_tests::cluster::{Database, run, told};
use tidemark_tests::race::kill_9;
use tidemark_tests::wait_until;

use super::refreshed;

/// A source with two dates of 200 events, and a timeline of it; refreshed.
fn line(database: &Database<'_>, source: &str) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION tidemark; CREATE SCHEMA w;
             CREATE TABLE w.events (id serial, event_date date NOT NULL GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED,
                                    event_time timestamptz NOT NULL, person text, event_type text, shop text DEFAULT 'one');
             SELECT tidemark.track_changes('w.events');
             {source};
             INSERT INTO w.events (event_time, person, event_type)
             SELECT timestamptz '2026-01-01Z' + n % 2 * interval '1 day' + n * interval '3 minutes', 'person ' || n % 9, 'event ' || n % 5
               FROM generate_series(0, 399) AS n WHERE n % 200 < 190"
        ),
    );
    refreshed(&mut client);
    client
}

const PLAIN: &str =
    "SELECT tidemark.create_timeline('w.line', 'w.events', properties => '{id}', slices => 4)";

/// Adds as many events to a date, of five persons.
fn add(client: &mut Client, date: &str, events: u32) {
    run(
        client,
        &format!(
            "INSERT INTO w.events (event_time, person, event_type) SELECT timestamptz '{date} 12:00Z' + n * interval '1 minute', 'person ' || n % 5, 'event ' || n % 3 FROM generate_series(1, {events}) AS n"
        ),
    );
}

/// Which dates wait for a refresh, and whether a report makes them of what they gained only; after comparing the report
/// with rows.
fn waiting(client: &mut Client) -> String {
    for by in ["event_type", "id"] {
        let report = format!(
            "SELECT concat_ws(' ', period, series, value) FROM tidemark.trend('w.line', '2026-01-01', '2026-01-04', breakdown => '{by}', top => 10000) ORDER BY 1"
        );
        let truth = format!(
            "SELECT concat_ws(' ', event_date::timestamptz, {by}, count(*)) FROM w.events WHERE person IS NOT NULL GROUP BY event_date, {by} ORDER BY 1"
        );
        assert_eq!(told(client, &report), told(client, &truth));
    }
    let sessions = "SELECT sessions, persons, events FROM tidemark.session_report('w.line', '2026-01-01', '2026-01-04', '10 minutes')";
    let truth = "SELECT sum(n), count(*), sum(e) FROM (SELECT cardinality(tidemark.sessions(event_time, '10 minutes')) AS n, count(*) AS e FROM w.events WHERE person IS NOT NULL GROUP BY person) AS s";
    assert_eq!(told(client, sessions), told(client, truth));
    told(
        client,
        "SELECT to_char(date '2000-01-01' + d, 'DD'), CASE WHEN s IS NULL THEN 'whole' ELSE 'gained' END
           FROM tidemark_internal.timeline_definition('w.line'::regclass, '2026-01-01', '2026-01-04'), unnest(stale, gained) AS x(d, s) ORDER BY 1",
    )
}

/// What a refresh of the timeline did: each date and way, with the parts it has now; after comparing with rows.
fn stored(client: &mut Client) -> String {
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(waiting(client), "");
    let wrong =
        "SELECT * FROM tidemark.verify_model('w.line', '2026-01-01', '2026-01-04') WHERE status <> 'ok'";
    assert_eq!(told(client, wrong), "");
    told(
        client,
        "SELECT to_char(l.event_date, 'DD'), l.way, (SELECT count(DISTINCT t.part) - 1 FROM w.line t WHERE t.event_date = l.event_date)
           FROM tidemark.refresh_log l WHERE l.run = (SELECT max(run) FROM tidemark.refresh_log) AND l.model = 'w.line' ORDER BY 1",
    )
}

pub fn parts(database: &Database<'_>) {
    let c = &mut line(database, PLAIN);
    add(c, "2026-01-01", 3);
    assert_eq!(waiting(c), "01 gained");
    assert_eq!(stored(c), "01 append 1");
    add(c, "2026-01-01", 1);
    add(c, "2026-01-02", 1);
    assert_eq!(waiting(c), "01 gained, 02 gained");
    assert_eq!(stored(c), "01 append 2, 02 append 1");
    add(c, "2026-01-01", 30);
    assert_eq!(stored(c), "01 append 0");
    // Without events nothing is new but what was seen; nobody's event is none.
    run(c, "INSERT INTO w.events (event_time, event_type) VALUES ('2026-01-02 05:00Z', 'nobody''s')");
    assert_eq!(stored(c), "02 append 1");
    add(c, "2026-01-03", 2);
    assert_eq!(waiting(c), "03 whole");
    assert_eq!(stored(c), "03 recompute 0");
    add(c, "2026-01-03", 1);
    assert_eq!(stored(c), "03 append 0");
    run(c, "DELETE FROM w.events WHERE id = 7");
    add(c, "2026-01-01", 1);
    assert_eq!(waiting(c), "01 whole");
    assert_eq!(stored(c), "01 recompute 0");
    // What went without a mark is found by counting.
    add(c, "2026-01-01", 1);
    run(
        c,
        "ALTER TABLE w.events DISABLE TRIGGER USER; DELETE FROM w.events WHERE id = 9;
         ALTER TABLE w.events ENABLE TRIGGER USER",
    );
    assert_eq!(waiting(c), "01 gained");
    assert_eq!(stored(c), "01 recompute 0");
    // As after a dump into a cluster that counts its transactions anew.
    add(c, "2026-01-01", 1);
    run(c, "UPDATE tidemark_internal.model_dates SET cluster = 1 WHERE event_date = '2026-01-01'");
    assert_eq!(waiting(c), "01 whole");
    assert_eq!(stored(c), "01 recompute 0");
    // Whose numbers went round is taken for seen.
    run(c, "UPDATE tidemark_internal.model_dates SET seen = '\\x00ca9a3b' WHERE event_date = '2026-01-01'");
    add(c, "2026-01-01", 1);
    assert_eq!(waiting(c), "01 gained");
    assert_eq!(stored(c), "01 recompute 0");
    // In one transaction with the report.
    run(c, "BEGIN");
    add(c, "2026-01-02", 2);
    assert_eq!(waiting(c), "02 gained");
    run(c, "SAVEPOINT s");
    add(c, "2026-01-02", 2);
    assert_eq!(waiting(c), "02 gained");
    run(c, "ROLLBACK TO s; COMMIT");
    assert_eq!(stored(c), "02 append 2");
}

pub fn open_parts(database: &Database<'_>) {
    let c = &mut line(database, PLAIN);
    let (other, third) = (&mut database.connect(), &mut database.connect());
    run(other, "BEGIN");
    add(other, "2026-01-01", 1);
    run(other, "SAVEPOINT s");
    add(other, "2026-01-01", 1);
    run(third, "BEGIN; SAVEPOINT s");
    add(third, "2026-01-01", 2);
    add(c, "2026-01-01", 1);
    assert_eq!(stored(c), "01 append 1");
    run(other, "RELEASE s; COMMIT");
    assert_eq!(waiting(c), "01 gained");
    assert_eq!(stored(c), "01 append 2");
    run(third, "ROLLBACK TO s; COMMIT");
    add(c, "2026-01-01", 1);
    assert_eq!(stored(c), "01 append 3");
    // More subtransactions than a snapshot lists: each is asked about.
    run(third, "BEGIN");
    for _ in 0..70 {
        run(third, "SAVEPOINT s");
        add(third, "2026-01-02", 1);
    }
    add(c, "2026-01-02", 1);
    assert_eq!(stored(c), "02 append 1");
    run(third, "COMMIT");
    assert_eq!(waiting(c), "02 gained");
    assert_eq!(stored(c), "02 append 0", "an eighth of the date: slices again");
}

/// What a statement reads whose mark it has not taken, and what it leaves to that mark.
pub fn marks_in_between(database: &Database<'_>) {
    const STEP: &str = "SELECT FROM tidemark_internal.refresh_step((SELECT oid FROM pg_roles WHERE rolname = current_user), NULL, '{}')";
    let c = &mut line(database, PLAIN);
    add(c, "2026-01-01", 3);
    run(c, "SELECT tidemark_internal.distribute_dirty()");
    add(c, "2026-01-01", 2);
    run(c, STEP);
    assert_eq!(waiting(c), "01 gained");
    let events =
        "SELECT sum(events) FROM w.line WHERE event_date = '2026-01-01' AND property = 0 AND part > 0";
    assert_eq!(told(c, events), "3", "of those whose mark it took");
    assert_eq!(stored(c), "01 append 2");
    add(c, "2026-01-01", 2);
    run(
        c,
        "INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at) VALUES ('w.line', '2026-01-01', now())",
    );
    run(c, STEP);
    assert_eq!(waiting(c), "01 gained", "by nothing: all rows were read");
    assert_eq!(stored(c), "01 append 0");
}

pub fn parts_of_model(database: &Database<'_>) {
    let c = &mut line(
        database,
        "SELECT tidemark.create_model('w.clean', '{w.events}', 'SELECT id, event_date, event_time, person, event_type, shop FROM w.events
             WHERE event_date >= $1 AND event_date < $2', '{event_date,id}', live => true);
         SELECT tidemark.create_timeline('w.line', 'w.clean', properties => '{id}', slices => 2)",
    );
    add(c, "2026-01-01", 2);
    assert_eq!(waiting(c), "01 whole", "the rows are not there yet, but in the live view");
    c.batch_execute("CALL tidemark.refresh('w.clean')").unwrap();
    assert_eq!(waiting(c), "01 gained");
    assert_eq!(stored(c), "01 append 1");
    run(c, "UPDATE w.events SET event_type = 'other' WHERE id = 7");
    add(c, "2026-01-01", 2);
    assert_eq!(stored(c), "01 scope 0");
    // A property more is in the live view, too.
    run(c, "SELECT tidemark.add_property('w.line', 'shop')");
    add(c, "2026-01-01", 2);
    assert_eq!(waiting(c), "01 whole");
    let by_shop = "SELECT series, sum(value) FROM tidemark.trend('w.line', '2026-01-01', '2026-01-04', breakdown => 'shop') GROUP BY 1";
    let truth = "SELECT shop, count(*) FROM w.events WHERE person IS NOT NULL GROUP BY 1";
    assert_eq!(told(c, by_shop), told(c, truth));
    run(c, "SELECT tidemark.drop_timeline('w.line')");
    assert_eq!(told(c, "SELECT count(*) FROM pg_class WHERE relname LIKE 'line%'"), "0");
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a statement that writes slices until it comes to one that somebody else holds, with the process that runs it.
fn held(
    database: &Database<'_>,
    holder: &mut Client,
    statement: &'static str,
) -> (i32, JoinHandle<Result<(), postgres::Error>>) {
    run(holder, "BEGIN; SELECT FROM w.line WHERE part = 0 FOR SHARE");
    let mut writer = database.connect();
    let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let thread = std::thread::spawn(move || writer.batch_execute(statement));
    let waits = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    wait_until("the statement to come to a slice", PATIENCE, || database.number(&waits) > 0);
    (pid, thread)
}

/// Reports answer while a timeline is made anew, and a refresh passes it over.
pub fn remade(database: &Database<'_>) {
    let c = &mut line(database, PLAIN);
    add(c, "2026-01-01", 5);
    assert_eq!(stored(c), "01 append 1");
    let holder = &mut database.connect();
    for statement in [
        "SELECT tidemark.rebuild_timeline('w.line', 64)",
        "SELECT tidemark.add_property('w.line', 'shop')",
        "SELECT tidemark.rebuild_timeline('w.line', 2)",
    ] {
        let (_, thread) = held(database, holder, statement);
        add(c, "2026-01-01", 2);
        assert_eq!(waiting(c), "01 gained");
        c.batch_execute("CALL tidemark.refresh()").unwrap();
        assert_eq!(waiting(c), "01 gained");
        run(holder, "COMMIT");
        thread.join().unwrap().unwrap();
        assert_eq!(waiting(c), "01 gained");
        stored(c);
    }
    let by_shop = "SELECT DISTINCT series FROM tidemark.trend('w.line', '2026-01-01', '2026-01-04', 'persons', breakdown => 'shop')";
    assert_eq!(told(c, by_shop), "one");
    assert_eq!(told(c, "SELECT slices, properties FROM tidemark.timeline_status"), "2 {id,shop}");
}

/// A statement that kill -9 ends half way has done nothing.
fn killed(database: &Database<'_>, statement: &'static str) {
    let c = &mut line(database, PLAIN);
    add(c, "2026-01-01", 5);
    assert_eq!(stored(c), "01 append 1");
    add(c, "2026-01-01", 40);
    let state =
        "SELECT md5(string_agg(l::text, ' ' ORDER BY slice, event_date, property, part)) FROM w.line AS l";
    let before = told(c, state);
    let (pid, thread) = held(database, c, statement);
    assert!(kill_9(pid) && thread.join().unwrap().is_err(), "it was gone already");
    wait_until("Postgres to recover", PATIENCE, || {
        c.simple_query("SELECT 1").is_err() && Client::connect(&database.superuser_url(), NoTls).is_ok()
    });
    let c = &mut database.connect();
    assert_eq!(told(c, state), before);
    assert_eq!(waiting(c), "01 gained");
    assert_eq!(stored(c), "01 append 0");
    assert_eq!(told(c, "SELECT slices, properties FROM tidemark.timeline_status"), "4 {id}");
}

/// Its parts are gone already when it comes to a slice.
pub fn killed_parts(database: &Database<'_>) {
    killed(database, "CALL tidemark.refresh()");
}

pub fn killed_rebuild(database: &Database<'_>) {
    killed(database, "SELECT tidemark.rebuild_timeline('w.line', 64)");
}

pub fn killed_property(database: &Database<'_>) {
    killed(database, "SELECT tidemark.add_property('w.line', 'shop')");
}
