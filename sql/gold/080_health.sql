-- What a reader may know about the loading itself: rejected events by reason, and how fresh everything is.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW gold.dead_letters_by_reason AS
SELECT d.stage, d.reason, count(*) AS events, min(d.quarantined_at) AS first_at, max(d.quarantined_at) AS last_at
  FROM loader.dead_letters d
 WHERE d.status = 'open'
 GROUP BY d.stage, d.reason;
COMMENT ON VIEW gold.dead_letters_by_reason IS 'Events that could not be loaded and wait for somebody, by reason. Their raw bytes are in loader.dead_letters.';
COMMENT ON COLUMN gold.dead_letters_by_reason.stage IS 'Where the event failed.';
COMMENT ON COLUMN gold.dead_letters_by_reason.reason IS 'Why.';
COMMENT ON COLUMN gold.dead_letters_by_reason.events IS 'How many.';
COMMENT ON COLUMN gold.dead_letters_by_reason.first_at IS 'When the first of them was set aside.';
COMMENT ON COLUMN gold.dead_letters_by_reason.last_at IS 'When the last of them was set aside.';

CREATE OR REPLACE VIEW gold.freshness AS
SELECT s.model, s.dirty_dates, s.oldest_dirty_date, s.last_refreshed_at, s.freshness_seconds, s.last_error
  FROM tidemark.model_status s;
COMMENT ON VIEW gold.freshness IS 'One row per model: whether it is behind its sources, and for how long.';
COMMENT ON COLUMN gold.freshness.model IS 'Name of the model.';
COMMENT ON COLUMN gold.freshness.dirty_dates IS 'Dates that wait for a recompute.';
COMMENT ON COLUMN gold.freshness.oldest_dirty_date IS 'The earliest of them.';
COMMENT ON COLUMN gold.freshness.last_refreshed_at IS 'When a date was last recomputed.';
COMMENT ON COLUMN gold.freshness.freshness_seconds IS 'For how many seconds the model has been behind; 0 when nothing waits.';
COMMENT ON COLUMN gold.freshness.last_error IS 'Last failure; NULL if none since the last success.';

GRANT SELECT ON gold.dead_letters_by_reason, gold.freshness TO tidemark_reader;
