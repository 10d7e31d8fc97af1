//! The warehouse in SQL: what is in silver and gold is what the events say, also across midnight, after late events,
//! and in the live views before any refresh. The answers to compare with are computed here, from bronze or over the whole
//! of silver. What silver makes of single values is in `silver`.

use std::fmt::Write as _;

use tidemark_tests::cluster::{self, Database, connect, rows, sqlstate};
use tidemark_tests::events::{self, Generated, id, line};
use tidemark_tests::process::tidemark;

pub(super) fn load(database: &Database<'_>, lines: &str) {
    let path = events::file(lines.as_bytes());
    tidemark(&["load", path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
}

pub(super) fn maintain(database: &Database<'_>) {
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    assert_eq!(
        database.column("SELECT last_error FROM tidemark.model_status WHERE last_error IS NOT NULL"),
        [""; 0]
    );
}

/// An event as a line, with properties and context as they are given.
pub(super) fn event(
    number: u64,
    user: &str,
    time: &str,
    name: &str,
    properties: &str,
    context: &str,
) -> String {
    format!(
        r#"{{"messageId":"{}","type":"track","event":"{name}","timestamp":"{time}","receivedAt":"{time}","userId":"{user}","properties":{properties},"context":{context}}}"#,
        id(number)
    )
}

/// Panics unless two queries give the same rows, each as often.
pub(super) fn assert_same(database: &Database<'_>, found: &str, expected: &str) {
    for (what, sql) in [
        ("too much", format!("({found}) EXCEPT ALL ({expected})")),
        ("missing", format!("({expected}) EXCEPT ALL ({found})")),
    ] {
        let wrong = database.rows(&sql);
        assert!(wrong.is_empty(), "{what}: {} rows, such as {:?}\nof {found}", wrong.len(), wrong[0]);
    }
}

/// Sessions and their numbers by the window function over all events of a relation at once.
fn sessionized(relation: &str, person: &str) -> String {
    format!(
        "SELECT person, row_number() OVER (PARTITION BY person ORDER BY started_at) AS session_number, started_at,
                max(event_time) AS ended_at, count(*) AS events
           FROM (SELECT {person} AS person, event_time,
                        tidemark.sessionize(event_time, interval '30 minutes')
                            OVER (PARTITION BY {person} ORDER BY event_time) AS started_at
                   FROM {relation} WHERE {person} IS NOT NULL) AS s
          GROUP BY person, started_at"
    )
}

/// Events of bronze with who they are known to be of. Whether that is right, `super::identity` asks.
const KNOWN: &str = "(SELECT b.*, k.known_person AS person FROM bronze.events AS b
                        LEFT JOIN silver.events_live AS k USING (event_id, event_time, event_date)) AS known";

fn assert_sessions(database: &Database<'_>, view: &str) {
    let found = format!("SELECT person, session_number, started_at, ended_at, events FROM {view}");
    assert_same(database, &found, &sessionized(KNOWN, "person"));
}

/// A person who does something every 25 minutes for 40 hours, from 20:00 on 2026-09-03 on.
fn forty_hours() -> Vec<String> {
    let minute = |m: u64| format!("2026-09-{:02}T{:02}:{:02}:00Z", 3 + m / 1440, m / 60 % 24, m % 60);
    (0..=96).map(|n| line(10_000 + n, "restless", &minute(20 * 60 + n * 25))).collect()
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Few persons with many events around midnights, so that late ones join, cut and move sessions.
fn around_midnight(dice: &mut Dice, first: u64, count: u64) -> Vec<String> {
    (first..first + count)
        .map(|n| {
            let (person, midnight) = (dice.below(6), dice.below(6));
            let minute = midnight * 1440 + 1440 - 180 + dice.below(360);
            let time = format!(
                "2026-09-{:02}T{:02}:{:02}:{:02}Z",
                1 + minute / 1440,
                minute / 60 % 24,
                minute % 60,
                dice.below(60)
            );
            line(20_000 + n, &format!("owl-{person}"), &time)
        })
        .collect()
}

#[test]
fn sessions_equal_sessionize_over_all_events() {
    let database = cluster::shared().database();
    let mut dice = Dice(7);
    // The long session comes in three parts, the middle last: what were two sessions becomes one.
    let long = forty_hours();
    let (middle, ends): (Vec<_>, Vec<_>) = long.iter().enumerate().partition(|(n, _)| (30..60).contains(n));
    let text = |part: Vec<(usize, &String)>| {
        part.into_iter().map(|(_, l)| l.as_str()).collect::<Vec<_>>().join("\n")
    };
    let (middle, ends) = (text(middle), text(ends));

    let shop = Generated::new("--events 5000 --days 6 --users 60 --seed 12 --late 0.2 --malformed 0");
    tidemark(&["load", shop.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    load(&database, &(around_midnight(&mut dice, 0, 150).join("\n") + "\n" + &ends));
    maintain(&database);
    assert_sessions(&database, "gold.sessions");
    assert_eq!(database.number("SELECT count(*) FROM gold.sessions WHERE person = 'restless'"), 2);

    load(&database, &middle);
    assert_sessions(&database, "gold.sessions_live");
    maintain(&database);
    assert_sessions(&database, "gold.sessions");
    assert_eq!(
        database
            .rows("SELECT event_date, events, duration_seconds FROM gold.sessions WHERE person = 'restless'"),
        [["2026-09-03", "97", "144000.000"]]
    );

    for round in 1..=4 {
        load(&database, &around_midnight(&mut dice, round * 1000, 40).join("\n"));
        assert_sessions(&database, "gold.sessions_live");
        // Every other time only a part is refreshed: some dates stored, some not.
        if round % 2 == 0 {
            maintain(&database);
            assert_sessions(&database, "gold.sessions");
        } else {
            let mut admin = connect(&database.admin_url());
            admin.batch_execute("CALL tidemark.refresh('silver.events', NULL)").unwrap();
            admin.batch_execute("CALL tidemark.refresh('gold_storage.session_facts', 2)").unwrap();
        }
        assert_sessions(&database, "gold.sessions_live");
    }
    let over = "SELECT count(*) FROM gold.sessions WHERE (ended_at AT TIME ZONE 'UTC')::date > event_date";
    assert!(database.number(over) > 5, "too few sessions go over midnight");
    // And silver itself holds every event once.
    assert_same(
        &database,
        "SELECT event_id, event_time, event_date, person FROM silver.events",
        "SELECT event_id, event_time, event_date, coalesce(user_id, anonymous_id) FROM bronze.events",
    );
}

#[test]
fn live_views_show_before_a_refresh_what_the_others_show_after_it() {
    let database = cluster::shared().database();
    let [first, second] = [31, 32].map(|seed| {
        Generated::new(&format!("--events 4000 --days 4 --users 80 --seed {seed} --late 0.2 --malformed 0"))
    });
    // Of each also an event that is no customer's.
    database.rows("SELECT silver.set_own_traffic(hosts => '{test.example}')");
    let [first, second] = [(1, first), (2, second)].map(|(number, shop)| {
        let page = r#"{"page":{"url":"https://test.example/"}}"#;
        let test = event(number, "tester", "2026-09-01T10:00:00Z", "page_viewed", "{}", page);
        std::fs::read_to_string(&shop.path).unwrap() + &test
    });
    load(&database, &first);
    maintain(&database);
    let views = database.column(
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname IN ('silver', 'gold', 'gold_storage') AND c.relkind IN ('r', 'p', 'v')
            AND to_regclass(c.oid::regclass::text || '_live') IS NOT NULL
          ORDER BY 1",
    );
    assert!(views.len() >= 14, "only {views:?} have a live view");
    // In a time zone where dates change at another hour.
    let mut reader = database.connect();
    reader.batch_execute("SET timezone = 'America/St_Johns'").unwrap();
    let mut content = |view: &str| rows(&mut reader, &format!("SELECT v::text FROM {view} AS v ORDER BY 1"));
    let before: Vec<_> = views.iter().map(|view| content(view)).collect();
    load(&database, &second);
    for (view, before) in views.iter().zip(&before) {
        assert!(content(view) == *before, "{view} changed without a refresh");
    }
    let live: Vec<_> = views.iter().map(|view| content(&format!("{view}_live"))).collect();
    // Who somebody is known to be is as of the last identity.resolve, in live views too.
    for refresh in ["CALL tidemark.refresh()", "CALL tidemark.refresh_materialized_views()"] {
        connect(&database.admin_url()).batch_execute(refresh).unwrap();
    }
    for ((view, live), before) in views.iter().zip(&live).zip(&before) {
        let after = content(view);
        assert!(after != *before, "{view}: the second file changes nothing, so this proves nothing");
        assert!(after == *live, "{view}_live was wrong before the refresh");
        assert!(content(&format!("{view}_live")) == after, "{view}_live is wrong after the refresh");
    }
}

#[test]
fn a_type_of_ones_own_takes_one_statement() {
    let database = cluster::shared().database();
    let shop = Generated::new("--events 4000 --days 3 --users 80 --seed 21 --malformed 0");
    tidemark(&["load", shop.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    let mut admin = connect(&database.admin_url());
    let create = r#"SELECT silver.create_event_table('searches', ARRAY['search_performed', 'Products Searched'],
        '{"query": "text search.query|query", "results": "integer search.results"}')"#;
    assert_eq!(rows(&mut admin, create), [["silver.searches"]]);
    maintain(&database);
    let expected = "SELECT event_id, payload #>> '{properties,search,query}',
                           (payload #>> '{properties,search,results}')::int
                      FROM bronze.events WHERE event_type = 'search_performed'";
    assert!(database.number(&format!("SELECT count(*) FROM ({expected}) AS e")) > 50);
    assert_same(&database, "SELECT event_id, query, results FROM silver.searches", expected);

    // Again with one column more, which the rows that are there get as well; and the live view has it at once.
    let more = create.replace(r#""results""#, r#""words": "text search.query", "results""#);
    rows(&mut admin, &more);
    load(
        &database,
        &event(
            1,
            "u",
            "2026-09-02T10:00:00Z",
            "Products Searched",
            r#"{"query":"lamp","search":{"results":"3"}}"#,
            "{}",
        ),
    );
    let live = "SELECT query, results, words, event_type FROM silver.searches_live WHERE person = 'u'";
    assert_eq!(database.rows(live), [["lamp", "3", "NULL", "products_searched"]]);
    maintain(&database);
    assert_same(
        &database,
        "SELECT event_id, words FROM silver.searches WHERE words IS NOT NULL",
        "SELECT event_id, payload #>> '{properties,search,query}' FROM bronze.events
          WHERE event_type = 'search_performed'",
    );

    // Readers get it, comments included, and cannot make one themselves.
    let mut reader = connect(&database.reader_url());
    assert!(rows(&mut reader, "SELECT count(*) FROM silver.searches_live")[0][0] != "0");
    assert_eq!(sqlstate(reader.simple_query(create)), "42501");
    let bare = "SELECT count(*) FROM pg_attribute
                 WHERE attrelid IN ('silver.searches'::regclass, 'silver.searches_live'::regclass)
                   AND attnum > 0 AND col_description(attrelid, attnum) IS NULL";
    assert_eq!(database.number(bare), 0);

    for (wrong, code) in [
        (r#"'Searches', ARRAY['x'], '{"a": "text"}'"#, "22023"),
        (r#"'other', '{}'::text[], '{"a": "text"}'"#, "22023"),
        (r#"'other', ARRAY['x'], '["a"]'"#, "22023"),
        (r#"'other', ARRAY['x'], '{"a": "money"}'"#, "22023"),
        (r#"'other', ARRAY['x'], '{"a": null}'"#, "22023"),
        (r#"'other', ARRAY['x'], '{"a": "text b..c"}'"#, "22023"),
        (r#"'other', ARRAY['x'], '{"A; DROP TABLE silver.events": "text"}'"#, "22023"),
        (r#"'other', ARRAY['x'], '{"event_time": "timestamptz"}'"#, "22023"),
        (r#"'searches', ARRAY['x'], '{"query": "text"}'"#, "22023"),
        (r#"'events', ARRAY['x'], '{"a": "text"}'"#, "42P07"),
        // A column keeps its type: values that the new one cannot hold would go without a word.
        (
            r#"'searches', ARRAY['search_performed'], '{"query": "text", "words": "numeric", "results": "integer"}'"#,
            "42804",
        ),
    ] {
        let sql = format!("SELECT silver.create_event_table({wrong})");
        assert_eq!(sqlstate(admin.simple_query(&sql)), code, "{wrong}");
    }
    // Names and paths that look like SQL are nothing but text.
    rows(
        &mut admin,
        r#"SELECT silver.create_event_table('odd', ARRAY['it''s', '%s $1'], '{"a": "text it''s.%s.$1"}',
                                            partitioned => true)"#,
    );
    load(&database, &event(2, "v", "2026-09-02T11:00:00Z", "it's", r#"{"it's":{"%s":{"$1":"here"}}}"#, "{}"));
    maintain(&database);
    assert_eq!(database.column("SELECT a FROM silver.odd"), ["here"]);
    let partition = "SELECT count(*) FROM pg_class
                      WHERE relnamespace = 'silver_partitions'::regnamespace AND relname = 'odd_p20260902'";
    assert_eq!(database.number(partition), 1);
}

#[test]
fn figures_across_dates_are_what_the_events_say() {
    let database = cluster::shared().database();
    let shop = Generated::new("--events 12000 --days 24 --users 250 --seed 51 --late 0.1 --malformed 0.002");
    tidemark(&["load", shop.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    maintain(&database);
    let by = format!(
        "SELECT event_date, payload #>> '{{context,platform}}' AS platform,
                payload #>> '{{context,country}}' AS country, count(*) AS events, count(DISTINCT person)
           FROM {KNOWN} GROUP BY 1, 2, 3"
    );
    assert_same(
        &database,
        "SELECT event_date, platform, country, events, active_persons FROM gold.daily_actives_by_platform_country",
        &by,
    );

    // Retention by weeks, as joins; the last week is not over, unless the last date is a Sunday.
    let retention = format!(
        "WITH weeks AS (SELECT DISTINCT person, date_trunc('week', event_date::timestamp)::date AS week
                          FROM {KNOWN}),
              cohort AS (SELECT person, min(week) AS cohort FROM weeks GROUP BY person)
         SELECT c.cohort, ((w.week - c.cohort) / 7)::int,
                (SELECT count(*) FROM cohort AS x WHERE x.cohort = c.cohort), count(*)
           FROM cohort AS c JOIN weeks AS w USING (person)
          WHERE w.week = c.cohort OR w.week + 7 <= (SELECT max(event_date) + 1 FROM bronze.events)
          GROUP BY c.cohort, w.week"
    );
    assert_same(
        &database,
        "SELECT cohort_week, weeks_since, cohort_persons, persons FROM gold.retention_weekly WHERE persons > 0",
        &retention,
    );
    assert!(
        database.number("SELECT count(*) FROM gold.retention_weekly WHERE weeks_since > 0 AND persons > 0")
            >= 3
    );

    for (view, days, unit) in [("gold.lifecycle_daily", 1, "day"), ("gold.lifecycle_weekly", 7, "week")] {
        let active = format!(
            "SELECT date_trunc('{unit}', event_date::timestamp)::date AS period, count(DISTINCT person) AS n
               FROM {KNOWN} GROUP BY 1"
        );
        assert_same(
            &database,
            &format!("SELECT period, new_persons + returning_persons + resurrected_persons FROM {view}"),
            &active,
        );
        assert_same(
            &database,
            &format!(
                "SELECT period - {days}, returning_persons + dormant_persons FROM {view}
                  WHERE period > (SELECT min(period) FROM {view})"
            ),
            &format!(
                "SELECT period, n FROM ({active}) AS a WHERE period < (SELECT max(period) FROM ({active}) AS b)"
            ),
        );
        let everybody = format!("SELECT count(DISTINCT person) FROM {KNOWN}");
        assert_eq!(
            database.number(&format!("SELECT sum(new_persons) FROM {view}")),
            database.number(&everybody)
        );
    }

    // The funnel of a date: from each page view of it, the earliest time of every next step within a day.
    let mut chain = "SELECT e1.event_date, e1.person, e1.event_time AS t1".to_owned();
    let mut joins = String::new();
    for (n, step) in (2..).zip(["product_viewed", "product_added", "checkout_started", "purchase_completed"])
    {
        write!(chain, ", t{n}").unwrap();
        write!(
            joins,
            " LEFT JOIN LATERAL (SELECT min(x.event_time) AS t{n} FROM public.e AS x
                                  WHERE x.person = e1.person AND x.event_type = '{step}'
                AND x.event_time >= {} AND x.event_time <= e1.event_time + interval '1 day') AS s{n} ON true",
            if n == 2 { "e1.event_time".to_owned() } else { format!("t{}", n - 1) }
        )
        .unwrap();
    }
    database.rows(&format!(
        "CREATE TABLE public.e AS SELECT event_date, event_time, event_type, person FROM {KNOWN};
         CREATE INDEX ON public.e (person, event_type, event_time); ANALYZE public.e"
    ));
    let levels: Vec<String> = (1..=5)
        .map(|step| {
            format!(
                "SELECT event_date, {step} AS step, count(DISTINCT person) AS persons FROM c
                  WHERE t{step} IS NOT NULL GROUP BY 1"
            )
        })
        .collect();
    assert_same(
        &database,
        "SELECT event_date, step, persons FROM gold.funnel_daily WHERE persons > 0",
        &format!(
            "WITH c AS MATERIALIZED ({chain} FROM public.e AS e1{joins} WHERE e1.event_type = 'page_viewed') {}",
            levels.join(" UNION ALL ")
        ),
    );

    assert_same(
        &database,
        "SELECT DISTINCT event_date FROM gold.funnel_daily WHERE complete",
        "SELECT DISTINCT event_date FROM bronze.events WHERE event_type = 'page_viewed'
            AND event_date < (SELECT max(event_date) - 1 FROM bronze.events)",
    );

    // Against the value of that rank among all values, counted from 0.
    let off = |q: &str, column: &str| {
        format!(
            "abs(l.{column} - t.v[floor({q} * (t.n - 1))::int + 1]) > 0.01 * t.v[floor({q} * (t.n - 1))::int + 1] + 1"
        )
    };
    let slow = format!(
        "SELECT count(*) FROM gold.latency_daily AS l
           JOIN (SELECT event_date, count(*) AS n, array_agg(load ORDER BY load) AS v
                   FROM (SELECT event_date, (payload #>> '{{properties,performance,load_ms}}')::numeric AS load
                           FROM bronze.events WHERE event_type = 'page_viewed') AS e
                  GROUP BY 1) AS t USING (event_date)
          WHERE l.page_views <> t.n OR {} OR {} OR {}",
        off("0.5", "p50_ms"),
        off("0.95", "p95_ms"),
        off("0.99", "p99_ms")
    );
    assert_eq!(database.number(&slow), 0, "percentiles are off");
    assert_eq!(database.number("SELECT count(*) FROM gold.latency_daily"), 24);

    let revenue = "SELECT event_date, payload #>> '{properties,order,currency}', count(*),
                          sum((payload #>> '{properties,order,total}')::numeric)
                     FROM bronze.events WHERE event_type = 'purchase_completed' GROUP BY 1, 2";
    assert_same(
        &database,
        "SELECT event_date, currency, purchases, revenue FROM gold.revenue_daily",
        revenue,
    );

    let monthly = format!(
        "SELECT count(*) FROM gold.stickiness AS s
          WHERE active_persons_28d <> (SELECT tidemark.approx_count_distinct(person) FROM {KNOWN}
                                        WHERE event_date BETWEEN s.event_date - 27 AND s.event_date)"
    );
    assert_eq!(database.number(&monthly), 0);
}

#[test]
fn what_a_database_has_set_for_peoples_queries_holds_up_neither_loading_nor_maintenance() {
    let database = cluster::shared().database();
    let name = &database.name;
    let settings = [
        "quote_all_identifiers = on",
        "statement_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "row_security = off",
        "default_transaction_isolation = serializable",
    ];
    let mut admin = database.connect();
    for setting in settings {
        admin.batch_execute(&format!("ALTER DATABASE {name} SET {setting}")).unwrap();
    }
    for day in 1..=3 {
        let time = |hour: u64| format!("2026-09-0{day}T{hour:02}:00:00Z");
        let lines: Vec<String> =
            (0..20).map(|n| event(100 * day + n, "u", &time(n), "page_viewed", "{}", "{}")).collect();
        load(&database, &lines.join("\n"));
        tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    }
    admin.batch_execute(&format!("ALTER DATABASE {name} RESET ALL")).unwrap();
    assert_eq!(database.number("SELECT count(*) FROM gold.daily_actives"), 3);
    assert_eq!(database.number("SELECT count(DISTINCT cohort_week) FROM gold.retention_weekly"), 1);
    // Whoever calls a function under these settings registers the same names.
    admin
        .batch_execute(
            "SET quote_all_identifiers = on; CREATE TABLE public.t (event_date date);
             SELECT tidemark.create_model('public.t', ARRAY['silver.events']::regclass[],
                 'SELECT DISTINCT event_date FROM silver.events WHERE event_date >= $1 AND event_date < $2',
                 '{event_date}')",
        )
        .unwrap();
    let named = "SELECT model FROM tidemark.model_status WHERE target = 'public.t'::regclass";
    assert_eq!(database.column(named), ["public.t"]);
}
