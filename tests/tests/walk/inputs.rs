//! The rows that aggregates meet: a table for every kind, with a column for every type of argument.

use postgres::Client;
use tidemark_tests::cluster;

/// Rows by name: a number of rows, and the columns that are not as in ordinary rows.
const INPUTS: [(&str, u32, &str); 8] = [
    ("ordinary", 2000, ""),
    ("empty", 50, ""),
    ("nulls", 50, NULLS),
    (
        "ties",
        2000,
        "t = timestamptz '2026-01-01Z'; c1 = true; c2 = true; c3 = true; i4 = 1; i8 = 1;
        txt = 'a'",
    ),
    ("extreme", 60, EXTREMES),
    (
        "infinite",
        60,
        "t = (ARRAY['infinity', '-infinity', '2026-01-01Z']::timestamptz[])[i % 3 + 1];
        f8 = (ARRAY['Infinity', '-Infinity', 'NaN', 1]::float8[])[i % 4 + 1]; d = 'infinity'::date;
        num = 'NaN'::numeric; chain = ARRAY[t, 'infinity']",
    ),
    ("mixed", 50, MIXED),
    (
        "long",
        4,
        "txt = repeat(chr(97 + i % 3), 2000000); byt = convert_to(repeat(chr(97 + i), 2000000), 'UTF8');
        retained = array_fill(true, '{100000}'); chain = array_fill(t, '{100000}')",
    ),
];
const NULLS: &str =
    "t = NULL; c1 = NULL; c2 = NULL; c3 = NULL; txt = NULL; byt = NULL; i2 = NULL; i4 = NULL; i8 = NULL;
    f8 = NULL; num = NULL; u = NULL; d = NULL; h = NULL; s = NULL; fs = NULL; chain = NULL; retained = NULL";
const EXTREMES: &str = "t = (ARRAY['4714-11-24 00:00:00+00 BC', '294276-12-31 23:59:59.999999Z', '2000-01-01Z',
        '1999-12-31 23:59:59.999999Z']::timestamptz[])[i % 4 + 1];
    d = (ARRAY['4714-11-24 BC', '5874897-12-31']::date[])[i % 2 + 1];
    i2 = (ARRAY[-32768, 32767, 0, -1])[i % 4 + 1]; i4 = (ARRAY[-2147483648, 2147483647, 0, -1])[i % 4 + 1];
    i8 = (ARRAY[-9223372036854775808, 9223372036854775807, 0, -1])[i % 4 + 1];
    txt = (ARRAY['', ' ', 'é', E'\\x01'])[i % 4 + 1];
    f8 = (ARRAY[1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -5e-324, 0, '-0']::float8[])[i % 6 + 1];
    byt = ''; num = (ARRAY[1e1000, -1e-1000, 0])[i % 3 + 1]; chain = '{}'; retained = ARRAY[NULL]::boolean[]";

/// Values of stored types that do not go together, arrays of other lengths.
const MIXED: &str = "h = (SELECT tidemark.hll_agg(n, 10 + i % 2 + n * 0) FROM generate_series(1, 9) AS n);
    s = (SELECT tidemark.ddsketch_agg(n, 0.01 * (1 + i % 2 + n * 0)) FROM generate_series(1, 9) AS n);
    fs = (SELECT tidemark.funnel_stats(ARRAY['2026-01-01Z'::timestamptz], n + i % 2)
            FROM (VALUES (3)) AS v(n));
    retained = array_fill(i % 2 = 0, ARRAY[i % 70]); chain = array_fill(NULL::timestamptz, ARRAY[i % 5, 1]);
    txt = repeat(chr(97 + i % 3), i % 70); byt = decode(repeat('00', i), 'hex')";

