-- Where sessions come from and what they lead to, by the channel of the first touch in the session.
-- Format: table. Panel: table or bar gauge.
SELECT channel,
       count(*) AS sessions,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS pct_of_sessions,
       round(100.0 * avg(bounced::integer), 1) AS pct_bounced,
       sum(purchases)::bigint AS purchases,
       round(100.0 * avg((purchases > 0)::integer), 1) AS pct_buying
  FROM gold.sessions
 WHERE event_date BETWEEN gold.report_date($__timeFrom()) AND gold.report_date($__timeTo())
 GROUP BY channel
 ORDER BY sessions DESC, channel;
