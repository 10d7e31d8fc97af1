"""How aggregates grow: the same questions on a part of the dates of one table, up to all of them."""

import datetime
import time

from events import START, progress

GAP = "interval '30 minutes'"
STEPS = "event_type = 'page_viewed', event_type = 'product_added', event_type = 'order_completed'"


def questions(end: str) -> dict:
    where = f"FROM bench.events WHERE event_time < '{end} 00:00Z'"
    third = (datetime.date.fromisoformat(end) - START) / 3
    cuts = [f"'{START + third * n} 00:00Z'" for n in (1, 2)]
    return {
        "count(*)": f"SELECT count(*) {where}",
        "count(*) GROUP BY user_id": f"SELECT count(*) FROM (SELECT count(*) {where} GROUP BY user_id) AS x",
        "tidemark.session_count": f"SELECT sum(n) FROM (SELECT tidemark.session_count(event_time, {GAP}) AS n {where} "
                                  "GROUP BY user_id) AS x",
        "tidemark.sessions": "SELECT sum(cardinality(s)) "
                             f"FROM (SELECT tidemark.sessions(event_time, {GAP}) AS s {where} GROUP BY user_id) AS x",
        "tidemark.funnel, 3 steps": "SELECT count(*) FILTER (WHERE cardinality(f) = 3) FROM ("
                                    f"SELECT tidemark.funnel(interval '7 days', event_time, {STEPS}) AS f {where} "
                                    "GROUP BY user_id) AS x",
        "tidemark.retention, 3 periods": f"""SELECT count(*) FILTER (WHERE r[3])
              FROM (SELECT tidemark.retention(event_time < {cuts[0]},
                               event_time >= {cuts[0]} AND event_time < {cuts[1]}, event_time >= {cuts[1]}) AS r
                      {where} GROUP BY user_id) AS x""",
        "tidemark.hll_agg by date and type": f"""SELECT sum(n)
              FROM (SELECT tidemark.hll_cardinality(tidemark.hll_agg(user_id)) AS n {where}
                     GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS x""",
        "count(DISTINCT user_id) by date and type": f"""SELECT sum(n)
              FROM (SELECT count(DISTINCT user_id) AS n {where}
                     GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS x""",
    }


def growth(db, args) -> None:
    print("\n## Growth")
    sizes = []  # dates whose events are about 1, 10, 100 ... million
    per_day = args.events / args.days
    for target in (1_000_000, 10_000_000, 100_000_000):
        days = min(args.days, max(1, round(target / per_day)))
        if days not in sizes:
            sizes.append(days)
    results = {}
    heads = []
    for days in sizes:
        end = str(START + datetime.timedelta(days))
        events, users = db.execute("SELECT count(*), count(DISTINCT user_id) FROM bench.events "
                                   f"WHERE event_time < '{end} 00:00Z'").fetchone()
        heads.append((days, events, users))
        for title, sql in questions(end).items():
            if not any(part.strip() in title for part in args.questions.split(",")):
                continue
            times = []
            for _ in range(args.rounds):
                began = time.perf_counter()
                db.execute(sql).fetchall()
                times.append(time.perf_counter() - began)
            seconds = sorted(times)[len(times) // 2]
            results.setdefault(title, []).append((seconds, events))
            progress(f"    {days} dates: {title}: {seconds:.2f} s")
    print("\n" + "; ".join(f"{days} dates: {events:,} events, {users:,} users" for days, events, users in heads) + f". Seconds (and seconds a million events), medians of {args.rounds}.\n")
    print("| question | " + " | ".join(f"{events / 1e6:,.1f} M events" for _, events, _ in heads) + " |\n|---|" + "---:|" * len(heads))
    for title, cells in results.items():
        print(f"| {title} | " + " | ".join(f"{s:.2f} ({s / (n / 1e6):.3f})" for s, n in cells) + " |", flush=True)
