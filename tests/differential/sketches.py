"""Type hll against the package postgresql-hll: equal bytes both ways, unions, and how far estimates are off.

The peer builds with regwidth 6, explicit up to 128 values and sparse, which are the parameters that tidemark stores.
"""

import math

TYPES = ("smallint", "integer", "bigint", "text", "bytea")
LOG2M = 14


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
    postgres.run("CREATE UNLOGGED TABLE built (id integer, p integer, kind integer, ours tidemark.hll, theirs peer.hll)")
    for number, kind in enumerate(TYPES):
        postgres.run(
            f"INSERT INTO built SELECT id, p, kind, tidemark.hll_agg({typed(kind, 'v')}, p), "
            f"coalesce(peer.hll_add_agg(peer.hll_hash_{kind}({typed(kind, 'v')}), p, 6, 128, 1), peer.hll_empty(p, 6, 128, 1)) "
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


def encodings(report, postgres):
    seen = dict(
        postgres.run("SELECT get_byte(theirs::text::bytea, 0) & 15, count(*) FROM built GROUP BY 1 ORDER BY 1").fetchall()
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
        for row in postgres.run(f"SELECT * FROM {source} WHERE {where} AND ({holds}) IS NOT TRUE ORDER BY 1, 2 LIMIT 1"):
            report.note(" | ".join(str(value)[:200] for value in row))


def foreign_parameters(report, postgres):
    """Other widths and cutoffs of the peer: readable, and the estimate within six standard errors."""
    for width, cutoff, sparse in ((5, -1, 1), (5, 0, 1), (6, 0, 0), (4, 64, 0), (7, 256, 1)):
        postgres.run("DROP TABLE IF EXISTS other")
        postgres.run(
            "CREATE UNLOGGED TABLE other AS SELECT id, p, count(DISTINCT v) AS n, "
            f"peer.hll_add_agg(peer.hll_hash_bigint(v), p, {width}, {cutoff}, {sparse}) AS theirs "
            "FROM item WHERE id % 4 = 0 AND v IS NOT NULL GROUP BY id, p"
        )
        count_wrong(
            report, postgres, f"hll reads postgresql-hll regwidth={width} expthresh={cutoff} sparse={sparse}", "true",
            "abs(tidemark.hll_cardinality(theirs::text::bytea::tidemark.hll) - n) <= 1 + 6 * 1.04 / sqrt(2.0 ^ p) * n"
            " AND peer.hll_cardinality(theirs::text::bytea::tidemark.hll::bytea::peer.hll) = peer.hll_cardinality(theirs)",
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
            f"CREATE UNLOGGED TABLE pair AS SELECT a.id, b.id AS other, a.p AS pa, b.p AS pb, {log2m} AS log2m, a.ours AS a, b.ours AS b, "
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
            f"FROM (SELECT {offset}::bigint + i::bigint * {size} AS o FROM generate_series(0, {runs - 1}) AS i) AS o) AS r"
        ).fetchone()
        offset += size * runs
        report.note(f"{size:>9} {runs:>5} {bias * 100:>+8.3f} {error * 100:>7.3f} {deviation * 100:>15.3f}")
        # What chance leaves in the mean of so few runs, and in their RMSE (three standard deviations).
        slack = 0.003 + (3 * deviation / math.sqrt(runs) if quick else 0)
        report.line(f"hll estimate n={size}: bias below {slack * 100:.2f} %", runs, int(abs(bias) >= slack))
        report.line(f"hll estimate n={size}: RMSE within 1.04/sqrt(m)", runs,
                    int(error > deviation * (1 + 3 / math.sqrt(2 * runs))))
