//! Tests of `funnel_stats` inside Postgres.
#![allow(clippy::unwrap_used)]

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    const CHAINS: &str = "(VALUES ('{2026-01-01 00:00:00Z,2026-01-01 00:00:02Z,2026-01-01 00:00:05Z}'::timestamptz[]),
        ('{2026-01-01 00:00:00Z,2026-01-01 00:00:04.0005Z}'), ('{2026-01-01 00:00:00Z}'), ('{}'), (NULL)) c(chain)";

    fn table(stats: &str, names: &str) -> String {
        text(&format!(
            "SELECT string_agg(concat_ws('|', step, name, entered, coalesce(pct_of_first::text, '-'),
                                         coalesce(pct_of_previous::text, '-'),
                coalesce(median_seconds::text, '-'), coalesce(avg_seconds::text, '-')), E'\\n' ORDER BY step)
             FROM tidemark.funnel_table(({stats}){names})"
        ))
        .unwrap_or_default()
    }

    #[pg_test]
    fn funnel_stats_the_table_shows_rounded_figures_of_every_step() {
        let stats = format!("SELECT tidemark.funnel_stats(chain, 4) FROM {CHAINS}");
        assert_eq!(
            table(&stats, ""),
            "1|step 1|3|100.00|-|-|-\n2|step 2|2|66.67|66.67|3.000|3.000\n\
             3|step 3|1|33.33|50.00|3.000|3.000\n4|step 4|0|0.00|0.00|-|-"
        );
        let named = table(&stats, ", ARRAY['view', NULL, 'buy']");
        assert_eq!(
            named.lines().map(|l| l.split('|').nth(1).unwrap()).collect::<Vec<_>>(),
            ["view", "step 2", "buy", "step 4"]
        );
        assert_eq!(table("NULL::tidemark.funnel_stats", ""), "");
        let types = text(&format!(
            "SELECT concat_ws(' ', pg_typeof(step), pg_typeof(name), pg_typeof(entered), pg_typeof(pct_of_first),
                              pg_typeof(avg_seconds))
             FROM tidemark.funnel_table(({stats})) LIMIT 1"
        ));
        assert_eq!(types.as_deref(), Some("integer text bigint numeric numeric"));
    }

    #[pg_test]
    fn funnel_stats_a_step_left_out_is_not_entered() {
        let chain = "SELECT tidemark.funnel('1 day', 'optional=2', to_timestamp(t), e, '{A,B,C}') AS chain
            FROM (VALUES (0, 'A'), (9, 'C')) r(t, e)";
        let stats = format!("SELECT tidemark.funnel_stats(chain, 3) FROM ({chain}) s");
        assert_eq!(
            table(&stats, ""),
            "1|step 1|1|100.00|-|-|-\n2|step 2|0|0.00|0.00|-|-\n3|step 3|1|100.00|-|9.000|9.000"
        );
    }

    #[pg_test]
    fn funnel_stats_no_rows_give_null_and_no_chains_give_zeros() {
        assert_eq!(text(&format!("SELECT tidemark.funnel_stats(chain, 2) FROM {CHAINS} WHERE false")), None);
        let none = format!("SELECT tidemark.funnel_stats(chain, 2) FROM {CHAINS} WHERE chain IS NULL");
        assert_eq!(table(&none, ""), "1|step 1|0|-|-|-|-\n2|step 2|0|-|-|-|-");
    }

    #[pg_test]
    fn funnel_stats_stored_figures_merge_to_those_of_all_chains() {
        let merged = format!(
            "SELECT (SELECT tidemark.funnel_stats_union_agg(s)
                       FROM (SELECT tidemark.funnel_stats(chain, 3) s
                               FROM {CHAINS} GROUP BY cardinality(chain)) p)::text
                  = (SELECT tidemark.funnel_stats(chain, 3) FROM {CHAINS})::text"
        );
        assert_eq!(text(&merged).as_deref(), Some("true"));
        assert_eq!(text("SELECT tidemark.funnel_stats_union_agg(NULL)"), None);
    }

    #[pg_test]
    fn funnel_stats_values_survive_every_way_in_and_out() {
        let one = format!("(SELECT tidemark.funnel_stats(chain, 3) FROM {CHAINS})");
        let same = format!(
            "SELECT {one}::text = {one}::text::tidemark.funnel_stats::text
                AND {one}::bytea::tidemark.funnel_stats::text = {one}::text
                AND tidemark_internal.funnel_stats_send({one}) = {one}::bytea"
        );
        assert_eq!(text(&same).as_deref(), Some("true"));
        assert_eq!(
            error_of("SELECT 'x'::tidemark.funnel_stats"),
            "22P02 invalid input syntax for type funnel_stats: expected \\x and hexadecimal digits"
        );
        assert_eq!(
            error_of("SELECT '\\x01'::tidemark.funnel_stats"),
            "22P02 invalid funnel_stats: state is truncated"
        );
        assert!(
            error_of("SELECT '\\x0102'::bytea::tidemark.funnel_stats")
                .starts_with("22P03 invalid funnel_stats: ")
        );
    }

    #[pg_test]
    fn funnel_stats_arguments_that_make_no_sense_are_refused_by_name() {
        let error = |call: &str| {
            error_of(&format!("SELECT tidemark.funnel_stats({call}) FROM generate_series(1, 2) t"))
        };
        assert_eq!(error("NULL, NULL"), "22004 steps must not be NULL");
        assert_eq!(error("NULL, 33"), "22023 steps must be 1 to 32, not 33");
        assert_eq!(error("NULL, t"), "22023 steps must be the same for all rows of a group");
        assert_eq!(error("ARRAY[now(), now()], 1"), "22023 a chain has 2 times, the funnel has 1 steps");
        assert_eq!(
            error("array_fill(now(), ARRAY[40]), 32"),
            "22023 a chain has 40 times, the funnel has 32 steps"
        );
        assert_eq!(error("ARRAY[NULL, now()], 2"), "22023 a chain must have a time for its first step");
        assert_eq!(error("ARRAY['infinity'::timestamptz], 2"), "22008 chain must contain finite times only");
        assert_eq!(
            error("ARRAY[ARRAY[now()], ARRAY[now()]], 2"),
            "22023 chain must be a one-dimensional array"
        );
        let union = "SELECT tidemark.funnel_stats_union_agg(s)
                       FROM (SELECT tidemark.funnel_stats(NULL, n) s FROM (VALUES (2), (3)) v(n) GROUP BY n) p";
        assert_eq!(error_of(union), "22023 steps must be the same for all rows of a group");
        assert_eq!(
            error_of("SELECT * FROM tidemark.funnel_table((SELECT tidemark.funnel_stats(NULL, 1)), '{a,b}')"),
            "22023 names has 2 elements, the funnel has 1 steps"
        );
    }

    #[pg_test]
    fn funnel_stats_the_answer_is_the_same_under_any_plan() {
        let rows = "SELECT g AS k,
                           (ARRAY[to_timestamp(i), to_timestamp(i + i % 7), to_timestamp(i + g)])[1:i % 4] AS chain
                    FROM generate_series(1, 300) g, generate_series(1, 80) i";
        same_under_any_plan(rows, "tidemark.funnel_stats(chain, 3)");
        // Beyond the limit of exact durations.
        let many = "SELECT g AS k, ARRAY[to_timestamp(0), to_timestamp(g * i)] AS chain
                    FROM generate_series(1, 20) g, generate_series(1, 1500) i";
        same_under_any_plan(many, "tidemark.funnel_stats(chain, 2)");
        let stored =
            "SELECT g % 100 AS k, tidemark.funnel_stats(ARRAY[to_timestamp(0), to_timestamp(g * i)], 2) AS s
                      FROM generate_series(1, 3000) g, generate_series(1, 8) i GROUP BY g";
        same_under_any_plan(stored, "tidemark.funnel_stats_union_agg(s)");
    }
}
