"""Every function of the extension beside its rivals on the same events, in pairs in one run.

Called by scripts/bench.sh, which starts the server. Prints Markdown. In each round every query of a case runs once, ours
between the rivals, in an order that turns with the round, so that a noisy minute hits all; the figure is the median of the
rounds, a ratio the median of each round's own. A rival whose answer differs from ours by more than its check allows fails the run.
"""

import argparse
import os
import statistics
import sys
import time

from cases import CASES
from data import generate
from engines import ClickHouse, DuckDB, Postgres


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def agrees(query, answer, ours) -> bool:
    if query.check == "none":
        return True
    if query.check == "first":
        return answer[0] == ours[0]
    if query.check == "close":
        return len(answer) == len(ours) and all(abs(a - b) <= 0.02 * max(abs(a), abs(b), 50) for a, b in zip(answer, ours))
    return tuple(answer) == tuple(ours)


def sql_of(query, ids: str) -> str:
    return query.sql.replace("HASH(", "peer.hll_hash_text(" if ids == "text" else "peer.hll_hash_bigint(")


def measure(case, engines, rounds: int, ids: str, rivals: bool = True):
    times, answers = {}, {}
    queries = [q for q in case.queries if q.engine in engines and (rivals or q.floor or q.name.startswith("tidemark."))]
    for query in queries:
        if query.setup:
            engines[query.engine].db.execute(query.setup)
        if query.ours or query.floor:  # warms up
            engines[query.engine].run(sql_of(query, ids))
    for number in range(1, rounds + 1):
        turn = number % len(queries)
        for query in queries[turn:] + queries[:turn]:
            sql = sql_of(query, ids)
            began = time.perf_counter()
            answers[query.name] = engines[query.engine].run(sql)
            times.setdefault(query.name, []).append(time.perf_counter() - began)
            progress(f"    round {number} of {rounds}: {query.name}: {time.perf_counter() - began:.2f} s")
    ours = next(q for q in queries if q.ours)
    wrong = [f"{q.name} answers {answers[q.name]}, {ours.name} {answers[ours.name]}" for q in queries if not agrees(q, answers[q.name], answers[ours.name])]
    return queries, ours, times, answers, wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--directory", required=True, help="for the files of the embedded engines")
    parser.add_argument("--events", default="1000000,10000000")
    parser.add_argument("--users", default="196000", help="how many persons; several: 5000,196000")
    parser.add_argument("--ids", default="text", help="text, bigint or both: text,bigint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--engines", default="postgres,clickhouse,duckdb")
    parser.add_argument("--work-mem", default="4MB,512MB", help="of Postgres; the embedded engines run with the last one only")
    parser.add_argument("--parallel", type=int, default=0, help="max_parallel_workers_per_gather; the embedded engines get one thread more")
    parser.add_argument("--memory", action="store_true", help="also peak memory and temporary files of every query in Postgres")
    parser.add_argument("--no-rivals", action="store_true", help="only tidemark and the floor, for memory")
    args = parser.parse_args()
    unknown = set(args.cases.split(",")) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")

    postgres = Postgres(args.url, args.parallel)
    print(f"{os.cpu_count()} cores; Postgres: {postgres.settings()}")
    engines = {"postgres": postgres}
    if "clickhouse" in args.engines:
        engines["clickhouse"] = ClickHouse(args.directory, args.parallel + 1)
        print(f"ClickHouse (chdb) {engines['clickhouse'].session.query('SELECT version()')}".strip() + f", {args.parallel + 1} threads")
    if "duckdb" in args.engines:
        engines["duckdb"] = DuckDB(args.directory, args.parallel + 1)
        print(f"DuckDB {engines['duckdb'].run('SELECT version()')[0]}, {args.parallel + 1} threads")
    failed = []
    for count in map(int, args.events.split(",")):
        for users in map(int, args.users.split(",")):
            for ids in args.ids.split(","):
                users = min(users, count // 4)
                progress(f"==> {count:,} events of {users:,} persons, {ids} ids, seed {args.seed}")
                events = generate(count, users, args.seed)
                for engine in engines.values():
                    progress(f"    loading into {engine.name}")
                    engine.load(events, ids)
                del events
                print(f"\n## {count:,} events, {users:,} persons, {ids} ids, seed {args.seed}; medians of {args.rounds} rounds")
                for name in args.cases.split(","):
                    settings = args.work_mem.split(",")
                    for work_mem in settings:
                        postgres.set_work_mem(work_mem)
                        some = engines if work_mem == settings[-1] else {"postgres": postgres}
                        failed += table(CASES[name], some, args, ids, work_mem)
    for line in failed:
        print(f"\nWRONG: {line}")
    return 1 if failed else 0


def table(case, engines, args, ids: str, work_mem: str) -> list:
    progress(f"==> {case.title}, work_mem {work_mem}")
    queries, ours, times, answers, wrong = measure(case, engines, args.rounds, ids, not args.no_rivals)
    memory = "| MiB of memory (of temporary files) " if args.memory else ""
    print(f"\n### {case.title}{f' (goal: {case.goal})' if case.goal else ''}, work_mem {work_mem}\n")
    print(f"| query | seconds | range | times {ours.name} {memory}|\n|---|---:|---|---:|{'---|' if args.memory else ''}")
    for query in queries:
        median = statistics.median(times[query.name])
        ratio = statistics.median(theirs / mine for theirs, mine in zip(times[query.name], times[ours.name]))
        more = ""
        if args.memory:
            more = "| "
            if query.engine == "postgres":
                more = "| {:.0f} ({:.0f}) ".format(*engines["postgres"].memory(sql_of(query, ids), work_mem))
        name = f"**{query.name}**" if query.name.startswith("tidemark.") else query.name
        print(f"| {name} | {median:.3f} | {min(times[query.name]):.3f} to {max(times[query.name]):.3f} | {ratio:.2f} {more}|", flush=True)
    print(f"\nanswer: {', '.join(map(str, answers[ours.name]))}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
