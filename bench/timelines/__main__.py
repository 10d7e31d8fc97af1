"""Reports over a timeline beside the aggregates over rows, embedded ClickHouse and DuckDB, with the same rows: `make
bench-timelines`.

Engines take turns; the answers are compared, and a difference fails the run. Each has one core, and what is compared is the
processor's time, which other programs disturb less; ClickHouse is asked with two threads as well, by the clock, since a
report takes one core whatever there is.
"""

import argparse
import math
import os
import statistics
import sys
import time

import data
import upkeep
from cases import CASES, Case
from engines import ClickHouse, DuckDB, Postgres


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def flat(rows) -> list:
    """Values of an answer one after the other, numbers as numbers."""
    def value(x):
        try:
            return round(float(x), 3)
        except ValueError:
            return str(x)
    return [value(x) for row in rows for x in row if x is not None]


def build(db: Postgres, events: int, slices: int) -> None:
    took = upkeep.timed(lambda: db.run(
        "SELECT tidemark.create_timeline('public.timeline', 'events', properties => '{platform,country,page_path}', "
        f"slices => {slices})", "CALL tidemark.refresh()"))
    db.execute("VACUUM (ANALYZE, FREEZE) timeline")
    size, values, heap, rows = db.one("SELECT pg_total_relation_size('timeline'), sum(pg_column_size(data)), pg_total_relation_size('events'), "
                                      "count(*) FILTER (WHERE property = 0) FROM timeline")
    print(f"built in {took:.1f} s, {1e6 * took / events:.2f} us an event; bytes an event: {size / events:.2f} on disk, "
          f"{int(values) / events:.2f} of values, rows {heap / events:.1f}; {events / rows:.0f} events a slice of {slices}")


def compare(case: Case, db: Postgres, rivals: dict, rounds: int) -> tuple[str, list[str]]:
    """A row of the table, and what was answered differently."""
    ways = {("timeline", 1): (db, case.report)}
    if case.rows:
        ways["rows", 1] = (db, case.rows)
    for i, sql in enumerate(case.clickhouse if "clickhouse" in rivals else []):
        for threads in (1, 2):
            ways[f"clickhouse {i}", threads] = (rivals["clickhouse"], sql)
    if case.duckdb and "duckdb" in rivals:
        ways["duckdb", 1] = (rivals["duckdb"], case.duckdb)
    times, wrong = {way: [] for way in ways}, []
    for turn in range(rounds + 1):
        for way, (engine, sql) in ways.items():
            if way[0] == "rows" and turn > 1:
                continue
            clock = engine.cpu if way[1] == 1 else time.perf_counter
            wall, began = time.perf_counter(), clock()
            answer = engine.rows(sql, way[1])
            took, wall = clock() - began, time.perf_counter() - wall
            answer = flat(answer)
            if turn:
                times[way].append((1000 * took, 1000 * wall))
            elif way[0] == "timeline":
                expected = answer
            elif answer != expected:
                at = next((i for i, (a, b) in enumerate(zip(answer, expected)) if a != b), min(len(answer), len(expected)))
                wrong.append(f"{case.title}: {way[0]} says {answer[at:at + 9]} at {at} of {len(answer)}, the timeline {expected[at:at + 9]}")
    medians = {way: [statistics.median(found) for found in zip(*taken)] for way, taken in times.items()}

    def best(name: str, threads: int) -> float | None:
        return min((n for way, (n, _) in medians.items() if way[0].startswith(name) and way[1] == threads), default=None)

    ours, wall = medians["timeline", 1]
    cells = [f"{ours:.1f}", f"{wall:.1f}"] + [f"{n:.0f}" if n else "-" for n in (best("rows", 1), best("duckdb", 1))]
    for threads, beside in ((1, ours), (2, wall)):
        rival = best("clickhouse", threads)
        cells += [f"{rival:.0f}", f"{rival / beside:.1f}"] if rival else ["-", "-"]
    return f"| {case.title} | " + " | ".join(cells) + " |", wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-timelines", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--directory", required=True, help="for files, also those of ClickHouse")
    parser.add_argument("--pg-bin", required=True, help="where pg_dump is")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--persons", type=int, help="default: one for 51 events")
    parser.add_argument("--slices", type=int, help="default: some 650 events each, as 512 are of 10 million")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--onto", type=int, default=1_200_000, help="events of a date that gains some; 0: no upkeep")
    parser.add_argument("--no-rivals", action="store_true")
    args = parser.parse_args()
    persons = args.persons or max(1, args.events * 196 // 10_000)
    slices = args.slices or 1 << max(0, round(math.log2(args.events / 19_500)))

    db, duck, rivals = Postgres(args.url), DuckDB(), {}
    progress(f"==> {args.events:,} events of {persons:,} persons")
    file = os.path.join(args.directory, "events.tsv")
    data.write(duck.connection, data.generate(args.events, persons, 30), file, "events")
    progress("    loading")
    db.load("events", file)
    if not args.no_rivals:
        rivals = {"clickhouse": ClickHouse(args.directory, file), "duckdb": duck}
    os.unlink(file)
    days, = db.one("SELECT count(*) FROM (SELECT DISTINCT person, event_date FROM events) AS d")
    print(f"{args.events:,} events of {persons:,} persons, {days:,} days of persons, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    build(db, args.events, slices)

    print("\n| question | timeline, CPU ms | by the clock | rows, CPU ms | DuckDB, CPU ms | ClickHouse, best, CPU ms | times the timeline's "
          "| ClickHouse, 2 threads, by the clock | times the timeline's |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    wrong = []
    for name in args.cases.split(","):
        progress(f"==> {CASES[name].title}")
        if name == "campaign":
            took = upkeep.timed(lambda: db.execute("SELECT tidemark.add_property('public.timeline', 'campaign')"))
            progress(f"    added the property in {took:.1f} s")
            db.execute("VACUUM (ANALYZE) timeline")
        row, differences = compare(CASES[name], db, rivals, args.rounds)
        print(row, flush=True)
        wrong += differences
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    if args.onto:
        progress("==> upkeep")
        upkeep.late_event(db, CASES["funnel"].report)
        upkeep.dump(args.url, args.directory, args.pg_bin)
        upkeep.today(db, duck, args.directory, args.onto, persons, args.rounds)
    for line in wrong:
        print(f"\nWRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
