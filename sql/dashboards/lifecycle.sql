-- Lifecycle: per period, how many persons are new, returning, resurrecting or dormant.
--   new           active for the first time ever, in the rows that are read
--   returning     active in this period and in the one before
--   resurrecting  active in this period, not in the one before, but earlier
--   dormant       not active in this period, but in the one before; shown negative, to be drawn below the line
-- So new + returning + resurrecting is the number of active persons, and their number in the period before is
-- returning - dormant. The last period may still be running: then its dormant persons are not lost yet.
-- To change it: the period in unit (day, week, month), its time zone, how many days weeks begin before Monday (1: on
-- Sunday; 0 for days and months), the source in activity. Do not cut activity to a range of dates, or persons become
-- new twice; cut the result.
WITH unit AS (
    SELECT 'day' AS name, interval '1 day' AS length, 'UTC' AS time_zone, 0 AS days_before
), activity AS (
    SELECT DISTINCT e.known_person AS person,
           date_trunc(u.name, (e.event_time AT TIME ZONE u.time_zone)::date + u.days_before * interval '1 day')::date
               - u.days_before AS period
      FROM silver.events e CROSS JOIN unit u
     WHERE e.known_person IS NOT NULL AND e.excluded_as IS NULL
), neighbours AS (
    SELECT a.person, a.period,
           (a.period + u.length)::date AS following,
           lag(a.period) OVER person_by_time AS previous_active,
           lead(a.period) OVER person_by_time AS next_active,
           max(a.period) OVER () AS last_period
      FROM activity a CROSS JOIN unit u
    WINDOW person_by_time AS (PARTITION BY a.person ORDER BY a.period)
), states AS (
    SELECT n.period,
           CASE WHEN n.previous_active IS NULL THEN 'new'
                WHEN (n.previous_active + u.length)::date = n.period THEN 'returning'
                ELSE 'resurrecting' END AS state
      FROM neighbours n CROSS JOIN unit u
    UNION ALL
    SELECT n.following, 'dormant'
      FROM neighbours n
     WHERE n.next_active IS DISTINCT FROM n.following AND n.following <= n.last_period
)
SELECT s.period,
       count(*) FILTER (WHERE s.state = 'new') AS new,
       count(*) FILTER (WHERE s.state = 'returning') AS returning,
       count(*) FILTER (WHERE s.state = 'resurrecting') AS resurrecting,
       -count(*) FILTER (WHERE s.state = 'dormant') AS dormant
  FROM states s
 GROUP BY s.period
 ORDER BY s.period;
