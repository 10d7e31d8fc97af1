"""Compares the installed extension, through SQL, with ClickHouse and postgresql-hll. Started by scripts/differential.sh."""

import argparse
import sys

import numpy

import funnels
import hostile
import scale
import sequences
import sketches
from engines import ClickHouse, Postgres, Report


def main():
    parser = argparse.ArgumentParser(prog="differential", description=__doc__)
    parser.add_argument("--url", required=True, help="superuser URL of a private cluster with tidemark in it")
    parser.add_argument("--log", required=True, help="log file of that server")
    parser.add_argument("--groups", type=int, help="random groups for window_funnel (200000; with --quick 3000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other rows")
    parser.add_argument("--quick", action="store_true", help="a minute's worth of everything")
    parser.add_argument("--only", default="", help="comma separated parts: " + ",".join(PARTS))
    given = parser.parse_args()
    if given.groups is None:
        given.groups = 3000 if given.quick else 200000
    chosen = [part for part in given.only.split(",") if part] or list(PARTS)
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"no part called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    report = Report()
    postgres = Postgres(given.url)
    print(f"{postgres.one('SELECT version()').split(' on ')[0]}, seed {given.seed}, {given.groups} groups", flush=True)
    clickhouse = None
    for part in chosen:
        run, wants_clickhouse = PARTS[part]
        if wants_clickhouse and clickhouse is None:
            clickhouse = ClickHouse()
            print(f"ClickHouse {clickhouse.version}", flush=True)
        # A stream of its own for each part, so that --only repeats what the whole run did.
        random = numpy.random.default_rng([given.seed, list(PARTS).index(part)])
        run(report, postgres, clickhouse, random, given)
        postgres.configure({})
    return report.close()


def sequence_groups(given):
    return max(given.groups // 10, 1000)


PARTS = {
    "window_funnel": (
        lambda report, pg, ch, random, given: funnels.compare(report, pg, ch, random, given.groups, given.quick),
        True,
    ),
    "sequence": (
        lambda report, pg, ch, random, given: sequences.compare_patterns(
            report, pg, ch, random, sequence_groups(given), 40 if given.quick else 240
        ),
        True,
    ),
    "next_node": (
        lambda report, pg, ch, random, given: sequences.compare_next_node(
            report, pg, ch, random, sequence_groups(given)
        ),
        True,
    ),
    "retention": (
        lambda report, pg, ch, random, given: sequences.compare_retention(
            report, pg, ch, random, sequence_groups(given)
        ),
        True,
    ),
    "peer": (
        lambda report, pg, ch, random, given: sketches.compare_peer(report, pg, random, 300 if given.quick else 2000),
        False,
    ),
    "hostile": (
        lambda report, pg, ch, random, given: hostile.attack(
            report, pg, random, given.log, 20000 if given.quick else 1000000
        ),
        False,
    ),
    "estimate": (lambda report, pg, ch, random, given: sketches.estimate(report, pg, given.quick), False),
    "memory": (lambda report, pg, ch, random, given: scale.memory_of_groups(report, pg, given.quick), False),
    "one_group": (lambda report, pg, ch, random, given: scale.one_group(report, pg, given.quick), False),
}


if __name__ == "__main__":
    sys.exit(main())
