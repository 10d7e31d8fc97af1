//! Reports compared with the aggregates over rows, with all dates stored and with three of four waiting for a refresh.

use super::models_support::refresh;
use super::support_grouped::text;
use super::timelines::{into_parts, more, shop};

pub const DATES: &str = "'2026-01-01', '2026-01-05'";
pub const OF_PERSONS: &str = "FROM w.events WHERE person IS NOT NULL AND event_date >= '2026-01-01'
    AND event_date < '2026-01-05'";

/// Checks each report against a query over rows: stored, stale, and refreshed again.
pub fn same(pairs: &[(String, String)]) {
    shop(700);
    let check = |when: &str| {
        for (report, rows) in pairs {
            let all = |query: &str| {
                text(&format!("SELECT string_agg(q::text, ' ' ORDER BY q::text) FROM ({query}) AS q"))
            };
            let (got, expected) = (all(report), all(rows));
            assert!(expected.len() > 10, "{when}: {rows} gives nothing");
            assert_eq!(got, expected, "{when}: {report}");
        }
    };
    check("nothing stored");
    refresh();
    check("stored");
    more();
    check("three dates wait");
    refresh();
    check("stored again");
    into_parts();
    check("in parts");
}

#[pgrx::pg_schema]
mod tests {
    use super::{DATES, OF_PERSONS, same};
    use crate::tests::models_support::{refresh, run};
    use crate::tests::support_grouped::{error_of, text};
    use crate::tests::timelines::{into_parts, shop};
    use pgrx::prelude::*;

    /// Times of steps and from the first step on, whichever were left out; and whose value counts.
    #[pg_test]
    fn steps_take_their_time_and_so_does_all_of_it() {
        let pair = |mode: &str, quantile: f64| {
            let report = format!(
                "SELECT r.step, r.entered, r.median_seconds, r.quantile_seconds, r.total_median_seconds, r.total_quantile_seconds
                   FROM tidemark.funnel_report('w.events', {DATES}, '[\"view\", \"add\", \"buy\", \"leave\"]', '3 hours', '{mode}', quantile => {quantile}) AS r WHERE entered > 0"
            );
            let at = |share: f64, value: &str| {
                format!(
                    "round((percentile_cont({share}) WITHIN GROUP (ORDER BY extract(epoch FROM {value})::float8))::numeric, 3)"
                )
            };
            let since_before = "t - coalesce(chain[n - 1], chain[n - 2])";
            let rows = format!(
                "SELECT n, count(*), {}, {}, {}, {}
                   FROM (SELECT tidemark.funnel(interval '3 hours', '{mode}', event_time, event_type, '{{view,add,buy,leave}}') AS chain {OF_PERSONS} GROUP BY person) AS f,
                        LATERAL (SELECT n::integer, t, CASE WHEN n > 1 THEN {since_before} END AS since_before, CASE WHEN n > 1 THEN t - chain[1] END AS since_first
                                   FROM unnest(chain) WITH ORDINALITY AS u(t, n) WHERE t IS NOT NULL) AS s GROUP BY n",
                at(0.5, "since_before"), at(quantile, "since_before"), at(0.5, "since_first"), at(quantile, "since_first")
            );
            (report, rows)
        };
        same(&[
            pair("", 0.9),
            pair("optional=2", 0.25),
            pair("strict_increase", 0.0),
            pair("first_entry", 1.0),
        ]);
        for quantile in ["-0.1", "1.5", "'NaN'"] {
            let found = error_of(&format!(
                "SELECT * FROM tidemark.funnel_report('w.events', {DATES}, '[\"view\"]', '1 day', quantile => {quantile})"
            ));
            assert!(found.starts_with("22023 quantile must be 0 to 1"), "{found}");
        }
    }

