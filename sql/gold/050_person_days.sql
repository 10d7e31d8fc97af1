-- Who was active when: one row per person and date, from which retention and the lifecycle across dates are computed.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW gold.person_days AS
SELECT a.event_date, a.person, sum(a.events)::bigint AS events
  FROM gold_storage.person_activity AS a
 GROUP BY a.event_date, a.person;
COMMENT ON VIEW gold.person_days IS
    'One row per person and date with events, as of the last refresh: '
    'for retention, lifecycle and anything else by person and day.';
COMMENT ON COLUMN gold.person_days.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.person_days.person IS 'Who it is known to be: silver.events.known_person.';
COMMENT ON COLUMN gold.person_days.events IS 'Number of events of the person on the date.';
GRANT SELECT ON gold.person_days TO tidemark_reader;

-- Weekly retention. cohort_member has weeks from Monday: dates are moved by as many days as weeks begin before it.
-- Complete is a week that ended before the last date with events did: the answer depends on what was
-- loaded and not on the clock.
CREATE MATERIALIZED VIEW IF NOT EXISTS gold_storage.retention_stored AS
WITH person AS (
    SELECT tidemark.cohort_member('week', 'on', 13,
                                  (SELECT (max(x.event_date) + 1 + gold_storage.week_shift())::timestamp
                                              AT TIME ZONE 'UTC' FROM gold_storage.person_activity AS x),
                                  (d.event_date + gold_storage.week_shift())::timestamp AT TIME ZONE 'UTC',
                                  true, true) AS cohorts
      FROM gold_storage.person_activity AS d
     GROUP BY d.person
), cohort AS (
    SELECT m.cohort, tidemark.cohort_retention(m.retained) AS retained
      FROM person AS p CROSS JOIN LATERAL unnest(p.cohorts) AS m
     GROUP BY m.cohort
)
SELECT c.cohort - gold_storage.week_shift() AS cohort_week, t.period AS weeks_since,
       c.retained[1] AS cohort_persons, t.persons, t.pct
  FROM cohort AS c CROSS JOIN LATERAL tidemark.cohort_table(c.retained) AS t;
CREATE UNIQUE INDEX IF NOT EXISTS retention_stored_cohort ON gold_storage.retention_stored (cohort_week, weeks_since);
COMMENT ON MATERIALIZED VIEW gold_storage.retention_stored IS
    'Storage of gold.retention_weekly; read that view instead.';
COMMENT ON COLUMN gold_storage.retention_stored.cohort_week IS 'First day of the week of the cohort.';
COMMENT ON COLUMN gold_storage.retention_stored.weeks_since IS 'Weeks since.';
COMMENT ON COLUMN gold_storage.retention_stored.cohort_persons IS 'Size of the cohort.';
COMMENT ON COLUMN gold_storage.retention_stored.persons IS 'Persons who were active in that week.';
COMMENT ON COLUMN gold_storage.retention_stored.pct IS 'persons in percent of cohort_persons.';
SELECT tidemark.manage_materialized_view('gold_storage.retention_stored', ARRAY['gold_storage.person_activity']);

CREATE OR REPLACE VIEW gold.retention_weekly AS
SELECT r.cohort_week, r.weeks_since, r.cohort_persons, r.persons, r.pct FROM gold_storage.retention_stored AS r;
COMMENT ON VIEW gold.retention_weekly IS
    'Weekly retention in rows: persons by the calendar week of their first event, '
    'and how many of them were active in each of the 12 weeks after.';
COMMENT ON COLUMN gold.retention_weekly.cohort_week IS
    'First day of the week of the first event ever; gold.reporting says on which weekday.';
COMMENT ON COLUMN gold.retention_weekly.weeks_since IS 'Weeks since then: 0 is that week itself, up to 12.';
COMMENT ON COLUMN gold.retention_weekly.cohort_persons IS
    'Persons in the cohort: active for the first time ever in that week.';
COMMENT ON COLUMN gold.retention_weekly.persons IS
    'Those of them who were active in that week; NULL while it is not over.';
COMMENT ON COLUMN gold.retention_weekly.pct IS
    'persons in percent of cohort_persons, 0 to 100; NULL while the week is not over.';

