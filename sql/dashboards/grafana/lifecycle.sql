-- Growth accounting by week (UTC, from Monday): new, returning and resurrected persons, and below the line those who
-- were active in the week before only. Format: time series. Panel: stacked bars.
SELECT period::timestamp AT TIME ZONE 'UTC' AS "time",
       new_persons,
       returning_persons,
       resurrected_persons,
       -dormant_persons AS dormant_persons
  FROM gold.lifecycle_weekly
 WHERE $__timeFilter(period)
 ORDER BY 1;
