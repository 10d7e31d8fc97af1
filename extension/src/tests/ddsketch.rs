//! Tests of `ddsketch` inside Postgres.
#![allow(clippy::unwrap_used)]

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn ddsketch_quantiles_keep_their_relative_error() {
        for (q, exact) in [(0.0, 1.0), (0.25, 2500.0), (0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
            let values = "FROM generate_series(1, 10000) v";
            for (query, error) in [
                (format!("SELECT tidemark.approx_percentile({q}, v) {values}"), 0.0101),
                (
                    format!("SELECT tidemark.ddsketch_quantile(tidemark.ddsketch_agg(v), {q}) {values}"),
                    0.0101,
                ),
                (
                    format!(
                        "SELECT tidemark.ddsketch_quantile(tidemark.ddsketch_agg(v, 0.001), {q}) {values}"
                    ),
                    0.0012,
                ),
            ] {
                let value: f64 = text(&query).unwrap().parse().unwrap();
                assert!((value / exact - 1.0).abs() <= error, "{query}: {value}");
            }
        }
        let query = "SELECT concat_ws(' ', tidemark.ddsketch_count(s), tidemark.ddsketch_relative_error(s))
            FROM (SELECT tidemark.ddsketch_agg(v, 0.05) s FROM generate_series(1, 10000) v) a";
        assert_eq!(text(query).as_deref(), Some("10000 0.05"));
    }

    #[pg_test]
    fn ddsketch_numbers_of_every_type_are_taken() {
        for value in ["2::smallint", "2", "2::bigint", "2::numeric", "2::real", "2::float8"] {
            assert_eq!(
                text(&format!("SELECT tidemark.approx_percentile(0.5, {value})")).as_deref(),
                Some("2"),
                "{value}"
            );
            let sketch = format!("SELECT tidemark.ddsketch_quantile(tidemark.ddsketch_agg({value}), 1)");
            assert_eq!(text(&sketch).as_deref(), Some("2"), "{value}");
        }
    }

    #[pg_test]
    fn ddsketch_nulls_are_skipped_and_no_values_give_null() {
        let rows = "FROM (VALUES (1.0), (NULL), (3.0)) r(v)";
        assert_eq!(text(&format!("SELECT tidemark.approx_percentile(1, v) {rows}")).as_deref(), Some("3"));
        assert_eq!(text(&format!("SELECT tidemark.approx_percentile(1, v) {rows} WHERE false")), None);
        assert_eq!(text(&format!("SELECT tidemark.approx_percentile(1, v) {rows} WHERE v IS NULL")), None);
        let empty = format!("SELECT tidemark.ddsketch_agg(v) {rows} WHERE false");
        assert_eq!(text(&format!("SELECT tidemark.ddsketch_count(({empty}))")).as_deref(), Some("0"));
        assert_eq!(text(&format!("SELECT tidemark.ddsketch_quantile(({empty}), 0.5)")), None);
        assert_eq!(text("SELECT tidemark.ddsketch_quantile(NULL, 0.5)"), None);
        assert_eq!(
            text("SELECT tidemark.ddsketch_count(tidemark.ddsketch_union_agg(NULL))").as_deref(),
            Some("0")
        );
    }

    #[pg_test]
    fn ddsketch_arguments_that_make_no_sense_are_refused_by_name() {
        let error = |call: &str| error_of(&format!("SELECT tidemark.{call} FROM generate_series(1, 2) t"));
        assert_eq!(error("approx_percentile(1.5, t)"), "22023 q must be between 0 and 1, not 1.5");
        assert_eq!(error("approx_percentile('NaN', t)"), "22023 q must be between 0 and 1, not NaN");
        assert_eq!(error("approx_percentile(NULL, t)"), "22004 q must not be NULL");
        assert_eq!(
            error("approx_percentile(1.0 / t, t)"),
            "22023 q must be the same for all rows of a group"
        );
        assert_eq!(error("approx_percentile(0.5, 'NaN')"), "22023 value must be finite, not NaN");
        assert_eq!(error("ddsketch_agg('-Infinity')"), "22023 value must be finite, not -inf");
        assert_eq!(
            error("ddsketch_agg(t, 0.5)"),
            "22023 relative_error must be a whole number of per mille from 0.001 to 0.1, not 0.5"
        );
        assert_eq!(error("ddsketch_agg(t, NULL)"), "22004 relative_error must not be NULL");
        assert_eq!(
            error("ddsketch_agg(t, t / 100.0)"),
            "22023 relative_error must be the same for all rows of a group"
        );
        assert_eq!(
            error("ddsketch_quantile(tidemark.ddsketch_agg(t), -1)"),
            "22023 q must be between 0 and 1, not -1"
        );
    }

    #[pg_test]
    fn ddsketch_unions_are_the_sketch_of_all_values() {
        let all = "SELECT tidemark.ddsketch_agg(v) FROM generate_series(-50, 99) v";
        let parts = "SELECT tidemark.ddsketch_agg(v) s FROM generate_series(-50, 99) v GROUP BY v % 7";
        assert_eq!(text(&format!("SELECT tidemark.ddsketch_union_agg(s) FROM ({parts}) p")), text(all));
        let halves =
            "SELECT tidemark.ddsketch_union((SELECT tidemark.ddsketch_agg(v) FROM generate_series(-50, 9) v),
            (SELECT tidemark.ddsketch_agg(v) FROM generate_series(10, 99) v))";
        assert_eq!(text(halves), text(all));
        assert_eq!(text(&format!("SELECT tidemark.ddsketch_union(({all}), NULL)")), text(all));
        assert_eq!(text("SELECT tidemark.ddsketch_union(NULL, NULL)"), None);
    }

    #[pg_test]
    fn ddsketch_sketches_of_different_accuracy_merge_only_when_one_is_empty() {
        let agg = |values: &str, error: &str| {
            format!("(SELECT tidemark.ddsketch_agg(v, {error}) FROM generate_series({values}) v)")
        };
        let (full, empty) = (agg("1, 9", "0.05"), "(SELECT tidemark.ddsketch_agg(NULL))".to_owned());
        for (a, b) in [(&full, &empty), (&empty, &full)] {
            assert_eq!(
                text(&format!("SELECT tidemark.ddsketch_union({a}, {b})")),
                text(&format!("SELECT {full}"))
            );
            let rows = format!("(VALUES (1, {a}), (2, {b})) r(n, s)");
            assert_eq!(
                text(&format!("SELECT tidemark.ddsketch_union_agg(s ORDER BY n) FROM {rows}")),
                text(&format!("SELECT {full}"))
            );
        }
        let (fine, coarse) = (agg("1, 0", "0.02"), "(SELECT tidemark.ddsketch_agg(NULL, 0.03))");
        let both = [format!("{empty}, {coarse}"), format!("{coarse}, {empty}")]
            .map(|p| text(&format!("SELECT tidemark.ddsketch_union({p})")));
        assert_eq!(both[0], both[1]);
        assert_eq!(both[0], text(&format!("SELECT {coarse}")));
        assert_eq!(text(&format!("SELECT tidemark.ddsketch_count({fine})")).as_deref(), Some("0"));
        assert_eq!(
            error_of(&format!("SELECT tidemark.ddsketch_union({full}, {})", agg("1, 9", "0.01"))),
            "22023 sketches of different relative errors cannot be merged"
        );
    }

    #[pg_test]
    fn ddsketch_values_survive_every_way_in_and_out() {
        let one = "(SELECT tidemark.ddsketch_agg(v) FROM generate_series(-50, 99) v)";
        let same = format!(
            "SELECT {one}::text = {one}::text::tidemark.ddsketch::text
                AND {one}::bytea::tidemark.ddsketch::text = {one}::text
                AND tidemark_internal.ddsketch_send({one}) = {one}::bytea"
        );
        assert_eq!(text(&same).as_deref(), Some("true"));
        assert_eq!(
            error_of("SELECT '\\x1'::tidemark.ddsketch"),
            "22P02 invalid input syntax for type ddsketch: odd number of hexadecimal digits"
        );
        assert_eq!(
            error_of("SELECT '\\x0g'::tidemark.ddsketch"),
            "22P02 invalid input syntax for type ddsketch: not a hexadecimal digit"
        );
        assert_eq!(
            error_of("SELECT ''::bytea::tidemark.ddsketch"),
            "22P03 invalid ddsketch: state is truncated"
        );
    }

    #[pg_test]
    fn ddsketch_the_answer_is_the_same_under_any_plan() {
        let rows = "SELECT g AS k, ((g * 31 + i * 17) % 997 - 300) * power(10, g % 9) AS v
                    FROM generate_series(1, 300) g, generate_series(1, 80) i";
        same_under_any_plan(rows, "tidemark.ddsketch_agg(v)");
        same_under_any_plan(rows, "tidemark.ddsketch_agg(v, 0.05)");
        same_under_any_plan(rows, "tidemark.approx_percentile(0.9, v)");
        let stored = format!(
            "SELECT k % 100 AS k, tidemark.ddsketch_agg(v) AS s FROM ({rows}) r GROUP BY k, round(v)::bigint % 30"
        );
        same_under_any_plan(&stored, "tidemark.ddsketch_union_agg(s)");
    }
}
