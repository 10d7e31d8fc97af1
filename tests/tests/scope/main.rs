//! Models that compute only the persons whose rows changed: when they do, when they must not, and that no order of
//! commits loses one. A server of their own, whose transactions are theirs alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod since;

use postgres::Client;
use tidemark_tests::cluster::{Cluster, Database, run, told};

/// Events that come into `w.raw`, a model of them, and sessions of persons with a gap of an hour, which may go on after
/// midnight; refreshed.
fn world(database: &Database<'_>) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w;
         CREATE TABLE w.raw (id int, at timestamptz NOT NULL, person text,
             event_date date GENERATED ALWAYS AS ((at AT TIME ZONE 'UTC')::date) STORED);
         SELECT tidemark.track_changes('w.raw');
         INSERT INTO w.raw VALUES (1, '2026-01-01 10:00Z', 'ada'), (2, '2026-01-01 10:30Z', 'ada'),
             (3, '2026-01-01 10:00Z', 'bob'), (4, '2026-01-02 09:00Z', 'bob'), (5, '2026-01-03 23:40Z', 'ada'), (6, '2026-01-03 08:00Z', NULL)",
    );
    client
        .batch_execute(
            "SELECT tidemark.create_model('w.events', '{w.raw}', $query$
                 SELECT id, at, person, event_date FROM w.raw WHERE event_date >= $1 AND event_date < $2
             $query$, '{event_date, id}', live => true);
             SELECT tidemark.create_model('w.sessions', '{w.events}', $query$
                 SELECT min(s.event_date) AS event_date, s.person, s.start, count(*) AS events
                   FROM (SELECT e.person, e.event_date, tidemark.sessionize(e.at, interval '1 hour') OVER (PARTITION BY e.person ORDER BY e.at) AS start
                           FROM w.events e WHERE e.event_date >= $1 - 1 AND e.event_date < $2 + 1 AND e.person IS NOT NULL) AS s
                  WHERE s.start >= $1::timestamp AT TIME ZONE 'UTC' AND s.start < $2::timestamp AT TIME ZONE 'UTC'
                  GROUP BY s.person, s.start
             $query$, '{person, start}', 1, 1, live => true, scope => 'person');
             SELECT tidemark.create_model('w.starts', '{w.sessions}', $query$
                 SELECT event_date, count(*) AS sessions FROM w.sessions WHERE event_date >= $1 AND event_date < $2 GROUP BY 1
             $query$, '{event_date}', live => true)",
        )
        .unwrap();
    refreshed(&mut client);
    client
}

/// Refreshes all there is and says how it went for the sessions, newest date first: in which way, of how many persons,
/// and the rows inserted, updated, deleted.
fn refreshed(client: &mut Client) -> String {
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    told(
        client,
        "SELECT to_char(event_date, 'DD'), way || coalesce(' of ' || persons, ''), rows_inserted, rows_updated, rows_deleted
           FROM tidemark_internal.refresh_log
          WHERE run = (SELECT max(run) FROM tidemark_internal.refresh_log) AND model = 'w.sessions' ORDER BY id",
    )
}

fn sessions(client: &mut Client) -> String {
    told(
        client,
        "SELECT to_char(start AT TIME ZONE 'UTC', 'DD HH24:MI'), person, events FROM w.sessions ORDER BY start, person",
    )
}

/// Whether tables and live views are what a recompute gives.
fn verified(client: &mut Client) -> String {
    told(
        client,
        "SELECT DISTINCT v.status FROM unnest('{w.events, w.sessions, w.starts}'::text[]) AS m,
                tidemark.verify_model(m, '2025-12-30', '2026-01-08') AS v
         UNION ALL SELECT 'live sessions differ' WHERE EXISTS (TABLE w.sessions EXCEPT ALL TABLE w.sessions_live)
                                                    OR EXISTS (TABLE w.sessions_live EXCEPT ALL TABLE w.sessions)
         UNION ALL SELECT 'live starts differ' WHERE EXISTS (TABLE w.starts EXCEPT ALL TABLE w.starts_live)",
    )
}

