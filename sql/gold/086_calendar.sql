-- gold.calendar: the dates of gold, and the weeks, months, quarters and fiscal years that they belong to.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW gold.calendar AS
SELECT d.event_date, gold.date_start(d.event_date) AS starts_at, gold.date_start(d.event_date + 1) AS ends_at,
       round(extract(epoch FROM gold.date_start(d.event_date + 1) - gold.date_start(d.event_date)) / 3600, 2) AS hours,
       gold.period_start('week', d.event_date) AS week_start,
       to_char(d.event_date, 'IYYY-"W"IW') AS iso_week,
       gold.period_start('month', d.event_date) AS month_start,
       gold.period_start('quarter', d.event_date) AS quarter_start,
       gold.period_start('fiscal_quarter', d.event_date) AS fiscal_quarter_start,
       gold.period_start('fiscal_year', d.event_date) AS fiscal_year_start,
       extract(year FROM gold.period_start('fiscal_year', d.event_date) + interval '1 year' - interval '1 day')::integer
           AS fiscal_year
  FROM (SELECT min(a.event_date) AS first_date, max(a.event_date) AS last_date
          FROM gold_storage.daily_activity AS a WHERE a.grain = 'total') AS span
 CROSS JOIN LATERAL (SELECT span.first_date + n AS event_date
                       FROM generate_series(0, span.last_date - span.first_date) AS n) AS d;
COMMENT ON VIEW gold.calendar IS
    'Every date from the first to the last one with events, in the time zone of gold.reporting: '
    'join it by event_date for weeks, months and fiscal years, and for dates without events.';
COMMENT ON COLUMN gold.calendar.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.calendar.starts_at IS 'When it begins.';
COMMENT ON COLUMN gold.calendar.ends_at IS 'When it is over, exclusive: when the next one begins.';
COMMENT ON COLUMN gold.calendar.hours IS
    'How long it is: 24, another number where clocks are changed, 0 for a date that was left out.';
COMMENT ON COLUMN gold.calendar.week_start IS 'First date of its week; gold.reporting says on which weekday.';
COMMENT ON COLUMN gold.calendar.iso_week IS 'Its ISO 8601 week, which begins on Monday in any case, such as 2026-W53.';
COMMENT ON COLUMN gold.calendar.month_start IS 'First date of its month.';
COMMENT ON COLUMN gold.calendar.quarter_start IS 'First date of its quarter.';
COMMENT ON COLUMN gold.calendar.fiscal_quarter_start IS 'First date of its quarter of the fiscal year.';
COMMENT ON COLUMN gold.calendar.fiscal_year_start IS 'First date of its fiscal year.';
COMMENT ON COLUMN gold.calendar.fiscal_year IS 'Its fiscal year, by the calendar year in which that ends.';
GRANT SELECT ON gold.calendar TO tidemark_reader;
