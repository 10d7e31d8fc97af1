//! Timelines: their refresh and every report, from stored slices and from rows that wait, with little memory and under a
//! timeout. Reports are what the catalog has by these names of arguments, so a new one is in it by itself.

use std::time::Duration;

use postgres::Client;
use tidemark_tests::cluster::{Cluster, Database, rows, sqlstate};

use crate::database;
use crate::memory::kilobytes;
use crate::report::{Outcome, Report, Session};
use crate::time::{cancel, in_time};

/// The kilobytes that a session may take besides what it has after its first aggregate.
const MORE: u64 = 40 << 10;

/// Events of dates, of which the smallest is answered under this limit and the largest is not.
const DATES: [u32; 5] = [1_280_000, 640_000, 320_000, 80_000, 10_000];

/// Events of the date that is asked about in a hurry.
const MANY: u32 = 2_000_000;

/// Arguments without a default, by name.
const NEEDED: [(&str, &str); 4] = [
    ("steps", "'[\"a\", \"b\", \"c\"]'"),
    ("win", "'1 hour'"),
    ("start", "'\"a\"'"),
    ("returned", "'\"b\"'"),
];

/// More calls of those that have the argument, or of the one that is named.
const MORE_CALLS: [(&str, &str); 9] = [
    ("breakdown", "breakdown => 'label', top => 5"),
    ("item", "item => 'label'"),
    ("filters", "filters => '[\"is\", \"label\", [\"1\", \"2\"]]'"),
    ("math", "math => 'persons', unit => 'hour', breakdown => 'label', top => 5"),
    ("math", "unit => 'hour', breakdown => 'label', top => 5"),
    ("dropped", "mode => 'strict_order'"),
    ("attribution", "mode => 'strict_order'"),
    ("attribution", "mode => 'strict_increase', breakdown => 'label'"),
    ("as_of", "mode => 'rolling'"),
];

/// Two timelines of the same events: everything is stored of `kept`, and nothing of `live`. A third of a date is one
/// person's, the others have an event each.
fn fill(client: &mut Client, dates: &[u32], slices: u32) {
    let create = |name: &str| {
        format!(
            "SELECT tidemark.create_timeline('public.{name}', 'events', properties => '{{label}}', slices => {slices})"
        )
    };
    let table = "CREATE TABLE events (event_date date, event_time timestamptz, person text, event_type text, label text)";
    client.batch_execute(&format!("{table}; {}", create("kept"))).unwrap();
    for (day, events) in dates.iter().enumerate() {
        let sql = format!(
            "INSERT INTO events
             SELECT d, (d + i * interval '1 day' / {events}) AT TIME ZONE 'UTC',
                    CASE WHEN i % 3 = 0 THEN 'one' ELSE i::text END, (ARRAY['a', 'b', 'c'])[1 + i / 3 % 3],
                    i % 20000
               FROM generate_series(0, {events} - 1) AS i, (SELECT date '2026-03-01' + {day} AS d) AS date;
             SELECT tidemark.mark_dirty('events', ARRAY[date '2026-03-01' + {day}])"
        );
        client.batch_execute(&sql).unwrap();
    }
    for sql in ["CALL tidemark.refresh('public.kept')", &create("live")] {
        client.batch_execute(sql).unwrap();
    }
}

/// Calls of all reports about one timeline and a day of March 2026, counted from 0.
fn calls(client: &mut Client, timeline: &str, day: usize) -> Vec<(String, String)> {
    let reports = rows(
        client,
        "SELECT p.oid::regproc, array_to_string(p.proargnames[4:p.pronargs], ' ')
           FROM pg_proc AS p WHERE p.pronamespace = 'tidemark'::regnamespace
            AND p.proargnames[1:3] = '{source,from_date,to_date}' ORDER BY 1",
    );
    assert!(reports.len() >= 6, "only {reports:?}");
    let mut calls = vec![];
    for report in reports {
        let names: Vec<&str> = report[1].split(' ').collect();
        let needed = NEEDED.iter().filter(|(name, _)| names.contains(name));
        let needed: String = needed.map(|(name, value)| format!(", {name} => {value}")).collect();
        let more =
            MORE_CALLS.iter().filter(|(name, _)| names.contains(name)).map(|(_, more)| format!(", {more}"));
        for more in std::iter::once(String::new()).chain(more) {
            let dates = format!("date '2026-03-01' + {day}, date '2026-03-02' + {day}");
            let call = format!("{}('{timeline}', {dates}{needed}{more})", report[0]);
            calls.push((report[0].clone(), format!("SELECT count(r::text) FROM {call} AS r")));
        }
    }
    calls
}

/// A timeout and a cancel end whatever is asked of a large date.
pub fn in_a_hurry(database: &Database<'_>, report: &Report) {
    fill(&mut database.connect(), &[MANY], 64);
    let mut session = Session::new(report, database, &["57"]);
    session.client.batch_execute("SET statement_timeout = '1s'").unwrap();
    for timeline in ["public.kept", "public.live"] {
        session.input = timeline.to_owned();
        for (name, sql) in calls(&mut database.connect(), timeline, 0) {
            let another = session.who != name;
            session.who = name;
            if in_time(&mut session, &sql) > Duration::from_millis(500) && another {
                cancel(&mut session, &sql);
            }
        }
    }
    session.who = "tidemark.refresh".to_owned();
    let refresh = "CALL tidemark.refresh('public.live')";
    in_time(&mut session, refresh);
    session.client.batch_execute("SELECT tidemark.mark_dirty('events', '{2026-03-01}')").unwrap();
    cancel(&mut session, refresh);
}

/// Dates too large for the memory that is left are errors, after which smaller ones are answered: nothing was lost.
pub fn with_little_memory(report: &Report) {
    let cluster = Cluster::start_with("walk-timelines", &["shared_buffers=16MB"]);
    let database = database(&cluster);
    fill(&mut database.connect(), &DATES, 1);
    let limit = kilobytes(&database) + MORE;
    cluster.stop();
    cluster.start_again_under(limit);
    let mut session = Session::new(report, &database, &["53"]);
    let pid = session.pid();
    for timeline in ["public.kept", "public.live"] {
        session.input = timeline.to_owned();
        let number = calls(&mut session.client, timeline, 0).len();
        for nr in 0..number {
            for day in 0..DATES.len() {
                let (name, sql) = calls(&mut session.client, timeline, day).remove(nr);
                session.who = name;
                let outcome = session.ask("ulimit -v", &sql);
                if day + 1 == DATES.len() && !matches!(outcome, Outcome::Answer(_)) {
                    session.fail("ulimit -v", "a small date has no answer", &sql);
                }
            }
        }
    }
    let refreshed = database.connect().batch_execute("CALL tidemark.refresh('public.live')");
    assert_eq!(sqlstate(refreshed), "P0001", "some dates cannot be refreshed");
    let state = "SELECT (SELECT count(DISTINCT event_date) FROM live), dirty_dates, last_error
                   FROM tidemark.timeline_status WHERE timeline = 'public.live'";
    let state = rows(&mut database.connect(), state).remove(0);
    if state[0] == "0" || state[1] == "0" || !state[2].contains("out of memory") {
        session.fail("ulimit -v", &format!("{state:?}"), "dates that are small enough, waiting, last error");
    }
    if session.pid() != pid {
        session.fail("ulimit -v", "the session is another one", "");
    }
    cluster.stop();
    // The log has become long.
    cluster.start_again();
    report.look_into_log(&database);
    if report.errors("ulimit -v") < 20 {
        report.fail("few statements met the limit of memory, so it is no test".to_owned());
    }
}
