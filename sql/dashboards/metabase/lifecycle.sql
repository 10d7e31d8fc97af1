-- Growth accounting by week (of gold.reporting): new, returning and resurrected persons, and below the line those who
-- were active in the week before only. Chart: stacked bars over period. By day: gold.lifecycle_daily instead.
-- Variables, all optional:
--   period       field filter on gold.lifecycle_weekly.period
SELECT gold.lifecycle_weekly.period,
       gold.lifecycle_weekly.new_persons,
       gold.lifecycle_weekly.returning_persons,
       gold.lifecycle_weekly.resurrected_persons,
       -gold.lifecycle_weekly.dormant_persons AS dormant_persons
  FROM gold.lifecycle_weekly
 WHERE true
  [[AND {{period}}]]
 ORDER BY gold.lifecycle_weekly.period;
