-- Daily activity: exact counts, and a sketch of the persons of each day from which any longer span is a union.
-- The sketch stays in a table of its own; dashboards read plain numbers from the view.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold.daily_activity (
    event_date date PRIMARY KEY,
    events bigint NOT NULL,
    late_events bigint NOT NULL,
    persons bigint NOT NULL,
    persons_sketch tidemark.hll NOT NULL,
    last_event_at timestamptz NOT NULL,
    last_loaded_at timestamptz NOT NULL
);
COMMENT ON TABLE gold.daily_activity IS 'One row per UTC date with events: counts and the sketch of its persons. Read gold.daily_actives instead.';
COMMENT ON COLUMN gold.daily_activity.event_date IS 'UTC date.';
COMMENT ON COLUMN gold.daily_activity.events IS 'Number of events.';
COMMENT ON COLUMN gold.daily_activity.late_events IS 'Events received on a later UTC date than they happened on.';
COMMENT ON COLUMN gold.daily_activity.persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold.daily_activity.persons_sketch IS 'HyperLogLog sketch of the persons (log2m 14).';
COMMENT ON COLUMN gold.daily_activity.last_event_at IS 'Latest event time.';
COMMENT ON COLUMN gold.daily_activity.last_loaded_at IS 'When the latest loaded event of the date was committed.';

SELECT tidemark.create_model('gold.daily_activity', ARRAY['bronze.events']::regclass[], $query$
    SELECT (e.event_time AT TIME ZONE 'UTC')::date AS event_date,
           count(*) AS events,
           count(*) FILTER (WHERE (e.received_at AT TIME ZONE 'UTC')::date > (e.event_time AT TIME ZONE 'UTC')::date) AS late_events,
           count(DISTINCT coalesce(e.user_id, e.anonymous_id)) AS persons,
           tidemark.hll_agg(coalesce(e.user_id, e.anonymous_id)) AS persons_sketch,
           max(e.event_time) AS last_event_at,
           max(e.loaded_at) AS last_loaded_at
      FROM bronze.events e
     WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'
     GROUP BY 1
$query$, ARRAY['event_date']::name[]);

CREATE OR REPLACE VIEW gold.daily_actives AS
SELECT event_date, events, persons AS active_persons, tidemark.hll_cardinality(persons_sketch) AS active_persons_estimate,
       late_events, last_event_at, last_loaded_at
  FROM gold.daily_activity;
COMMENT ON VIEW gold.daily_actives IS 'Daily actives: one row per UTC date with events.';
COMMENT ON COLUMN gold.daily_actives.event_date IS 'UTC date.';
COMMENT ON COLUMN gold.daily_actives.events IS 'Number of events.';
COMMENT ON COLUMN gold.daily_actives.active_persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold.daily_actives.active_persons_estimate IS 'Distinct persons by the sketch; exact up to 128, beyond that with a standard error of 0.81 %.';
COMMENT ON COLUMN gold.daily_actives.late_events IS 'Events received on a later UTC date than they happened on.';
COMMENT ON COLUMN gold.daily_actives.last_event_at IS 'Latest event time.';
COMMENT ON COLUMN gold.daily_actives.last_loaded_at IS 'When the latest loaded event of the date was committed.';

GRANT SELECT ON gold.daily_actives TO tidemark_reader;
