-- What an analyst sees first: run by `make demo` as a member of tidemark_reader.
-- Lines that depend on the clock say "wall clock"; everything else is a function of the loaded events.
\set QUIET on
\pset border 2
\pset linestyle unicode
\pset footer off
\pset null ''
SET timezone = 'UTC';

\echo
\echo 'Events and active persons per day (the last 10 days with events; by event time, UTC)'
SELECT d.event_date, d.events, d.late_events AS late, d.active_persons AS active, w.active_persons_7d AS active_7d,
       tidemark.bar(d.events, max(d.events) OVER (), 30) AS events_per_day
  FROM gold.daily_actives d LEFT JOIN gold.weekly_actives w USING (event_date)
 WHERE d.event_date > (SELECT max(event_date) - 10 FROM gold.daily_actives)
 ORDER BY d.event_date;

\echo 'Sessions per day (same days; a session ends after 30 minutes without an event)'
SELECT event_date, count(*) AS sessions,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_seconds)::numeric, 1) AS median_seconds,
       round(avg(page_views), 1) AS pages, round(100.0 * avg((purchases > 0)::int), 1) AS pct_buying,
       tidemark.bar(count(*), max(count(*)) OVER (), 30) AS sessions_per_day
  FROM gold.sessions
 WHERE event_date > (SELECT max(event_date) - 10 FROM gold.daily_actives)
 GROUP BY event_date ORDER BY event_date;

\echo 'Purchase funnel (all days; steps in order within one day of the first)'
WITH levels AS (
    SELECT person, tidemark.window_funnel('1 day', event_time,
               event_type = 'page_viewed', event_type = 'product_viewed', event_type = 'product_added',
               event_type = 'checkout_started', event_type = 'purchase_completed') AS level
      FROM silver.events WHERE person IS NOT NULL GROUP BY person
), steps AS (
    SELECT step, name, (SELECT count(*) FROM levels WHERE level >= step) AS persons
      FROM (VALUES (1, 'page viewed'), (2, 'product viewed'), (3, 'product added'), (4, 'checkout started'),
                   (5, 'purchase completed')) AS s(step, name)
)
SELECT step, name, persons,
       round(100.0 * persons / nullif(first_value(persons) OVER (ORDER BY step), 0), 1) AS pct_of_first,
       round(100.0 * persons / nullif(lag(persons) OVER (ORDER BY step), 0), 1) AS pct_of_previous,
       tidemark.bar(persons, first_value(persons) OVER (ORDER BY step), 30) AS funnel
  FROM steps ORDER BY step;

\echo 'Late events (all days)'
SELECT count(*) AS events,
       count(*) FILTER (WHERE received_at - event_time > interval '1 hour') AS over_an_hour_late,
       count(*) FILTER (WHERE (received_at AT TIME ZONE 'UTC')::date > event_date) AS on_a_later_date,
       date_trunc('second', max(received_at - event_time)) AS latest
  FROM silver.events;

\echo 'Dead letters (events that could not be loaded, kept whole in loader.dead_letters)'
SELECT reason, sum(events) AS events FROM gold.dead_letters_by_reason GROUP BY reason ORDER BY 2 DESC, 1;

\echo 'Freshness'
SELECT f.model, f.dirty_dates, (SELECT max(last_event_at) FROM gold.daily_actives) AS newest_event FROM gold.freshness f ORDER BY 1;
\pset tuples_only on
\pset format unaligned
SELECT 'wall clock: last load ' || date_trunc('second', now() - max(last_loaded_at)) || ' ago, models refreshed '
       || date_trunc('second', now() - (SELECT max(last_refreshed_at) FROM gold.freshness)) || ' ago'
  FROM gold.daily_actives;
