-- What a reader may know about the loading itself: rejected events by reason and date, how fresh everything is, how
-- late events come. The extension's own views have columns of type regclass and interval, which BI tools cannot group
-- by.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW gold.dead_letters_by_reason AS
SELECT d.stage, d.reason, count(*) AS events, min(d.quarantined_at) AS first_at, max(d.quarantined_at) AS last_at
  FROM loader.dead_letters d
 WHERE d.status = 'open'
 GROUP BY d.stage, d.reason;
COMMENT ON VIEW gold.dead_letters_by_reason IS
    'Events that could not be loaded and wait for somebody, by reason. Their raw bytes are in loader.dead_letters.';
COMMENT ON COLUMN gold.dead_letters_by_reason.stage IS
    'Where the event failed: decode (no readable JSON object), envelope (it lacks what every event must have), '
    'partition (its date takes no more rows) or database (Postgres refused the row).';
COMMENT ON COLUMN gold.dead_letters_by_reason.reason IS
    'Why, in one word, such as invalid_json or event_time_in_future.';
COMMENT ON COLUMN gold.dead_letters_by_reason.events IS 'How many.';
COMMENT ON COLUMN gold.dead_letters_by_reason.first_at IS 'When the first of them was set aside.';
COMMENT ON COLUMN gold.dead_letters_by_reason.last_at IS 'When the last of them was set aside.';

CREATE OR REPLACE VIEW gold.dead_letters_daily AS
SELECT (d.quarantined_at AT TIME ZONE 'UTC')::date AS quarantined_date, d.stage, d.reason, count(*) AS events,
       count(*) FILTER (WHERE d.status = 'open') AS open_events
  FROM loader.dead_letters d
 GROUP BY (d.quarantined_at AT TIME ZONE 'UTC')::date, d.stage, d.reason;
COMMENT ON VIEW gold.dead_letters_daily IS
    'Events that could not be loaded, by the UTC date on which they were set aside and the reason; '
    'replayed and discarded ones count too.';
COMMENT ON COLUMN gold.dead_letters_daily.quarantined_date IS 'UTC date on which they were set aside.';
COMMENT ON COLUMN gold.dead_letters_daily.stage IS
    'Where the event failed: decode (no readable JSON object), envelope (it lacks what every event must have), '
    'partition (its date takes no more rows) or database (Postgres refused the row).';
COMMENT ON COLUMN gold.dead_letters_daily.reason IS 'Why, in one word, such as invalid_json or event_time_in_future.';
COMMENT ON COLUMN gold.dead_letters_daily.events IS 'How many.';
COMMENT ON COLUMN gold.dead_letters_daily.open_events IS 'How many of them still wait for somebody.';

CREATE OR REPLACE VIEW gold.freshness AS
SELECT s.model, s.dirty_dates, s.oldest_dirty_date, s.last_refreshed_at, s.freshness_seconds, s.last_error
  FROM tidemark.model_status s;
COMMENT ON VIEW gold.freshness IS 'One row per model: whether it is behind its sources, and for how long.';
COMMENT ON COLUMN gold.freshness.model IS 'Name of the model.';
COMMENT ON COLUMN gold.freshness.dirty_dates IS 'Dates that wait for a recompute.';
COMMENT ON COLUMN gold.freshness.oldest_dirty_date IS 'The earliest of them; NULL when none waits.';
COMMENT ON COLUMN gold.freshness.last_refreshed_at IS 'When a date was last recomputed; NULL if never.';
COMMENT ON COLUMN gold.freshness.freshness_seconds IS
    'For how many seconds the model has been behind; '
    '0 when nothing waits, NULL when nothing waits and it was never refreshed.';
COMMENT ON COLUMN gold.freshness.last_error IS 'Last failure; NULL if none since the last success.';

CREATE OR REPLACE VIEW gold.source_freshness AS
SELECT n.nspname::text || '.' || c.relname::text AS source, s.events_loaded, s.late_events,
       s.max_event_time AS last_event_at, s.last_loaded_at, s.seconds_behind, s.watermark
  FROM tidemark.source_status s
  JOIN pg_catalog.pg_class c ON c.oid = s.source
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
COMMENT ON VIEW gold.source_freshness IS
    'One row per table that events are loaded into: how much came, how new it is, up to when it is complete.';
COMMENT ON COLUMN gold.source_freshness.source IS 'Name of the table.';
COMMENT ON COLUMN gold.source_freshness.events_loaded IS 'Events loaded so far.';
COMMENT ON COLUMN gold.source_freshness.late_events IS
    'Late events: received longer after they happened than the loader allows (7 days unless told). '
    'Those whose receipt nobody knows are not late.';
COMMENT ON COLUMN gold.source_freshness.last_event_at IS
    'Latest event time; one in the future counts as no later than its load and a few minutes. '
    'NULL before the first load.';
COMMENT ON COLUMN gold.source_freshness.last_loaded_at IS 'When events were last loaded; NULL before the first load.';
COMMENT ON COLUMN gold.source_freshness.seconds_behind IS
    'Age of the latest event in seconds, by the clock; '
    'negative when it lies in the future, NULL before the first load.';
COMMENT ON COLUMN gold.source_freshness.watermark IS
    'Event time before which no event is expected any more; NULL before the first load.';

CREATE OR REPLACE VIEW gold.lateness AS
SELECT l.event_date, n.nspname::text || '.' || c.relname::text AS source, l.bucket,
       CASE WHEN l.from_lateness IS NULL THEN 'below ' || b.upper_bound
            WHEN l.to_lateness IS NULL THEN b.lower_bound || ' and more'
            ELSE b.lower_bound || ' to ' || b.upper_bound END AS lateness,
       extract(epoch FROM l.to_lateness)::bigint AS below_seconds, l.events
  FROM tidemark.lateness l
  JOIN pg_catalog.pg_class c ON c.oid = l.source
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
     SELECT max(u.said) FILTER (WHERE u.which = 'lower') AS lower_bound,
            max(u.said) FILTER (WHERE u.which = 'upper') AS upper_bound
       FROM (SELECT x.which,
                    CASE WHEN x.seconds < 60 THEN x.seconds || ' s'
                         WHEN x.seconds < 3600 THEN x.seconds / 60 || ' min'
                         WHEN x.seconds < 172800 THEN x.seconds / 3600 || ' h'
                         ELSE x.seconds / 86400 || ' d' END AS said
               FROM (VALUES ('lower', extract(epoch FROM l.from_lateness)::bigint),
                            ('upper', extract(epoch FROM l.to_lateness)::bigint)) AS x(which, seconds)) AS u) AS b;
COMMENT ON VIEW gold.lateness IS
    'How late events come: '
    'events by the UTC date on which they happened and by lateness, the time between happening and receipt.';
COMMENT ON COLUMN gold.lateness.event_date IS 'UTC date of the events.';
COMMENT ON COLUMN gold.lateness.source IS 'Name of the table that they were loaded into.';
COMMENT ON COLUMN gold.lateness.bucket IS 'Number of the range of lateness, 1 to 12; to sort by.';
COMMENT ON COLUMN gold.lateness.lateness IS 'The range in words: from (inclusive) to (exclusive).';
COMMENT ON COLUMN gold.lateness.below_seconds IS 'End of the range in seconds, exclusive; NULL for the last one.';
COMMENT ON COLUMN gold.lateness.events IS 'Number of events.';

GRANT SELECT ON gold.dead_letters_by_reason, gold.dead_letters_daily, gold.freshness, gold.source_freshness,
                gold.lateness TO tidemark_reader;
