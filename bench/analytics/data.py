"""The events that every engine gets: the same rows, from a seed.

A person has sessions at random times over 30 days; a session has a geometric number of events, some seconds to minutes
apart; how many sessions a person has is skewed. Rows are in the order of event time, as a loader brings them, with a
fiftieth of them moved back as late ones. Nothing about engines here.
"""

from dataclasses import dataclass

import numpy as np

TYPES = ["page_viewed", "product_viewed", "searched", "product_added", "checkout_started", "order_completed", "signed_up", "clicked"]
SHARES = [0.46, 0.20, 0.10, 0.07, 0.035, 0.02, 0.015, 0.10]
START = np.datetime64("2026-09-01T00:00:00", "us").astype(np.int64)
DAYS = 30
LATE = 50


@dataclass
class Events:
    users: int
    user: np.ndarray  # 0 ... users - 1
    time: np.ndarray  # microseconds since 1970
    type: np.ndarray  # index of TYPES
    value: np.ndarray  # a latency in milliseconds

    def __len__(self) -> int:
        return len(self.user)


def generate(events: int, users: int, seed: int) -> Events:
    random = np.random.default_rng([seed, events, users])
    sessions = max(users, events // 8)
    # Everyone once, the others by a skewed share.
    weight = random.pareto(1.2, users) + 0.2
    owner = np.concatenate([np.arange(users), random.choice(users, sessions - users, p=weight / weight.sum())])
    begin = START + random.integers(0, DAYS * 86_400 * 1_000_000, sessions)
    length = random.geometric(min(1.0, sessions / events), sessions)
    # Exactly as many events as asked for.
    difference = int(length.sum()) - events
    while difference > 0:
        longer = np.flatnonzero(length > 1)
        length[random.choice(longer, min(difference, len(longer)), replace=False)] -= 1
        difference = int(length.sum()) - events
    if difference < 0:
        np.add.at(length, random.integers(0, sessions, -difference), 1)
    step = (random.exponential(75.0, events) * 1_000_000).astype(np.int64)
    first = np.cumsum(length) - length
    step[first] = 0
    run = np.cumsum(step)
    time = np.repeat(begin - run[first], length) + run
    user = np.repeat(owner, length)
    kind = random.choice(len(TYPES), events, p=SHARES).astype(np.int8)
    value = random.lognormal(4.5, 0.8, events)
    arrival = time.copy()
    late = random.random(events) < 1 / LATE
    arrival[late] += random.integers(0, 3 * 86_400 * 1_000_000, int(late.sum()))
    order = np.argsort(arrival, kind="stable")
    return Events(users, user[order].astype(np.int64), time[order], kind[order], np.round(value[order], 3))


def user_ids(events: Events, ids: str) -> np.ndarray:
    """As text they look like the ids that products have: a prefix and a hash, 21 characters."""
    if ids == "bigint":
        return events.user * 7_919 + 1_000_003
    mixed = (np.arange(events.users, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E37_79B9_7F4A_7C15)
    return np.array([f"user_{value:016x}" for value in mixed])[events.user]
