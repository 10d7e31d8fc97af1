"""The models that are measured: a rollup by date, type, country and platform; one of it by fewer columns; sessions."""

SINCE = "e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'"


def fine_query(table: str) -> str:
    """One scan of the events: counts, a sketch of the users, a sketch of the latencies."""
    return f"""
    SELECT (e.event_time AT TIME ZONE 'UTC')::date AS event_date, e.event_type, e.country, e.platform,
           count(*) AS events, tidemark.hll_agg(e.user_id) AS users, tidemark.ddsketch_agg(e.latency_ms) AS latency
      FROM {table} AS e
     WHERE {SINCE}
     GROUP BY 1, 2, 3, 4"""


def daily_query(fine: str) -> str:
    """From the finer rollup alone: what dashboards ask most, by date and at most one more column."""
    return f"""
    SELECT f.event_date,
           CASE WHEN GROUPING(f.event_type) = 0 THEN 'type' WHEN GROUPING(f.country) = 0 THEN 'country'
                WHEN GROUPING(f.platform) = 0 THEN 'platform' ELSE 'total' END AS grain,
           COALESCE(f.event_type, f.country, f.platform, '') AS value,
           sum(f.events)::bigint AS events, tidemark.hll_union_agg(f.users) AS users,
           tidemark.ddsketch_union_agg(f.latency) AS latency
      FROM {fine} AS f
     WHERE f.event_date >= $1 AND f.event_date < $2
     GROUP BY GROUPING SETS ((f.event_date), (f.event_date, f.event_type), (f.event_date, f.country),
                             (f.event_date, f.platform))"""


def sessions_query(table: str) -> str:
    """As the warehouse's gold.sessions: a row per session that starts on the date, reading one day back and two ahead."""
    return f"""
    SELECT (s.started_at AT TIME ZONE 'UTC')::date AS event_date, s.user_id, s.started_at,
           max(s.event_time) AS ended_at, count(*) AS events,
           count(*) FILTER (WHERE s.event_type = 'order_completed') AS orders,
           tidemark.first(s.event_type, s.event_time) AS entry, tidemark.first(s.country, s.event_time) AS country
      FROM (SELECT e.*, tidemark.sessionize(e.event_time, interval '30 minutes')
                       OVER (PARTITION BY e.user_id ORDER BY e.event_time) AS started_at
              FROM {table} AS e
             WHERE e.event_time >= ($1 - 1)::timestamp AT TIME ZONE 'UTC'
               AND e.event_time < ($2 + 2)::timestamp AT TIME ZONE 'UTC') AS s
     WHERE s.started_at >= $1::timestamp AT TIME ZONE 'UTC' AND s.started_at < $2::timestamp AT TIME ZONE 'UTC'
     GROUP BY s.user_id, s.started_at"""


def create_model(db, name: str, source: str, query: str, key: list, back: int = 0, ahead: int = 0) -> None:
    db.execute("SELECT tidemark.create_model(%s, ARRAY[%s]::regclass[], %s, %s::name[], %s, %s)",
               (name, source, query, key, back, ahead))


FINE_KEY = ["event_date", "event_type", "country", "platform"]
DAILY_KEY = ["event_date", "grain", "value"]
SESSIONS_KEY = ["event_date", "user_id", "started_at"]
