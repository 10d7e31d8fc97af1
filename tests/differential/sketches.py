"""Type hll against the package postgresql-hll: equal bytes both ways, unions, and how far estimates are off.

The peer builds with regwidth 5, explicit up to 128 values and sparse, which are the parameters that tidemark stores.
"""

import math

TYPES = ("smallint", "integer", "bigint", "text", "bytea")
LOG2M = 14
SIZES = (0, 1, 2, 10, 100, 128, 129, 200, 500, 1000, 2000, 5000, 10000, 20000, 30000, 50000, 70000, 100000, 150000,
         200000, 300000, 500000, 700000, 1000000)


def prepare(postgres, random, count):
    """Tables sketch (id, p, kind, n) and item (id, p, kind, v): random sizes from empty to well above full."""
    postgres.configure({"max_parallel_workers_per_gather": "0"})
    postgres.run("DROP TABLE IF EXISTS sketch, item, built")
    postgres.run("CREATE UNLOGGED TABLE sketch (id integer, p integer, kind integer, n integer)")
    lines = []
    for number in range(count):
        log2m = int(random.integers(4, 18))
        most = min(2 << log2m, 60000)
        size = 0 if random.random() < 0.03 else int(math.exp(random.random() * math.log(most)))
        lines.append(f"{number},{log2m},{int(random.integers(0, len(TYPES)))},{size}")
    postgres.load("COPY sketch FROM STDIN (FORMAT csv)", "\n".join(lines) + "\n")
    # Overlapping ranges, so that unions are not just sums. An empty sketch has one row with a NULL.
    postgres.run(
        "CREATE UNLOGGED TABLE item AS SELECT id, p, kind, "
        "(id % 7)::bigint * 1000 + i * (1 + id % 3) - 20000 AS v "
        "FROM sketch LEFT JOIN LATERAL generate_series(1, n) AS i ON true"
    )
    postgres.run("CREATE INDEX ON item (id)")
    postgres.run("ANALYZE item")


def typed(kind, value):
    if kind == "smallint":
        return f"(((({value}) % 65536 + 65536) % 65536) - 32768)::smallint"
    if kind == "bytea":
        return f"int8send({value})"
    return f"({value})::{kind}"


def compare_peer(report, postgres, random, count):
    if not postgres.has_peer():
        report.note("LEFT OUT: postgresql-hll is not installed; nothing was compared with it")
        return
    prepare(postgres, random, count)
    postgres.run(
        "CREATE UNLOGGED TABLE built (id integer, p integer, kind integer, ours tidemark.hll, theirs peer.hll)"
    )
    for number, kind in enumerate(TYPES):
        postgres.run(
            f"INSERT INTO built SELECT id, p, kind, tidemark.hll_agg({typed(kind, 'v')}, p), "
            f"coalesce(peer.hll_add_agg(peer.hll_hash_{kind}({typed(kind, 'v')}), p, 5, 128, 1), "
            "peer.hll_empty(p, 5, 128, 1)) "
            f"FROM item WHERE kind = {number} GROUP BY id, p, kind"
        )
        count_wrong(report, postgres, f"hll bytes equal postgresql-hll, {kind}", f"kind = {number}",
                    "ours::text = theirs::text AND ours::bytea = theirs::text::bytea")
    count_wrong(report, postgres, "hll bytes read by postgresql-hll as text", "true",
                "peer.hll_cardinality(ours::text::peer.hll) = peer.hll_cardinality(theirs)"
                " AND ours::text::peer.hll::text = ours::text")
    count_wrong(report, postgres, "hll bytes read by postgresql-hll as bytea", "true",
                "peer.hll_cardinality(ours::bytea::peer.hll) = peer.hll_cardinality(theirs)")
    count_wrong(report, postgres, "hll reads postgresql-hll", "true",
                "theirs::text::tidemark.hll::text = theirs::text"
                " AND tidemark.hll_cardinality(theirs::text::bytea::tidemark.hll) = tidemark.hll_cardinality(ours)")
    encodings(report, postgres)
    foreign_parameters(report, postgres)
    unions(report, postgres)
    sent_types(report, postgres)
    sizes(report, postgres)


def sent_types(report, postgres):
    """Types whose hash is that of what their send functions give; equal numbers are sent alike, without trailing zeros."""
    for kind, value, sent in (
        ("uuid", "md5(i::text)::uuid", "uuid_send(v)"),
        ("date", "date '2026-01-01' + i", "date_send(v)"),
        ("timestamptz", "timestamptz '2026-01-01Z' + i * interval '1.5 s'", "timestamptz_send(v)"),
        ("numeric", "(i / 8.0 - 1000)::numeric(20, 9)", "numeric_send(trim_scale(v))"),
    ):
        postgres.run("DROP TABLE IF EXISTS sent")
        postgres.run(
            "CREATE UNLOGGED TABLE sent AS SELECT n, tidemark.hll_agg(v) AS ours, "
            f"peer.hll_add_agg(peer.hll_hash_bytea({sent}), 14, 5, 128, 1) AS theirs "
            f"FROM unnest(ARRAY[1, 100, 1000, 20000]) AS n, LATERAL (SELECT {value} AS v "
            "FROM generate_series(1, n) AS i) AS v GROUP BY n"
        )
        count_wrong(report, postgres, f"hll bytes equal postgresql-hll's of what is sent, {kind}", "true",
                    "ours::bytea = theirs::text::bytea", "sent")


