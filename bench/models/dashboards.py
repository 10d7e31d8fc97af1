"""What dashboards ask, from the rollups, many times each; and the same from the raw events for comparison."""

import datetime
import random
import time

from events import START, TYPES, generate, progress
from rollups import DAILY_KEY, FINE_KEY, create_model, daily_query, fine_query

# {to}: the last date, which moves from run to run; {from7}, {from28}, {from90}: so many days up to it; {type}, {platform}.
# Beside it: the question on the raw events, and how the answers are compared (the column that both have at that place).
QUERIES = {
    "daily actives of 90 days": ("""
        SELECT event_date, tidemark.hll_cardinality(users) FROM bench.daily
         WHERE grain = 'total' AND event_date BETWEEN '{from90}' AND '{to}' ORDER BY 1""", """
        SELECT d, count(*) FROM (SELECT DISTINCT (event_time AT TIME ZONE 'UTC')::date AS d, user_id FROM bench.events
            WHERE event_time >= '{from90} 00:00Z' AND event_time < '{end} 00:00Z') AS x GROUP BY d ORDER BY d"""),
    "weekly actives of 90 days": ("""
        SELECT date_trunc('week', event_date)::date, tidemark.hll_cardinality(tidemark.hll_union_agg(users))
          FROM bench.daily
         WHERE grain = 'total' AND event_date BETWEEN '{from90}' AND '{to}' GROUP BY 1 ORDER BY 1""", """
        SELECT w, count(*)
          FROM (SELECT DISTINCT date_trunc('week', event_time AT TIME ZONE 'UTC')::date AS w, user_id FROM bench.events
            WHERE event_time >= '{from90} 00:00Z' AND event_time < '{end} 00:00Z') AS x GROUP BY w ORDER BY w"""),
    "distinct users of 90 days, one number": ("""
        SELECT 1, tidemark.hll_cardinality(tidemark.hll_union_agg(users)) FROM bench.daily
         WHERE grain = 'total' AND event_date BETWEEN '{from90}' AND '{to}'""", """
        SELECT 1, count(*) FROM (SELECT DISTINCT user_id FROM bench.events
            WHERE event_time >= '{from90} 00:00Z' AND event_time < '{end} 00:00Z') AS x"""),
    "stickiness: DAU / WAU / MAU of the last 28 days": ("""
        SELECT d.event_date, tidemark.hll_cardinality(d.users),
               (SELECT tidemark.hll_cardinality(tidemark.hll_union_agg(w.users)) FROM bench.daily w
                 WHERE w.grain = 'total' AND w.event_date BETWEEN d.event_date - 6 AND d.event_date),
               (SELECT tidemark.hll_cardinality(tidemark.hll_union_agg(m.users)) FROM bench.daily m
                 WHERE m.grain = 'total' AND m.event_date BETWEEN d.event_date - 27 AND d.event_date)
          FROM bench.daily d WHERE d.grain = 'total' AND d.event_date BETWEEN '{from28}' AND '{to}'
         ORDER BY 1""", None),
    "top 10 countries of 28 days by users": ("""
        SELECT value, tidemark.hll_cardinality(tidemark.hll_union_agg(users)) AS n, sum(events) FROM bench.daily
         WHERE grain = 'country' AND event_date BETWEEN '{from28}' AND '{to}'
         GROUP BY 1 ORDER BY n DESC LIMIT 10""", """
        SELECT country, count(*) AS n FROM (SELECT DISTINCT country, user_id FROM bench.events
            WHERE event_time >= '{from28} 00:00Z' AND event_time < '{end} 00:00Z') AS x
            GROUP BY 1 ORDER BY n DESC LIMIT 10"""),
    "top event types of 7 days": ("""
        SELECT value, sum(events)::bigint AS n, tidemark.hll_cardinality(tidemark.hll_union_agg(users)) FROM bench.daily
         WHERE grain = 'type' AND event_date BETWEEN '{from7}' AND '{to}' GROUP BY 1 ORDER BY n DESC""", """
        SELECT event_type, count(*) AS n FROM bench.events
         WHERE event_time >= '{from7} 00:00Z' AND event_time < '{end} 00:00Z' GROUP BY 1 ORDER BY n DESC"""),
    "p95 of latency by day, 90 days": ("""
        SELECT event_date, tidemark.ddsketch_quantile(latency, 0.95) FROM bench.daily
         WHERE grain = 'total' AND event_date BETWEEN '{from90}' AND '{to}' ORDER BY 1""", None),
    "p95 of latency by platform, 7 days": ("""
        SELECT value, tidemark.ddsketch_quantile(tidemark.ddsketch_union_agg(latency), 0.95) FROM bench.daily
         WHERE grain = 'platform' AND event_date BETWEEN '{from7}' AND '{to}' GROUP BY 1 ORDER BY 1""", """
        SELECT platform, percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) FROM bench.events
         WHERE event_time >= '{from7} 00:00Z' AND event_time < '{end} 00:00Z' GROUP BY 1 ORDER BY 1"""),
    "drill down: a type on a platform by day, 28 days": ("""
        SELECT event_date, tidemark.hll_cardinality(tidemark.hll_union_agg(users)), sum(events),
               tidemark.ddsketch_quantile(tidemark.ddsketch_union_agg(latency), 0.95) FROM bench.fine
         WHERE event_type = '{type}' AND platform = '{platform}' AND event_date BETWEEN '{from28}' AND '{to}'
         GROUP BY 1 ORDER BY 1""", """
        SELECT d, count(*) FROM (SELECT DISTINCT (event_time AT TIME ZONE 'UTC')::date AS d, user_id FROM bench.events
            WHERE event_type = '{type}' AND platform = '{platform}' AND event_time >= '{from28} 00:00Z'
              AND event_time < '{end} 00:00Z') AS x
         GROUP BY d ORDER BY d"""),
}


