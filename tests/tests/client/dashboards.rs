//! The queries of `sql/dashboards`, run as a reader, as Metabase and Grafana would send them: without any filter, and
//! with all of them. What they must answer is computed from bronze in plain SQL, without tidemark's functions, silver
//! or gold.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use tidemark_tests::cluster::{self, Database, connect, program, rows};
use tidemark_tests::dashboards::{self, Dashboard, grafana, metabase};
use tidemark_tests::events::Generated;

/// A range with everything in it, and a week from Monday to Sunday.
const EVER: (&str, &str) = ("2000-01-01T00:00:00Z", "2999-12-31T23:59:59Z");
const WEEK: (&str, &str) = ("2026-09-07T00:00:00Z", "2026-09-13T23:59:59Z");

/// What filters are set to, but for those on dates, which are set to the week.
const CHOSEN: [(&str, &str); 9] = [
    ("channel", "Direct"),
    ("country", "DE"),
    ("currency", "EUR"),
    ("event_type", "page_viewed"),
    ("model", "silver.events"),
    ("platform", "web"),
    ("reason", "invalid_json"),
    ("source", "bronze.events"),
    ("top", "2"),
];

/// Events, sessions and weeks as the payloads say, to compute answers from. Only who events are known to be of is
/// silver's (`super::identity`).
const ORACLE: &str = "
    CREATE SCHEMA oracle;
    CREATE TABLE oracle.events AS
    SELECT event_time, b.received_at, (event_time AT TIME ZONE 'UTC')::date AS day,
           known_person AS person,
           b.event_type, payload #>> '{context,platform}' AS platform, payload #>> '{context,country}' AS country,
           payload #>> '{context,page,path}' AS path,
           (payload #>> '{properties,performance,load_ms}')::numeric AS load_ms,
           (payload #>> '{properties,order,total}')::numeric AS total,
           payload #>> '{properties,order,currency}' AS currency,
           payload #> '{context,campaign}' IS NULL
               AND coalesce(payload #>> '{context,page,url}', '') !~ '[?&][a-z]+clid='
               AND coalesce(split_part(payload #>> '{context,page,referrer}', '/', 3), 'shop.example') = 'shop.example'
               AS direct
      FROM bronze.events AS b
      LEFT JOIN (SELECT event_id, event_time, known_person FROM silver.events) AS k USING (event_id, event_time);
    CREATE TABLE oracle.sessions AS
    SELECT person, (min(event_time) AT TIME ZONE 'UTC')::date AS day,
           (array_agg(platform ORDER BY event_time))[1] AS platform,
           (array_agg(country ORDER BY event_time))[1] AS country,
           CASE WHEN bool_and(direct) THEN 'Direct' END AS channel,
           max(event_time) - min(event_time) <= interval '10 seconds'
               AND count(*) FILTER (WHERE event_type = 'page_viewed') < 2
               AND count(*) FILTER (WHERE event_type = 'purchase_completed') = 0 AS bounced,
           count(*) FILTER (WHERE event_type = 'purchase_completed') > 0 AS buying
      FROM (SELECT *, sum(cut::integer) OVER (PARTITION BY person ORDER BY event_time) AS number
              FROM (SELECT *,
                           coalesce(event_time - lag(event_time)
                                        OVER (PARTITION BY person ORDER BY event_time) > interval '30 minutes',
                                        true) AS cut
                      FROM oracle.events) AS c) AS n
     GROUP BY person, number;
    CREATE TABLE oracle.actives AS
    SELECT d.day, d.persons AS dau,
           (SELECT count(DISTINCT person) FROM oracle.events AS e WHERE e.day BETWEEN d.day - 6 AND d.day) AS wau,
           (SELECT count(DISTINCT person) FROM oracle.events AS e WHERE e.day BETWEEN d.day - 27 AND d.day) AS mau
      FROM (SELECT day, count(DISTINCT person) AS persons FROM oracle.events GROUP BY day) AS d;
    CREATE TABLE oracle.entries AS
    SELECT a.day, a.person,
           bool_or(EXISTS (SELECT FROM oracle.events AS b
                            WHERE b.person = a.person AND b.event_type = 'product_viewed'
                              AND b.event_time > a.event_time
                              AND b.event_time <= a.event_time + interval '1 day')) AS went_on
      FROM oracle.events AS a WHERE a.event_type = 'page_viewed' GROUP BY a.day, a.person;
    CREATE TABLE oracle.weeks AS
    SELECT person, date_trunc('week', day::timestamp)::date AS day,
           min(date_trunc('week', day::timestamp)::date) OVER (PARTITION BY person) AS first
      FROM oracle.events GROUP BY person, date_trunc('week', day::timestamp)::date;
    CREATE TABLE oracle.cohorts AS
    SELECT first AS day, count(*) FILTER (WHERE day = first) AS persons,
           count(*) FILTER (WHERE day = first + 7) AS after_1,
           count(*) FILTER (WHERE day = first + 14) AS after_2
      FROM oracle.weeks GROUP BY first;
    CREATE TABLE oracle.dormant AS
    SELECT a.person, a.day + 7 AS day FROM oracle.weeks AS a
     WHERE a.day < (SELECT max(day) FROM oracle.weeks)
       AND NOT EXISTS (SELECT FROM oracle.weeks AS b WHERE b.person = a.person AND b.day = a.day + 7)";

/// A question that both tools ask.
struct Question {
    name: &'static str,
    /// What to look at in the rows of Metabase's and of Grafana's query, which are called q.
    looks: [&'static str; 2],
    /// The same from the events; {filters} stands for conditions.
    expected: &'static str,
    /// These conditions when all filters of Metabase and of Grafana are set; {week} stands for those on the date.
    filters: [&'static str; 2],
}

const SESSIONS: &str = "SELECT sum(sessions), sum(round(sessions * pct_bounced / 100)),
                               sum(round(sessions * pct_buying / 100)) FROM q";
const SESSIONS_EXPECTED: &str =
    "SELECT count(*), sum(bounced::integer), sum(buying::integer) FROM oracle.sessions WHERE {filters}";
const FUNNEL: &str = "SELECT max(entries) FILTER (WHERE step = 1), max(entries) FILTER (WHERE step = 2),
    max(pct_of_previous) FILTER (WHERE step = 2), count(*) FROM q";
const PAGES: &str = "SELECT page, views, persons FROM q ORDER BY views DESC, page LIMIT 2";
const FRESHNESS: &str = "SELECT count(*), sum(dirty_dates), min(oldest_dirty_date) FROM q";
const SOURCES: &str =
    "SELECT source, events_loaded, last_event_at, seconds_since_load BETWEEN 0 AND 3600 FROM q";
const LATENESS: &str = "SELECT sum(events), sum(events) FILTER (WHERE bucket >= 6), max(pct_by_then) FROM q";

const QUESTIONS: [Question; 15] = [
    Question {
        name: "actives",
        looks: ["SELECT sum(dau), sum(wau), sum(mau) FROM q"; 2],
        expected: "SELECT sum(dau), sum(wau), sum(mau) FROM oracle.actives WHERE {filters}",
        filters: ["{week}"; 2],
    },
    Question {
        name: "channels",
        looks: [SESSIONS; 2],
        expected: SESSIONS_EXPECTED,
        filters: ["{week} AND platform = 'web' AND country = 'DE'", "{week}"],
    },
    Question {
        name: "dead_letters",
        looks: ["SELECT sum(events), count(*) FROM q"; 2],
        expected: "SELECT count(*), count(DISTINCT reason) FROM loader.dead_letters WHERE {filters}",
        filters: ["reason = 'invalid_json'"; 2],
    },
    Question {
        name: "events",
        looks: [
            "SELECT sum(events), count(DISTINCT event_type) FROM q",
            "SELECT sum(events), count(DISTINCT metric) FROM q",
        ],
        expected: "SELECT count(*), count(DISTINCT event_type) FROM oracle.events WHERE {filters}",
        filters: [
            "{week} AND event_type = 'page_viewed' AND platform = 'web'",
            "{week} AND event_type = 'page_viewed'",
        ],
    },
    Question {
        name: "freshness",
        looks: [FRESHNESS; 2],
        // One date of bronze was marked: each model waits for it and for those around it that it, or what it reads, also
        // reads.
        expected: "WITH RECURSIVE reach(target, name, back, ahead) AS (
                       SELECT 'bronze.events'::regclass, NULL, 0, 0
                       UNION
                       SELECT m.target, m.name, r.back + m.lookback_days, r.ahead + m.lookahead_days
                         FROM reach r
                         JOIN tidemark_internal.model_sources s ON s.source = r.target
                         JOIN tidemark_internal.models m ON m.name = s.model)
                   SELECT count(*), sum(1 + back + ahead), min(date '2026-09-08' - ahead)
                     FROM (SELECT name, max(back) AS back, max(ahead) AS ahead FROM reach GROUP BY name) AS m
                    WHERE name IS NOT NULL AND {filters}",
        filters: ["name = 'silver.events'", "true"],
    },
    Question {
        name: "funnel",
        looks: [FUNNEL; 2],
        expected: "SELECT count(*), sum(went_on::integer), round(100.0 * sum(went_on::integer) / count(*), 1), 5
                     FROM oracle.entries WHERE {filters}",
        filters: ["{week}"; 2],
    },
    Question {
        name: "latency",
        looks: [
            "SELECT count(*), sum(page_views), bool_and(p50_ms <= p95_ms AND p95_ms <= p99_ms),
                    bool_and(abs(p95_ms - (SELECT (array_agg(v.load_ms ORDER BY v.load_ms))
                                                      [1 + floor(0.95 * (count(*) - 1))::integer]
                                             FROM silver.page_views AS v
                                            WHERE v.event_date = q.event_date
                                              AND v.platform = q.platform)) <= 0.5 + 0.011 * p95_ms) FROM q",
            "SELECT 3 * count(*),
                    sum((SELECT d.page_views FROM gold.latency_daily AS d
                          WHERE d.event_date = (q.time AT TIME ZONE 'UTC')::date)),
                    bool_and(p50 <= p95 AND p95 <= p99),
                    bool_and(abs(p95 - (SELECT (array_agg(v.load_ms ORDER BY v.load_ms))
                                                   [1 + floor(0.95 * (count(*) - 1))::integer]
                                          FROM silver.page_views AS v
                                         WHERE v.event_date = (q.time AT TIME ZONE 'UTC')::date)) <= 0.5 + 0.011 * p95)
               FROM q",
        ],
        expected: "SELECT count(DISTINCT (day, platform)), count(*), true, true FROM oracle.events
                    WHERE load_ms IS NOT NULL AND {filters}",
        filters: ["{week} AND platform = 'web'", "{week}"],
    },
    Question {
        name: "lateness",
        looks: [LATENESS; 2],
        expected: "SELECT count(*), count(*) FILTER (WHERE received_at - event_time >= interval '1 hour'), 100.00
                     FROM oracle.events WHERE {filters}",
        filters: ["{week}"; 2],
    },
    Question {
        name: "lifecycle",
        looks: ["SELECT sum(new_persons), sum(new_persons + returning_persons + resurrected_persons),
                        sum(dormant_persons) FROM q"; 2],
        expected: "SELECT count(*) FILTER (WHERE day = first), count(*),
                          (SELECT -count(*) FROM oracle.dormant WHERE {filters})
                     FROM oracle.weeks WHERE {filters}",
        filters: ["{week}"; 2],
    },
    Question {
        name: "retention",
        looks: ["SELECT sum(persons), sum(week_1), sum(week_2) FROM q"; 2],
        // The events end with the third week.
        expected: "SELECT sum(persons), sum(round(100.0 * after_1 / persons, 1)) FILTER (WHERE day <= '2026-09-07'),
                          sum(round(100.0 * after_2 / persons, 1)) FILTER (WHERE day <= '2026-08-31')
                     FROM oracle.cohorts WHERE {filters}",
        filters: ["{week}"; 2],
    },
    Question {
        name: "revenue",
        looks: [
            "SELECT sum(purchases), sum(revenue), count(DISTINCT currency) FROM q",
            "SELECT sum(purchases), sum(revenue), count(DISTINCT metric) FROM q",
        ],
        expected: "SELECT count(*), sum(total), count(DISTINCT currency) FROM oracle.events
                    WHERE event_type = 'purchase_completed' AND {filters}",
        filters: ["{week} AND currency = 'EUR'"; 2],
    },
    Question {
        name: "sessions",
        looks: [SESSIONS; 2],
        expected: SESSIONS_EXPECTED,
        filters: [
            "{week} AND platform = 'web' AND country = 'DE' AND channel = 'Direct'",
            "{week} AND channel = 'Direct'",
        ],
    },
    Question {
        name: "sources",
        looks: [SOURCES; 2],
        expected: "SELECT 'bronze.events', count(*), max(event_time), true FROM oracle.events WHERE {filters}",
        filters: ["true"; 2],
    },
    Question {
        name: "stickiness",
        looks: ["SELECT sum(pct_of_weekly), sum(pct_of_monthly) FROM q"; 2],
        expected: "SELECT sum(round(100.0 * dau / wau, 1)), sum(round(100.0 * dau / mau, 1)) FROM oracle.actives
                    WHERE {filters}",
        filters: ["{week}"; 2],
    },
    Question {
        name: "top_pages",
        looks: [PAGES; 2],
        expected: "SELECT coalesce(path, '(none)'), count(*), count(DISTINCT person) FROM oracle.events
                    WHERE event_type = 'page_viewed' AND {filters} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 2",
        filters: ["{week} AND platform = 'web' AND country = 'DE'", "{week} AND platform = 'web'"],
    },
];

/// A shop of three weeks from Tuesday, 2026-09-01, to Sunday, refreshed; then one date is marked. All tests only read
/// it.
fn shop() -> &'static Database<'static> {
    static SHOP: OnceLock<Database<'static>> = OnceLock::new();
    SHOP.get_or_init(|| {
        let database = cluster::shared().database();
        let file = Generated::new("--events 9000 --days 20 --users 75 --seed 17 --malformed 0.01");
        database.load_and_maintain(&file.path);
        let mark = "SELECT tidemark.mark_dirty('bronze.events', ARRAY['2026-09-08']::date[], 'test')";
        connect(&database.admin_url()).batch_execute(mark).unwrap();
        database.connect().batch_execute(ORACLE).unwrap();
        let persons = database.number("SELECT count(DISTINCT person) FROM oracle.events");
        assert!((60..=128).contains(&persons), "sketches are exact up to 128 persons, here are {persons}");
        database
    })
}

fn chosen(variable: &str) -> &'static str {
    let found = CHOSEN.iter().find(|(name, _)| *name == variable);
    found.unwrap_or_else(|| panic!("no value for the variable {variable}")).1
}

/// What Metabase puts in the place of a variable.
fn metabase_value(dashboard: &Dashboard, variable: &str) -> String {
    let Some(field) = dashboard.field(variable) else { return chosen(variable).to_owned() };
    let quoted: Vec<_> = field.split('.').map(|part| format!("\"{part}\"")).collect();
    let column = quoted.join(".");
    match variable {
        // When something was set aside is a matter of the clock.
        "quarantined_date" => format!("({column} >= date '2000-01-01')"),
        "event_date" | "cohort_week" | "period" => {
            format!("({column} >= date '2026-09-07' AND {column} < date '2026-09-14')")
        }
        _ => format!("({column} = '{}')", chosen(variable)),
    }
}

/// Runs a query as a reader in a time zone where dates change at another hour, and looks at its rows.
fn look(database: &Database<'_>, sql: &str, look: &str) -> Vec<Vec<String>> {
    let mut reader = connect(&database.reader_url());
    reader.batch_execute("SET timezone = 'America/St_Johns'").unwrap();
    rows(&mut reader, &format!("WITH q AS MATERIALIZED ({sql}\n) {look}"))
}

/// Compares the answers of one tool's queries with those from the events, without filters and with all of them.
fn assert_answers(database: &Database<'_>, tool: usize, sent: &dyn Fn(&Dashboard, bool) -> String) {
    let name = ["metabase", "grafana"][tool];
    let dashboards = dashboards::of_tool(name);
    let names: Vec<_> = dashboards.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, QUESTIONS.map(|question| question.name), "sql/dashboards/{name}");
    for (question, dashboard) in QUESTIONS.iter().zip(&dashboards) {
        let mut answers = Vec::new();
        for filtered in [false, true] {
            let filters = if filtered { question.filters[tool] } else { "true" };
            let filters = filters.replace("{week}", "day BETWEEN '2026-09-07' AND '2026-09-13'");
            let expected = format!(
                "SET timezone = 'America/St_Johns'; {}",
                question.expected.replace("{filters}", &filters)
            );
            let expected = database.rows(&expected);
            let sql = sent(dashboard, filtered);
            let found = look(database, &sql, question.looks[tool]);
            assert_eq!(found, expected, "{name}/{}.sql, with filters: {filtered}\n{sql}", question.name);
            let first = &expected[0][0];
            assert!(first != "0" && first != "NULL", "{name}/{}.sql has nothing to find", question.name);
            answers.push(expected);
        }
        let same = answers[0] == answers[1];
        let unfiltered = question.filters[tool] == "true";
        assert_eq!(same, unfiltered, "{name}/{}.sql: whether filters change the answer", question.name);
    }
}

#[test]
fn metabase_gets_the_answers_of_the_events() {
    let database = shop();
    assert_answers(database, 0, &|dashboard, filtered| {
        metabase(&dashboard.sql, &|variable| filtered.then(|| metabase_value(dashboard, variable)))
    });
}

#[test]
fn grafana_gets_the_answers_of_the_events() {
    let database = shop();
    assert_answers(database, 1, &|dashboard, filtered| {
        let range = if filtered && dashboard.name != "dead_letters" { WEEK } else { EVER };
        grafana(&dashboard.sql, range, 86_400, &|variable| {
            if filtered {
                return vec![chosen(variable).to_owned()];
            }
            // All: every value that the variable's own query finds.
            let (_, said) = dashboard.variables.iter().find(|(name, _)| name == variable).expect("described");
            let (_, query) = said.split_once(": ").expect("a query behind a colon");
            let values = look(database, &grafana(query, EVER, 60, &|_| Vec::new()), "TABLE q");
            values.into_iter().map(|mut row| row.remove(0)).collect()
        })
    });
}

#[test]
fn dashboards_are_as_the_tools_need_them() {
    let database = cluster::shared().database();
    let plain = ["int4", "int8", "numeric", "float8", "text", "date", "timestamptz", "bool", "uuid"];
    for tool in ["metabase", "grafana"] {
        for dashboard in dashboards::of_tool(tool) {
            let file = format!("sql/dashboards/{tool}/{}.sql", dashboard.name);
            let mut used = match tool {
                "metabase" => dashboards::metabase_variables(&dashboard.sql),
                _ => dashboards::grafana_variables(&dashboard.sql),
            };
            let mut named: Vec<_> = dashboard.variables.iter().map(|(name, _)| name.clone()).collect();
            used.sort();
            named.sort();
            assert_eq!(used, named, "{file}: variables used and variables described");
            assert!(dashboard.head.lines().count() >= 2, "{file} does not say what it answers");
            let sql = match tool {
                "metabase" => metabase(&dashboard.sql, &|_| None),
                _ => grafana(&dashboard.sql, EVER, 3600, &|_| vec!["x".to_owned()]),
            };
            for variable in dashboard.variables.iter().filter(|_| tool == "metabase") {
                let Some(field) = dashboard.field(&variable.0) else { continue };
                // Metabase writes schema.table.column, which no table with an alias answers to.
                let (table, _) = field.rsplit_once('.').expect("schema.table.column");
                let plain =
                    sql.split(table).skip(1).any(|rest| rest.starts_with('\n') || rest.starts_with(" ON"));
                assert!(plain && !sql.contains(&format!("{table} AS")), "{file}: {table} without an alias");
            }
            let mut reader = connect(&database.reader_url());
            let statement = reader.prepare(&sql).unwrap_or_else(|e| panic!("{file}: {e:?}\n{sql}"));
            let columns: Vec<_> = statement.columns().iter().map(|c| (c.name(), c.type_().name())).collect();
            let odd: Vec<_> = columns.iter().filter(|(_, kind)| !plain.contains(kind)).collect();
            assert!(odd.is_empty(), "{file} returns {odd:?}");
            if dashboard.head.contains("Format: time series") {
                assert_eq!(columns[0].0, "time", "{file}");
                assert!(["timestamptz", "numeric"].contains(&columns[0].1), "{file}: {columns:?}");
            }
        }
    }
}

#[test]
fn a_week_of_a_dashboard_reads_a_week_of_partitions() {
    let database = shop();
    let mut reader = connect(&database.reader_url());
    for (tool, name) in
        [("metabase", "events"), ("metabase", "top_pages"), ("grafana", "events"), ("grafana", "top_pages")]
    {
        let all = dashboards::of_tool(tool);
        let dashboard = all.iter().find(|d| d.name == name).unwrap();
        let sql = match tool {
            "metabase" => metabase(&dashboard.sql, &|variable| Some(metabase_value(dashboard, variable))),
            _ => grafana(&dashboard.sql, WEEK, 60, &|variable| vec![chosen(variable).to_owned()]),
        };
        let plan = rows(&mut reader, &format!("EXPLAIN {sql}"));
        let scans = plan.iter().filter(|row| row[0].contains("Scan"));
        let dates: BTreeSet<_> = scans.filter_map(|row| row[0].split_once("_p2026")?.1.get(..4)).collect();
        assert_eq!(dates.len(), 7, "{tool}/{name}.sql reads {plan:#?}");
    }
}

#[test]
fn the_queries_for_psql_fit_a_screen() {
    let database = shop();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let print = |name: &str| {
        let output = Command::new(program("psql"))
            .args([
                "-Xq",
                "-v",
                "ON_ERROR_STOP=1",
                "-P",
                "pager=off",
                "-P",
                "footer=off",
                "-d",
                &database.reader_url(),
                "-f",
            ])
            .arg(root.join("sql/dashboards").join(name))
            .env("PGTZ", "UTC")
            .env("PGCLIENTENCODING", "UTF8")
            .output()
            .expect("cannot run psql");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for line in printed.lines() {
            assert!(line.chars().count() <= 100, "{name} prints {} columns: {line}", line.chars().count());
        }
        printed
    };
    let report = print("demo.sql");
    for (what, sql) in [
        ("entries into the funnel", "SELECT count(*) FROM oracle.entries"),
        (
            "late events",
            "SELECT count(*) FROM oracle.events WHERE received_at - event_time > interval '1 hour'",
        ),
        ("events of the last day", "SELECT count(*) FROM oracle.events WHERE day = '2026-09-20'"),
    ] {
        let number = database.value(sql);
        assert!(report.contains(&format!(" {number} ")), "{what}, {number}, are missing in\n{report}");
    }
    // With names of up to 17 characters, that is.
    let table = "SELECT t.*
                   FROM (SELECT tidemark.funnel_stats_union_agg(stats) AS stats FROM gold_storage.funnel_facts) AS f,
                        tidemark.funnel_table(f.stats, ARRAY['page viewed', 'product viewed', 'product added',
                                                             'checkout started', 'purchase finished']) AS t";
    let output = Command::new(program("psql"))
        .args(["-Xq", "-P", "pager=off", "-d", &database.superuser_url(), "-c", table])
        .output()
        .expect("cannot run psql");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("(5 rows)"), "{printed}");
    assert!(printed.lines().all(|line| line.trim_end().chars().count() <= 100), "{printed}");

    let first = |printed: &str, date: &str| -> Vec<String> {
        let line =
            printed.lines().find(|line| line.contains(date)).unwrap_or_else(|| panic!("{date} in {printed}"));
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    assert_eq!(
        first(&print("retention.sql"), "2026-08-31")[1],
        database.value("SELECT persons FROM oracle.cohorts WHERE day = '2026-08-31'")
    );
    let day = first(&print("lifecycle.sql"), "2026-09-01");
    assert_eq!(day[1], database.value("SELECT dau FROM oracle.actives WHERE day = '2026-09-01'"));
    assert!(print("stickiness.sql").lines().count() >= 30, "28 numbers of days and a head");
}
