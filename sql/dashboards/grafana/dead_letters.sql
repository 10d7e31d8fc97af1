-- Data health: events that could not be loaded, by the UTC date on which they were set aside and by reason.
-- Format: time series. Panel: stacked bars.
-- Variables:
--   reason       query variable with multi-value and All:
--                SELECT DISTINCT reason FROM gold.dead_letters_daily ORDER BY 1
SELECT quarantined_date::timestamp AT TIME ZONE 'UTC' AS "time",
       reason AS metric,
       sum(events)::bigint AS events
  FROM gold.dead_letters_daily
 WHERE $__timeFilter(quarantined_date)
   AND reason IN (${reason:sqlstring})
 GROUP BY 1, 2
 ORDER BY 1, 2;
