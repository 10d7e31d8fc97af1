-- Revenue by currency, in steps that fit the panel; amounts of different currencies are never added.
-- Format: time series. Panel: bars; set the minimum interval to 1d, since rows are dates.
-- Variables:
--   currency     query variable with multi-value and All: SELECT DISTINCT currency FROM gold.revenue_daily ORDER BY 1
SELECT $__timeGroupAlias(event_date, $__interval),
       currency AS metric,
       sum(revenue) AS revenue,
       sum(purchases)::bigint AS purchases
  FROM gold.revenue_daily
 WHERE event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
   AND currency IN (${currency:sqlstring})
 GROUP BY 1, 2
 ORDER BY 1, 2;
