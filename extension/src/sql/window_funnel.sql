-- Funnels: how far a person came along ordered steps within a window. Implemented in window_funnel.rs.
-- Steps are VARIADIC "any" for the reason given in funnel.sql; the states are those of funnel.

CREATE FUNCTION tidemark_internal.window_funnel_transition(
    state internal, win interval, event_time timestamptz, VARIADIC steps "any"
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_transition';

CREATE FUNCTION tidemark_internal.window_funnel_transition(
    state internal, win interval, mode text, event_time timestamptz, VARIADIC steps "any"
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_mode_transition';

CREATE FUNCTION tidemark_internal.window_funnel_final(state internal) RETURNS integer
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_final';

CREATE AGGREGATE tidemark.window_funnel(win interval, event_time timestamptz, VARIADIC steps "any") (
    SFUNC = tidemark_internal.window_funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.window_funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.window_funnel(interval, timestamptz, "any") IS
'How many steps of a funnel the events of a group (GROUP BY person) reached:
0 to the number of steps. steps: 1 to 32 boolean conditions, in order;
events count within win of the first step, the end of the window included.
The semantics of ClickHouse''s windowFunnel in its default mode: other events
may come between, and one row may satisfy several steps. Rows need no order;
a NULL condition is false, a NULL event_time is skipped, no rows give 0. win
must be constant and free of months (22023).';

CREATE AGGREGATE tidemark.window_funnel(win interval, mode text, event_time timestamptz, VARIADIC steps "any") (
    SFUNC = tidemark_internal.window_funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.window_funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.window_funnel(interval, text, timestamptz, "any") IS
'How many steps were reached, as window_funnel(win, event_time, steps), in a
mode. mode: a comma separated list, constant, of strict_deduplication,
strict_order, strict_increase, strict_once and allow_reentry (only with
strict_order), as in ClickHouse; an empty text is the default mode, anything
else an error (22023). Unlike in ClickHouse the answer never depends on the
order of rows or on parallel workers.';
