-- Stickiness: persons by the number of days on which they were active, over the 28 UTC days that end with the last
-- one that has events. pct is the share of all active persons, pct_at_least that of persons with as many days or more.
-- To change it: the length of the span, the source and the time zone in activity.
WITH activity AS (
    SELECT e.known_person AS person, (e.event_time AT TIME ZONE 'UTC')::date AS event_date
      FROM silver.events e
     WHERE e.known_person IS NOT NULL AND e.excluded_as IS NULL
), span AS (
    SELECT 28 AS days, max(a.event_date) AS last_date FROM activity a
), per_person AS (
    SELECT a.person, count(DISTINCT a.event_date) AS active_days
      FROM activity a CROSS JOIN span s
     WHERE a.event_date > s.last_date - s.days
     GROUP BY a.person
), counted AS (
    SELECT d.active_days, count(p.person) AS persons
      FROM span s
     CROSS JOIN LATERAL generate_series(1, s.days) AS d(active_days)
      LEFT JOIN per_person p ON p.active_days = d.active_days
     GROUP BY d.active_days
)
SELECT c.active_days,
       c.persons,
       round(100.0 * c.persons / nullif(sum(c.persons) OVER (), 0), 1) AS pct,
       round(100.0 * sum(c.persons) OVER (ORDER BY c.active_days DESC)
             / nullif(sum(c.persons) OVER (), 0), 1) AS pct_at_least
  FROM counted c
 ORDER BY c.active_days;