def sizes(report, postgres):
    """From nothing to a million values: whoever reads a sketch, ours or theirs, gets the same registers and a number."""
    postgres.run("DROP TABLE IF EXISTS sized")
    postgres.run("CREATE UNLOGGED TABLE sized (p integer, start bigint, n bigint, ours tidemark.hll, theirs peer.hll)")
    for log2m in (11, 12, 13, 14):
        for start in (0, 10_000_000, -5_000_000_000):
            postgres.run(
                f"INSERT INTO sized SELECT {log2m}, {start}, n, tidemark.hll_agg(i, {log2m}), "
                f"coalesce(peer.hll_add_agg(peer.hll_hash_bigint(i), {log2m}, 5, 128, 1), "
                f"peer.hll_empty({log2m}, 5, 128, 1)) "
                f"FROM unnest(ARRAY[{', '.join(map(str, SIZES))}]) AS n "
                f"LEFT JOIN LATERAL (SELECT {start}::bigint + g AS i FROM generate_series(1, n) AS g) AS v ON true "
                "GROUP BY n"
            )
    theirs = "peer.hll_cardinality(ours::bytea::peer.hll)"
    back = "tidemark.hll_cardinality(theirs::text::bytea::tidemark.hll)"
    within = "<= 4 * 1.04 / sqrt(2.0 ^ p) * n"
    for name, holds in (
        ("no estimate of postgresql-hll is NaN", f"{theirs} <> 'NaN'"),
        ("registers equal postgresql-hll's", "ours::bytea = theirs::text::bytea"),
        ("postgresql-hll estimates ours as its own", f"{theirs} = peer.hll_cardinality(theirs)"),
        ("ours within four standard errors", f"abs(tidemark.hll_cardinality(ours) - n) {within}"),
        ("we estimate postgresql-hll's as ours", f"{back} = tidemark.hll_cardinality(ours)"),
        ("postgresql-hll's within four standard errors, read by us", f"abs({back} - n) {within}"),
    ):
        count_wrong(report, postgres, f"hll of 0 to 1000000 values: {name}", "true", holds, "sized")
    worst = postgres.run(
        f"SELECT max(abs(tidemark.hll_cardinality(ours) - n)::float8 / n * sqrt(2.0 ^ p) / 1.04), "
        f"max(abs({theirs} - n) / n * sqrt(2.0 ^ p) / 1.04) FROM sized WHERE n > 0"
    ).fetchone()
    report.note("worst, in standard errors: tidemark %.2f, postgresql-hll %.2f" % tuple(map(float, worst)))


