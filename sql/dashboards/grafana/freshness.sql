-- Data health: which models are behind what was loaded, since when, and whether their last refresh failed. It shows the
-- present, whatever the time range. Format: table. Panel: table. An alert: freshness_seconds above 900.
SELECT model,
       dirty_dates,
       oldest_dirty_date,
       last_refreshed_at,
       freshness_seconds,
       last_error
  FROM gold.freshness
 ORDER BY freshness_seconds DESC, model;
