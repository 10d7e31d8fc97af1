"""The two engines under comparison and the report: loading rows, asking one query, counting differences.

Nothing here knows a function of either engine; the other modules hold the queries.
"""

import io
import os
import tempfile
import time

import numpy
import psycopg


class Report:
    """One line per check; `differences` decides the exit code."""

    def __init__(self):
        self.compared = 0
        self.differences = 0
        self.started = time.monotonic()

    def line(self, name, compared, differences):
        self.compared += compared
        self.differences += differences
        word = "DIFF" if differences else "ok"
        print(f"{word} {name} compared={compared} differences={differences}", flush=True)

    def check(self, name, holds, detail=""):
        """A single yes or no, with the figures behind it."""
        self.line(name, 1, 0 if holds else 1)
        if detail:
            self.note(detail)

    def note(self, text):
        print(f"    {text}", flush=True)

    def close(self):
        seconds = time.monotonic() - self.started
        self.note(f"{seconds:.0f} s")
        print(f"differential: {self.compared} comparisons, {self.differences} differences", flush=True)
        return 1 if self.differences else 0


class Postgres:
    """A private cluster with tidemark (and, if it is there, postgresql-hll in the schema `peer`)."""

    SERIAL = {"max_parallel_workers_per_gather": "0"}
    PARALLEL = {
        "max_parallel_workers_per_gather": "3",
        "parallel_setup_cost": "0",
        "min_parallel_table_scan_size": "0",
        "parallel_leader_participation": "on",
    }

    def __init__(self, url):
        self.url = url
        self.connection = self.connect()

    def connect(self):
        connection = psycopg.connect(self.url, autocommit=True)
        connection.execute("SET work_mem = '256MB'")
        connection.execute("SET client_min_messages = warning")
        return connection

    def run(self, sql, values=None):
        return self.connection.execute(sql, values)

    def one(self, sql, values=None):
        return self.connection.execute(sql, values).fetchone()[0]

    def configure(self, settings):
        self.run("RESET ALL")
        self.run("SET work_mem = '256MB'")
        self.run("SET client_min_messages = warning")
        for name, value in settings.items():
            self.run(f"SET {name} = {value}")

    def load(self, sql, data):
        with self.connection.cursor() as cursor, cursor.copy(sql) as copy:
            copy.write(data)

    def plan(self, sql):
        return "\n".join(row[0] for row in self.run("EXPLAIN (COSTS off) " + sql))

    def aggregate(self, report, sql, settings):
        """The answer as CSV under a plan that must be what `settings` are for: serial, or of combined partial states."""
        self.configure(settings)
        plan = self.plan(sql)
        combined = "Partial" in plan and "Finalize" in plan
        if combined != (settings is self.PARALLEL):
            report.check("plan of " + sql[:60], False, plan)
        return self.csv(sql)

    def csv(self, sql):
        out = io.BytesIO()
        with self.connection.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv)") as copy:
            for part in copy:
                out.write(part)
        return out.getvalue()

    def has_peer(self):
        return self.one("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'hll')")


class ClickHouse:
    """ClickHouse inside this process, one thread, so that rows arrive in the order of the table."""

    def __init__(self):
        from chdb import session

        self.session = session.Session()
        self.version = self.query("SELECT version()").decode().strip().strip('"')

    def query(self, sql):
        return self.session.query(sql, "CSV").bytes()

    def load(self, table, columns, order, data):
        """Rows as CSV; columns as ClickHouse spells them; the table keeps them sorted by `order`."""
        handle, path = tempfile.mkstemp(suffix=".csv")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            self.query("CREATE DATABASE IF NOT EXISTS differential ENGINE = Atomic")
            self.query(f"DROP TABLE IF EXISTS differential.{table}")
            self.query(
                f"CREATE TABLE differential.{table} ({columns}) ENGINE = Memory"
            )
            self.query(
                f"INSERT INTO differential.{table} SELECT * FROM file('{path}', 'CSV', '{columns}') ORDER BY {order} "
                "SETTINGS max_threads = 1, max_insert_threads = 1, max_block_size = 100000000, "
                "min_insert_block_size_rows = 100000000, min_insert_block_size_bytes = 0"
            )
        finally:
            os.unlink(path)

    def csv(self, sql, settings=""):
        return self.query(f"{sql} SETTINGS max_threads = 1, max_block_size = 100000000{settings}")


def table_of(text, columns):
    """A CSV of whole numbers as a matrix."""
    flat = numpy.array(text.replace(b"\n", b",").rstrip(b",").split(b","), dtype=numpy.int64)
    return flat.reshape(-1, columns)


def matrix(report, name, labels, ours, theirs, rows_of):
    """Compares two matrices (first column: the group) and shows the first group that differs."""
    if ours.shape != theirs.shape or not numpy.array_equal(ours[:, 0], theirs[:, 0]):
        report.line(name, max(ours.size, theirs.size), abs(ours.shape[0] - theirs.shape[0]) or 1)
        report.note("the two engines returned different groups")
        return
    wrong = ours[:, 1:] != theirs[:, 1:]
    report.line(name, wrong.size, int(wrong.sum()))
    if wrong.any():
        row, column = numpy.argwhere(wrong)[0]
        group = int(ours[row, 0])
        report.note(
            f"{labels[column]}, group {group}: Postgres {ours[row, column + 1]}, ClickHouse {theirs[row, column + 1]}"
        )
        for line in rows_of(group):
            report.note(f"  {line}")
        for label, count in zip(labels, wrong.sum(axis=0)):
            if count:
                report.note(f"  {count} differences in {label}")
