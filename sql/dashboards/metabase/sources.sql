-- Data health: what was loaded, when last, how old the newest event is, and up to when the data is complete.
-- Chart: table. An alert: no load for 15 minutes (seconds_since_load > 900).
-- Variables, all optional:
--   source       field filter on gold.source_freshness.source
SELECT gold.source_freshness.source,
       gold.source_freshness.events_loaded,
       gold.source_freshness.last_event_at,
       gold.source_freshness.last_loaded_at,
       round(extract(epoch FROM now() - gold.source_freshness.last_loaded_at)) AS seconds_since_load,
       gold.source_freshness.watermark
  FROM gold.source_freshness
 WHERE true
  [[AND {{source}}]]
 ORDER BY gold.source_freshness.source;
