"""Peak memory of hll_agg beside postgresql-hll's, and ten million events in one group: seconds, memory, right answers.

Peak memory is VmHWM of a fresh backend after the query less VmHWM before it. Rows come from generate_series, so that
shared buffers hardly count.
"""

import time

MEMORY = "SELECT (regexp_match(pg_read_file('/proc/self/status'), 'VmHWM:\\s+(\\d+)'))[1]::bigint"


def measured(postgres, sql, settings=()):
    """(answer, seconds, peak in MB) of a query in a backend of its own."""
    connection = postgres.connect()
    for setting in ("max_parallel_workers_per_gather = 0", *settings):
        connection.execute(f"SET {setting}")
    connection.execute("SELECT tidemark.hll_agg(1)")
    before = connection.execute(MEMORY).fetchone()[0]
    started = time.monotonic()
    answer = connection.execute(sql).fetchone()[0]
    seconds = time.monotonic() - started
    after = connection.execute(MEMORY).fetchone()[0]
    connection.close()
    return answer, seconds, (after - before) / 1024


def memory_of_groups(report, postgres, quick):
    """Three values a group."""
    ample = ("work_mem = '8GB'", "enable_sort = off")
    tight = ("work_mem = '64MB'", "enable_sort = off")

    def ours(groups):
        return (
            "SELECT sum(tidemark.hll_cardinality(s)) FROM (SELECT tidemark.hll_agg(x) AS s FROM "
            f"(SELECT generate_series(0, {groups * 3 - 1})) AS r (x) GROUP BY x % {groups}) AS q"
        )

    def theirs(groups):
        return (
            "SELECT sum(peer.hll_cardinality(s)) "
            "FROM (SELECT peer.hll_add_agg(peer.hll_hash_integer(x), 14, 6, 128, 1) AS s "
            f"FROM (SELECT generate_series(0, {groups * 3 - 1})) AS r (x) GROUP BY x % {groups}) AS q"
        )

    report.note(f"{'who':<16} {'groups':>8} {'work_mem':>9} {'seconds':>8} {'peak MB':>8} {'B/group':>8}")
    runs = [("tidemark", ours, 10000, ample), ("tidemark", ours, 100000, ample)]
    if not quick:
        runs += [("tidemark", ours, 1000000, ample), ("tidemark", ours, 1000000, tight)]
    if postgres.has_peer():
        runs += [("postgresql-hll", theirs, groups, ample) for groups in ((1000,) if quick else (1000, 10000))]
    for who, query, groups, settings in runs:
        answer, seconds, peak = measured(postgres, query(groups), settings)
        work_mem = settings[0].split("'")[1]
        report.note(f"{who:<16} {groups:>8} {work_mem:>9} {seconds:>8.1f} {peak:>8.0f} {peak * 1048576 / groups:>8.0f}")
        report.check(f"{who} over {groups} groups of 3 values, work_mem {work_mem}", round(answer) == groups * 3)
        if who == "tidemark":
            # Spilling keeps to work_mem times hash_mem_multiplier (2 from Postgres 15 on), and some for the spill files.
            limit = 256 if settings is tight else groups / 1024 + 16
            report.check(f"tidemark peak memory below {limit:.0f} MB, {groups} groups, work_mem {work_mem}", peak < limit)
    if postgres.has_peer():
        report.note("postgresql-hll is not run with 1000000 groups: by its bytes a group that is over 100 GB")


def one_group(report, postgres, quick):
    """Events a second apart, an hour of silence after every 10 000th; event types take turns in fives."""
    events = 200000 if quick else 10000000
    rows = (
        "(SELECT i, to_timestamp(i + (i / 10000) * 3600) AS t, i % 5 AS k FROM "
        f"(SELECT generate_series(0, {events - 1})) AS r (i)) AS e"
    )
    # The same events in another order: the factor has no divisor in common with their number.
    shuffled = rows.replace(
        "AS r (i)", f"AS o (o), LATERAL (SELECT ((o * 7654321::bigint) % {events})::integer) AS r (i)"
    )
    steps = "k = 0, k = 1, k = 2"
    whole = (
        ("session_count", "tidemark.session_count(t, interval '30 minutes')", events // 10000),
        ("window_funnel", f"tidemark.window_funnel(interval '1 hour', t, {steps})", 3),
        ("window_funnel strict_once", f"tidemark.window_funnel(interval '1 hour', 'strict_once', t, {steps})", 3),
        ("window_funnel never complete", f"tidemark.window_funnel(interval '1 hour', t, {steps}, k = 9)", 3),
        ("funnel", f"cardinality(tidemark.funnel(interval '1 hour', t, {steps}))", 3),
        ("funnel never complete", f"cardinality(tidemark.funnel(interval '1 hour', t, {steps}, k = 9))", 3),
        ("funnel by name", "cardinality(tidemark.funnel(interval '1 hour', t, chr(97 + k), ARRAY['a', 'b', 'c']))", 3),
        ("sequence_count", f"tidemark.sequence_count('(?1)(?2)(?3)', t, {steps})", events // 5),
        ("sequence_match", f"tidemark.sequence_match('(?3)(?t>10)(?2)(?3)(?3)', t, {steps})", False),
        ("retention", f"tidemark.retention({steps}, k = 9)", [True, True, True, False]),
    )
    worst = "true, true, true, k = 9"
    unordered = (
        whole[0], whole[1], whole[4], whole[6], whole[7],
        ("session_count each a session", "tidemark.session_count(t, interval '0.5 seconds')", events),
        ("window_funnel strict_once all true", f"tidemark.window_funnel(interval '1 hour', 'strict_once', t, {worst})", 3),
        ("funnel all true", f"cardinality(tidemark.funnel(interval '1 hour', t, {worst}))", 3),
        ("sequence_match with limits all true",
         f"tidemark.sequence_match('(?1)(?t<=1h)(?2)(?t<=1h)(?3)(?t<=1h)(?4)', t, {worst})", False),
    )
    near = (
        ("hll_agg", "tidemark.hll_cardinality(tidemark.hll_agg(i))", events, 0.03),
        ("approx_percentile", "tidemark.approx_percentile(0.5, (i + 1)::float8)", events / 2, 0.0101),
    )
    base = measured(postgres, f"SELECT count(t) + sum(k) FROM {rows}")
    report.note(f"{events} events in one group; reading them costs {base[1]:.1f} s")
    report.note(f"{'aggregate':<46} {'seconds':>8} {'peak MB':>8}")
    for name, call, wanted, source in [(*one, rows) for one in whole] + [
        (one[0] + ", shuffled", *one[1:], shuffled) for one in unordered
    ]:
        answer, seconds, peak = measured(postgres, f"SELECT {call} FROM {source}")
        report.note(f"{name:<46} {seconds:>8.1f} {peak:>8.0f}")
        report.check(f"{name} over {events} events in one group", answer == wanted,
                     "" if answer == wanted else f"{answer} and not {wanted}")
    for name, call, wanted, tolerance in near:
        answer, seconds, peak = measured(postgres, f"SELECT {call} FROM {rows}")
        report.note(f"{name:<46} {seconds:>8.1f} {peak:>8.0f}")
        report.check(f"{name} over {events} events in one group", abs(answer / wanted - 1) <= tolerance,
                     f"{answer} for {wanted:.0f}")
