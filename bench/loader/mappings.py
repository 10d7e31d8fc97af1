"""Rates of the mappings that are shipped, beside Segment's: `load` of a file and `run` of a topic with the same events. These
are the samples of tests/exports again and again, each copy with ids of its own."""

import json
import os
import re
import statistics
import subprocess

from events import Case
from runs import load, loader

SAMPLES = {
    "segment": "segment.ndjson", "rudderstack": "rudderstack.ndjson", "segment-warehouse": "segment-pages.csv",
    "cloudevents": "cloudevents.json", "snowplow": "snowplow.ndjson", "snowplow, lines": "snowplow.tsv",
    "posthog": "posthog.ndjson", "mixpanel": "mixpanel.ndjson", "amplitude": "amplitude.ndjson", "ga4": "ga4.ndjson",
    "matomo": "matomo.json", "umami": "umami.csv", "access-log": "access.txt",
}
# What tells one event from another: UUIDs and other hexadecimal ids, the number of a visit or of a CloudEvent, and of
# Google's, which have no ids, the time.
HEXADECIMAL = re.compile(r"\b[0-9a-f]{8}(?=-[0-9a-f]{4}-|[0-9a-f]{21,24}\b)")
NUMBER = re.compile(r'("(?:idVisit|id)":"?[0-9]+)')
TIME = re.compile(r'(?<="event_timestamp":")[0-9]{16}')


def write(name: str, path: str, events: int) -> None:
    """About so many events."""
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "tests", "exports", SAMPLES[name]), encoding="utf-8") as file:
        text = file.read()
    head, each, tail = "", text.count("\n"), None
    if SAMPLES[name].endswith(".json"):
        values = json.loads(text)
        text = "".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + ",\n" for value in values)
        head, each, tail = "[", sum(len(value.get("actionDetails", [value])) for value in values), "]"
    elif SAMPLES[name].endswith(".csv"):
        head, text = text.split("\n", 1)
        head += "\n"
    with open(path, "w", encoding="utf-8") as out:
        out.write(head)
        copies = -(-events // each)
        for n in range(copies):
            again = NUMBER.sub(rf"\g<1>{n:06d}", HEXADECIMAL.sub(f"{n:08x}", text))
            again = TIME.sub(lambda at: str(int(at[0]) + n), again)
            out.write(again.rstrip(",\n") + tail if tail and n == copies - 1 else again)


def mappings(servers) -> None:
    args = servers.args
    print(f"\nMappings, about {args.events:,} events a run, medians of {args.rounds} rounds; events/s (and the range)\n")
    print("| mapping | bytes an event | load | CPU s per M events: loader, Postgres | loader's ns a byte | run | "
          "CPU s: loader, Postgres | loader's ns a byte | outcome |")
    print("|---|---|---|---|---|---|---|---|---|")
    cases, paths, runs = {}, {}, {}
    for name in SAMPLES:
        flags = ("--mapping", name.split(",")[0], *(["--envelope", "event_type==page_viewed"] if name == "segment-warehouse" else []))
        cases[name], paths[name] = Case(name, flags=flags), os.path.join(args.scratch, name.replace(", ", "-"))
        write(name, paths[name], args.events)
        subprocess.run([os.path.join(os.path.dirname(args.tidemark), "tidemark-shop"), "produce", paths[name], "--brokers", args.brokers,
                        "--topic", f"mapping-{name.replace(', ', '-')}", *flags], check=True, stdout=subprocess.DEVNULL)
        runs[name] = []
    for _ in range(args.rounds):
        # In turns, so that a slow minute of the machine hits all of them.
        for name, case in cases.items():
            runs[name].append((load(servers, paths[name], case), loader(servers, f"mapping-{name.replace(', ', '-')}", case)))
    for name, both in runs.items():
        size = os.path.getsize(paths[name]) / both[0][0].read
        print(f"| {name} | {size:.0f} | " + " | ".join(column([r[i] for r in both], size) for i in (0, 1)) + f" | {both[-1][0].outcome} |", flush=True)


def column(runs, size: float) -> str:
    rates = [r.rate for r in runs]
    cpu = [statistics.median(r.cpu[k] / r.read * 1e6 for r in runs) for k in ("loader", "postgres")]
    return (f"{statistics.median(rates):,.0f} ({min(rates):,.0f} .. {max(rates):,.0f}) | {cpu[0]:.1f}, {cpu[1]:.1f} | "
            f"{cpu[0] * 1000 / size:.1f}")