/// What the live view of the sessions shows, and then the table after a refresh, must be the same.
fn live_then_refreshed(client: &mut Client) -> String {
    run(
        client,
        "CREATE TEMP TABLE seen AS TABLE w.sessions_live; CREATE TEMP TABLE counted AS TABLE w.starts_live",
    );
    let how = refreshed(client);
    for (seen, table) in [("seen", "w.sessions"), ("counted", "w.starts")] {
        let difference = format!(
            "(TABLE {seen} EXCEPT ALL TABLE {table}) UNION ALL (TABLE {table} EXCEPT ALL TABLE {seen})"
        );
        assert_eq!(told(client, &difference), "", "{table}, by its live view and refreshed");
    }
    run(client, "DROP TABLE seen, counted");
    assert_eq!(verified(client), "ok");
    how
}

/// The tests share a server, one after the other.
#[test]
fn scopes() {
    let cluster = Cluster::start("scope");
    for (name, test) in [
        ("only_persons_with_new_events_are_computed", added as fn(&Database<'_>)),
        ("changed_moved_and_deleted_events_concern_old_and_new_persons", changed),
        ("a_session_that_goes_on_after_midnight_concerns_its_person_only", midnight),
        ("a_change_concerns_the_sessions_from_the_one_before_it_on", since::since),
        ("who_has_no_row_on_a_date_may_have_a_result_on_it", rolling),
        ("a_mark_that_names_nobody_means_a_recompute", whole),
        ("marks_of_persons_reach_all_their_dates", marked),
        ("dates_of_a_moment_are_committed_together_and_fail_alone", together),
        ("a_person_on_a_date_that_nobody_could_see_yet_is_not_missed", unseen),
        ("rows_deleted_by_hand_a_changed_column_and_a_trigger_mean_a_recompute", doubts),
        ("a_model_by_another_column_is_recomputed", other_column),
        ("a_function_that_lies_is_found_by_verification", lies),
        ("a_view_that_is_not_needed_any_more_goes", dropped),
        ("live_views_are_the_same_in_parallel_plans", parallel),
    ] {
        println!("{name}");
        test(&cluster.empty_database());
    }
}

fn added(database: &Database<'_>) {
    let c = &mut world(database);
    assert_eq!(sessions(c), "01 10:00 ada 2, 01 10:00 bob 1, 02 09:00 bob 1, 03 23:40 ada 1");
    run(c, "INSERT INTO w.raw VALUES (7, '2026-01-02 09:30Z', 'bob'), (8, '2026-01-02 12:00Z', 'cyd')");
    run(c, "CALL tidemark.refresh('w.events')");
    assert_eq!(live_then_refreshed(c), "03 scope of 0 0 0 0, 02 scope of 2 1 1 0, 01 scope of 1 0 0 0");
    assert_eq!(sessions(c), "01 10:00 ada 2, 01 10:00 bob 1, 02 09:00 bob 2, 02 12:00 cyd 1, 03 23:40 ada 1");
    // Of nobody: nothing to compute.
    run(c, "INSERT INTO w.raw VALUES (9, '2026-01-02 09:30Z', NULL)");
    assert_eq!(refreshed(c), "03 scope of 0 0 0 0, 02 scope of 0 0 0 0, 01 scope of 0 0 0 0");
    assert_eq!(verified(c), "ok");
}

fn changed(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "UPDATE w.raw SET person = 'cyd' WHERE id = 3; CALL tidemark.refresh('w.events')");
    assert_eq!(live_then_refreshed(c), "02 scope of 1 0 0 0, 01 scope of 2 1 0 1, 31 scope of 0 0 0 0");
    run(c, "UPDATE w.raw SET at = '2026-01-03 09:00Z' WHERE id = 4; CALL tidemark.refresh('w.events')");
    assert_eq!(
        live_then_refreshed(c),
        "04 scope of 0 0 0 0, 03 scope of 1 1 0 0, 02 scope of 1 0 0 1, 01 scope of 0 0 0 0"
    );
    run(c, "DELETE FROM w.raw WHERE id = 1; CALL tidemark.refresh('w.events')");
    assert_eq!(live_then_refreshed(c), "02 scope of 0 0 0 0, 01 scope of 1 1 0 1, 31 scope of 0 0 0 0");
    run(c, "UPDATE w.raw SET person = NULL WHERE person = 'ada'; CALL tidemark.refresh('w.events')");
    live_then_refreshed(c);
    assert_eq!(sessions(c), "01 10:00 cyd 1, 03 09:00 bob 1");
}

fn midnight(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "INSERT INTO w.raw VALUES (7, '2026-01-04 00:10Z', 'ada'), (8, '2026-01-04 00:10Z', 'bob'); CALL tidemark.refresh('w.events')",
    );
    // The date was not there before, so its sessions are computed whole; the neighbours' by person. Of the source the
    // date was built, which names nobody.
    live_then_refreshed(c);
    assert_eq!(sessions(c), "01 10:00 ada 2, 01 10:00 bob 1, 02 09:00 bob 1, 03 23:40 ada 2, 04 00:10 bob 1");
    run(c, "INSERT INTO w.raw VALUES (9, '2026-01-04 00:50Z', 'ada'); CALL tidemark.refresh('w.events')");
    assert_eq!(live_then_refreshed(c), "05 scope of 0 0 0 0, 04 scope of 1 0 0 0, 03 scope of 1 0 1 0");
    // A late event joins two sessions over midnight, or cuts one.
    run(c, "DELETE FROM w.raw WHERE id = 7; CALL tidemark.refresh('w.events')");
    assert_eq!(live_then_refreshed(c), "05 scope of 0 0 0 0, 04 scope of 1 1 0 0, 03 scope of 1 0 1 0");
}

