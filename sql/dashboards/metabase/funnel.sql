-- The purchase funnel: how many came how far within a day of their first page view. A person counts once on each
-- date of entry, so entries of a range of dates are sums. Chart: funnel, step by name and entries.
-- Variables, all optional:
--   event_date   field filter on gold.funnel_daily.event_date: the date of entry
SELECT gold.funnel_daily.step,
       gold.funnel_daily.name,
       sum(gold.funnel_daily.persons)::bigint AS entries,
       round(100.0 * sum(gold.funnel_daily.persons)
             / nullif(first_value(sum(gold.funnel_daily.persons)) OVER (ORDER BY gold.funnel_daily.step), 0),
             1) AS pct_of_first,
       round(100.0 * sum(gold.funnel_daily.persons)
             / nullif(lag(sum(gold.funnel_daily.persons)) OVER (ORDER BY gold.funnel_daily.step), 0),
             1) AS pct_of_previous
  FROM gold.funnel_daily
 WHERE true
  [[AND {{event_date}}]]
 GROUP BY gold.funnel_daily.step, gold.funnel_daily.name
 ORDER BY gold.funnel_daily.step;
