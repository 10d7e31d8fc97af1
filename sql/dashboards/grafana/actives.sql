-- Active persons by date: of the date (DAU, exact), of 7 and of 28 dates up to it (WAU, MAU: estimates, standard
-- error 0.81 %). Format: time series. Panel: lines.
SELECT gold.date_start(d.event_date) AS "time",
       d.active_persons AS dau,
       w.active_persons_7d AS wau,
       m.active_persons_28d AS mau
  FROM gold.daily_actives AS d
  LEFT JOIN gold.weekly_actives AS w ON w.event_date = d.event_date
  LEFT JOIN gold.monthly_actives AS m ON m.event_date = d.event_date
 WHERE d.event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 ORDER BY 1;