    #[pg_test]
    fn a_report_says_whether_its_dates_are_over() {
        shop(20);
        let complete = || {
            text(&format!(
                "SELECT complete FROM tidemark.funnel_report('w.events', {DATES}, '[\"view\"]', '1 day')"
            ))
        };
        assert_eq!(complete(), "NULL", "nobody said what was loaded");
        run(
            "SELECT tidemark.mark_loaded('w.events', '{2026-01-05}', '{0}', '{0}', '{2026-01-05 23:00Z}', '{2026-01-05 23:00Z}')",
        );
        run("SELECT tidemark.set_watermark_policy('w.events', '1 day')");
        assert_eq!(complete(), "false");
        run("SELECT tidemark.set_watermark_policy('w.events', '23 hours')");
        assert_eq!(complete(), "true");
    }

    fn funnel_rows(conditions: &str, mode: &str, steps: u32, by: &str) -> String {
        // The value of the first row that satisfies step 1 at the time of step 1.
        format!(
            "SELECT coalesce(g.series, 'all') || ' ' || t.step || ' ' || t.entered || ' ' || concat_ws('/', t.pct_of_first, t.median_seconds, t.avg_seconds)
               FROM (SELECT p.series, tidemark.funnel_stats(p.chain, {steps}) AS stats
                       FROM (SELECT {by} AS series, f.chain
                               FROM (SELECT person, tidemark.funnel(interval '3 hours', '{mode}', event_time, VARIADIC ARRAY[{conditions}]) AS chain {OF_PERSONS} GROUP BY person) AS f
                              WHERE cardinality(f.chain) > 0) AS p GROUP BY p.series) AS g, tidemark.funnel_table(g.stats) AS t"
        )
    }

    fn funnel_report(steps: &str, mode: &str, more: &str) -> String {
        format!(
            "SELECT coalesce(r.series, 'all') || ' ' || r.step || ' ' || r.entered || ' ' || concat_ws('/', r.pct_of_first, r.median_seconds, r.avg_seconds)
               FROM tidemark.funnel_report('w.events', {DATES}, '{steps}', '3 hours', '{mode}'{more}) AS r"
        )
    }

