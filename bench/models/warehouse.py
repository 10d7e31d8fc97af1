"""The warehouse's own models on generated events: the first build, a build of what is there already, and one late event."""

import os
import subprocess
import time

from events import progress
from refresh import literal, timed



def run(at, *command: str, program: str = "", **more):
    environment = dict(os.environ, TIDEMARK_DATABASE_URL=at.url)
    return subprocess.Popen([at.args.tidemark + program, *command], env=environment, stderr=subprocess.DEVNULL, **more)


def load(at) -> float:
    args = at.args
    if run(at, "migrate", stdout=subprocess.DEVNULL).wait():
        raise SystemExit("tidemark migrate failed")
    began = time.monotonic()
    generator = run(at, "generate", "--events", str(args.warehouse_events), "--days", str(args.warehouse_days),
                    "--users", str(max(1000, args.warehouse_events // 50)), "--seed", str(args.seed), stdout=subprocess.PIPE, program="-shop")
    loader = run(at, "load", "-", stdin=generator.stdout, stdout=subprocess.DEVNULL)
    generator.stdout.close()
    if loader.wait() or generator.wait():
        raise SystemExit("tidemark-shop generate | tidemark load failed")
    return time.monotonic() - began


def by_hand(db, model: str, date) -> tuple:
    """Seconds of the model's query for a date alone (serial, as in an INSERT), and of the INSERT into an empty equal table."""
    query, target = db.execute("SELECT query, target::text FROM tidemark.model_status WHERE model = %s",
                               (model,)).fetchone()
    columns = db.execute("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
                         "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                         (target,)).fetchone()[0]
    selected = f"SELECT {columns} FROM ({literal(query, date)}\n) AS q WHERE q.event_date = '{date}'"
    indexes = db.execute("SELECT pg_get_indexdef(indexrelid) FROM pg_index "
                         "WHERE indrelid = COALESCE((SELECT partition "
                         "FROM tidemark_internal.partition_bounds(%s::regclass) "
                         "WHERE from_time = %s::date::timestamp AT TIME ZONE 'UTC'), %s::regclass)",
                         (target, date, target)).fetchall()
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        alone = timed(lambda: db.execute(f"EXPLAIN (ANALYZE, TIMING off) {selected}"))
        db.execute(f"CREATE TABLE public.by_hand (LIKE {target})")
        for number, (definition,) in enumerate(indexes):
            before, _, after = definition.partition(" USING ")
            db.execute(f"CREATE {'UNIQUE ' if ' UNIQUE ' in before else ''}INDEX ON public.by_hand USING {after}")
        inserted = timed(lambda: db.execute(f"INSERT INTO public.by_hand ({columns}) {selected}"))
    return alone, inserted


def refreshed(db) -> tuple:
    """CALL tidemark.refresh(): its seconds, and by model the dates, the rows written and the seconds."""
    last = db.execute("SELECT coalesce(max(id), 0) FROM tidemark.refresh_log").fetchone()[0]
    seconds = timed(lambda: db.execute("CALL tidemark.refresh()"))
    rows = db.execute("""SELECT model, count(*), sum(rows_inserted + rows_updated + rows_deleted), sum(seconds)::float8
                           FROM tidemark.refresh_log WHERE id > %s GROUP BY 1 ORDER BY min(id)""", (last,)).fetchall()
    return seconds, {model: (dates, written, spent) for model, dates, written, spent in rows}


def warehouse(at, args) -> None:
    print(f"\n## The warehouse\n\n{args.warehouse_events:,} events of {args.warehouse_days} dates, seconds of all dates together.")
    took = load(at)
    db = at.db
    db.execute("ANALYZE")
    progress(f"    loaded in {took:.0f} s")
    first, build = refreshed(db)
    db.execute("ANALYZE")
    progress(f"    first build in {first:.0f} s")
    db.execute("""DO $$ DECLARE s regclass; dates date[]; BEGIN
        FOR s IN SELECT DISTINCT source FROM tidemark_internal.model_sources LOOP
            EXECUTE format('SELECT array_agg(DISTINCT event_date) FROM %s', s) INTO dates;
            PERFORM tidemark.mark_dirty(s, dates, 'benchmark');
        END LOOP; END $$""")
    second, again = refreshed(db)
    progress(f"    nothing changed in {second:.0f} s")
    middle = db.execute("SELECT event_date FROM (SELECT DISTINCT event_date FROM bronze.events) AS d "
                        "ORDER BY 1 OFFSET %s LIMIT 1",
                        (args.warehouse_days // 2,)).fetchone()[0]
    hand = {model: by_hand(db, model, middle) for model in build}
    db.execute("""INSERT INTO bronze.events (event_id, event_time, event_type, user_id, received_at, payload)
                  SELECT gen_random_uuid(), %s::date + time '12:00', 'page_viewed', 'u000001', now(), '{}'""",
               (middle,))
    db.execute("SELECT tidemark.mark_dirty('bronze.events', %s)", ([middle],))
    late, after = refreshed(db)
    rate = args.warehouse_events / args.warehouse_days
    print("\n| model | first build: dates | rows | s | again, nothing changed: s | late event: dates | s | "
          f"{middle}: query alone, s | µs an event | INSERT by hand, s |\n"
          "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for model, (dates, rows, spent) in build.items():
        alone, inserted = hand[model]
        late_dates, _, late_spent = after.get(model, (0, 0, 0.0))
        print(f"| `{model}` | {dates} | {rows:,} | {spent:.2f} | {again[model][2]:.2f} | {late_dates} | {late_spent:.2f} | {alone:.2f} | {alone / rate * 1e6:.1f} | {inserted:.2f} |")
    print(f"| all | {sum(b[0] for b in build.values())} | | {first:.2f} | {second:.2f} | {sum(a[0] for a in after.values())} | {late:.2f} | "
          f"{sum(h[0] for h in hand.values()):.2f} | {sum(h[0] for h in hand.values()) / rate * 1e6:.1f} | {sum(h[1] for h in hand.values()):.2f} |")
    size = db.execute("SELECT sum(pg_total_relation_size(partition)) "
                      "FROM tidemark_internal.partition_bounds('bronze.events')").fetchone()[0]
    print(f"\nLoaded in {took:.0f} s; bronze.events has {size / 2**20:,.0f} MiB.", flush=True)
