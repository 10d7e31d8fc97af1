//! Days, weeks and fiscal years of the reports: in any time zone gold counts what plain SQL counts over bronze, over
//! changes of the clocks and changes of the setting.

use std::time::Duration;

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, rows, run, sqlstate};
use tidemark_tests::random::Random;
use tidemark_tests::wait_until;

use super::warehouse::{assert_same, event, load, maintain};

mod money;

/// Visits of twelve persons, and of nobody, on sixteen days from this date on, at times that differ.
fn visits(first: &str, seed: u64) -> Vec<String> {
    const STEPS: [&str; 5] =
        ["page_viewed", "product_viewed", "product_added", "checkout_started", "purchase_completed"];
    let random = &mut Random::new(seed);
    let mut lines = vec![];
    let mut number = 0;
    let mut seconds = std::collections::BTreeSet::new();
    for _ in 0..110 {
        let user = match random.below(13) {
            12 => "guest".to_owned(),
            person => format!("p{person}"),
        };
        let mut at = random.below(16 * 86_400);
        for _ in 0..1 + random.below(7) {
            // Some over midnight, some with a pause that ends a session.
            at += 1 + random.below(2400);
            if at >= 16 * 86_400 || !seconds.insert(at) {
                continue;
            }
            let name = random.pick(&STEPS);
            let properties = match name {
                "purchase_completed" => format!(
                    r#"{{"revenue":{}.{:02},"currency":"{}"}}"#,
                    random.below(90),
                    random.below(100),
                    random.pick(&["EUR", "USD"])
                ),
                _ => format!(r#"{{"load_ms":{}}}"#, 1 + random.below(900)),
            };
            number += 1;
            lines.push((at, event(number, &user, "{time}", name, &properties, "{}")));
        }
    }
    let days: Vec<String> = (0..16).map(|day| format!("{first}+{day}")).collect();
    let mut client = cluster::shared().connect("postgres");
    let dates: Vec<String> = days
        .iter()
        .map(|day| {
            let (date, more) = day.split_once('+').unwrap();
            rows(&mut client, &format!("SELECT date '{date}' + {more}"))[0][0].clone()
        })
        .collect();
    let mut lines: Vec<String> = lines
        .into_iter()
        .map(|(at, line)| {
            let (day, second) = ((at / 86_400) as usize, at % 86_400);
            let time =
                format!("{}T{:02}:{:02}:{:02}Z", dates[day], second / 3600, second / 60 % 60, second % 60);
            line.replace("{time}", &time)
        })
        .collect();
    lines.sort_by_cached_key(|_| random.bits());
    lines
}

/// Events of bronze as the truth below reads them, dates in a time zone, weeks from Sunday.
fn truth(zone: &str, question: &str) -> String {
    format!(
        "WITH e AS (
             SELECT b.event_time, b.event_type, nullif(b.user_id, 'guest') AS person, b.payload -> 'properties' AS said,
                    (b.event_time AT TIME ZONE '{zone}')::date AS event_date
               FROM bronze.events AS b
         ), active AS (SELECT DISTINCT person, event_date,
                              event_date - extract(dow FROM event_date)::integer AS week
                         FROM e WHERE person IS NOT NULL
         ), starts AS (
             SELECT *, coalesce(event_time - lag(event_time) OVER w > interval '30 minutes', true) AS begins
               FROM e WHERE person IS NOT NULL WINDOW w AS (PARTITION BY person ORDER BY event_time)
         ), visit AS (
             SELECT person, n, min(event_time) AS started_at, count(*) AS events,
                    extract(epoch FROM max(event_time) - min(event_time)) AS seconds
               FROM (SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY person ORDER BY event_time) AS n
                       FROM starts) AS s GROUP BY person, n
         ), entry AS (
             SELECT a.event_date, a.person,
                    max(1 + (b.at IS NOT NULL)::integer + (c.at IS NOT NULL)::integer + (d.at IS NOT NULL)::integer
                          + (f.at IS NOT NULL)::integer) AS level
               FROM e AS a
               LEFT JOIN LATERAL (SELECT min(x.event_time) AS at FROM e AS x
                    WHERE x.person = a.person AND x.event_type = 'product_viewed'
                      AND x.event_time > a.event_time AND x.event_time <= a.event_time + interval '24 hours') AS b ON true
               LEFT JOIN LATERAL (SELECT min(x.event_time) AS at FROM e AS x
                    WHERE x.person = a.person AND x.event_type = 'product_added'
                      AND x.event_time > b.at AND x.event_time <= a.event_time + interval '24 hours') AS c ON true
               LEFT JOIN LATERAL (SELECT min(x.event_time) AS at FROM e AS x
                    WHERE x.person = a.person AND x.event_type = 'checkout_started'
                      AND x.event_time > c.at AND x.event_time <= a.event_time + interval '24 hours') AS d ON true
               LEFT JOIN LATERAL (SELECT min(x.event_time) AS at FROM e AS x
                    WHERE x.person = a.person AND x.event_type = 'purchase_completed'
                      AND x.event_time > d.at AND x.event_time <= a.event_time + interval '24 hours') AS f ON true
              WHERE a.event_type = 'page_viewed' AND a.person IS NOT NULL
              GROUP BY a.event_date, a.person
         ), cohort AS (SELECT person, min(week) AS week FROM active GROUP BY person)
         {question}"
    )
}

