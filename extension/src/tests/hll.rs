//! Tests of `hll` inside Postgres.
#![allow(clippy::unwrap_used)]

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn hll_small_counts_are_exact_and_large_ones_close() {
        for value in
            ["v", "v::bigint", "v::smallint", "v::text", "convert_to(v::text, 'UTF8')", "md5(v::text)::uuid"]
        {
            let count = |n: i32| {
                let query = format!(
                    "SELECT tidemark.approx_count_distinct({value})
                       FROM generate_series(1, {n}) v, generate_series(1, 2)"
                );
                text(&query).unwrap().parse::<f64>().unwrap()
            };
            assert_eq!(count(100), 100.0, "{value}");
            assert!((count(20_000) / 20_000.0 - 1.0).abs() < 0.04, "{value}");
        }
    }

    #[pg_test]
    fn hll_counts_dates_times_and_numbers() {
        for value in ["date '2026-01-01' + v", "timestamptz '2026-01-01Z' + v * interval '1 ms'", "v / 8.0"] {
            let count = |n: i32| {
                let query = format!(
                    "SELECT tidemark.approx_count_distinct({value})
                       FROM generate_series(1, {n}) v, generate_series(1, 2)"
                );
                text(&query).unwrap().parse::<f64>().unwrap()
            };
            assert_eq!(count(100), 100.0, "{value}");
            assert!((count(20_000) / 20_000.0 - 1.0).abs() < 0.04, "{value}");
        }
        let counted = |kind: &str, values: &str| {
            text(&format!("SELECT tidemark.approx_count_distinct(v::{kind}) FROM (VALUES {values}) r(v)"))
                .unwrap()
        };
        assert_eq!(counted("numeric", "('1'), ('1.0'), ('1.00'), ('1e0')"), "1", "equal numbers are one");
        assert_eq!(counted("numeric", "('0'), ('-0'), ('0.00')"), "1");
        assert_eq!(counted("numeric", "('100'), ('100.0'), ('10'), ('1e2')"), "2");
        assert_eq!(counted("numeric", "('NaN'), ('Infinity'), ('-Infinity'), ('NaN'), ('1e-30')"), "4");
        assert_eq!(counted("date", "('infinity'), ('-infinity'), ('2026-01-01'), ('2026-01-01')"), "3");
        assert_eq!(counted("timestamptz", "('infinity'), ('2026-01-01Z'), ('2026-01-01 01:00+01')"), "2");
        // What is hashed, as anybody can compute it.
        for (value, sent) in [
            ("date '2026-09-01'", "date_send('2026-09-01')"),
            ("timestamptz '2026-09-01Z'", "timestamptz_send('2026-09-01Z')"),
            ("12.500", "numeric_send(12.5)"),
        ] {
            assert_eq!(
                text(&format!("SELECT tidemark.hll_agg({value})")),
                text(&format!("SELECT tidemark.hll_agg({sent})")),
                "{value}"
            );
        }
    }

    #[pg_test]
    fn hll_nulls_are_skipped_and_no_rows_give_zero() {
        assert_eq!(
            text("SELECT tidemark.approx_count_distinct(v) FROM (VALUES (1), (NULL), (1)) r(v)").as_deref(),
            Some("1")
        );
        assert_eq!(
            text("SELECT tidemark.approx_count_distinct(v) FROM (VALUES (1)) r(v) WHERE false").as_deref(),
            Some("0")
        );
        let empty = text("SELECT tidemark.hll_agg(v) FROM (VALUES (1)) r(v) WHERE false");
        assert_eq!(empty, text("SELECT tidemark.hll_empty()"));
        assert_eq!(text("SELECT tidemark.hll_union_agg(NULL)"), empty);
        assert_eq!(text("SELECT tidemark.hll_cardinality(NULL)"), None);
        assert_eq!(text("SELECT tidemark.hll_union(NULL, NULL)"), None);
    }

    #[pg_test]
    fn hll_operators_and_unions_agree_with_one_sketch_of_all_values() {
        let agg =
            |from: i32, to: i32| format!("(SELECT tidemark.hll_agg(v) FROM generate_series({from}, {to}) v)");
        for (middle, end) in [(10, 60), (50, 5000), (3000, 60_000)] {
            let (a, b, all) = (agg(1, middle), agg(middle / 2, end), agg(1, end));
            let union = format!("SELECT {a} OPERATOR(tidemark.||) {b}");
            assert_eq!(text(&union), text(&format!("SELECT {all}")));
            assert_eq!(
                text(&format!("SELECT OPERATOR(tidemark.#) {all}")),
                text(&format!("SELECT tidemark.hll_cardinality({all})"))
            );
            assert_eq!(
                text(&format!("SELECT tidemark.hll_union_agg(s) FROM (VALUES ({a}), (NULL), ({b})) r(s)")),
                text(&union)
            );
        }
        let narrow = "SELECT tidemark.hll_agg(v, 10) FROM generate_series(1, 5000) v";
        let folded = format!("SELECT tidemark.hll_union(({narrow}), {})", agg(1, 5000));
        assert_eq!(text(&folded), text(narrow));
    }

    #[pg_test]
    fn hll_equal_sketches_from_other_writers_become_equal_values() {
        // Register 3 of 16 holds 2, registers are 5 bits wide: written as FULL and as SPARSE.
        let mut full = vec![0x14, 0x84, 0x7f];
        let mut bits = vec![0u8; 10];
        // Register 3 begins at bit 15 of 80; its value 2 is 00010.
        bits[2] = 0b0010_0000;
        full.extend_from_slice(&bits);
        let hex = |bytes: &[u8]| bytes.iter().fold("\\x".to_owned(), |s, b| s + &format!("{b:02x}"));
        // SPARSE: 4 bits of index 3, 5 bits of value 2, padding: 0011 0001 0000 0000.
        let sparse = "\\x13847f3100".to_owned();
        let full = hex(&full);
        let stored = |text_form: &str| text(&format!("SELECT '{text_form}'::tidemark.hll")).unwrap();
        assert_eq!(stored(&full), stored(&sparse));
        assert_eq!(stored(&full), sparse);
        assert_eq!(
            text(&format!("SELECT '{full}'::bytea::tidemark.hll")),
            text(&format!("SELECT '{sparse}'::bytea::tidemark.hll"))
        );
    }

    #[pg_test]
    fn hll_values_survive_every_way_in_and_out() {
        for n in [0, 5, 500, 50_000] {
            let one = format!("(SELECT tidemark.hll_agg(v) FROM generate_series(1, {n}) v)");
            let same = format!(
                "SELECT {one}::text = {one}::text::tidemark.hll::text AND {one}::bytea::tidemark.hll::text = {one}::text
                    AND tidemark_internal.hll_send({one}) = {one}::bytea"
            );
            assert_eq!(text(&same).as_deref(), Some("true"), "{n}");
        }
        assert_eq!(
            error_of("SELECT 'x'::tidemark.hll"),
            "22P02 invalid input syntax for type hll: expected \\x and hexadecimal digits"
        );
        assert!(error_of("SELECT '\\x21'::tidemark.hll").starts_with("22P02 invalid hll: "));
        assert!(error_of("SELECT '\\x138b7f00'::bytea::tidemark.hll").starts_with("22P03 invalid hll: "));
    }

    #[pg_test]
    fn hll_arguments_that_make_no_sense_are_refused_by_name() {
        let error = |call: &str| error_of(&format!("SELECT tidemark.{call} FROM generate_series(1, 2) t"));
        assert!(error("hll_agg(t, 3)").starts_with("22023 log2m is invalid: "));
        assert_eq!(error("hll_agg(t, NULL)"), "22004 log2m must not be NULL");
        assert_eq!(error("hll_agg(t, 10 + t)"), "22023 log2m must be the same for all rows of a group");
        assert!(error("hll_empty(18)").starts_with("22023 log2m is invalid: "));
    }

    #[pg_test]
    fn hll_the_answer_is_the_same_under_any_plan() {
        let rows = "SELECT g AS k, (g * 31 + i * 17) % (g * 2) AS v
                      FROM generate_series(1, 300) g, generate_series(1, 200) i";
        same_under_any_plan(rows, "tidemark.hll_agg(v)");
        same_under_any_plan(rows, "tidemark.hll_agg(v::text, 6)");
        let counts = same_under_any_plan(rows, "tidemark.approx_count_distinct(v::bigint)");
        assert!(counts.lines().any(|line| line.starts_with("50=100")), "{counts}");
        let stored =
            format!("SELECT k % 100 AS k, tidemark.hll_agg(v) AS s FROM ({rows}) r GROUP BY k, v % 50");
        same_under_any_plan(&stored, "tidemark.hll_union_agg(s)");
    }
}
