-- Data health: which models are behind what was loaded, since when, and whether their last refresh failed.
-- Chart: table; colour dirty_dates > 0 and last_error. An alert: freshness_seconds > 900.
-- Variables, all optional:
--   model        field filter on gold.freshness.model
SELECT gold.freshness.model,
       gold.freshness.dirty_dates,
       gold.freshness.oldest_dirty_date,
       gold.freshness.last_refreshed_at,
       gold.freshness.freshness_seconds,
       gold.freshness.last_error
  FROM gold.freshness
 WHERE true
  [[AND {{model}}]]
 ORDER BY gold.freshness.freshness_seconds DESC, gold.freshness.model;
