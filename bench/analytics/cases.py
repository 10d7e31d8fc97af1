"""The questions, and how each engine is asked. Nothing about timing here.

A case has one entry of ours and several rivals; every query returns one row, so that a client's speed plays no part,
and `check` says how the rows of two engines must agree: a rival that answers something else is no rival.
"""

from dataclasses import dataclass, field

GAP = "interval '30 minutes'"
WINDOW = "interval '7 days'"
STEPS = ["product_viewed", "product_added", "order_completed"]
STEP_LIST = ", ".join(f"'{s}'" for s in STEPS)
CONDITIONS = ", ".join(f"event_type = '{s}'" for s in STEPS)


@dataclass
class Query:
    name: str
    engine: str  # postgres, clickhouse, duckdb
    sql: str
    check: str = "equal"  # with the answer of ours: equal, close, none
    setup: str = ""  # run once before the case
    ours: bool = False
    floor: bool = False


@dataclass
class Case:
    title: str
    queries: list = field(default_factory=list)
    goal: str = ""


def lag_sum(inner_extra: str = "") -> str:
    return f"""
        SELECT user_id, event_time, {inner_extra}
               sum(fresh) OVER (PARTITION BY user_id ORDER BY event_time ROWS UNBOUNDED PRECEDING) AS number
          FROM (SELECT user_id, event_time,
                       CASE WHEN event_time - lag(event_time) OVER (PARTITION BY user_id ORDER BY event_time) <= {GAP}
                           THEN 0 ELSE 1 END AS fresh
                  FROM events) AS marked"""


LAG_SUM_SESSIONS = f"""
    SELECT count(*), sum(events)::bigint FROM (
        SELECT user_id, number, min(event_time), max(event_time), count(*) AS events FROM ({lag_sum()}) AS numbered
         GROUP BY user_id, number
    ) AS sessions"""

# As many rows as `events`, in an order that is the same every time.
SCATTERED = """
    DROP TABLE IF EXISTS scattered;
    CREATE TABLE scattered AS
    SELECT number % persons AS user_id,
           timestamptz '2026-09-01 00:00Z' + number / persons * interval '7 hours' AS event_time
      FROM (SELECT count(*) AS total, greatest(count(*) / 50, 1) AS persons FROM events) AS counted,
           generate_series(1, total) AS number
     ORDER BY hashint8(number);
    ANALYZE scattered"""

# Window functions only, one pass a step: what a careful analyst writes without a self-join. The latest start whose
# window is still open decides, which is what the best chain needs when every step is a type of its own.
SQL_FUNNEL = f"""
    SELECT count(*) FILTER (WHERE level >= 1), count(*) FILTER (WHERE level >= 2),
           count(*) FILTER (WHERE level >= 3) FROM (
        SELECT user_id, max(CASE WHEN event_type = '{STEPS[0]}' THEN 1
                                 WHEN event_type = '{STEPS[1]}' AND first1 >= event_time - {WINDOW} THEN 2
                                 WHEN event_type = '{STEPS[2]}' AND first2 >= event_time - {WINDOW} THEN 3
                                 ELSE 0 END) AS level
          FROM (SELECT user_id, event_type, event_time, first1,
                       max(CASE WHEN event_type = '{STEPS[1]}' AND first1 >= event_time - {WINDOW} THEN first1 END)
                           OVER earlier AS first2
                  FROM (SELECT user_id, event_type, event_time,
                               max(CASE WHEN event_type = '{STEPS[0]}' THEN event_time END) OVER earlier AS first1
                          FROM events WHERE event_type IN ({STEP_LIST})
                        WINDOW earlier AS (PARTITION BY user_id
                                           ORDER BY event_time, array_position(ARRAY[{STEP_LIST}], event_type)
                                           ROWS UNBOUNDED PRECEDING)) AS a
                WINDOW earlier AS (PARTITION BY user_id
                                   ORDER BY event_time, array_position(ARRAY[{STEP_LIST}], event_type)
                                   ROWS UNBOUNDED PRECEDING)) AS b
         GROUP BY user_id) AS levels"""


