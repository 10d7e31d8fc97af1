-- gold.sessions: one row per session of a person; a session belongs to the UTC date on which it starts.
-- The query reads one day back, to see whether the first event of the date goes on with an older session, and two
-- days ahead, to follow sessions over midnight. A session longer than 48 hours without a pause ends there.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold.sessions (
    event_date date NOT NULL,
    session_id uuid PRIMARY KEY,
    person text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    duration_seconds numeric(12, 3) NOT NULL,
    events bigint NOT NULL,
    page_views bigint NOT NULL,
    purchases bigint NOT NULL,
    entry_page text,
    exit_page text,
    platform text,
    country text
);
CREATE INDEX IF NOT EXISTS sessions_event_date ON gold.sessions (event_date);
CREATE INDEX IF NOT EXISTS sessions_person ON gold.sessions (person, started_at);

COMMENT ON TABLE gold.sessions IS 'Sessions of a person: events with no gap greater than 30 minutes. Kept right for late events by tidemark.refresh.';
COMMENT ON COLUMN gold.sessions.event_date IS 'UTC date on which the session starts.';
COMMENT ON COLUMN gold.sessions.session_id IS 'Stable key: tidemark.session_id(person, started_at).';
COMMENT ON COLUMN gold.sessions.person IS 'The user_id, or the anonymous_id before login.';
COMMENT ON COLUMN gold.sessions.started_at IS 'Time of its first event.';
COMMENT ON COLUMN gold.sessions.ended_at IS 'Time of its last event.';
COMMENT ON COLUMN gold.sessions.duration_seconds IS 'ended_at - started_at in seconds; 0 for a session of one event.';
COMMENT ON COLUMN gold.sessions.events IS 'Number of events.';
COMMENT ON COLUMN gold.sessions.page_views IS 'Number of page_viewed events.';
COMMENT ON COLUMN gold.sessions.purchases IS 'Number of purchase_completed events.';
COMMENT ON COLUMN gold.sessions.entry_page IS 'Path of the first page seen; NULL without one.';
COMMENT ON COLUMN gold.sessions.exit_page IS 'Path of the last page seen; NULL without one.';
COMMENT ON COLUMN gold.sessions.platform IS 'Platform of the first event.';
COMMENT ON COLUMN gold.sessions.country IS 'Country of the first event.';

SELECT tidemark.create_model('gold.sessions', ARRAY['bronze.events']::regclass[], $query$
    WITH events AS (
        SELECT e.person, e.event_time, e.event_id, e.event_type, e.page_path, e.platform, e.country,
               tidemark.sessionize(e.event_time, interval '30 minutes') OVER (PARTITION BY e.person ORDER BY e.event_time) AS started_at
          FROM silver.events e
         WHERE e.event_time >= ($1 - 1)::timestamp AT TIME ZONE 'UTC'
           AND e.event_time < ($2 + 2)::timestamp AT TIME ZONE 'UTC'
           AND e.person IS NOT NULL
    )
    SELECT (s.started_at AT TIME ZONE 'UTC')::date AS event_date,
           tidemark.session_id(s.person, s.started_at) AS session_id,
           s.person,
           s.started_at,
           max(s.event_time) AS ended_at,
           extract(epoch FROM max(s.event_time) - s.started_at)::numeric(12, 3) AS duration_seconds,
           count(*) AS events,
           count(*) FILTER (WHERE s.event_type = 'page_viewed') AS page_views,
           count(*) FILTER (WHERE s.event_type = 'purchase_completed') AS purchases,
           (array_agg(s.page_path ORDER BY s.event_time, s.event_id) FILTER (WHERE s.page_path IS NOT NULL))[1] AS entry_page,
           (array_agg(s.page_path ORDER BY s.event_time DESC, s.event_id DESC) FILTER (WHERE s.page_path IS NOT NULL))[1] AS exit_page,
           (array_agg(s.platform ORDER BY s.event_time, s.event_id))[1] AS platform,
           (array_agg(s.country ORDER BY s.event_time, s.event_id))[1] AS country
      FROM events s
     WHERE s.started_at >= $1::timestamp AT TIME ZONE 'UTC' AND s.started_at < $2::timestamp AT TIME ZONE 'UTC'
     GROUP BY s.person, s.started_at
$query$, ARRAY['session_id']::name[], 1, 2);

GRANT SELECT ON gold.sessions TO tidemark_reader;
