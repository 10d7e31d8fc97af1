-- Actives over trailing spans: a union of daily sketches per date, kept as a materialized view because it spans dates.
-- The plain views in front carry the comments (BI tools see none on materialized views).
SET LOCAL ROLE tidemark_admin;

CREATE MATERIALIZED VIEW IF NOT EXISTS gold_storage.rolling_actives_stored AS
SELECT d.event_date,
       d.persons AS active_persons,
       count(*) FILTER (WHERE w.event_date > d.event_date - 7) AS days_with_events_7d,
       tidemark.hll_cardinality(tidemark.hll_union_agg(w.persons_sketch)
                                    FILTER (WHERE w.event_date > d.event_date - 7)) AS active_persons_7d,
       count(*) AS days_with_events_28d,
       tidemark.hll_cardinality(tidemark.hll_union_agg(w.persons_sketch)) AS active_persons_28d
  FROM gold_storage.daily_activity AS d
  JOIN gold_storage.daily_activity AS w ON w.event_date BETWEEN d.event_date - 27 AND d.event_date AND w.grain = 'total'
 WHERE d.grain = 'total'
 GROUP BY d.event_date, d.persons;
CREATE UNIQUE INDEX IF NOT EXISTS rolling_actives_stored_event_date ON gold_storage.rolling_actives_stored (event_date);
COMMENT ON MATERIALIZED VIEW gold_storage.rolling_actives_stored IS
    'Storage of gold.weekly_actives, gold.monthly_actives and gold.stickiness; read those views instead.';
COMMENT ON COLUMN gold_storage.rolling_actives_stored.event_date IS 'Last date of the spans.';
COMMENT ON COLUMN gold_storage.rolling_actives_stored.active_persons IS 'Distinct persons of that date, exact.';
COMMENT ON COLUMN gold_storage.rolling_actives_stored.days_with_events_7d IS 'How many of the 7 dates have events.';
COMMENT ON COLUMN gold_storage.rolling_actives_stored.active_persons_7d IS 'Estimated distinct persons of 7 dates.';
COMMENT ON COLUMN gold_storage.rolling_actives_stored.days_with_events_28d IS 'How many of the 28 dates have events.';
COMMENT ON COLUMN gold_storage.rolling_actives_stored.active_persons_28d IS 'Estimated distinct persons of 28 dates.';
SELECT tidemark.manage_materialized_view('gold_storage.rolling_actives_stored', ARRAY['gold_storage.daily_activity']);

CREATE OR REPLACE VIEW gold.weekly_actives AS
SELECT r.event_date, r.days_with_events_7d AS days_with_events, r.active_persons_7d
  FROM gold_storage.rolling_actives_stored AS r;
COMMENT ON VIEW gold.weekly_actives IS
    'Distinct persons active in the 7 dates that end with event_date, from the daily sketches (WAU).';
COMMENT ON COLUMN gold.weekly_actives.event_date IS 'Last date of the 7.';
COMMENT ON COLUMN gold.weekly_actives.days_with_events IS
    'How many of the 7 dates have events; fewer at the beginning.';
COMMENT ON COLUMN gold.weekly_actives.active_persons_7d IS 'Estimated distinct persons, standard error 0.81 %.';

CREATE OR REPLACE VIEW gold.monthly_actives AS
SELECT r.event_date, r.days_with_events_28d AS days_with_events, r.active_persons_28d
  FROM gold_storage.rolling_actives_stored AS r;
COMMENT ON VIEW gold.monthly_actives IS
    'Distinct persons active in the 28 dates that end with event_date, '
    'from the daily sketches (MAU in whole weeks, so that every span has the same weekdays).';
COMMENT ON COLUMN gold.monthly_actives.event_date IS 'Last date of the 28.';
COMMENT ON COLUMN gold.monthly_actives.days_with_events IS
    'How many of the 28 dates have events; fewer at the beginning.';
COMMENT ON COLUMN gold.monthly_actives.active_persons_28d IS 'Estimated distinct persons, standard error 0.81 %.';

CREATE OR REPLACE VIEW gold.stickiness AS
SELECT r.event_date, r.active_persons, r.active_persons_7d, r.active_persons_28d,
       round(100.0 * r.active_persons / nullif(r.active_persons_7d, 0), 1) AS pct_of_weekly,
       round(100.0 * r.active_persons / nullif(r.active_persons_28d, 0), 1) AS pct_of_monthly
  FROM gold_storage.rolling_actives_stored AS r;
COMMENT ON VIEW gold.stickiness IS 'Daily actives as a share of weekly and monthly actives, by date.';
COMMENT ON COLUMN gold.stickiness.event_date IS 'Date, the last one of the spans.';
COMMENT ON COLUMN gold.stickiness.active_persons IS 'Distinct persons of the date, exact.';
COMMENT ON COLUMN gold.stickiness.active_persons_7d IS 'Estimated distinct persons of the 7 dates.';
COMMENT ON COLUMN gold.stickiness.active_persons_28d IS 'Estimated distinct persons of the 28 dates.';
COMMENT ON COLUMN gold.stickiness.pct_of_weekly IS
    'active_persons in percent of active_persons_7d, about 0 to 100: the denominator is an estimate.';
COMMENT ON COLUMN gold.stickiness.pct_of_monthly IS
    'active_persons in percent of active_persons_28d, about 0 to 100: the denominator is an estimate.';

GRANT SELECT ON gold.weekly_actives, gold.monthly_actives, gold.stickiness TO tidemark_reader;
