//! Random small histories through SQL: what reports say of them, stored as slices and parts and while dates wait, beside
//! what the aggregates say of the rows. `HISTORIES` says of how many persons; a million take some minutes.

use postgres::Client;
use tidemark_tests::cluster::{Database, run, told};

const MODES: [&str; 13] = [
    "",
    "strict_order",
    "strict_order, allow_reentry",
    "strict_deduplication",
    "strict_increase",
    "strict_once",
    "first_entry",
    "step_window=2h",
    "any_order",
    "optional=2",
    "exclude=3",
    "strict_order, strict_increase, step_window=5h",
    "first_entry, optional=2",
];

const DATES: &str = "'2026-01-01', '2026-01-04'";

fn same(c: &mut Client, when: &str, report: &str, rows: &str) {
    let mut all = |query: &str| {
        told(
            c,
            &format!("SELECT count(*), md5(string_agg(q::text, ' ' ORDER BY q::text)) FROM ({query}) AS q"),
        )
    };
    let (report_says, rows_say) = (all(report), all(rows));
    assert!(!rows_say.starts_with("0 "), "{when}: {rows} gives nothing");
    assert_eq!(report_says, rows_say, "{when}: {report}");
}

fn compare(c: &mut Client, when: &str) {
    for mode in MODES {
        let dropped = if mode.contains("exclude") { 1 } else { 2 };
        same(
            c,
            when,
            &format!(
                "SELECT * FROM tidemark.funnel_persons('w.events', {DATES}, '[\"a\", \"b\", \"c\"]', '5 hours', '{mode}', {dropped})"
            ),
            &format!(
                "SELECT person, chain FROM (SELECT person, tidemark.funnel('5 hours', '{mode}', event_time, event_type, '{{a,b,c}}') AS chain
                   FROM w.events GROUP BY person) AS f WHERE chain[{dropped}] IS NOT NULL"
            ),
        );
    }
    for gap in ["0", "15 minutes", "7 hours"] {
        same(
            c,
            when,
            &format!("SELECT sessions, persons, events, median_seconds FROM tidemark.session_report('w.events', {DATES}, '{gap}')"),
            &format!(
                "SELECT count(*), count(DISTINCT person), sum(s.events)::bigint, round((percentile_cont(0.5) WITHIN GROUP (ORDER BY d))::numeric, 3)
                   FROM (SELECT person, unnest(tidemark.sessions(event_time, '{gap}')) AS s FROM w.events GROUP BY person) AS p,
                        LATERAL (SELECT (p.s).events, extract(epoch FROM (p.s).ended_at - (p.s).started_at)::float8 AS d) AS s"
            ),
        );
    }
    for (period, mode) in
        [("day", ""), ("day", "recurring, on_or_after"), ("day", "rolling"), ("week", "rolling=2, recurring")]
    {
        same(
            c,
            when,
            &format!("SELECT * FROM tidemark.retention_report('w.events', {DATES}, '\"a\"', '[\"b\", \"c\"]', '{period}', '{mode}', 3)"),
            &format!(
                "SELECT r.cohort, (o.period - 1)::integer, o.persons, round(100.0 * o.persons / r.counts[1], 2)
                   FROM (SELECT (m).cohort, tidemark.cohort_retention((m).retained) AS counts
                           FROM (SELECT unnest(tidemark.cohort_member('{period}', '{mode}', 3, '2026-01-04Z', event_time, event_type = 'a', event_type IN ('b', 'c'))) AS m
                                   FROM w.events GROUP BY person) AS p GROUP BY 1) AS r, unnest(r.counts) WITH ORDINALITY AS o(persons, period)"
            ),
        );
    }
    for zone in ["UTC", "Asia/Kathmandu", "America/St_Johns"] {
        for (math, value) in [("total", "count(*)"), ("persons", "count(DISTINCT person)")] {
            same(
                c,
                when,
                &format!("SELECT * FROM tidemark.trend('w.events', '2026-01-01', '2026-01-03', '{math}', breakdown => 'country', time_zone => '{zone}')"),
                &format!(
                    "SELECT date_trunc('day', event_time, '{zone}'), coalesce(country, '(none)'), {value} FROM w.events
                      WHERE event_time >= timestamp '2026-01-01' AT TIME ZONE '{zone}' AND event_time < timestamp '2026-01-03' AT TIME ZONE '{zone}' GROUP BY 1, 2"
                ),
            );
        }
    }
}

pub fn histories(database: &Database<'_>) {
    let persons: u32 = std::env::var("HISTORIES").map_or(1000, |n| n.parse().unwrap());
    let c = &mut database.connect();
    run(
        c,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w; SET timezone = 'UTC'; SELECT setseed(0.17);
         CREATE TABLE w.events (event_date date NOT NULL GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED,
                                event_time timestamptz NOT NULL, person text, event_type text, country text);
         SELECT tidemark.track_changes('w.events');
         SELECT tidemark.create_timeline('w.line', 'w.events', properties => '{country}', slices => 64)",
    );
    // A tenth comes late, in smaller and smaller rounds; times meet at quarters of an hour.
    for (round, share) in [10.0, 0.5, 0.3, 0.2].into_iter().enumerate() {
        run(
            c,
            &format!(
                "INSERT INTO w.events (event_time, person, event_type, country)
                 SELECT timestamptz '2026-01-01Z' + floor(random() * 288) * interval '15 minutes' + (random() < 0.3)::integer * interval '1 microsecond',
                        'person ' || p, (ARRAY['a', 'b', 'c', 'd'])[1 + floor(random() * 4)::integer], (ARRAY['AT', 'DE'])[1 + floor(random() * 3)::integer]
                   FROM generate_series(1, {persons}) AS p, generate_series(1, 10) WHERE random() < {share} / 10"
            ),
        );
        if round < 3 {
            run(c, "CALL tidemark.refresh('w.line')");
        }
    }
    let parts = "SELECT count(DISTINCT part) > 1 FROM w.line";
    assert_eq!(told(c, parts), "t");
    compare(c, "slices, parts and rows that wait");
    run(
        c,
        "DELETE FROM w.events WHERE event_date = '2026-01-02' AND event_time < '2026-01-02 03:00Z';
         UPDATE w.events SET event_type = 'b' WHERE event_date = '2026-01-03' AND event_type = 'd' AND country = 'AT'",
    );
    compare(c, "dates that changed");
    run(c, "CALL tidemark.refresh('w.line')");
    compare(c, "all of it stored");
}
