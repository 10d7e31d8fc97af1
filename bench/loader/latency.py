"""From produce to visible: a paced producer, `tidemark run` with its default settings, and a reader that polls the positions."""

import threading
import time

import psycopg

from events import CASES, PARTITIONS
from pace import Pace, quantiles


def latency(servers, rate: int, seconds: int) -> None:
    """Each record's time from produce() to the first poll (every 10 ms) that saw its offset committed. The first ten seconds,
    in which the group forms, do not count."""
    servers.fresh("bench_latency", CASES["v4"])
    pace = Pace(servers.args.brokers, rate, seconds + 10)
    process = servers.tidemark("run", "bench_latency", "--brokers", servers.args.brokers, "--topic", pace.topic, "--maintain-every", "off")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    began = pace.start()
    seen, waits = [0] * PARTITIONS, []
    with psycopg.connect(servers.url("bench_latency"), autocommit=True) as db:
        while not (pace.done.is_set() and sum(seen) == len(pace.times)):
            rows = db.execute("SELECT partition, next_offset FROM loader.offsets WHERE topic = %s",
                              (pace.topic,)).fetchall()
            now = time.monotonic()
            for partition, next_offset in rows:
                for offset in range(seen[partition], next_offset):
                    at = pace.produced(partition, offset)
                    if at - began > 10:
                        waits.append(now - at)
                seen[partition] = max(seen[partition], next_offset)
            if now - began > seconds + 120:
                break
            time.sleep(0.01)
    pace.thread.join()
    process.terminate()
    process.wait()
    if not waits:
        raise SystemExit("nothing became visible")
    print(f"\nFrom produce to visible at {rate:,} events/s for {seconds} s ({len(waits):,} events, default settings): {quantiles(waits)}")
