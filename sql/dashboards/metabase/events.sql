-- Events by UTC date and type. Chart: stacked bars, event_date by event_type.
-- Variables, all optional:
--   event_date   field filter on silver.events.event_date; set a default: without it every date is read
--   event_type   field filter on silver.events.event_type
--   platform     field filter on silver.events.platform
SELECT silver.events.event_date,
       silver.events.event_type,
       count(*) AS events,
       count(DISTINCT silver.events.known_person) AS persons
  FROM silver.events
 WHERE true
  [[AND {{event_date}}]]
  [[AND {{event_type}}]]
  [[AND {{platform}}]]
 GROUP BY silver.events.event_date, silver.events.event_type
 ORDER BY silver.events.event_date, events DESC;
