-- Revenue by day: few rows, so a plain view over silver.purchases is fast enough.
SET LOCAL ROLE tidemark_admin;

SELECT gold_storage.in_zone('revenue', $zoned$
CREATE OR REPLACE VIEW gold.revenue_daily AS
SELECT {{date of p}} AS event_date, COALESCE(p.currency, 'unknown') AS currency, count(*) AS purchases,
       sum(p.items)::bigint AS items, sum(p.revenue) AS revenue, round(avg(p.revenue), 2) AS average_revenue
  FROM silver.purchases AS p
 GROUP BY {{date of p}}, COALESCE(p.currency, 'unknown');
$zoned$);
COMMENT ON VIEW gold.revenue_daily IS 'Purchases and revenue by date and currency, as of the last refresh.';
COMMENT ON COLUMN gold.revenue_daily.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.revenue_daily.currency IS 'ISO 4217 code of the currency; unknown where events name none.';
COMMENT ON COLUMN gold.revenue_daily.purchases IS 'Number of purchases.';
COMMENT ON COLUMN gold.revenue_daily.items IS 'Number of items bought.';
COMMENT ON COLUMN gold.revenue_daily.revenue IS
    'What was paid, in units of currency; purchases without an amount add nothing, NULL when none has one.';
COMMENT ON COLUMN gold.revenue_daily.average_revenue IS
    'Revenue per purchase that has an amount, in units of currency, to 2 decimals; NULL without such a purchase.';
GRANT SELECT ON gold.revenue_daily TO tidemark_reader;
