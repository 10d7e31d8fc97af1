-- Funnels: the aggregate funnel, the times of the deepest chain. Implemented in funnel.rs.
-- Steps are VARIADIC "any" and checked to be boolean at run time: a boolean[] parameter would build an array for every
-- row, which costs more than the rest of the call. VARIADIC with an array still works.

CREATE FUNCTION tidemark_internal.funnel_transition(
    state internal, win interval, event_time timestamptz, VARIADIC steps "any"
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_transition';

CREATE FUNCTION tidemark_internal.funnel_transition(
    state internal, win interval, mode text, event_time timestamptz, VARIADIC steps "any"
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_mode_transition';

CREATE FUNCTION tidemark_internal.funnel_transition(
    state internal, win interval, event_time timestamptz, event_type text, steps text[]
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_names_transition';

CREATE FUNCTION tidemark_internal.funnel_transition(
    state internal, win interval, mode text, event_time timestamptz, event_type text, steps text[]
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_mode_names_transition';

CREATE FUNCTION tidemark_internal.funnel_final(state internal) RETURNS timestamptz[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_final';

CREATE AGGREGATE tidemark.funnel(win interval, event_time timestamptz, VARIADIC steps "any") (
    SFUNC = tidemark_internal.funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel(interval, timestamptz, "any") IS
'The times of the chain of events that got deepest in a funnel: one per step
reached, so cardinality() is the level. Steps are 1 to 32 boolean
conditions, in order; a chain takes a different row for each of them, times
never decrease, and the last is at most win after the first (inclusive);
other events may come between. Of the deepest chains the one that ends
first, then starts last, then has the earliest times in between, so no order
of rows changes it. Group by person. A NULL condition is false, a NULL
event_time is skipped, an infinite one an error (22008); no rows give an
empty array. win must be constant and free of months (22023).';

CREATE AGGREGATE tidemark.funnel(win interval, mode text, event_time timestamptz, VARIADIC steps "any") (
    SFUNC = tidemark_internal.funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel(interval, text, timestamptz, "any") IS
'The chain that got deepest, as funnel(win, event_time, steps), in a mode.
mode: a comma separated list, constant, of strict_increase (times increase),
strict_order (only repeats of reached steps between), allow_reentry (with
strict_order: any step between), strict_deduplication (a repeated step ends
the chain), strict_once (no effect: one row is one step in every mode),
any_order (steps in any order; times sorted), first_entry (start at the
earliest row of step 1), exclude=N (condition N is no step, a row with it
ends the chain), optional=N (step N may be left out; NULL in its place) and
step_window=INTERVAL (longest time between steps, such as 30m). Anything
else is an error (22023).';

CREATE AGGREGATE tidemark.funnel(win interval, event_time timestamptz, event_type text, steps text[]) (
    SFUNC = tidemark_internal.funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel(interval, timestamptz, text, text[]) IS
'As funnel(win, event_time, VARIADIC steps) with steps by name: a row
satisfies a step when its event_type is the step''s name, compared byte by
byte. The fastest form. A name may stand for several steps, each of which
then needs its own row. A NULL event_type satisfies none. steps has 1 to 32
names, none of them NULL, and must be constant.';

CREATE AGGREGATE tidemark.funnel(win interval, mode text, event_time timestamptz, event_type text, steps text[]) (
    SFUNC = tidemark_internal.funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel(interval, text, timestamptz, text, text[]) IS
'As funnel(win, mode, event_time, VARIADIC steps) with steps by name; see
funnel(win, event_time, event_type, steps). N in a mode counts the names.';
