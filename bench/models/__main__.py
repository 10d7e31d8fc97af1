"""Models measured: dashboards over rollups, growth of aggregates, refresh beside plain INSERT ... SELECT, the warehouse;
and partitions, as their number grows.

Called by scripts/bench-models.sh, which starts the server. Prints Markdown, progress goes to standard error. Each part
has a database of its own, dropped at its end.
"""

import argparse
import os
import sys

import psycopg

from dashboards import dashboards, prepare
from growth import growth
from partitions import partitions
from refresh import refresh_costs
from warehouse import warehouse

PARTS = ("dashboards", "growth", "refresh", "warehouse", "partitions")
SHOWN = ("server_version", "shared_buffers", "work_mem", "max_wal_size", "wal_level", "fsync", "max_parallel_workers_per_gather", "jit")


def connect(url: str, args):
    # Above 5 executions a prepared statement may get a plan for any date; dashboards send text.
    db = psycopg.connect(url, autocommit=True, prepare_threshold=None)
    db.execute(f"SET work_mem = '{args.work_mem}'")
    db.execute("SET timezone = 'UTC'")
    return db


class Database:
    """A database made anew, with the extension, for the time of a `with`."""

    def __init__(self, args, name: str):
        self.args, self.name, self.url = args, name, f"{args.url}/{name}"

    def __enter__(self):
        self.maintenance(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)", f"CREATE DATABASE {self.name} TEMPLATE template0")
        self.db = connect(self.url, self.args)
        return self

    def __exit__(self, *_):
        self.db.close()
        self.maintenance(f"DROP DATABASE {self.name} WITH (FORCE)")

    def maintenance(self, *statements: str) -> None:
        with psycopg.connect(f"{self.args.url}/postgres", autocommit=True) as db:
            for statement in statements:
                db.execute(statement)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-models", description=__doc__)
    parser.add_argument("--url", required=True, help="superuser URL of the private Postgres, without a database")
    parser.add_argument("--tidemark", required=True, help="the release binary")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--events", type=int, default=100_000_000, help="for dashboards and growth")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=30, help="of each dashboard question")
    parser.add_argument("--raw-runs", type=int, default=1, help="of each question on the raw events, 0 to leave it out")
    parser.add_argument("--rounds", type=int, default=1, help="of growth and refresh; the figures are medians")
    parser.add_argument("--questions", default="", help="of growth, only those with one of these words in their titles: sessions,funnel")
    parser.add_argument("--refresh-events", type=int, default=10_000_000, help="of one date, and of a month")
    parser.add_argument("--warehouse-events", type=int, default=1_000_000)
    parser.add_argument("--warehouse-days", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=3000, help="beside which new ones are made")
    parser.add_argument("--new-partitions", type=int, default=1000)
    parser.add_argument("--work-mem", default="64MB")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(unknown)}")

    with psycopg.connect(f"{args.url}/postgres") as db:
        db.execute(f"SET work_mem = '{args.work_mem}'")
        print(f"{os.cpu_count()} cores; " + ", ".join(f"{n} {db.execute(f'SHOW {n}').fetchone()[0]}" for n in SHOWN) + f"; seed {args.seed}", flush=True)
    if {"dashboards", "growth"} & set(parts):
        with Database(args, "bench") as at:
            at.db.execute("CREATE EXTENSION tidemark")
            prepare(at.db, args)
            if "dashboards" in parts:
                dashboards(at.db, args)
            if "growth" in parts:
                growth(at.db, args)
    if "refresh" in parts:
        refresh_costs(lambda name: Database(args, name), args)
    if "warehouse" in parts:
        with Database(args, "warehouse") as at:
            warehouse(at, args)
    if "partitions" in parts:
        with Database(args, "bench_partitions") as at:
            at.db.execute("CREATE EXTENSION tidemark")
            partitions(at.db, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
