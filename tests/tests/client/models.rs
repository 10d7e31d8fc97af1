//! Models: always what a full recompute over bronze would give, and only the dates that changed are recomputed.
//! The full recompute here is plain SQL with window functions, without anything of the extension.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, rows};
use tidemark_tests::events::{self, Generated, line, line_received};
use tidemark_tests::process::tidemark;
use tidemark_tests::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

fn load(database: &Database<'_>, path: &Path) {
    tidemark(&["load", path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
}

fn maintain(database: &Database<'_>) {
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
}

fn refresh(client: &mut Client) {
    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
}

/// Sessions as everybody writes them: LAG for the gap, SUM for the number.
const SESSIONS: &str = "
    SELECT (min(event_time) AT TIME ZONE 'UTC')::date AS event_date, person, min(event_time) AS started_at,
           max(event_time) AS ended_at,
           extract(epoch FROM max(event_time) - min(event_time))::numeric(12, 3) AS duration_seconds,
           count(*) AS events, count(*) FILTER (WHERE event_type = 'page_viewed') AS page_views,
           count(*) FILTER (WHERE event_type = 'purchase_completed') AS purchases
      FROM (SELECT *, sum(cut) OVER (PARTITION BY person ORDER BY event_time ROWS UNBOUNDED PRECEDING) AS number
              FROM (SELECT k.known_person AS person, b.event_time, b.event_type,
                           CASE WHEN b.event_time - lag(b.event_time)
                               OVER (PARTITION BY k.known_person ORDER BY b.event_time)
                                     <= interval '30 minutes' THEN 0 ELSE 1 END AS cut
                      FROM bronze.events AS b JOIN silver.events AS k USING (event_id, event_time)
                     WHERE k.known_person IS NOT NULL) AS a) AS b
     GROUP BY person, number";

const DAYS: &str = "
    SELECT b.event_date, count(*) AS events, count(DISTINCT k.known_person) AS active_persons,
           count(*) FILTER (WHERE (b.received_at AT TIME ZONE 'UTC')::date > b.event_date) AS received_after_day,
           max(b.event_time) AS last_event_at, max(b.loaded_at) AS last_loaded_at
      FROM bronze.events AS b LEFT JOIN silver.events AS k USING (event_id, event_time) GROUP BY b.event_date";

/// Panics unless the models hold exactly what a full recompute gives.
fn assert_models_are_right(database: &Database<'_>) {
    for (model, columns, truth) in [
        (
            "gold.sessions",
            "event_date, person, started_at, ended_at, duration_seconds, events, page_views, purchases",
            SESSIONS,
        ),
        (
            "gold.daily_actives",
            "event_date, events, active_persons, received_after_day, last_event_at, last_loaded_at",
            DAYS,
        ),
    ] {
        for (what, sql) in [
            (
                "has too much",
                format!("SELECT {columns} FROM {model} EXCEPT ALL SELECT {columns} FROM ({truth}) AS t"),
            ),
            (
                "lacks",
                format!("SELECT {columns} FROM ({truth}) AS t EXCEPT ALL SELECT {columns} FROM {model}"),
            ),
        ] {
            let wrong = database.rows(&sql);
            assert!(wrong.is_empty(), "{model} {what} {} rows, such as {:?}", wrong.len(), wrong[0]);
        }
    }
    let ids =
        "SELECT count(*) FROM gold.sessions WHERE session_id <> tidemark.session_id(person, started_at)";
    assert_eq!(database.number(ids), 0);
}

/// For each date of a table the transactions that wrote its rows: what changes when the date is overwritten.
fn written(database: &Database<'_>, table: &str) -> BTreeMap<String, String> {
    let sql = format!("SELECT event_date, string_agg(DISTINCT xmin::text, ' ') FROM {table} GROUP BY 1");
    database.rows(&sql).into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect()
}

/// The dates whose rows are not the ones from before.
fn rewritten(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> BTreeSet<String> {
    before.keys().chain(after.keys()).filter(|date| before.get(*date) != after.get(*date)).cloned().collect()
}

fn dates(dates: &[&str]) -> BTreeSet<String> {
    dates.iter().map(|date| (*date).to_owned()).collect()
}

fn shop() -> Generated {
    Generated::new("--events 20000 --days 10 --users 300 --seed 41 --late 0.05 --malformed 0.002")
}

#[test]
fn after_maintenance_the_models_equal_a_full_recompute() {
    let database = cluster::shared().database();
    load(&database, &shop().path);
    maintain(&database);
    assert_models_are_right(&database);
    assert!(
        database.number("SELECT count(*) FROM gold.sessions") > 1000,
        "too few sessions to prove anything"
    );
    assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);

    // Some session goes over midnight, or this proves less than it says.
    let over = "SELECT count(*) FROM gold.sessions WHERE (ended_at AT TIME ZONE 'UTC')::date > event_date";
    assert!(database.number(over) > 0, "no session goes over midnight");

    // The sketch of seven days is the same whether it comes from daily sketches or from the events.
    let weekly = "SELECT count(*) FROM gold.weekly_actives AS w WHERE active_persons_7d <>
        (SELECT tidemark.approx_count_distinct(known_person) FROM silver.events AS e
          WHERE e.event_date BETWEEN w.event_date - 6 AND w.event_date)";
    let days = "SELECT count(DISTINCT event_date) FROM bronze.events";
    assert_eq!(database.number("SELECT count(*) FROM gold.weekly_actives"), database.number(days));
    assert_eq!(database.number(weekly), 0);
}

#[test]
fn a_late_event_recomputes_the_dates_that_it_can_touch_and_no_others() {
    let database = cluster::shared().database();
    load(&database, &shop().path);
    maintain(&database);
    let before =
        ["gold_storage.session_facts", "gold_storage.daily_activity"].map(|table| written(&database, table));

    // Received on the 11th, happened on the 6th.
    let late = line_received(1, "u000001", "2026-09-06T03:00:00Z", "2026-09-11T12:00:00Z");
    load(&database, &events::file(late.as_bytes()));
    assert_eq!(
        database.column("SELECT DISTINCT event_date FROM tidemark_internal.dirty_log"),
        ["2026-09-06"]
    );
    maintain(&database);

    let after =
        ["gold_storage.session_facts", "gold_storage.daily_activity"].map(|table| written(&database, table));
    // A date of sessions reads one day back and two ahead, so that is how far a change reaches the other way round.
    let reached = dates(&["2026-09-04", "2026-09-05", "2026-09-06", "2026-09-07"]);
    let recomputed = "SELECT DISTINCT event_date FROM tidemark_internal.refresh_log
         WHERE run = (SELECT max(run) FROM tidemark_internal.refresh_log) AND model = 'gold_storage.session_facts'";
    assert_eq!(database.column(recomputed).into_iter().collect::<BTreeSet<_>>(), reached);
    // And of these only the rows are written that differ.
    assert_eq!(rewritten(&before[0], &after[0]), dates(&["2026-09-06"]));
    assert_eq!(rewritten(&before[1], &after[1]), dates(&["2026-09-06"]));
    assert_models_are_right(&database);
    let weekly = "SELECT active_persons_7d FROM gold.weekly_actives WHERE event_date = '2026-09-06'";
    let truth = "SELECT tidemark.approx_count_distinct(known_person) FROM silver.events
                  WHERE event_date BETWEEN '2026-08-31' AND '2026-09-06'";
    assert_eq!(database.value(weekly), database.value(truth));
}

#[test]
fn a_late_event_that_joins_two_sessions_over_midnight_is_seen() {
    let database = cluster::shared().database();
    let minutes = ["23:35:00", "23:59:00"].map(|t| format!("2026-09-01T{t}Z"));
    let after = ["00:40:00", "00:50:00"].map(|t| format!("2026-09-02T{t}Z"));
    let lines: Vec<String> =
        (1..).zip(minutes.iter().chain(&after)).map(|(n, time)| line(n, "u", time)).collect();
    load(&database, &events::file(lines.join("\n").as_bytes()));
    maintain(&database);
    assert_eq!(
        database.column("SELECT event_date FROM gold.sessions ORDER BY 1"),
        ["2026-09-01", "2026-09-02"]
    );
    load(&database, &events::file(line(9, "u", "2026-09-02T00:20:00Z").as_bytes()));
    maintain(&database);
    assert_eq!(
        database.rows("SELECT event_date, events, duration_seconds FROM gold.sessions"),
        [["2026-09-01", "5", "4500.000"]]
    );
    assert_models_are_right(&database);
}

#[test]
fn a_second_refresh_does_nothing() {
    let database = cluster::shared().database();
    load(&database, &shop().path);
    maintain(&database);
    let state = || {
        let counts = "SELECT name, refresh_count, last_refreshed_at FROM tidemark_internal.models ORDER BY 1";
        let views =
            "SELECT view, seen_count, refreshed_at FROM tidemark_internal.materialized_views ORDER BY 1";
        (database.rows(counts), database.rows(views), written(&database, "gold_storage.session_facts"))
    };
    let before = state();
    maintain(&database);
    refresh(&mut connect(&database.admin_url()));
    assert_eq!(state(), before);
}

/// Writes an event into bronze as the loader does: the row and its mark in one transaction, which stays open.
fn write_and_hold(client: &mut Client, number: u64, isolation: &str) {
    let sql = format!(
        "BEGIN ISOLATION LEVEL {isolation};
         INSERT INTO bronze.events (event_id, event_time, event_type, user_id, received_at, payload)
         VALUES ('{}', '2026-09-05 12:00:00Z', 'page_viewed', 'late-{number}', '2026-09-09 12:00:00Z', '{{}}');
         SELECT tidemark.mark_dirty('bronze.events'::regclass, ARRAY['2026-09-05']::date[], 'test')",
        events::id(number)
    );
    rows(client, &sql);
}

#[test]
fn a_change_that_commits_during_or_after_a_refresh_is_not_lost() {
    let database = cluster::shared().database();
    load(&database, &shop().path);
    let mut refresher = connect(&database.admin_url());
    refresh(&mut refresher);
    for (number, isolation) in [(1, "READ COMMITTED"), (2, "REPEATABLE READ"), (3, "SERIALIZABLE")] {
        // A mark for the date is there already, committed by somebody else: the trap.
        let sql =
            "SELECT tidemark.mark_dirty('bronze.events'::regclass, ARRAY['2026-09-05']::date[], 'earlier')";
        rows(&mut database.connect(), sql);
        let mut writer = connect(&database.loader_url());
        write_and_hold(&mut writer, number, isolation);
        // The refresher cannot see the row, and takes the earlier mark away.
        refresh(&mut refresher);
        assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);
        writer.batch_execute("COMMIT").unwrap();
        // The writer's own mark is still there.
        assert!(
            database.number("SELECT sum(dirty_dates) FROM tidemark.model_status") > 0,
            "{isolation}: lost"
        );
        refresh(&mut refresher);
        assert_models_are_right(&database);
        let seen = format!("SELECT count(*) FROM gold.sessions WHERE person = 'late-{number}'");
        assert_eq!(database.number(&seen), 1);
    }
    // And when the writer rolls back, in whole or to a savepoint, nothing remains.
    let mut writer = connect(&database.loader_url());
    write_and_hold(&mut writer, 4, "READ COMMITTED");
    writer.batch_execute("ROLLBACK").unwrap();
    assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);
}

