-- The purchase funnel: how many came how far within a day of their first page view. A person counts once on each
-- date of entry, so entries of a range of dates are sums. Format: table. Panel: bar gauge of entries by name.
SELECT step,
       name,
       sum(persons)::bigint AS entries,
       round(100.0 * sum(persons) / nullif(first_value(sum(persons)) OVER (ORDER BY step), 0), 1) AS pct_of_first,
       round(100.0 * sum(persons) / nullif(lag(sum(persons)) OVER (ORDER BY step), 0), 1) AS pct_of_previous
  FROM gold.funnel_daily
 WHERE event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 GROUP BY step, name
 ORDER BY step;