    #[pg_test]
    fn a_funnel_is_that_of_the_aggregate() {
        let plain = "event_type = 'view', event_type = 'add', event_type = 'buy'";
        let steps = r#"["view", "add", "buy"]"#;
        let mut pairs: Vec<(String, String)> = [
            "",
            "strict_order",
            "any_order",
            "first_entry",
            "exclude=3",
            "optional=2",
            "strict_increase",
            "step_window=30m",
            "strict_deduplication",
        ]
        .into_iter()
        .map(|mode| {
            let count = if mode.starts_with("exclude") { 2 } else { 3 };
            (funnel_report(steps, mode, ""), funnel_rows(plain, mode, count, "NULL::text"))
        })
        .collect();
        // Steps that overlap, with filters, of one kind.
        let filtered = r#"[{"event": ["view", "add"], "filters": ["is", "country", ["AT"]]}, {"filters": ["not", ["is_null", "country"]]}, "buy"]"#;
        let conditions = "event_type IN ('view', 'add') AND country IS NOT DISTINCT FROM 'AT', country IS NOT NULL, event_type = 'buy'";
        pairs.push((funnel_report(filtered, "", ""), funnel_rows(conditions, "", 3, "NULL::text")));
        let nine = r#"["view", "add", "buy", "view", "add", "buy", "view", "add", "buy"]"#;
        pairs.push((
            funnel_report(nine, "", ""),
            funnel_rows(&[plain, plain, plain].join(", "), "", 9, "NULL::text"),
        ));
        pairs.push((
            funnel_report(r#"["leave"]"#, "", ""),
            funnel_rows("event_type = 'leave'", "", 1, "NULL::text"),
        ));
        same(&pairs);
    }

    #[pg_test]
    fn a_breakdown_is_by_the_event_that_served_a_step_and_adds_up() {
        let steps = r#"["view", "add", "buy"]"#;
        shop(400);
        without_ties();
        for stored in ["nothing", "slices", "parts"] {
            match stored {
                "slices" => drop(refresh()),
                "parts" => into_parts(),
                _ => {}
            }
            for mode in ["", "first_entry"] {
                for (attribution, which) in
                    [("step=1", "WHERE n = 1"), ("step=2", "WHERE n = 2"), ("first", ""), ("last", "")]
                {
                    let order = if attribution == "last" { "DESC" } else { "" };
                    let filter = if which.is_empty() { "WHERE e.country IS NOT NULL" } else { which };
                    let by = format!(
                        "coalesce((SELECT e.country FROM unnest(f.chain) WITH ORDINALITY AS c(t, n) JOIN w.events e ON e.person = f.person AND e.event_time = c.t
                           {filter} ORDER BY n {order} LIMIT 1), '(none)')"
                    );
                    let plain = "event_type = 'view', event_type = 'add', event_type = 'buy'";
                    let attribution = format!(", 'country', '{attribution}'");
                    let all = |query: &str| {
                        text(&format!(
                            "SELECT string_agg(q::text, E'\\n' ORDER BY q::text) FROM ({query}) AS q"
                        ))
                    };
                    assert_eq!(
                        all(&funnel_report(steps, mode, &attribution)),
                        all(&funnel_rows(plain, mode, 3, &by)),
                        "stored {stored}, mode {mode}{attribution}"
                    );
                }
            }
        }
        // The rest and the whole.
        let entered = |more: &str| {
            text(&format!(
                "SELECT string_agg(step || '=' || entered, ' ' ORDER BY step) FROM (SELECT step, sum(entered) AS entered
                   FROM tidemark.funnel_report('w.timeline', {DATES}, '{steps}', '3 hours', ''{more}) GROUP BY step) AS s"
            ))
        };
        let whole = entered("");
        for top in 1..5 {
            assert_eq!(entered(&format!(", 'properties.price', top => {top}")), whole);
        }
        let series = "SELECT string_agg(DISTINCT series, ',' ORDER BY series) FROM tidemark.funnel_report('w.timeline', '2026-01-01', '2026-01-05', '[\"view\"]', '1 day', breakdown => 'country', top => 2)";
        assert!(text(series).contains("(other)"), "{}", text(series));
    }

    /// Lets no two events happen at once: then it is certain which one serves a step, or comes first.
    fn without_ties() {
        run("UPDATE w.events SET event_time = event_time + n * interval '1 microsecond'
               FROM (SELECT ctid AS row, row_number() OVER () AS n FROM w.events) AS r WHERE ctid = r.row;
             SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04}')");
    }

    #[pg_test]
    fn the_persons_behind_a_number_are_named() {
        let mut pairs = vec![];
        for (mode, step, dropped, condition) in [
            ("", 1, false, "cardinality(chain) >= 1"),
            ("", 2, false, "cardinality(chain) >= 2"),
            ("", 2, true, "cardinality(chain) = 2"),
            ("", 3, true, "cardinality(chain) = 3"),
            ("optional=2", 2, false, "chain[2] IS NOT NULL"),
        ] {
            pairs.push((
                format!(
                    "SELECT * FROM tidemark.funnel_persons('w.events', {DATES}, '[\"view\", \"add\", \"buy\"]', '3 hours', '{mode}', {step}, {dropped})"
                ),
                format!(
                    "SELECT person, chain FROM (SELECT person, tidemark.funnel('3 hours', '{mode}', event_time, event_type, '{{view,add,buy}}') AS chain {OF_PERSONS} GROUP BY person) AS f WHERE {condition}"
                ),
            ));
        }
        same(&pairs);
        let found = error_of(&format!(
            "SELECT * FROM tidemark.funnel_persons('w.events', {DATES}, '[\"view\"]', '3 hours', step => 2)"
        ));
        assert!(found.starts_with("22023 step must be 1 to 1, got 2"), "{found}");
    }

    #[pg_test]
    fn paths_are_what_follows_what_in_sessions() {
        shop(700);
        without_ties();
        for stored in ["nothing", "slices", "parts"] {
            match stored {
                "slices" => drop(refresh()),
                "parts" => into_parts(),
                _ => {}
            }
            for (item, column) in [("event_type", "event_type"), ("country", "country")] {
                let report = format!(
                    "SELECT * FROM tidemark.paths('w.events', {DATES}, '{item}', items => 4, gap => '6 hours', top => 1000)"
                );
                let rows = format!(
                    "WITH e AS (SELECT person, event_time, {column} AS item, CASE WHEN event_time - lag(event_time) OVER w <= interval '6 hours' THEN 0 ELSE 1 END AS starts {OF_PERSONS} WINDOW w AS (PARTITION BY person ORDER BY event_time)),
                     s AS (SELECT *, sum(starts) OVER (PARTITION BY person ORDER BY event_time) AS session FROM e),
                     l AS (SELECT *, lag(item) OVER w AS before, row_number() OVER w AS n FROM s WINDOW w AS (PARTITION BY person, session ORDER BY event_time)),
                     i AS (SELECT *, row_number() OVER w AS place, lead(item) OVER w AS next, lead(event_time) OVER w AS next_time FROM l
                            WHERE n = 1 OR item IS DISTINCT FROM before WINDOW w AS (PARTITION BY person, session ORDER BY event_time))
                     SELECT place::integer, coalesce(item, '(none)'), coalesce(next, '(none)'), count(DISTINCT person), count(*),
                            round((percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM next_time - event_time)::float8))::numeric, 3)
                       FROM i WHERE next_time IS NOT NULL AND place < 4 GROUP BY 1, 2, 3"
                );
                let all = |query: &str| {
                    text(&format!("SELECT string_agg(q::text, ' ' ORDER BY q::text) FROM ({query}) AS q"))
                };
                assert!(all(&rows).len() > 100);
                assert_eq!(all(&report), all(&rows), "stored {stored}, {item}");
            }
        }
        let of = |more: &str| {
            text(&format!(
                "SELECT string_agg(DISTINCT source_item, ',' ORDER BY source_item) FROM tidemark.paths('w.events', {DATES}, items => 2, gap => '6 hours', {more})"
            ))
        };
        assert_eq!(of("start_item => 'add'"), "add");
        assert_eq!(of("start_item => 'unheard of'"), "NULL");
        assert_eq!(
            text(&format!(
                "SELECT string_agg(DISTINCT target_item, ',') FROM tidemark.paths('w.events', {DATES}, items => 2, gap => '6 hours', end_item => 'buy')"
            )),
            "buy"
        );
        let found = error_of(&format!("SELECT * FROM tidemark.paths('w.events', {DATES}, items => 1)"));
        assert!(found.starts_with("22023 items must be 2 to 100, got 1"), "{found}");
    }

    #[pg_test]
    fn sessions_are_those_of_the_aggregate() {
        let pair = |filters: &str, condition: &str, gap: &str| {
            let report =
                format!("SELECT * FROM tidemark.session_report('w.events', {DATES}, '{gap}', {filters})");
            let rows = format!(
                "SELECT count(*), count(DISTINCT person), sum(s.events)::bigint, round(avg(d)::numeric, 3), round((percentile_cont(0.5) WITHIN GROUP (ORDER BY d))::numeric, 3), round((percentile_cont(0.95) WITHIN GROUP (ORDER BY d))::numeric, 3)
                   FROM (SELECT person, unnest(tidemark.sessions(event_time, '{gap}')) AS s {OF_PERSONS} AND ({condition}) GROUP BY person) AS p,
                        LATERAL (SELECT (p.s).events, extract(epoch FROM (p.s).ended_at - (p.s).started_at)::float8 AS d) AS s"
            );
            (report, rows)
        };
        same(&[
            pair("NULL", "true", "30 minutes"),
            pair("NULL", "true", "6 hours"),
            pair(r#"'["is_not", "country", ["AT"]]'"#, "country IS DISTINCT FROM 'AT'", "1 hour"),
        ]);
    }

    #[pg_test]
    fn retention_is_that_of_the_aggregate() {
        let pair = |period: &str, mode: &str| {
            let report = format!(
                "SELECT * FROM tidemark.retention_report('w.events', {DATES}, '\"view\"', '[\"buy\", \"add\"]', '{period}', '{mode}', 4)"
            );
            let rows = format!(
                "SELECT c.cohort, (o.period - 1)::integer, o.persons, round(100.0 * o.persons / c.counts[1], 2)
                   FROM (SELECT (m).cohort, tidemark.cohort_retention((m).retained) AS counts
                           FROM (SELECT unnest(tidemark.cohort_member('{period}', '{mode}', 4, '2026-01-05 00:00Z', event_time, event_type = 'view', event_type IN ('buy', 'add'))) AS m {OF_PERSONS} GROUP BY person) AS p
                          GROUP BY 1) AS c, unnest(c.counts) WITH ORDINALITY AS o(persons, period)"
            );
            (report, rows)
        };
        same(&[
            pair("day", ""),
            pair("day", "recurring, on_or_after"),
            pair("day", "rolling"),
            pair("week", "on"),
            pair("day", "rolling=2, recurring"),
        ]);
    }

    #[pg_test]
    fn filters_mean_what_sql_says_with_null_false() {
        let pair = |filter: &str, condition: &str| {
            (
                format!(
                    "SELECT * FROM tidemark.trend('w.timeline', {DATES}, filters => '{}')",
                    filter.replace('\'', "''")
                ),
                format!(
                    "SELECT date_trunc('day', event_time AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', NULL::text, count(*) {OF_PERSONS} AND ({condition}) GROUP BY 1"
                ),
            )
        };
        same(&[
            pair(r#"["is", "country", ["AT", "it's \"x\""]]"#, r#"country IN ('AT', 'it''s "x"')"#),
            pair(r#"["is_not", "country", ["AT"]]"#, "country IS DISTINCT FROM 'AT'"),
            pair(r#"["contains", "country", ["s "]]"#, "country LIKE '%s %'"),
            pair(r#"["contains_not", "event_type", ["e"]]"#, "event_type NOT LIKE '%e%'"),
            pair(r#"["matches", "event_type", ["^(v|b)", "ve$"]]"#, "event_type ~ '^(v|b)|ve$'"),
            pair(r#"["matches_not", "country", ["^A"]]"#, "coalesce(country !~ '^A', true)"),
            pair(r#"["is_null", "properties.plan.name"]"#, "properties #>> '{plan,name}' IS NULL"),
            pair(r#"["is_not_null", "country"]"#, "country IS NOT NULL"),
            pair(r#"[">=", "properties.price", [15]]"#, "(properties ->> 'price')::numeric >= 15"),
            pair(r#"["<", "properties.price", [9.5]]"#, "(properties ->> 'price')::numeric < 9.5"),
            pair(
                r#"["or", [["and", [["is", "event_type", ["buy"]], ["not", ["is", "country", ["DE"]]]]], ["is", "properties.price", [3, "4"]]]]"#,
                "event_type = 'buy' AND country IS DISTINCT FROM 'DE' OR properties ->> 'price' IN ('3', '4')",
            ),
        ]);
    }

    #[pg_test]
    fn what_a_report_cannot_answer_is_refused_by_name() {
        shop(20);
        let funnel = |steps: &str, win: &str, more: &str| {
            format!("SELECT * FROM tidemark.funnel_report('w.events', {DATES}, '{steps}', '{win}'{more})")
        };
        let filter = |filter: &str| {
            format!("SELECT * FROM tidemark.trend('w.events', {DATES}, filters => '{filter}')")
        };
        let steps = format!("[{}]", vec!["\"view\""; 33].join(","));
        let deep = format!("{}[\"is_null\", \"country\"]{}", "[\"not\", ".repeat(20), "]".repeat(20));
        let values = format!("[\"is\", \"country\", [{}]]", vec!["1"; 1001].join(","));
        for (statement, error) in [
            (funnel(&steps, "1 day", ""), "22023 a funnel has 1 to 32 steps, got 33"),
            (funnel("[]", "1 day", ""), "22023 a funnel has 1 to 32 steps, got 0"),
            (funnel("\"view\"", "1 day", ""), "22023 steps must be a list"),
            (funnel("[1]", "1 day", ""), "22023 not a step: 1"),
            (funnel("[{\"evnt\": \"view\"}]", "1 day", ""), "22023 not a step"),
            (funnel("[\"view\"]", "1 month", ""), "22023 win must not contain months or years"),
            (funnel("[\"view\"]", "1 day", ", 'no_mode'"), "22023"),
            (
                funnel("[\"view\"]", "1 day", ", breakdown => 'city'"),
                "42703 timeline w.timeline has no property city",
            ),
            (
                funnel("[\"view\"]", "1 day", ", attribution => 'step=2'"),
                "22023 attribution must be step=1 to step=1, first or last",
            ),
            (funnel("[\"view\"]", "1 day", ", top => 0"), "22023 top must be 1 to 10000"),
            (
                filter("[\"is\", [\"country\", \"city\"], [\"AT\"]]"),
                "22023 a predicate is about one property",
            ),
            (filter("[\"is\", \"city\", [\"AT\"]]"), "42703 timeline w.timeline has no property city"),
            (
                filter("[\"is\", \"country\", \"AT\"]"),
                "22023 a predicate has a property and a list of values",
            ),
            (filter("[\"is\", \"country\", [null]]"), "22023 values must be texts, numbers or booleans"),
            (filter("[\"like\", \"country\", [\"A%\"]]"), "22023 unknown predicate \"like\""),
            (filter("[\">\", \"country\", [\"A\"]]"), "22023 a comparison needs numbers"),
            (filter("[\"matches\", \"country\", [\"(\"]]"), "2201B"),
            (filter("{}"), "22023 not a filter: {}"),
            (filter(&deep), "22023 filters have at most 16 levels"),
            (filter(&values), "22023 a predicate has at most 1000 values, got 1001"),
            (
                "SELECT * FROM tidemark.trend('w.events', '2026-01-05', '2026-01-01')".to_owned(),
                "22023 from_date and to_date",
            ),
            (
                "SELECT * FROM tidemark.trend('w.events', '-infinity', '2026-01-01')".to_owned(),
                "22023 from_date and to_date",
            ),
            (
                "SELECT * FROM tidemark.trend('pg_class', '2026-01-05', '2026-01-06')".to_owned(),
                "42704 there is no timeline of pg_catalog.pg_class",
            ),
            (
                "SELECT * FROM tidemark.trend(NULL, '2026-01-05', '2026-01-06')".to_owned(),
                "22004 source must not be NULL",
            ),
            (
                format!("SELECT * FROM tidemark.trend('w.events', {DATES}, 'median')"),
                "22023 unknown math \"median\"",
            ),
            (
                format!("SELECT * FROM tidemark.trend('w.events', {DATES}, unit => 'year')"),
                "22023 unknown unit \"year\"",
            ),
            (
                format!(
                    "SELECT * FROM tidemark.retention_report('w.events', {DATES}, '\"view\"', '\"buy\"', 'year')"
                ),
                "22023",
            ),
        ] {
            let found = error_of(&statement);
            assert!(found.starts_with(error), "{statement}: {found}");
        }
        run("SELECT tidemark.create_timeline('w.second', 'w.events')");
        let found = error_of("SELECT * FROM tidemark.trend('w.events', '2026-01-01', '2026-01-02')");
        assert!(found.starts_with("42725 w.events has more than one timeline"), "{found}");
    }

    #[pg_test]
    fn no_events_give_an_empty_answer() {
        shop(20);
        for stored in [false, true] {
            if stored {
                refresh();
            }
            let dates = "'2027-01-01', '2027-01-05'";
            assert_eq!(text(&format!("SELECT count(*) FROM tidemark.trend('w.events', {dates})")), "0");
            assert_eq!(
                text(&format!("SELECT s FROM tidemark.session_report('w.events', {dates}) AS s")),
                "(0,0,0,,,)"
            );
            let steps = r#"["view", "unheard of"]"#;
            assert_eq!(
                text(&format!(
                    "SELECT string_agg(f::text, ' ') FROM tidemark.funnel_report('w.events', {dates}, '{steps}', '1 day') AS f"
                )),
                "(,1,view,0,0,,,,,,,,) (,2,\"unheard of\",0,,,,,,,,,)"
            );
        }
    }
}