-- Lifecycle by day and by week.
CREATE MATERIALIZED VIEW IF NOT EXISTS gold_storage.lifecycle_stored AS
WITH neighbours AS (
    -- In the order of the index by person and date: no sort, and days and weeks from one pass.
    SELECT d.event_date AS day,
           d.event_date - (d.event_date - date '0001-01-01' + gold_storage.week_shift()) % 7 AS week,
           lag(d.event_date) OVER person_by_time AS before, lead(d.event_date) OVER person_by_time AS after
      FROM (SELECT DISTINCT a.person, a.event_date FROM gold_storage.person_activity AS a) AS d
    WINDOW person_by_time AS (PARTITION BY d.person ORDER BY d.event_date)
), days AS (
    SELECT n.day, n.week,
           count(*) FILTER (WHERE n.before IS NULL) AS new,
           count(*) FILTER (WHERE n.before = n.day - 1) AS returning,
           count(*) FILTER (WHERE n.before < n.day - 1) AS resurrected,
           count(*) FILTER (WHERE n.after = n.day + 1 IS NOT TRUE) AS gone,
           -- The first day of a person in a week knows the week before, the last one the week after.
           count(*) FILTER (WHERE n.before >= n.week - 7 AND n.before < n.week) AS returning_in_week,
           count(*) FILTER (WHERE n.before < n.week - 7) AS resurrected_in_week,
           count(*) FILTER (WHERE n.after >= n.week + 14 IS NOT FALSE) AS gone_in_week
      FROM neighbours AS n
     GROUP BY n.day, n.week
), periods AS (
    SELECT 'day' AS unit, 1 AS days, d.day AS period, d.new, d.returning, d.resurrected, d.gone FROM days AS d
    UNION ALL
    SELECT 'week', 7, d.week, sum(d.new), sum(d.returning_in_week), sum(d.resurrected_in_week), sum(d.gone_in_week)
      FROM days AS d GROUP BY d.week
)
SELECT s.unit, s.period, sum(s.new)::bigint AS new_persons, sum(s.returning)::bigint AS returning_persons,
       sum(s.resurrected)::bigint AS resurrected_persons, sum(s.dormant)::bigint AS dormant_persons
  FROM (SELECT p.unit, p.period, p.new, p.returning, p.resurrected, 0 AS dormant FROM periods AS p
        UNION ALL
        SELECT p.unit, p.period + p.days, 0, 0, 0, p.gone FROM periods AS p
         WHERE p.period + p.days <= (SELECT max(x.period) FROM periods AS x WHERE x.unit = p.unit)) AS s
 GROUP BY s.unit, s.period;
CREATE UNIQUE INDEX IF NOT EXISTS lifecycle_stored_period ON gold_storage.lifecycle_stored (unit, period);
COMMENT ON MATERIALIZED VIEW gold_storage.lifecycle_stored IS
    'Storage of gold.lifecycle_daily and gold.lifecycle_weekly; read those views instead.';
COMMENT ON COLUMN gold_storage.lifecycle_stored.unit IS 'day or week.';
COMMENT ON COLUMN gold_storage.lifecycle_stored.period IS 'First date of the period.';
COMMENT ON COLUMN gold_storage.lifecycle_stored.new_persons IS 'Active for the first time.';
COMMENT ON COLUMN gold_storage.lifecycle_stored.returning_persons IS 'Active in this period and the one before.';
COMMENT ON COLUMN gold_storage.lifecycle_stored.resurrected_persons IS 'Active again after a pause.';
COMMENT ON COLUMN gold_storage.lifecycle_stored.dormant_persons IS 'Active in the period before only.';
SELECT tidemark.manage_materialized_view('gold_storage.lifecycle_stored', ARRAY['gold_storage.person_activity']);

DO $$
DECLARE
    unit text;
    entry record;
BEGIN
    FOREACH unit IN ARRAY ARRAY['day', 'week'] LOOP
        EXECUTE pg_catalog.format('CREATE OR REPLACE VIEW gold.lifecycle_%s AS
            SELECT l.period, l.new_persons, l.returning_persons, l.resurrected_persons, l.dormant_persons
              FROM gold_storage.lifecycle_stored AS l WHERE l.unit = %L',
            CASE unit WHEN 'day' THEN 'daily' ELSE 'weekly' END, unit);
    END LOOP;
    FOR entry IN SELECT v.view_name, c.column_name, c.meaning FROM (VALUES
            ('period', 'First date of the period; gold.reporting says on which weekday weeks begin.'),
            ('new_persons', 'Persons active for the first time ever.'),
            ('returning_persons', 'Persons active in this period and in the one before.'),
            ('resurrected_persons', 'Persons active in this period, not in the one before, but earlier.'),
            ('dormant_persons', 'Persons not active in this period, but in the one before. '
                                'They are not lost yet while the last period runs.')
        ) AS c(column_name, meaning)
        CROSS JOIN (VALUES ('gold.lifecycle_daily'), ('gold.lifecycle_weekly')) AS v(view_name)
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', entry.view_name, entry.column_name, entry.meaning);
    END LOOP;
END
$$;
COMMENT ON VIEW gold.lifecycle_daily IS
    'Growth accounting by date: new, returning, resurrected and dormant persons. '
    'new + returning + resurrected are the active persons of the date, returning + dormant those of the date before.';
COMMENT ON VIEW gold.lifecycle_weekly IS
    'Growth accounting by calendar week: new, returning, resurrected and dormant persons. '
    'new + returning + resurrected are the active persons of the week, returning + dormant those of the week before.';
GRANT SELECT ON gold.retention_weekly, gold.lifecycle_daily, gold.lifecycle_weekly TO tidemark_reader;
