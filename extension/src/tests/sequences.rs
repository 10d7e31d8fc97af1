//! Tests of the sequence aggregates inside Postgres.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    /// A visit: event names a second apart, asked with conditions a, b, c.
    fn visit(function: &str, pattern: &str, events: &str) -> String {
        text(&format!(
            "SELECT tidemark.{function}('{pattern}', timestamptz '2026-01-01 00:00Z' + n * interval '1 second',
                                        e = 'a', e = 'b', e = 'c')
               FROM regexp_split_to_table('{events}', '') WITH ORDINALITY AS x(e, n)"
        ))
    }

    #[pg_test]
    fn sequence_match_speaks_the_pattern_language() {
        for (pattern, events, expected) in [
            ("(?1)(?2)", "ab", "true"),
            ("(?1)(?2)", "axb", "true"),
            ("(?1)(?2)", "acb", "false"),
            ("(?1).*(?2)", "acb", "true"),
            ("(?1)(?t<=2)(?2)", "acb", "true"),
            ("(?1)(?t<2)(?2)", "acb", "false"),
            ("(?1)(?!3)(?2)", "acb", "false"),
            ("(?1)(?!3)(?2)", "acab", "true"),
            ("(?1)(?3)?(?2)", "acb", "true"),
            ("^(?2)", "ab", "false"),
            ("(?1|3)$", "abc", "true"),
            ("(?1)(?t>1500ms)(?2)", "ab", "false"),
        ] {
            assert_eq!(visit("sequence_match", pattern, events), expected, "{pattern} on {events}");
        }
    }

    #[pg_test]
    fn sequence_count_counts_matches_without_overlap() {
        assert_eq!(visit("sequence_count", "(?1)(?2)", "ababab"), "3");
        assert_eq!(visit("sequence_count", "(?1).*(?1)", "aaaaa"), "2");
        assert_eq!(visit("sequence_count", "(?1)(?3)", "ababab"), "0");
        assert_eq!(visit("sequence_count", "", "abxx"), "2", "the empty pattern counts visible rows");
    }

    #[pg_test]
    fn a_sequence_without_rows_is_false_or_zero() {
        let none = "FROM (SELECT now() AS t WHERE false) AS x";
        assert_eq!(text(&format!("SELECT tidemark.sequence_match('(?1)', t, true) {none}")), "false");
        assert_eq!(text(&format!("SELECT tidemark.sequence_count('(?1)', t, true) {none}")), "0");
        assert_eq!(text("SELECT tidemark.sequence_match('(?1)', NULL, true)"), "false");
        assert_eq!(text("SELECT tidemark.sequence_match('(?1)', now(), NULL::boolean)"), "false");
        assert_eq!(
            text(&format!(
                "SELECT tidemark.sequence_next_node('forward', 'head', t, 'v'::text, true, true) {none}"
            )),
            "NULL"
        );
    }

    #[pg_test]
    fn sequence_conditions_may_come_as_an_array() {
        assert_eq!(
            text("SELECT tidemark.sequence_match('(?2)', now(), VARIADIC ARRAY[false, true])"),
            "true"
        );
        assert_eq!(
            error_of(
                "SELECT tidemark.sequence_match('(?1)', now(), VARIADIC x)
                   FROM (VALUES (ARRAY[true]), (ARRAY[true, true])) AS v(x)"
            ),
            "22023 the number of conditions must be the same for all rows of a group"
        );
    }

    #[pg_test]
    fn sequence_errors_name_the_argument() {
        for (sql, expected) in [
            (
                "sequence_match('(?1)(?x)', now(), true)",
                "22023 invalid pattern \"(?1)(?x)\": expected a condition number, ! or t at character 7",
            ),
            (
                "sequence_count('(?2)', now(), true)",
                "22023 invalid pattern \"(?2)\": \
                 condition 2 does not exist, expected a number from 1 to 1 at character 3",
            ),
            ("sequence_match(NULL, now(), true)", "22004 pattern must not be NULL"),
            ("sequence_match('(?1)', 'infinity', true)", "22008 event_time must be finite"),
            ("sequence_match('(?1)', now(), 1)", "42804 condition 1 must be boolean, not integer"),
            (
                "sequence_match('', now(), VARIADIC '{}'::boolean[])",
                "22023 conditions must be 1 to 32 booleans, not 0",
            ),
            (
                "sequence_match('(?1)', now(), VARIADIC array_fill(true, ARRAY[33]))",
                "22023 conditions must be 1 to 32 booleans, not 33",
            ),
            (
                "sequence_next_node('up', 'head', now(), 'v', true, true)",
                "22023 direction: unknown direction \"up\", expected forward or backward",
            ),
            (
                "sequence_next_node('forward', 'tail', now(), 'v', true, true)",
                "22023 base \"tail\" cannot be used with direction \"forward\"",
            ),
            ("sequence_next_node('forward', NULL, now(), 'v', true, true)", "22004 base must not be NULL"),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.{sql}")), expected);
        }
        assert_eq!(
            error_of("SELECT tidemark.sequence_match(p, now(), true) FROM (VALUES ('(?1)'), ('.')) AS v(p)"),
            "22023 pattern must be the same for all rows of a group"
        );
        assert_eq!(
            error_of(
                "SELECT tidemark.sequence_next_node('forward', b, now(), 'v', true, true)
                   FROM (VALUES ('head'), ('first_match')) AS v(b)"
            ),
            "22023 direction and base must be the same for all rows of a group"
        );
    }

    #[pg_test]
    fn one_call_site_may_see_many_patterns() {
        assert_eq!(
            text(
                "SELECT string_agg(m::text, ' ' ORDER BY p) FROM (
                     SELECT p, tidemark.sequence_match(p, now(), true, false) AS m
                       FROM (VALUES ('(?1)'), ('(?2)'), ('.'), ('..')) AS v(p) GROUP BY p) AS x"
            ),
            text(
                "SELECT string_agg(m, ' ' ORDER BY p)
                   FROM (VALUES ('(?1)', 'true'), ('(?2)', 'false'), ('.', 'true'), ('..', 'false')) AS v(p, m)"
            )
        );
    }

    /// home, basket, home, basket, pay.
    fn next(direction: &str, base: &str, conditions: &str) -> String {
        text(&format!(
            "SELECT tidemark.sequence_next_node('{direction}', '{base}', t, v, b, {conditions})
               FROM (VALUES ('2026-01-05Z'::timestamptz, 'pay', true), ('2026-01-01Z', 'home', true),
                            ('2026-01-02Z', 'basket', true), (NULL, 'lost', true), ('2026-01-03Z', 'home', true),
                            ('2026-01-03 12:00Z', NULL, true), ('2026-01-04Z', 'basket', NULL)) AS x(t, v, b)"
        ))
    }

    #[pg_test]
    fn sequence_next_node_finds_the_neighbour_of_a_chain() {
        assert_eq!(next("forward", "head", "v = 'home'"), "basket");
        assert_eq!(next("forward", "head", "v = 'home', v = 'basket'"), "home");
        assert_eq!(next("forward", "last_match", "v = 'home', v = 'basket'"), "pay");
        assert_eq!(next("backward", "tail", "v = 'pay'"), "basket");
        assert_eq!(
            next("backward", "last_match", "v = 'basket'"),
            "home",
            "a NULL base condition is no base"
        );
        assert_eq!(next("forward", "head", "v = 'pay'"), "NULL");
        assert_eq!(
            next("forward", "head", "VARIADIC '{}'::boolean[]"),
            "home",
            "no condition: the base itself"
        );
    }

    const ROWS: &str = "SELECT n % 97 AS person,
                               timestamptz '2026-01-01Z' + (hashint4(n) & 65535) % 5000 * interval '1 second' AS t,
        (ARRAY['a', 'b', 'c', NULL])[1 + (hashint4(n + 1000000) & 3)] AS e FROM generate_series(1, 20000) AS n";

    #[pg_test]
    fn sequence_match_is_the_same_under_any_plan() {
        let answers = same_under_any_plan(
            ROWS,
            "SELECT person AS key,
                    tidemark.sequence_match('(?1)(?t<=2)(?2)(?!3)(?1)', t, e = 'a', e = 'b', e = 'c') AS answer
               FROM {t} GROUP BY person",
        );
        assert!(answers.contains("true") && answers.contains("false"), "{answers}");
    }

    #[pg_test]
    fn sequence_count_is_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, tidemark.sequence_count('(?1)(?t<=60)(?2)', t, e = 'a', e = 'b') AS answer
               FROM {t} GROUP BY person",
        );
    }

    #[pg_test]
    fn sequence_next_node_is_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key,
                    tidemark.sequence_next_node('forward', 'first_match', t, e || n, true, e = 'a', e = 'b') AS answer
               FROM (SELECT person, t, e, extract(second FROM t)::integer AS n FROM {t}) AS x GROUP BY person",
        );
    }
}
