"""Reports over a timeline beside the aggregates over rows and embedded ClickHouse, with the same rows: `make bench-timelines`.

Engines take turns; the answers are compared, and a difference fails the run. ClickHouse has two tables, ordered by person
and time and by type, date, person and time, and several spellings; the best one counts.
"""

import argparse
import os
import statistics
import sys
import time

import psycopg

DATES = "'2026-09-01', '2026-10-01'"
STEPS = '["product_viewed", "product_added", "order_completed"]'
TYPES = "('product_viewed', 'product_added', 'order_completed')"
IN_STEPS = f"event_type IN {TYPES}"
# Skewed persons, each of one country (some of none), 2,000 pages by Zipf, milliseconds, two percent late.
ROWS = """
SELECT setseed(0.42);
CREATE TABLE events (event_date date NOT NULL, event_time timestamptz NOT NULL, person text NOT NULL,
                     event_type text NOT NULL, platform text, country text, page_path text);
INSERT INTO events
SELECT (t.at AT TIME ZONE 'UTC')::date, t.at, 'person-' || lpad(t.p::text, 14, '0'),
       (ARRAY['page_viewed', 'page_viewed', 'page_viewed', 'page_viewed', 'searched', 'clicked', 'clicked', 'product_viewed',
              'product_viewed', 'product_added', 'order_completed', 'signed_up'])[1 + floor(t.e * 12)::integer],
       (ARRAY['web', 'ios', 'android'])[1 + t.p % 3], CASE WHEN t.p % 50 > 0 THEN 'C' || t.p % 40 END,
       CASE WHEN t.z > 0.08 THEN '/page/' || floor(2000 ^ t.z) END
  FROM (SELECT timestamptz '2026-09-01Z' + floor((n + floor(random() * 0.02 * {events})::integer) % {events} * 2592000000.0
                   / {events}) * interval '1 millisecond' AS at,
               floor({persons} * random() ^ 3)::integer AS p, random() AS e, random() AS z
          FROM generate_series(0, {events} - 1) AS n) AS t;
CREATE INDEX ON events (event_date);
"""
# The same, in the order of time, on one date.
ROUND = """
INSERT INTO today
SELECT date '2026-10-01', timestamptz '2026-10-01Z' + (n * 20 + floor(random() * 10000)) * interval '1 millisecond',
       'person-' || lpad(t.p::text, 14, '0'),
       (ARRAY['page_viewed', 'page_viewed', 'page_viewed', 'page_viewed', 'searched', 'clicked', 'clicked', 'product_viewed',
              'product_viewed', 'product_added', 'order_completed', 'signed_up'])[1 + floor(t.e * 12)::integer],
       (ARRAY['web', 'ios', 'android'])[1 + t.p % 3], CASE WHEN t.p % 50 > 0 THEN 'C' || t.p % 40 END,
       CASE WHEN t.z > 0.08 THEN '/page/' || floor(2000 ^ t.z) END
  FROM (SELECT n, floor({persons} * random() ^ 3)::integer AS p, random() AS e, random() AS z
          FROM generate_series({first}, {last} - 1) AS n) AS t
"""
FORM = ("SELECT countIf(l >= 1), countIf(l >= 2), countIf(l >= 3) FROM (SELECT windowFunnel(86400000)(ms, {steps}) AS l "
        "FROM {table} {where} GROUP BY person)")
PLAIN = "event_type = 'product_viewed', event_type = 'product_added', event_type = 'order_completed'"
FILTERED = ("event_type = 'product_viewed' AND page_path = '/page/2', event_type = 'product_added' AND country IN ('C1', 'C2', 'C3', "
            "'C4', 'C5'), event_type = 'order_completed'")
FILTERED_JSON = ('[{"event": "product_viewed", "filters": ["is", "page_path", ["/page/2"]]}, {"event": "product_added", "filters": '
                 '["is", "country", ["C1", "C2", "C3", "C4", "C5"]]}, "order_completed"]')