/// What gold says, a view with its live twin, and what it must be.
const REPORTS: [(&str, &str); 9] = [
    (
        "SELECT event_date, events, active_persons, page_views, purchases FROM gold.daily_actives",
        "SELECT event_date, count(*), count(DISTINCT person), count(*) FILTER (WHERE event_type = 'page_viewed'),
                count(*) FILTER (WHERE event_type = 'purchase_completed') FROM e GROUP BY 1",
    ),
    (
        "SELECT event_date, count(*), sum(events), sum(duration_seconds) FROM gold.sessions GROUP BY 1",
        "SELECT (started_at AT TIME ZONE '{zone}')::date, count(*), sum(events), sum(seconds) FROM visit GROUP BY 1",
    ),
    (
        "SELECT event_date, step, persons FROM gold.funnel_daily WHERE persons > 0",
        "SELECT event_date, step, count(*) FROM entry, generate_series(1, 5) AS step WHERE level >= step GROUP BY 1, 2",
    ),
    (
        "SELECT event_date, currency, purchases, revenue FROM gold.revenue_daily",
        "SELECT event_date, said ->> 'currency', count(*), sum((said ->> 'revenue')::numeric)
           FROM e WHERE event_type = 'purchase_completed' GROUP BY 1, 2",
    ),
    (
        "SELECT event_date, person FROM gold.person_days",
        "SELECT event_date, person FROM active",
    ),
    (
        "SELECT event_date, page_views FROM gold.latency_daily",
        "SELECT event_date, count(*) FROM e WHERE event_type = 'page_viewed' GROUP BY 1",
    ),
    (
        "SELECT cohort_week, weeks_since, cohort_persons, persons FROM gold.retention_weekly WHERE persons > 0",
        "SELECT c.week, (a.week - c.week) / 7, (SELECT count(*) FROM cohort AS x WHERE x.week = c.week),
                count(DISTINCT person)
           FROM cohort AS c JOIN active AS a USING (person)
          WHERE a.week = c.week OR a.week + 7 <= (SELECT max(event_date) + 1 FROM e)
          GROUP BY 1, 2",
    ),
    (
        "SELECT period, new_persons, returning_persons FROM gold.lifecycle_weekly",
        "SELECT w.week, (SELECT count(*) FROM cohort AS c WHERE c.week = w.week),
                (SELECT count(*) FROM (SELECT DISTINCT a.person FROM active AS a JOIN active AS b USING (person)
                                        WHERE a.week = w.week AND b.week = w.week - 7) AS x)
           FROM (SELECT DISTINCT week FROM active) AS w",
    ),
    (
        "SELECT event_date, week_start, hours FROM gold.calendar",
        "SELECT d, d - extract(dow FROM d)::integer,
                (SELECT count(*) * 0.25 FROM generate_series(d::timestamptz - interval '2 days', d + interval '3 days',
                                                             interval '15 minutes') AS quarter
                  WHERE (quarter AT TIME ZONE '{zone}')::date = d)
           FROM (SELECT (SELECT min(event_date) FROM e) + n AS d
                   FROM generate_series(0, (SELECT max(event_date) - min(event_date) FROM e)) AS n) AS x",
    ),
];