/// Who has no row on a date may have a result on it: nobody is passed over.
fn rolling(database: &Database<'_>) {
    let c = &mut world(database);
    c.batch_execute(
        "SELECT tidemark.create_model('w.two_days', '{w.events}', $query$
             SELECT day::date AS event_date, e.person, count(*) AS events
               FROM generate_series($1::timestamp, ($2 - 1)::timestamp, interval '1 day') AS day
               JOIN w.events e ON e.event_date BETWEEN day::date - 1 AND day::date
              WHERE e.event_date >= $1 - 1 AND e.event_date < $2 AND e.person IS NOT NULL
              GROUP BY 1, 2
         $query$, '{event_date, person}', 1, 0, scope => 'person')",
    )
    .unwrap();
    refreshed(c);
    run(c, "INSERT INTO w.raw VALUES (7, '2026-01-02 12:00Z', 'cyd'); CALL tidemark.refresh()");
    let counts = "SELECT to_char(event_date, 'DD'), events FROM w.two_days WHERE person = 'cyd' ORDER BY 1";
    assert_eq!(told(c, counts), "02 1, 03 1");
    let ways = "SELECT to_char(event_date, 'DD'), way || ' of ' || persons FROM tidemark_internal.refresh_log
                 WHERE run = (SELECT max(run) FROM tidemark_internal.refresh_log) AND model = 'w.two_days' ORDER BY 1";
    assert_eq!(told(c, ways), "02 scope of 1, 03 scope of 1");
    let status =
        "SELECT DISTINCT status FROM tidemark.verify_model('w.two_days', '2026-01-01', '2026-01-05')";
    assert_eq!(told(c, status), "ok");
}

fn whole(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "INSERT INTO w.raw VALUES (7, '2026-01-02 09:30Z', 'bob'); CALL tidemark.refresh('w.events');
         SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
    );
    assert_eq!(
        live_then_refreshed(c),
        "03 scope of 0 0 0 0, 02 recompute 0 1 0, 01 recompute 0 0 0, 31 recompute 0 0 0"
    );
}

fn marked(database: &Database<'_>) {
    let c = &mut world(database);
    // As whoever resolves identities would: rows of the source change on all dates, and so does what they are known as.
    run(
        c,
        "BEGIN; UPDATE w.events SET person = 'ann' WHERE person = 'ada'; SELECT tidemark.mark_persons('w.events', '{ada, ann}'); COMMIT",
    );
    run(
        c,
        "CREATE TEMP TABLE seen AS TABLE w.sessions_live; CREATE TEMP TABLE counted AS TABLE w.starts_live",
    );
    assert_eq!(told(c, "SELECT DISTINCT person FROM seen ORDER BY 1"), "ann, bob");
    assert_eq!(
        refreshed(c),
        "04 scope of 0 0 0 0, 03 scope of 2 1 0 1, 02 scope of 0 0 0 0, 01 scope of 2 1 0 1, 31 scope of 0 0 0 0"
    );
    assert_eq!(told(c, "TABLE seen EXCEPT ALL TABLE w.sessions"), "");
    assert_eq!(told(c, "TABLE w.starts EXCEPT ALL TABLE counted"), "");
    assert_eq!(sessions(c), "01 10:00 ann 2, 01 10:00 bob 1, 02 09:00 bob 1, 03 23:40 ann 1");
    assert_eq!(told(c, "SELECT count(*) FROM tidemark_internal.model_dirty"), "0");
}