IN_ORDER = " SETTINGS optimize_aggregation_in_order = 1"
GAPS = ("SELECT count(), round(quantileExactInclusive(0.5)(d) / 1000, 3) FROM (SELECT arrayJoin(arrayMap(x -> x[-1] - x[1], "
        "arraySplit((t, g) -> g > 1800000, ts, arrayDifference(ts)))) AS d FROM (SELECT arraySort(groupArray(ms)) AS ts FROM eu "
        "GROUP BY person))")
WEEKS = "SELECT groupBitOr(bitShiftLeft(toUInt64(1), toRelativeWeekNum(time, 'UTC') - toRelativeWeekNum(toDateTime('2026-09-01', 'UTC')))) AS b FROM {} GROUP BY person"
RETAINED = ("SELECT c, k, count() FROM (SELECT b, bitPosition AS c, arrayJoin(arrayFilter(k -> bitTest(b, c + k) AND c + k < 4, range(4))) AS k "
            "FROM (SELECT b, arrayFirstIndex(i -> bitTest(b, i), range(8)) - 1 AS bitPosition FROM ({}))) GROUP BY c, k ORDER BY c, k")


def funnel(steps: str, more: str = "") -> str:
    return f"FROM tidemark.funnel_report('events', {DATES}, '{steps}', '1 day'{more})"


def over_rows(conditions: str) -> str:
    return ("SELECT t.entered FROM (SELECT tidemark.funnel_stats(f, 3) AS s FROM (SELECT tidemark.funnel('1 day', event_time, VARIADIC "
            f"ARRAY[{conditions}]) AS f FROM events GROUP BY person) AS p) AS q, tidemark.funnel_table(q.s) AS t")


# Title, the report, the aggregates over rows, and the spellings of ClickHouse.
CASES = {
    "funnel": ("3 steps, 1 day, with times", f"SELECT entered {funnel(STEPS)}", over_rows(PLAIN),
               [FORM.format(steps=PLAIN, table=t, where=w) + s for t, w, s in (
                   ("eu", "", IN_ORDER), ("eu", "WHERE " + IN_STEPS, IN_ORDER), ("et", "WHERE " + IN_STEPS, ""))]),
    "filtered": ("the same with a filter on each of two properties", f"SELECT entered {funnel(FILTERED_JSON)}", over_rows(FILTERED),
                 [FORM.format(steps=FILTERED, table=t, where=w) + s for t, w, s in (
                     ("eu", "WHERE " + IN_STEPS, IN_ORDER),
                     ("et", "WHERE (" + FILTERED.replace(", event_type", ") OR (event_type") + ")", ""))]),
    "breakdown": ("the same by country", "SELECT series, entered " + funnel(STEPS, ", breakdown => 'country', top => 100")
                  + " ORDER BY series, step", None,
                  [f"SELECT c, arrayJoin([countIf(l >= 1), countIf(l >= 2), countIf(l >= 3)]) FROM (SELECT argMinIf(ifNull(country, '(none)'), ms, "
                   f"event_type = 'product_viewed') AS c, windowFunnel(86400000)(ms, {PLAIN}) AS l FROM {t} WHERE {IN_STEPS} GROUP BY person) "
                   f"WHERE l >= 1 GROUP BY c ORDER BY c" + s for t, s in (("eu", IN_ORDER), ("et", ""))]),
    "sessions": ("sessions with exact median", f"SELECT sessions, median_seconds FROM tidemark.session_report('events', {DATES})",
                 "SELECT count(*), round(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM (s).ended_at - (s).started_at)::float8)::numeric, 3) "
                 "FROM (SELECT unnest(tidemark.sessions(event_time, '30 minutes')) AS s FROM events GROUP BY person) AS p", [GAPS + IN_ORDER, GAPS]),
    "retention": ("weekly retention of everybody", "SELECT (cohort - '2026-08-31') / 7, period, persons FROM tidemark.retention_report('events', "
                  f"{DATES}, '{{\"filters\": [\"and\", []]}}', '{{\"filters\": [\"and\", []]}}', 'week', '', 4) WHERE persons IS NOT NULL AND persons > 0 "
                  "ORDER BY 1, 2", None, [RETAINED.format(WEEKS.format(t)) for t in ("eu", "et")]),
    "actives": ("daily active persons", f"SELECT period::date::text, value FROM tidemark.trend('events', {DATES}, 'persons')",
                "SELECT event_date::text, count(DISTINCT person) FROM events GROUP BY 1 ORDER BY 1",
                ["SELECT toDate(time, 'UTC') AS d, uniqExact(person) FROM eu GROUP BY d ORDER BY d",
                 "SELECT d, count() FROM (SELECT person, toDate(time, 'UTC') AS d FROM eu GROUP BY person, d) GROUP BY d ORDER BY d" + IN_ORDER]),
    "trend": ("product views a day by platform", "SELECT period::date::text, series, value FROM tidemark.trend('events', "
              f"{DATES}, events => '\"product_viewed\"', breakdown => 'platform') ORDER BY 1, 2",
              "SELECT event_date::text, platform, count(*) FROM events WHERE event_type = 'product_viewed' GROUP BY 1, 2 ORDER BY 1, 2",
              [f"SELECT toDate(time, 'UTC') AS d, platform AS p, count() FROM {t} WHERE event_type = 'product_viewed' GROUP BY d, p ORDER BY d, p"
               for t in ("eu", "et")]),
}


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def flat(rows) -> list:
    """Values of an answer one after the other, numbers as numbers."""
    def value(x):
        try:
            return round(float(x), 3)
        except ValueError:
            return str(x)
    return [value(x) for row in rows for x in row if x is not None]


