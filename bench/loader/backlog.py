"""Memory of the loader with a backlog much larger than its budget: resident set while Postgres takes nothing, and at most
over the whole backlog."""

import random
import threading
import time
import uuid

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from events import CASES, DAY_MS, PARTITIONS, event

STALL = 20
GOAL = 150  # MiB above the budget


def fill(brokers: str, topic: str, size: int, compression: str) -> int:
    """A topic made anew with events of about 1 KB, `size` bytes in all; returns their number."""
    admin = AdminClient({"bootstrap.servers": brokers})
    for done in admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})]).values():
        done.result(30)
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 50, "batch.size": 1_000_000, "compression.type": compression,
                         "queue.buffering.max.messages": 200_000, "queue.buffering.max.kbytes": 262_144})
    rng = random.Random(25)
    now = int(time.time() * 1000)
    bodies = []
    for n in range(2_000):
        value = event(now - n * 2 * DAY_MS // 2_000, uuid.UUID(int=0), rng)
        bodies.append(value[value.index(b'","type"'):])
    count = size // (len(bodies[0]) + 51)
    for n in range(count):
        # A new identity in an old body: building 1 KB of JSON here would take longer than loading it.
        value = b'{"messageId":"%08x-1234-4abc-8def-%012x' % (rng.getrandbits(32), n) + bodies[n % len(bodies)]
        while True:
            try:
                producer.produce(topic, value, partition=n % PARTITIONS, timestamp=now)
                break
            except BufferError:
                producer.poll(0.1)
        if n % 1_000 == 0:
            producer.poll(0)
    producer.flush(300)
    return count


def status_kib(pid: int, name: str) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next((int(line.split()[1]) for line in status if line.startswith(name + ":")), 0)


def backlog(servers, gigabytes: float, mebibytes: int, lanes: int, at_most: float) -> None:
    """`tidemark run` over the whole topic, or for `at_most` seconds. Its first batches wait for a lock for some seconds, so that all of its queues fill.
    The rows are thrown away every few seconds, so that the disk need not hold them too."""
    topic = f"backlog-{time.time_ns()}"
    started = time.monotonic()
    count = fill(servers.args.brokers, topic, int(gigabytes * 1e9), servers.args.compression)
    print(f"\nBacklog of {gigabytes:g} GB (compression {servers.args.compression}), {count:,} events, produced in {time.monotonic() - started:.0f} s", flush=True)
    servers.fresh("bench_backlog", CASES["v4"])
    url = servers.url("bench_backlog")
    blocker = psycopg.connect(url)
    blocker.execute("LOCK TABLE loader.batches IN SHARE MODE")

    before, started = servers.cpu(), time.monotonic()
    process = servers.tidemark("run", "bench_backlog", "--brokers", servers.args.brokers, "--topic", topic, "--maintain-every", "off",
                               "--lanes", str(lanes), environment={"TIDEMARK__MEMORY__MAX_BUFFER_BYTES": f"{mebibytes}MiB"})
    threading.Thread(target=process.stderr.read, daemon=True).start()
    time.sleep(STALL)
    stalled = status_kib(process.pid, "VmHWM") / 1024
    blocker.rollback()
    blocker.close()

    released, read, samples = time.monotonic(), 0, []
    emptied = released
    with psycopg.connect(url, autocommit=True) as db:
        while read < count and process.poll() is None and time.monotonic() - released < at_most:
            time.sleep(0.5)
            samples.append(status_kib(process.pid, "VmRSS") / 1024)
            read = int(db.execute("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets").fetchone()[0])
            if time.monotonic() - emptied > 15:
                emptied = time.monotonic()
                db.execute("TRUNCATE bronze.events")
    seconds = time.monotonic() - released
    if process.poll() is not None:
        raise SystemExit(f"tidemark run ended by itself with {process.returncode}")
    peak, threads = status_kib(process.pid, "VmHWM") / 1024, status_kib(process.pid, "Threads")
    cpu, after = servers.cpu_of(process.pid), servers.cpu()
    process.terminate()
    process.wait()
    samples.sort()
    print(f"budget {mebibytes} MiB, {lanes} lane(s): peak RSS {peak:.0f} MiB, of that with Postgres blocked for {STALL} s {stalled:.0f} MiB, "
          f"median while loading {samples[len(samples) // 2]:.0f} MiB; goal {mebibytes + GOAL} MiB: {'met' if peak <= mebibytes + GOAL else 'MISSED'}")
    print(f"{read:,} of {count:,} events in {seconds:.0f} s ({read / seconds:,.0f}/s), {threads} threads; CPU s per M events: loader {cpu / read * 1e6:.1f}, "
          f"Postgres {(after['postgres'] - before['postgres']) / read * 1e6:.1f}, broker {(after['broker'] - before['broker']) / read * 1e6:.1f}",
          flush=True)
    admin = AdminClient({"bootstrap.servers": servers.args.brokers})
    for done in admin.delete_topics([topic]).values():
        done.result(30)
