-- Sessions by the date on which they start: how many, of how many persons, how long, how many bounce and buy.
-- Chart: bars for sessions, a line for pct_bounced.
-- Variables, all optional:
--   event_date   field filter on gold.sessions.event_date
--   channel      field filter on gold.sessions.channel
--   platform     field filter on gold.sessions.platform
--   country      field filter on gold.sessions.country
SELECT gold.sessions.event_date,
       count(*) AS sessions,
       count(DISTINCT gold.sessions.person) AS persons,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY gold.sessions.duration_seconds)::numeric, 1) AS median_seconds,
       round(avg(gold.sessions.page_views), 2) AS pages_per_session,
       round(100.0 * avg(gold.sessions.bounced::integer), 1) AS pct_bounced,
       round(100.0 * avg((gold.sessions.purchases > 0)::integer), 1) AS pct_buying
  FROM gold.sessions
 WHERE true
  [[AND {{event_date}}]]
  [[AND {{channel}}]]
  [[AND {{platform}}]]
  [[AND {{country}}]]
 GROUP BY gold.sessions.event_date
 ORDER BY gold.sessions.event_date;
