"""Questions: the report of tidemark that answers each, its aggregates over rows, and spellings of the other engines.

ClickHouse has several spellings, with and without a WHERE that leaves only the events of steps, over both orders of rows;
the best one counts.
"""

from dataclasses import dataclass

DATES = "'2026-09-01', '2026-10-01'"
IN_ORDER = " SETTINGS optimize_aggregation_in_order = 1"
STEPS = ["product_viewed", "product_added", "order_completed"]
SEVEN = ["page_viewed", "searched", "product_viewed", "product_added", "cart_viewed", "checkout_started", "order_completed"]
PAGE = "page_path = '/shop/men/item-0000'"
COUNTRIES = ["AA", "AB", "AC", "AD", "AE"]
FILTERED = ('[{"event": "product_viewed", "filters": ["is", "page_path", ["/shop/men/item-0000"]]}, {"event": "product_added", '
            '"filters": ["is", "country", ["AA", "AB", "AC", "AD", "AE"]]}, "order_completed"]')


@dataclass
class Case:
    title: str
    report: str
    clickhouse: list[str]
    rows: str = ""
    duckdb: str = ""


def funnel(steps: str, more: str = "", source: str = "events", dates: str = DATES) -> str:
    return f"FROM tidemark.funnel_report('{source}', {dates}, '{steps}', '1 day'{more})"


def json(steps: list[str]) -> str:
    return "[" + ", ".join(f'"{step}"' for step in steps) + "]"


def conditions(steps: list[str]) -> str:
    return ", ".join(f"event_type = '{step}'" for step in steps)


def among(steps: list[str]) -> str:
    return "event_type IN (" + ", ".join(f"'{step}'" for step in steps) + ")"


def filtered(join: str) -> str:
    return join.join([f"(event_type = 'product_viewed' AND {PAGE})", f"(event_type = 'product_added' AND country IN {tuple(COUNTRIES)})",
                      "event_type = 'order_completed'"])


def over_rows(steps: str, n: int) -> str:
    return (f"SELECT t.entered FROM (SELECT tidemark.funnel_stats(f, {n}) AS s FROM (SELECT tidemark.funnel('1 day', event_time, VARIADIC "
            f"ARRAY[{steps}]) AS f FROM events GROUP BY person) AS p) AS q, tidemark.funnel_table(q.s) AS t")


def window_funnel(steps: str, n: int, *ways: tuple[str, str, str]) -> list[str]:
    levels = ", ".join(f"countIf(l >= {i + 1})" for i in range(n))
    return [f"SELECT {levels} FROM (SELECT windowFunnel(86400000)(ms, {steps}) AS l FROM {table} {where} GROUP BY person)" + settings
            for table, where, settings in ways]


def of_steps(where: str) -> list[tuple[str, str, str]]:
    return [("eu", "", IN_ORDER), ("eu", "WHERE " + where, IN_ORDER), ("et", "WHERE " + where, "")]


def by_property(title: str, column: str) -> Case:
    own = f"argMinIf(ifNull({column}, '(none)'), ms, event_type = 'product_viewed')"
    return Case(title, f"SELECT series, entered {funnel(json(STEPS), f', breakdown => $${column}$$, top => 3000')} ORDER BY series COLLATE \"C\", step",
                [f"SELECT c, arrayJoin([countIf(l >= 1), countIf(l >= 2), countIf(l >= 3)]) FROM (SELECT {own} AS c, windowFunnel(86400000)(ms, "
                 f"{conditions(STEPS)}) AS l FROM {t} WHERE {among(STEPS)} GROUP BY person) WHERE l >= 1 GROUP BY c ORDER BY c" + s
                 for t, s in (("eu", IN_ORDER), ("et", ""))])


GAPS = "arraySplit((t, g) -> g > 1800000, ts, arrayDifference(ts))"
SESSIONS = (f"SELECT count(), round(quantileExactInclusive(0.5)(d) / 1000, 3) FROM (SELECT arrayJoin(arrayMap(x -> x[-1] - x[1], {GAPS})) AS d "
            "FROM (SELECT arraySort(groupArray(ms)) AS ts FROM eu GROUP BY person))")
