"""Postgres with the extension, embedded ClickHouse with two orders of rows, and DuckDB: each answers SQL with rows."""

import os
import time

import duckdb
import psycopg

import data

CLICKHOUSE = ("event_date Date, time DateTime64(3, 'UTC'), person String, event_type LowCardinality(String), platform LowCardinality(String), "
              "country LowCardinality(Nullable(String)), page_path LowCardinality(Nullable(String)), campaign LowCardinality(String)")
NAMES = "event_date, time, person, event_type, platform, country, page_path, campaign"


class Postgres:
    def __init__(self, url: str):
        self.connection = psycopg.connect(url, autocommit=True)
        for setting in ("timezone = 'UTC'", "max_parallel_workers_per_gather = 0", "work_mem = '512MB'", "jit = off"):
            self.connection.execute(f"SET {setting}")
        self.pid = self.connection.info.backend_pid

    def cpu(self) -> float:
        """Seconds of the processor that the backend has had."""
        with open(f"/proc/{self.pid}/schedstat") as schedule:
            return int(schedule.read().split()[0]) / 1e9

    def execute(self, sql: str, values=None):
        return self.connection.execute(sql, values)

    def run(self, *statements: str) -> None:
        """Each in a transaction of its own, as CALL and VACUUM want it."""
        for statement in statements:
            self.execute(statement)

    def rows(self, sql: str, threads: int = 1) -> list:
        return self.execute(sql).fetchall()

    def one(self, sql: str, values=None) -> tuple:
        return self.execute(sql, values).fetchone()

    def load(self, table: str, file: str) -> None:
        """Makes a table of a file, its pages as a VACUUM would leave them."""
        with self.connection.transaction():
            self.execute(f"CREATE TABLE {table} ({data.COLUMNS})")
            self.copy(table, file, " WITH (FREEZE)")
        self.execute(f"CREATE INDEX ON {table} (event_date)")
        self.execute(f"VACUUM (ANALYZE) {table}")

    def copy(self, table: str, file: str, how: str = "") -> None:
        with open(file, "rb") as rows, self.connection.cursor().copy(f"COPY {table} FROM STDIN{how}") as copy:
            while part := rows.read(1 << 20):
                copy.write(part)


class Embedded:
    """In this process, with threads of its own."""

    cpu = staticmethod(time.process_time)


class ClickHouse(Embedded):
    """`eu` is ordered by person and time, `et` by type, date, person and time."""

    def __init__(self, directory: str, file: str):
        from chdb import session
        self.session = session.Session(os.path.join(directory, "chdb"))
        self.session.query("CREATE DATABASE b ENGINE = Atomic")
        self.session.query("USE b")
        columns = CLICKHOUSE.replace("'", "\\'")
        for name, order in (("eu", "person, time"), ("et", "event_type, event_date, person, time")):
            self.session.query(f"CREATE TABLE {name} ({CLICKHOUSE}, ms UInt64 MATERIALIZED toUnixTimestamp64Milli(time)) "
                               f"ENGINE = MergeTree ORDER BY ({order})")
            self.session.query(f"INSERT INTO {name} ({NAMES}) SELECT * FROM file('{file}', 'TSV', '{columns}')")
            self.session.query(f"OPTIMIZE TABLE {name} FINAL")

    def rows(self, sql: str, threads: int = 1) -> list:
        sql += (", " if "SETTINGS" in sql else " SETTINGS ") + f"max_threads = {threads}"
        return [line.split("\t") for line in str(self.session.query(sql, "TabSeparated")).splitlines()]


class DuckDB(Embedded):
    def __init__(self):
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    def rows(self, sql: str, threads: int = 1) -> list:
        self.connection.execute(f"SET threads = {threads}")
        return self.connection.execute(sql).fetchall()
