-- How long pages take to load by date and platform: median, 95th and 99th percentile in milliseconds, within 1 %.
-- Percentiles of platforms cannot be averaged: those of all together are in gold.latency_daily. Chart: lines.
-- Variables, all optional:
--   event_date   field filter on gold.latency_daily_by_platform.event_date
--   platform     field filter on gold.latency_daily_by_platform.platform
SELECT gold.latency_daily_by_platform.event_date,
       gold.latency_daily_by_platform.platform,
       gold.latency_daily_by_platform.page_views,
       gold.latency_daily_by_platform.p50_ms,
       gold.latency_daily_by_platform.p95_ms,
       gold.latency_daily_by_platform.p99_ms
  FROM gold.latency_daily_by_platform
 WHERE true
  [[AND {{event_date}}]]
  [[AND {{platform}}]]
 ORDER BY gold.latency_daily_by_platform.event_date, gold.latency_daily_by_platform.platform;
