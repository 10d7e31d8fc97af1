//! Tests of `funnels` inside Postgres.
#![allow(clippy::unwrap_used)]

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    const ROWS: &str = "(VALUES (1, 'A'), (2, 'x'), (3, 'B'), (4, 'C')) r(t, e)";

    fn level(arguments: &str, rows: &str) -> Option<String> {
        text(&format!("SELECT tidemark.window_funnel({arguments}) FROM {rows}"))
    }

    #[pg_test]
    fn window_funnel_levels_follow_clickhouse_in_every_form_of_the_call() {
        let time = "to_timestamp(t), e = 'A', e = 'B', e = 'C'";
        assert_eq!(level(&format!("'1 day', {time}"), ROWS).as_deref(), Some("3"));
        assert_eq!(level(&format!("'1 day', 'strict_order', {time}"), ROWS).as_deref(), Some("1"));
        assert_eq!(level(&format!("'2 seconds', {time}"), ROWS).as_deref(), Some("2"));
        let array = "'1 day', to_timestamp(t), VARIADIC ARRAY[e = 'A', e = 'B', e = 'C']";
        assert_eq!(level(array, ROWS).as_deref(), Some("3"));
        assert_eq!(level("'1 day', to_timestamp(t), true, true", "(VALUES (1)) r(t)").as_deref(), Some("2"));
    }

    #[pg_test]
    fn window_funnel_nulls_and_no_rows_are_harmless() {
        let rows = "(VALUES (1, true, NULL), (2, NULL, true), (NULL, true, true)) r(t, a, b)";
        let call = "'1 day', to_timestamp(t), a::boolean, b::boolean";
        assert_eq!(level(call, rows).as_deref(), Some("2"));
        assert_eq!(level(call, &format!("{rows} WHERE false")).as_deref(), Some("0"));
        assert_eq!(level(call, &format!("{rows} WHERE t IS NULL")).as_deref(), Some("0"));
        assert_eq!(
            text("SELECT pg_typeof(tidemark.window_funnel('1 day', now(), true))").as_deref(),
            Some("integer")
        );
    }

    #[pg_test]
    fn window_funnel_arguments_that_make_no_sense_are_refused_by_name() {
        let error = |call: &str| {
            error_of(&format!("SELECT tidemark.window_funnel({call}) FROM generate_series(1, 2) t"))
        };
        assert_eq!(error("NULL, now(), true"), "22004 win must not be NULL");
        assert_eq!(error("'1 day', NULL, now(), true"), "22004 mode must not be NULL");
        assert_eq!(
            error("'1 month', now(), true"),
            "22023 win must not contain months or years, whose length is not fixed"
        );
        assert_eq!(error("'-1 day', now(), true"), "22023 win must not be negative or out of range");
        assert_eq!(
            error("'1 day', 'strict', now(), true"),
            "22023 mode: funnel mode \"strict\" is ambiguous, use \"strict_deduplication\""
        );
        assert_eq!(
            error("'1 day', 'any_order', now(), true"),
            "22023 mode: funnel mode \"any_order\" is not supported by window_funnel, use funnel"
        );
        assert_eq!(error("'1 day', 'infinity'::timestamptz, true"), "22008 event_time must be finite");
        assert_eq!(error("'1 day', now(), 1"), "42804 step 1 must be boolean, not integer");
        assert_eq!(
            error("'1 day', now(), VARIADIC array_fill(true, ARRAY[33])"),
            "22023 steps must be 1 to 32 booleans, not 33"
        );
        assert_eq!(
            error("make_interval(days => t), now(), true"),
            "22023 win must be the same for all rows of a group"
        );
        assert_eq!(
            error("'1 day', CASE t WHEN 1 THEN 'strict_once' ELSE '' END, now(), true"),
            "22023 mode must be the same for all rows of a group"
        );
        assert_eq!(
            error("'1 day', now(), VARIADIC array_fill(true, ARRAY[t])"),
            "22023 the number of steps must be the same for all rows of a group"
        );
        // SQL cannot even name a state. Newer servers do not find the function then, older ones refuse the NULL.
        let direct = error_of("SELECT tidemark_internal.window_funnel_combine(NULL, NULL)");
        assert!(direct.starts_with("42883 ") || direct.starts_with("0A000 "), "{direct}");
    }

    #[pg_test]
    fn window_funnel_each_group_may_have_its_own_configuration() {
        let query = "SELECT string_agg(l::text, ',' ORDER BY g) FROM (
             SELECT g, tidemark.window_funnel(make_interval(secs => g % 3 + 1), VARIADIC_MODE to_timestamp(t),
                                              e = 'A', e = 'B', e = 'C') l
             FROM (VALUES (1, 'A'), (2, 'x'), (3, 'B'), (4, 'C')) r(t, e), generate_series(1, 6) g GROUP BY g) s";
        let plain = text(&query.replace("VARIADIC_MODE", ""));
        assert_eq!(plain.as_deref(), Some("2,3,1,2,3,1"));
        let modes = "CASE WHEN g > 3 THEN 'strict_order' ELSE '' END,";
        assert_eq!(text(&query.replace("VARIADIC_MODE", modes)).as_deref(), Some("2,3,1,1,1,1"));
        let arrays = "SELECT string_agg(l::text, ',' ORDER BY g) FROM (
             SELECT g, tidemark.window_funnel('1 day', to_timestamp(t), VARIADIC array_fill(true, ARRAY[g])) l
             FROM generate_series(1, 3) t, generate_series(1, 3) g GROUP BY g) s";
        assert_eq!(text(arrays).as_deref(), Some("1,2,3"));
    }

    #[pg_test]
    fn window_funnel_the_answer_is_the_same_under_any_plan() {
        let rows = "SELECT g AS k, to_timestamp((g * 31 + i * 17) % 97) AS t, (g * 7 + i * 13) % 11 AS e
                    FROM generate_series(1, 400) g, generate_series(1, 60) i";
        for mode in ["", "strict_order", "strict_deduplication", "strict_increase", "strict_once"] {
            let answers = same_under_any_plan(
                rows,
                &format!(
                    "tidemark.window_funnel('20 seconds', '{mode}', t, e < 2, e IN (1, 2), e = 3, e = 4)"
                ),
            );
            assert_eq!(answers.lines().count(), 400);
        }
    }

    #[pg_test]
    fn window_funnel_a_moving_window_gives_the_answer_of_its_frame() {
        let query = "SELECT string_agg(l::text, ',' ORDER BY t) FROM (
             SELECT t, tidemark.window_funnel('1 day', to_timestamp(t), e = 'A', e = 'B', e = 'C') OVER (ORDER BY t) l
             FROM (VALUES (1, 'A'), (2, 'x'), (3, 'B'), (4, 'C')) r(t, e)) s";
        assert_eq!(text(query).as_deref(), Some("1,1,2,3"));
    }
}