def values(last: datetime.date, dice: random.Random) -> dict:
    def back(n):
        return last - datetime.timedelta(n - 1)
    return {"to": last, "end": last + datetime.timedelta(1), "from7": back(7), "from28": back(28), "from90": back(90),
            "type": dice.choice(TYPES[:4]), "platform": dice.choice(("web", "ios", "android"))}


def refresh(db, models: list) -> None:
    print("\n| model | dates | rows | seconds of the refresh | size MiB |\n|---|---:|---:|---:|---:|")
    for model in models:
        began = time.monotonic()
        db.execute(f"CALL tidemark.refresh('{model}')")
        seconds = time.monotonic() - began
        db.execute(f"VACUUM ANALYZE {model}")
        dates, rows, size = db.execute("SELECT count(DISTINCT event_date), count(*), "
                                       f"pg_total_relation_size('{model}') FROM {model}").fetchone()
        print(f"| `{model}` | {dates} | {rows:,} | {seconds:,.1f} | {size / 2**20:,.1f} |", flush=True)


def prepare(db, args) -> None:
    generate(db, "bench.events", args.events, args.days, args.users, args.seed)


def error(ours: list, exact: list) -> str:
    """The largest and the mean relative difference of the second column, rows matched by the first."""
    mine = {row[0]: float(row[1]) for row in ours}
    off = [abs(mine[row[0]] - float(row[1])) / float(row[1]) for row in exact if row[0] in mine and row[1]]
    return f"{100 * sum(off) / len(off):.2f} %, at most {100 * max(off):.2f} %" if off else "nothing in common"


def dashboards(db, args) -> None:
    print("\n## Dashboards over rollups")
    create_model(db, "bench.fine", "bench.events", fine_query("bench.events"), FINE_KEY)
    create_model(db, "bench.daily", "bench.fine", daily_query("bench.fine"), DAILY_KEY)
    refresh(db, ["bench.fine", "bench.daily"])
    print(f"\nThe questions, {args.runs} times each, with other dates each time; the same from the raw events {args.raw_runs} times. "
          "The error is that of the estimate against the exact answer.\n")
    print("| question | p50 ms | p95 ms | max ms | raw events, s | raw / p50 | error, mean |\n|---|---:|---:|---:|---:|---:|---|")
    last = START + datetime.timedelta(args.days - 1)
    worst, all_times = 0.0, []
    for title, (sql, raw) in QUERIES.items():
        dice = random.Random(args.seed)
        times = []
        for number in range(args.runs + 1):
            text = sql.format(**values(last - datetime.timedelta(dice.randrange(max(1, min(7, args.days - 90)))), dice))
            began = time.perf_counter()
            db.execute(text).fetchall()
            if number:  # the first one warms the cache
                times.append(time.perf_counter() - began)
        times.sort()
        p50, p95 = (times[min(len(times) - 1, int(len(times) * q))] * 1000 for q in (0.50, 0.95))
        worst, all_times = max(worst, p95), all_times + times
        beside = "| | | "
        if raw and args.raw_runs:
            where = values(last, dice)
            ours, seconds = db.execute(sql.format(**where)).fetchall(), []
            for _ in range(args.raw_runs):
                progress(f"    raw events: {title}")
                began = time.perf_counter()
                exact = db.execute(raw.format(**where)).fetchall()
                seconds.append(time.perf_counter() - began)
            took = sorted(seconds)[len(seconds) // 2]
            beside = f"| {took:.1f} | {took * 1000 / p50:,.0f} | {error(ours, exact)} "
        print(f"| {title} | {p50:.1f} | {p95:.1f} | {times[-1] * 1000:.1f} {beside}|", flush=True)
    all_times.sort()
    print(f"\nAll together: p50 {all_times[len(all_times) // 2] * 1000:.1f} ms, p95 {all_times[int(len(all_times) * 0.95)] * 1000:.1f} ms; "
          f"the slowest question has a p95 of {worst:.1f} ms (goal < 5 s, aim 100 ms)", flush=True)