/// Makes a table for every input (`in_NAME`), and one in partitions with the same rows (`parts_NAME`); returns the
/// names.
pub fn make(client: &mut Client) -> Vec<&'static str> {
    const ORDINARY: [(&str, &str, &str); 18] = [
        ("t", "timestamptz", "timestamptz '2026-01-01Z' + i / 3 * interval '7 minutes'"),
        ("c1", "boolean", "i % 5 = 0"),
        ("c2", "boolean", "i % 3 = 1"),
        ("c3", "boolean", "NULLIF(i % 7 = 2, i % 11 = 0)"),
        ("txt", "text", "chr(97 + i % 3) || NULLIF(i % 2, 0)"),
        ("byt", "bytea", "convert_to((i % 50)::text, 'UTF8')"),
        ("i2", "smallint", "i % 50"),
        ("i4", "integer", "i % 50"),
        ("i8", "bigint", "i % 50"),
        ("f8", "double precision", "i % 50 - 20.5"),
        ("num", "numeric", "i % 50 - 20.5"),
        ("u", "uuid", "md5((i % 50)::text)::uuid"),
        ("d", "date", "date '2026-01-01' + i % 50"),
        ("h", "tidemark.hll", "(SELECT tidemark.hll_agg(n) FROM generate_series(1, i % 9) AS n)"),
        ("s", "tidemark.ddsketch", "(SELECT tidemark.ddsketch_agg(n) FROM generate_series(1, i % 9) AS n)"),
        (
            "fs",
            "tidemark.funnel_stats",
            "(SELECT tidemark.funnel_stats(ARRAY['2026-01-01Z'::timestamptz], 3))",
        ),
        ("chain", "timestamptz[]", "(ARRAY['2026-01-01Z', '2026-01-02Z', NULL]::timestamptz[])[:i % 4]"),
        ("retained", "boolean[]", "ARRAY[true, i % 2 = 0, NULL]"),
    ];
    for (name, count, other) in INPUTS {
        let given = |column: &str| {
            other
                .split(';')
                .map(str::trim)
                .find_map(|part| part.split_once(" = ").filter(|(c, _)| *c == column))
        };
        let (mut columns, mut values) = (vec![], vec![]);
        for (column, kind, ordinary) in ORDINARY {
            columns.push(format!("{column} {kind}"));
            values.push(given(column).map_or(ordinary, |(_, value)| value).to_owned());
        }
        // Values may name `t`.
        let t = values.remove(0);
        let sql = format!(
            "CREATE TABLE in_{name} (k integer, g integer, i integer, {columns}) WITH (autovacuum_enabled = off);
             INSERT INTO in_{name} SELECT i % 7, i / 2, i, t, {values}
               FROM generate_series(1, {count}) AS i CROSS JOIN LATERAL (SELECT ({t})::timestamptz AS t) AS times
              ORDER BY md5(i::text);
             CREATE TABLE parts_{name} (LIKE in_{name}) PARTITION BY HASH (i);
             CREATE TABLE part_{name}_0 PARTITION OF parts_{name}
                    FOR VALUES WITH (MODULUS 2, REMAINDER 0) WITH (autovacuum_enabled = off);
             CREATE TABLE part_{name}_1 PARTITION OF parts_{name}
                    FOR VALUES WITH (MODULUS 2, REMAINDER 1) WITH (autovacuum_enabled = off);
             INSERT INTO parts_{name} SELECT * FROM in_{name};
             ALTER TABLE in_{name} ALTER k SET (n_distinct = 7);
             ALTER TABLE parts_{name} ALTER k SET (n_distinct_inherited = 7);
             ALTER TABLE part_{name}_0 ALTER k SET (n_distinct = 7);
             ALTER TABLE part_{name}_1 ALTER k SET (n_distinct = 7);
             ALTER TABLE in_{name} SET (parallel_workers = 2); ANALYZE in_{name}, parts_{name};
             UPDATE pg_class SET reltuples = greatest(reltuples, 1000)
              WHERE relkind = 'r' AND relname ~ '^(in|part)_{name}'",
            columns = columns.join(", "),
            values = values.join(", ")
        );
        client.batch_execute(&sql).unwrap_or_else(|error| panic!("{}\n{sql}", cluster::explain(&error)));
    }
    // What was there is what the planner knows of.
    client.batch_execute("DELETE FROM in_empty; DELETE FROM parts_empty").unwrap();
    INPUTS.iter().map(|(name, ..)| *name).collect()
}