#[test]
fn refreshes_and_loads_at_the_same_time_end_with_right_models() {
    let database = cluster::shared().database();
    let parts: Vec<Generated> = (0..4)
        .map(|n| {
            Generated::new(&format!(
                "--events 4000 --days 4 --users 100 --late 0.3 --malformed 0 --seed {}",
                50 + n
            ))
        })
        .collect();
    std::thread::scope(|scope| {
        let loads: Vec<_> = parts
            .iter()
            .map(|part| {
                let database = &database;
                scope.spawn(move || {
                    let path = part.path.to_str().unwrap();
                    tidemark(&["load", path, "--batch-rows", "200"])
                        .database(&database.loader_url())
                        .run()
                        .ok();
                })
            })
            .collect();
        let refreshers: Vec<_> = (0..2)
            .map(|_| {
                let mut client = connect(&database.admin_url());
                scope.spawn(move || {
                    for _ in 0..5 {
                        refresh(&mut client);
                    }
                })
            })
            .collect();
        for thread in loads.into_iter().chain(refreshers) {
            thread.join().unwrap();
        }
    });
    refresh(&mut connect(&database.admin_url()));
    assert_models_are_right(&database);
}

#[test]
fn the_next_refresh_finishes_what_a_killed_one_left() {
    let database = cluster::shared().database();
    load(&database, &shop().path);
    let mut admin = connect(&database.admin_url());
    admin.batch_execute("CALL tidemark.refresh('silver.events', NULL)").unwrap();
    admin.batch_execute("CALL tidemark.refresh('gold_storage.session_facts', 3)").unwrap();
    let refreshed = "SELECT count(DISTINCT event_date) FROM gold.sessions";
    let (some, all) =
        (database.number(refreshed), database.number("SELECT count(DISTINCT event_date) FROM bronze.events"));
    assert!(some > 0 && some < all, "{some} of {all} dates");

    // Stop it inside a date, then end it.
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE gold_storage.session_facts IN SHARE MODE").unwrap();
    let mut refresher = connect(&database.admin_url());
    let pid: i32 = refresher.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let thread = std::thread::spawn(move || {
        refresher.batch_execute("CALL tidemark.refresh('gold_storage.session_facts', NULL)")
    });
    let waiting = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    wait_until("the refresh to come to a date", PATIENCE, || database.number(&waiting) > 0);
    assert_eq!(database.value(&format!("SELECT pg_terminate_backend({pid})")), "t");
    assert!(thread.join().unwrap().is_err(), "the refresh went on without its connection");
    blocker.batch_execute("ROLLBACK").unwrap();

    assert_eq!(database.number(refreshed), some, "the date in work was rolled back");
    assert!(
        database.number(
            "SELECT dirty_dates FROM tidemark.model_status WHERE model = 'gold_storage.session_facts'"
        ) > 0
    );
    maintain(&database);
    assert_models_are_right(&database);
}

#[test]
fn a_date_that_cannot_be_refreshed_stays_dirty_and_holds_up_no_other() {
    let database = cluster::shared().database();
    load(&database, &shop().path);
    let trap =
        "ALTER TABLE gold_storage.session_facts ADD CONSTRAINT trap CHECK (event_date <> '2026-09-05')";
    database.connect().batch_execute(trap).unwrap();
    let result = connect(&database.admin_url()).batch_execute("CALL tidemark.refresh(NULL, NULL)");
    assert!(result.is_err(), "nobody was told");
    let status = "SELECT dirty_dates, oldest_dirty_date, last_error IS NOT NULL FROM tidemark.model_status
                   WHERE model = 'gold_storage.session_facts'";
    assert_eq!(database.rows(status), [["1", "2026-09-05", "t"]]);
    database.connect().batch_execute("ALTER TABLE gold_storage.session_facts DROP CONSTRAINT trap").unwrap();
    maintain(&database);
    assert_eq!(database.rows(status), [["0", "NULL", "f"]]);
    assert_models_are_right(&database);
}
