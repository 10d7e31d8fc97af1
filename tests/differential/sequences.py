"""sequence_match, sequence_count, sequence_next_node and retention against their ClickHouse namesakes.

Only patterns that ClickHouse defines: times are distinct within a group, and no pattern ends in `.*`, `(?t<..)` or
`(?t<=..)`, whose answers there vary from process to process.
"""

import numpy

import rows
from engines import matrix, table_of

STEPS = 4
PATTERNS_AT_ONCE = 20
BASES = (
    ("forward", "head"), ("forward", "first_match"), ("forward", "last_match"),
    ("backward", "tail"), ("backward", "first_match"), ("backward", "last_match"),
)


def pattern(random):
    """One random pattern of 1 to 6 items that is valid and has no tail that may match nothing."""
    while True:
        items, kinds = [], []
        for _ in range(random.integers(1, 7)):
            kind = random.choice(["event", "event", "event", "any", "many", "gate"])
            if kind == "gate" and (not kinds or kinds[-1] == "gate"):
                kind = "event"
            if kind == "event":
                items.append(f"(?{random.integers(1, STEPS + 1)})")
            elif kind == "any":
                items.append(".")
            elif kind == "many":
                items.append(".*")
            else:
                comparison = random.choice(["<=", "<", ">=", ">", "=="])
                items.append(f"(?t{comparison}{random.integers(1, 9)})")
            kinds.append(kind)
        if kinds[-1] != "many" and not items[-1].startswith("(?t<"):
            return "".join(items)


def plans(postgres, name):
    return (("serial", name, postgres.SERIAL), ("parallel shuffled", f"{name}_shuffled", postgres.PARALLEL))


def compare_patterns(report, postgres, clickhouse, random, groups, patterns):
    table = rows.distinct_times(random, groups, STEPS)
    rows.load(postgres, clickhouse, "sequence", table, STEPS)
    show = rows.shown(table, STEPS)
    chosen = set()
    while len(chosen) < patterns:
        chosen.add(pattern(random))
    chosen = sorted(chosen)
    report.note(f"{len(chosen)} patterns, such as {' '.join(chosen[:: max(1, len(chosen) // 5)])}")
    for ours_name, theirs_name in (("sequence_match", "sequenceMatch"), ("sequence_count", "sequenceCount")):
        for first in range(0, len(chosen), PATTERNS_AT_ONCE):
            some = chosen[first : first + PATTERNS_AT_ONCE]
            theirs = table_of(
                clickhouse.csv(
                    "SELECT g, "
                    + ", ".join(f"{theirs_name}('{one}')(t, {rows.conditions(STEPS)})" for one in some)
                    + " FROM differential.sequence GROUP BY g ORDER BY g"
                ),
                len(some) + 1,
            )
            for plan, source, settings in plans(postgres, "sequence"):
                ours = table_of(
                    postgres.aggregate(
                        report,
                        "SELECT g, "
                        + ", ".join(f"tidemark.{ours_name}('{one}', t, {rows.columns(STEPS)})::integer" for one in some)
                        + f" FROM {source} GROUP BY g ORDER BY g",
                        settings,
                    ),
                    len(some) + 1,
                )
                matrix(report, f"{ours_name} patterns {first + 1}..{first + len(some)} {plan}", some, ours, theirs, show)


def compare_next_node(report, postgres, clickhouse, random, groups):
    """Times may be equal here, values of a group are distinct: (time, value) orders the rows in both engines."""
    table = rows.tied(random, groups, 0, STEPS)
    # Distinct within a group, in no relation to time; as text 10 sorts before 9, which is the point.
    value = random.permutation(len(table)) + 1
    table = numpy.column_stack([table, value])
    rows.load(postgres, clickhouse, "next_node", table, STEPS, "value")
    show = rows.shown(table, STEPS)
    for conditions in (1, 2, 3):
        labels = [f"{direction} {base}, {conditions} conditions" for direction, base in BASES]
        wanted = ", ".join(f"toUInt8(bitTest(bits, {step}))" for step in range(1, conditions + 1))
        theirs = table_of(
            clickhouse.csv(
                "SELECT g, "
                + ", ".join(
                    f"toInt64OrZero(ifNull(sequenceNextNode('{direction}', '{base}')"
                    f"(t, toString(value), toUInt8(bitTest(bits, 0)), {wanted}), '0'))"
                    for direction, base in BASES
                )
                + " FROM differential.next_node GROUP BY g ORDER BY g",
                ", allow_experimental_funnel_functions = 1",
            ),
            len(BASES) + 1,
        )
        mine = ", ".join(f"c{step + 1}" for step in range(1, conditions + 1))
        for plan, source, settings in plans(postgres, "next_node"):
            ours = table_of(
                postgres.aggregate(
                    report,
                    "SELECT g, "
                    + ", ".join(
                        f"coalesce(tidemark.sequence_next_node('{direction}', '{base}', "
                        f"t, value::text, c1, {mine}), '0')"
                        for direction, base in BASES
                    )
                    + f" FROM {source} GROUP BY g ORDER BY g",
                    settings,
                ),
                len(BASES) + 1,
            )
            matrix(report, f"sequence_next_node conditions={conditions} {plan}", labels, ours, theirs, show)


def compare_retention(report, postgres, clickhouse, random, groups):
    table = rows.tied(random, groups, 0, 5)
    table = table[random.random(len(table)) < 0.6]
    rows.load(postgres, clickhouse, "retained", table, 5)
    show = rows.shown(table, 5)
    for conditions in (2, 3, 4, 5):
        theirs = table_of(
            clickhouse.csv(
                "SELECT g, "
                f"arrayStringConcat(arrayMap(x -> toString(x), retention({rows.conditions(conditions)})))::UInt32"
                " FROM differential.retained GROUP BY g ORDER BY g"
            ),
            2,
        )
        for plan, source, settings in plans(postgres, "retained"):
            ours = table_of(
                postgres.aggregate(
                    report,
                    "SELECT g, translate(array_to_string("
                    f"tidemark.retention({rows.columns(conditions)}), ''), 'tf', '10')::integer"
                    f" FROM {source} GROUP BY g ORDER BY g",
                    settings,
                ),
                2,
            )
            matrix(report, f"retention conditions={conditions} {plan}", ["retention"], ours, theirs, show)
