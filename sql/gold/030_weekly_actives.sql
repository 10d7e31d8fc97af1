-- Actives over a trailing week: a union of seven daily sketches per date, kept as a materialized view because it
-- spans dates. The plain view in front carries the comments (BI tools see none on materialized views).
SET LOCAL ROLE tidemark_admin;

CREATE MATERIALIZED VIEW IF NOT EXISTS gold.weekly_actives_stored AS
SELECT d.event_date,
       count(*) AS days_with_events,
       tidemark.hll_cardinality(tidemark.hll_union_agg(w.persons_sketch)) AS active_persons_7d
  FROM gold.daily_activity d
  JOIN gold.daily_activity w ON w.event_date BETWEEN d.event_date - 6 AND d.event_date
 GROUP BY d.event_date;
CREATE UNIQUE INDEX IF NOT EXISTS weekly_actives_stored_event_date ON gold.weekly_actives_stored (event_date);
COMMENT ON MATERIALIZED VIEW gold.weekly_actives_stored IS 'Storage of gold.weekly_actives; read that view instead.';
COMMENT ON COLUMN gold.weekly_actives_stored.event_date IS 'Last UTC date of the seven.';
COMMENT ON COLUMN gold.weekly_actives_stored.days_with_events IS 'How many of the seven dates have events.';
COMMENT ON COLUMN gold.weekly_actives_stored.active_persons_7d IS 'Estimated distinct persons.';
SELECT tidemark.manage_materialized_view('gold.weekly_actives_stored', ARRAY['gold.daily_activity']);

CREATE OR REPLACE VIEW gold.weekly_actives AS
SELECT event_date, days_with_events, active_persons_7d FROM gold.weekly_actives_stored;
COMMENT ON VIEW gold.weekly_actives IS 'Distinct persons active in the seven UTC dates that end with event_date, from the daily sketches.';
COMMENT ON COLUMN gold.weekly_actives.event_date IS 'Last UTC date of the seven.';
COMMENT ON COLUMN gold.weekly_actives.days_with_events IS 'How many of the seven dates have events; fewer than 7 at the beginning.';
COMMENT ON COLUMN gold.weekly_actives.active_persons_7d IS 'Estimated distinct persons, standard error 0.81 %.';

GRANT SELECT ON gold.weekly_actives TO tidemark_reader;
