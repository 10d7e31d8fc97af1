"""Random and mutated byte strings into every way in of the stored types: errors of class 22 only, never a crash.

`in` and the bytea cast run in a loop inside the server; `recv` takes binary parameters, pipelined, each with a
transaction of its own. A byte string that is accepted must also be usable.
"""

import time

import psycopg

TYPES = {
    "hll": (
        "array_agg(b)",
        "(SELECT tidemark.hll_agg(x, p)::bytea AS b FROM (VALUES (4), (5), (8), (11)) AS v (p), "
        "(VALUES (0), (1), (5), (100), (200), (700)) AS n (n), LATERAL "
        "(SELECT generate_series(1, greatest(n, 1)) AS x) AS s WHERE n > 0 OR p = 4 GROUP BY p, n) AS s",
        "tidemark.hll_cardinality({0})::text || tidemark.hll_union({0}, {0})::text",
    ),
    "ddsketch": (
        "array_agg(b)",
        "(SELECT tidemark.ddsketch_agg(CASE WHEN n % 2 = 0 THEN x ELSE (x - 20) ^ 3 END)::bytea AS b "
        "FROM (VALUES (1), (2), (5), (40), (41), (200)) AS n (n), LATERAL "
        "(SELECT generate_series(1, n)::float8 AS x) AS s GROUP BY n) AS s",
        # The quantile of an empty sketch is NULL, and an empty sketch is valid.
        "coalesce(tidemark.ddsketch_quantile({0}, 0.5)::text, '') || tidemark.ddsketch_union({0}, {0})::text",
    ),
    "funnel_stats": (
        "array_agg(b)",
        "(SELECT tidemark.funnel_stats((ARRAY[to_timestamp(x), to_timestamp(x + 5), to_timestamp(x + x * 3)])"
        "[1 : 1 + x % 3], 3)::bytea AS b FROM (VALUES (1), (2), (5), (40)) AS n (n), LATERAL "
        "(SELECT generate_series(1, n) AS x) AS s GROUP BY n) AS s",
        "(SELECT string_agg(f::text, '') FROM tidemark.funnel_table({0}) AS f)"
        " || (SELECT tidemark.funnel_stats_union_agg(x) FROM (VALUES ({0}), ({0})) AS v (x))::text",
    ),
}

LOOP = """
CREATE OR REPLACE FUNCTION pg_temp.hostile(valid bytea[], rounds integer,
    OUT accepted integer, OUT refused integer, OUT odd integer, OUT example text) LANGUAGE plpgsql AS $body$
DECLARE
    bytes bytea; words text; sketch tidemark.{type}; used text; kind double precision; reading boolean;
BEGIN
    accepted := 0; refused := 0; odd := 0;
    FOR i IN 1 .. rounds LOOP
        kind := random();
        bytes := valid[1 + floor(random() * cardinality(valid))::integer];
        IF kind < 0.25 THEN
            words := md5(random()::text) || md5(i::text);
            bytes := substr(bytes, 1, floor(random() * 6)::integer)
                || decode(substr(words, 1, 2 * floor(random() * 33)::integer), 'hex');
        ELSIF kind < 0.8 THEN
            FOR j IN 1 .. 1 + floor(random() * 3)::integer LOOP
                bytes := set_byte(bytes, CASE WHEN random() < 0.3 THEN least(floor(random() * 4)::integer,
                                                                             length(bytes) - 1)
                    ELSE floor(random() * length(bytes))::integer END, floor(random() * 256)::integer);
            END LOOP;
        ELSIF kind < 0.9 THEN
            bytes := substr(bytes, 1, floor(random() * length(bytes))::integer);
        ELSE
            bytes := bytes || decode(substr(md5(i::text), 1, 2 + 2 * floor(random() * 8)::integer), 'hex');
        END IF;
        reading := true;
        BEGIN
            {read}
            reading := false;
            used := {use};
            IF used IS NULL OR (sketch::bytea)::tidemark.{type}::text <> sketch::text THEN
                odd := odd + 1; example := 'accepted, and of no use: ' || encode(bytes, 'hex');
            END IF;
            accepted := accepted + 1;
        EXCEPTION WHEN OTHERS THEN
            IF reading THEN refused := refused + 1; END IF;
            IF NOT reading OR SQLSTATE !~ '^22' THEN
                odd := odd + 1;
                example := SQLSTATE || ' ' || SQLERRM || CASE WHEN reading THEN ' on ' ELSE ' after accepting ' END
                    || encode(bytes, 'hex');
            END IF;
        END;
    END LOOP;
END $body$
"""
CAST = "sketch := bytes::tidemark.{type};"
TEXT = """words := '\\x' || encode(bytes, 'hex');
            IF random() < 0.3 THEN
                words := overlay(words PLACING chr(33 + floor(random() * 90)::integer)
                                 FROM 1 + floor(random() * length(words))::integer FOR 1);
            END IF;
            sketch := words::tidemark.{type};"""


