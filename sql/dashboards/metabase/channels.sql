-- Where sessions come from and what they lead to, by the channel of the first touch in the session.
-- Chart: table or bars.
-- Variables, all optional:
--   event_date   field filter on gold.sessions.event_date
--   platform     field filter on gold.sessions.platform
--   country      field filter on gold.sessions.country
SELECT gold.sessions.channel,
       count(*) AS sessions,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS pct_of_sessions,
       count(DISTINCT gold.sessions.person) AS persons,
       round(100.0 * avg(gold.sessions.bounced::integer), 1) AS pct_bounced,
       sum(gold.sessions.purchases)::bigint AS purchases,
       round(100.0 * avg((gold.sessions.purchases > 0)::integer), 1) AS pct_buying
  FROM gold.sessions
 WHERE true
  [[AND {{event_date}}]]
  [[AND {{platform}}]]
  [[AND {{country}}]]
 GROUP BY gold.sessions.channel
 ORDER BY sessions DESC, gold.sessions.channel;
