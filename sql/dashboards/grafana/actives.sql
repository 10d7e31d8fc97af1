-- Active persons by UTC date: of the date (DAU, exact), of 7 and of 28 dates up to it (WAU, MAU: estimates, standard
-- error 0.81 %). Format: time series. Panel: lines.
SELECT d.event_date::timestamp AT TIME ZONE 'UTC' AS "time",
       d.active_persons AS dau,
       w.active_persons_7d AS wau,
       m.active_persons_28d AS mau
  FROM gold.daily_actives AS d
  LEFT JOIN gold.weekly_actives AS w ON w.event_date = d.event_date
  LEFT JOIN gold.monthly_actives AS m ON m.event_date = d.event_date
 WHERE $__timeFilter(d.event_date)
 ORDER BY 1;
