-- Data health: how late events come, from happening to receipt; the last column says which share had come by then.
-- Format: table. Panel: bar chart of events by lateness.
SELECT bucket,
       lateness,
       sum(events)::bigint AS events,
       round(100.0 * sum(events) / sum(sum(events)) OVER (), 2) AS pct,
       round(100.0 * sum(sum(events)) OVER (ORDER BY bucket) / sum(sum(events)) OVER (), 2) AS pct_by_then
  FROM gold.lateness
 WHERE $__timeFilter(event_date)
   AND source = 'bronze.events'
 GROUP BY bucket, lateness
 ORDER BY bucket;
