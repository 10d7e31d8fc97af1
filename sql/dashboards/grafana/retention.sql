-- Weekly retention triangle: persons by the week of their first event (of gold.reporting), and which percentage of them
-- came back in each of the weeks after; empty while a week is not over. Format: table. Panel: table, cells by colour.
SELECT gold.date_start(cohort_week) AS "time",
       max(cohort_persons) AS persons,
       max(pct) FILTER (WHERE weeks_since = 1) AS week_1,
       max(pct) FILTER (WHERE weeks_since = 2) AS week_2,
       max(pct) FILTER (WHERE weeks_since = 3) AS week_3,
       max(pct) FILTER (WHERE weeks_since = 4) AS week_4,
       max(pct) FILTER (WHERE weeks_since = 5) AS week_5,
       max(pct) FILTER (WHERE weeks_since = 6) AS week_6,
       max(pct) FILTER (WHERE weeks_since = 7) AS week_7,
       max(pct) FILTER (WHERE weeks_since = 8) AS week_8
  FROM gold.retention_weekly
 WHERE cohort_week BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 GROUP BY cohort_week
 ORDER BY 1;