fn together(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "ALTER TABLE w.sessions ADD CONSTRAINT barred CHECK (start <> '2026-02-05 12:00Z');
         INSERT INTO w.raw SELECT 100 + n, '2026-02-01 12:00Z'::timestamptz + n * interval '1 day', 'cyd' FROM generate_series(0, 9) AS n;
         CALL tidemark.refresh('w.events')",
    );
    let error = c.batch_execute("CALL tidemark.refresh('w.sessions')").unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "model dates that could not be refreshed: 1");
    let state =
        "SELECT tidemark.stale_dates('w.sessions'), (SELECT count(*) FROM w.sessions WHERE person = 'cyd')";
    assert_eq!(told(c, state), "{2026-02-05} 9");
    // A mark has the time of its transaction.
    let marks = "SELECT count(DISTINCT event_date), count(DISTINCT marked_at) < 9 FROM tidemark_internal.model_dirty WHERE model = 'w.starts'";
    assert_eq!(told(c, marks), "9 t");
    run(c, "ALTER TABLE w.sessions DROP CONSTRAINT barred; CALL tidemark.refresh()");
    assert_eq!(told(c, state), "{} 10");
    // To find the dates of a mark is a step of its own; then as many dates as are wanted.
    run(c, "SELECT tidemark.mark_persons('w.events', '{cyd}'); CALL tidemark.refresh('w.sessions', 4)");
    assert_eq!(
        told(
            c,
            "SELECT cardinality(tidemark.stale_dates('w.sessions')), (SELECT max(event_date) FROM tidemark_internal.model_dirty)"
        ),
        "9 2026-02-08"
    );
}

/// One transaction says that a person changed while another, which it cannot see, gives this person a row on a new date.
fn unseen(database: &Database<'_>) {
    let c = &mut world(database);
    let (resolver, writer) = (&mut database.connect(), &mut database.connect());
    run(c, "CREATE TABLE w.owners (id text, owner text); INSERT INTO w.owners VALUES ('ada', 'ada')");
    run(
        resolver,
        "BEGIN; UPDATE w.owners SET owner = 'ann'; SELECT tidemark.mark_persons('w.events', '{ada, ann}')",
    );
    run(writer, "INSERT INTO w.raw VALUES (7, '2026-01-06 10:00Z', 'ada')");
    assert_eq!(
        refreshed(c),
        "06 recompute 1 0 0, 07 recompute 0 0 0, 05 recompute 0 0 0"
            .replace("06 recompute 1 0 0, 07 recompute 0 0 0", "07 recompute 0 0 0, 06 recompute 1 0 0")
    );
    run(resolver, "COMMIT");
    let stale = "SELECT to_char(d, 'DD') FROM unnest(tidemark.stale_dates('w.sessions')) AS d";
    assert_eq!(told(c, stale), "31, 01, 02, 03, 04, 05, 06, 07");
    assert!(refreshed(c).contains("06 scope of 1 0 0 0"), "the date that came meanwhile was looked at");
    assert_eq!(verified(c), "ok");
}

