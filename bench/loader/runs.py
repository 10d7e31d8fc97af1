"""The three ways of loading that are compared, each into a database made anew, and what they cost."""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field

import psycopg
from confluent_kafka import Consumer

TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    read: int
    seconds: float
    cpu: dict = field(default_factory=dict)
    wal: int = 0
    rss_mib: float = 0.0
    outcome: str = ""

    @property
    def rate(self) -> float:
        return self.read / self.seconds


class Servers:
    def __init__(self, args):
        self.args = args

    def url(self, database: str) -> str:
        return f"{self.args.url}/{database}"

    def print_settings(self) -> None:
        names = ("server_version", "shared_buffers", "max_wal_size", "wal_compression", "synchronous_commit", "fsync", "full_page_writes")
        with psycopg.connect(self.url("postgres")) as db:
            print("Postgres: " + ", ".join(f"{n}={db.execute(f'SHOW {n}').fetchone()[0]}" for n in names))
        print(f"{os.cpu_count()} cores; broker, loader and Postgres share them")

    def fresh(self, database: str, case) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            db.execute(f"CREATE DATABASE {database} TEMPLATE template0")
        self.tidemark("migrate", database, check=True)
        with psycopg.connect(self.url(database), autocommit=True) as db:
            if not case.unique:
                db.execute("""DO $$ DECLARE i regclass; BEGIN
                    PERFORM tidemark.manage_partitions('bronze.events', partition_unique => '{}');
                    FOR i IN SELECT x.indexrelid FROM pg_index x JOIN pg_inherits h ON h.inhrelid = x.indrelid
                              WHERE h.inhparent = 'bronze.events'::regclass AND x.indisunique LOOP
                        EXECUTE format('DROP INDEX %s', i); END LOOP; END $$""")
            days = "(now() AT TIME ZONE 'UTC')::date"
            db.execute(f"SELECT tidemark.ensure_partitions('bronze.events', ARRAY(SELECT {days} + n FROM generate_series(-3, 1) AS n))")
            db.execute("CHECKPOINT")

    def tidemark(self, command: str, database: str, *flags: str, check: bool = False, environment: dict = {}) -> subprocess.Popen:
        environment = dict(os.environ, TIDEMARK_DATABASE_URL=self.url(database), **environment)
        process = subprocess.Popen([self.args.tidemark, command, *flags], env=environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        if check:
            _, err = process.communicate()
            if process.returncode:
                raise SystemExit(f"tidemark {command} failed: {err}")
        return process

    @staticmethod
    def cpu_of(pid: int, reaped: bool = False) -> float:
        """CPU seconds used so far by a process, if wanted with children that have ended; 0 for one that is gone."""
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            return 0.0
        return sum(int(v) for v in fields[11:15 if reaped else 13]) / TICK

    def cpu(self) -> dict:
        """CPU seconds used so far by Postgres (with children that have ended) and by the broker."""
        post = self.args.postmaster
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(post)], capture_output=True, text=True).stdout.split()
        return {"postgres": self.cpu_of(post, True) + sum(map(self.cpu_of, children)), "broker": self.cpu_of(self.args.broker_pid)}

    def lsn(self) -> int:
        with psycopg.connect(self.url("postgres")) as db:
            return int(db.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()[0])


def loader(servers: Servers, topic: str, case) -> Run:
    """`tidemark run --until-caught-up` from its start to its end, joining the group included."""
    return measured(servers, case, "run", "--brokers", servers.args.brokers, "--topic", topic, "--until-caught-up",
                    "--maintain-every", "off", "--group", f"bench-{time.time_ns()}")


def load(servers: Servers, path: str, case) -> Run:
    """`tidemark load` of a file from its start to its end; it is read twice."""
    return measured(servers, case, "load", path)


