"""From produce to visible: a paced producer, `tidemark run` with its default settings, and a reader that polls the positions."""

import random
import threading
import time
import uuid

import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from events import CASES, PARTITIONS, event


def latency(servers, rate: int, seconds: int) -> None:
    """Each record's time from produce() to the first poll (every 10 ms) that saw its offset committed. The first ten seconds,
    in which the group forms, do not count."""
    topic = f"latency-{time.time_ns()}"
    admin = AdminClient({"bootstrap.servers": servers.args.brokers})
    for done in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        done.result(30)
    servers.fresh("bench_latency", CASES["v4"])
    process = servers.tidemark("run", "bench_latency", "--brokers", servers.args.brokers, "--topic", topic, "--maintain-every", "off")
    threading.Thread(target=process.stderr.read, daemon=True).start()

    rng = random.Random(5)
    values = [event(int(time.time() * 1000), uuid.uuid4(), rng) for _ in range(2000)]
    produced = [[] for _ in range(PARTITIONS)]  # per partition: time of produce() of offset 0, 1, ...
    producer = Producer({"bootstrap.servers": servers.args.brokers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    stop = threading.Event()

    def pace():
        started, sent = time.monotonic(), 0
        while time.monotonic() - started < seconds + 10:
            due = int((time.monotonic() - started) * rate)
            while sent < due:
                value = values[sent % len(values)]
                # A new identity in an old body: building 1 KB of JSON here would take a core of its own.
                value = b'{"messageId":"' + str(uuid.UUID(int=rng.getrandbits(128), version=4)).encode() + value[value.index(b'","type"'):]
                partition = sent % PARTITIONS
                produced[partition].append(time.monotonic())
                producer.produce(topic, value, partition=partition)
                sent += 1
            producer.poll(0)
            time.sleep(0.002)
        producer.flush(30)
        stop.set()

    thread = threading.Thread(target=pace)
    began = time.monotonic()
    thread.start()
    seen, waits = [0] * PARTITIONS, []
    with psycopg.connect(servers.url("bench_latency"), autocommit=True) as db:
        while not (stop.is_set() and all(seen[p] == len(produced[p]) for p in range(PARTITIONS))):
            rows = db.execute("SELECT partition, next_offset FROM loader.offsets WHERE topic = %s", (topic,)).fetchall()
            now = time.monotonic()
            for partition, next_offset in rows:
                for offset in range(seen[partition], next_offset):
                    at = produced[partition][offset]
                    if at - began > 10:
                        waits.append(now - at)
                seen[partition] = max(seen[partition], next_offset)
            if now - began > seconds + 120:
                break
            time.sleep(0.01)
    thread.join()
    process.terminate()
    process.wait()
    waits.sort()
    if not waits:
        raise SystemExit("nothing became visible")
    p50, p95, p99 = (waits[int(len(waits) * q)] for q in (0.50, 0.95, 0.99))
    print(f"\nFrom produce to visible at {rate:,} events/s for {seconds} s ({len(waits):,} events, default settings): "
          f"p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s, max {waits[-1]:.2f} s")