fn doubts(database: &Database<'_>) {
    let c = &mut world(database);
    let mut id = 10;
    let mut next = |c: &mut Client, first: &str| {
        id += 1;
        run(c, &format!("{first}; INSERT INTO w.raw VALUES ({id}, '2026-01-02 09:{id}Z', 'bob')"));
        refreshed(c).split(", ").nth(1).unwrap().to_owned()
    };
    assert_eq!(next(c, "SELECT"), "02 scope of 1 0 1 0");
    run(c, "INSERT INTO w.raw VALUES (100, '2026-01-02 20:00Z', 'cyd')");
    refreshed(c);
    assert_eq!(next(c, "DELETE FROM w.sessions WHERE person = 'cyd'"), "02 recompute 1 1 0");
    assert_eq!(
        next(c, "INSERT INTO w.sessions VALUES ('2026-01-02', 'nobody', '2026-01-02', 1)"),
        "02 recompute 0 1 1"
    );
    assert_eq!(next(c, "ALTER TABLE w.sessions ALTER events SET STATISTICS 10"), "02 recompute 0 1 0");
    assert_eq!(next(c, "SELECT"), "02 scope of 1 0 1 0");
    // NULLs could come, which no mark names.
    assert_eq!(
        next(
            c,
            "ALTER TABLE w.sessions DROP CONSTRAINT sessions_pkey; ALTER TABLE w.sessions ALTER person DROP NOT NULL"
        ),
        "02 recompute 0 1 0"
    );
    assert_eq!(next(c, "SELECT"), "02 recompute 0 1 0");
    assert_eq!(next(c, "ALTER TABLE w.sessions ALTER person SET NOT NULL"), "02 recompute 0 1 0");
    assert_eq!(next(c, "SELECT"), "02 scope of 1 0 1 0");
    c.batch_execute("CREATE FUNCTION w.shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.person := lower(NEW.person); RETURN NEW; END'").unwrap();
    let trigger = "TRIGGER t BEFORE INSERT OR UPDATE ON w.sessions FOR EACH ROW EXECUTE FUNCTION w.shout()";
    assert_eq!(next(c, &format!("CREATE {trigger}")), "02 recompute 0 1 0");
    assert_eq!(next(c, "DROP TRIGGER t ON w.sessions"), "02 scope of 1 0 1 0");
    // A trigger on the source may write other persons than its query returned.
    assert_eq!(
        next(c, &format!("CREATE {}", trigger.replace("w.sessions", "w.events"))),
        "02 recompute 0 1 0"
    );
    assert_eq!(
        next(c, "DROP TRIGGER t ON w.events; DELETE FROM tidemark_internal.model_dates"),
        "02 recompute 0 1 0"
    );
    assert_eq!(next(c, "SELECT"), "02 scope of 1 0 1 0");
    assert_eq!(verified(c), "ok");
}

fn other_column(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "INSERT INTO w.raw VALUES (7, '2026-01-02 09:30Z', 'bob'); CALL tidemark.refresh('w.events')");
    // Registered while marks of the other column wait.
    c.batch_execute(
        "SELECT tidemark.create_model('w.by_id', '{w.events}', $query$
             SELECT event_date, id, count(*) AS n FROM w.events WHERE event_date >= $1 AND event_date < $2 GROUP BY 1, 2
         $query$, '{event_date, id}', scope => 'id')",
    )
    .unwrap();
    refreshed(c);
    run(c, "INSERT INTO w.raw VALUES (8, '2026-01-02 09:40Z', 'bob')");
    assert_eq!(
        refreshed(c),
        "03 recompute 0 0 0, 02 recompute 0 1 0, 01 recompute 0 0 0",
        "of two columns none is told"
    );
    assert_eq!(told(c, "SELECT count(*) FROM w.by_id"), "8");
    run(c, "SELECT tidemark.drop_model('w.by_id'); INSERT INTO w.raw VALUES (9, '2026-01-02 09:40Z', 'bob')");
    assert_eq!(refreshed(c), "03 scope of 0 0 0 0, 02 scope of 1 0 1 0, 01 scope of 1 0 0 0");
    assert_eq!(verified(c), "ok");
}

fn lies(database: &Database<'_>) {
    let c = &mut world(database);
    c.batch_execute("CREATE FUNCTION w.everybody() RETURNS bigint LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT count(*) FROM w.events; END").unwrap();
    c.batch_execute(
        "SELECT tidemark.create_model('w.shares', '{w.events}', $query$
             SELECT event_date, person, count(*) AS n, w.everybody() AS of FROM w.events
              WHERE event_date >= $1 AND event_date < $2 AND person IS NOT NULL GROUP BY 1, 2
         $query$, '{event_date, person}', scope => 'person')",
    )
    .unwrap();
    refreshed(c);
    run(c, "INSERT INTO w.raw VALUES (7, '2026-01-01 09:30Z', 'bob'); CALL tidemark.refresh()");
    let status = "SELECT to_char(event_date, 'DD'), status FROM tidemark.verify_model('w.shares', '2026-01-01', '2026-01-02')";
    assert_eq!(told(c, status), "01 different, 02 different");
}

fn dropped(database: &Database<'_>) {
    let c = &mut world(database);
    let views = "SELECT count(*) FROM pg_class WHERE relname LIKE 'persons\\_%' AND relkind = 'v'";
    assert_eq!(told(c, views), "1");
    run(c, "SELECT tidemark.drop_model('w.starts'); SELECT tidemark.drop_model('w.sessions', true)");
    assert_eq!(told(c, views), "0");
}

const LIVE: [&str; 5] = ["w.events", "w.sessions", "w.starts", "w.devices", "w.accounts"];

