-- Revenue by day: few rows, so a plain view over silver.purchases is fast enough.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION gold.converted(amount numeric, currency text, day date) RETURNS numeric
LANGUAGE sql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT $1 * CASE WHEN r.currency = $2 THEN 1 ELSE (
               SELECT c.rate FROM gold.currency_rates AS c
                WHERE c.currency = $2 AND c.valid_from BETWEEN $3 - 7 AND $3 ORDER BY c.valid_from DESC LIMIT 1) END
      FROM gold.reporting AS r WHERE r.currency IS NOT NULL
$$;
COMMENT ON FUNCTION gold.converted(numeric, text, date) IS
    'An amount of a currency in the currency of gold.reporting, by the last rate of gold.currency_rates at or before a '
    'UTC date. NULL where none is of the last 7 days before it, no currency is set, or anything is NULL: never 0 and '
    'never the amount itself.';

-- By UTC date first: rates are of UTC dates.
SELECT gold_storage.in_zone('revenue', $zoned$
CREATE OR REPLACE VIEW gold.revenue_daily AS
SELECT d.event_date, d.currency, sum(d.purchases)::bigint AS purchases, sum(d.items)::bigint AS items,
       sum(d.revenue) AS revenue, round(sum(d.revenue) / nullif(sum(d.priced), 0), 2) AS average_revenue,
       CASE WHEN bool_and(d.converted IS NOT NULL OR d.revenue IS NULL) THEN round(sum(d.converted), 2)
            END AS revenue_converted
  FROM (SELECT {{date of p}} AS event_date, COALESCE(p.currency, 'unknown') AS currency, count(*) AS purchases,
               sum(p.items) AS items, sum(p.revenue) AS revenue, count(p.revenue) AS priced,
               gold.converted(sum(p.revenue), COALESCE(p.currency, 'unknown'), p.event_date) AS converted
          FROM silver.purchases AS p
         WHERE p.excluded_as IS NULL
         GROUP BY {{date of p}}, p.event_date, COALESCE(p.currency, 'unknown')) AS d
 GROUP BY d.event_date, d.currency;
$zoned$);
COMMENT ON VIEW gold.revenue_daily IS
    'Purchases and revenue by date and currency, without those of bots and own traffic, as of the last refresh.';
COMMENT ON COLUMN gold.revenue_daily.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.revenue_daily.currency IS 'ISO 4217 code of the currency; unknown where events name none.';
COMMENT ON COLUMN gold.revenue_daily.purchases IS 'Number of purchases.';
COMMENT ON COLUMN gold.revenue_daily.items IS 'Number of items bought.';
COMMENT ON COLUMN gold.revenue_daily.revenue IS
    'What was paid, in units of currency; purchases without an amount add nothing, NULL when none has one.';
COMMENT ON COLUMN gold.revenue_daily.average_revenue IS
    'Revenue per purchase that has an amount, in units of currency, to 2 decimals; NULL without such a purchase.';
COMMENT ON COLUMN gold.revenue_daily.revenue_converted IS
    'Revenue in the currency of gold.reporting, to 2 decimals (gold.converted); NULL where a rate is missing.';
GRANT SELECT ON gold.revenue_daily TO tidemark_reader;
