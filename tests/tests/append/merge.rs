//! Models of groups that put new rows together with the stored ones: when they do, and that none counts twice.

use postgres::Client;
use tidemark_tests::cluster::{Database, run, told};
use tidemark_tests::wait_until;

use super::refreshed;

/// A source with its marks by trigger, and a model of groups with every kind of column; refreshed.
fn world(database: &Database<'_>) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w;
         CREATE TABLE w.events (id serial, event_date date NOT NULL, at timestamptz, person text, kind text, cents bigint,
                                ratio numeric);
         SELECT tidemark.track_changes('w.events');
         INSERT INTO w.events (event_date, at, person, kind, cents, ratio)
         SELECT date '2026-01-01' + n % 2, timestamptz '2026-01-01Z' + n * interval '1 minute', 'person ' || n % 50, 'kind ' || n % 3,
                nullif(n, 7), n / 10.0
           FROM generate_series(1, 400) AS n;
         SELECT tidemark.create_model('w.groups', '{w.events}', $query$
             SELECT e.event_date, lower(e.kind) AS kind, count(*) AS events, count(e.cents) FILTER (WHERE e.cents > 100) AS large,
                    sum(e.cents)::bigint AS cents, sum(e.cents) FILTER (WHERE e.cents > 390) AS largest, sum(e.ratio) AS ratio,
                    min(e.at) AS first_at, max(e.id) AS last_id, tidemark.hll_agg(e.person) AS persons,
                    tidemark.ddsketch_agg(e.cents::float8) AS spread, tidemark.funnel_stats(ARRAY[e.at], 1) AS stats
               FROM w.events AS e
              WHERE e.event_date >= $1 AND e.event_date < $2 AND e.kind <> 'junk'
              GROUP BY e.event_date, lower(e.kind)
         $query$, '{event_date, kind}', live => true)",
    );
    assert_eq!(refreshed(&mut client), "02 computed 3 0 0, 01 computed 3 0 0");
    client
}

/// Adds as many events to a date.
fn add(client: &mut Client, date: &str, events: u32) {
    run(
        client,
        &format!(
            "INSERT INTO w.events (event_date, at, person, kind, cents, ratio)
             SELECT '{date}', timestamptz '{date} 12:00Z' + n * interval '1 second', 'new ' || n % 40, 'KIND ' || n % 4, n * 7, n / 1000.0
               FROM generate_series(1, {events}) AS n"
        ),
    );
}

fn verified(client: &mut Client) -> String {
    told(client, "SELECT DISTINCT status FROM tidemark.verify_model('w.groups', '2026-01-01', '2026-01-05')")
}

pub(crate) fn groups(database: &Database<'_>) {
    let c = &mut world(database);
    add(c, "2026-01-01", 2);
    assert_eq!(refreshed(c), "01 merged 0 2 0");
    add(c, "2026-01-01", 300);
    add(c, "2026-01-02", 3000);
    add(c, "2026-01-03", 5);
    assert_eq!(refreshed(c), "03 computed 4 0 0, 02 merged 1 3 0, 01 merged 1 3 0");
    // What is left out of the query changes nothing.
    run(c, "INSERT INTO w.events (event_date, at, kind) VALUES ('2026-01-03', '2026-01-03Z', 'junk')");
    assert_eq!(refreshed(c), "03 merged 0 0 0");
    run(
        c,
        "BEGIN; INSERT INTO w.events (event_date, at, kind) VALUES ('2026-01-03', '2026-01-03Z', 'x'); SAVEPOINT s",
    );
    run(c, "INSERT INTO w.events (event_date, at, kind) VALUES ('2026-01-03', '2026-01-03Z', 'y'); COMMIT");
    assert_eq!(refreshed(c), "03 merged 2 0 0");
    assert_eq!(verified(c), "ok");
    let same = "SELECT count(*) FROM (TABLE w.groups EXCEPT TABLE w.groups_live) AS d";
    assert_eq!(told(c, same), "0");
}

/// A refresh takes the marks, and then others commit before it reads: their rows are seen, and their mark comes later.
pub(crate) fn seen_before_their_mark(database: &Database<'_>) {
    let c = &mut world(database);
    let (other, blocker) = (&mut database.connect(), &mut database.connect());
    for (mark, first, came, then) in [
        (
            "SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
            "01 computed 1 3 0",
            40,
            "01 merged 0 0 0",
        ),
        (
            "INSERT INTO w.events (event_date, at, kind) VALUES ('2026-01-01', '2026-01-01Z', 'kind 1')",
            "01 merged 0 1 0",
            1,
            "01 merged 0 4 0",
        ),
    ] {
        run(c, mark);
        let before = told(c, "SELECT sum(events) FROM w.groups");
        run(blocker, "BEGIN; LOCK TABLE w.groups");
        let told_first = std::thread::scope(|scope| {
            let refresh = scope.spawn(|| refreshed(c));
            wait_until("the refresh to wait for the lock", std::time::Duration::from_secs(9), || {
                told(
                    other,
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'w.groups'::regclass",
                ) == "1"
            });
            add(other, "2026-01-01", 40);
            run(blocker, "COMMIT");
            refresh.join().unwrap()
        });
        assert_eq!(told_first, first);
        let after = told(other, "SELECT sum(events) FROM w.groups");
        let difference = after.parse::<i64>().unwrap() - before.parse::<i64>().unwrap();
        assert_eq!(difference, came);
        let mut c = database.connect();
        assert_eq!(refreshed(&mut c), then);
        assert_eq!(verified(&mut c), "ok");
    }
}

