"""A producer at a steady rate, in a thread: events of about 1 KB, and when each of them was given to the client."""

import random
import threading
import time
import uuid

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from events import PARTITIONS, event


class Pace:
    def __init__(self, brokers: str, rate: int, seconds: float):
        self.topic = f"latency-{time.time_ns()}"
        self.rate, self.seconds, self.brokers = rate, seconds, brokers
        admin = AdminClient({"bootstrap.servers": brokers})
        for done in admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)]).values():
            done.result(30)
        self.rng = random.Random(5)
        self.values = [event(int(time.time() * 1000), uuid.uuid4(), self.rng) for _ in range(2000)]
        self.times = []  # of produce(), in the order of all records; record n is in partition n % PARTITIONS
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> float:
        self.began = time.monotonic()
        self.thread.start()
        return self.began

    def produced(self, partition: int, offset: int) -> float:
        return self.times[offset * PARTITIONS + partition]

    def run(self) -> None:
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
        started, sent = time.monotonic(), 0
        while time.monotonic() - started < self.seconds:
            due = int((time.monotonic() - started) * self.rate)
            while sent < due:
                value = self.values[sent % len(self.values)]
                # A new identity in an old body: building 1 KB of JSON here would take a core of its own.
                value = b'{"messageId":"' + str(uuid.UUID(int=self.rng.getrandbits(128), version=4)).encode() + value[value.index(b'","type"'):]
                self.times.append(time.monotonic())
                producer.produce(self.topic, value, partition=sent % PARTITIONS)
                sent += 1
            producer.poll(0)
            time.sleep(0.002)
        producer.flush(30)
        self.done.set()


def quantiles(waits: list) -> str:
    waits = sorted(waits)
    p50, p95, p99 = (waits[int(len(waits) * q)] for q in (0.50, 0.95, 0.99))
    return f"p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s, max {waits[-1]:.2f} s"
