-- Revenue by date and currency; amounts of different currencies are never added. Chart: lines by currency.
-- Variables, all optional:
--   event_date   field filter on gold.revenue_daily.event_date
--   currency     field filter on gold.revenue_daily.currency
SELECT gold.revenue_daily.event_date,
       gold.revenue_daily.currency,
       gold.revenue_daily.purchases,
       gold.revenue_daily.items,
       gold.revenue_daily.revenue,
       gold.revenue_daily.average_revenue
  FROM gold.revenue_daily
 WHERE true
  [[AND {{event_date}}]]
  [[AND {{currency}}]]
 ORDER BY gold.revenue_daily.event_date, gold.revenue_daily.currency;