def encodings(report, postgres):
    seen = dict(
        postgres.run(
            "SELECT get_byte(theirs::text::bytea, 0) & 15, count(*) FROM built GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )
    names = ((1, "EMPTY"), (2, "EXPLICIT"), (3, "SPARSE"), (4, "FULL"))
    sizes = postgres.one("SELECT string_agg(p::text, ' ' ORDER BY p) FROM (SELECT DISTINCT p FROM built) AS s")
    report.check("hll encodings all present", all(seen.get(code) for code, _ in names),
                 ", ".join(f"{name} {seen.get(code, 0)}" for code, name in names) + f"; log2m {sizes}")


def count_wrong(report, postgres, name, where, holds, source="built"):
    total, wrong = postgres.run(
        f"SELECT count(*), count(*) FILTER (WHERE ({holds}) IS NOT TRUE) FROM {source} WHERE {where}"
    ).fetchone()
    report.line(name, total, wrong)
    if wrong:
        for row in postgres.run(
            f"SELECT * FROM {source} WHERE {where} AND ({holds}) IS NOT TRUE ORDER BY 1, 2 LIMIT 1"
        ):
            report.note(" | ".join(str(value)[:200] for value in row))


def foreign_parameters(report, postgres):
    """Other widths and cutoffs of the peer: readable, and the estimate within six standard errors."""
    for width, cutoff, sparse in ((5, -1, 1), (5, 0, 1), (6, 128, 1), (6, 0, 0), (4, 64, 0), (7, 256, 1)):
        postgres.run("DROP TABLE IF EXISTS other")
        postgres.run(
            "CREATE UNLOGGED TABLE other AS SELECT id, p, count(DISTINCT v) AS n, "
            f"peer.hll_add_agg(peer.hll_hash_bigint(v), p, {width}, {cutoff}, {sparse}) AS theirs "
            "FROM item WHERE id % 4 = 0 AND v IS NOT NULL GROUP BY id, p"
        )
        count_wrong(
            report, postgres, f"hll reads postgresql-hll regwidth={width} expthresh={cutoff} sparse={sparse}", "true",
            "abs(tidemark.hll_cardinality(theirs::text::bytea::tidemark.hll) - n) <= 1 + 6 * 1.04 / sqrt(2.0 ^ p) * n"
            " AND peer.hll_cardinality(theirs::text::bytea::tidemark.hll::bytea::peer.hll)"
            " = peer.hll_cardinality(theirs)",
            "other",
        )


def unions(report, postgres):
    """Pairs of sketches: the union equals the sketch of all values at the smaller log2m. An empty one has no say in it."""
    # Computed once a pair: taken from the bytes for each item, it would detoast the sketch for each item.
    log2m = (
        "CASE WHEN x.n = 0 AND y.n > 0 THEN y.p WHEN y.n = 0 AND x.n > 0 THEN x.p ELSE least(x.p, y.p) END"
    )
    for number, kind in enumerate(TYPES):
        postgres.run("DROP TABLE IF EXISTS pair")
        postgres.run(
            f"CREATE UNLOGGED TABLE pair AS SELECT a.id, b.id AS other, a.p AS pa, b.p AS pb, {log2m} AS log2m, "
            "a.ours AS a, b.ours AS b, "
            "a.theirs AS ta, b.theirs AS tb FROM (SELECT *, row_number() OVER (ORDER BY id) AS k FROM built "
            f"WHERE kind = {number}) AS a JOIN (SELECT *, row_number() OVER (ORDER BY md5(id::text)) AS k FROM built "
            f"WHERE kind = {number}) AS b USING (k) JOIN sketch AS x ON x.id = a.id JOIN sketch AS y ON y.id = b.id"
        )
        postgres.run("DROP TABLE IF EXISTS both_sides")
        postgres.run(
            "CREATE UNLOGGED TABLE both_sides AS SELECT pair.*, whole.whole FROM pair JOIN LATERAL ("
            f"SELECT tidemark.hll_agg({typed(kind, 'v')}, log2m) AS whole FROM item "
            "WHERE item.id = ANY (ARRAY[pair.id, pair.other])) AS whole ON true"
        )
        count_wrong(
            report, postgres, f"hll union of log2m unequal or equal, {kind}", "true",
            "tidemark.hll_union(a, b)::text = whole::text AND tidemark.hll_union(b, a)::text = whole::text"
            " AND (SELECT tidemark.hll_union_agg(x) FROM (VALUES (a), (b)) AS v (x))::text = whole::text",
            "both_sides",
        )
        postgres.run("DROP TABLE IF EXISTS same_size")
        postgres.run(
            "CREATE UNLOGGED TABLE same_size AS SELECT x.id, y.id AS other, x.p, x.ours AS a, y.ours AS b, "
            f"x.theirs AS ta, y.theirs AS tb FROM (SELECT * FROM built WHERE kind = {number}) AS x "
            f"JOIN (SELECT * FROM built WHERE kind = {number}) AS y ON x.p = y.p AND x.id < y.id LIMIT 2000"
        )
        count_wrong(
            report, postgres, f"hll union equals postgresql-hll's, {kind}", "true",
            "tidemark.hll_union(a, b)::text = peer.hll_union(ta, tb)::text", "same_size",
        )


def estimate(report, postgres, quick):
    """Bias and error at log2m 14 over disjoint ranges of bigint; a wrong estimator shows as a bias."""
    deviation = 1.04 / math.sqrt(1 << LOG2M)
    plan = ((10, 1000), (100, 1000), (1000, 1000), (10000, 1000), (30000, 400), (40000, 400), (100000, 300),
            (1000000, 100), (10000000, 64))
    if quick:
        plan = ((10, 100), (1000, 100), (10000, 100), (40000, 50))
    postgres.configure({"max_parallel_workers_per_gather": "0"})
    report.note(f"{'n':>9} {'runs':>5} {'bias %':>8} {'RMSE %':>7} {'1.04/sqrt(m) %':>15}")
    offset = 0
    for size, runs in plan:
        bias, error = postgres.run(
            "SELECT avg(e), sqrt(avg(e * e)) FROM (SELECT ("
            "SELECT tidemark.approx_count_distinct(x) FROM "
            f"(SELECT generate_series(o, o + {size - 1})) AS s (x)) / {size}.0::float8 - 1 AS e "
            f"FROM (SELECT {offset}::bigint + i::bigint * {size} AS o "
            f"FROM generate_series(0, {runs - 1}) AS i) AS o) AS r"
        ).fetchone()
        offset += size * runs
        report.note(f"{size:>9} {runs:>5} {bias * 100:>+8.3f} {error * 100:>7.3f} {deviation * 100:>15.3f}")
        # What chance leaves in the mean of so few runs, and in their RMSE (three standard deviations).
        slack = 0.003 + (3 * deviation / math.sqrt(runs) if quick else 0)
        report.line(f"hll estimate n={size}: bias below {slack * 100:.2f} %", runs, int(abs(bias) >= slack))
        report.line(f"hll estimate n={size}: RMSE within 1.04/sqrt(m)", runs,
                    int(error > deviation * (1 + 3 / math.sqrt(2 * runs))))
