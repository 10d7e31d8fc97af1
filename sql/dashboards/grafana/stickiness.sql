-- Stickiness by date: which percentage of the persons of 7 and of 28 dates was active on the last of them.
-- Format: time series. Panel: lines, unit percent.
SELECT gold.date_start(event_date) AS "time",
       pct_of_weekly,
       pct_of_monthly
  FROM gold.stickiness
 WHERE event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 ORDER BY 1;
