"""Narrow events made by Postgres itself, date by date, from a seed: the raw table below the rollups.

A session is a person, a country, a platform, and eight events some seconds apart; persons are skewed, sessions do not
cross midnight. Rows are almost in the order of event time, as a loader brings them. About 64 bytes a row.
"""

import datetime
import sys
import time

START = datetime.date(2026, 6, 1)
TYPES = ("page_viewed", "product_viewed", "searched", "product_added", "clicked", "checkout_started", "signed_up", "order_completed")
PER_SESSION = 8


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def create(db, table: str) -> None:
    db.execute("CREATE SCHEMA IF NOT EXISTS bench")
    db.execute(f"""CREATE TABLE {table} (event_time timestamptz NOT NULL, user_id integer NOT NULL,
                       latency_ms real NOT NULL, event_type text NOT NULL, country text NOT NULL,
                       platform text NOT NULL) PARTITION BY RANGE (event_time)""")


def fill(db, table: str, date: datetime.date, events: int, users: int, seed: int) -> None:
    """The partition of a date and its rows, in one transaction."""
    with db.transaction():
        db.execute("SELECT FROM tidemark.ensure_partitions(%s::regclass, ARRAY[%s::date])", (table, date))
        db.execute("SELECT setseed(%s)", (((seed * 7919 + date.toordinal()) % 1_000_003) / 1_000_003,))
        # LIMIT and not an exact count of sessions: the last one may be shorter. OFFSET 0: a session draws once.
        db.execute(f"""
            INSERT INTO {table}
            SELECT started + (interval '1 second' * (step - 1) * (10 + 70 * random())),
                   user_id, exp(4.6 + 1.6 * (random() + random() + random() - 1.5))::real,
                   (ARRAY{list(TYPES)!r})[1 + floor({len(TYPES)} * power(random(), 1.8))::integer], country, platform
              FROM (SELECT %(from)s::timestamptz + interval '85000 seconds' * n / %(sessions)s AS started,
                           floor(%(users)s * power(random(), 1.6))::integer AS user_id,
                           (ARRAY['US','DE','GB','FR','IN','BR','JP','ES','IT','NL','PL','SE','CA','AU','MX','KR','TR',
                                  'ID','ZA','CH'])[1 + floor(20 * power(random(), 2))::integer] AS country,
                           (ARRAY['web','ios','android'])[1 + floor(3 * power(random(), 1.3))::integer] AS platform
                      FROM generate_series(0, %(sessions)s - 1) AS n OFFSET 0) AS s
             CROSS JOIN generate_series(1, {PER_SESSION}) AS step
             LIMIT %(events)s""",
            {"from": f"{date} 00:00Z", "sessions": -(-events // PER_SESSION), "users": users, "events": events})


def generate(db, table: str, events: int, days: int, users: int, seed: int) -> None:
    create(db, table)
    began = time.monotonic()
    for n in range(days):
        count = events * (n + 1) // days - events * n // days
        fill(db, table, START + datetime.timedelta(n), count, users, seed)
        if n % 10 == 9:
            progress(f"    {table}: {n + 1} of {days} dates, {events * (n + 1) // days:,} events, {time.monotonic() - began:.0f} s")
    db.execute(f"VACUUM (ANALYZE, FREEZE, SKIP_LOCKED) {table}")
    size = db.execute("SELECT sum(pg_total_relation_size(partition)) "
                      "FROM tidemark_internal.partition_bounds(%s::regclass)", (table,)).fetchone()[0]
    print(f"\n`{table}`: {events:,} events of {days} dates, {users:,} users, {size / 2**20:,.0f} MiB, {size / events:.0f} bytes a row; "
          f"made in {time.monotonic() - began:.0f} s", flush=True)