fn right(database: &Database<'_>, zone: &str, live: bool) {
    for (found, expected) in REPORTS {
        let expected = truth(zone, &expected.replace("{zone}", zone));
        let view = found.split_once("FROM ").unwrap().1.split_whitespace().next().unwrap();
        let found = if live { found.replace(view, &format!("{view}_live")) } else { found.to_owned() };
        let has_live =
            ["daily_actives", "sessions", "funnel_daily", "revenue_daily", "person_days", "latency_daily"];
        if live && !has_live.iter().any(|name| view.ends_with(name)) {
            continue;
        }
        assert!(database.rows(&found).len() >= 2, "{zone}: {found} has hardly a row, which proves nothing");
        assert_same(database, &found, &expected);
    }
}

fn set(admin: &mut Client, zone: &str) -> Vec<Vec<String>> {
    rows(admin, &format!("SELECT * FROM gold.set_reporting('{zone}', 'sunday', 4)"))
}

/// Loads a half of the events before the zone is set and the rest, which comes to all days, after it.
fn in_zone(zone: &str, first: &str) {
    let database = cluster::shared().database();
    let lines = visits(first, 11);
    let (before, after) = lines.split_at(lines.len() / 2);
    // A loader is not given partitions of 2011.
    let days = format!("ARRAY(SELECT date '{first}' + n FROM generate_series(0, 15) AS n)");
    database.rows(&format!("SELECT tidemark.ensure_partitions('bronze.events', {days})"));
    load(&database, &before.join("\n"));
    maintain(&database);
    let mut admin = connect(&database.admin_url());
    let waiting = set(&mut admin, zone);
    assert!(
        waiting.iter().any(|row| row[0] == "gold_storage.person_activity" && row[1] != "0"),
        "{waiting:?}"
    );
    right(&database, zone, true);
    maintain(&database);
    right(&database, zone, false);
    // In two parts, so that a date is reached by events of the one before and of itself.
    for part in after.chunks(after.len() / 2 + 1) {
        load(&database, &part.join("\n"));
        database.rows("CALL tidemark.refresh('silver.events')");
        right(&database, zone, true);
        maintain(&database);
        right(&database, zone, false);
    }
    let differing = database.rows(
        "SELECT m.model, v.event_date, v.status, v.detail FROM tidemark.model_status AS m
          CROSS JOIN LATERAL (SELECT min(event_date) - 2 AS first, max(event_date) + 2 AS last FROM bronze.events) AS d
          CROSS JOIN LATERAL tidemark.verify_model(m.model, d.first, d.last) AS v WHERE v.status <> 'ok'",
    );
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn clocks_that_go_forward_at_two_in_a_zone_of_half_an_hour() {
    in_zone("America/St_Johns", "2026-03-02");
}

#[test]
fn clocks_that_go_back_by_half_an_hour() {
    in_zone("Australia/Lord_Howe", "2026-03-30");
}

#[test]
fn a_midnight_that_is_skipped() {
    in_zone("America/Santiago", "2026-08-31");
}

#[test]
fn a_midnight_that_comes_twice() {
    in_zone("Atlantic/Azores", "2026-10-18");
}

#[test]
fn a_zone_of_quarters_of_an_hour() {
    in_zone("Asia/Kathmandu", "2026-03-28");
}

#[test]
fn a_date_that_was_left_out() {
    in_zone("Pacific/Apia", "2011-12-24");
}

#[test]
fn fiscal_years_and_periods_are_those_that_were_set() {
    let database = cluster::shared().database();
    load(&database, &visits("2026-03-28", 5).join("\n"));
    maintain(&database);
    let mut admin = connect(&database.admin_url());
    assert_eq!(rows(&mut admin, "TABLE gold.reporting"), [["UTC", "monday", "1", "", "NULL", "NULL"]]);
    let stored = "SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM
                  (SELECT to_jsonb(s) AS t FROM gold.sessions AS s UNION ALL SELECT to_jsonb(f) FROM gold.funnel_daily AS f
                   UNION ALL SELECT to_jsonb(r) FROM gold.retention_weekly AS r
                   UNION ALL SELECT to_jsonb(a) FROM gold.daily_actives AS a) AS x";
    let in_utc = database.value(stored);

    // Weeks and fiscal years without another time zone leave the models alone.
    assert_eq!(
        rows(&mut admin, "SELECT * FROM gold.set_reporting(week_start => 'sunday', fiscal_month => 4)"),
        [[""; 0]; 0]
    );
    right(&database, "UTC", false);
    let ends =
        "SELECT event_date, iso_week, fiscal_quarter_start, fiscal_year_start, fiscal_year FROM gold.calendar
                 WHERE event_date IN ('2026-03-31', '2026-04-01') ORDER BY 1";
    assert_eq!(
        database.rows(ends),
        [
            ["2026-03-31", "2026-W14", "2026-01-01", "2025-04-01", "2026"],
            ["2026-04-01", "2026-W14", "2026-04-01", "2026-04-01", "2027"]
        ]
    );
    let starts = "SELECT gold.period_start('week', '2026-12-31'), gold.period_start('month', '2026-12-31'),
                         gold.period_start('year', '2026-12-31'), gold.period_start('fiscal_quarter', '2026-12-31'),
                         gold.period_start('decade', NULL), gold.date_start('2026-12-31')";
    assert_eq!(
        rows(&mut admin, starts),
        [["2026-12-27", "2026-12-01", "2026-01-01", "2026-10-01", "NULL", "2026-12-31 00:00:00+00"]]
    );

    assert_eq!(sqlstate(admin.batch_execute("SELECT gold.period_start('weeks', '2026-12-31')")), "22023");

    // There and back again.
    assert!(!set(&mut admin, "Asia/Kathmandu").is_empty());
    maintain(&database);
    assert_ne!(database.value(stored), in_utc);
    assert_eq!(rows(&mut admin, "SELECT gold.report_date('2026-09-01 18:15:00+00')"), [["2026-09-02"]]);
    assert!(!rows(&mut admin, "SELECT * FROM gold.set_reporting('UTC', 'monday', 1)").is_empty());
    maintain(&database);
    assert_eq!(database.value(stored), in_utc);
}

/// Visits with campaigns and heartbeats, at most one event a second.
fn beats(seed: u64) -> Vec<String> {
    let random = &mut Random::new(seed);
    let mut seconds = std::collections::BTreeSet::new();
    let mut lines = vec![];
    for _ in 0..120 {
        let user = format!("p{}", random.below(6));
        // Around the midnight of Kathmandu.
        let mut at = 16 * 3600 + random.below(2 * 86_400);
        let mut page = "/a";
        for _ in 0..1 + random.below(9) {
            let longest = if random.percent(70) { 20 } else { 1500 };
            at += 1 + random.below(longest);
            if !seconds.insert(at) {
                continue;
            }
            let beats = random.percent(60);
            if !beats {
                page = random.pick(&["/a", "/b", "/c"]);
            }
            let campaign = match random.below(6) {
                0 if !beats => r#","campaign":{"source":"news","medium":"email"}"#,
                1 if !beats => r#","campaign":{"source":"ads","medium":"cpc","name":"spring"}"#,
                _ => "",
            };
            let time = format!(
                "2026-04-{:02}T{:02}:{:02}:{:02}Z",
                1 + at / 86_400,
                at / 3600 % 24,
                at / 60 % 60,
                at % 60
            );
            let name = if beats { "page_ping" } else { "page_viewed" };
            let context = format!(r#"{{"page":{{"path":"{page}"}}{campaign}}}"#);
            lines.push(event(lines.len() as u64, &user, &time, name, "{}", &context));
        }
    }
    lines.sort_by_cached_key(|_| random.bits());
    lines
}

#[test]
fn sessions_end_at_midnight_and_where_a_campaign_begins_and_know_how_long_pages_were_looked_at() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    set(&mut admin, "Asia/Kathmandu");
    let lines = beats(3);
    let (before, after) = lines.split_at(lines.len() / 2);
    load(&database, &before.join("\n"));
    maintain(&database);
    for (cut, cuts) in [
        ("{}", "false"),
        ("{midnight}", "midnight"),
        ("{campaign}", "campaign"),
        ("{campaign,midnight}", "midnight OR campaign"),
    ] {
        let expected = format!(
            "SELECT (min(event_time) AT TIME ZONE 'Asia/Kathmandu')::date, user_id, min(event_time), max(event_time), count(*),
                    (SELECT sum(10 * (b.beats - 1) + 5)
                       FROM (SELECT count(DISTINCT floor(extract(epoch FROM t.at) / 10)) AS beats
                               FROM unnest(array_agg(event_time), array_agg(payload #>> '{{context,page,path}}')) AS t(at, page)
                              GROUP BY t.page) AS b)
               FROM (SELECT *, count(*) FILTER (WHERE begins) OVER w AS n
                       FROM (SELECT *, coalesce(pause OR {cuts}, true) AS begins
                               FROM (SELECT *, event_time - lag(event_time) OVER w > interval '30 minutes' AS pause,
                                            date_trunc('day', event_time, 'Asia/Kathmandu')
                                                <> date_trunc('day', lag(event_time) OVER w, 'Asia/Kathmandu') AS midnight,
                                            payload #> '{{context,campaign}}' IS NOT NULL
                                                AND payload #> '{{context,campaign}}' IS DISTINCT FROM
                                                    lag(payload #> '{{context,campaign}}') OVER w AS campaign
                                       FROM bronze.events WINDOW w AS (PARTITION BY user_id ORDER BY event_time)) AS x) AS y
                     WINDOW w AS (PARTITION BY user_id ORDER BY event_time)) AS z
              GROUP BY user_id, n"
        );
        let found =
            "SELECT event_date, person, started_at, ended_at, events, engaged_seconds FROM gold.sessions";
        rows(&mut admin, &format!("SELECT * FROM gold.set_sessions('{cut}', '10 s')"));
        assert_same(&database, &found.replace("sessions", "sessions_live"), &expected);
        maintain(&database);
        assert_same(&database, found, &expected);
        if cut.contains(',') {
            for part in after.chunks(after.len() / 3 + 1) {
                load(&database, &part.join("\n"));
                maintain(&database);
                assert_same(&database, found, &expected);
            }
            // An event with which a session began is gone, so that what follows it belongs to the one before.
            let gone = "DELETE FROM bronze.events WHERE (event_date, event_id) IN (
                            SELECT e.event_date, e.event_id FROM silver.events AS e JOIN gold.sessions AS s
                                ON s.person = e.person AND s.started_at = e.event_time AND e.utm_source IS NOT NULL)";
            assert!(admin.execute(gone, &[]).unwrap() > 5);
            run(
                &mut admin,
                "SELECT tidemark.mark_dirty('bronze.events', '{2026-04-01,2026-04-02,2026-04-03}', 'gone')",
            );
            maintain(&database);
            assert_same(&database, found, &expected);
        }
    }
    assert_eq!(
        rows(&mut admin, "SELECT session_cut, heartbeat_seconds FROM gold.reporting"),
        [["campaign,midnight", "10"]]
    );
    rows(&mut admin, "SELECT * FROM gold.set_sessions('{}', '0')");
    maintain(&database);
    assert_eq!(database.number("SELECT count(engaged_seconds) FROM gold.sessions"), 0);
    let mut refused = |sql: &str| sqlstate(admin.batch_execute(&format!("SELECT gold.set_sessions({sql})")));
    assert_eq!(refused("'{noon}'"), "22023");
    assert_eq!(refused("'{midnight,NULL}'"), "22023");
    assert_eq!(refused("'{{midnight},{campaign}}'"), "22023");
    assert_eq!(refused("heartbeat => '1 s'"), "22023");
    assert_eq!(refused("heartbeat => '10.5 s'"), "22023");
}

#[test]
fn who_reads_gold_meanwhile_is_never_cancelled() {
    let database = cluster::shared().database();
    load(&database, &visits("2026-03-28", 5).join("\n"));
    maintain(&database);
    let mut reader = connect(&database.reader_url());
    run(&mut reader, "BEGIN; SELECT count(*) FROM gold.revenue_daily");
    let url = database.admin_url();
    let setting = std::thread::spawn(move || {
        sqlstate(connect(&url).batch_execute("SELECT gold.set_reporting('Asia/Tokyo', 'sunday')"))
    });
    // Now it waits for the view, and holds others, for half a second; then it lets go of all.
    let waits =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'gold.revenue_daily'::regclass";
    wait_until("the setting to come to the view", Duration::from_secs(30), || database.number(waits) > 0);
    for view in ["sessions", "daily_actives", "funnel_daily", "sessions_live", "revenue_daily_live"] {
        run(&mut reader, &format!("SELECT count(*) FROM gold.{view}"));
    }
    run(&mut reader, "COMMIT");
    assert_eq!(setting.join().unwrap(), "no error");
    maintain(&database);
    right(&database, "Asia/Tokyo", false);
}

#[test]
fn what_is_no_setting_is_refused() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    let mut refused = |sql: &str| sqlstate(admin.batch_execute(&format!("SELECT gold.set_reporting({sql})")));
    assert_eq!(refused("'Europe/Atlantis'"), "22023");
    assert_eq!(refused("'UTC+3'"), "22023");
    assert_eq!(refused("'localtime'"), "22023");
    assert_eq!(refused("week_start => 'Sonntag'"), "22023");
    assert_eq!(refused("week_start => 'Sunday', time_zone => 'australia/sydney'"), "no error");
    assert_eq!(refused("'UTC', 'monday'"), "no error");
    assert_eq!(refused("fiscal_month => 13"), "22023");
    let mut reader = connect(&database.reader_url());
    assert_eq!(rows(&mut reader, "TABLE gold.reporting"), [["UTC", "monday", "1", "", "NULL", "NULL"]]);
    assert_eq!(sqlstate(reader.batch_execute("SELECT gold.set_reporting('Asia/Tokyo')")), "42501");
}

#[test]
fn a_zone_that_came_to_mean_something_else_is_computed_again() {
    let database = cluster::shared().database();
    load(&database, &visits("2026-03-04", 5).join("\n"));
    let mut admin = connect(&database.admin_url());
    set(&mut admin, "America/St_Johns");
    maintain(&database);
    assert_eq!(rows(&mut admin, "SELECT gold.check_reporting()"), [["0"]], "looked up within the hour");
    // As if clocks had been changed two days later when it was looked up.
    run(
        &mut admin,
        "SET ROLE tidemark_admin; UPDATE gold_storage.reporting
            SET offsets = offsets - '2026-03-09' || '{\"2026-03-11\": -9000}', offsets_checked_at = '-infinity'",
    );
    let before = database.value("SELECT now()");
    maintain(&database);
    let computed = format!(
        "SELECT DISTINCT event_date FROM tidemark.refresh_log
          WHERE model = 'gold_storage.person_activity' AND refreshed_at > '{before}' ORDER BY 1"
    );
    assert_eq!(database.column(&computed), ["2026-03-07", "2026-03-08", "2026-03-09", "2026-03-10"]);
    assert_eq!(rows(&mut admin, "SELECT gold.check_reporting()"), [["0"]]);
    let offset = "SELECT offsets ->> '2026-03-09' FROM gold_storage.reporting";
    assert_eq!(rows(&mut admin, offset), [["-9000"]]);
}
