-- Stickiness by date: which percentage of the persons of 7 and of 28 dates was active on the last of them.
-- Chart: lines over event_date.
-- Variables, all optional:
--   event_date   field filter on gold.stickiness.event_date
SELECT gold.stickiness.event_date,
       gold.stickiness.active_persons,
       gold.stickiness.active_persons_28d,
       gold.stickiness.pct_of_weekly,
       gold.stickiness.pct_of_monthly
  FROM gold.stickiness
 WHERE true
  [[AND {{event_date}}]]
 ORDER BY gold.stickiness.event_date;