def measured(servers: Servers, case, command: str, *flags: str) -> Run:
    servers.fresh("bench", case)
    before, lsn, started = servers.cpu(), servers.lsn(), time.monotonic()
    process = servers.tidemark(command, "bench", *flags, *case.flags)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"tidemark {command} failed: {errors}")
    after = servers.cpu()
    with psycopg.connect(servers.url("bench")) as db:
        read, loaded, duplicate, dead = db.execute(
            "SELECT sum(n_read)::bigint, sum(n_loaded)::bigint, sum(n_duplicate)::bigint, sum(n_dead)::bigint FROM loader.batches").fetchone()
        rows = db.execute("SELECT count(*) FROM bronze.events").fetchone()[0]
    if rows != loaded:
        raise SystemExit(f"{loaded} rows in the books, {rows} in the table")
    cpu = {k: after[k] - before[k] for k in after}
    cpu["loader"] = usage.ru_utime + usage.ru_stime
    return Run(read, seconds, cpu, servers.lsn() - lsn, usage.ru_maxrss / 1024, f"{loaded:,} loaded, {duplicate:,} duplicate, {dead:,} dead")


def copy_on_the_server(servers: Servers, case) -> Run:
    """COPY FROM a binary file on the server: the very rows that the loader has just written, into an equal table with equal
    partitions and indexes. The floor: no parsing, no network, no books."""
    rows_file = os.path.join(servers.args.scratch, "rows.bin")
    columns = ("event_id, event_time, event_type, user_id, anonymous_id, received_at, loaded_at, source_topic, source_partition, "
               "source_offset, batch_id, payload")
    with psycopg.connect(servers.url("bench"), autocommit=True) as db:
        # Read by ctid order per partition, as they were written.
        db.execute(f"COPY (SELECT {columns} FROM bronze.events) TO '{rows_file}' (FORMAT binary)")
    servers.fresh("bench_copy", case)
    with psycopg.connect(servers.url("bench_copy"), autocommit=True) as db:
        before, started = servers.cpu(), time.monotonic()
        count = db.execute(f"COPY bronze.events ({columns}) FROM '{rows_file}' (FORMAT binary)").rowcount
        seconds = time.monotonic() - started
        # Of the same server process, before it ends: its CPU time is read from /proc.
        cpu = {name: after - before[name] for name, after in servers.cpu().items()}
    os.unlink(rows_file)
    return Run(count, seconds, cpu)


def python_consumer(servers: Servers, topic: str, count: int, case) -> Run:
    """What one would write on an afternoon: confluent-kafka, json.loads, psycopg COPY of 20,000 rows at a time into a plain
    staging table, INSERT ... ON CONFLICT DO NOTHING, then the Kafka commit. At least once, and no dead letters beyond a
    counter."""
    servers.fresh("bench_python", case)
    consumer = Consumer({"bootstrap.servers": servers.args.brokers, "group.id": f"python-{time.time_ns()}", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "fetch.min.bytes": 65536, "queued.max.messages.kbytes": 65536})
    read, bad = 0, 0
    started = time.monotonic()
    consumer.subscribe([topic])
    columns = "event_id, event_time, event_type, user_id, anonymous_id, received_at, source_topic, source_partition, source_offset, batch_id, payload"
    with psycopg.connect(servers.url("bench_python")) as db:
        db.execute(f"CREATE TEMP TABLE staging AS SELECT {columns} FROM bronze.events WITH NO DATA")
        db.commit()
        while read < count:
            messages = consumer.consume(20_000, timeout=1.0)
            if not messages:
                continue
            with db.cursor().copy(f"COPY {'staging' if case.unique else 'bronze.events'} ({columns}) FROM STDIN") as copy:
                for m in messages:
                    read += 1
                    try:
                        e = json.loads(m.value())
                        copy.write_row((e["messageId"], e["timestamp"], e["event"], e.get("userId"), e.get("anonymousId"),
                                        e["timestamp"], 1, m.partition(), m.offset(), 1, m.value().decode()))
                    except (ValueError, KeyError):
                        bad += 1
            if case.unique:
                db.execute(f"INSERT INTO bronze.events ({columns}) SELECT {columns} FROM staging ON CONFLICT DO NOTHING")
                db.execute("TRUNCATE staging")
            db.commit()
            consumer.commit(asynchronous=False)
    seconds = time.monotonic() - started
    consumer.close()
    return Run(read, seconds, outcome=f"{bad} bad")