/// What the live views show, which must be the same under serial plans and under parallel ones, and which dates are stale.
fn live(c: &mut Client) -> Vec<String> {
    let mut shown = |parallel: bool| {
        // Of its two names, which change in PostgreSQL 16.
        let (workers, force) = if parallel { (2, "on") } else { (0, "off") };
        c.batch_execute(&format!(
            "SET max_parallel_workers_per_gather = {workers}; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
             SET min_parallel_table_scan_size = 0; SET min_parallel_index_scan_size = 0;
             SELECT set_config(name, '{force}', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')"
        ))
        .unwrap();
        let mut shown = vec![told(
            c,
            "SELECT model, dirty_dates, oldest_dirty_date FROM tidemark.model_status ORDER BY 1",
        )];
        for model in LIVE {
            let plan = told(c, &format!("EXPLAIN SELECT * FROM {model}_live"));
            assert_eq!(plan.contains("Gather"), parallel, "{model}: {plan}");
            shown.push(told(c, &format!("SELECT v::text FROM {model}_live AS v ORDER BY 1")));
            shown.push(told(c, &format!("SELECT tidemark.stale_dates('{model}')")));
        }
        shown
    };
    let serial = shown(false);
    assert_eq!(serial, shown(true));
    shown(false);
    serial
}

fn parallel(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "ALTER TABLE w.raw ADD device uuid; ALTER TABLE w.raw ADD account bigint;
         UPDATE w.raw SET device = lpad(id::text, 32, '0')::uuid, account = id - 3; CALL tidemark.refresh()",
    );
    // A mark that names what cannot be in the columns of models that are registered before it can be seen.
    let early = &mut database.connect();
    run(early, "BEGIN; SELECT tidemark.mark_persons('w.raw', '{x, 99999999999999999999, 1}')");
    for (name, column) in [("devices", "device"), ("accounts", "account")] {
        c.batch_execute(&format!(
            "SELECT tidemark.create_model('w.{name}', '{{w.raw}}', $query$
                 SELECT event_date, {column}, count(*) AS n FROM w.raw
                  WHERE event_date >= $1 AND event_date < $2 AND {column} IS NOT NULL GROUP BY 1, 2
             $query$, '{{event_date, {column}}}', scope => '{column}', live => true)"
        ))
        .unwrap();
    }
    // Whatever waits, after a refresh tables hold what the live views showed. Says how many dates of sessions and devices
    // were stale as a whole and by person.
    let settled = |c: &mut Client| {
        let by_person = "SELECT cardinality(tidemark_internal.stale_dates(m, false)), cardinality(tidemark_internal.stale_dates(m, true))
                           FROM unnest('{w.sessions, w.devices}'::text[]) AS m";
        let (waiting, before) = (told(c, by_person), live(c));
        run(c, "CALL tidemark.refresh()");
        let after = live(c);
        for (i, model) in LIVE.into_iter().enumerate() {
            assert_eq!(before[1 + 2 * i], after[1 + 2 * i], "{model}");
            assert_eq!(after[2 + 2 * i], "{}", "{model}");
            let wrong = format!(
                "SELECT * FROM tidemark.verify_model('{model}', '2025-12-30', '2026-01-08') WHERE status <> 'ok'"
            );
            assert_eq!(told(c, &wrong), "", "{model}");
        }
        waiting
    };
    assert_eq!(settled(c), "0 0, 3 0", "new models");
    assert_eq!(settled(c), "0 0, 0 0", "nothing waits");
    run(early, "COMMIT");
    live(c);
    run(c, "SELECT tidemark_internal.distribute_dirty()");
    assert_eq!(settled(c), "5 0, 3 0", "ids that are none concern anybody");
    run(c, "INSERT INTO w.raw VALUES (7, '2026-01-02 09:30Z', 'bob')");
    assert_eq!(settled(c), "3 0, 1 0", "dates");
    run(c, "INSERT INTO w.raw VALUES (8, '2026-01-02 09:40Z', 'bob'); CALL tidemark.refresh('w.events')");
    assert_eq!(settled(c), "0 3, 1 0", "persons of dates");
    run(
        c,
        "ALTER TABLE w.raw DISABLE TRIGGER USER; BEGIN; UPDATE w.raw SET person = 'ann' WHERE person = 'ada';
         UPDATE w.events SET person = 'ann' WHERE person = 'ada'; SELECT tidemark.mark_persons('w.events', '{ada, ann}'); COMMIT",
    );
    assert_eq!(settled(c), "0 5, 0 0", "persons, on whichever dates");
}
