-- Events and active persons by date: of the date (DAU, exact), of 7 and of 28 dates up to it (WAU, MAU: estimates,
-- standard error 0.81 %). Chart: lines dau, wau and mau over event_date.
-- Variables, all optional:
--   event_date   field filter on gold.daily_actives.event_date
SELECT gold.daily_actives.event_date,
       gold.daily_actives.events,
       gold.daily_actives.received_after_day,
       gold.daily_actives.active_persons AS dau,
       gold.weekly_actives.active_persons_7d AS wau,
       gold.monthly_actives.active_persons_28d AS mau
  FROM gold.daily_actives
  LEFT JOIN gold.weekly_actives ON gold.weekly_actives.event_date = gold.daily_actives.event_date
  LEFT JOIN gold.monthly_actives ON gold.monthly_actives.event_date = gold.daily_actives.event_date
 WHERE true
  [[AND {{event_date}}]]
 ORDER BY gold.daily_actives.event_date;
