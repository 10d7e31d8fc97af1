-- Reports: product questions, answered from a timeline with the rights of the caller. Each reads the stored slices of
-- the dates asked for and, for those that wait for a refresh, the rows: exact under the snapshot of the calling query.
-- Dates are UTC and arguments, since a WHERE around a function is not pushed into it. Implemented in timelines/.
--
-- Settings are fixed, so that a property that is a time or a number is the same text as when it was stored, and so that
-- slices come in the order of an index: the planner would rather sort them, 8 kB each and on disk.

CREATE FUNCTION tidemark.funnel_report(source regclass, from_date date, to_date date, steps jsonb, win interval,
    mode text DEFAULT '', breakdown text DEFAULT NULL, attribution text DEFAULT 'step=1', filters jsonb DEFAULT NULL,
    top integer DEFAULT 10, quantile double precision DEFAULT 0.9)
RETURNS TABLE (series text, step integer, name text, entered bigint, completed bigint, pct_of_first numeric,
               pct_of_previous numeric, median_seconds numeric, avg_seconds numeric, quantile_seconds numeric,
               total_median_seconds numeric, total_quantile_seconds numeric, complete boolean)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 10
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET standard_conforming_strings = on
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS 'MODULE_PATHNAME', 'tidemark_funnel_report';
COMMENT ON FUNCTION tidemark.funnel_report(regclass, date, date, jsonb, interval, text, text, text, jsonb, integer,
                                           double precision) IS
'How many persons went through steps, by step: what tidemark.funnel gives for
the events of source, of which there must be a timeline, from from_date to
the day before to_date. A step is "event", ["any", "of"], or {"event",
"filters", "name"}. filters: ["is", "country", ["AT"]], is_not, contains,
contains_not, matches, matches_not, >, >=, <, <=, is_null, is_not_null,
["and", [..]], ["or", [..]], ["not", ..]; NULL satisfies negations only.
breakdown: a series for each of the top values of a property, (none) for
NULL, (other) for the rest, which add up to the whole; attribution: step=1
and so on, first or last: of which event of a chain. Seconds are since the
step before, total since the first; quantile: of which share. completed is
entered of the next step; complete: the dates lie before the watermark.
42704: no timeline; 42703: no such property.';

CREATE FUNCTION tidemark.funnel_persons(source regclass, from_date date, to_date date, steps jsonb, win interval,
    mode text DEFAULT '', step integer DEFAULT 1, dropped boolean DEFAULT false, filters jsonb DEFAULT NULL)
RETURNS TABLE (person text, times timestamptz[])
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 1000
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET standard_conforming_strings = on
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS 'MODULE_PATHNAME', 'tidemark_funnel_persons';
COMMENT ON FUNCTION tidemark.funnel_persons(regclass, date, date, jsonb, interval, text, integer, boolean, jsonb) IS
'The persons behind a number of funnel_report, with the times of their steps:
those who entered step or, dropped, those of them who came no further. Other
arguments as there. Persons are named by the rows of source, which are read
for it; in any order.';

CREATE FUNCTION tidemark.session_report(source regclass, from_date date, to_date date,
    gap interval DEFAULT '30 minutes', filters jsonb DEFAULT NULL)
RETURNS TABLE (sessions bigint, persons bigint, events bigint, avg_seconds numeric, median_seconds numeric,
               p95_seconds numeric)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 1
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET standard_conforming_strings = on
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS 'MODULE_PATHNAME', 'tidemark_session_report';
COMMENT ON FUNCTION tidemark.session_report(regclass, date, date, interval, jsonb) IS
'The sessions of the events of a timeline (see funnel_report for source,
dates and filters): how many, of how many persons, with how many events, and
how long they last. A session ends where a person pauses for longer than
gap, as in tidemark.sessions; it goes on over midnight. Median and 95th
percentile are exact, as percentile_cont gives them; NULL without sessions.';

CREATE FUNCTION tidemark.retention_report(source regclass, from_date date, to_date date, start jsonb, returned jsonb,
    period text DEFAULT 'week', mode text DEFAULT '', periods integer DEFAULT 8, as_of timestamptz DEFAULT NULL,
    filters jsonb DEFAULT NULL)
RETURNS TABLE (cohort date, period integer, persons bigint, pct numeric)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 50
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET standard_conforming_strings = on
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS 'MODULE_PATHNAME', 'tidemark_retention_report';
COMMENT ON FUNCTION tidemark.retention_report(regclass, date, date, jsonb, jsonb, text, text, integer, timestamptz,
                                              jsonb) IS
'Who came back, by the period of the start: what tidemark.cohort_member and
cohort_retention give for the events of a timeline (see funnel_report for
source, dates and filters). start and returned are steps of a funnel; mode,
period and periods those of cohort_member. as_of: events before this time
are known, all before to_date when NULL. persons: how many of the cohort
came back in the period, NULL where that is not over for all; pct: in
percent of period 0.';

CREATE FUNCTION tidemark.trend(source regclass, from_date date, to_date date, math text DEFAULT 'total',
    events jsonb DEFAULT NULL, unit text DEFAULT 'day', breakdown text DEFAULT NULL, filters jsonb DEFAULT NULL,
    top integer DEFAULT 10, time_zone text DEFAULT 'UTC')
RETURNS TABLE (period timestamptz, series text, value bigint)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET standard_conforming_strings = on
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS 'MODULE_PATHNAME', 'tidemark_trend';
COMMENT ON FUNCTION tidemark.trend(regclass, date, date, text, jsonb, text, text, jsonb, integer, text) IS
'Events (math total) or distinct persons (persons) of a timeline by hour,
day, week (from Monday; week from sunday from another day), month or
quarter; see funnel_report for source, dates and filters. events: a step of
a funnel, all when NULL. breakdown: a series for each of the top values,
(none) for NULL, (other) for the rest; a person is counted in each series
once. Periods without events have no row. time_zone: of whose clock periods
and dates are, which must differ from UTC by quarters of an hour. Events by
event_type and one more property are counted ahead, others are read.';

CREATE FUNCTION tidemark.paths(source regclass, from_date date, to_date date, item text DEFAULT 'event_type',
    start_item text DEFAULT NULL, end_item text DEFAULT NULL, items integer DEFAULT 5,
    gap interval DEFAULT '30 minutes', filters jsonb DEFAULT NULL, top integer DEFAULT 50)
RETURNS TABLE (step integer, source_item text, target_item text, persons bigint, sessions bigint,
               median_seconds numeric)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 50
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET standard_conforming_strings = on
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS 'MODULE_PATHNAME', 'tidemark_paths';
COMMENT ON FUNCTION tidemark.paths(regclass, date, date, text, text, text, integer, interval, jsonb, integer) IS
'What follows what in the sessions of a timeline: for each of the first items
of a session and the one after it, how many sessions and persons went so,
and how long it took. See funnel_report for source, dates and filters. item:
a property; equal items that follow each other are one. start_item: paths
begin with its first occurrence; end_item: they end with the next one of it,
and sessions without are left out; with an end and no start it is the last
items before it. gap ends a session, as in session_report. The top steps by
sessions, (none) for NULL.';