def attack(report, postgres, random, log, rounds):
    """rounds: how many byte strings for each type and way in."""
    for kind, (gather, source, use) in TYPES.items():
        if postgres.one(f"SELECT to_regtype('tidemark.{kind}') IS NULL"):
            report.note(f"LEFT OUT: there is no type {kind}")
            continue
        valid = [bytes(one) for one in postgres.one(f"SELECT {gather} FROM {source}")]
        many = rounds if kind == "hll" else max(rounds // 10, 1000)
        connection = postgres.connect()
        pid = connection.info.backend_pid
        for way, read in (("bytea cast", CAST), ("input", TEXT)):
            connection.execute(LOOP.format(type=kind, read=read.format(type=kind), use=use.format("sketch")))
            connection.execute("SELECT setseed(%s)", [float(random.random())])
            started = time.monotonic()
            accepted, refused, odd, example = connection.execute(
                "SELECT * FROM pg_temp.hostile(%s, %s)", [valid, many]
            ).fetchone()
            report.line(f"hostile bytes, {kind} {way}", accepted + refused, odd)
            report.note(f"{accepted} accepted, {refused} refused, {time.monotonic() - started:.0f} s")
            if odd:
                report.note(f"for example: {example}")
        receive(report, connection, random, kind, valid, use.format(f"$1::tidemark.{kind}"), many)
        same = connection.execute("SELECT pg_backend_pid()").fetchone()[0] == pid
        report.check(f"hostile bytes, {kind}: one backend survived them all", same)
        connection.close()
    with open(log, errors="replace") as file:
        lines = file.readlines()
    bad = [line for line in lines if any(sign in line for sign in ("terminated by signal", "PANIC", "panicked"))]
    # A log without the line of the start would be the wrong file.
    started = any("ready to accept connections" in line for line in lines)
    report.check("server log without crash or panic", started and not bad, bad[0].strip() if bad else "")


def mutated(random, valid):
    value = bytearray(valid[random.randrange(len(valid))])
    kind = random.random()
    if kind < 0.25:
        return bytes(value[: random.randrange(6)]) + random.randbytes(random.randrange(33))
    if kind < 0.8:
        for _ in range(random.randint(1, 3)):
            place = random.randrange(4) if random.random() < 0.3 else random.randrange(len(value))
            value[min(place, len(value) - 1)] = random.randrange(256)
        return bytes(value)
    if kind < 0.9:
        return bytes(value[: random.randrange(len(value))])
    return bytes(value) + random.randbytes(random.randint(1, 8))


def receive(report, connection, numpy_random, kind, valid, use, many):
    """Binary parameters through one prepared statement, fifty in flight."""
    import random as standard

    random = standard.Random(int(numpy_random.integers(1 << 60)))
    pq = connection.pgconn
    started = time.monotonic()
    status = psycopg.pq.ExecStatus
    pq.prepare(b"hostile", f"SELECT {use}".encode())
    accepted = refused = odd = 0
    example = ""
    pq.enter_pipeline_mode()
    for _ in range(many // 50):
        batch = [mutated(random, valid) for _ in range(50)]
        for value in batch:
            pq.send_query_prepared(b"hostile", [value], param_formats=[1])
            pq.pipeline_sync()
        for value in batch:
            while (result := pq.get_result()) is None or result.status != status.PIPELINE_SYNC:
                if result is None:
                    if pq.status != psycopg.pq.ConnStatus.OK:
                        raise SystemExit(f"the connection broke near {value.hex()}")
                    continue
                if result.status == status.TUPLES_OK:
                    accepted += 1
                    continue
                refused += 1
                state = (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"?").decode()
                if not state.startswith("22"):
                    odd += 1
                    example = f"{state} {result.error_message.decode()} on {value.hex()}"
    pq.exit_pipeline_mode()
    report.line(f"hostile bytes, {kind} recv", accepted + refused, odd)
    report.note(f"{accepted} accepted, {refused} refused, {time.monotonic() - started:.0f} s")
    if odd:
        report.note(f"for example: {example}")
