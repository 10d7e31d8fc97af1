"""What a refresh costs beside the same query in a plain INSERT ... SELECT, for one big date and for a month of
dates."""

import datetime
import statistics
import time

from events import START, generate, progress
from rollups import FINE_KEY, SESSIONS_KEY, create_model, fine_query, sessions_query

MODELS = {
    "rollup": (fine_query, FINE_KEY, 0, 0),
    "sessions": (sessions_query, SESSIONS_KEY, 1, 2),
}


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def literal(query: str, date) -> str:
    return query.replace("$1", f"date '{date}'").replace("$2", f"date '{date + datetime.timedelta(1)}'")


def dates_of(days: int) -> list:
    # Newest first, as refresh does it.
    return [START + datetime.timedelta(n) for n in reversed(range(days))]


def write_by_hand(db, model: str, table: str, query: str, dates: list, delete: bool) -> None:
    columns = db.execute("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
                         "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                         (model,)).fetchone()[0]
    for date in dates:
        with db.transaction():
            if delete:
                db.execute(f"DELETE FROM {table} WHERE event_date = '{date}'")
            db.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM ({literal(query, date)}) AS q "
                       f"WHERE q.event_date = '{date}'")


def shares(db, name: str, date) -> str:
    """Where the time of a refresh that changes nothing goes, by EXPLAIN (ANALYZE) of the statement that it runs."""
    statement = db.execute("SELECT tidemark_internal.model_statement(m, 'diff') FROM tidemark_internal.models m "
                           "WHERE m.name = %s", (name,)).fetchone()[0]
    with db.transaction(force_rollback=True):
        plan = db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {literal(statement, date)}").fetchone()[0][0]
    parts = {node["Subplan Name"]: node["Actual Total Time"] for node in plan["Plan"]["Plans"] if "Subplan Name" in node}
    total, query = plan["Execution Time"], parts["CTE new"]
    wrong = max(0.0, parts.get("CTE wrong", 0.0))
    difference = max(0.0, parts["CTE diff"] - query)
    return (f"query {100 * query / total:.0f} %, look for doubled keys {100 * wrong / total:.0f} %, "
            f"compare with the stored rows {100 * difference / total:.0f} %, of {total / 1000:.2f} s")


def one(db, shape: str, days: int, kind: str, rounds: int) -> None:
    make, key, back, ahead = MODELS[kind]
    model, hand, query = f"bench.{kind}", f"bench.{kind}_by_hand", make("bench.events")
    dates = dates_of(days)
    # By hand the very dates that a refresh recomputes, also those before and after on which nothing comes out.
    reached = [dates[0] + datetime.timedelta(n) for n in range(back, 0, -1)] + dates + [dates[-1] - datetime.timedelta(n + 1) for n in range(ahead)]
    seconds = {}
    db.execute("SELECT count(*) FROM bench.events")  # into the cache

    def note(what, work):
        seconds.setdefault(what, []).append(timed(work))
        progress(f"    {shape}, {kind}: {what}: {seconds[what][-1]:.2f} s")

    def mark():
        db.execute("SELECT tidemark.mark_dirty('bench.events', %s)", (dates,))

    def refresh():
        db.execute(f"CALL tidemark.refresh('{model}')")

    for _ in range(rounds):
        create_model(db, model, "bench.events", query, key, back, ahead)
        db.execute(f"DROP TABLE IF EXISTS {hand}; CREATE TABLE {hand} (LIKE {model} INCLUDING ALL)")
        note("INSERT ... SELECT by hand, empty table", lambda: write_by_hand(db, model, hand, query, reached, False))
        note("first refresh", refresh)
        db.execute(f"ANALYZE {model}")
        note("DELETE and INSERT by hand, nothing changed", lambda: write_by_hand(db, model, hand, query, reached, True))
        mark()
        note("refresh of all dates again, nothing changed", refresh)
        late = dates[len(dates) // 2]
        db.execute("INSERT INTO bench.events VALUES (%s, 5, 100, 'page_viewed', 'DE', 'web')", (f"{late} 12:00Z",))
        before = db.execute("SELECT sum(refresh_count) FROM tidemark.model_status").fetchone()[0]
        db.execute("SELECT tidemark.mark_dirty('bench.events', %s)", ([late],))
        note("refresh after one late event", refresh)
        recomputed = db.execute("SELECT sum(refresh_count) FROM tidemark.model_status").fetchone()[0] - before
        note("refresh with nothing to do", refresh)
        where = shares(db, model, late)
        rows = db.execute(f"SELECT count(*) FROM {model}").fetchone()[0]
        wrong = db.execute("SELECT count(*) FROM tidemark.verify_model(%s, %s, %s) WHERE status <> 'ok'",
                           (model, late, late)).fetchone()[0]
        if wrong:
            raise SystemExit(f"{model} is not what its query returns")
        db.execute("SELECT tidemark.drop_model(%s, true)", (model,))
        db.execute(f"DROP TABLE {hand}")

    floor = seconds["INSERT ... SELECT by hand, empty table"]
    print(f"\n### {shape}, {kind}: {rows:,} rows; {len(reached)} dates, {recomputed} after the late event\n\n| what | seconds | times the INSERT |\n|---|---:|---:|")
    for what, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, floor))
        print(f"| {what} | {statistics.median(times):.2f} | {ratio:.2f} |")
    print(f"\nA refresh of one date: {where}.", flush=True)


def refresh_costs(database, args) -> None:
    print(f"\n## Refresh beside INSERT ... SELECT\n\nMedians of {args.rounds}; the ratio is that of pairs in one round.")
    for shape, days in (("one date", 1), ("a month", 30)):
        with database("bench_refresh") as at:
            at.db.execute("CREATE EXTENSION tidemark")
            generate(at.db, "bench.events", args.refresh_events, days, max(1000, args.refresh_events // 50), args.seed)
            for kind in MODELS:
                one(at.db, shape, days, kind, args.rounds)