# Of each session the first five items, and who goes from which to which.
PATHS = ("SELECT k, i[k], i[k + 1], uniqExact(person), count() AS n FROM (SELECT person, i, arrayJoin(range(1, toUInt64(length(i)))) AS k FROM (SELECT person, "
         "arraySlice(arrayCompact(arrayJoin(arraySplit((e, g) -> g > 1800000, es, arrayDifference(ts)))), 1, 5) AS i FROM (SELECT person, "
         "arraySort(x -> x.1, groupArray((ms, event_type))) AS o, o.1 AS ts, o.2 AS es FROM eu GROUP BY person))) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
# Returns in the last week, which is not over, do not count.
WEEK = "toUInt8(dateDiff('week', toDate('2026-08-31'), event_date))"
WEEKS = f"SELECT groupBitOr(bitShiftLeft(toUInt64(1), {WEEK})) AS b FROM {{}} GROUP BY person"
RETAINED = ("SELECT c, k, count() FROM (SELECT b, arrayFirstIndex(i -> bitTest(b, i), range(8)) - 1 AS c, arrayJoin(arrayFilter("
            "k -> bitTest(b, c + k) AND (k = 0 OR c + k < 4), range(4))) AS k FROM ({})) GROUP BY c, k ORDER BY c, k")
EVERYTHING = '{"filters": ["and", []]}'
MEDIAN = "percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM (s).ended_at - (s).started_at)::float8)"

CASES = {
    "funnel": Case("3 steps, 1 day, with times", f"SELECT entered {funnel(json(STEPS))}",
                   window_funnel(conditions(STEPS), 3, *of_steps(among(STEPS))), over_rows(conditions(STEPS), 3)),
    "filtered": Case("the same with a filter on each of two properties", f"SELECT entered {funnel(FILTERED)}",
                     window_funnel(filtered(", "), 3, ("eu", "WHERE " + among(STEPS), IN_ORDER), ("et", "WHERE " + filtered(" OR "), "")),
                     over_rows(filtered(", "), 3)),
    "country": by_property("the same by country", "country"),
    "seven": Case("7 steps, 1 day, with times", f"SELECT entered {funnel(json(SEVEN))}",
                  window_funnel(conditions(SEVEN), 7, *of_steps(among(SEVEN))), over_rows(conditions(SEVEN), 7)),
    "sessions": Case("sessions with exact median", f"SELECT sessions, median_seconds FROM tidemark.session_report('events', {DATES})",
                     [SESSIONS + IN_ORDER, SESSIONS], f"SELECT count(*), round({MEDIAN}::numeric, 3) FROM (SELECT "
                     "unnest(tidemark.sessions(event_time, '30 minutes')) AS s FROM events GROUP BY person) AS p"),
    "retention": Case("weekly retention of everybody", "SELECT (cohort - '2026-08-31') / 7, period, persons FROM tidemark.retention_report('events', "
                      f"{DATES}, '{EVERYTHING}', '{EVERYTHING}', 'week', '', 4) WHERE persons > 0 ORDER BY 1, 2",
                      [RETAINED.format(WEEKS.format(t)) + s for t, s in (("eu", IN_ORDER), ("eu", ""), ("et", ""))],
                      duckdb="WITH w AS (SELECT DISTINCT person, date_diff('day', DATE '2026-08-31', event_date) // 7 AS w FROM events), "
                      "c AS (SELECT w, min(w) OVER (PARTITION BY person) AS c FROM w) SELECT c, w - c, count(*) FROM c WHERE w = c OR w < 4 "
                      "GROUP BY ALL ORDER BY ALL"),
    "paths": Case("paths of five items", "SELECT step, source_item, target_item, persons, sessions FROM tidemark.paths('events', "
                  f"{DATES}, top => 1000) ORDER BY step, source_item COLLATE \"C\", target_item COLLATE \"C\"", [PATHS + IN_ORDER, PATHS]),
    "actives": Case("daily active persons", f"SELECT period::date::text, value FROM tidemark.trend('events', {DATES}, 'persons')",
                    [f"SELECT event_date AS d, uniqExact(person) FROM {t} GROUP BY d ORDER BY d" for t in ("eu", "et")]
                    + ["SELECT d, count() FROM (SELECT person, event_date AS d FROM eu GROUP BY person, d) GROUP BY d ORDER BY d" + IN_ORDER],
                    "SELECT event_date::text, count(DISTINCT person) FROM events GROUP BY 1 ORDER BY 1",
                    "SELECT event_date::text, count(DISTINCT person) FROM events GROUP BY 1 ORDER BY 1"),
    "trend": Case("product views a day by platform", "SELECT period::date::text, series, value FROM tidemark.trend('events', "
                  f"{DATES}, events => '\"product_viewed\"', breakdown => 'platform') ORDER BY 1, 2",
                  [f"SELECT event_date AS d, platform AS p, count() FROM {t} WHERE event_type = 'product_viewed' GROUP BY d, p ORDER BY d, p"
                   for t in ("eu", "et")],
                  *["SELECT event_date::text, platform, count(*) FROM events WHERE event_type = 'product_viewed' GROUP BY 1, 2 ORDER BY 1, 2"] * 2),
    # The last, as it adds the property.
    "campaign": by_property("3 steps by a property of 2,000 values", "campaign"),
}
