-- Retention triangle: one row per weekly cohort, one column per week since; the share in percent of the cohort that
-- came back in that week, NULL while the week is incomplete. Week 0 is the week of the start, hence 100.
-- To change it: period (week from sunday) and mode (time_zone=Europe/Berlin has weeks of that clock; see
-- the comment on tidemark.cohort_member: \dd+ or docs), which rows start a person (here the first event ever) and which
-- count as coming back (here any). For a chart or a pivot take rows instead: CROSS JOIN LATERAL
-- tidemark.cohort_table(c.retained).
WITH person AS (
    SELECT tidemark.cohort_member('week', 'on, time_zone=UTC', 9, now(), e.event_time, true, true) AS cohorts
      FROM silver.events e
     WHERE e.known_person IS NOT NULL AND e.excluded_as IS NULL
     GROUP BY e.known_person
), cohort AS (
    SELECT m.cohort, tidemark.cohort_retention(m.retained) AS retained
      FROM person p CROSS JOIN LATERAL unnest(p.cohorts) AS m
     GROUP BY m.cohort
)
SELECT c.cohort,
       c.retained[1] AS persons,
       round(100.0 * c.retained[2] / c.retained[1], 1) AS week_1,
       round(100.0 * c.retained[3] / c.retained[1], 1) AS week_2,
       round(100.0 * c.retained[4] / c.retained[1], 1) AS week_3,
       round(100.0 * c.retained[5] / c.retained[1], 1) AS week_4,
       round(100.0 * c.retained[6] / c.retained[1], 1) AS week_5,
       round(100.0 * c.retained[7] / c.retained[1], 1) AS week_6,
       round(100.0 * c.retained[8] / c.retained[1], 1) AS week_7,
       round(100.0 * c.retained[9] / c.retained[1], 1) AS week_8
  FROM cohort c
 ORDER BY c.cohort;
