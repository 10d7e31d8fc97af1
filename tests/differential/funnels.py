"""window_funnel against ClickHouse's windowFunnel: every set of modes, several windows, rows full of ties.

In strict_once with strict_deduplication ClickHouse's answer depends on the order in which rows and partial states
arrive. It gets its rows in one block ordered by (time, conditions) on one thread; those sets are counted apart.
"""

import itertools

import rows
from engines import matrix, table_of

WINDOWS = (0, 1, 3)


def mode_sets():
    """All 24: three free flags, and strict_order alone or with allow_reentry."""
    flags = ("strict_deduplication", "strict_increase", "strict_once")
    for free in itertools.product((False, True), repeat=3):
        for order in ((), ("strict_order",), ("strict_order", "allow_reentry")):
            yield tuple(flag for flag, on in zip(flags, free) if on) + order


def arrival_dependent(modes):
    return "strict_once" in modes and "strict_deduplication" in modes


def compare(report, postgres, clickhouse, random, groups, quick):
    shares = ((2, groups // 5), (3, groups * 2 // 5), (4, groups - groups // 5 - groups * 2 // 5))
    sets = list(mode_sets())
    steady = [modes for modes in sets if not arrival_dependent(modes)]
    apart = [modes for modes in sets if arrival_dependent(modes)]
    for steps, share in shares:
        table = rows.tied(random, share, 0, steps)
        name = f"funnel_{steps}"
        rows.load(postgres, clickhouse, name, table, steps)
        show = rows.shown(table, steps)
        for window in WINDOWS[:2] if quick else WINDOWS:
            for kind, chosen in (("", steady), (" strict_once+strict_deduplication", apart)):
                theirs = ask_clickhouse(clickhouse, name, steps, window, chosen)
                labels = [f"window {window} s, mode '{','.join(modes)}'" for modes in chosen]
                title = f"window_funnel{kind} steps={steps} window={window}s"
                for plan, source, settings in (
                    ("serial", name, postgres.SERIAL),
                    ("parallel shuffled", f"{name}_shuffled", postgres.PARALLEL),
                ):
                    ours = ask_postgres(report, postgres, source, steps, window, chosen, settings)
                    matrix(report, f"{title} {plan}", labels, ours, theirs, show)
    control(report, postgres, clickhouse, steady)


def control(report, postgres, clickhouse, sets):
    """That a difference would be seen: windows a second apart must not give equal answers, in any set of modes."""
    theirs = ask_clickhouse(clickhouse, "funnel_4", 4, 1, sets)
    ours = ask_postgres(report, postgres, "funnel_4", 4, 2, sets, postgres.SERIAL)
    seen = (ours[:, 1:] != theirs[:, 1:]).sum(axis=0)
    report.check("control: another window is noticed", seen.all(), f"{seen.sum()} differences, as it should be")


def ask_postgres(report, postgres, source, steps, window, sets, settings):
    arguments = ", ".join(
        f"tidemark.window_funnel(interval '{window} s', '{','.join(modes)}', t, {rows.columns(steps)})"
        for modes in sets
    )
    sql = f"SELECT g, {arguments} FROM {source} GROUP BY g ORDER BY g"
    return table_of(postgres.aggregate(report, sql, settings), len(sets) + 1)


def ask_clickhouse(clickhouse, source, steps, window, sets):
    arguments = ", ".join(
        "windowFunnel("
        + ", ".join([str(window)] + [f"'{mode}'" for mode in modes])
        + f")(t, {rows.conditions(steps)})"
        for modes in sets
    )
    sql = f"SELECT g, {arguments} FROM differential.{source} GROUP BY g ORDER BY g"
    return table_of(clickhouse.csv(sql), len(sets) + 1)
