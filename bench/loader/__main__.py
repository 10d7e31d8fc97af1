"""Throughput and latency of the loader, measured beside a server-side COPY of the same rows and beside a plain Python
consumer (confluent-kafka + psycopg COPY), with broker, loader and Postgres on this one machine.

Called by scripts/bench-loader.sh, which starts the servers. Prints Markdown. What a case is stands in `CASES`; how each
thing is measured stands at the function that measures it.
"""

import argparse
import statistics
import sys

from backlog import backlog
from events import CASES, produce
from history import history
from latency import latency
from mappings import mappings
from runs import Servers, copy_on_the_server, loader, python_consumer


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-loader", description=__doc__)
    parser.add_argument("--url", required=True, help="superuser URL of the private Postgres, without a database")
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--tidemark", required=True, help="the release binary")
    parser.add_argument("--postmaster", type=int, required=True, help="process id, for CPU seconds")
    parser.add_argument("--broker-pid", type=int, required=True)
    parser.add_argument("--scratch", required=True, help="directory that the server may write to")
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES), help="names of CASES; backlog: memory with a backlog of --backlog-gb; "
                        "history: a stream beside one event a day since 1970; mappings: rates of each")
    parser.add_argument("--rate", type=int, default=11_500, help="events a second of the latency part")
    parser.add_argument("--seconds", type=int, default=60, help="length of the latency part, 0 to leave it out")
    parser.add_argument("--backlog-gb", type=float, default=10, help="size of the case backlog, which --cases has to name")
    parser.add_argument("--budget-mib", type=int, default=256, help="memory.max_buffer_bytes of the case backlog")
    parser.add_argument("--backlog-seconds", type=float, default=1800, help="longest time for the case backlog to read")
    parser.add_argument("--compression", default="none", help="compression.type of the producer of the case backlog")
    parser.add_argument("--lanes", type=int, default=1, help="postgres.lanes of the case backlog")
    args = parser.parse_args()
    servers = Servers(args)
    servers.print_settings()

    names = args.cases.split(",")
    if "backlog" in names:
        names.remove("backlog")
        backlog(servers, args.backlog_gb, args.budget_mib, args.lanes, args.backlog_seconds)
    if "history" in names:
        names.remove("history")
        history(servers, args.events, args.rounds)
    if "mappings" in names:
        names.remove("mappings")
        mappings(servers)
    if not names:
        return 0
    print(f"\n{args.events:,} events a run, medians of {args.rounds} rounds; events/s (and the range)\n")
    print("| case | loader | server-side COPY | loader / COPY | Python consumer | loader / Python | CPU s per M events: "
          "loader, Postgres, broker; Postgres of COPY | WAL B/event | loader peak RSS MiB | outcome |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        case = CASES[name]
        topic = f"bench-{name}"
        produce(args.brokers, topic, args.events, case)
        ours, copies, pythons = [], [], []
        for _ in range(args.rounds):
            # In one round each of them once, so that a slow minute of the machine hits all three.
            ours.append(loader(servers, topic, case))
            copies.append(copy_on_the_server(servers, case))
            pythons.append(python_consumer(servers, topic, args.events, case))
        print(row(case, ours, copies, pythons), flush=True)

    if args.seconds:
        latency(servers, args.rate, args.seconds)
    return 0


def row(case, ours, copies, pythons) -> str:
    def rates(runs):
        values = [r.rate for r in runs]
        return f"{statistics.median(values):,.0f} ({min(values):,.0f} .. {max(values):,.0f})"

    def ratio(others):
        # Of each round its own ratio: a noisy machine changes both sides of it alike.
        return f"{statistics.median(a.rate / b.rate for a, b in zip(ours, others)):.2f}"

    def median(what):
        return statistics.median(what(r) for r in ours)

    cpu = " / ".join(f"{median(lambda r, k=k: r.cpu[k] / r.read * 1e6):.1f}" for k in ("loader", "postgres", "broker"))
    cpu += f"; {statistics.median(r.cpu['postgres'] / r.read * 1e6 for r in copies):.1f}"
    last = ours[-1]
    return (f"| {case.title} | {rates(ours)} | {rates(copies)} | {ratio(copies)} | {rates(pythons)} | {ratio(pythons)} | {cpu} | "
            f"{median(lambda r: r.wal / r.read):,.0f} | {median(lambda r: r.rss_mib):.0f} | {last.outcome} |")


if __name__ == "__main__":
    sys.exit(main())
