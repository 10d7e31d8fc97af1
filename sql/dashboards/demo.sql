-- What an analyst sees first: run by `make demo` as a member of tidemark_reader.
-- Lines that depend on the clock say "wall clock"; everything else is a function of the loaded events.
\set QUIET on
\pset border 2
\pset linestyle unicode
\pset footer off
\pset null ''
SET timezone = 'UTC';

\echo
\echo 'Events and active persons per day (the last 10 days with events; by event time)'
SELECT d.event_date, d.events, d.received_after_day AS next_day, d.active_persons AS active,
       w.active_persons_7d AS active_7d, m.active_persons_28d AS active_28d,
       tidemark.bar(d.events, max(d.events) OVER (), 24) AS events_per_day
  FROM gold.daily_actives d
  LEFT JOIN gold.weekly_actives w USING (event_date)
  LEFT JOIN gold.monthly_actives m USING (event_date)
 WHERE d.event_date > (SELECT max(event_date) - 10 FROM gold.daily_actives)
 ORDER BY d.event_date;

\echo 'Sessions per day (same days; a session ends after 30 minutes without an event)'
SELECT event_date, count(*) AS sessions,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_seconds)::numeric, 1) AS median_s,
       round(avg(page_views), 1) AS pages, round(100.0 * avg(bounced::int), 1) AS pct_bounced,
       round(100.0 * avg((purchases > 0)::int), 1) AS pct_buying,
       tidemark.bar(count(*), max(count(*)) OVER (), 24) AS sessions_per_day
  FROM gold.sessions
 WHERE event_date > (SELECT max(event_date) - 10 FROM gold.daily_actives)
 GROUP BY event_date ORDER BY event_date;

\echo 'Where sessions come from (same days; first touch of the session)'
SELECT channel, count(*) AS sessions, round(100.0 * avg(bounced::int), 1) AS pct_bounced, sum(purchases) AS purchases,
       round(100.0 * avg((purchases > 0)::int), 1) AS pct_buying,
       tidemark.bar(count(*), max(count(*)) OVER (), 24) AS share
  FROM gold.sessions
 WHERE event_date > (SELECT max(event_date) - 10 FROM gold.daily_actives)
 GROUP BY channel ORDER BY sessions DESC, channel;

\echo 'Purchase funnel (all days; steps in order within one day of the first, by day of entry)'
SELECT step, name, entries, pct_of_first, pct_of_previous AS pct_of_prev, median_seconds AS median_s,
       tidemark.bar(entries, first_value(entries) OVER (ORDER BY step), 16) AS funnel
  FROM gold.funnel_total ORDER BY step;

\echo 'Weekly retention (percent of the persons whose first event was in that week)'
SELECT cohort_week, max(cohort_persons) AS persons,
       max(pct) FILTER (WHERE weeks_since = 1) AS week_1, max(pct) FILTER (WHERE weeks_since = 2) AS week_2,
       max(pct) FILTER (WHERE weeks_since = 3) AS week_3, max(pct) FILTER (WHERE weeks_since = 4) AS week_4,
       max(pct) FILTER (WHERE weeks_since = 5) AS week_5, max(pct) FILTER (WHERE weeks_since = 6) AS week_6,
       max(pct) FILTER (WHERE weeks_since = 7) AS week_7
  FROM gold.retention_weekly WHERE cohort_week > (SELECT max(cohort_week) - 56 FROM gold.retention_weekly)
 GROUP BY cohort_week ORDER BY cohort_week;

\echo 'Lifecycle by week (persons; dormant: active in the week before only)'
SELECT period AS week, new_persons AS new, returning_persons AS returning, resurrected_persons AS resurrected,
       dormant_persons AS dormant,
       tidemark.bar(new_persons + returning_persons + resurrected_persons,
                    max(new_persons + returning_persons + resurrected_persons) OVER (), 24) AS active_persons
  FROM (SELECT * FROM gold.lifecycle_weekly ORDER BY period DESC LIMIT 8) AS l ORDER BY period;

\echo 'Revenue by currency (same days)'
SELECT currency, sum(purchases) AS purchases, sum(items) AS items, sum(revenue) AS revenue
  FROM gold.revenue_daily
 WHERE event_date > (SELECT max(event_date) - 10 FROM gold.daily_actives)
 GROUP BY currency ORDER BY purchases DESC, currency;

\echo 'Page load times (the last day with events; milliseconds)'
SELECT platform, page_views, p50_ms, p95_ms, p99_ms, tidemark.bar(p95_ms, max(p95_ms) OVER (), 24) AS p95
  FROM (SELECT event_date, platform, page_views, p50_ms, p95_ms, p99_ms FROM gold.latency_daily_by_platform
        UNION ALL
        SELECT event_date, 'all', page_views, p50_ms, p95_ms, p99_ms FROM gold.latency_daily) AS l
 WHERE event_date = (SELECT max(event_date) FROM gold.daily_actives)
 ORDER BY page_views, platform;

\echo 'Late events (all days)'
SELECT count(*) AS events,
       count(*) FILTER (WHERE received_at - event_time > interval '1 hour') AS over_an_hour_late,
       count(*) FILTER (WHERE (received_at AT TIME ZONE 'UTC')::date > event_date) AS on_a_later_date,
       date_trunc('second', max(received_at - event_time)) AS latest
  FROM silver.events;

\echo 'Dead letters (events that could not be loaded, kept whole in loader.dead_letters)'
SELECT reason, sum(events) AS events FROM gold.dead_letters_by_reason GROUP BY reason ORDER BY 2 DESC, 1;

\echo 'Freshness (dates that wait for a refresh, by model)'
SELECT f.model, f.dirty_dates, (SELECT max(last_event_at) FROM gold.daily_actives) AS newest_event
  FROM gold.freshness f ORDER BY 1;
\pset tuples_only on
\pset format unaligned
SELECT 'wall clock: last load ' || date_trunc('second', now() - max(last_loaded_at)) || ' ago, models refreshed '
       || date_trunc('second', now() - (SELECT max(last_refreshed_at) FROM gold.freshness)) || ' ago'
  FROM gold.daily_actives;