pub(crate) fn unmarked(database: &Database<'_>) {
    let c = &mut world(database);
    let quietly = |c: &mut Client, what: &str| {
        run(
            c,
            &format!(
                "ALTER TABLE w.events DISABLE TRIGGER USER; {what}; ALTER TABLE w.events ENABLE TRIGGER USER"
            ),
        );
    };
    quietly(c, "DELETE FROM w.events WHERE id = 10");
    add(c, "2026-01-01", 8);
    assert!(refreshed(c).starts_with("01 computed"), "a row of the source went");
    add(c, "2026-01-01", 8);
    assert!(refreshed(c).starts_with("01 merged"));
    quietly(c, "INSERT INTO w.events (event_date, at, kind) VALUES ('2026-01-01', '2026-01-01Z', 'kind 1')");
    add(c, "2026-01-01", 8);
    assert!(refreshed(c).starts_with("01 computed"), "one came");
    run(c, "DELETE FROM w.groups WHERE event_date = '2026-01-01' AND kind = 'kind 1'");
    add(c, "2026-01-01", 8);
    assert!(refreshed(c).starts_with("01 computed"), "one of the stored rows went");
    c.batch_execute(
        "CREATE FUNCTION w.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE UPDATE ON w.groups FOR EACH ROW EXECUTE FUNCTION w.f()",
    )
    .unwrap();
    add(c, "2026-01-01", 8);
    assert!(refreshed(c).starts_with("01 computed"), "a trigger may store what it likes");
    assert_eq!(verified(c), "ok");
}

pub(crate) fn other_changes(database: &Database<'_>) {
    let c = &mut world(database);
    // Somebody has more subtransactions than a snapshot lists.
    let savepoints =
        (0..70).map(|n| format!("SAVEPOINT s{n}; INSERT INTO many VALUES (1);")).collect::<String>();
    let other = &mut database.connect();
    run(other, &format!("CREATE TEMP TABLE many (n int); BEGIN; {savepoints}"));
    for (change, how) in [
        ("UPDATE w.events SET cents = 1 WHERE id = 14", "computed"),
        ("DELETE FROM w.events WHERE id = 12", "computed"),
        ("SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')", "computed"),
        ("VACUUM w.events", "merged"),
        ("VACUUM FULL w.events", "merged"),
        ("VACUUM FREEZE w.events", "merged"),
        ("UPDATE tidemark_internal.model_dates SET seen = NULL", "computed"),
        ("UPDATE tidemark_internal.model_dates SET cluster = 1", "computed"),
        ("DELETE FROM tidemark_internal.model_dates", "computed"),
        ("ALTER TABLE w.events ALTER COLUMN person SET STORAGE EXTERNAL", "computed"),
        ("SELECT", "merged"),
    ] {
        if change.starts_with("ALTER") {
            run(other, "COMMIT");
        }
        run(c, change);
        add(c, "2026-01-01", 8);
        let told = refreshed(c);
        assert!(told.contains(&format!("01 {how}")), "{change}: {told}");
        assert_eq!(verified(c), "ok", "{change}");
    }
}

/// The source is not what it was: whatever a merge would ask of it, a recompute does without.
pub(crate) fn recompute_goes_on(database: &Database<'_>) {
    let c = &mut database.connect();
    run(
        c,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w; CREATE ROLE rolls;
         CREATE TABLE w.e (event_date date NOT NULL, v bigint); GRANT SELECT ON w.e TO rolls;
         CREATE TABLE w.m (event_date date PRIMARY KEY, n numeric);
         GRANT USAGE ON SCHEMA w TO rolls; ALTER TABLE w.m OWNER TO rolls;
         SELECT tidemark.create_model('w.m', '{w.e}',
             'SELECT event_date, sum(v) AS n FROM w.e WHERE event_date >= $1 AND event_date < $2 GROUP BY event_date',
             '{event_date}');
         SELECT tidemark.track_changes('w.e'); INSERT INTO w.e VALUES ('2026-01-01', 1); CALL tidemark.refresh();
         INSERT INTO w.e VALUES ('2026-01-01', 1)",
    );
    assert_eq!(refreshed(c), "01 merged 0 1 0");
    run(c, "ALTER TABLE w.e ADD COLUMN secret text; REVOKE SELECT ON w.e FROM rolls");
    run(c, "GRANT SELECT (event_date, v) ON w.e TO rolls; INSERT INTO w.e VALUES ('2026-01-01', 1)");
    assert_eq!(refreshed(c), "01 computed 0 1 0", "only two columns may be read");
    run(c, "GRANT SELECT ON w.e TO rolls; INSERT INTO w.e VALUES ('2026-01-01', 1)");
    assert_eq!(refreshed(c), "01 computed 0 1 0");
    // For a while another table has its name.
    run(
        c,
        "ALTER TABLE w.e RENAME TO old; CREATE TABLE w.e (event_date date NOT NULL, v bigint);
         GRANT SELECT ON w.e TO rolls; INSERT INTO w.e VALUES ('2026-01-01', 1000);
         SELECT tidemark.mark_dirty('w.old', '{2026-01-01}')",
    );
    assert_eq!(refreshed(c), "01 computed 0 1 0");
    run(c, "DROP TABLE w.e; ALTER TABLE w.old RENAME TO e; INSERT INTO w.e VALUES ('2026-01-01', 1)");
    assert_eq!(refreshed(c), "01 computed 0 1 0");
    assert_eq!(told(c, "SELECT n FROM w.m"), "5");
}
