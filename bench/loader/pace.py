"""A producer at a steady rate, in a thread: events of about 1 KB, and when each of them was given to the client."""

import json
import random
import threading
import time
import uuid

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from events import PARTITIONS, USERS, event


class Pace:
    def __init__(self, brokers: str, rate: int, seconds: float):
        self.topic = f"latency-{time.time_ns()}"
        self.rate, self.seconds, self.brokers = rate, seconds, brokers
        admin = AdminClient({"bootstrap.servers": brokers})
        for done in admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)]).values():
            done.result(30)
        self.rng = random.Random(5)
        self.rests = [self.rest() for _ in range(2000)]
        self.times = []  # of produce(), in the order of all records; record n is in partition n % PARTITIONS
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def rest(self) -> bytes:
        """What an event says beside its identity, person and times."""
        value = json.loads(event(0, uuid.UUID(int=0), self.rng))
        for name in ("messageId", "timestamp", "sentAt", "userId", "anonymousId"):
            del value[name]
        return json.dumps(value, separators=(",", ":")).encode()[1:]

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
                # Another identity, person and time before the rest of a body: building 1 KB of JSON here would take a core.
                rest = self.rests[sent % len(self.rests)]
                user, now = int(self.rng.random() * USERS), time.time()
                when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
                value = (f'{{"messageId":"{uuid.UUID(int=self.rng.getrandbits(128), version=4)}","timestamp":"{when}","userId":"user-{user}",'
                         f'"anonymousId":"anonymous-{user}-0",').encode() + rest
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
