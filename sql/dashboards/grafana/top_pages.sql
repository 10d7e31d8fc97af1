-- The 20 pages that are viewed most: views, persons, and how long the slowest twentieth took to load.
-- Format: table. Panel: table.
-- Variables:
--   platform     query variable with multi-value and All:
--                SELECT DISTINCT platform FROM gold.latency_daily_by_platform ORDER BY 1
SELECT COALESCE(page_path, '(none)') AS page,
       count(*) AS views,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS pct_of_views,
       count(DISTINCT known_person) AS persons,
       round(tidemark.approx_percentile(0.95, load_ms::double precision))::bigint AS p95_ms
  FROM silver.page_views
 WHERE $__timeFilter(event_time)
   AND COALESCE(platform, 'unknown') IN (${platform:sqlstring})
 GROUP BY 1
 ORDER BY views DESC, page
 LIMIT 20;
