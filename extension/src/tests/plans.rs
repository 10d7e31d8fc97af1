//! Tests that no error depends on the plan: which rows meet in one state, and which meet as partial states.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    /// Two partitions of 2000 rows: v is 1 in one and 2 in the other. In a serial plan all rows come into one state, in
    /// a partition-wise one each partition has its own, and the two are combined.
    fn table() {
        Spi::run(
            "CREATE TABLE two (v integer, t timestamptz) PARTITION BY LIST (v);
             CREATE TABLE two_1 PARTITION OF two FOR VALUES IN (1);
             CREATE TABLE two_2 PARTITION OF two FOR VALUES IN (2);
             INSERT INTO two SELECT v, timestamptz '2026-01-01Z' + g * interval '1 min'
               FROM generate_series(1, 2) AS v, generate_series(1, 2000) AS g;
             ANALYZE two; SET LOCAL max_parallel_workers_per_gather = 0",
        )
        .unwrap();
    }

    /// What a query says, serially and partition-wise.
    fn both(aggregate: &str) -> (String, String) {
        let query = format!("SELECT {aggregate} FROM two");
        Spi::run("SET LOCAL enable_partitionwise_aggregate = off").unwrap();
        let serial = error_of(&query);
        Spi::run("SET LOCAL enable_partitionwise_aggregate = on").unwrap();
        let plan = Spi::connect(|client| {
            let plan = client.select(&format!("EXPLAIN {query}"), None, &[]).unwrap();
            plan.filter_map(|row| row.get::<String>(1).unwrap()).collect::<Vec<_>>().join("\n")
        });
        assert!(plan.contains("Partial"), "{aggregate}: no partial states in\n{plan}");
        (serial, error_of(&query))
    }

    #[pg_test]
    fn arguments_that_change_are_the_same_error_under_any_plan() {
        table();
        let chosen = |one: &str, two: &str| format!("CASE v WHEN 1 THEN {one} ELSE {two} END");
        let days = chosen("interval '1 day'", "interval '2 days'");
        let arrays = chosen("ARRAY[true]", "ARRAY[true, false]");
        let mode = chosen("'strict_order'", "'strict_increase'");
        for (aggregate, argument) in [
            (format!("tidemark.sessions(t, {days})"), "gap"),
            (format!("tidemark.session_count(t, {days})"), "gap"),
            (format!("tidemark.funnel({days}, t, true)"), "win"),
            (format!("tidemark.funnel('1 day', {mode}, t, true)"), "mode"),
            (format!("tidemark.funnel('1 day', t, VARIADIC {arrays})"), "the number of steps"),
            (
                format!("tidemark.funnel('1 day', t, 'a', {})", chosen("ARRAY['a', 'b']", "ARRAY['b', 'a']")),
                "steps",
            ),
            (
                format!("tidemark.funnel('1 day', t, 'a', {})", chosen("ARRAY['a']", "ARRAY['a', 'b']")),
                "steps",
            ),
            (format!("tidemark.window_funnel({days}, t, true)"), "win"),
            (format!("tidemark.window_funnel('1 day', {mode}, t, true)"), "mode"),
            (format!("tidemark.window_funnel('1 day', t, VARIADIC {arrays})"), "the number of steps"),
            (format!("tidemark.sequence_match({}, t, true)", chosen("'(?1)'", "'(?1)(?1)'")), "pattern"),
            (format!("tidemark.sequence_count('(?1)', t, VARIADIC {arrays})"), "the number of conditions"),
            (
                format!(
                    "tidemark.sequence_next_node({}, 'first_match', t, 'x', true, true)",
                    chosen("'forward'", "'backward'")
                ),
                "direction and base",
            ),
            (format!("tidemark.retention(VARIADIC {arrays})"), "the number of conditions"),
            (
                "tidemark.cohort_member('day', '', v, '2027-01-01', t, true, true)".to_owned(),
                "period, mode, periods and as_of",
            ),
            (format!("tidemark.cohort_retention({arrays})"), "the number of periods in retained"),
            ("tidemark.hll_agg(v, 10 + v)".to_owned(), "log2m"),
            ("tidemark.ddsketch_agg(v, 0.01 * v)".to_owned(), "relative_error"),
            ("tidemark.approx_percentile(0.1 * v, v)".to_owned(), "q"),
            ("tidemark.funnel_stats(ARRAY[t], v)".to_owned(), "steps"),
        ] {
            let (serial, partial) = both(&aggregate);
            assert_eq!(
                serial,
                format!("22023 {argument} must be the same for all rows of a group"),
                "{aggregate}"
            );
            assert_eq!(partial, serial, "{aggregate}");
        }
    }

    #[pg_test]
    fn what_is_not_valid_is_the_same_error_under_any_plan_also_when_it_comes_later() {
        table();
        let chosen = |one: &str, two: &str| format!("CASE v WHEN 1 THEN {one} ELSE {two} END");
        let gap = chosen("interval '1 day'", "interval '1 month'");
        for (aggregate, state) in [
            (format!("tidemark.sessions(t, {gap})"), "22023"),
            (format!("tidemark.funnel({gap}, t, true)"), "22023"),
            (format!("tidemark.funnel('1 day', {}, t, true)", chosen("''", "'nonsense'")), "22023"),
            (format!("tidemark.funnel('1 day', {}, t, true)", chosen("''", "NULL")), "22004"),
            (
                format!("tidemark.window_funnel('1 day', t, VARIADIC {})", chosen("ARRAY[true]", "'{}'")),
                "22023",
            ),
            (format!("tidemark.sequence_match({}, t, true)", chosen("'(?1)'", "'(?'")), "22023"),
            (
                format!("tidemark.cohort_member({}, '', 3, now(), t, true, true)", chosen("'day'", "'eon'")),
                "22023",
            ),
            (format!("tidemark.hll_agg(v, {})", chosen("12", "99")), "22023"),
            (format!("tidemark.hll_agg(v, {})", chosen("12", "NULL")), "22004"),
            (format!("tidemark.funnel_stats(ARRAY[t], {})", chosen("2", "33")), "22023"),
        ] {
            let (serial, partial) = both(&aggregate);
            assert!(
                serial.starts_with(state) && !serial.contains("must be the same"),
                "{aggregate}: {serial}"
            );
            assert_eq!(partial, serial, "{aggregate}");
        }
    }

    #[pg_test]
    fn what_means_the_same_may_be_written_differently() {
        table();
        let day = "CASE v WHEN 1 THEN interval '1 day' ELSE interval '24 hours' END";
        for aggregate in [
            format!("tidemark.sessions(t, {day})"),
            format!("tidemark.funnel({day}, t, true)"),
            format!("tidemark.window_funnel({day}, t, true)"),
            "tidemark.cohort_member('day', CASE v WHEN 1 THEN '' ELSE 'on' END, 3, '2027-01-01',
                                    t, true, true)"
                .to_owned(),
        ] {
            assert_eq!(both(&aggregate), ("no error".to_owned(), "no error".to_owned()), "{aggregate}");
        }
        assert_eq!(
            text(&format!(
                "SELECT count(DISTINCT s)
                   FROM (SELECT tidemark.sessionize(t, {day}) OVER (ORDER BY t) AS s FROM two) AS w"
            )),
            "1"
        );
    }

    #[pg_test]
    fn a_literal_null_and_a_domain_are_conditions() {
        table();
        Spi::run("CREATE DOMAIN flag AS boolean; CREATE DOMAIN flags AS flag[]").unwrap();
        for (aggregate, answer) in [
            ("tidemark.retention(true, NULL, true::flag)", "{t,f,t}"),
            ("tidemark.retention(VARIADIC ARRAY[true, false]::flag[])", "{t,f}"),
            ("tidemark.retention(VARIADIC ARRAY[true, NULL]::flags)", "{t,f}"),
            ("cardinality(tidemark.funnel('1 day', t, true::flag, NULL))", "1"),
            ("tidemark.window_funnel('1 day', t, true, NULL, true)", "1"),
            ("tidemark.sequence_match('(?1)(?2)', t, true, NULL)", "false"),
            ("tidemark.sequence_next_node('forward', 'head', t, 'x', true, true::flag)", "x"),
        ] {
            for partitionwise in ["off", "on"] {
                Spi::run(&format!("SET LOCAL enable_partitionwise_aggregate = {partitionwise}")).unwrap();
                assert_eq!(text(&format!("SELECT {aggregate} FROM two")), answer, "{aggregate}");
            }
        }
        let (serial, partial) = both("tidemark.retention(true, 'true')");
        assert_eq!(serial, "42804 condition 2 must be boolean, not unknown");
        assert_eq!(partial, serial);
    }

    #[pg_test]
    fn a_result_type_that_was_altered_is_an_error_and_no_crash() {
        let expected = |kind: &str| {
            format!("42804 type tidemark.{kind} does not have the attributes that tidemark expects")
        };
        for change in [
            "ADD ATTRIBUTE a text, ADD ATTRIBUTE b text, ADD ATTRIBUTE c text",
            "DROP ATTRIBUTE events",
            "ALTER ATTRIBUTE events TYPE text",
        ] {
            let alter = format!("ALTER TYPE tidemark.session {change} CASCADE");
            let query = "SELECT tidemark.sessions(now())";
            assert_eq!(
                error_of(&format!("DO $$ BEGIN {alter}; PERFORM tidemark.sessions(now()); END $$")),
                expected("session"),
                "{alter}"
            );
            assert_eq!(error_of(query), "no error", "undone");
        }
        assert_eq!(
            error_of(
                "DO $$ BEGIN ALTER TYPE tidemark.cohort_member ADD ATTRIBUTE a text;
                 PERFORM tidemark.cohort_member('day', '', 3, now(), now() - interval '5 days', true, true); END $$"
            ),
            expected("cohort_member")
        );
    }
}
