-- Data health: how late events come, from happening to receipt; the last column says which share had come by then.
-- Chart: bars, lateness by events (keep the order of the rows).
-- Variables, all optional:
--   event_date   field filter on gold.lateness.event_date
SELECT gold.lateness.bucket,
       gold.lateness.lateness,
       sum(gold.lateness.events)::bigint AS events,
       round(100.0 * sum(gold.lateness.events) / sum(sum(gold.lateness.events)) OVER (), 2) AS pct,
       round(100.0 * sum(sum(gold.lateness.events)) OVER (ORDER BY gold.lateness.bucket)
             / sum(sum(gold.lateness.events)) OVER (), 2) AS pct_by_then
  FROM gold.lateness
 WHERE gold.lateness.source = 'bronze.events'
  [[AND {{event_date}}]]
 GROUP BY gold.lateness.bucket, gold.lateness.lateness
 ORDER BY gold.lateness.bucket;
