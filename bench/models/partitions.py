"""What daily partitions cost, by tidemark.ensure_partitions and by CREATE, index and ATTACH, as their number grows."""

import datetime
import statistics
import time

from events import progress

FIRST = datetime.date(2015, 1, 1)
STEP = 100

PLAIN = """CREATE PROCEDURE bench.plain(dates date[]) LANGUAGE plpgsql AS $$
DECLARE
    day date;
    child text;
BEGIN
    FOREACH day IN ARRAY dates LOOP
        child := format('bench.plain_p%s', to_char(day, 'YYYYMMDD'));
        EXECUTE format('CREATE TABLE %s (LIKE bench.plain INCLUDING ALL)', child);
        EXECUTE format('CREATE UNIQUE INDEX ON %s (event_id)', child);
        EXECUTE format('ALTER TABLE bench.plain ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
                       child, day || ' 00:00Z', day + 1 || ' 00:00Z');
    END LOOP;
END $$"""


def timed(db, sql: str, dates: list) -> float:
    began = time.perf_counter()
    db.execute(sql, (dates,))
    return time.perf_counter() - began


def row(what: str, pairs: list) -> str:
    ours, plain = (statistics.median(side) for side in zip(*pairs))
    return f"| {what} | {ours:.2f} | {plain:.2f} | {statistics.median(a / b for a, b in pairs):.2f} |"


def partitions(db, args) -> None:
    db.execute("CREATE SCHEMA bench")
    for table in ("ours", "plain"):
        db.execute(f"""CREATE TABLE bench.{table} (event_id uuid NOT NULL, event_time timestamptz NOT NULL, user_id text, payload jsonb NOT NULL,
                           event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED) PARTITION BY RANGE (event_time)""")
        db.execute(f"CREATE INDEX ON bench.{table} (user_id, event_time)")
    db.execute("SELECT tidemark.manage_partitions('bench.ours', 0, partition_unique => '{event_id}')")
    db.execute(PLAIN)
    pairs = []
    for n in range(0, args.partitions + args.new_partitions, STEP):
        dates = [FIRST + datetime.timedelta(n + k) for k in range(STEP)]
        works = [lambda: timed(db, "SELECT FROM tidemark.ensure_partitions('bench.ours', %s::date[])", dates),
                 lambda: timed(db, "CALL bench.plain(%s::date[])", dates)]
        # Whoever comes second finds the catalogs grown: by turns.
        first = (n // STEP) % 2
        seconds = {first: works[first](), 1 - first: works[1 - first]()}
        pairs.append((seconds[0], seconds[1]))
        progress(f"    partitions {n + 1} to {n + STEP}: {seconds[0]:.2f} s, plain {seconds[1]:.2f} s")
    made = [db.execute("SELECT count(*) FROM tidemark_internal.partition_bounds(%s::regclass) WHERE from_time <= %s", (f"bench.{table}", dates[-1])).fetchone()[0]
            for table in ("ours", "plain")]
    if made[0] != made[1]:
        raise SystemExit(f"{made[0]} and {made[1]} partitions of the same dates")

    print(f"\n## Partitions\n\nSeconds for {STEP} partitions, one transaction, each table by turns; medians, and of the ratios of pairs.\n")
    print("| beside so many | `ensure_partitions` | CREATE, index, ATTACH | times |\n|---|---:|---:|---:|")
    for at in range(0, len(pairs), 5):
        print(row(f"{at * STEP:,} to {(min(at + 5, len(pairs))) * STEP:,}", pairs[at:at + 5]))
    new = pairs[args.partitions // STEP:]
    print(row(f"**{args.new_partitions:,} new beside {args.partitions:,}**", new))
    print(f"\nThe {args.new_partitions:,} new ones together: {sum(a for a, _ in new):.1f} s, plain {sum(b for _, b in new):.1f} s.", flush=True)
