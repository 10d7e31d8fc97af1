"""The engines: how each gets the events, runs a query, and (Postgres) what it cost in memory. Nothing about cases here."""

import io
import os
import threading
import time

import numpy as np
import psycopg

from data import TYPES, Events, user_ids

SETTINGS = ("server_version", "shared_buffers", "hash_mem_multiplier", "max_parallel_workers_per_gather", "jit")


def _copy_rows(events: Events, ids: str):
    users = user_ids(events, ids)
    times = events.time.astype("datetime64[us]")
    for start in range(0, len(events), 200_000):
        part = slice(start, start + 200_000)
        lines = (f"{u}\t{t}Z\t{TYPES[k]}\t{v}\n" for u, t, k, v in
                 zip(users[part].tolist(), np.datetime_as_string(times[part]), events.type[part].tolist(), events.value[part].tolist()))
        yield "".join(lines)


class Postgres:
    name = "postgres"

    def __init__(self, url: str, parallel: int):
        self.url = url
        self.db = psycopg.connect(self.url, autocommit=True)
        for setting, value in (("max_parallel_workers_per_gather", parallel), ("timezone", "UTC")):
            self.db.execute(f"SET {setting} = '{value}'")

    def set_work_mem(self, value: str) -> None:
        self.db.execute(f"SET work_mem = '{value}'")

    def settings(self) -> str:
        return ", ".join(f"{n} {self.db.execute(f'SHOW {n}').fetchone()[0]}" for n in SETTINGS)

    def load(self, events: Events, ids: str) -> None:
        self.db.execute("DROP TABLE IF EXISTS events")
        self.db.execute(f"CREATE TABLE events (user_id {ids} NOT NULL, event_time timestamptz NOT NULL, "
                        "event_type text NOT NULL, value float8 NOT NULL)")
        with self.db.cursor().copy("COPY events FROM STDIN") as copy:
            for rows in _copy_rows(events, ids):
                copy.write(rows)
        self.db.execute("VACUUM (ANALYZE, FREEZE) events")

    def run(self, sql: str):
        return self.db.execute(sql).fetchone()

    def plan(self, sql: str) -> list:
        return [row[0] for row in self.db.execute("EXPLAIN (COSTS OFF) " + sql).fetchall()]

    def memory(self, sql: str, work_mem: str):
        """Private memory of a fresh backend at its highest during the query, less what it held before; and its temp files."""
        with psycopg.connect(self.url, autocommit=True) as db:
            pid = db.execute("SELECT pg_backend_pid() "
                             f"FROM (SELECT set_config('work_mem', '{work_mem}', false)) AS s").fetchone()[0]
            db.execute("SET max_parallel_workers_per_gather = 0")
            db.execute("SET timezone = 'UTC'")
            temporary = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
            db.execute("SELECT pg_stat_force_next_flush()")
            before, written = anonymous(pid), db.execute(temporary).fetchone()[0]
            peak, done = [before], threading.Event()

            def watch():
                while not done.is_set():
                    peak[0] = max(peak[0], anonymous(pid))
                    time.sleep(0.005)

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                db.execute(sql).fetchone()
            finally:
                done.set()
                watcher.join()
            db.execute("SELECT pg_stat_force_next_flush()")
            db.execute("SELECT pg_stat_clear_snapshot()")
            return (peak[0] - before) / 2**20, (db.execute(temporary).fetchone()[0] - written) / 2**20


def anonymous(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


class ClickHouse:
    name = "clickhouse"

    def __init__(self, directory: str, threads: int):
        from chdb import session
        self.session = session.Session(os.path.join(directory, "chdb"))
        self.session.query(f"SET max_threads = {threads}")
        self.threads = threads

    def load(self, events: Events, ids: str) -> None:
        users = user_ids(events, ids)
        kind = "String" if ids == "text" else "Int64"
        self.session.query("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
        self.session.query("USE bench")
        self.session.query("DROP TABLE IF EXISTS events SYNC")
        self.session.query(f"CREATE TABLE events (user_id {kind}, event_time UInt64, "
                           "event_type LowCardinality(String), value Float64) ENGINE = MergeTree ORDER BY event_time")
        path = "/dev/shm/tidemark-bench.tsv"
        try:
            with open(path, "w") as file:
                for start in range(0, len(events), 200_000):
                    part = slice(start, start + 200_000)
                    file.write("".join(f"{u}\t{t}\t{TYPES[k]}\t{v}\n" for u, t, k, v in
                                       zip(users[part].tolist(), events.time[part].tolist(), events.type[part].tolist(), events.value[part].tolist())))
            self.session.query(f"INSERT INTO events SELECT * FROM file('{path}', 'TSV', "
                               f"'user_id {kind}, event_time UInt64, event_type String, value Float64')")
        finally:
            if os.path.exists(path):
                os.unlink(path)
        self.session.query("OPTIMIZE TABLE events FINAL")

    def run(self, sql: str):
        text = str(self.session.query(f"{sql} SETTINGS max_threads = {self.threads}", "TabSeparated")).strip()
        return tuple(int(float(x)) for x in text.split("\t"))


class DuckDB:
    name = "duckdb"

    def __init__(self, directory: str, threads: int):
        import duckdb
        self.db = duckdb.connect(os.path.join(directory, "bench.duckdb"))
        self.db.execute(f"SET threads = {threads}")
        self.db.execute("SET TimeZone = 'UTC'")

    def load(self, events: Events, ids: str) -> None:
        kind = "VARCHAR" if ids == "text" else "BIGINT"
        users, times, names, values = user_ids(events, ids), events.time, np.array(TYPES)[events.type], events.value
        columns = {"user_id": users.astype(object) if ids == "text" else users, "event_time": times, "event_type": names.astype(object), "value": values}
        # Without a time zone: its differences of TIMESTAMPTZ go through ICU and would take ten times as long.
        self.db.execute("DROP TABLE IF EXISTS events")
        self.db.register("columns", columns)
        self.db.execute(f"CREATE TABLE events AS SELECT user_id::{kind} AS user_id, "
                        "make_timestamp(event_time) AS event_time, event_type::VARCHAR AS event_type, value "
                        "FROM columns")
        self.db.unregister("columns")

    def run(self, sql: str):
        return self.db.execute(sql).fetchone()