def rounds(db, persons: int, onto: int, new: int) -> None:
    """What a refresh takes each time that a date has gained events."""
    db.execute("CREATE TABLE today (LIKE events); CREATE INDEX ON today (event_date); SELECT tidemark.track_changes('today'); "
               "SELECT tidemark.create_timeline('public.today_line', 'today', properties => '{platform,country,page_path}')")
    db.execute(ROUND.format(persons=persons, first=0, last=onto))
    db.execute("CALL tidemark.refresh('public.today_line')")
    print(f"\n| {new:,} events onto {onto:,} and so on | s | WAL MB |\n|---|---:|---:|")
    for number in range(6):
        first = onto + number * new
        db.execute(ROUND.format(persons=persons, first=first, last=first + new))
        before, = db.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        began = time.perf_counter()
        db.execute("CALL tidemark.refresh('public.today_line')")
        took = time.perf_counter() - began
        wal, written = db.execute("SELECT (pg_current_wal_insert_lsn() - %s) / 1e6, (SELECT way || CASE WHEN rows_updated > 0 THEN ', parts "
                                  "to slices' ELSE '' END FROM tidemark.refresh_log ORDER BY id DESC LIMIT 1)", (before,)).fetchone()
        print(f"| {number + 1}: {written} | {took:.3f} | {wal:.2f} |", flush=True)


