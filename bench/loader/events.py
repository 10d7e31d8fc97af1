"""Events of about 1 KB in the style of Segment's, and the topics that hold them. Seeded: a case is the same every time."""

import json
import random
import time
import uuid
from dataclasses import dataclass

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
USERS = 100_000
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Case:
    title: str
    uuid7: bool = False
    unique: bool = True
    duplicates: float = 0.0
    poison: float = 0.0
    days: int = 0  # beside the others, one event of each of so many days before today
    flags: tuple = ()


CASES = {
    "v7": Case("UUIDv7, unique index", uuid7=True),
    "v4": Case("UUIDv4, unique index"),
    "v7-none": Case("UUIDv7, no unique index, `--dedupe offsets`", uuid7=True, unique=False, flags=("--dedupe", "offsets")),
    "v4-none": Case("UUIDv4, no unique index, `--dedupe offsets`", unique=False, flags=("--dedupe", "offsets")),
    "duplicates": Case("UUIDv4, unique index, 1 % duplicates", duplicates=0.01),
    "poison": Case("UUIDv4, unique index, 1 % poison", poison=0.01),
}


def uuid7(ms: int, rng: random.Random) -> uuid.UUID:
    """RFC 9562: 48 bits of Unix milliseconds, version, 74 random bits."""
    value = (ms & (2**48 - 1)) << 80 | 7 << 76 | rng.getrandbits(12) << 64 | 2 << 62 | rng.getrandbits(62)
    return uuid.UUID(int=value)


def event(ms: int, identity: uuid.UUID, rng: random.Random) -> bytes:
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03d}Z"
    user = rng.randrange(USERS)
    page = f"/products/{rng.randrange(5_000)}"
    value = {
        "messageId": str(identity), "type": "track", "event": rng.choice(("page_viewed", "product_viewed", "cart_updated")),
        "timestamp": when, "sentAt": when, "userId": f"user-{user}", "anonymousId": f"anonymous-{user}-{rng.randrange(3)}",
        "properties": {"load_ms": rng.randrange(50, 3000), "position": rng.randrange(40), "list": "search results",
                       "price": rng.randrange(100, 90_000) / 100, "currency": "EUR", "tags": ["sale", "summer", "outdoor"]},
        "context": {"page": {"path": page, "url": f"https://shop.example{page}?utm_source=newsletter&utm_medium=email",
                             "title": "A product with a name of usual length", "referrer": "https://search.example/"},
                    "campaign": {"source": "newsletter", "medium": "email", "name": "summer-2026"},
                    "device": {"type": "mobile", "os": "Android", "osVersion": "16", "browser": "Chrome 141"},
                    "userAgent": "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Mobile Safari/537.36",
                    "platform": "web", "country": rng.choice(("DE", "US", "FR", "JP")), "locale": "de-DE", "timezone": "Europe/Berlin",
                    "library": {"name": "analytics.js", "version": "4.2.1"}},
    }
    text = json.dumps(value, separators=(",", ":"))
    return (text[:-1] + ',"filler":"' + "x" * max(0, 1010 - len(text)) + '"}').encode()


def produce(brokers: str, topic: str, count: int, case: Case) -> None:
    """A topic made anew with `count` records: event times over the last two days, one partition key per user."""
    admin = AdminClient({"bootstrap.servers": brokers})
    if topic in admin.list_topics(timeout=15).topics:
        for done in admin.delete_topics([topic]).values():
            done.result(30)
        time.sleep(2)
    for done in admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})]).values():
        done.result(30)
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 50, "compression.type": "none", "queue.buffering.max.messages": 200_000})

    def send(value: bytes, partition: int, ms: int) -> None:
        while True:
            try:
                return producer.produce(topic, value, partition=partition, timestamp=ms)
            except BufferError:
                producer.poll(0.1)

    rng = random.Random(11)
    start = int(time.time() * 1000) - 2 * DAY_MS
    last = None
    old = 0
    for n in range(count):
        ms = start + n * 2 * DAY_MS // count
        while old * count < n * case.days:
            old += 1
            identity = uuid.UUID(int=rng.getrandbits(128), version=4)
            send(event(start - old * DAY_MS, identity, rng), old % PARTITIONS, ms)
        dice = rng.random()
        if last is not None and dice < case.duplicates:
            value = last
        elif dice < case.poison:
            value = b'{"messageId": "' + str(n).encode() + b'", "event": "broken'
        else:
            identity = uuid7(ms, rng) if case.uuid7 else uuid.UUID(int=rng.getrandbits(128), version=4)
            value = last = event(ms, identity, rng)
        send(value, n % PARTITIONS, ms)
    producer.flush(60)
