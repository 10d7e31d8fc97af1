"""The events that every engine gets: the same rows, from a seed. Nothing about engines here.

Visits begin at any time; a visit has a geometric number of events, eight on average, seconds to minutes apart. Few persons
have most of the visits. Platform, country and campaign are a person's own, the platform with exceptions; pages are many and
few of them common. Rows come in the order of time, a fiftieth of them late. No person has two events at one instant, so
that every definition of order gives the same answer.
"""

import numpy as np

# How often, in thousandths.
TYPES = {"page_viewed": 400, "product_viewed": 180, "clicked": 100, "searched": 90, "product_added": 70, "checkout_started": 35,
         "video_played": 30, "cart_viewed": 30, "order_completed": 20, "app_opened": 20, "signed_up": 15, "review_posted": 10}
PLATFORMS = {"web": 600, "ios": 250, "android": 150}
COUNTRIES = [f"{chr(65 + i // 8)}{chr(65 + i % 26)}" for i in range(40)]
PAGES = [f"/shop/{('men', 'women', 'kids', 'home')[i % 4]}/item-{i:04d}" for i in range(2000)]
CAMPAIGNS = [f"campaign-{i:04d}" for i in range(2000)]
START = np.datetime64("2026-09-01T00:00:00", "ms").astype(np.int64)
DAY = 86_400_000
VISIT, PAUSE = 8, 75_000
COLUMNS = ("event_date date NOT NULL, event_time timestamptz NOT NULL, person text NOT NULL, event_type text NOT NULL, "
           "platform text, country text, page_path text, campaign text")


def shares(weights) -> np.ndarray:
    weights = np.asarray(list(weights), dtype=float)
    return weights / weights.sum()


def falling(values: list, exponent: float) -> np.ndarray:
    """Of the n-th value there are as many as n to the minus exponent says."""
    return shares(np.arange(1, len(values) + 1) ** -exponent)


def generate(events: int, persons: int, days: int, first_day: int = 0, seed: int = 42) -> dict:
    """Columns of numbers: indexes into the lists above, -1 for NULL, and times in milliseconds."""
    random = np.random.default_rng([seed, events, persons, days])
    visits = max(persons, events // VISIT)
    eager = shares(random.pareto(1.2, persons) + 0.2)
    visitor = np.concatenate([np.arange(persons), random.choice(persons, visits - persons, p=eager)])
    length = random.geometric(min(1.0, visits / events), visits)
    # Exactly as many as asked for: visits are made longer, or shorter as long as they are visits.
    while (missing := events - int(length.sum())) != 0:
        changed = random.choice(visits if missing > 0 else np.flatnonzero(length > 1), abs(missing) // 2 + 1)
        np.add.at(length, changed[:abs(missing)], 1 if missing > 0 else -1)
        np.maximum(length, 1, out=length)
    begins = np.concatenate([[0], np.cumsum(length)[:-1]])
    since = random.exponential(PAUSE, events).astype(np.int64)
    since[begins] = random.integers(0, days * DAY, visits)
    # The sum of all pauses, less what it was when the visit began.
    total = np.cumsum(since)
    time = total - np.repeat(total[begins] - since[begins], length)
    behind = time >= days * DAY
    time[behind] = days * DAY - 1 - random.integers(0, DAY // 24, int(behind.sum()))
    person = np.repeat(visitor, length)
    time = apart(person, time, days)
    own = {"platform": random.choice(3, persons, p=shares(PLATFORMS.values())),
           "country": random.choice(40, persons, p=falling(COUNTRIES, 1.1)),
           "campaign": random.choice(2000, persons, p=falling(CAMPAIGNS, 0.9))}
    own["country"][random.random(persons) < 0.02] = -1
    columns = {name: of[person].astype(np.int16) for name, of in own.items()}
    other = np.flatnonzero(random.random(events) < 0.1)
    columns["platform"][other] = random.integers(0, 3, len(other))
    columns["page_path"] = random.choice(2000, events, p=falling(PAGES, 0.9)).astype(np.int16)
    columns["page_path"][random.random(events) < 0.08] = -1
    columns["event_type"] = random.choice(len(TYPES), events, p=shares(TYPES.values())).astype(np.int16)
    arrival = time.copy()
    late = np.flatnonzero(random.random(events) < 0.02)
    arrival[late] += random.integers(0, days * DAY // 10, len(late))
    order = np.argsort(arrival, kind="stable")
    columns |= {"person": person, "time": time + (START + first_day * DAY)}
    return {name: column[order] for name, column in columns.items()}


def apart(person: np.ndarray, time: np.ndarray, days: int) -> np.ndarray:
    """The times, with those of a person moved by milliseconds where two are the same."""
    key = person * np.int64(days * DAY) + time
    while True:
        order = np.argsort(key, kind="stable")
        same = order[1:][np.diff(key[order]) == 0]
        if not len(same):
            return key - person * np.int64(days * DAY)
        # Backwards, as the last day ends; the first instant has nothing before it.
        key[same] += np.where(key[same] % (days * DAY) == 0, 1, -1)


def write(duck, columns: dict, file: str, table: str | None = None) -> None:
    """Writes rows as TSV, and keeps them in DuckDB where a table is named."""
    def text(values, column: str) -> str:
        return f"list_extract({list(values)}, {column} + 1)"

    persons = int(columns["person"].max()) + 1
    mixed = np.arange(1, persons + 1, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
    duck.register("numbers", {**columns, "mixed": mixed[columns["person"]]})
    rows = (f"SELECT CAST(make_timestamp(time * 1000) AS DATE) AS event_date, make_timestamp(time * 1000) AS event_time, "
            f"'user_' || lower(printf('%016X', mixed)) AS person, {text(TYPES, 'event_type')} AS event_type, "
            f"{text(PLATFORMS, 'platform')} AS platform, {text(COUNTRIES, 'country')} AS country, {text(PAGES, 'page_path')} AS page_path, "
            f"{text(CAMPAIGNS, 'campaign')} AS campaign FROM numbers")
    if table:
        duck.execute(f"CREATE TABLE {table} AS {rows}")
        rows = f"FROM {table}"
    duck.execute(f"COPY ({rows}) TO '{file}' (FORMAT csv, DELIMITER '\t', HEADER false, NULL '\\N', QUOTE '')")
    duck.unregister("numbers")
