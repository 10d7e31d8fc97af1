-- How long pages take to load by date: median, 95th and 99th percentile of all platforms in milliseconds, within
-- 1 %. By platform: gold.latency_daily_by_platform. Format: time series. Panel: lines, unit milliseconds.
SELECT gold.date_start(event_date) AS "time",
       p50_ms AS p50,
       p95_ms AS p95,
       p99_ms AS p99
  FROM gold.latency_daily
 WHERE event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 ORDER BY 1;
