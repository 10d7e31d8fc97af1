-- Sessions by the date on which they start: how many, how long, how many bounce and buy.
-- Format: time series. Panel: lines; sessions on an axis of its own.
-- Variables:
--   channel      query variable with multi-value and All: SELECT DISTINCT channel FROM gold.sessions ORDER BY 1
SELECT gold.date_start(event_date) AS "time",
       count(*) AS sessions,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS median_seconds,
       100.0 * avg(bounced::integer) AS pct_bounced,
       100.0 * avg((purchases > 0)::integer) AS pct_buying
  FROM gold.sessions
 WHERE event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
   AND channel IN (${channel:sqlstring})
 GROUP BY event_date
 ORDER BY 1;
