-- Retention: who came back, per condition and per cohort. Implemented in retention.rs.

CREATE TYPE tidemark.cohort_member AS (
    cohort date,
    retained boolean[]
);
COMMENT ON TYPE tidemark.cohort_member IS
'A person in a cohort, as tidemark.cohort_member(...) finds it: the cohort
and, for each period since, whether the person came back.';
COMMENT ON COLUMN tidemark.cohort_member.cohort IS
'First day of the calendar period in which the person started.';
COMMENT ON COLUMN tidemark.cohort_member.retained IS
'Element 1 is period 0, the start itself, and always true; element k + 1 says
whether the person returned in period k, NULL while that period is incomplete.';

CREATE FUNCTION tidemark_internal.retention_transition(state internal, VARIADIC conditions "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_retention_transition';

CREATE FUNCTION tidemark_internal.retention_final(state internal) RETURNS boolean[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_retention_final';

CREATE AGGREGATE tidemark.retention(VARIADIC conditions "any") (
    SFUNC = tidemark_internal.retention_transition, STYPE = internal, SSPACE = 64,
    FINALFUNC = tidemark_internal.retention_final, COMBINEFUNC = tidemark_internal.retention_combine,
    SERIALFUNC = tidemark_internal.retention_serialize, DESERIALFUNC = tidemark_internal.retention_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.retention("any") IS
'Which of 1 to 32 boolean conditions the rows of a group (GROUP BY person)
met together with the first one. As ClickHouse''s retention: element 1 is
true if condition 1 was true on any row, element i if condition 1 and
condition i both were, on whatever rows. The order of time is not looked at.
A NULL condition is false; no rows give {}.';

CREATE FUNCTION tidemark_internal.cohort_member_transition(
    state internal, period text, mode text, periods integer, as_of timestamptz, event_time timestamptz,
    is_start boolean, is_return boolean
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_transition';

CREATE FUNCTION tidemark_internal.cohort_member_final(state internal) RETURNS tidemark.cohort_member[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_final';

CREATE AGGREGATE tidemark.cohort_member(
    period text, mode text, periods integer, as_of timestamptz, event_time timestamptz, is_start boolean,
    is_return boolean
) (
    SFUNC = tidemark_internal.cohort_member_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.cohort_member_final, COMBINEFUNC = tidemark_internal.cohort_member_combine,
    SERIALFUNC = tidemark_internal.cohort_member_serialize, DESERIALFUNC = tidemark_internal.cohort_member_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.cohort_member(text, text, integer, timestamptz, timestamptz, boolean, boolean) IS
'The cohorts that a person belongs to (GROUP BY person), ordered by cohort,
each with the periods in which the person came back; for unnest. period:
day, week (from Monday; or week from sunday), month or quarter. mode: a
list with commas, empty for the defaults: on (default: back in that period)
or on_or_after; first_time (default: the person''s earliest start) or
recurring (every period with a start is a cohort); calendar (default) or
rolling periods from the person''s own start, of 1, 7, 30 or 90 days or
rolling=DAYS; time_zone=NAME: of its clock, not UTC. periods: how many,
period 0 included, 1 to 1000. as_of: events from then on are ignored, and a
period that ends after it is NULL. is_start, is_return: whether a row
starts a person, and counts as coming back. A NULL condition is false, a
NULL event_time is skipped, no start gives {}. The first four must be
constant and not NULL; unknown words are errors (22023). For first_time do
not cut the rows to a range: the start would move.';

CREATE FUNCTION tidemark_internal.cohort_retention_transition(state internal, retained boolean[]) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_transition';

CREATE FUNCTION tidemark_internal.cohort_retention_final(state internal) RETURNS bigint[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_final';

CREATE AGGREGATE tidemark.cohort_retention(retained boolean[]) (
    SFUNC = tidemark_internal.cohort_retention_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.cohort_retention_final, COMBINEFUNC = tidemark_internal.cohort_retention_combine,
    SERIALFUNC = tidemark_internal.cohort_retention_serialize,
    DESERIALFUNC = tidemark_internal.cohort_retention_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.cohort_retention(boolean[]) IS
'How many persons of a cohort (GROUP BY cohort) came back in each period:
element 1 is period 0, the size of the cohort, element k + 1 period k. An
element is NULL where the period is incomplete for any of them. The
retention triangle in one statement: SELECT m.cohort,
tidemark.cohort_retention(m.retained) FROM (SELECT
tidemark.cohort_member(''week'', '''', 9, now(), event_time, event_type =
''signup_completed'', true) AS members FROM silver.events GROUP BY person) AS
p, unnest(p.members) AS m GROUP BY m.cohort ORDER BY m.cohort; for rows with
percentages add tidemark.cohort_table. A NULL argument is skipped, a NULL
element makes its period incomplete, no rows give {}. Arrays of different
length, or empty ones, are errors (22023).';

CREATE FUNCTION tidemark.cohort_table(retained bigint[])
RETURNS TABLE (period integer, persons bigint, pct numeric) LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10 ROWS 10
BEGIN ATOMIC
    SELECT (r.n - 1)::integer, r.persons, round(100.0 * r.persons / nullif(cohort_table.retained[1], 0), 1)
      FROM unnest(cohort_table.retained) WITH ORDINALITY AS r(persons, n)
     ORDER BY r.n;
END;
COMMENT ON FUNCTION tidemark.cohort_table(bigint[]) IS
'The result of tidemark.cohort_retention as rows, for charts and pivots:
period (0, 1, ...), persons who came back in it and pct, their share of
period 0 in percent, to one decimal. persons and pct are NULL where the
period is incomplete. Use it with CROSS JOIN LATERAL; NULL gives no rows.';
