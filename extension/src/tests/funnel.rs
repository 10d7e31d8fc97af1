//! Tests of `chains` inside Postgres.
#![allow(clippy::unwrap_used)]

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    const ROWS: &str = "(VALUES (1, 'A'), (2, 'x'), (3, 'B'), (4, 'B'), (5, 'C')) r(t, e)";

    /// The seconds of the chain that a call gives over some rows with columns `t` and `e`.
    fn chain(arguments: &str, rows: &str) -> String {
        let query = format!(
            "SELECT (SELECT coalesce(string_agg(coalesce(extract(epoch FROM c)::int::text, '-'), ',' ORDER BY n), '')
                     FROM unnest(tidemark.funnel({arguments})) WITH ORDINALITY u(c, n)) FROM {rows}"
        );
        // The aggregate stands in a subquery of its own: inside unnest it would belong to the outer query.
        let query = query.replace(&format!("unnest(tidemark.funnel({arguments}))"), "unnest(f)");
        let query = query.replace(
            &format!("FROM {rows}"),
            &format!("FROM (SELECT tidemark.funnel({arguments}) f FROM {rows}) s"),
        );
        text(&query).unwrap()
    }

    #[pg_test]
    fn funnel_every_form_of_the_call_resolves_and_agrees() {
        for arguments in [
            "'1 day', to_timestamp(t), e = 'A', e = 'B', e = 'C'",
            "'1 day', '', to_timestamp(t), e = 'A', e = 'B', e = 'C'",
            "'1 day', to_timestamp(t), VARIADIC ARRAY[e = 'A', e = 'B', e = 'C']",
            "'1 day', 'default', to_timestamp(t), VARIADIC ARRAY[e = 'A', e = 'B', e = 'C']",
            "'1 day', to_timestamp(t), e, ARRAY['A', 'B', 'C']",
            "'1 day', to_timestamp(t), e, '{A,B,C}'",
            "'1 day', 'strict_increase', to_timestamp(t), e, ARRAY['A', 'B', 'C']",
            "'1 day', 'strict_increase', to_timestamp(t), e, '{A,B,C}'",
            "interval '1 day', text 'strict_once', to_timestamp(t), e, '{A,B,C}'::text[]",
            "'1 day', to_timestamp(t), e::varchar, ARRAY['A', 'B', 'C']::varchar[]",
            "'1 day', to_timestamp(t), e::varchar, '{A,B,C}'",
            "'1 day', to_timestamp(t), e::name::text, '{A,B,C}'",
        ] {
            assert_eq!(chain(arguments, ROWS), "1,3,5", "{arguments}");
        }
        assert_eq!(
            text("SELECT pg_typeof(tidemark.funnel('1 day', now(), 'a'::text, '{a}'))").as_deref(),
            Some("timestamp with time zone[]")
        );
    }

    #[pg_test]
    fn funnel_modes_do_what_they_say_in_both_forms() {
        for (mode, expected) in [
            ("strict_order", "1"),
            ("strict_deduplication", "1,3"),
            ("step_window=1s", "1"),
            ("step_window=2s", "1,3,5"),
            ("any_order", "1,3,5"),
            ("optional=2", "1,3,5"),
        ] {
            assert_eq!(
                chain(&format!("'1 day', '{mode}', to_timestamp(t), e, '{{A,B,C}}'"), ROWS),
                expected,
                "{mode}"
            );
            let conditions = format!("'1 day', '{mode}', to_timestamp(t), e = 'A', e = 'B', e = 'C'");
            assert_eq!(chain(&conditions, ROWS), expected, "{mode}");
        }
        assert_eq!(chain("'1 day', 'exclude=4', to_timestamp(t), e, '{A,B,C,x}'", ROWS), "1");
    }

    #[pg_test]
    fn funnel_a_step_left_out_is_a_null_element() {
        assert_eq!(chain("'1 day', 'optional=2', to_timestamp(t), e, '{A,q,C}'", ROWS), "1,-,5");
        let two = "(VALUES (0, 'A'), (9, 'C')) r(t, e)";
        assert_eq!(
            text(&format!(
                "SELECT tidemark.funnel('1 day', 'optional=2', to_timestamp(t), e, '{{A,B,C}}') FROM {two}"
            ))
            .as_deref(),
            Some("{\"1970-01-01 00:00:00+00\",NULL,\"1970-01-01 00:00:09+00\"}")
        );
    }

    #[pg_test]
    fn funnel_nulls_and_no_rows_are_harmless() {
        let call = "'1 day', to_timestamp(t), e, '{A,B}'";
        let rows = "(VALUES (1, 'A'), (2, NULL), (NULL, 'B'), (4, 'B')) r(t, e)";
        assert_eq!(chain(call, rows), "1,4");
        assert_eq!(chain("'1 day', 'strict_order', to_timestamp(t), e, '{A,B}'", rows), "1");
        assert_eq!(
            text(&format!("SELECT tidemark.funnel({call}) FROM {rows} WHERE false")).as_deref(),
            Some("{}")
        );
        assert_eq!(
            text(&format!("SELECT tidemark.funnel({call}) FROM {rows} WHERE t IS NULL")).as_deref(),
            Some("{}")
        );
        let conditions = "'1 day', to_timestamp(t), e = 'A', NULL::boolean";
        assert_eq!(chain(conditions, rows), "1");
    }

    #[pg_test]
    fn funnel_names_are_compared_by_bytes_and_may_repeat() {
        let rows = "(VALUES (1, 'a'), (2, 'A'), (3, 'a'), (4, 'aa'), (5, ''), (6, repeat('é', 40)),
                            (7, repeat('z', 4000))) r(t, e)";
        assert_eq!(chain("'1 day', to_timestamp(t), e, '{a,a}'", rows), "1,3");
        assert_eq!(chain("'1 day', to_timestamp(t), e, '{a,a,a}'", rows), "1,3");
        assert_eq!(
            chain("'1 day', to_timestamp(t), e, ARRAY['A','aa','',repeat('é', 40),repeat('z', 4000)]", rows),
            "2,4,5,6,7"
        );
        // Long enough to be stored compressed.
        Spi::run(&format!("CREATE TEMP TABLE long AS SELECT * FROM {rows}")).unwrap();
        assert_eq!(chain("'1 day', to_timestamp(t), e, ARRAY['a',repeat('z', 4000)]", "long"), "3,7");
    }

    #[pg_test]
    fn funnel_arguments_that_make_no_sense_are_refused_by_name() {
        let error =
            |call: &str| error_of(&format!("SELECT tidemark.funnel({call}) FROM generate_series(1, 2) t"));
        assert_eq!(error("NULL, now(), 'a'::text, '{a}'"), "22004 win must not be NULL");
        assert_eq!(error("'1 day', NULL, now(), 'a'::text, '{a}'"), "22004 mode must not be NULL");
        assert_eq!(error("'1 day', now(), 'a'::text, NULL::text[]"), "22004 steps must not be NULL");
        assert_eq!(
            error("'1 day', now(), 'a'::text, '{a,NULL}'"),
            "22004 steps must not contain NULL (step 2)"
        );
        assert_eq!(error("'1 day', now(), 'a'::text, '{}'"), "22023 steps must be 1 to 32 booleans, not 0");
        assert_eq!(
            error("'1 day', now(), 'a'::text, '{{a,b},{c,d}}'"),
            "22023 steps must be a one-dimensional array"
        );
        assert_eq!(
            error("'1 day', now(), 'a'::text, array_fill('a'::text, ARRAY[33])"),
            "22023 steps must be 1 to 32 booleans, not 33"
        );
        assert_eq!(
            error("'1 day', now(), 'a'::text, ARRAY['a', 'b' || t]"),
            "22023 steps must be the same for all rows of a group"
        );
        assert_eq!(
            error("make_interval(days => t), now(), true"),
            "22023 win must be the same for all rows of a group"
        );
        assert_eq!(
            error("'2 years', now(), true"),
            "22023 win must not contain months or years, whose length is not fixed"
        );
        assert_eq!(error("'1 day', 'sorted', now(), true"), "22023 mode: unknown funnel mode \"sorted\"");
        assert_eq!(
            error("'1 day', 'exclude=2', now(), true"),
            "22023 mode: funnel mode \"exclude=2\" names a condition, but there are only 1"
        );
        assert_eq!(error("'1 day', '-infinity'::timestamptz, true"), "22008 event_time must be finite");
        assert_eq!(error("'1 day', now(), 'a'::text"), "42804 step 1 must be boolean, not text");
    }

    #[pg_test]
    fn funnel_each_group_may_have_its_own_steps() {
        let query = "SELECT string_agg(l::text, ',' ORDER BY g) FROM (
             SELECT g,
                    cardinality(tidemark.funnel('1 day', to_timestamp(t), e,
                                                ARRAY['A', 'B', CASE g % 2 WHEN 1 THEN 'C' ELSE 'D' END])) l
             FROM (VALUES (1, 'A'), (2, 'x'), (3, 'B'), (4, 'C')) r(t, e), generate_series(1, 6) g GROUP BY g) s";
        assert_eq!(text(query).as_deref(), Some("3,2,3,2,3,2"));
    }

    #[pg_test]
    fn funnel_a_row_that_deviates_is_noticed_in_every_group() {
        // The deviating row is no step of its group, comes late, and matches the steps of the call's first group.
        for (first, second, deviating) in [("A", "B", "A"), ("A", "A", "B"), ("B", "A", "B")] {
            let query = format!(
                "SELECT count(f) FROM (SELECT tidemark.funnel('1 day', to_timestamp(t), e, ARRAY[s]) f
                   FROM (VALUES (1, 1, '{first}', 'A'), (2, 2, '{second}', 'A'),
                                (2, 3, '{deviating}', 'x')) r(g, t, s, e)
                  GROUP BY g) q"
            );
            assert_eq!(error_of(&query), "22023 steps must be the same for all rows of a group", "{query}");
        }
    }

    #[pg_test]
    fn funnel_parameters_count_anew_in_every_execution() {
        let rows = "(VALUES (1, 'A'), (2, 'x'), (3, 'B'), (90, 'C')) r(t, e)";
        Spi::run("SET LOCAL plan_cache_mode = force_generic_plan").unwrap();
        Spi::run(&format!(
            "CREATE FUNCTION pg_temp.ask(win interval, steps text[]) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN RETURN (SELECT cardinality(tidemark.funnel(win, to_timestamp(t), e, steps)) FROM {rows}); END $$"
        ))
        .unwrap();
        for (win, steps, level) in
            [("1 day", "{A,B,C}", "3"), ("5 seconds", "{A,B,C}", "2"), ("1 day", "{B,x}", "1")]
        {
            let query = format!("SELECT pg_temp.ask('{win}', '{steps}')");
            assert_eq!(text(&query).as_deref(), Some(level), "{win} {steps}");
        }
        // Of an outer row: the same call site, another configuration in each scan.
        let query = format!(
            "SELECT string_agg((SELECT cardinality(tidemark.funnel(make_interval(secs => w), to_timestamp(t), e,
                                                                   ARRAY['A', s, 'C']))::text
                                  FROM {rows} WHERE t > w * 0), ',' ORDER BY w, s)
               FROM (VALUES (1, 'B'), (5, 'B'), (100, 'B'), (100, 'y')) o(w, s)"
        );
        assert_eq!(text(&query).as_deref(), Some("1,2,3,1"));
    }

    #[pg_test]
    fn funnel_the_answer_is_the_same_under_any_plan() {
        let rows =
            "SELECT g AS k, to_timestamp((g * 31 + i * 17) % 97) AS t, 'e' || (g * 7 + i * 13) % 11 AS e
                    FROM generate_series(1, 400) g, generate_series(1, 60) i";
        for call in [
            "t, e, '{e1,e2,e3,e1}'",
            "'strict_order,allow_reentry', t, e, '{e1,e2,e3}'",
            "'any_order', t, e, '{e1,e2,e3}'",
            "'optional=2,exclude=4', t, e = 'e1', e = 'e2', e IN ('e3', 'e4'), e = 'e5'",
        ] {
            let answers = same_under_any_plan(rows, &format!("tidemark.funnel('20 seconds', {call})"));
            assert_eq!(answers.lines().count(), 400);
            assert!(call.contains("strict") || answers.contains(','), "no chain of two steps: {call}");
        }
        // Every group its own configuration, so that it travels with each state.
        same_under_any_plan(
            rows,
            "tidemark.funnel(make_interval(secs => k % 5), t, e, ARRAY['e1', 'e' || k % 4])",
        );
    }
}
