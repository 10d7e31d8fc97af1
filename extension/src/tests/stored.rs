//! Tests of what Postgres expects of the types hll, ddsketch and funnel_stats: comparing, grouping, indexes.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::text;
    use pgrx::prelude::*;

    const VALUES: [(&str, &str); 3] = [
        ("hll", "tidemark.hll_agg(v)"),
        ("ddsketch", "tidemark.ddsketch_agg(v)"),
        (
            "funnel_stats",
            "tidemark.funnel_stats(ARRAY[timestamptz 'epoch', 'epoch'::timestamptz + v * '1 s'::interval], 2)",
        ),
    ];

    /// Eight values of a type, two of each of four, made of rows in different orders.
    fn table(kind: &str, aggregate: &str) {
        Spi::run(&format!(
            "SET LOCAL search_path = public, tidemark; DROP TABLE IF EXISTS held;
             CREATE TABLE held AS SELECT n, (SELECT {aggregate} FROM (
                 SELECT g * 7 % 5 AS v FROM generate_series(1, 40 * (n % 4 + 1)) AS g
                  WHERE g % 5 <= n % 4 ORDER BY g * (4 - n)) AS r) AS value
               FROM generate_series(0, 7) AS n;
             ANALYZE held"
        ))
        .unwrap_or_else(|error| panic!("{kind}: {error}"));
    }

    #[pg_test]
    fn stored_values_group_join_and_compare_under_any_plan() {
        for (kind, aggregate) in VALUES {
            table(kind, aggregate);
            for settings in [
                "enable_hashagg = on; SET LOCAL enable_hashjoin = on;
                 SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = off",
                "enable_hashagg = off; SET LOCAL enable_hashjoin = off;
                 SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = off",
                "enable_hashagg = on; SET LOCAL enable_hashjoin = off;
                 SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = on",
            ] {
                Spi::run(&format!("SET LOCAL {settings}")).unwrap();
                let answers = [
                    ("SELECT count(*) FROM (SELECT value FROM held GROUP BY value) AS g", "4"),
                    ("SELECT count(DISTINCT value) FROM held", "4"),
                    ("SELECT count(*) FROM (SELECT value FROM held UNION SELECT value FROM held) AS u", "4"),
                    ("SELECT count(*)
                        FROM (SELECT value FROM held EXCEPT SELECT value FROM held WHERE n > 0) AS e", "0"),
                    ("SELECT count(*) FROM held AS a JOIN held AS b USING (value)", "16"),
                    ("SELECT count(*) FROM held AS a, held AS b WHERE a.value IS DISTINCT FROM b.value", "48"),
                    ("SELECT count(*) FROM held AS a, held AS b
                       WHERE (a.value < b.value) <> (a.value::bytea < b.value::bytea)
                         OR (a.value <= b.value) <> (a.value::bytea <= b.value::bytea)
                         OR (a.value > b.value) <> (b.value < a.value)
                         OR (a.value >= b.value) <> (b.value <= a.value)
                         OR (a.value <> b.value) = (a.value = b.value)", "0"),
                    ("SELECT bool_and(a = b) FROM (SELECT array_agg(value ORDER BY value) FROM held) AS x(a),
                        (SELECT array_agg(value ORDER BY value::bytea) FROM held) AS y(b)", "true"),
                ];
                for (query, answer) in answers {
                    assert_eq!(text(query), answer, "{kind}, {settings}: {query}");
                }
            }
        }
    }

    #[pg_test]
    fn stored_values_are_found_by_indexes_and_hash_partitions() {
        for (kind, aggregate) in VALUES {
            table(kind, aggregate);
            for method in ["btree", "hash"] {
                Spi::run(&format!(
                    "CREATE INDEX by_value ON held USING {method} (value); SET LOCAL enable_seqscan = off"
                ))
                .unwrap();
                let found = "SELECT count(*) FROM held WHERE value = (SELECT value FROM held WHERE n = 2)";
                assert_eq!(text(found), "2", "{kind}, {method}");
                let plan = Spi::connect(|client| {
                    let plan = client.select(&format!("EXPLAIN {found}"), None, &[]).unwrap();
                    plan.filter_map(|row| row.get::<String>(1).unwrap()).collect::<String>()
                });
                assert!(plan.contains("by_value"), "{kind}, {method}: {plan}");
                Spi::run("DROP INDEX by_value").unwrap();
            }
            Spi::run(&format!(
                "CREATE TABLE parts (value tidemark.{kind}) PARTITION BY HASH (value);
                 CREATE TABLE part_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE part_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                 INSERT INTO parts SELECT value FROM held"
            ))
            .unwrap();
            let split = "SELECT count(*)
                           FROM (SELECT value FROM parts GROUP BY value HAVING count(DISTINCT tableoid) > 1) AS s";
            assert_eq!(text(split), "0", "{kind}: equal values are in one partition");
            Spi::run("DROP TABLE parts").unwrap();
        }
    }

    #[pg_test]
    fn operator_classes_are_complete() {
        assert_eq!(
            text(
                "SELECT concat(count(*), ' ', bool_and(opcdefault AND amvalidate(oid))) FROM pg_opclass
                  WHERE opcintype IN ('tidemark.hll'::regtype, 'tidemark.ddsketch'::regtype,
                                      'tidemark.funnel_stats'::regtype)"
            ),
            "6 t"
        );
    }

    #[pg_test]
    fn sketches_of_other_parameters_are_other_values() {
        Spi::run("SET LOCAL search_path = public, tidemark").unwrap();
        assert_eq!(text("SELECT hll_agg(1, 11) = hll_agg(1, 12) FROM (SELECT 1) AS x"), "false");
        // Register width 6, as other writers may have: the union of both has the narrower.
        assert_eq!(text("SELECT '\\x11ae48'::hll = hll_empty()"), "false");
        assert_eq!(text("SELECT hll_union('\\x11ae48'::hll, hll_agg(1)) = hll_agg(1)"), "true");
        assert_eq!(text("SELECT ddsketch_agg(1, 0.02) = ddsketch_agg(1) FROM (SELECT 1) AS x"), "false");
    }
}
