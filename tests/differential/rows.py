"""Random rows, made once per family and given to both engines: group, seconds, condition bits. Seeded, no NULLs."""

import numpy


def tied(random, groups, first, steps):
    """Heavy ties: up to 8 rows at 6 distinct times, several conditions on a row, rows that meet none."""
    counts = random.integers(1, 9, groups)
    group = numpy.repeat(numpy.arange(first, first + groups), counts)
    rows = len(group)
    seconds = random.integers(0, 6, rows)
    single = 1 << random.integers(0, steps, rows)
    several = random.integers(0, 1 << steps, rows)
    kind = random.random(rows)
    bits = numpy.where(kind < 0.15, 0, numpy.where(kind < 0.7, single, several))
    return numpy.column_stack([group, seconds, bits])


def distinct_times(random, groups, steps, longest=14):
    """One event a second at most, so that no pattern depends on how an engine breaks ties."""
    counts = random.integers(1, longest + 1, groups)
    group = numpy.repeat(numpy.arange(groups), counts)
    rows = len(group)
    gaps = random.choice([1, 1, 1, 2, 3, 5, 9], rows)
    running = numpy.cumsum(gaps)
    start = numpy.repeat(running[numpy.cumsum(counts) - counts], counts)
    kind = random.random(rows)
    single = 1 << random.integers(0, steps, rows)
    several = random.integers(0, 1 << steps, rows)
    bits = numpy.where(kind < 0.1, 0, numpy.where(kind < 0.75, single, several))
    table = numpy.column_stack([group, running - start + 100, bits])
    return table[random.permutation(rows)]


def csv(table):
    """The rows as bytes of CSV."""
    return ("\n".join(",".join(map(str, row)) for row in table.tolist()) + "\n").encode()


def shown(table, steps):
    """A function from a group to its rows in words, in order of time."""

    def rows(group):
        mine = table[table[:, 0] == group]
        for row in mine[numpy.lexsort((mine[:, 2], mine[:, 1]))]:
            met = [f"c{step + 1}" for step in range(steps) if row[2] >> step & 1]
            yield f"t={row[1]} {' '.join(met) or '(no condition)'}" + "".join(f" v={v}" for v in row[3:])

    return rows


def load(postgres, clickhouse, name, table, steps, extra=""):
    """The same rows as table `name` in both engines: g, t, c1 .. and, if wanted, `extra` whole-number columns."""
    text = csv(table)
    more = [column for column in extra.split(",") if column]
    postgres.run("DROP TABLE IF EXISTS staged")
    postgres.run(
        "CREATE TEMP TABLE staged (g bigint, s bigint, bits integer"
        + "".join(f", {column} integer" for column in more) + ")"
    )
    postgres.load("COPY staged FROM STDIN (FORMAT csv)", text)
    conditions = ", ".join(f"bits & {1 << step} <> 0 AS c{step + 1}" for step in range(steps))
    columns = f"g, to_timestamp(s) AS t, {conditions}" + "".join(f", {column}" for column in more)
    postgres.run(f"DROP TABLE IF EXISTS {name}, {name}_shuffled")
    postgres.run(f"CREATE UNLOGGED TABLE {name} AS SELECT {columns} FROM staged ORDER BY g, s, bits")
    postgres.run("SELECT setseed(0.5)")
    postgres.run(f"CREATE UNLOGGED TABLE {name}_shuffled AS SELECT {columns} FROM staged ORDER BY random()")
    # Told that there are few groups, the planner aggregates in the workers and combines their partial states.
    postgres.run(f"ALTER TABLE {name}_shuffled SET (parallel_workers = 3)")
    postgres.run(f"ALTER TABLE {name}_shuffled ALTER COLUMN g SET (n_distinct = 10)")
    postgres.run(f"ANALYZE {name}, {name}_shuffled")
    spelled = "g UInt32, t UInt32, bits UInt32" + "".join(f", {column} UInt32" for column in more)
    clickhouse.load(name, spelled, "g, t, bits", text)


def conditions(steps):
    """c1 .. as ClickHouse computes them from the bits."""
    return ", ".join(f"toUInt8(bitTest(bits, {step}))" for step in range(steps))


def columns(steps):
    """c1 .. as columns of the Postgres table."""
    return ", ".join(f"c{step + 1}" for step in range(steps))
