-- Stickiness by UTC date: which percentage of the persons of 7 and of 28 dates was active on the last of them.
-- Format: time series. Panel: lines, unit percent.
SELECT event_date::timestamp AT TIME ZONE 'UTC' AS "time",
       pct_of_weekly,
       pct_of_monthly
  FROM gold.stickiness
 WHERE $__timeFilter(event_date)
 ORDER BY 1;
