-- Funnels: funnel_stats and funnel_table, figures over many persons. Implemented in funnel_stats.rs.

COMMENT ON TYPE tidemark.funnel_stats IS
'Figures of a funnel over many persons: how many reached each step and how
long it took them; mergeable, some KB at most per step. Equal multisets of
chains give equal bytes under any plan. Text form: bytea hex. Do not put it
before a BI tool: show funnel_table().';

CREATE FUNCTION tidemark_internal.funnel_stats_transition(state internal, chain timestamptz[], steps integer)
RETURNS internal LANGUAGE c IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_transition';

CREATE FUNCTION tidemark_internal.funnel_stats_union_transition(state internal, stats tidemark.funnel_stats)
RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_union_transition';

CREATE FUNCTION tidemark_internal.funnel_stats_final(state internal) RETURNS tidemark.funnel_stats
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_final';

CREATE AGGREGATE tidemark.funnel_stats(chain timestamptz[], steps integer) (
    SFUNC = tidemark_internal.funnel_stats_transition, STYPE = internal, SSPACE = 4096,
    FINALFUNC = tidemark_internal.funnel_stats_final, COMBINEFUNC = tidemark_internal.funnel_stats_combine,
    SERIALFUNC = tidemark_internal.funnel_stats_serialize, DESERIALFUNC = tidemark_internal.funnel_stats_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel_stats(timestamptz[], integer) IS
'The figures of a funnel over the chains of many persons (results of
tidemark.funnel, one row a person), to be shown by funnel_table and merged
by funnel_stats_union_agg. steps: how many steps the funnel has, 1 to 32,
without excluded conditions; constant. A NULL chain is skipped, an empty one
counts for no step. A NULL element, an optional step left out, does not
count for its step. A chain longer than steps, beginning with NULL or
holding an infinite time is an error. No rows give NULL.';

CREATE AGGREGATE tidemark.funnel_stats_union_agg(stats tidemark.funnel_stats) (
    SFUNC = tidemark_internal.funnel_stats_union_transition, STYPE = internal, SSPACE = 4096,
    FINALFUNC = tidemark_internal.funnel_stats_final, COMBINEFUNC = tidemark_internal.funnel_stats_combine,
    SERIALFUNC = tidemark_internal.funnel_stats_serialize, DESERIALFUNC = tidemark_internal.funnel_stats_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel_stats_union_agg(tidemark.funnel_stats) IS
'The sum of the figures of a group (daily rollups to a month): equal in bytes
to figures over all their chains. Different numbers of steps are an error
(22023). NULLs are skipped; no rows give NULL.';

CREATE FUNCTION tidemark.funnel_table(stats tidemark.funnel_stats, names text[] DEFAULT NULL)
RETURNS TABLE (
    step integer, name text, entered bigint, pct_of_first numeric, pct_of_previous numeric, median_seconds numeric,
    avg_seconds numeric
)
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 ROWS 5 AS 'MODULE_PATHNAME', 'tidemark_funnel_table';
COMMENT ON FUNCTION tidemark.funnel_table(tidemark.funnel_stats, text[]) IS
'The figures of a funnel as rows, one a step, in order. name: from names,
otherwise ''step N''. entered: the persons who reached the step. pct_of_first,
pct_of_previous: they in percent of step 1 and of the step before, to 2
decimals; NULL where that is 0, and for step 1; above 100 behind an optional
step that many left out. median_seconds, avg_seconds: since the step reached
before, to 3 decimals; NULL for step 1 and where nobody came. The average is
exact, the median exact up to 1000 persons and within 1 % beyond. More names
than steps are an error (22023). NULL figures give no rows.';
