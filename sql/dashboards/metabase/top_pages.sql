-- The pages that are viewed most: views, persons, and how long the slowest twentieth took to load. Chart: table.
-- Variables, all optional:
--   event_date   field filter on silver.page_views.event_date; set a default: without it every date is read
--   platform     field filter on silver.page_views.platform
--   country      field filter on silver.page_views.country
--   top          number: how many pages, 20 without it
SELECT COALESCE(silver.page_views.page_path, '(none)') AS page,
       count(*) AS views,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS pct_of_views,
       count(DISTINCT silver.page_views.known_person) AS persons,
       round(tidemark.approx_percentile(0.95, silver.page_views.load_ms::double precision))::bigint AS p95_ms
  FROM silver.page_views
 WHERE true
  [[AND {{event_date}}]]
  [[AND {{platform}}]]
  [[AND {{country}}]]
 GROUP BY page
 ORDER BY views DESC, page
 LIMIT COALESCE([[{{top}},]] 20);
