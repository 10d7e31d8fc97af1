"""A normal stream beside one event of each day since 1970, as a device with a wrong clock or a replayed archive sends them."""

import dataclasses
import datetime
import statistics

from events import CASES, produce
from runs import loader


def history(servers, count: int, rounds: int) -> None:
    """`tidemark run` over `count` events of two days, without and with the old ones between them, in turns; the rate is that of
    the `count` alone."""
    days = (datetime.date.today() - datetime.date(1970, 1, 1)).days - 2
    cases = {"history-none": CASES["v4"], "history": dataclasses.replace(CASES["v4"], days=days)}
    for topic, case in cases.items():
        produce(servers.args.brokers, topic, count, case)
    runs = [[loader(servers, topic, case) for topic, case in cases.items()] for _ in range(rounds)]
    alone, beside = ([count / pair[n].seconds for pair in runs] for n in (0, 1))
    ratios = [with_old / without for without, with_old in zip(alone, beside)]
    print(f"\n{count:,} events, and one of each of {days:,} days before them: {statistics.median(beside):,.0f} events/s of the normal stream, "
          f"{statistics.median(alone):,.0f} without, {statistics.median(ratios):.2f} times ({min(ratios):.2f} .. {max(ratios):.2f}); "
          f"{runs[-1][1].outcome}", flush=True)
