//! With `scope_since`: which sessions a change computes, and which it leaves as they are. Everything else about persons is
//! in `main`.

use postgres::Client;
use tidemark_tests::cluster::{Database, run, told};

/// Events of two persons, sessions with a gap of an hour that need only events from their start on, and a number that
/// somebody changed by hand in each: those that are computed are right again.
pub fn since(database: &Database<'_>) {
    let c = &mut database.connect();
    run(
        c,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w;
         CREATE TABLE w.raw (id int, event_time timestamptz NOT NULL, person text,
             event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED);
         SELECT tidemark.track_changes('w.raw');
         SELECT tidemark.create_model('w.events', '{w.raw}', $query$
             SELECT id, event_time, person, event_date FROM w.raw WHERE event_date >= $1 AND event_date < $2
         $query$, '{event_date, id}', live => true);
         SELECT tidemark.create_model('w.sessions', '{w.events}', $query$
             SELECT min(s.event_date) AS event_date, s.person, s.start, count(*) AS events
               FROM (SELECT e.person, e.event_date, tidemark.sessionize(e.event_time, interval '1 hour')
                                OVER (PARTITION BY e.person ORDER BY e.event_time) AS start
                       FROM w.events e WHERE e.event_date >= $1 - 1 AND e.event_date < $2 + 1) AS s
              WHERE s.start >= $1::timestamp AT TIME ZONE 'UTC' AND s.start < $2::timestamp AT TIME ZONE 'UTC'
              GROUP BY s.person, s.start
         $query$, '{person, start}', 1, 1, live => true, scope => 'person', scope_since => 'start')",
    );
    let all = "SELECT to_char(start AT TIME ZONE 'UTC', 'DD HH24:MI'), person, events
                 FROM w.sessions WHERE person <> 'cyd' ORDER BY person, start";
    let after = |c: &mut Client, change: &str| {
        let before = "TRUNCATE w.raw; CALL tidemark.refresh(); INSERT INTO w.raw SELECT n, time, person
            FROM (VALUES (1, '2026-01-01 10:00Z'::timestamptz), (2, '2026-01-02 06:00Z'), (3, '2026-01-02 09:00Z'),
                         (4, '2026-01-02 09:30Z'), (5, '2026-01-02 23:50Z')) AS v(n, time), (VALUES ('ada'), ('bob')) AS p(person)";
        run(c, &before.replace("SELECT n,", "SELECT n + CASE person WHEN 'bob' THEN 10 ELSE 0 END,"));
        // The first build of a date says nothing of persons: this one is there.
        run(
            c,
            "INSERT INTO w.raw VALUES (99, '2026-01-03 12:00Z', 'cyd'); CALL tidemark.refresh(); UPDATE w.sessions SET events = 99",
        );
        run(c, change);
        run(c, "CALL tidemark.refresh()");
        let found = told(c, all);
        // As somebody would who found out.
        run(
            c,
            "SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03}'); CALL tidemark.refresh()",
        );
        assert_eq!(
            told(
                c,
                "SELECT DISTINCT status FROM tidemark.verify_model('w.sessions', '2025-12-31', '2026-01-05')"
            ),
            "ok"
        );
        found
    };
    let bob = "01 10:00 bob 99, 02 06:00 bob 99, 02 09:00 bob 99, 02 23:50 bob 99";
    for (change, ada) in [
        // It goes on with the session at nine, and what follows is computed as well.
        (
            "INSERT INTO w.raw VALUES (6, '2026-01-02 10:15Z', 'ada')",
            "01 10:00 ada 99, 02 06:00 ada 99, 02 09:00 ada 3, 02 23:50 ada 1",
        ),
        // Between two sessions: it may go on with neither.
        (
            "INSERT INTO w.raw VALUES (6, '2026-01-02 08:30Z', 'ada')",
            "01 10:00 ada 99, 02 06:00 ada 1, 02 08:30 ada 3, 02 23:50 ada 1",
        ),
        // After midnight it goes on with the one of the day before; later on it begins one, and those before stay.
        (
            "INSERT INTO w.raw VALUES (6, '2026-01-03 00:10Z', 'ada')",
            "01 10:00 ada 99, 02 06:00 ada 99, 02 09:00 ada 99, 02 23:50 ada 2",
        ),
        (
            "INSERT INTO w.raw VALUES (6, '2026-01-03 05:00Z', 'ada')",
            "01 10:00 ada 99, 02 06:00 ada 99, 02 09:00 ada 99, 02 23:50 ada 99, 03 05:00 ada 1",
        ),
        // The first event of a session goes, moves, or changes its person.
        (
            "DELETE FROM w.raw WHERE id = 3",
            "01 10:00 ada 99, 02 06:00 ada 99, 02 09:30 ada 1, 02 23:50 ada 1",
        ),
        (
            "UPDATE w.raw SET event_time = '2026-01-02 06:30Z' WHERE id = 3",
            "01 10:00 ada 99, 02 06:00 ada 2, 02 09:30 ada 1, 02 23:50 ada 1",
        ),
        ("DELETE FROM w.raw WHERE id IN (1, 2)", "02 09:00 ada 2, 02 23:50 ada 1"),
        (
            "SELECT tidemark.mark_persons('w.events', '{ada}')",
            "01 10:00 ada 1, 02 06:00 ada 1, 02 09:00 ada 2, 02 23:50 ada 1",
        ),
    ] {
        assert_eq!(after(c, change), format!("{ada}, {bob}"), "{change}");
    }
}
