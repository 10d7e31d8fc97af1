//! Tests of retention inside Postgres.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn retention_counts_a_condition_only_with_the_first() {
        let of = |conditions: &str, rows: &str| {
            text(&format!("SELECT tidemark.retention({conditions}) FROM (VALUES {rows}) AS v(d)"))
        };
        assert_eq!(of("d = 2, d = 1, d = 3", "(1), (2)"), "{t,t,f}");
        assert_eq!(of("d = 3, d = 1, d = 2", "(1), (2)"), "{f,f,f}");
        assert_eq!(of("d = 1, NULL::boolean", "(1), (NULL)"), "{t,f}");
        assert_eq!(of("d = 1", "(1)"), "{t}");
        assert_eq!(of("VARIADIC ARRAY[d = 1, d = 2]", "(1), (2)"), "{t,t}");
        assert_eq!(text("SELECT tidemark.retention(true) WHERE false"), "{}");
        assert_eq!(
            error_of("SELECT tidemark.retention('x')"),
            "42804 condition 1 must be boolean, not unknown"
        );
    }

    /// Signed up on Wednesday 2026-01-07, came back on the given days; the weekly cohort as of a time.
    fn member(mode: &str, as_of: &str, returns: &str) -> String {
        text(&format!(
            "SELECT tidemark.cohort_member('week', '{mode}', 4, '{as_of}', t, n = 1, n > 1)
               FROM unnest(ARRAY['2026-01-07 10:00Z'::timestamptz] || '{returns}'::timestamptz[])
                   WITH ORDINALITY AS x(t, n)"
        ))
    }

    #[pg_test]
    fn cohort_member_tells_complete_from_incomplete_periods() {
        assert_eq!(
            member("", "2026-03-01Z", "{2026-01-12Z,2026-01-27Z}"),
            r#"{"(2026-01-05,\"{t,t,f,t}\")"}"#
        );
        assert_eq!(member("on", "2026-01-25Z", "{2026-01-12Z}"), r#"{"(2026-01-05,\"{t,t,NULL,NULL}\")"}"#);
        assert_eq!(
            member("on_or_after", "2026-03-01Z", "{2026-01-19Z}"),
            r#"{"(2026-01-05,\"{t,t,t,f}\")"}"#
        );
        assert_eq!(
            member("rolling", "2026-03-01Z", "{2026-01-14 09:59Z,2026-01-21 10:00Z}"),
            r#"{"(2026-01-05,\"{t,f,t,f}\")"}"#
        );
        assert_eq!(member("", "infinity", "{}"), r#"{"(2026-01-05,\"{t,f,f,f}\")"}"#);
    }

    /// Events of persons around changes of clocks, to be asked by the clock of a zone and in UTC.
    #[pg_test]
    fn periods_are_of_the_clock_of_a_time_zone() {
        Spi::run("CREATE TABLE public.seen AS
             SELECT n % 40 AS person, timestamptz '2026-03-01Z' + n * n % 59999 * interval '11 minutes' AS event_time
               FROM generate_series(1, 3000) AS n")
        .unwrap();
        for zone in ["America/St_Johns", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "UTC"] {
            for (period, days) in
                [("day", 0), ("week", 0), ("week from sunday", 1), ("week from thursday", 4), ("month", 0)]
            {
                for mode in ["", "recurring,on_or_after"] {
                    let differ = text(&format!(
                        "WITH asked AS (
                             SELECT person, m.cohort, m.retained
                               FROM (SELECT person, tidemark.cohort_member('{period}', concat_ws(', ', nullif('{mode}', ''), 'time_zone={zone}'), 8,
                                                        '2026-06-02 13:00Z', event_time, true, true) AS members
                                       FROM public.seen GROUP BY person) AS p, unnest(p.members) AS m
                         ), by_hand AS (
                             SELECT person, m.cohort - {days}, m.retained
                               FROM (SELECT person, tidemark.cohort_member('{}', '{mode}', 8,
                                                        ('2026-06-02 13:00Z' AT TIME ZONE '{zone}' + {days} * interval '1 day') AT TIME ZONE 'UTC',
                                                        (event_time AT TIME ZONE '{zone}' + {days} * interval '1 day') AT TIME ZONE 'UTC', true, true) AS members
                                       FROM public.seen GROUP BY person) AS p, unnest(p.members) AS m)
                         SELECT (SELECT count(*) FROM ((TABLE asked EXCEPT ALL TABLE by_hand) UNION ALL (TABLE by_hand EXCEPT ALL TABLE asked)) AS d)
                                || ' of ' || (SELECT count(*) > 30 FROM asked)",
                        period.split(' ').next().unwrap()
                    ));
                    assert_eq!(differ, "0 of true", "{zone} {period} {mode}");
                }
            }
        }
        // An hour that comes twice: what happens after as_of is not seen, whatever the clock shows.
        let twice = |as_of: &str| {
            text(&format!(
                "SELECT tidemark.cohort_member('day', 'time_zone=Europe/Berlin', 1, '{as_of}', '2026-10-25 01:10Z', true, true)"
            ))
        };
        assert_eq!(twice("2026-10-25 00:50Z"), "{}");
        assert_eq!(twice("2026-10-25 01:20Z"), r#"{"(2026-10-25,{t})"}"#);
    }

    #[pg_test]
    fn a_person_may_be_in_several_recurring_cohorts() {
        assert_eq!(
            text(
                "SELECT tidemark.cohort_member('month', 'recurring', 2, '2026-04-01Z', t, true, true)
                   FROM unnest('{2026-01-31Z,2026-01-01Z,2026-02-01Z,2026-05-01Z}'::timestamptz[]) AS t"
            ),
            r#"{"(2026-01-01,\"{t,t}\")","(2026-02-01,\"{t,f}\")"}"#
        );
    }

    #[pg_test]
    fn cohort_member_without_a_start_is_empty() {
        assert_eq!(
            text("SELECT tidemark.cohort_member('day', '', 2, now(), now(), true, true) WHERE false"),
            "{}"
        );
        assert_eq!(text("SELECT tidemark.cohort_member('day', '', 2, now(), NULL, true, true)"), "{}");
        assert_eq!(text("SELECT tidemark.cohort_member('day', '', 2, 'infinity', now(), NULL, true)"), "{}");
    }

    #[pg_test]
    fn retention_errors_name_the_argument() {
        for (arguments, expected) in [
            (
                "'year', '', 2, now(), now(), true, true",
                "22023 unknown period \"year\", expected day, week, month, quarter, or week from a day, such as sunday",
            ),
            (
                "'day', 'often', 2, now(), now(), true, true",
                "22023 unknown mode \"often\", \
                 expected on, on_or_after, first_time, recurring, calendar, rolling, rolling=DAYS or time_zone=NAME",
            ),
            ("'day', '', 0, now(), now(), true, true", "22023 number of periods must be 1 to 1000, not 0"),
            ("NULL, '', 2, now(), now(), true, true", "22004 period must not be NULL"),
            ("'day', NULL, 2, now(), now(), true, true", "22004 mode must not be NULL"),
            ("'day', '', NULL, now(), now(), true, true", "22004 periods must not be NULL"),
            ("'day', '', 2, NULL, now(), true, true", "22004 as_of must not be NULL"),
            (
                "'day', 'time_zone=Mars/Base', 2, now(), now(), true, true",
                "22023 time zone \"Mars/Base\" not recognized",
            ),
            ("'day', '', 2, now(), '-infinity', true, true", "22008 event_time must be finite"),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.cohort_member({arguments})")), expected);
        }
        assert_eq!(
            error_of(
                "SELECT tidemark.cohort_member('day', '', n, now(), now(), true, true) FROM generate_series(1, 2) AS n"
            ),
            "22023 period, mode, periods and as_of must be the same for all rows of a group"
        );
        assert_eq!(
            error_of("SELECT tidemark.cohort_retention('{}')"),
            "22023 retained must have 1 to 1000 elements, not 0"
        );
        assert_eq!(
            error_of(
                "SELECT tidemark.cohort_retention(r) FROM (VALUES ('{t}'::boolean[]), ('{t,f}')) AS v(r)"
            ),
            "22023 the number of periods in retained must be the same for all rows of a group"
        );
    }

    #[pg_test]
    fn cohort_retention_adds_persons_up() {
        assert_eq!(
            text(
                "SELECT tidemark.cohort_retention(r)
                   FROM (VALUES ('{t,f,t,t}'::boolean[]), (NULL), ('{t,t,t,NULL}')) AS v(r)"
            ),
            "{2,1,2,NULL}"
        );
        assert_eq!(text("SELECT tidemark.cohort_retention(NULL)"), "{}");
        assert_eq!(
            text(
                "SELECT string_agg(t::text, ' ' ORDER BY period) FROM tidemark.cohort_table('{3,1,NULL}') AS t"
            ),
            "(0,3,100.0) (1,1,33.3) (2,,)"
        );
    }

    #[pg_test]
    fn the_triangle_of_the_comment_is_one_statement() {
        assert_eq!(
            text(
                "SELECT string_agg(x::text, ' ' ORDER BY cohort) FROM (
                     SELECT m.cohort, tidemark.cohort_retention(m.retained) AS retained
                       FROM (SELECT tidemark.cohort_member('week', '', 3, '2026-01-26Z', t, e = 'signup',
                                                           true) AS members
                               FROM (VALUES (1, '2026-01-05Z'::timestamptz, 'signup'), (1, '2026-01-12Z', 'view'),
                                            (2, '2026-01-06Z', 'signup'), (3, '2026-01-13Z', 'signup'),
                                            (3, '2026-01-20Z', 'view'), (4, '2026-01-20Z', 'view')) AS v(person, t, e)
                              GROUP BY person) AS p, unnest(p.members) AS m
                      GROUP BY m.cohort) AS x"
            ),
            r#"(2026-01-05,"{2,1,0}") (2026-01-12,"{1,1,NULL}")"#
        );
    }

    /// The rows of a query of sql/dashboards over a small silver.events.
    fn dashboard(query: &str) -> String {
        Spi::run(
            "CREATE SCHEMA silver;
             CREATE TABLE silver.events AS
             SELECT person AS known_person, '2026-01-01 12:00Z'::timestamptz + day * interval '1 day' AS event_time,
                    CASE WHEN person = 'robot' THEN 'bot' END AS excluded_as
               FROM (VALUES ('a', 0), ('a', 0), ('a', 1), ('a', 3), ('b', 1), ('b', 2), ('c', 3), (NULL, 2),
                            ('a', 9), ('robot', 2)) AS v(person, day)",
        )
        .unwrap();
        text(&format!(
            "SELECT string_agg(q::text, ' ') FROM ({}) AS q",
            query.trim_end().trim_end_matches(';')
        ))
    }

    #[pg_test]
    fn the_lifecycle_dashboard_sorts_persons() {
        // a: days 0 1 3 9, b: days 1 2, c: day 3.
        assert_eq!(
            dashboard(include_str!("../../../sql/dashboards/lifecycle.sql")),
            "(2026-01-01,1,0,0,0) (2026-01-02,1,1,0,0) (2026-01-03,0,1,0,-1) \
             (2026-01-04,1,0,1,-1) (2026-01-05,0,0,0,-2) (2026-01-10,0,0,1,0)"
        );
    }

    #[pg_test]
    fn the_stickiness_dashboard_counts_active_days() {
        let rows = dashboard(include_str!("../../../sql/dashboards/stickiness.sql"));
        assert!(
            rows.starts_with("(1,1,33.3,100.0) (2,1,33.3,66.7) (3,0,0.0,33.3) (4,1,33.3,33.3) (5,0,0.0,0.0)"),
            "{rows}"
        );
        assert_eq!(rows.split(' ').count(), 28);
    }

    #[pg_test]
    fn the_retention_dashboard_is_a_triangle() {
        let rows = dashboard(include_str!("../../../sql/dashboards/retention.sql"));
        assert!(rows.starts_with("(2025-12-29,3,33.3,0.0,"), "{rows}");
    }

    const ROWS: &str = "SELECT n % 97 AS person,
                               timestamptz '2026-01-01Z' + (n * 7919 % 5000) * interval '20 minutes' AS t,
                               n * 31 % 11 AS e
        FROM generate_series(1, 20000) AS n";

    #[pg_test]
    fn retention_is_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, tidemark.retention(e = 1 AND person % 2 = 0, e = 2, e = 12) AS answer FROM {t}
              GROUP BY person",
        );
    }

    #[pg_test]
    fn cohort_member_is_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, tidemark.cohort_member('week', 'recurring,rolling=3', 5, '2026-03-01Z', t, e = 1,
                                                          e = 2) AS answer
               FROM {t} GROUP BY person",
        );
    }

    #[pg_test]
    fn cohort_retention_is_the_same_under_any_plan() {
        same_under_any_plan(
            "SELECT date '2026-01-05' + n % 12 AS cohort,
                    ARRAY[true, n % 3 = 0, n % 5 = 0, CASE WHEN n % 12 < 7 THEN n % 7 = 0 END] AS retained
               FROM generate_series(1, 20000) AS n",
            "SELECT cohort AS key, tidemark.cohort_retention(retained) AS answer FROM {t} GROUP BY cohort",
        );
    }
}
