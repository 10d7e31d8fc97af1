-- Weekly retention triangle: persons by the week of their first event (of gold.reporting), and which percentage of them
-- came back in each of the weeks after; empty while a week is not over. Chart: table with a colour range from 0 to 100.
-- Variables, all optional:
--   cohort_week  field filter on gold.retention_weekly.cohort_week
SELECT gold.retention_weekly.cohort_week,
       max(gold.retention_weekly.cohort_persons) AS persons,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 1) AS week_1,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 2) AS week_2,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 3) AS week_3,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 4) AS week_4,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 5) AS week_5,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 6) AS week_6,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 7) AS week_7,
       max(gold.retention_weekly.pct) FILTER (WHERE gold.retention_weekly.weeks_since = 8) AS week_8
  FROM gold.retention_weekly
 WHERE true
  [[AND {{cohort_week}}]]
 GROUP BY gold.retention_weekly.cohort_week
 ORDER BY gold.retention_weekly.cohort_week;