def levels(inner: str) -> str:
    return f"""SELECT count(*) FILTER (WHERE level >= 1), count(*) FILTER (WHERE level >= 2),
                      count(*) FILTER (WHERE level >= 3)
                 FROM ({inner}) AS levels"""


CH_LEVELS = "SELECT countIf(level >= 1), countIf(level >= 2), countIf(level >= 3) FROM ({})"

CASES = {
    "sessions": Case(
        "sessions of every person: how many, and their events", goal=">= 8 x LAG + SUM",
        queries=[
            Query("tidemark.sessions", "postgres", f"""
                SELECT count(*), sum(s.events)::bigint
                  FROM (SELECT tidemark.sessions(event_time, {GAP}) AS list FROM events GROUP BY user_id) AS per_person,
                       unnest(list) AS s""", ours=True),
            Query("tidemark.session_count", "postgres", f"""
                SELECT sum(n)::bigint FROM (SELECT tidemark.session_count(event_time, {GAP}) AS n FROM events
                                             GROUP BY user_id) AS per_person""",
                  check="first"),
            Query("count(*) GROUP BY user_id (the floor)", "postgres",
                  "SELECT count(*), sum(n)::bigint "
                  "FROM (SELECT count(*) AS n FROM events GROUP BY user_id) AS per_person", check="none", floor=True),
            Query("SQL: LAG + SUM", "postgres", LAG_SUM_SESSIONS),
            Query("SQL: range_agg", "postgres", f"""
                SELECT sum((SELECT count(*) FROM unnest(r)))::bigint
                  FROM (SELECT range_agg(tstzrange(event_time, event_time + {GAP}, '[]')) AS r FROM events
                         GROUP BY user_id) AS per_person""",
                  check="first"),
            Query("DuckDB: LAG + SUM", "duckdb", LAG_SUM_SESSIONS),
            Query("ClickHouse: window functions", "clickhouse", """
                SELECT count(), sum(events) FROM (
                    SELECT user_id, number, count() AS events FROM (
                        SELECT user_id, event_time, sum(fresh)
                                   OVER (PARTITION BY user_id ORDER BY event_time ROWS UNBOUNDED PRECEDING) AS number
                          FROM (SELECT user_id, event_time,
                                       if(row_number() OVER person > 1
                                          AND event_time - lagInFrame(event_time) OVER person <= 1800000000,
                                          0, 1) AS fresh
                                  FROM events
                                WINDOW person AS (PARTITION BY user_id ORDER BY event_time ROWS UNBOUNDED PRECEDING)))
                     GROUP BY user_id, number)"""),
        ]),
    "sessions_scattered": Case(
        "sessions of scattered events: 50 a person, hours apart, rows in any order", goal="<= 2.5 x the floor",
        queries=[
            Query("tidemark.session_count", "postgres", f"""
                SELECT sum(n)::bigint FROM (
                    SELECT tidemark.session_count(event_time, {GAP}) AS n FROM scattered GROUP BY user_id) AS per_person""",
                  ours=True, setup=SCATTERED),
            Query("count(*) GROUP BY user_id (the floor)", "postgres",
                  "SELECT sum(n)::bigint FROM (SELECT count(*) AS n FROM scattered GROUP BY user_id) AS per_person",
                  check="none", floor=True),
            Query("SQL: LAG + SUM", "postgres", LAG_SUM_SESSIONS.replace("FROM events)", "FROM scattered)"),
                  check="first"),
        ]),
    "sessionize": Case(
        "every event with its session", goal=">= 2 x LAG + SUM",
        queries=[
            Query("tidemark.sessionize", "postgres", f"""
                SELECT count(s)
                  FROM (SELECT tidemark.sessionize(event_time, {GAP})
                                   OVER (PARTITION BY user_id ORDER BY event_time) AS s
                  FROM events OFFSET 0) AS x""", ours=True),
            Query("tidemark.session_number", "postgres", f"""
                SELECT count(s)
                  FROM (SELECT tidemark.session_number(event_time, {GAP})
                                   OVER (PARTITION BY user_id ORDER BY event_time) AS s
                  FROM events OFFSET 0) AS x"""),
            Query("SQL: LAG + SUM", "postgres", f"SELECT count(number) FROM ({lag_sum()} OFFSET 0) AS x"),
            Query("SQL: LAG alone (one window function)", "postgres",
                  "SELECT count(s) + 0 "
                  "FROM (SELECT lag(event_time, 0) OVER (PARTITION BY user_id ORDER BY event_time) AS s "
                  "FROM events OFFSET 0) AS x", floor=True),
            Query("DuckDB: LAG + SUM", "duckdb", f"SELECT count(number) FROM ({lag_sum()}) AS x"),
        ]),
    "funnel": Case(
        f"funnel of {len(STEPS)} steps within 7 days: persons a step", goal="<= 1.5 x the floor",
        queries=[
            Query("tidemark.funnel by name", "postgres",
                  levels(f"SELECT cardinality(tidemark.funnel({WINDOW}, event_time, event_type, "
                         f"ARRAY[{STEP_LIST}])) AS level FROM events GROUP BY user_id"),
                  ours=True),
            Query("tidemark.funnel with conditions", "postgres",
                  levels(f"SELECT cardinality(tidemark.funnel({WINDOW}, event_time, {CONDITIONS})) AS level "
                         "FROM events GROUP BY user_id")),
            Query("tidemark.window_funnel", "postgres",
                  levels(f"SELECT tidemark.window_funnel({WINDOW}, event_time, {CONDITIONS}) AS level FROM events "
                         "GROUP BY user_id")),
            Query("tidemark.window_funnel, only rows of a step", "postgres",
                  levels(f"SELECT tidemark.window_funnel({WINDOW}, event_time, {CONDITIONS}) AS level FROM events "
                         f"WHERE event_type IN ({STEP_LIST}) GROUP BY user_id")),
            Query("count(*) GROUP BY user_id (the floor)", "postgres",
                  "SELECT count(*), sum(n)::bigint "
                  "FROM (SELECT count(*) AS n FROM events GROUP BY user_id) AS per_person", check="none", floor=True),
            Query("SQL: window functions", "postgres", SQL_FUNNEL),
            Query("ClickHouse: windowFunnel", "clickhouse", CH_LEVELS.format(
                f"SELECT windowFunnel(604800000000)(event_time, {CONDITIONS}) AS level FROM events GROUP BY user_id")),
            Query("DuckDB: window functions", "duckdb", SQL_FUNNEL.replace("array_position(ARRAY[", "list_position([")),
        ]),
    "hll": Case(
        "distinct persons by day and type", goal=">= 2 x postgresql-hll",
        queries=[
            Query("tidemark.hll_agg, precision 14", "postgres", """
                SELECT count(*), sum(n)::bigint FROM (SELECT tidemark.hll_cardinality(tidemark.hll_agg(user_id)) AS n
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""", ours=True),
            Query("tidemark.approx_count_distinct", "postgres", """
                SELECT count(*), sum(n)::bigint FROM (SELECT tidemark.approx_count_distinct(user_id) AS n
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""", check="close"),
            Query("postgresql-hll, precision 14", "postgres", """
                SELECT count(*), sum(n)::bigint
                  FROM (SELECT peer.hll_cardinality(peer.hll_add_agg(HASH(user_id), 14)) AS n
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""", check="close"),
            Query("count(*) by day and type (the floor)", "postgres", """
                SELECT count(*), sum(n)::bigint FROM (SELECT count(*) AS n
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""",
                  check="none", floor=True),
            Query("SQL: count(DISTINCT)", "postgres", """
                SELECT count(*), sum(n)::bigint FROM (SELECT count(DISTINCT user_id) AS n
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""", check="close"),
            Query("ClickHouse: uniqCombined(14)", "clickhouse", """
                SELECT count(), sum(n) FROM (SELECT uniqCombined(14)(user_id) AS n
                  FROM events GROUP BY intDiv(event_time, 86400000000), event_type)""", check="close"),
            Query("DuckDB: approx_count_distinct", "duckdb", """
                SELECT count(*), sum(n)::bigint FROM (SELECT approx_count_distinct(user_id) AS n
                  FROM events GROUP BY event_time::date, event_type) AS rollup""", check="none"),
        ]),
    "retention": Case(
        "persons who came in week 1, and in the weeks after", queries=[
            Query("tidemark.retention", "postgres", """
                SELECT count(*) FILTER (WHERE r[1]), count(*) FILTER (WHERE r[2]), count(*) FILTER (WHERE r[3]),
                       count(*) FILTER (WHERE r[4]) FROM (
                    SELECT tidemark.retention(event_time < '2026-09-08Z',
                        event_time >= '2026-09-08Z' AND event_time < '2026-09-15Z',
                        event_time >= '2026-09-15Z' AND event_time < '2026-09-22Z',
                        event_time >= '2026-09-22Z' AND event_time < '2026-09-29Z') AS r
                      FROM events GROUP BY user_id) AS x""", ours=True),
            Query("SQL: bool_or", "postgres", """
                SELECT count(*) FILTER (WHERE a), count(*) FILTER (WHERE a AND b), count(*) FILTER (WHERE a AND c),
                       count(*) FILTER (WHERE a AND d) FROM (
                    SELECT bool_or(event_time < '2026-09-08Z') AS a,
                           bool_or(event_time >= '2026-09-08Z' AND event_time < '2026-09-15Z') AS b,
                           bool_or(event_time >= '2026-09-15Z' AND event_time < '2026-09-22Z') AS c,
                           bool_or(event_time >= '2026-09-22Z' AND event_time < '2026-09-29Z') AS d
                      FROM events GROUP BY user_id) AS x"""),
        ]),
    "sequence": Case(
        "persons who viewed, then added within a day, then ordered", queries=[
            Query("tidemark.sequence_match", "postgres", f"""
                SELECT count(*) FILTER (WHERE m)
                  FROM (SELECT tidemark.sequence_match('(?1)(?t<=86400)(?2).*(?3)', event_time, {CONDITIONS}) AS m
                  FROM events GROUP BY user_id) AS x""", ours=True),
            Query("ClickHouse: sequenceMatch (on whole seconds)", "clickhouse", f"""
                SELECT countIf(m)
                  FROM (SELECT sequenceMatch('(?1)(?t<=86400)(?2).*(?3)')(
                                   toDateTime(intDiv(event_time, 1000000)), {CONDITIONS}) AS m
                  FROM events GROUP BY user_id)""", check="close"),
        ]),
    "percentile": Case(
        "p95 of a latency by day and type", queries=[
            Query("tidemark.approx_percentile", "postgres", """
                SELECT count(*), sum(p)::bigint FROM (SELECT tidemark.approx_percentile(0.95, value) AS p
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""", ours=True),
            Query("SQL: percentile_cont", "postgres", """
                SELECT count(*), sum(p)::bigint FROM (SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY value) AS p
                  FROM events GROUP BY (event_time AT TIME ZONE 'UTC')::date, event_type) AS rollup""", check="close"),
            Query("DuckDB: approx_quantile", "duckdb", """
                SELECT count(*), sum(p)::bigint FROM (SELECT approx_quantile(value, 0.95) AS p
                  FROM events GROUP BY event_time::date, event_type) AS rollup""", check="none"),
        ]),
    "touch": Case(
        "the type of each person's first event", queries=[
            Query("tidemark.first", "postgres", """
                SELECT count(*) FILTER (WHERE t = 'page_viewed')
                  FROM (SELECT tidemark.first(event_type, event_time) AS t
                  FROM events GROUP BY user_id) AS x""", ours=True),
            Query("SQL: DISTINCT ON", "postgres", """
                SELECT count(*) FILTER (WHERE t = 'page_viewed') FROM (SELECT DISTINCT ON (user_id) event_type AS t
                  FROM events ORDER BY user_id, event_time) AS x""", check="close"),
            Query("SQL: (array_agg ORDER BY)[1]", "postgres", """
                SELECT count(*) FILTER (WHERE t = 'page_viewed')
                  FROM (SELECT (array_agg(event_type ORDER BY event_time))[1] AS t
                  FROM events GROUP BY user_id) AS x""", check="close"),
        ]),
}
