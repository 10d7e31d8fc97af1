-- Data health: what was loaded, when last, how old the newest event is, and up to when the data is complete. It shows
-- the present, whatever the time range. Format: table. Panel: stat. An alert: seconds_since_load above 900.
SELECT source,
       events_loaded,
       last_event_at,
       last_loaded_at,
       round(extract(epoch FROM now() - last_loaded_at)) AS seconds_since_load,
       watermark
  FROM gold.source_freshness
 ORDER BY source;
