-- Growth accounting by week (of gold.reporting): new, returning and resurrected persons, and below the line those who
-- were active in the week before only. Format: time series. Panel: stacked bars.
SELECT gold.date_start(period) AS "time",
       new_persons,
       returning_persons,
       resurrected_persons,
       -dormant_persons AS dormant_persons
  FROM gold.lifecycle_weekly
 WHERE period BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 ORDER BY 1;
