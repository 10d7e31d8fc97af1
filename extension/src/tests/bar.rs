//! The bar that psql reports are drawn with.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::text;
    use pgrx::prelude::*;

    #[pg_test]
    fn bar_grows_by_eighths() {
        assert_eq!(
            text(
                "SELECT string_agg(tidemark.bar(n, 24, 3), ' ' ORDER BY n) FROM generate_series(1, 24) AS n"
            ),
            "▏ ▎ ▍ ▌ ▋ ▊ ▉ █ █▏ █▎ █▍ █▌ █▋ █▊ █▉ ██ ██▏ ██▎ ██▍ ██▌ ██▋ ██▊ ██▉ ███"
        );
        // A third is no finite decimal: 24 characters of it are 8 all the same.
        for (value, maximum, width, length) in
            [(1, 3, 24, 8), (2, 3, 300, 200), (1, 7, 7, 1), (6, 7, 700, 600)]
        {
            let bar = text(&format!("SELECT tidemark.bar({value}, {maximum}, {width})"));
            assert_eq!(bar, "█".repeat(length), "{value} of {maximum} in {width}");
        }
        // Less than an eighth of a character is nothing.
        assert_eq!(text("SELECT tidemark.bar(1, 241, 30)"), "");
        assert_eq!(text("SELECT length(tidemark.bar(1, 1))"), "30");
    }

    #[pg_test]
    fn bar_is_defined_for_every_number() {
        for (arguments, expected) in [
            ("0, 5, 4", ""),
            ("-3, 5, 4", ""),
            ("-3, -5, 4", ""),
            ("5, 0, 4", ""),
            ("5, -5, 4", ""),
            ("5, 5, 0", ""),
            ("5, 5, -2", ""),
            ("6, 5, 4", "████"),
            ("'Infinity'::numeric, 5, 4", "████"),
            ("'Infinity'::float8, 'Infinity'::float8, 4", "████"),
            ("5, 'Infinity'::float8, 4", ""),
            ("'-Infinity'::float8, 5, 4", ""),
            ("'NaN'::float8, 5, 4", ""),
            ("5, 'NaN'::numeric, 4", ""),
            ("1e308::float8, 1e-308::float8, 2", "██"),
            ("1e-308::float8, 1e308::float8, 2", ""),
            ("0.5::real, 1::smallint, 2", "█"),
            ("1::bigint, 2.0::float8, 2", "█"),
            ("NULL, 5, 4", "NULL"),
            ("5, NULL::numeric, 4", "NULL"),
            ("5, 5, NULL", "NULL"),
            ("NULL::float8, 5::float8, 4", "NULL"),
        ] {
            assert_eq!(text(&format!("SELECT tidemark.bar({arguments})")), expected, "bar({arguments})");
        }
        // A slip in the width does not fill the memory.
        assert_eq!(text("SELECT length(tidemark.bar(1, 1, 2147483647))"), "1000");
        assert_eq!(text("SELECT length(tidemark.bar(1, 2, 2147483647))"), "500");
    }
}
