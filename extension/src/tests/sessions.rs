//! Tests of sessions inside Postgres.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    /// Events at minutes of an hour.
    fn at(minutes: &str) -> String {
        format!(
            "(SELECT timestamptz '2026-01-01 00:00Z' + m * interval '1 minute' AS t
                FROM unnest('{{{minutes}}}'::numeric[]) AS m) AS x"
        )
    }

    fn sessions(minutes: &str, gap: &str) -> String {
        text(&format!(
            "SELECT string_agg(to_char(s.started_at AT TIME ZONE 'UTC', 'HH24:MI') || '-'
                               || to_char(s.ended_at AT TIME ZONE 'UTC', 'HH24:MI') || '/' || s.events, ' ')
               FROM unnest((SELECT tidemark.sessions(t{gap}) FROM {})) AS s",
            at(minutes)
        ))
    }

    #[pg_test]
    fn a_gap_exactly_equal_stays_in_the_session() {
        assert_eq!(sessions("60,0,30", ""), "00:00-01:00/3");
        assert_eq!(sessions("0,30,60.1", ""), "00:00-00:30/2 01:00-01:00/1");
        assert_eq!(sessions("0,5,11", ", '5 minutes'"), "00:00-00:05/2 00:11-00:11/1");
        assert_eq!(sessions("0,1440,1440", ", '1 day'"), "00:00-00:00/3");
        assert_eq!(sessions("1,1,2", ", '0'"), "00:01-00:01/2 00:02-00:02/1");
        assert_eq!(
            text(&format!("SELECT tidemark.session_count(t, '5 minutes') FROM {}", at("0,5,11,20"))),
            "3"
        );
    }

    #[pg_test]
    fn sessions_skip_null_times_and_are_empty_without_rows() {
        assert_eq!(sessions("0,NULL,10", ""), "00:00-00:10/2");
        assert_eq!(text("SELECT tidemark.sessions(t) FROM (VALUES (NULL::timestamptz)) AS v(t)"), "{}");
        assert_eq!(text("SELECT tidemark.sessions(now()) WHERE false"), "{}");
        assert_eq!(text("SELECT tidemark.session_count(t) FROM (VALUES (NULL::timestamptz)) AS v(t)"), "0");
        assert_eq!(text("SELECT tidemark.session_count(now()) WHERE false"), "0");
        assert_eq!(text("SELECT pg_typeof(tidemark.sessions(now()))"), "tidemark.session[]");
    }

    #[pg_test]
    fn session_errors_name_the_argument() {
        let months = "22023 gap must not contain months or years, whose length is not fixed";
        let negative = "22023 gap must not be negative or out of range";
        for function in [
            "sessions(now(), {})",
            "session_count(now(), {})",
            "sessionize(now(), {}) OVER ()",
            "session_number(now(), {}) OVER ()",
        ] {
            let with = |gap: &str| error_of(&format!("SELECT tidemark.{}", function.replace("{}", gap)));
            assert_eq!(with("'1 month'"), months, "{function}");
            assert_eq!(with("'1 year -360 days'"), months, "{function}");
            assert_eq!(with("'-1 second'"), negative, "{function}");
            assert_eq!(with("NULL"), "22004 gap must not be NULL", "{function}");
        }
        let changing = "FROM (VALUES (interval '1 minute'), ('2 minutes')) AS v(g)";
        assert_eq!(
            error_of(&format!("SELECT tidemark.session_count(now(), g) {changing}")),
            "22023 gap must be the same for all rows of a group"
        );
        assert_eq!(
            error_of(&format!("SELECT tidemark.sessionize(now(), g) OVER () {changing}")),
            "22023 gap must be the same for all rows of a window partition"
        );
        for call in ["sessions('infinity')", "session_count('-infinity')", "sessionize('infinity') OVER ()"] {
            assert_eq!(error_of(&format!("SELECT tidemark.{call}")), "22008 event_time must be finite");
        }
        assert_eq!(
            error_of(&format!("SELECT tidemark.sessionize(t) OVER () FROM {}", at("5,4"))),
            "22023 event_time must not go back within a window partition"
        );
    }

    fn window(expression: &str, rows: &str) -> String {
        text(&format!(
            "SELECT string_agg(coalesce(x, '-'), ' ' ORDER BY n) FROM (
                 SELECT n, ({expression})::text AS x
                   FROM (SELECT n, cut, timestamptz '2026-01-01 00:00Z' + m * interval '1 minute' AS t
                           FROM (VALUES {rows}) AS v(n, m, cut)) AS r
                 WINDOW w AS (ORDER BY t, n)) AS y"
        ))
    }

    #[pg_test]
    fn sessionize_gives_the_start_of_the_session() {
        let rows =
            "(1, 0, false), (2, 30, false), (3, 61, true), (4, 62, NULL), (5, 70, true), (6, NULL, true)";
        let minute = |call: &str| format!("extract(epoch FROM {call} - '2026-01-01 00:00Z')::integer / 60");
        assert_eq!(window(&minute("tidemark.sessionize(t) OVER w"), rows), "0 0 61 61 61 -");
        assert_eq!(window(&minute("tidemark.sessionize(t, '31 minutes') OVER w"), rows), "0 0 0 0 0 -");
        assert_eq!(
            window(&minute("tidemark.sessionize(t, '31 minutes', cut) OVER w"), rows),
            "0 0 61 61 70 -"
        );
        assert_eq!(window("tidemark.session_number(t) OVER w", rows), "1 1 2 2 2 -");
        assert_eq!(window("tidemark.session_number(t, '5 minutes') OVER w", rows), "1 2 3 3 4 -");
    }

    #[pg_test]
    fn window_partitions_are_independent() {
        assert_eq!(
            text(
                "SELECT string_agg(person || ':' || x, ' ' ORDER BY person, t) FROM (
                     SELECT person, t, tidemark.session_number(t, '1 minute') OVER (PARTITION BY person ORDER BY t) AS x
                       FROM (VALUES (1, now()), (1, now() + '1 hour'), (2, now() - interval '1 hour'),
                                    (2, now() - interval '59 minutes')) AS v(person, t)) AS y"
            ),
            "1:1 1:2 2:1 2:1"
        );
    }

    #[pg_test]
    fn windows_and_aggregates_agree() {
        assert_eq!(
            text(
                "WITH e AS (SELECT n % 50 AS p,
                                   timestamptz '2026-01-01Z' + (n * 7919 % 10007) * interval '7 minutes' AS t
                              FROM generate_series(1, 10000) AS n),
                      s AS (SELECT p, u.started_at, u.events
                              FROM (SELECT p, tidemark.sessions(t, '1 hour') AS s FROM e GROUP BY p) AS x,
                                   unnest(x.s) AS u),
                      w AS (SELECT p, s, count(*) AS events
                              FROM (SELECT p, tidemark.sessionize(t, '1 hour') OVER (PARTITION BY p ORDER BY t) AS s
                                      FROM e) AS x GROUP BY p, s)
                 SELECT count(*) > 1000 AND NOT EXISTS (TABLE s EXCEPT TABLE w) AND NOT EXISTS (TABLE w EXCEPT TABLE s)
                   FROM s"
            ),
            "true"
        );
    }

    #[pg_test]
    fn session_id_is_the_uuid_that_any_language_computes() {
        // uuid5(uuid5(NAMESPACE_URL, 'tidemark:session'), 'user-1|1767225600000000')
        let id = "SELECT tidemark.session_id('user-1', '2026-01-01 00:00:00Z')";
        assert_eq!(text(id), "66fa66e3-8a13-5759-8543-ee1f050825e4");
        Spi::run("SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL datestyle = 'German'").unwrap();
        assert_eq!(text(id), "66fa66e3-8a13-5759-8543-ee1f050825e4", "settings do not matter");
        assert_eq!(text("SELECT tidemark.session_id(NULL, now())"), "NULL");
        assert_eq!(
            text(
                "SELECT count(DISTINCT tidemark.session_id('u' || n, timestamptz '2026-01-01Z' + n * interval '1 us'))
                   FROM generate_series(1, 1000) AS n"
            ),
            "1000"
        );
    }

    const ROWS: &str = "SELECT n % 97 AS person,
                               timestamptz '2026-01-01Z' + (n * 7919 % 5000) * interval '10 minutes' AS t
                          FROM generate_series(1, 20000) AS n";

    #[pg_test]
    fn sessions_are_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, tidemark.sessions(t, '2 hours') AS answer FROM {t} GROUP BY person",
        );
    }

    #[pg_test]
    fn session_count_is_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, tidemark.session_count(t) AS answer FROM {t} GROUP BY person",
        );
    }
}
