-- Data health: events that could not be loaded, by the UTC date on which they were set aside and by reason.
-- Chart: stacked bars by reason. An alert: open_events > 0.
-- Variables, all optional:
--   quarantined_date  field filter on gold.dead_letters_daily.quarantined_date
--   reason            field filter on gold.dead_letters_daily.reason
SELECT gold.dead_letters_daily.quarantined_date,
       gold.dead_letters_daily.stage,
       gold.dead_letters_daily.reason,
       gold.dead_letters_daily.events,
       gold.dead_letters_daily.open_events
  FROM gold.dead_letters_daily
 WHERE true
  [[AND {{quarantined_date}}]]
  [[AND {{reason}}]]
 ORDER BY gold.dead_letters_daily.quarantined_date, gold.dead_letters_daily.events DESC, gold.dead_letters_daily.reason;
