-- Events over time by type, in steps that fit the panel. Format: time series. Panel: stacked bars.
-- Variables:
--   event_type   query variable with multi-value and All:
--                SELECT DISTINCT event_type FROM silver.events WHERE $__timeFilter(event_time) ORDER BY 1
SELECT $__timeGroupAlias(event_time, $__interval),
       event_type AS metric,
       count(*) AS events
  FROM silver.events
 WHERE $__timeFilter(event_time)
   AND event_type IN (${event_type:sqlstring})
 GROUP BY 1, 2
 ORDER BY 1, 2;
