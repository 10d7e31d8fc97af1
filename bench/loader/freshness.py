"""From produce to dashboard: a paced producer, `tidemark run` with its own maintenance, and readers of bronze, silver and gold.

Called by scripts/bench-freshness.sh, which starts the servers. Two runs: one in which models are refreshed as the loader does
by default, one in which nothing is refreshed and a dashboard asks the live view again and again. Waits count from produce():

bronze   until the offset of the record is committed
silver   until the refresh of silver.events that has it is committed
gold     until gold.daily_actives counts it (records are counted in the order in which they were produced)
live     until an answer of gold.daily_actives_live counts it: the time that the answer takes is in it
"""

import argparse
import sys
import threading
import time

import psycopg

from events import CASES, PARTITIONS, produce
from pace import Pace, quantiles
from runs import Servers

GOLD = "SELECT coalesce(sum(events), 0)::bigint FROM gold.daily_actives"
# All that a dashboard shows of it, so that nothing is left out of the computation.
LIVE = """SELECT coalesce(sum(events), 0)::bigint, sum(active_persons), sum(page_views), sum(purchases),
                 max(last_event_at)
            FROM gold.daily_actives_live WHERE event_date >= (now() AT TIME ZONE 'UTC')::date - 1"""
SILVER = """SELECT coalesce(sum(rows_inserted - rows_deleted), 0)::bigint FROM tidemark.refresh_log
             WHERE model = 'silver.events'"""


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Watch:
    """One thing that is looked at: how many of the records it has, and the wait of each record."""

    def __init__(self, pace: Pace, skip: int):
        self.pace, self.count, self.skip, self.waits = pace, skip, skip, []

    def saw(self, count: int) -> None:
        now = time.monotonic()
        for n in range(self.count - self.skip, min(count - self.skip, len(self.pace.times))):
            if self.pace.times[n] - self.pace.began > 10:  # the group forms in the first ten seconds
                self.waits.append(now - self.pace.times[n])
        self.count = max(self.count, count)


def preload(servers: Servers, count: int) -> None:
    """So many events on today's date before the run, through the loader, and refreshed."""
    topic = f"preload-{time.time_ns()}"
    produce(servers.args.brokers, topic, count, CASES["v4"])
    servers.tidemark("run", "bench", "--brokers", servers.args.brokers, "--topic", topic, "--until-caught-up", "--maintain-every", "off", check=True)
    # Everything that is done for the first time only, who everybody is among it, is done now.
    servers.tidemark("maintain", "bench", check=True)


def run(servers: Servers, live: bool) -> None:
    args = servers.args
    servers.fresh("bench", CASES["v4"])
    if args.preload:
        preload(servers, args.preload)
    pace = Pace(args.brokers, args.rate, args.seconds + 10)
    flags = ["--maintain-every", "off"] if live else ["--maintain-every", args.maintain_every] if args.maintain_every else []
    with psycopg.connect(servers.url("bench"), autocommit=True) as db, psycopg.connect(servers.url("bench"), autocommit=True) as other:
        gold_before, silver_before = db.execute(LIVE if live else GOLD).fetchone()[0], db.execute(SILVER).fetchone()[0]
        logged = db.execute("SELECT coalesce(max(id), 0) FROM tidemark.refresh_log").fetchone()[0]
        process = servers.tidemark("run", "bench", "--brokers", args.brokers, "--topic", pace.topic, *flags)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        bronze, silver, gold = Watch(pace, 0), Watch(pace, silver_before), Watch(pace, gold_before)
        answers = []

        def ask() -> None:
            while not pace.done.is_set():
                began = time.monotonic()
                gold.saw(other.execute(LIVE).fetchone()[0])
                answers.append(time.monotonic() - began)
                progress(f"    live view: {gold.count - gold_before:,} events in {answers[-1]:.1f} s")
                time.sleep(args.live_pause)

        began = pace.start()
        asking = threading.Thread(target=ask, daemon=True)
        if live:
            asking.start()
        told = began
        while True:
            # A record that waits for one partition holds up the count of those behind it in the others: the slowest counts.
            offsets = dict(db.execute("SELECT partition, next_offset FROM loader.offsets WHERE topic = %s",
                                      (pace.topic,)).fetchall())
            bronze.saw(min(offsets.get(p, 0) for p in range(PARTITIONS)) * PARTITIONS if not pace.done.is_set() else sum(offsets.values()))
            if not live:
                silver.saw(db.execute(SILVER).fetchone()[0])
                gold.saw(db.execute(GOLD).fetchone()[0])
            now = time.monotonic()
            if now - told > 10:
                told = now
                progress(f"    {now - began:.0f} s: {len(pace.times):,} produced, {bronze.count:,} in bronze, "
                         f"{silver.count - silver_before:,} in silver, {gold.count - gold_before:,} in gold")
            if pace.done.is_set() and bronze.count >= len(pace.times) and (live or gold.count - gold_before >= len(pace.times)):
                break
            if now - began > args.seconds + 600:
                break
            time.sleep(0.02)
        pace.thread.join()
        if live:
            asking.join()
        process.terminate()
        process.wait()
        how = "asked from the live view, nothing refreshed" if live else f"refreshed every {args.maintain_every or '(default)'}"
        print(f"\n### {args.rate:,} events/s for {args.seconds} s, {args.preload:,} events there before, {how}\n")
        for name, watch in (("bronze", bronze), ("live view", gold)) if live else (("bronze", bronze), ("silver.events", silver), ("gold.daily_actives", gold)):
            print(f"* {name}: {quantiles(watch.waits) if watch.waits else 'nothing became visible'} ({len(watch.waits):,} of {len(pace.times):,} events)")
        if live and answers:
            print(f"* the {len(answers)} answers of the live view took {min(answers):.1f} to {max(answers):.1f} s")
        if not live:
            print("\n| model | way | refreshes | mean s | last s |\n|---|---|---:|---:|---:|")
            for row in db.execute("""SELECT model, way, count(*), avg(seconds)::float8,
                                            (array_agg(seconds ORDER BY id DESC))[1]::float8 FROM tidemark.refresh_log
                                      WHERE id > %s GROUP BY 1, 2 ORDER BY sum(seconds) DESC""", (logged,)):
                print("| `{}` | {} | {} | {:.2f} | {:.2f} |".format(*row))
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-freshness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="superuser URL of the private Postgres, without a database")
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--tidemark", required=True, help="the release binary")
    parser.add_argument("--rate", type=int, default=11_500, help="events a second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--preload", type=int, default=0, help="events of the last two days that are loaded and refreshed before")
    parser.add_argument("--maintain-every", default="", help="instead of the default of tidemark run")
    parser.add_argument("--live-pause", type=float, default=1.0, help="seconds between two questions to the live view")
    parser.add_argument("--only", choices=("refresh", "live"))
    args = parser.parse_args()
    servers = Servers(args)
    servers.print_settings()
    for live in (False, True):
        if args.only in (None, "live" if live else "refresh"):
            run(servers, live)
    return 0


if __name__ == "__main__":
    sys.exit(main())