class ClickHouse:
    def __init__(self, directory: str, file: str):
        from chdb import session
        self.session = session.Session(os.path.join(directory, "chdb"))
        self.session.query("CREATE DATABASE b ENGINE = Atomic")
        self.session.query("USE b")
        columns = ("time DateTime64(3, 'UTC'), ms UInt64 MATERIALIZED toUnixTimestamp64Milli(time), person String, "
                   "event_type LowCardinality(String), platform LowCardinality(Nullable(String)), country LowCardinality(Nullable(String)), "
                   "page_path LowCardinality(Nullable(String))")
        read = ("ms Int64, person String, event_type String, platform Nullable(String), country Nullable(String), "
                "page_path Nullable(String)")
        for name, order in (("eu", "person, time"), ("et", "event_type, toDate(time, 'UTC'), person, time")):
            self.session.query(f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree ORDER BY ({order})")
            self.session.query(f"INSERT INTO {name} (time, person, event_type, platform, country, page_path) "
                               f"SELECT fromUnixTimestamp64Milli(ms, 'UTC'), * EXCEPT ms FROM file('{file}', 'TSV', '{read}')")
            self.session.query(f"OPTIMIZE TABLE {name} FINAL")

    def rows(self, sql: str) -> list:
        sql += (", " if "SETTINGS" in sql else " SETTINGS ") + "max_threads = 1"
        return [line.split("\t") for line in str(self.session.query(sql, "TabSeparated")).splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-timelines", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--directory", required=True, help="for the files of ClickHouse")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--persons", type=int, default=196_000)
    parser.add_argument("--slices", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--onto", type=int, default=1_200_000, help="events of a date that gains some; 0: none does")
    parser.add_argument("--no-clickhouse", action="store_true")
    args = parser.parse_args()

    db = psycopg.connect(args.url, autocommit=True)
    for setting in ("timezone = 'UTC'", "max_parallel_workers_per_gather = 0", "work_mem = '512MB'", "jit = off"):
        db.execute(f"SET {setting}")
    progress(f"==> {args.events:,} events of up to {args.persons:,} persons")
    db.execute(ROWS.format(events=args.events, persons=args.persons))
    db.execute("VACUUM (ANALYZE, FREEZE) events")
    began = time.perf_counter()
    db.execute("SELECT tidemark.create_timeline('public.timeline', 'events', properties => '{platform,country,page_path}', "
               f"slices => {args.slices})")
    db.execute("CALL tidemark.refresh()")
    built = time.perf_counter() - began
    db.execute("VACUUM (ANALYZE, FREEZE) timeline")
    size, values, heap = db.execute("SELECT pg_total_relation_size('timeline'), sum(pg_column_size(data)), pg_total_relation_size('events') "
                                    "FROM timeline").fetchone()
    print(f"{args.events:,} events, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: built in {built:.1f} s, "
          f"{1e6 * built / args.events:.2f} us an event; bytes an event: {size / args.events:.2f} on disk, {int(values) / args.events:.2f} of "
          f"values, rows {heap / args.events:.1f}")
    rival = None
    if not args.no_clickhouse:
        progress("    loading into ClickHouse")
        file = os.path.join(args.directory, "events.tsv")
        with open(file, "wb") as out, db.cursor().copy("COPY (SELECT (1000 * extract(epoch FROM event_time))::bigint, person, "
                                                       "event_type, platform, country, page_path FROM events) TO STDOUT") as copy:
            for part in copy:
                out.write(part)
        rival = ClickHouse(args.directory, file)
        os.unlink(file)

    print("\n| question | timeline ms | rows ms | ClickHouse ms, best | best / timeline |\n|---|---:|---:|---:|---:|")
    wrong = []
    for name in args.cases.split(","):
        title, report, over, spellings = CASES[name]
        progress(f"==> {title}")
        ways = {"timeline": lambda: db.execute(report).fetchall()}
        if over:
            ways["rows"] = lambda: db.execute(over).fetchall()
        for i, sql in enumerate(spellings if rival else []):
            ways[f"clickhouse {i}"] = lambda sql=sql: rival.rows(sql)
        times = {way: [] for way in ways}
        for turn in range(args.rounds + 1):
            for way, run in ways.items():
                if way == "rows" and turn > 1:
                    continue
                began = time.perf_counter()
                answer = flat(run())
                if turn:
                    times[way].append(1000 * (time.perf_counter() - began))
                elif way == "timeline":
                    expected = answer
                elif answer != expected:
                    wrong.append(f"{title}: {way} says {answer[:12]}, the timeline {expected[:12]}")
        medians = {way: statistics.median(found) for way, found in times.items()}
        best = min((n for way, n in medians.items() if way.startswith("clickhouse")), default=None)
        print(f"| {title} | {medians['timeline']:.1f} | {medians['rows']:.0f} |" if over else f"| {title} | {medians['timeline']:.1f} | - |",
              f"{best:.1f} | {best / medians['timeline']:.1f} |" if best else "- | - |", flush=True)
    if args.onto:
        progress("==> rounds")
        rounds(db, args.persons, args.onto, args.onto * 23 // 240)
    for line in wrong:
        print(f"\nWRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
