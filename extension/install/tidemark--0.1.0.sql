-- Where everything goes: `tidemark` holds what users call, `tidemark_internal` what these call in turn: catalogs, support
-- functions of aggregates and types, the steps of refreshes and maintenance.

-- Both schemas are made here, so they are the extension's own: whoever had one before could have left functions in it
-- that internal calls would then find.
DO $$
DECLARE
    taken name := (SELECT n.nspname FROM pg_catalog.pg_namespace n
                    WHERE n.nspname IN ('tidemark', 'tidemark_internal') ORDER BY 1 LIMIT 1);
BEGIN
    IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'database "%" is encoded in %, tidemark needs UTF8', pg_catalog.current_database(),
            pg_catalog.getdatabaseencoding()
            USING ERRCODE = '0A000', HINT = 'Texts are hashed and compared as UTF-8. CREATE DATABASE ... ENCODING ''UTF8''.';
    ELSIF taken IS NOT NULL THEN
        RAISE EXCEPTION 'schema % exists already', taken
            USING ERRCODE = '42P06', HINT = 'tidemark makes this schema itself. Look at what is in it, then rename or drop it.';
    END IF;
END
$$;

CREATE SCHEMA tidemark;
COMMENT ON SCHEMA tidemark IS
'Functions, types and aggregates of the tidemark extension: sessions, funnels, distinct counts, partitions, models.';
CREATE SCHEMA tidemark_internal;
COMMENT ON SCHEMA tidemark_internal IS
'Catalogs and support functions of the tidemark extension; what to call stands in schema tidemark.';

-- USAGE without CREATE: everybody may call the functions, nobody may squat names beside them.
GRANT USAGE ON SCHEMA tidemark, tidemark_internal TO PUBLIC;
-- Who may act for whom: the one question that every function asks before it writes a catalog for somebody.
--
-- A catalog is written by the extension's owner only. A function that anybody may call and that writes one is a door:
-- LANGUAGE c, 'tidemark_act' (act.rs), which calls the function of its name in tidemark_internal with the caller's oid
-- before the other arguments. That one is not for others to call: EXECUTE is revoked at the end of the script.

CREATE FUNCTION tidemark_internal.may_act_as(caller oid, owner oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
-- From 16 on, a membership may give the rights (INHERIT), SET ROLE, both or neither of them.
RETURN coalesce(pg_has_role(caller, owner, CASE WHEN current_setting('server_version_num')::integer < 160000
                                                THEN 'USAGE' ELSE 'USAGE, SET' END), false);
COMMENT ON FUNCTION tidemark_internal.may_act_as(oid, oid) IS
'Whether a role has the rights of another one, by being it, by inheritance
or (from PostgreSQL 16 on) by SET ROLE; superusers always have. false for
NULL.';

CREATE FUNCTION tidemark_internal.check_may_act_as(caller oid, relation regclass) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = relation);
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'relation must not be NULL' USING ERRCODE = '22004';
    ELSIF owner IS NULL THEN
        RAISE EXCEPTION 'relation % does not exist', relation::oid USING ERRCODE = '42P01';
    ELSIF NOT tidemark_internal.may_act_as(caller, owner) THEN
        RAISE EXCEPTION 'must be owner of table %', relation
            USING ERRCODE = '42501', HINT = 'The caller must have the rights of the role that owns it.';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_may_act_as(oid, regclass) IS
'Raises 42501 unless a role may act for the owner of a relation, 42P01 when
there is no such relation, 22004 for NULL.';
-- Bars of text, so that a result in psql is a chart.

-- Eighths are counted with one exact division: a quotient that is rounded first would fall short of whole characters
-- (1 of 3 in 24 characters is 8, not 7.99). U+2588 is the full block, U+2589 to U+258F have 7 eighths to 1. By number,
-- so that the script is ASCII: in a database of another encoding it must come as far as its own refusal.
CREATE FUNCTION tidemark.bar(value numeric, maximum numeric, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5
RETURN CASE
    WHEN value <= 0 OR maximum <= 0 OR width <= 0 OR value = 'NaN' OR maximum = 'NaN' THEN ''
    WHEN value >= maximum THEN repeat(chr(9608), least(width, 1000))
    ELSE repeat(chr(9608), div(div(value * least(width, 1000) * 8, maximum), 8)::integer)
         || CASE mod(div(value * least(width, 1000) * 8, maximum), 8)
                WHEN 0 THEN '' ELSE chr(9616 - mod(div(value * least(width, 1000) * 8, maximum), 8)::integer) END
END;
COMMENT ON FUNCTION tidemark.bar(numeric, numeric, integer) IS
'A horizontal bar for psql: value / maximum of width characters (default 30,
at most 1000), in steps of an eighth of a character. The maximum and more
fill it; 0 and less, NaN, and a maximum or width of 0 or less give an empty
text. NULL gives NULL.';

CREATE FUNCTION tidemark.bar(value double precision, maximum double precision, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10
RETURN tidemark.bar(value::numeric, maximum::numeric, width);
COMMENT ON FUNCTION tidemark.bar(double precision, double precision, integer) IS
'A horizontal bar for psql, of numbers in double precision; see
tidemark.bar(numeric, numeric, integer).';
-- Sessions: runs of events with no gap greater than a limit. Implemented in sessions.rs.

CREATE TYPE tidemark.session AS (
    started_at timestamptz,
    ended_at timestamptz,
    events bigint
);
COMMENT ON TYPE tidemark.session IS
'One session: time of its first and of its last event (both inclusive) and
the number of its events. A session of one event has started_at = ended_at.';
COMMENT ON COLUMN tidemark.session.started_at IS 'Time of the first event of the session.';
COMMENT ON COLUMN tidemark.session.ended_at IS 'Time of the last event of the session.';
COMMENT ON COLUMN tidemark.session.events IS 'Number of events in the session, at least 1.';

CREATE FUNCTION tidemark_internal.sessions_transition(state internal, event_time timestamptz) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_sessions_transition';
COMMENT ON FUNCTION tidemark_internal.sessions_transition(internal, timestamptz) IS 'Support function of tidemark.sessions and session_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sessions_transition(state internal, event_time timestamptz, gap interval) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_sessions_transition';
COMMENT ON FUNCTION tidemark_internal.sessions_transition(internal, timestamptz, interval) IS 'Support function of tidemark.sessions and session_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sessions_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_sessions_combine';
COMMENT ON FUNCTION tidemark_internal.sessions_combine(internal, internal) IS 'Support function of tidemark.sessions and session_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sessions_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_sessions_serialize';
COMMENT ON FUNCTION tidemark_internal.sessions_serialize(internal) IS 'Support function of tidemark.sessions and session_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sessions_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_sessions_deserialize';
COMMENT ON FUNCTION tidemark_internal.sessions_deserialize(bytea, internal) IS 'Support function of tidemark.sessions and session_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sessions_final(state internal) RETURNS tidemark.session[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_sessions_final';
COMMENT ON FUNCTION tidemark_internal.sessions_final(internal) IS 'Support function of tidemark.sessions; not for direct use.';

CREATE FUNCTION tidemark_internal.session_count_final(state internal) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 50 AS 'MODULE_PATHNAME', 'tidemark_session_count_final';
COMMENT ON FUNCTION tidemark_internal.session_count_final(internal) IS 'Support function of tidemark.session_count; not for direct use.';

CREATE AGGREGATE tidemark.sessions(event_time timestamptz, gap interval) (
    SFUNC = tidemark_internal.sessions_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.sessions_final, COMBINEFUNC = tidemark_internal.sessions_combine,
    SERIALFUNC = tidemark_internal.sessions_serialize, DESERIALFUNC = tidemark_internal.sessions_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.sessions(timestamptz, interval) IS
'The sessions of a group of events (GROUP BY person), ordered by start: an
array of tidemark.session, to be read with unnest or CROSS JOIN LATERAL. A
new session starts when the time since the previous event is greater than
gap; a gap exactly equal stays in the session. Rows need no order. Rows with
a NULL event_time are skipped; no rows give an empty array. gap must be
constant and not NULL, and must not contain months (22023).';

CREATE AGGREGATE tidemark.sessions(event_time timestamptz) (
    SFUNC = tidemark_internal.sessions_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.sessions_final, COMBINEFUNC = tidemark_internal.sessions_combine,
    SERIALFUNC = tidemark_internal.sessions_serialize, DESERIALFUNC = tidemark_internal.sessions_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.sessions(timestamptz) IS
'The sessions of a group of events with a gap of 30 minutes; see
tidemark.sessions(event_time, gap).';

CREATE AGGREGATE tidemark.session_count(event_time timestamptz, gap interval) (
    SFUNC = tidemark_internal.sessions_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.session_count_final, COMBINEFUNC = tidemark_internal.sessions_combine,
    SERIALFUNC = tidemark_internal.sessions_serialize, DESERIALFUNC = tidemark_internal.sessions_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.session_count(timestamptz, interval) IS
'How many sessions a group of events (GROUP BY person) has; the rules of
tidemark.sessions. No rows, or only NULL times, give 0.';

CREATE AGGREGATE tidemark.session_count(event_time timestamptz) (
    SFUNC = tidemark_internal.sessions_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.session_count_final, COMBINEFUNC = tidemark_internal.sessions_combine,
    SERIALFUNC = tidemark_internal.sessions_serialize, DESERIALFUNC = tidemark_internal.sessions_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.session_count(timestamptz) IS
'How many sessions a group of events has with a gap of 30 minutes; see
tidemark.session_count(event_time, gap).';

CREATE FUNCTION tidemark.sessionize(event_time timestamptz) RETURNS timestamptz
LANGUAGE c WINDOW IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_sessionize';
COMMENT ON FUNCTION tidemark.sessionize(timestamptz) IS
'Window function: the start of the session that a row belongs to, with a gap
of 30 minutes; see tidemark.sessionize(event_time, gap).';

CREATE FUNCTION tidemark.sessionize(event_time timestamptz, gap interval) RETURNS timestamptz
LANGUAGE c WINDOW IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_sessionize';
COMMENT ON FUNCTION tidemark.sessionize(timestamptz, interval) IS
'Window function, OVER (PARTITION BY person ORDER BY event_time): the start
of the session that a row belongs to, a key that later events never
renumber. A new session starts when the time since the previous row is
greater than gap; equal stays. A NULL event_time gives NULL and changes
nothing. Rows that go back in time are an error (22023), as is a gap with
months or one that changes.';

CREATE FUNCTION tidemark.sessionize(event_time timestamptz, gap interval, new_session boolean) RETURNS timestamptz
LANGUAGE c WINDOW IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_sessionize';
COMMENT ON FUNCTION tidemark.sessionize(timestamptz, interval, boolean) IS
'Window function: as sessionize(event_time, gap), and a row whose new_session
is true also starts a session (campaign change, midnight). NULL counts as
false. Two sessions that start at the same event_time share their key: make
the cut on one row.';

CREATE FUNCTION tidemark.session_number(event_time timestamptz) RETURNS bigint
LANGUAGE c WINDOW IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_session_number';
COMMENT ON FUNCTION tidemark.session_number(timestamptz) IS
'Window function: the number of the session that a row belongs to, with a gap
of 30 minutes; see tidemark.session_number(event_time, gap).';

CREATE FUNCTION tidemark.session_number(event_time timestamptz, gap interval) RETURNS bigint
LANGUAGE c WINDOW IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_session_number';
COMMENT ON FUNCTION tidemark.session_number(timestamptz, interval) IS
'Window function, OVER (PARTITION BY person ORDER BY event_time): 1 for the
rows of the first session in the window partition, then 2, 3 ...; the rules
of tidemark.sessionize. Numbers shift when an earlier event arrives late;
the start does not: prefer sessionize or session_id as a key.';

CREATE FUNCTION tidemark.session_id(person text, started_at timestamptz) RETURNS uuid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_session_id';
COMMENT ON FUNCTION tidemark.session_id(text, timestamptz) IS
'A stable identifier of a session: UUIDv5 (RFC 9562) of ''<person>|<started_at
as microseconds since 1970-01-01 UTC>'' in the namespace uuid5(URL,
''tidemark:session''). The same in every database and in any language. NULL if
an argument is NULL.';
-- Funnels: how far a person came along ordered steps within a window. Implemented in funnels.rs.
-- The steps are VARIADIC "any" and checked to be boolean at run time: a boolean[] parameter would build an array for
-- every row, which costs more than the rest of the call. VARIADIC with an array still works.

CREATE FUNCTION tidemark_internal.window_funnel_transition(state internal, win interval, event_time timestamptz, VARIADIC steps "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_transition';
COMMENT ON FUNCTION tidemark_internal.window_funnel_transition(internal, interval, timestamptz, "any") IS 'Support function of window_funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.window_funnel_transition(state internal, win interval, mode text, event_time timestamptz, VARIADIC steps "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_mode_transition';
COMMENT ON FUNCTION tidemark_internal.window_funnel_transition(internal, interval, text, timestamptz, "any") IS 'Support function of window_funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.window_funnel_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_combine';
COMMENT ON FUNCTION tidemark_internal.window_funnel_combine(internal, internal) IS 'Support function of window_funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.window_funnel_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_serialize';
COMMENT ON FUNCTION tidemark_internal.window_funnel_serialize(internal) IS 'Support function of window_funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.window_funnel_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_deserialize';
COMMENT ON FUNCTION tidemark_internal.window_funnel_deserialize(bytea, internal) IS 'Support function of window_funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.window_funnel_final(state internal) RETURNS integer
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_window_funnel_final';
COMMENT ON FUNCTION tidemark_internal.window_funnel_final(internal) IS 'Support function of window_funnel; not for direct use.';

CREATE AGGREGATE tidemark.window_funnel(win interval, event_time timestamptz, VARIADIC steps "any") (
    SFUNC = tidemark_internal.window_funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.window_funnel_final, COMBINEFUNC = tidemark_internal.window_funnel_combine,
    SERIALFUNC = tidemark_internal.window_funnel_serialize, DESERIALFUNC = tidemark_internal.window_funnel_deserialize, PARALLEL = SAFE
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
    FINALFUNC = tidemark_internal.window_funnel_final, COMBINEFUNC = tidemark_internal.window_funnel_combine,
    SERIALFUNC = tidemark_internal.window_funnel_serialize, DESERIALFUNC = tidemark_internal.window_funnel_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.window_funnel(interval, text, timestamptz, "any") IS
'How many steps were reached, as window_funnel(win, event_time, steps), in a
mode. mode: a comma separated list, constant, of strict_deduplication,
strict_order, strict_increase, strict_once and allow_reentry (only with
strict_order), as in ClickHouse; an empty text is the default mode, anything
else an error (22023). Unlike in ClickHouse the answer never depends on the
order of rows or on parallel workers.';
-- Funnels: the aggregate funnel, the times of the deepest chain. Implemented in chains.rs.
-- Conditions are VARIADIC "any", checked to be boolean at run time, for the reason given in funnels.sql.

CREATE FUNCTION tidemark_internal.funnel_transition(state internal, win interval, event_time timestamptz, VARIADIC steps "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_transition';
COMMENT ON FUNCTION tidemark_internal.funnel_transition(internal, interval, timestamptz, "any") IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_transition(state internal, win interval, mode text, event_time timestamptz, VARIADIC steps "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_mode_transition';
COMMENT ON FUNCTION tidemark_internal.funnel_transition(internal, interval, text, timestamptz, "any") IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_transition(state internal, win interval, event_time timestamptz, event_type text, steps text[]) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_names_transition';
COMMENT ON FUNCTION tidemark_internal.funnel_transition(internal, interval, timestamptz, text, text[]) IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_transition(state internal, win interval, mode text, event_time timestamptz, event_type text, steps text[]) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_funnel_mode_names_transition';
COMMENT ON FUNCTION tidemark_internal.funnel_transition(internal, interval, text, timestamptz, text, text[]) IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_combine';
COMMENT ON FUNCTION tidemark_internal.funnel_combine(internal, internal) IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_serialize';
COMMENT ON FUNCTION tidemark_internal.funnel_serialize(internal) IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_deserialize';
COMMENT ON FUNCTION tidemark_internal.funnel_deserialize(bytea, internal) IS 'Support function of funnel; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_final(state internal) RETURNS timestamptz[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_final';
COMMENT ON FUNCTION tidemark_internal.funnel_final(internal) IS 'Support function of funnel; not for direct use.';

CREATE AGGREGATE tidemark.funnel(win interval, event_time timestamptz, VARIADIC steps "any") (
    SFUNC = tidemark_internal.funnel_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.funnel_final, COMBINEFUNC = tidemark_internal.funnel_combine,
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize, PARALLEL = SAFE
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
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize, PARALLEL = SAFE
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
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize, PARALLEL = SAFE
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
    SERIALFUNC = tidemark_internal.funnel_serialize, DESERIALFUNC = tidemark_internal.funnel_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel(interval, text, timestamptz, text, text[]) IS
'As funnel(win, mode, event_time, VARIADIC steps) with steps by name; see
funnel(win, event_time, event_type, steps). N in a mode counts the names.';
-- Funnels: funnel_stats and funnel_table, figures over many persons. Implemented in funnel_stats.rs.

CREATE TYPE tidemark.funnel_stats;
CREATE FUNCTION tidemark_internal.funnel_stats_in(cstring) RETURNS tidemark.funnel_stats
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_in';
CREATE FUNCTION tidemark_internal.funnel_stats_out(tidemark.funnel_stats) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_out';
CREATE FUNCTION tidemark_internal.funnel_stats_recv(internal) RETURNS tidemark.funnel_stats
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_recv';
CREATE FUNCTION tidemark_internal.funnel_stats_send(tidemark.funnel_stats) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_send';
CREATE TYPE tidemark.funnel_stats (
    INPUT = tidemark_internal.funnel_stats_in, OUTPUT = tidemark_internal.funnel_stats_out, RECEIVE = tidemark_internal.funnel_stats_recv, SEND = tidemark_internal.funnel_stats_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
);
COMMENT ON TYPE tidemark.funnel_stats IS
'Figures of a funnel over many persons: how many reached each step and how
long it took them; mergeable, some KB at most per step. Equal multisets of
chains give equal bytes under any plan. Text form: bytea hex. Do not put it
before a BI tool: show funnel_table().';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_in(cstring) IS
'Text input of funnel_stats: \x and hexadecimal digits; bytes that are no
valid figures are refused (22P02).';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_out(tidemark.funnel_stats) IS 'Text output of funnel_stats: \x and hexadecimal digits.';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_recv(internal) IS
'Binary input of funnel_stats: its stored bytes; anything else is refused
(22P03).';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_send(tidemark.funnel_stats) IS 'Binary output of funnel_stats: its stored bytes.';

CREATE FUNCTION tidemark_internal.funnel_stats_from_bytea(bytea) RETURNS tidemark.funnel_stats
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_from_bytea';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_from_bytea(bytea) IS
'Reads the bytes of stored figures; bytes that are not valid are refused
(22P03).';
CREATE CAST (bytea AS tidemark.funnel_stats) WITH FUNCTION tidemark_internal.funnel_stats_from_bytea(bytea);
COMMENT ON CAST (bytea AS tidemark.funnel_stats) IS 'Reads and checks the bytes of stored figures.';
CREATE CAST (tidemark.funnel_stats AS bytea) WITHOUT FUNCTION;
COMMENT ON CAST (tidemark.funnel_stats AS bytea) IS 'The bytes of the figures.';

CREATE FUNCTION tidemark_internal.funnel_stats_transition(state internal, chain timestamptz[], steps integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_transition';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_transition(internal, timestamptz[], integer) IS 'Support function of funnel_stats; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_stats_union_transition(state internal, stats tidemark.funnel_stats) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_union_transition';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_union_transition(internal, tidemark.funnel_stats) IS 'Support function of funnel_stats_union_agg; not for direct use.';

CREATE FUNCTION tidemark_internal.funnel_stats_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_combine';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_combine(internal, internal) IS
'Support function of funnel_stats and funnel_stats_union_agg; not for direct
use.';

CREATE FUNCTION tidemark_internal.funnel_stats_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_serialize';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_serialize(internal) IS
'Support function of funnel_stats and funnel_stats_union_agg; not for direct
use.';

CREATE FUNCTION tidemark_internal.funnel_stats_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_deserialize';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_deserialize(bytea, internal) IS
'Support function of funnel_stats and funnel_stats_union_agg; not for direct
use.';

CREATE FUNCTION tidemark_internal.funnel_stats_final(state internal) RETURNS tidemark.funnel_stats
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_funnel_stats_final';
COMMENT ON FUNCTION tidemark_internal.funnel_stats_final(internal) IS
'Support function of funnel_stats and funnel_stats_union_agg; not for direct
use.';

CREATE AGGREGATE tidemark.funnel_stats(chain timestamptz[], steps integer) (
    SFUNC = tidemark_internal.funnel_stats_transition, STYPE = internal, SSPACE = 4096,
    FINALFUNC = tidemark_internal.funnel_stats_final, COMBINEFUNC = tidemark_internal.funnel_stats_combine,
    SERIALFUNC = tidemark_internal.funnel_stats_serialize, DESERIALFUNC = tidemark_internal.funnel_stats_deserialize, PARALLEL = SAFE
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
    SERIALFUNC = tidemark_internal.funnel_stats_serialize, DESERIALFUNC = tidemark_internal.funnel_stats_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.funnel_stats_union_agg(tidemark.funnel_stats) IS
'The sum of the figures of a group (daily rollups to a month): equal in bytes
to figures over all their chains. Different numbers of steps are an error
(22023). NULLs are skipped; no rows give NULL.';

CREATE FUNCTION tidemark.funnel_table(stats tidemark.funnel_stats, names text[] DEFAULT NULL)
RETURNS TABLE (step integer, name text, entered bigint, pct_of_first numeric, pct_of_previous numeric, median_seconds numeric, avg_seconds numeric)
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 ROWS 5 AS 'MODULE_PATHNAME', 'tidemark_funnel_table_wrapper';
COMMENT ON FUNCTION tidemark.funnel_table(tidemark.funnel_stats, text[]) IS
'The figures of a funnel as rows, one a step, in order. name: from names,
otherwise ''step N''. entered: the persons who reached the step. pct_of_first,
pct_of_previous: they in percent of step 1 and of the step before, to 2
decimals; NULL where that is 0, and for step 1; above 100 behind an optional
step that many left out. median_seconds, avg_seconds: since the step reached
before, to 3 decimals; NULL for step 1 and where nobody came. The average is
exact, the median exact up to 1000 persons and within 1 % beyond. More names
than steps are an error (22023). NULL figures give no rows.';
-- Sequences: patterns over the ordered events of a person. Implemented in sequences.rs.
-- Conditions are VARIADIC "any" and checked to be boolean at run time, as in funnels.sql.

CREATE FUNCTION tidemark_internal.sequence_transition(state internal, pattern text, event_time timestamptz, VARIADIC conditions "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_sequence_transition';
COMMENT ON FUNCTION tidemark_internal.sequence_transition(internal, text, timestamptz, "any") IS 'Support function of sequence_match and sequence_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_sequence_combine';
COMMENT ON FUNCTION tidemark_internal.sequence_combine(internal, internal) IS 'Support function of sequence_match and sequence_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_sequence_serialize';
COMMENT ON FUNCTION tidemark_internal.sequence_serialize(internal) IS 'Support function of sequence_match and sequence_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_sequence_deserialize';
COMMENT ON FUNCTION tidemark_internal.sequence_deserialize(bytea, internal) IS 'Support function of sequence_match and sequence_count; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_match_final(state internal) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_sequence_match_final';
COMMENT ON FUNCTION tidemark_internal.sequence_match_final(internal) IS 'Support function of sequence_match; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_count_final(state internal) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_sequence_count_final';
COMMENT ON FUNCTION tidemark_internal.sequence_count_final(internal) IS 'Support function of sequence_count; not for direct use.';

CREATE AGGREGATE tidemark.sequence_match(pattern text, event_time timestamptz, VARIADIC conditions "any") (
    SFUNC = tidemark_internal.sequence_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.sequence_match_final, COMBINEFUNC = tidemark_internal.sequence_combine,
    SERIALFUNC = tidemark_internal.sequence_serialize, DESERIALFUNC = tidemark_internal.sequence_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.sequence_match(text, timestamptz, "any") IS
'Whether the events of a group (GROUP BY person) contain a pattern over 1 to
32 boolean conditions: (?N) an event on which condition N is true, . any
event, .* any number of events, (?t<=30m) a limit on the time since the
previous event (also <, >=, >, ==; seconds without a unit, else us, ms, s,
m, h, d, w). Beyond ClickHouse''s sequenceMatch: (?N|M) either condition,
(?N)? an optional event, (?!N) no such event since the previous item, ^ and
$ the first and last event. Events on which no condition is true are
invisible to the pattern; events at the same time are ordered by their
conditions, so the answer never depends on the order of rows. A NULL
condition is false, a NULL event_time is skipped, no rows give false.
pattern must be constant; an error in it (22023) names its position. Linear
in the number of events, 16 bytes for each.';

CREATE AGGREGATE tidemark.sequence_count(pattern text, event_time timestamptz, VARIADIC conditions "any") (
    SFUNC = tidemark_internal.sequence_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.sequence_count_final, COMBINEFUNC = tidemark_internal.sequence_combine,
    SERIALFUNC = tidemark_internal.sequence_serialize, DESERIALFUNC = tidemark_internal.sequence_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.sequence_count(text, timestamptz, "any") IS
'How often the events of a group (GROUP BY person) contain a pattern, without
overlap: the match that ends first counts, and the search goes on behind it.
Patterns and rules as in tidemark.sequence_match; no rows give 0.';

CREATE FUNCTION tidemark_internal.sequence_next_node_transition(state internal, direction text, base text, event_time timestamptz, value text, base_cond boolean, VARIADIC conditions "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_next_node_transition';
COMMENT ON FUNCTION tidemark_internal.sequence_next_node_transition(internal, text, text, timestamptz, text, boolean, "any") IS 'Support function of sequence_next_node; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_next_node_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_next_node_combine';
COMMENT ON FUNCTION tidemark_internal.sequence_next_node_combine(internal, internal) IS 'Support function of sequence_next_node; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_next_node_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_next_node_serialize';
COMMENT ON FUNCTION tidemark_internal.sequence_next_node_serialize(internal) IS 'Support function of sequence_next_node; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_next_node_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_next_node_deserialize';
COMMENT ON FUNCTION tidemark_internal.sequence_next_node_deserialize(bytea, internal) IS 'Support function of sequence_next_node; not for direct use.';

CREATE FUNCTION tidemark_internal.sequence_next_node_final(state internal) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_next_node_final';
COMMENT ON FUNCTION tidemark_internal.sequence_next_node_final(internal) IS 'Support function of sequence_next_node; not for direct use.';

CREATE AGGREGATE tidemark.sequence_next_node(direction text, base text, event_time timestamptz, value text, base_cond boolean, VARIADIC conditions "any") (
    SFUNC = tidemark_internal.sequence_next_node_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.sequence_next_node_final, COMBINEFUNC = tidemark_internal.sequence_next_node_combine,
    SERIALFUNC = tidemark_internal.sequence_next_node_serialize, DESERIALFUNC = tidemark_internal.sequence_next_node_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.sequence_next_node(text, text, timestamptz, text, boolean, "any") IS
'The value of the event next to a chain of events in a group (GROUP BY
person), for path analysis, as ClickHouse''s sequenceNextNode. direction:
forward or backward. base: which event starts the chain: head (first) or
tail (last), which must satisfy base_cond, or first_match or last_match: the
first or last event that satisfies base_cond and condition 1. From there on
conditions 1, 2, ... (at most 32) must be true on one event after the other;
the answer is the value of the event behind those, NULL if the chain breaks
or ends there. Only one base is tried. Events are ordered by time, then
value (bytewise). A NULL condition is false; rows with a NULL event_time or
value are skipped; no rows give NULL. direction and base must be constant;
unknown ones, forward from tail and backward from head are errors (22023).';
-- Retention: who came back, per condition and per cohort. Implemented in retention.rs.

CREATE TYPE tidemark.cohort_member AS (
    cohort date,
    retained boolean[]
);
COMMENT ON TYPE tidemark.cohort_member IS
'A person in a cohort, as tidemark.cohort_member(...) finds it: the cohort
and, for each period since, whether the person came back.';
COMMENT ON COLUMN tidemark.cohort_member.cohort IS 'First UTC day of the calendar period (day, week from Monday, month, quarter) in which the person started.';
COMMENT ON COLUMN tidemark.cohort_member.retained IS 'Element 1 is period 0, the start itself, and always true; element k + 1 says whether the person returned in period k, NULL while that period is incomplete.';

CREATE FUNCTION tidemark_internal.retention_transition(state internal, VARIADIC conditions "any") RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_retention_transition';
COMMENT ON FUNCTION tidemark_internal.retention_transition(internal, "any") IS 'Support function of retention; not for direct use.';

CREATE FUNCTION tidemark_internal.retention_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_retention_combine';
COMMENT ON FUNCTION tidemark_internal.retention_combine(internal, internal) IS 'Support function of retention; not for direct use.';

CREATE FUNCTION tidemark_internal.retention_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_retention_serialize';
COMMENT ON FUNCTION tidemark_internal.retention_serialize(internal) IS 'Support function of retention; not for direct use.';

CREATE FUNCTION tidemark_internal.retention_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_retention_deserialize';
COMMENT ON FUNCTION tidemark_internal.retention_deserialize(bytea, internal) IS 'Support function of retention; not for direct use.';

CREATE FUNCTION tidemark_internal.retention_final(state internal) RETURNS boolean[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_retention_final';
COMMENT ON FUNCTION tidemark_internal.retention_final(internal) IS 'Support function of retention; not for direct use.';

CREATE AGGREGATE tidemark.retention(VARIADIC conditions "any") (
    SFUNC = tidemark_internal.retention_transition, STYPE = internal, SSPACE = 64,
    FINALFUNC = tidemark_internal.retention_final, COMBINEFUNC = tidemark_internal.retention_combine,
    SERIALFUNC = tidemark_internal.retention_serialize, DESERIALFUNC = tidemark_internal.retention_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.retention("any") IS
'Which of 1 to 32 boolean conditions the rows of a group (GROUP BY person)
met together with the first one. As ClickHouse''s retention: element 1 is
true if condition 1 was true on any row, element i if condition 1 and
condition i both were, on whatever rows. The order of time is not looked at.
A NULL condition is false; no rows give {}.';

CREATE FUNCTION tidemark_internal.cohort_member_transition(state internal, period text, mode text, periods integer, as_of timestamptz, event_time timestamptz, is_start boolean, is_return boolean) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_transition';
COMMENT ON FUNCTION tidemark_internal.cohort_member_transition(internal, text, text, integer, timestamptz, timestamptz, boolean, boolean) IS 'Support function of cohort_member; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_member_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_combine';
COMMENT ON FUNCTION tidemark_internal.cohort_member_combine(internal, internal) IS 'Support function of cohort_member; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_member_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_serialize';
COMMENT ON FUNCTION tidemark_internal.cohort_member_serialize(internal) IS 'Support function of cohort_member; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_member_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_deserialize';
COMMENT ON FUNCTION tidemark_internal.cohort_member_deserialize(bytea, internal) IS 'Support function of cohort_member; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_member_final(state internal) RETURNS tidemark.cohort_member[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_cohort_member_final';
COMMENT ON FUNCTION tidemark_internal.cohort_member_final(internal) IS 'Support function of cohort_member; not for direct use.';

CREATE AGGREGATE tidemark.cohort_member(period text, mode text, periods integer, as_of timestamptz, event_time timestamptz, is_start boolean, is_return boolean) (
    SFUNC = tidemark_internal.cohort_member_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.cohort_member_final, COMBINEFUNC = tidemark_internal.cohort_member_combine,
    SERIALFUNC = tidemark_internal.cohort_member_serialize, DESERIALFUNC = tidemark_internal.cohort_member_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.cohort_member(text, text, integer, timestamptz, timestamptz, boolean, boolean) IS
'The cohorts that a person belongs to (GROUP BY person), ordered by cohort,
each with the periods in which the person came back; read with unnest.
period: day, week, month or quarter (UTC). mode: a comma separated list,
empty for the defaults: on (default: back in that period) or on_or_after;
first_time (default: the person''s earliest start) or recurring (every period
with a start is a cohort); calendar (default) or rolling periods from the
person''s own start, of 1, 7, 30 or 90 days or rolling=DAYS. periods: how
many, period 0 included, 1 to 1000. as_of: events from then on are ignored,
and a period that ends after it is NULL, not false; usually now() or
tidemark.watermark(...). is_start, is_return: whether a row starts a person,
and counts as coming back. A NULL condition is false, a NULL event_time is
skipped, no start gives {}. The first four must be constant and not NULL;
unknown words are errors (22023). For first_time do not cut the rows to a
range: the start would move.';

CREATE FUNCTION tidemark_internal.cohort_retention_transition(state internal, retained boolean[]) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_transition';
COMMENT ON FUNCTION tidemark_internal.cohort_retention_transition(internal, boolean[]) IS 'Support function of cohort_retention; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_retention_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_combine';
COMMENT ON FUNCTION tidemark_internal.cohort_retention_combine(internal, internal) IS 'Support function of cohort_retention; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_retention_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_serialize';
COMMENT ON FUNCTION tidemark_internal.cohort_retention_serialize(internal) IS 'Support function of cohort_retention; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_retention_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_deserialize';
COMMENT ON FUNCTION tidemark_internal.cohort_retention_deserialize(bytea, internal) IS 'Support function of cohort_retention; not for direct use.';

CREATE FUNCTION tidemark_internal.cohort_retention_final(state internal) RETURNS bigint[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_cohort_retention_final';
COMMENT ON FUNCTION tidemark_internal.cohort_retention_final(internal) IS 'Support function of cohort_retention; not for direct use.';

CREATE AGGREGATE tidemark.cohort_retention(retained boolean[]) (
    SFUNC = tidemark_internal.cohort_retention_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.cohort_retention_final, COMBINEFUNC = tidemark_internal.cohort_retention_combine,
    SERIALFUNC = tidemark_internal.cohort_retention_serialize, DESERIALFUNC = tidemark_internal.cohort_retention_deserialize, PARALLEL = SAFE
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
RETURNS TABLE (period integer, persons bigint, pct numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10 ROWS 10
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
-- Attribution: first and last touch, and the channel of a visit. Implemented in attribution.rs.
-- The state is internal and the result polymorphic, so the final function gets the aggregate's arguments too
-- (FINALFUNC_EXTRA), which tells Postgres its result type.

CREATE FUNCTION tidemark_internal.first_transition(state internal, value anyelement, event_time timestamptz) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_first_transition';
COMMENT ON FUNCTION tidemark_internal.first_transition(internal, anyelement, timestamptz) IS 'Support function of first; not for direct use.';

CREATE FUNCTION tidemark_internal.first_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_first_combine';
COMMENT ON FUNCTION tidemark_internal.first_combine(internal, internal) IS 'Support function of first; not for direct use.';

CREATE FUNCTION tidemark_internal.last_transition(state internal, value anyelement, event_time timestamptz) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_last_transition';
COMMENT ON FUNCTION tidemark_internal.last_transition(internal, anyelement, timestamptz) IS 'Support function of last; not for direct use.';

CREATE FUNCTION tidemark_internal.last_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_last_combine';
COMMENT ON FUNCTION tidemark_internal.last_combine(internal, internal) IS 'Support function of last; not for direct use.';

CREATE FUNCTION tidemark_internal.touch_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_touch_serialize';
COMMENT ON FUNCTION tidemark_internal.touch_serialize(internal) IS 'Support function of first and last; not for direct use.';

CREATE FUNCTION tidemark_internal.touch_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_touch_deserialize';
COMMENT ON FUNCTION tidemark_internal.touch_deserialize(bytea, internal) IS 'Support function of first and last; not for direct use.';

CREATE FUNCTION tidemark_internal.touch_final(state internal, value anyelement, event_time timestamptz) RETURNS anyelement
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_touch_final';
COMMENT ON FUNCTION tidemark_internal.touch_final(internal, anyelement, timestamptz) IS 'Support function of first and last; not for direct use.';

CREATE AGGREGATE tidemark.first(value anyelement, event_time timestamptz) (
    SFUNC = tidemark_internal.first_transition, STYPE = internal, SSPACE = 64,
    FINALFUNC = tidemark_internal.touch_final, FINALFUNC_EXTRA, COMBINEFUNC = tidemark_internal.first_combine,
    SERIALFUNC = tidemark_internal.touch_serialize, DESERIALFUNC = tidemark_internal.touch_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.first(anyelement, timestamptz) IS
'The value at the earliest event_time in a group: the first touch, whatever
the order of rows. Rows with a NULL value or event_time are ignored, so it
is the first known value; nothing left gives NULL. Of several values at that
time the smallest wins, in the default order of the type and its collation;
values that are equal there, or of a type without an order (json, point),
are compared by their text form, bytewise.';

CREATE AGGREGATE tidemark.last(value anyelement, event_time timestamptz) (
    SFUNC = tidemark_internal.last_transition, STYPE = internal, SSPACE = 64,
    FINALFUNC = tidemark_internal.touch_final, FINALFUNC_EXTRA, COMBINEFUNC = tidemark_internal.last_combine,
    SERIALFUNC = tidemark_internal.touch_serialize, DESERIALFUNC = tidemark_internal.touch_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.last(anyelement, timestamptz) IS
'The value at the latest event_time in a group: the last touch, whatever the
order of rows. Rows with a NULL value or event_time are ignored, so it is
the last known value; nothing left gives NULL. Of several values at that
time the greatest wins, in the default order of the type and its collation;
values that are equal there, or of a type without an order (json, point),
are compared by their text form, bytewise. See tidemark.first.';

CREATE FUNCTION tidemark.channel_group(utm_source text, utm_medium text, utm_campaign text, referrer_host text, click_id text) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_channel_group';
COMMENT ON FUNCTION tidemark.channel_group(text, text, text, text, text) IS
'The marketing channel of a visit, by rules in the order of Google Analytics
4; never NULL. One of Cross Network, Paid Search, Paid Social, Paid Video,
Paid Shopping, Paid Other, Display, Direct, Organic Search, Organic Social,
Organic Video, Organic Shopping, Email, SMS, Push, Audio, Affiliates,
Referral and Unknown. Any argument may be NULL or empty. referrer_host: host
of the referring page, NULL for the own site. click_id: name of the URL
parameter that marks a click on an advertisement (gclid, fbclid, ...),
optionally with =value. Case and blanks around a text do not matter.';
-- Distinct counts: type hll (HLL storage spec v1.0.0), its aggregates and functions. Implemented in hll.rs.

CREATE TYPE tidemark.hll;
CREATE FUNCTION tidemark_internal.hll_in(cstring) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_in';
CREATE FUNCTION tidemark_internal.hll_out(tidemark.hll) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_out';
CREATE FUNCTION tidemark_internal.hll_recv(internal) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_recv';
CREATE FUNCTION tidemark_internal.hll_send(tidemark.hll) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_hll_send';
CREATE TYPE tidemark.hll (
    INPUT = tidemark_internal.hll_in, OUTPUT = tidemark_internal.hll_out, RECEIVE = tidemark_internal.hll_recv, SEND = tidemark_internal.hll_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
);
COMMENT ON TYPE tidemark.hll IS
'A HyperLogLog sketch: a mergeable distinct count of a few KB at most. Its
bytes are the HLL storage spec v1.0.0, which postgresql-hll, java-hll and
js-hll read; equal sets of values give equal bytes under any plan. Text
form: bytea hex. Do not put it before a BI tool: show hll_cardinality().';
COMMENT ON FUNCTION tidemark_internal.hll_in(cstring) IS
'Text input of hll: \x and hexadecimal digits; bytes that are no valid sketch
are refused (22P02).';
COMMENT ON FUNCTION tidemark_internal.hll_out(tidemark.hll) IS 'Text output of hll: \x and hexadecimal digits.';
COMMENT ON FUNCTION tidemark_internal.hll_recv(internal) IS
'Binary input of hll: the bytes of the storage spec; anything else is refused
(22P03).';
COMMENT ON FUNCTION tidemark_internal.hll_send(tidemark.hll) IS 'Binary output of hll: the bytes of the storage spec.';

CREATE FUNCTION tidemark_internal.hll_from_bytea(bytea) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_from_bytea';
COMMENT ON FUNCTION tidemark_internal.hll_from_bytea(bytea) IS
'Reads the bytes of a stored sketch (HLL storage spec v1.0.0); bytes that are
no valid sketch are refused (22P03).';
CREATE CAST (bytea AS tidemark.hll) WITH FUNCTION tidemark_internal.hll_from_bytea(bytea);
COMMENT ON CAST (bytea AS tidemark.hll) IS 'Reads and checks the bytes of a stored sketch.';
CREATE CAST (tidemark.hll AS bytea) WITHOUT FUNCTION;
COMMENT ON CAST (tidemark.hll AS bytea) IS 'The bytes of the sketch, readable by postgresql-hll, java-hll and js-hll.';

CREATE FUNCTION tidemark.hll_cardinality(sketch tidemark.hll) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_cardinality';
COMMENT ON FUNCTION tidemark.hll_cardinality(tidemark.hll) IS
'The estimated number of distinct values, rounded: exact up to 128 values,
beyond that with a standard error of 1.04/sqrt(2^log2m) (0.81 % at the
default 14). Ertl''s improved raw estimator (arXiv 1702.01284). NULL for
NULL.';
CREATE OPERATOR tidemark.# (RIGHTARG = tidemark.hll, FUNCTION = tidemark.hll_cardinality);
COMMENT ON OPERATOR tidemark.# (NONE, tidemark.hll) IS 'The estimated number of distinct values; the same as hll_cardinality.';

CREATE FUNCTION tidemark.hll_standard_error(sketch tidemark.hll) RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_standard_error';
COMMENT ON FUNCTION tidemark.hll_standard_error(tidemark.hll) IS
'The relative standard error of hll_cardinality as a fraction: 0 while the
sketch is exact, 1.04/sqrt(2^log2m) beyond. NULL for NULL.';

CREATE FUNCTION tidemark.hll_union(a tidemark.hll, b tidemark.hll) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_union';
COMMENT ON FUNCTION tidemark.hll_union(tidemark.hll, tidemark.hll) IS
'The sketch of the union of two sets: equal in bytes to a sketch built from
all their values. Different log2m fold to the smaller, different register
widths to the narrower. NULL and empty sketches change nothing; two NULLs
give NULL.';
CREATE OPERATOR tidemark.|| (LEFTARG = tidemark.hll, RIGHTARG = tidemark.hll, FUNCTION = tidemark.hll_union, COMMUTATOR = OPERATOR(tidemark.||));
COMMENT ON OPERATOR tidemark.|| (tidemark.hll, tidemark.hll) IS 'The sketch of the union; the same as hll_union.';

CREATE FUNCTION tidemark.hll_empty() RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_hll_empty';
COMMENT ON FUNCTION tidemark.hll_empty() IS 'The sketch of no values, with the default log2m of 14.';
CREATE FUNCTION tidemark.hll_empty(log2m integer) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_hll_empty';
COMMENT ON FUNCTION tidemark.hll_empty(integer) IS
'The sketch of no values, with the given log2m (4 to 17; anything else is an
error, 22023).';

CREATE FUNCTION tidemark_internal.hll_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_combine';
COMMENT ON FUNCTION tidemark_internal.hll_combine(internal, internal) IS 'Support function of the hll aggregates; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_serialize';
COMMENT ON FUNCTION tidemark_internal.hll_serialize(internal) IS 'Support function of the hll aggregates; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_hll_deserialize';
COMMENT ON FUNCTION tidemark_internal.hll_deserialize(bytea, internal) IS 'Support function of the hll aggregates; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_final(state internal) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_final';
COMMENT ON FUNCTION tidemark_internal.hll_final(internal) IS 'Support function of hll_agg and hll_union_agg; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_count_final(state internal) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_count_final';
COMMENT ON FUNCTION tidemark_internal.hll_count_final(internal) IS 'Support function of approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_union_transition(state internal, sketch tidemark.hll) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_hll_union_transition';
COMMENT ON FUNCTION tidemark_internal.hll_union_transition(internal, tidemark.hll) IS 'Support function of hll_union_agg; not for direct use.';

CREATE AGGREGATE tidemark.hll_union_agg(sketch tidemark.hll) (
    SFUNC = tidemark_internal.hll_union_transition, STYPE = internal, SSPACE = 4096,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_union_agg(tidemark.hll) IS
'The union of all sketches of a group, for example of daily ones into a week:
equal in bytes to one sketch built from all values. NULLs are skipped; no
rows give the empty sketch. Sketches of different log2m fold to the
smallest.';


CREATE FUNCTION tidemark_internal.hll_transition(state internal, value text) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_bytes';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, text) IS 'Support function of hll_agg and approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_transition(state internal, value text, log2m integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_bytes';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, text, integer) IS 'Support function of hll_agg; not for direct use.';
CREATE AGGREGATE tidemark.hll_agg(value text) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(text) IS
'A sketch of the distinct values of a group (log2m 14, at most 12 KB,
standard error 0.81 %, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values.';
CREATE AGGREGATE tidemark.hll_agg(value text, log2m integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(text, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.75 * 2^log2m bytes. Otherwise as hll_agg(value).';
CREATE AGGREGATE tidemark.approx_count_distinct(value text) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_count_distinct(text) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %. NULLs are skipped; no rows give 0.';

CREATE FUNCTION tidemark_internal.hll_transition(state internal, value bytea) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_bytes';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, bytea) IS 'Support function of hll_agg and approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_transition(state internal, value bytea, log2m integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_bytes';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, bytea, integer) IS 'Support function of hll_agg; not for direct use.';
CREATE AGGREGATE tidemark.hll_agg(value bytea) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(bytea) IS
'A sketch of the distinct values of a group (log2m 14, at most 12 KB,
standard error 0.81 %, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values.';
CREATE AGGREGATE tidemark.hll_agg(value bytea, log2m integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(bytea, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.75 * 2^log2m bytes. Otherwise as hll_agg(value).';
CREATE AGGREGATE tidemark.approx_count_distinct(value bytea) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_count_distinct(bytea) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %. NULLs are skipped; no rows give 0.';

CREATE FUNCTION tidemark_internal.hll_transition(state internal, value smallint) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_int2';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, smallint) IS 'Support function of hll_agg and approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_transition(state internal, value smallint, log2m integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_int2';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, smallint, integer) IS 'Support function of hll_agg; not for direct use.';
CREATE AGGREGATE tidemark.hll_agg(value smallint) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(smallint) IS
'A sketch of the distinct values of a group (log2m 14, at most 12 KB,
standard error 0.81 %, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values.';
CREATE AGGREGATE tidemark.hll_agg(value smallint, log2m integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(smallint, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.75 * 2^log2m bytes. Otherwise as hll_agg(value).';
CREATE AGGREGATE tidemark.approx_count_distinct(value smallint) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_count_distinct(smallint) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %. NULLs are skipped; no rows give 0.';

CREATE FUNCTION tidemark_internal.hll_transition(state internal, value integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_int4';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, integer) IS 'Support function of hll_agg and approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_transition(state internal, value integer, log2m integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_int4';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, integer, integer) IS 'Support function of hll_agg; not for direct use.';
CREATE AGGREGATE tidemark.hll_agg(value integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(integer) IS
'A sketch of the distinct values of a group (log2m 14, at most 12 KB,
standard error 0.81 %, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values.';
CREATE AGGREGATE tidemark.hll_agg(value integer, log2m integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(integer, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.75 * 2^log2m bytes. Otherwise as hll_agg(value).';
CREATE AGGREGATE tidemark.approx_count_distinct(value integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_count_distinct(integer) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %. NULLs are skipped; no rows give 0.';

CREATE FUNCTION tidemark_internal.hll_transition(state internal, value bigint) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_int8';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, bigint) IS 'Support function of hll_agg and approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_transition(state internal, value bigint, log2m integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_int8';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, bigint, integer) IS 'Support function of hll_agg; not for direct use.';
CREATE AGGREGATE tidemark.hll_agg(value bigint) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(bigint) IS
'A sketch of the distinct values of a group (log2m 14, at most 12 KB,
standard error 0.81 %, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values.';
CREATE AGGREGATE tidemark.hll_agg(value bigint, log2m integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(bigint, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.75 * 2^log2m bytes. Otherwise as hll_agg(value).';
CREATE AGGREGATE tidemark.approx_count_distinct(value bigint) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_count_distinct(bigint) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %. NULLs are skipped; no rows give 0.';

CREATE FUNCTION tidemark_internal.hll_transition(state internal, value uuid) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_uuid';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, uuid) IS 'Support function of hll_agg and approx_count_distinct; not for direct use.';
CREATE FUNCTION tidemark_internal.hll_transition(state internal, value uuid, log2m integer) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_uuid';
COMMENT ON FUNCTION tidemark_internal.hll_transition(internal, uuid, integer) IS 'Support function of hll_agg; not for direct use.';
CREATE AGGREGATE tidemark.hll_agg(value uuid) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(uuid) IS
'A sketch of the distinct values of a group (log2m 14, at most 12 KB,
standard error 0.81 %, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values.';
CREATE AGGREGATE tidemark.hll_agg(value uuid, log2m integer) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.hll_agg(uuid, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.75 * 2^log2m bytes. Otherwise as hll_agg(value).';
CREATE AGGREGATE tidemark.approx_count_distinct(value uuid) (
    SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
    FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
    SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_count_distinct(uuid) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %. NULLs are skipped; no rows give 0.';
-- Quantiles: the type ddsketch, its aggregates and functions. Implemented in ddsketch.rs.

CREATE TYPE tidemark.ddsketch;
CREATE FUNCTION tidemark_internal.ddsketch_in(cstring) RETURNS tidemark.ddsketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_in';
CREATE FUNCTION tidemark_internal.ddsketch_out(tidemark.ddsketch) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_out';
CREATE FUNCTION tidemark_internal.ddsketch_recv(internal) RETURNS tidemark.ddsketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_recv';
CREATE FUNCTION tidemark_internal.ddsketch_send(tidemark.ddsketch) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_send';
CREATE TYPE tidemark.ddsketch (
    INPUT = tidemark_internal.ddsketch_in, OUTPUT = tidemark_internal.ddsketch_out, RECEIVE = tidemark_internal.ddsketch_recv, SEND = tidemark_internal.ddsketch_send,
    INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
);
COMMENT ON TYPE tidemark.ddsketch IS
'A quantile sketch with a bounded relative error (DDSketch): a mergeable
distribution of at most about 20 KB, usually some hundred bytes. Equal
multisets of values give equal bytes under any plan. Text form: bytea hex.
Do not put it before a BI tool: show ddsketch_quantile().';
COMMENT ON FUNCTION tidemark_internal.ddsketch_in(cstring) IS
'Text input of ddsketch: \x and hexadecimal digits; bytes that are no valid
sketch are refused (22P02).';
COMMENT ON FUNCTION tidemark_internal.ddsketch_out(tidemark.ddsketch) IS 'Text output of ddsketch: \x and hexadecimal digits.';
COMMENT ON FUNCTION tidemark_internal.ddsketch_recv(internal) IS
'Binary input of ddsketch: its stored bytes; anything else is refused
(22P03).';
COMMENT ON FUNCTION tidemark_internal.ddsketch_send(tidemark.ddsketch) IS 'Binary output of ddsketch: its stored bytes.';

CREATE FUNCTION tidemark_internal.ddsketch_from_bytea(bytea) RETURNS tidemark.ddsketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_from_bytea';
COMMENT ON FUNCTION tidemark_internal.ddsketch_from_bytea(bytea) IS
'Reads the bytes of a stored sketch; bytes that are no valid sketch are
refused (22P03).';
CREATE CAST (bytea AS tidemark.ddsketch) WITH FUNCTION tidemark_internal.ddsketch_from_bytea(bytea);
COMMENT ON CAST (bytea AS tidemark.ddsketch) IS 'Reads and checks the bytes of a stored sketch.';
CREATE CAST (tidemark.ddsketch AS bytea) WITHOUT FUNCTION;
COMMENT ON CAST (tidemark.ddsketch AS bytea) IS 'The bytes of the sketch.';

CREATE FUNCTION tidemark.ddsketch_quantile(sketch tidemark.ddsketch, q double precision) RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_quantile';
COMMENT ON FUNCTION tidemark.ddsketch_quantile(tidemark.ddsketch, double precision) IS
'The q-quantile of the values, q from 0 to 1 (22023 otherwise; 0.5 is the
median): the value of rank floor(q * (n - 1)) in ascending order, within
ddsketch_relative_error; exact for q = 0 (the least) and q = 1 (the
greatest). NULL for a sketch without values and for NULL.';

CREATE FUNCTION tidemark.ddsketch_count(sketch tidemark.ddsketch) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_count';
COMMENT ON FUNCTION tidemark.ddsketch_count(tidemark.ddsketch) IS
'How many values the sketch holds, exactly; 0 for an empty one. NULL for
NULL.';

CREATE FUNCTION tidemark.ddsketch_relative_error(sketch tidemark.ddsketch) RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_relative_error';
COMMENT ON FUNCTION tidemark.ddsketch_relative_error(tidemark.ddsketch) IS
'The greatest relative error of ddsketch_quantile, as a fraction: the one
asked for (default 0.01), or about two, four ... times that when the values
needed more than 2048 buckets. NULL for NULL.';

CREATE FUNCTION tidemark.ddsketch_union(a tidemark.ddsketch, b tidemark.ddsketch) RETURNS tidemark.ddsketch
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_union';
COMMENT ON FUNCTION tidemark.ddsketch_union(tidemark.ddsketch, tidemark.ddsketch) IS
'The sketch of all values of two sketches: equal in bytes to a sketch built
from all their values. Different relative errors are an error (22023) unless
one of them is empty. NULL and empty sketches change nothing; two NULLs give
NULL.';

CREATE FUNCTION tidemark_internal.ddsketch_transition(state internal, value double precision) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_transition';
COMMENT ON FUNCTION tidemark_internal.ddsketch_transition(internal, double precision) IS 'Support function of ddsketch_agg; not for direct use.';

CREATE FUNCTION tidemark_internal.ddsketch_transition(state internal, value double precision, relative_error double precision) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_transition';
COMMENT ON FUNCTION tidemark_internal.ddsketch_transition(internal, double precision, double precision) IS 'Support function of ddsketch_agg; not for direct use.';

CREATE FUNCTION tidemark_internal.approx_percentile_transition(state internal, q double precision, value double precision) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_approx_percentile_transition';
COMMENT ON FUNCTION tidemark_internal.approx_percentile_transition(internal, double precision, double precision) IS 'Support function of approx_percentile; not for direct use.';

CREATE FUNCTION tidemark_internal.ddsketch_union_transition(state internal, sketch tidemark.ddsketch) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_union_transition';
COMMENT ON FUNCTION tidemark_internal.ddsketch_union_transition(internal, tidemark.ddsketch) IS 'Support function of ddsketch_union_agg; not for direct use.';

CREATE FUNCTION tidemark_internal.ddsketch_combine(state internal, other internal) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_combine';
COMMENT ON FUNCTION tidemark_internal.ddsketch_combine(internal, internal) IS 'Support function of the ddsketch aggregates; not for direct use.';

CREATE FUNCTION tidemark_internal.ddsketch_serialize(state internal) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_serialize';
COMMENT ON FUNCTION tidemark_internal.ddsketch_serialize(internal) IS 'Support function of the ddsketch aggregates; not for direct use.';

CREATE FUNCTION tidemark_internal.ddsketch_deserialize(state bytea, unused internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_deserialize';
COMMENT ON FUNCTION tidemark_internal.ddsketch_deserialize(bytea, internal) IS 'Support function of the ddsketch aggregates; not for direct use.';

CREATE FUNCTION tidemark_internal.ddsketch_final(state internal) RETURNS tidemark.ddsketch
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_final';
COMMENT ON FUNCTION tidemark_internal.ddsketch_final(internal) IS 'Support function of ddsketch_agg and ddsketch_union_agg; not for direct use.';

CREATE FUNCTION tidemark_internal.approx_percentile_final(state internal) RETURNS double precision
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_approx_percentile_final';
COMMENT ON FUNCTION tidemark_internal.approx_percentile_final(internal) IS 'Support function of approx_percentile; not for direct use.';

CREATE AGGREGATE tidemark.ddsketch_agg(value double precision) (
    SFUNC = tidemark_internal.ddsketch_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.ddsketch_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.ddsketch_agg(double precision) IS
'A sketch of the values of a group, for quantiles with a relative error of 1
%. Rows need no order. NULLs are skipped; NaN and the infinities are an
error (22023); no rows give the empty sketch.';

CREATE AGGREGATE tidemark.ddsketch_agg(value double precision, relative_error double precision) (
    SFUNC = tidemark_internal.ddsketch_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.ddsketch_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.ddsketch_agg(double precision, double precision) IS
'A sketch of the values of a group, for quantiles with the given relative
error: a whole number of per mille from 0.001 to 0.1 (22023 otherwise),
constant. Otherwise as ddsketch_agg(value).';

CREATE AGGREGATE tidemark.ddsketch_union_agg(sketch tidemark.ddsketch) (
    SFUNC = tidemark_internal.ddsketch_union_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.ddsketch_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.ddsketch_union_agg(tidemark.ddsketch) IS
'The sketch of all values of the sketches of a group (daily rollups to a
month): equal in bytes to a sketch built from all values. Different relative
errors are an error (22023), except of empty sketches. NULLs are skipped; no
rows give the empty sketch.';

CREATE AGGREGATE tidemark.approx_percentile(q double precision, value double precision) (
    SFUNC = tidemark_internal.approx_percentile_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.approx_percentile_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize, PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_percentile(double precision, double precision) IS
'About the q-quantile of the values of a group, q from 0 to 1 (22023
otherwise) and constant: within 1 % of the value of rank floor(q * (n - 1))
in ascending order; exact for the least and the greatest. NULL values are
skipped; NaN and the infinities are an error (22023); no values give NULL.';
-- Daily partitions of tables that are PARTITION BY RANGE on one timestamptz column, with UTC-day bounds: settings,
-- what exists, and how partitions are made. Retention, dry run and the procedure are in retirement.sql.
-- Logic in plpgsql here; maintenance.rs checks the caller's rights and switches to the table's owner.

CREATE TABLE tidemark_internal.partition_config (
    parent regclass PRIMARY KEY,
    premake_days integer NOT NULL CHECK (premake_days BETWEEN 0 AND 366),
    partition_schema name NOT NULL,
    unique_columns name[],
    managed_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    retention_days integer CHECK (retention_days BETWEEN 1 AND 36500),
    retention_action text NOT NULL DEFAULT 'drop' CHECK (retention_action IN ('drop', 'keep')),
    last_success timestamptz,
    last_error text,
    last_error_at timestamptz,
    lock_timeouts bigint NOT NULL DEFAULT 0
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.partition_config', '');
COMMENT ON TABLE tidemark_internal.partition_config IS
'Tables whose partitions tidemark creates and retires, and how the last maintenance went. Written by tidemark.manage_partitions, tidemark.unmanage_partitions and maintenance; everybody may read it, members of the owner of a table may write its row. Dumped with the database.';
COMMENT ON COLUMN tidemark_internal.partition_config.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.partition_config.premake_days IS 'How many days after today (UTC) have a partition ready.';
COMMENT ON COLUMN tidemark_internal.partition_config.partition_schema IS 'Schema in which partitions are created.';
COMMENT ON COLUMN tidemark_internal.partition_config.unique_columns IS 'Columns of a unique index that each partition gets on its own; NULL for none. Unlike a key on the parent it need not contain the partition key.';
COMMENT ON COLUMN tidemark_internal.partition_config.managed_since IS 'When the table was registered.';
COMMENT ON COLUMN tidemark_internal.partition_config.retention_days IS 'Dates more than this many days before today (UTC) are retired; NULL keeps all.';
COMMENT ON COLUMN tidemark_internal.partition_config.retention_action IS 'What becomes of a retired partition: drop, or keep (detached, a table of its own).';
COMMENT ON COLUMN tidemark_internal.partition_config.last_success IS 'When maintenance last did all that was due for this table; NULL if never.';
COMMENT ON COLUMN tidemark_internal.partition_config.last_error IS 'SQLSTATE and message of what failed in the last maintenance; NULL if nothing did.';
COMMENT ON COLUMN tidemark_internal.partition_config.last_error_at IS 'When that was; NULL if nothing failed.';
COMMENT ON COLUMN tidemark_internal.partition_config.lock_timeouts IS 'How often maintenance gave up waiting for a lock on this table, in all.';

-- Settings belong to whoever owns the table, so that no privileged role is needed to manage one. Maintenance reads and
-- writes them as that owner, too.
ALTER TABLE tidemark_internal.partition_config ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.partition_config FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.partition_config
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = parent), 'MEMBER'));
-- A row whose table was dropped is nobody's: every maintainer may remove it.
CREATE POLICY nobodys ON tidemark_internal.partition_config FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.partition_config TO PUBLIC;

CREATE FUNCTION tidemark_internal.partition_bounds(parent regclass)
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, pending boolean)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
BEGIN ATOMIC
    SELECT c.oid::regclass,
           CASE WHEN b.bound[1] = 'MINVALUE' THEN '-infinity'::timestamptz ELSE trim(BOTH '''' FROM b.bound[1])::timestamptz END,
           CASE WHEN b.bound[2] = 'MAXVALUE' THEN 'infinity'::timestamptz ELSE trim(BOTH '''' FROM b.bound[2])::timestamptz END,
           i.inhdetachpending
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL regexp_match(
           pg_get_expr(c.relpartbound, c.oid),
           '^FOR VALUES FROM \((MINVALUE|''[^'']+'')\) TO \((MAXVALUE|''[^'']+'')\)$') AS b(bound)
     WHERE i.inhparent = parent
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark_internal.partition_bounds(regclass) IS
'The partitions of a range-partitioned table by ascending time: from_time
inclusive, to_time exclusive (-infinity and infinity for open ends), and
whether a DETACH CONCURRENTLY of it was begun and not finished. Read from
the catalog without any lock. A DEFAULT partition is not listed.';

CREATE FUNCTION tidemark.partitions(parent regclass)
RETURNS TABLE (partition regclass, from_date date, to_date date, rows_estimate bigint, bytes bigint, state text)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    SELECT b.partition, b.from_time::date, b.to_time::date,
           CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END,
           pg_total_relation_size(c.oid),
           CASE WHEN b.pending THEN 'detach pending' ELSE 'attached' END
      FROM tidemark_internal.partition_bounds(parent) AS b
      JOIN pg_class c ON c.oid = b.partition
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark.partitions(regclass) IS
'The partitions of a range-partitioned table, one a row, by ascending date.
from_date inclusive and to_date exclusive are UTC dates (-infinity and
infinity for open ends); rows_estimate is NULL before the first ANALYZE;
bytes are with indexes and TOAST; state is attached, or detach pending (an
interrupted DETACH CONCURRENTLY). Read from the catalog, never from names. A
table without partitions gives no rows; a DEFAULT partition is not listed.';

CREATE FUNCTION tidemark_internal.check_partitioned(parent regclass) RETURNS name
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key_column name;
BEGIN
    IF parent IS NULL THEN
        RAISE EXCEPTION 'parent must not be NULL' USING ERRCODE = '22004';
    END IF;
    SELECT a.attname INTO key_column
      FROM pg_partitioned_table p
      JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
     WHERE p.partrelid = parent AND p.partstrat = 'r' AND p.partnatts = 1 AND a.atttypid = 'timestamptz'::regtype;
    IF key_column IS NULL THEN
        RAISE EXCEPTION 'parent % is not partitioned by range of one timestamptz column', parent
            USING ERRCODE = '42809', HINT = 'Create it with PARTITION BY RANGE (event_time).';
    END IF;
    RETURN key_column;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_partitioned(regclass) IS
'The name of the column a table is range-partitioned by; an error (42809) if
it is not partitioned by range of one timestamptz column.';

CREATE FUNCTION tidemark_internal.partition_name(parent_name name, day date) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Postgres cuts names at 63 bytes, and with them the date. 10 bytes are for the date, 9 for a hash where it is tight.
    SELECT (CASE WHEN octet_length(parent_name::text) <= 53 THEN parent_name::text
                 ELSE (SELECT left(parent_name::text, max(n)) FROM generate_series(0, 44) AS n WHERE octet_length(left(parent_name::text, n)) <= 44)
                      || '_' || left(md5(parent_name::text), 8)
            END || '_p' || to_char(day, 'YYYYMMDD'))::name;
END;
COMMENT ON FUNCTION tidemark_internal.partition_name(name, date) IS
'The name of the partition of a date: that of the table, _p and the date as
YYYYMMDD; at most 63 bytes, a longer table name is cut and gets a hash.';

CREATE FUNCTION tidemark_internal.partition_sql(parent regclass, day date, filled boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    from_time timestamptz := day::timestamptz;
    to_time timestamptz := (day + 1)::timestamptz;
    table_of record;
    config tidemark_internal.partition_config;
    neighbour regclass;
    options text;
    child text;
    statements text[];
BEGIN
    SELECT c.relname, n.nspname, c.relreplident, t.spcname, a.amname INTO table_of
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
      LEFT JOIN pg_am a ON a.oid = c.relam
     WHERE c.oid = parent;
    SELECT * INTO config FROM tidemark_internal.partition_config p WHERE p.parent = partition_sql.parent;
    child := format('%I.%I', coalesce(config.partition_schema, table_of.nspname), tidemark_internal.partition_name(table_of.relname, day));

    -- An identity belongs to the parent: its values come from there, and newer servers refuse a partition with its own.
    -- Indexes of the parent are made by ATTACH where they are missing.
    statements := ARRAY[concat(format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY%s)', child, parent, CASE WHEN filled THEN ' EXCLUDING INDEXES' END),
                               ' USING ' || quote_ident(table_of.amname), ' TABLESPACE ' || quote_ident(table_of.spcname))];
    -- A CHECK equal to the bounds lets ATTACH skip its scan; it is dropped once the bound itself says so.
    statements := statements || format('ALTER TABLE %s ADD CONSTRAINT tidemark_bounds CHECK (%I IS NOT NULL AND %I >= %L AND %I < %L)',
        child, key_column, key_column, from_time, key_column, to_time);
    IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = parent AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype AND NOT a.attisdropped) THEN
        -- Lets literal predicates on event_date prune; the partition key only prunes on event_time.
        statements := statements || format('ALTER TABLE %s ADD CONSTRAINT event_date_of_partition CHECK (event_date >= %L AND event_date < %L)', child, day, day + 1);
    END IF;
    IF config.unique_columns IS NOT NULL THEN
        statements := statements || format('CREATE UNIQUE INDEX ON %s (%s)', child,
            (SELECT string_agg(format('%I', u), ', ' ORDER BY n) FROM unnest(config.unique_columns) WITH ORDINALITY AS x(u, n)));
    END IF;
    -- A partitioned table has no storage options of its own: those of the newest partition before this one go on.
    SELECT b.partition INTO neighbour FROM tidemark_internal.partition_bounds(parent) b
     WHERE NOT b.pending AND b.from_time < day::timestamptz ORDER BY b.from_time DESC LIMIT 1;
    SELECT string_agg(format('%s = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') INTO options
      FROM (SELECT unnest(c.reloptions) FROM pg_class c WHERE c.oid = neighbour AND c.relkind = 'r'
            UNION ALL
            SELECT 'toast.' || unnest(t.reloptions) FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = neighbour) AS x(o);
    IF options IS NOT NULL THEN
        statements := statements || format('ALTER TABLE %s SET (%s)', child, options);
    END IF;
    IF table_of.relreplident IN ('f', 'n') THEN
        statements := statements || format('ALTER TABLE %s REPLICA IDENTITY %s', child, CASE table_of.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END);
    END IF;
    RETURN statements
        || format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, child, from_time, to_time)
        || format('ALTER TABLE %s DROP CONSTRAINT tidemark_bounds', child);
END
$$;
COMMENT ON FUNCTION tidemark_internal.partition_sql(regclass, date, boolean) IS
'The statements that create the partition of a UTC date and attach it, in
order. filled: rows are put into the table after the first of them, so its
indexes are only made later. Nothing is executed. An error as for
tidemark.ensure_partitions when parent is not partitioned by range of one
timestamptz column.';

CREATE FUNCTION tidemark_internal.missing_dates(parent regclass, from_date date, to_date date) RETURNS SETOF date
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    WITH bounds AS MATERIALIZED (SELECT b.from_time::date AS first, b.to_time::date AS past FROM tidemark_internal.partition_bounds(parent) b)
    SELECT d::date FROM generate_series(from_date::timestamp, to_date::timestamp, interval '1 day') AS d
     WHERE NOT EXISTS (SELECT FROM bounds b WHERE b.first <= d::date AND b.past > d::date)
     ORDER BY 1;
END;
COMMENT ON FUNCTION tidemark_internal.missing_dates(regclass, date, date) IS
'The work behind maintenance: the UTC dates from from_date to to_date, both
inclusive, that no partition of parent holds, ascending.';

CREATE FUNCTION tidemark_internal.check_not_retired(parent regclass, from_date date, to_date date) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired record;
BEGIN
    SELECT * INTO retired FROM tidemark_internal.retired_dates r
     WHERE r.parent = check_not_retired.parent AND r.event_date BETWEEN from_date AND to_date ORDER BY r.event_date LIMIT 1;
    IF FOUND THEN
        -- An empty partition would let the next refresh overwrite the date with its late rows alone.
        RAISE EXCEPTION 'date % of % is retired', retired.event_date, parent
            USING ERRCODE = '55000', DETAIL = format('Its partition %s is %s.', retired.partition, retired.state),
                  HINT = CASE retired.state
                      WHEN 'dropped' THEN 'Its rows are gone. To begin the date anew, delete its row from tidemark_internal.retired_dates first.'
                      ELSE format('SELECT tidemark.restore_partition(%L, %L) attaches it again.', parent, retired.event_date) END;
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_not_retired(regclass, date, date) IS
'The work behind maintenance: raises an error (55000) when one of the dates,
both inclusive, is in tidemark_internal.retired_dates.';

CREATE FUNCTION tidemark_internal.create_partitions(parent regclass, from_date date, to_date date, fill text DEFAULT NULL) RETURNS regclass[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    statement text;
    child text;
    other text;
    is_first boolean;
    name_of name;
    schema_of name;
    created regclass[] := '{}';
BEGIN
    IF from_date IS NULL OR to_date IS NULL OR NOT isfinite(from_date) OR NOT isfinite(to_date) THEN
        RAISE EXCEPTION 'from_date and to_date must be finite dates' USING ERRCODE = '22023';
    ELSIF to_date < from_date THEN
        RAISE EXCEPTION 'to_date must not be before from_date' USING ERRCODE = '22023';
    ELSIF to_date - from_date >= 1000 THEN
        RAISE EXCEPTION 'from_date to to_date spans % days, at most 1000 are allowed', to_date - from_date + 1
            USING ERRCODE = '22023', HINT = 'A range this long is usually one event with a wrong time. Call it once per run of dates.';
    END IF;
    PERFORM tidemark_internal.check_not_retired(parent, from_date, to_date);

    -- Nothing missing is the usual case and takes no lock.
    IF NOT EXISTS (SELECT FROM tidemark_internal.missing_dates(parent, from_date, to_date)) THEN
        RETURN created;
    ELSIF to_date > today + 366 OR from_date < '1900-01-01' THEN
        RAISE EXCEPTION 'no partition is created for %', CASE WHEN to_date > today + 366 THEN to_date ELSE from_date END
            USING ERRCODE = '22023', HINT = 'Dates go from 1900-01-01 to 366 days after today. Beyond, make a partition by hand if the date is no mistake.';
    END IF;

    SELECT c.relname, coalesce(p.partition_schema, n.nspname) INTO name_of, schema_of
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN tidemark_internal.partition_config p ON p.parent = c.oid
     WHERE c.oid = create_partitions.parent;
    -- The parent first: every maintainer takes locks in this order, and one that waited sees what the other made.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    PERFORM tidemark_internal.check_not_retired(parent, from_date, to_date);

    FOR day IN SELECT d FROM tidemark_internal.missing_dates(parent, from_date, to_date) AS d LOOP
        is_first := true;
        FOREACH statement IN ARRAY tidemark_internal.partition_sql(parent, day, fill IS NOT NULL) LOOP
            EXECUTE statement;
            IF is_first AND fill IS NOT NULL THEN
                EXECUTE format('INSERT INTO %I.%I ', schema_of, tidemark_internal.partition_name(name_of, day)) || fill USING day, day + 1;
            END IF;
            is_first := false;
        END LOOP;
        SELECT b.partition INTO child FROM tidemark_internal.partition_bounds(parent) b WHERE b.from_time = day::timestamptz;
        -- An index that identifies rows for replication is known by name only now.
        SELECT c.relname INTO other
          FROM pg_index p JOIN pg_inherits h ON h.inhparent = p.indexrelid JOIN pg_index i ON i.indexrelid = h.inhrelid
          JOIN pg_class c ON c.oid = i.indexrelid
         WHERE p.indrelid = parent AND p.indisreplident AND i.indrelid = child::regclass;
        IF FOUND THEN
            EXECUTE format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', child, other);
        END IF;
        -- Rows are read through the parent; default privileges may have said otherwise.
        FOR other IN
            SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
              FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS x WHERE c.oid = child::regclass AND x.grantee <> c.relowner
        LOOP
            EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', child, other);
        END LOOP;
        created := created || child::regclass;
    END LOOP;
    RETURN created;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_partitions(regclass, date, date, text) IS
'Creates the missing daily partitions with the rights of the caller, and
returns them. Use tidemark.ensure_partitions, which acts as the owner of the
table. fill, for tidemark.refresh, is what stands behind INSERT INTO and the
name of the table, with the date as $1 and the day after as $2: run before
there are indexes, which takes a fraction of the time.';

CREATE FUNCTION tidemark_internal.ensure_partitions_as_owner(parent regclass, from_date date, to_date date) RETURNS regclass[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_ensure_partitions';
COMMENT ON FUNCTION tidemark_internal.ensure_partitions_as_owner(regclass, date, date) IS
'The work behind tidemark.ensure_partitions: checks that the caller may
insert into parent, then creates partitions as its owner.';

CREATE FUNCTION tidemark.ensure_partitions(parent regclass, from_date date, to_date date) RETURNS SETOF regclass
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT unnest(tidemark_internal.ensure_partitions_as_owner(parent, from_date, to_date));
END;
COMMENT ON FUNCTION tidemark.ensure_partitions(regclass, date, date) IS
'Creates the daily partitions of parent that are missing from from_date to
to_date (UTC dates, both inclusive, at most 1000 days) and returns those it
created; nothing when all exist. parent must be partitioned by range of one
timestamptz column. Dates before 1900 or more than 366 days ahead are
refused (22023), and so are dates in tidemark_internal.retired_dates (55000). The
caller needs INSERT on parent; the partitions belong to the owner of parent
and are granted to nobody. Takes SHARE UPDATE EXCLUSIVE on parent only if
something is missing, so readers and writers go on. Safe to call from many
sessions at once.';

CREATE FUNCTION tidemark.manage_partitions(parent regclass, premake_days integer DEFAULT 4, partition_schema name DEFAULT NULL, partition_unique name[] DEFAULT NULL, retention_days integer DEFAULT NULL, retention_action text DEFAULT 'drop') RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing name;
BEGIN
    PERFORM tidemark_internal.check_partitioned(parent);
    IF premake_days IS NULL OR premake_days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'premake_days must be between 0 and 366' USING ERRCODE = '22023';
    ELSIF retention_days NOT BETWEEN 1 AND 36500 THEN
        RAISE EXCEPTION 'retention_days must be between 1 and 36500' USING ERRCODE = '22023', HINT = 'NULL keeps everything.';
    ELSIF retention_action IS NULL OR retention_action NOT IN ('drop', 'keep') THEN
        RAISE EXCEPTION 'retention_action must be drop or keep' USING ERRCODE = '22023';
    ELSIF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = parent), 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', parent USING ERRCODE = '42501';
    ELSIF partition_schema IS NOT NULL AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = partition_schema) THEN
        RAISE EXCEPTION 'partition_schema % does not exist', quote_ident(partition_schema)
            USING ERRCODE = '3F000', HINT = format('Create it first: CREATE SCHEMA %I;', partition_schema);
    END IF;
    SELECT u INTO missing FROM unnest(partition_unique) AS u
     WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = parent AND attname = u AND attnum > 0 AND NOT attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION 'partition_unique names column %, which % does not have', quote_ident(missing), parent USING ERRCODE = '42703';
    END IF;
    INSERT INTO tidemark_internal.partition_config AS c (parent, premake_days, partition_schema, unique_columns, retention_days, retention_action)
    VALUES (parent, premake_days,
            coalesce(partition_schema, (SELECT n.nspname FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = parent)),
            nullif(partition_unique, '{}'), retention_days, retention_action)
    ON CONFLICT ON CONSTRAINT partition_config_pkey DO UPDATE
       SET premake_days = excluded.premake_days, partition_schema = excluded.partition_schema, unique_columns = excluded.unique_columns,
           retention_days = excluded.retention_days, retention_action = excluded.retention_action;
    PERFORM tidemark_internal.premake_partitions(parent);
END
$$;
COMMENT ON FUNCTION tidemark.manage_partitions(regclass, integer, name, name[], integer, text) IS
'Registers a table whose daily partitions tidemark creates and retires, and
makes those from today (UTC) to premake_days ahead (default 4).
partition_schema: where partitions are created (default: the schema of
parent). partition_unique: columns of a unique index that every partition
gets (default none). retention_days: partitions that lie entirely more than
this many days before today are retired by maintenance, 1 to 36500 (default
NULL: none). retention_action: what becomes of them, drop (default) or keep
(detached, as tables of their own). Calling it again replaces all settings;
existing partitions stay as they are, and nothing is retired by this call.
Only members of the owner of parent may call it.';

CREATE FUNCTION tidemark.unmanage_partitions(parent regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF parent IS NULL THEN
        RAISE EXCEPTION 'parent must not be NULL' USING ERRCODE = '22004';
    ELSIF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = parent), 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', parent USING ERRCODE = '42501';
    END IF;
    DELETE FROM tidemark_internal.partition_config c WHERE c.parent = unmanage_partitions.parent;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tidemark.unmanage_partitions(regclass) IS
'Forgets the settings of a managed table; true if it was managed. Touches no
table and no partition, and what was retired stays retired. Only members of
the owner of parent may call it.';

CREATE FUNCTION tidemark_internal.premake_partitions(parent regclass) RETURNS SETOF regclass
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT tidemark.ensure_partitions(parent, today, today + c.premake_days)
      FROM tidemark_internal.partition_config c, (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS clock
     WHERE c.parent = premake_partitions.parent;
END;
COMMENT ON FUNCTION tidemark_internal.premake_partitions(regclass) IS
'Creates the partitions of a managed table from today (UTC) to its
premake_days ahead and returns those it created. A table that is not managed
gives no rows.';
-- Retention: which dates of a table are or were detached, and the steps that detach, drop and restore partitions. Each
-- step is one transaction and repairs what an earlier one left half done, so that a maintainer may die between any two.
-- They run as the owner of the table (maintenance.rs); what calls them is in maintenance.sql.

CREATE TABLE tidemark_internal.retired_dates (
    parent regclass NOT NULL,
    event_date date NOT NULL,
    partition text NOT NULL,
    state text NOT NULL CHECK (state IN ('detaching', 'detached', 'dropped')),
    retired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    partition_id regclass,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    retention_action text NOT NULL CHECK (retention_action IN ('drop', 'keep')),
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.retired_dates', '');
COMMENT ON TABLE tidemark_internal.retired_dates IS
'Dates whose partition is being or was detached by retention. tidemark.ensure_partitions refuses them, and models do not recompute what needs them. Written by tidemark.run_maintenance and tidemark maintain, and by tidemark.restore_partition, which removes a date.';
COMMENT ON COLUMN tidemark_internal.retired_dates.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.retired_dates.event_date IS 'A UTC date of the partition; a partition of several days has a row for each of them.';
COMMENT ON COLUMN tidemark_internal.retired_dates.partition IS 'Qualified name that the partition had when it was retired.';
COMMENT ON COLUMN tidemark_internal.retired_dates.state IS 'detaching: about to be detached, perhaps half done; detached: a table of its own; dropped: gone.';
COMMENT ON COLUMN tidemark_internal.retired_dates.retired_at IS 'When the row got its present state.';
COMMENT ON COLUMN tidemark_internal.retired_dates.partition_id IS 'The table itself; NULL once it is dropped.';
COMMENT ON COLUMN tidemark_internal.retired_dates.from_time IS 'Lower bound of the partition, inclusive.';
COMMENT ON COLUMN tidemark_internal.retired_dates.to_time IS 'Upper bound of the partition, exclusive.';
COMMENT ON COLUMN tidemark_internal.retired_dates.retention_action IS 'drop: the table is dropped once it is detached; keep: it stays.';

-- The owner may do to these rows what maintenance does as the owner; nothing here is done with more rights than that.
ALTER TABLE tidemark_internal.retired_dates ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.retired_dates FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.retired_dates
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = parent), 'MEMBER'));
CREATE POLICY nobodys ON tidemark_internal.retired_dates FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.retired_dates TO PUBLIC;

CREATE TABLE tidemark_internal.retention_holds (
    parent regclass NOT NULL,
    event_date date NOT NULL,
    held_until timestamptz NOT NULL,
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.retention_holds', '');
COMMENT ON TABLE tidemark_internal.retention_holds IS
'Dates that retention leaves alone for a while. Written by tidemark.restore_partition, so that a partition that was attached again is not retired at once; members of the owner of the table may write it, too.';
COMMENT ON COLUMN tidemark_internal.retention_holds.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.retention_holds.event_date IS 'The UTC date.';
COMMENT ON COLUMN tidemark_internal.retention_holds.held_until IS 'Until when its partition is not retired.';
ALTER TABLE tidemark_internal.retention_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.retention_holds FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.retention_holds
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = parent), 'MEMBER'));
CREATE POLICY nobodys ON tidemark_internal.retention_holds FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.retention_holds TO PUBLIC;

CREATE FUNCTION tidemark_internal.maintenance_lock_key(parent regclass) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1
SET search_path = pg_catalog, pg_temp
RETURN parent::oid::bigint::bit(32)::integer;
COMMENT ON FUNCTION tidemark_internal.maintenance_lock_key(regclass) IS
'The work behind tidemark_internal.try_maintenance_lock: the second key of the
advisory lock of a table; the first is 1953064045.';

CREATE FUNCTION tidemark_internal.try_maintenance_lock(parent regclass) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN pg_try_advisory_lock(1953064045, tidemark_internal.maintenance_lock_key(parent));
COMMENT ON FUNCTION tidemark_internal.try_maintenance_lock(regclass) IS
'Makes this session the maintainer of a table until
tidemark_internal.release_maintenance_lock or the end of the session; false when
another one is. For clients that detach partitions concurrently, in several
transactions.';

CREATE FUNCTION tidemark_internal.release_maintenance_lock(parent regclass) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN pg_advisory_unlock(1953064045, tidemark_internal.maintenance_lock_key(parent));
COMMENT ON FUNCTION tidemark_internal.release_maintenance_lock(regclass) IS
'Undoes one tidemark_internal.try_maintenance_lock that returned true.';

CREATE FUNCTION tidemark_internal.retirement_blocker(parent regclass, from_time timestamptz, to_time timestamptz) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    first_date date := from_time::date;
    last_date date := (to_time - interval '1 microsecond')::date;
    there record;
BEGIN
    IF NOT isfinite(from_time) OR NOT isfinite(to_time) THEN
        RETURN 'its bounds are open';
    END IF;
    SELECT h.held_until INTO there FROM tidemark_internal.retention_holds h
     WHERE h.parent = retirement_blocker.parent AND h.event_date BETWEEN first_date AND last_date AND h.held_until > clock_timestamp()
     ORDER BY h.held_until DESC LIMIT 1;
    IF FOUND THEN
        RETURN format('held until %s', there.held_until);
    END IF;
    SELECT b.model, b.model_date, b.reason INTO there
      FROM generate_series(first_date::timestamp, last_date::timestamp, interval '1 day') AS d
     CROSS JOIN LATERAL tidemark_internal.date_blockers(parent, d::date) AS b
     LIMIT 1;
    IF FOUND THEN
        RETURN format('model %s still needs it for %s: %s', there.model, there.model_date, there.reason);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.retirement_blocker(regclass, timestamptz, timestamptz) IS
'The work behind maintenance: why the dates from from_time to to_time
(exclusive) of a table may not be retired now: a model needs them, a hold,
or open bounds; NULL when they may.';

CREATE FUNCTION tidemark_internal.retention_limit(parent regclass) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    SELECT ((now() AT TIME ZONE 'UTC')::date - c.retention_days)::timestamptz
      FROM tidemark_internal.partition_config c WHERE c.parent = retention_limit.parent;
END;
COMMENT ON FUNCTION tidemark_internal.retention_limit(regclass) IS
'The work behind maintenance: partitions that end at or before this time are
due to be retired; NULL for a table without retention.';

CREATE FUNCTION tidemark_internal.due_partitions(parent regclass)
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, blocked text)
LANGUAGE sql STABLE PARALLEL SAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT b.partition, b.from_time, b.to_time, tidemark_internal.retirement_blocker(parent, b.from_time, b.to_time)
      FROM tidemark_internal.partition_bounds(parent) b
     WHERE NOT b.pending AND b.to_time <= tidemark_internal.retention_limit(parent)
       AND NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = due_partitions.parent AND r.partition_id = b.partition)
     ORDER BY b.from_time;
END;
COMMENT ON FUNCTION tidemark_internal.due_partitions(regclass) IS
'The work behind maintenance: the attached partitions of a managed table that
retention wants to retire, oldest first; blocked says why one may not be
retired now, NULL when it may.';

CREATE FUNCTION tidemark_internal.drop_refusal(parent regclass, event_date date) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired record;
    there record;
BEGIN
    SELECT * INTO retired FROM tidemark_internal.retired_dates r WHERE r.parent = drop_refusal.parent AND r.event_date = drop_refusal.event_date;
    SELECT c.relkind, c.relispartition, c.relowner, c.oid::regclass::text AS name INTO there FROM pg_class c WHERE c.oid = retired.partition_id;
    -- A name alone proves nothing: somebody may have renamed the table, or put another one in its place.
    IF there.relkind IS NULL THEN
        RETURN 'the table is gone';
    ELSIF there.name <> retired.partition THEN
        RETURN format('%s is now called %s', retired.partition, there.name);
    ELSIF there.relkind NOT IN ('r', 'p') OR there.relispartition THEN
        RETURN format('%s is a partition again', there.name);
    ELSIF there.relowner <> (SELECT c.relowner FROM pg_class c WHERE c.oid = parent) THEN
        RETURN format('%s does not belong to the owner of %s', there.name, parent);
    END IF;
    RETURN tidemark_internal.retirement_blocker(parent, retired.from_time, retired.to_time);
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_refusal(regclass, date) IS
'The work behind maintenance: why the detached partition of a retired date
may not be dropped: it is not the table that was detached, or a model needs
it; NULL when it may.';

CREATE FUNCTION tidemark_internal.set_retired(parent regclass, partition regclass, from_time timestamptz, to_time timestamptz, state text, retention_action text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    INSERT INTO tidemark_internal.retired_dates AS r (parent, event_date, partition, state, retired_at, partition_id, from_time, to_time, retention_action)
    SELECT parent, d::date, partition::text, state, clock_timestamp(), partition, from_time, to_time, retention_action
      FROM generate_series(from_time::date::timestamp, (to_time - interval '1 microsecond')::date::timestamp, interval '1 day') AS d
    ON CONFLICT ON CONSTRAINT retired_dates_pkey DO UPDATE SET state = excluded.state, retired_at = excluded.retired_at;
END;
COMMENT ON FUNCTION tidemark_internal.set_retired(regclass, regclass, timestamptz, timestamptz, text, text) IS
'The work behind maintenance: writes the rows of tidemark_internal.retired_dates for
the dates of one partition.';

CREATE FUNCTION tidemark_internal.attach_again(parent regclass, partition regclass, from_time timestamptz, to_time timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    bounds text;
    other name;
BEGIN
    -- DETACH CONCURRENTLY may have left a CHECK equal to the bounds. Ours is added where it did not; that reads the
    -- partition before the parent is locked, and ATTACH reads it no more.
    bounds := format('((%1$I IS NOT NULL) AND (%1$I >= %2$L::timestamp with time zone) AND (%1$I < %3$L::timestamp with time zone))', key_column, from_time, to_time);
    IF NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = partition AND c.contype = 'c' AND c.convalidated AND pg_get_expr(c.conbin, c.conrelid) = bounds) THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tidemark_bounds CHECK %s', partition, bounds);
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, partition, from_time, to_time);
    FOR other IN
        SELECT c.conname FROM pg_constraint c
         WHERE c.conrelid = partition AND c.contype = 'c' AND c.conislocal AND c.coninhcount = 0 AND pg_get_expr(c.conbin, c.conrelid) = bounds
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', partition, other);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.attach_again(regclass, regclass, timestamptz, timestamptz) IS
'The work behind maintenance: attaches a detached partition with its old
bounds.';

CREATE FUNCTION tidemark_internal.wanted_dates(parent regclass) RETURNS SETOF date
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    config tidemark_internal.partition_config;
    today date := (now() AT TIME ZONE 'UTC')::date;
    first_date date;
    last_date date;
BEGIN
    SELECT * INTO config FROM tidemark_internal.partition_config c WHERE c.parent = wanted_dates.parent;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Dates ahead; and those that came while no maintenance ran. Older holes stay: somebody may have made them on
    -- purpose, and the loader makes what late events need. The data do not count: one event of 2100 makes nothing.
    first_date := greatest(least(today, coalesce(config.last_success, config.managed_since)::date), today - coalesce(config.retention_days, 366), today - 366);
    SELECT greatest(today + config.premake_days, least(max(b.to_time) - interval '1 day', (today + 366)::timestamptz)::date) INTO last_date
      FROM tidemark_internal.partition_bounds(parent) b WHERE isfinite(b.to_time);
    RETURN QUERY
        SELECT d FROM tidemark_internal.missing_dates(parent, first_date, last_date) AS d
         WHERE NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = wanted_dates.parent AND r.event_date = d)
         ORDER BY 1;
END
$$;
COMMENT ON FUNCTION tidemark_internal.wanted_dates(regclass) IS
'The UTC dates for which maintenance would create a partition now, ascending:
from today, or from the day of the last success, to premake_days ahead or
the newest partition (at most 366 days ahead); retired dates left out. A
table that is not managed gives no rows.';

CREATE FUNCTION tidemark_internal.create_step(parent regclass) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    run record;
    created regclass[] := '{}';
BEGIN
    FOR run IN
        SELECT min(m.day) AS first, max(m.day) AS last
          FROM (SELECT d AS day, d - row_number() OVER (ORDER BY d)::integer AS island FROM tidemark_internal.wanted_dates(parent) AS d) AS m
         GROUP BY m.island ORDER BY 1
    LOOP
        created := created || tidemark_internal.create_partitions(parent, run.first, run.last);
    END LOOP;
    IF created = '{}' THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY['create', '', array_to_string(created, ', '), cardinality(created)::text];
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_step(regclass) IS
'The work behind maintenance: creates in one transaction the partitions of
all tidemark_internal.wanted_dates of a table. NULL when none is missing.';

CREATE FUNCTION tidemark_internal.retire_step(parent regclass, by_client boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    config tidemark_internal.partition_config;
    half record;
    due record;
    pending boolean;
    began timestamptz;
    blocked text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would not see the marks of a writer that we waited for.
        RAISE EXCEPTION 'partitions are retired in READ COMMITTED transactions only' USING ERRCODE = '25000', HINT = 'SET default_transaction_isolation = ''read committed'';';
    END IF;
    SELECT * INTO config FROM tidemark_internal.partition_config c WHERE c.parent = retire_step.parent;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF NOT pg_try_advisory_xact_lock(1953064045, tidemark_internal.maintenance_lock_key(parent)) THEN
        RETURN ARRAY['skip', '', '', ''];
    END IF;
    -- DETACH CONCURRENTLY is refused beside a DEFAULT partition.
    by_client := by_client AND EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = parent AND p.partdefid = 0);

    -- A detach that somebody else began and left pending hides its rows already and stands in the way of ours.
    SELECT b.* INTO due FROM tidemark_internal.partition_bounds(parent) b
     WHERE b.pending AND NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.partition_id = b.partition);
    IF FOUND THEN
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, due.partition);
        IF isfinite(due.from_time) AND isfinite(due.to_time) THEN
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detached', 'keep');
        END IF;
        RETURN ARRAY['finalize', due.from_time::date::text, due.partition::text, ''];
    END IF;

    -- What an earlier round left half done comes first.
    SELECT * INTO half FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.state = 'detaching' ORDER BY r.event_date LIMIT 1;
    IF FOUND THEN
        SELECT i.inhdetachpending INTO pending FROM pg_inherits i WHERE i.inhrelid = half.partition_id AND i.inhparent = parent;
        IF NOT FOUND THEN
            IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = half.partition_id AND c.oid::regclass::text = half.partition) THEN
                UPDATE tidemark_internal.retired_dates r SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
                 WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
                RETURN ARRAY['forget', half.event_date::text, half.partition, ''];
            END IF;
            -- Detached. Everybody who could write through the parent has ended: what they marked is visible now. Without
            -- its row, that is: dates that read a retired date are frozen and would not ask for it.
            DELETE FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
            blocked := CASE WHEN half.to_time <= tidemark_internal.retention_limit(parent) THEN tidemark_internal.retirement_blocker(parent, half.from_time, half.to_time)
                            ELSE 'it is not due any more' END;
            IF blocked IS NULL THEN
                PERFORM tidemark_internal.set_retired(parent, half.partition_id, half.from_time, half.to_time, 'detached', half.retention_action);
                RETURN ARRAY['detached', half.event_date::text, half.partition, ''];
            END IF;
            PERFORM tidemark_internal.attach_again(parent, half.partition_id, half.from_time, half.to_time);
            -- Whoever read the table meanwhile missed these rows.
            PERFORM tidemark.mark_dirty(parent, ARRAY(SELECT d::date FROM generate_series(half.from_time::date::timestamp, (half.to_time - interval '1 microsecond')::date::timestamp, interval '1 day') AS d), 'attached again');
            RETURN ARRAY['attach', half.event_date::text, half.partition, blocked];
        ELSIF pending THEN
            EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, half.partition_id);
            RETURN ARRAY['finalize', half.event_date::text, half.partition, ''];
        END IF;
        -- Still attached: nothing has happened yet. Begin anew, or not at all.
        DELETE FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
    END IF;

    FOR due IN SELECT * FROM tidemark_internal.due_partitions(parent) LOOP
        CONTINUE WHEN due.blocked IS NOT NULL;
        IF by_client THEN
            EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detaching', config.retention_action);
            RETURN ARRAY['detach', due.from_time::date::text, due.partition::text, format('ALTER TABLE %s DETACH PARTITION %s CONCURRENTLY', parent, due.partition)];
        END IF;
        -- Others queue behind our request: both locks together may take no longer than one lock_timeout.
        began := clock_timestamp();
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', parent);
        PERFORM set_config('lock_timeout', greatest(100, 2000 - (extract(epoch FROM clock_timestamp() - began) * 1000)::integer)::text, true);
        -- Nobody writes now. Whoever wrote before we had the lock has committed, and their marks are visible.
        blocked := tidemark_internal.retirement_blocker(parent, due.from_time, due.to_time);
        IF blocked IS NOT NULL THEN
            RETURN ARRAY['refused', due.from_time::date::text, due.partition::text, blocked];
        END IF;
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, due.partition);
        PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detached', config.retention_action);
        RETURN ARRAY['detached', due.from_time::date::text, due.partition::text, ''];
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.retire_step(regclass, boolean) IS
'The work behind maintenance: takes the next step towards detaching what is
due: repairs what was left half done, or detaches one partition. With
by_client it only notes the partition and returns the statement that the
client has to send. NULL when nothing is left to do.';

CREATE FUNCTION tidemark_internal.drop_step(parent regclass) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    retired record;
    refused text;
    failed text;
    code text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1953064045, tidemark_internal.maintenance_lock_key(parent)) THEN
        RETURN ARRAY['skip', '', '', ''];
    END IF;
    FOR retired IN
        SELECT DISTINCT ON (r.partition_id) r.*
          FROM tidemark_internal.retired_dates r JOIN tidemark_internal.partition_config c ON c.parent = r.parent
         WHERE r.parent = drop_step.parent AND r.state = 'detached' AND r.retention_action = 'drop'
           -- Both then and now: whoever turns to keep keeps what is still there.
           AND c.retention_action = 'drop' AND r.to_time <= tidemark_internal.retention_limit(r.parent)
         ORDER BY r.partition_id, r.event_date
    LOOP
        refused := tidemark_internal.drop_refusal(parent, retired.event_date);
        IF refused = 'the table is gone' THEN
            UPDATE tidemark_internal.retired_dates r SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
             WHERE r.parent = drop_step.parent AND r.partition_id IS NOT DISTINCT FROM retired.partition_id AND r.partition = retired.partition;
            RETURN ARRAY['forget', retired.event_date::text, retired.partition, ''];
        END IF;
        CONTINUE WHEN refused IS NOT NULL;
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', retired.partition_id);
            -- The name was looked up anew for the lock; and it may have been needed while we waited.
            CONTINUE WHEN to_regclass(retired.partition) IS DISTINCT FROM retired.partition_id OR tidemark_internal.drop_refusal(parent, retired.event_date) IS NOT NULL;
            EXECUTE format('DROP TABLE %s', retired.partition_id);
            UPDATE tidemark_internal.retired_dates r SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
             WHERE r.parent = drop_step.parent AND r.partition_id = retired.partition_id;
            RETURN ARRAY['drop', retired.event_date::text, retired.partition, ''];
        EXCEPTION WHEN OTHERS THEN
            -- A view on one partition must not keep the others.
            GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, failed = MESSAGE_TEXT;
        END;
    END LOOP;
    IF failed IS NOT NULL THEN
        RAISE EXCEPTION '%', failed USING ERRCODE = code;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_step(regclass) IS
'The work behind maintenance: drops one partition that was detached to be
dropped, after it is proved to be that very table. NULL when nothing is left
to do.';

CREATE FUNCTION tidemark_internal.restore_step(parent regclass, event_date date, hold interval) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    retired record;
    pending boolean;
BEGIN
    IF event_date IS NULL OR hold IS NULL OR hold < interval '0' THEN
        RAISE EXCEPTION 'event_date and hold must not be NULL, and hold not negative' USING ERRCODE = '22023';
    END IF;
    IF NOT pg_try_advisory_xact_lock(1953064045, tidemark_internal.maintenance_lock_key(parent)) THEN
        RAISE EXCEPTION 'table % is under maintenance', parent USING ERRCODE = '55P03', HINT = 'Try again when it is done.';
    END IF;
    SELECT * INTO retired FROM tidemark_internal.retired_dates r WHERE r.parent = restore_step.parent AND r.event_date = restore_step.event_date;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'date % of % is not retired', event_date, parent USING ERRCODE = '42704', HINT = 'tidemark_internal.retired_dates lists those that are.';
    ELSIF retired.state = 'dropped' OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = retired.partition_id AND c.oid::regclass::text = retired.partition) THEN
        RAISE EXCEPTION 'the partition of date % of % is gone', event_date, parent
            USING ERRCODE = '55000', HINT = 'Its rows are gone. To begin the date anew, delete its row from tidemark_internal.retired_dates.';
    END IF;
    SELECT i.inhdetachpending INTO pending FROM pg_inherits i WHERE i.inhrelid = retired.partition_id AND i.inhparent = parent;
    IF FOUND AND pending THEN
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, retired.partition_id);
    END IF;
    IF pending IS DISTINCT FROM false THEN
        PERFORM tidemark_internal.attach_again(parent, retired.partition_id, retired.from_time, retired.to_time);
    END IF;
    DELETE FROM tidemark_internal.retention_holds h WHERE h.parent = restore_step.parent AND h.held_until <= clock_timestamp();
    INSERT INTO tidemark_internal.retention_holds AS h (parent, event_date, held_until)
    SELECT r.parent, r.event_date, clock_timestamp() + hold FROM tidemark_internal.retired_dates r
     WHERE r.parent = restore_step.parent AND r.partition_id = retired.partition_id
    ON CONFLICT ON CONSTRAINT retention_holds_pkey DO UPDATE SET held_until = excluded.held_until;
    DELETE FROM tidemark_internal.retired_dates r WHERE r.parent = restore_step.parent AND r.partition_id = retired.partition_id;
    RETURN ARRAY['attach', event_date::text, retired.partition, ''];
END
$$;
COMMENT ON FUNCTION tidemark_internal.restore_step(regclass, date, interval) IS
'The work behind tidemark.restore_partition, with the rights of the caller.';

CREATE FUNCTION tidemark_internal.record_step(parent regclass, error text) RETURNS text[]
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
BEGIN ATOMIC
    UPDATE tidemark_internal.partition_config c
       SET lock_timeouts = c.lock_timeouts + CASE WHEN error IN ('55P03', '40P01') THEN 1 ELSE 0 END,
           last_success = CASE WHEN error IS NULL THEN clock_timestamp() ELSE c.last_success END,
           last_error = CASE WHEN error IN ('55P03', '40P01') THEN c.last_error ELSE error END,
           last_error_at = CASE WHEN error IS NULL THEN NULL WHEN error IN ('55P03', '40P01') THEN c.last_error_at ELSE clock_timestamp() END
     WHERE c.parent = record_step.parent
    RETURNING ARRAY['record', '', '', ''];
END;
COMMENT ON FUNCTION tidemark_internal.record_step(regclass, text) IS
'The work behind maintenance: notes how maintenance of a table went: error
NULL for a success, a bare 55P03 or 40P01 for a lock that was not to be had,
else what failed.';
-- Maintenance of partitions as people and clients call it: single steps, the procedure, the dry run, and how things stand.
-- What a step does is in retirement.sql.

CREATE FUNCTION tidemark_internal.partition_work_as_owner(parent regclass, work text, event_date date, detail text) RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_partition_work';
COMMENT ON FUNCTION tidemark_internal.partition_work_as_owner(regclass, text, date, text) IS
'The work behind maintenance: checks that the caller may ask for this work,
then does it as the owner of parent: create, retire, retire concurrently,
drop and record for whoever may insert, restore for members of the owner.';

CREATE FUNCTION tidemark_internal.maintenance_step(parent regclass, work text, OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done text[] := tidemark_internal.partition_work_as_owner(parent, work, NULL, NULL);
BEGIN
    action := done[1];
    event_date := nullif(done[2], '')::date;
    partition := nullif(done[3], '');
    detail := nullif(done[4], '');
END
$$;
COMMENT ON FUNCTION tidemark_internal.maintenance_step(regclass, text) IS
'Does the next step of one kind of work on a managed table, as its owner, and
says what it did; all NULL when nothing is left to do. Call it until then,
each time in a transaction of its own. work: create (partitions ahead),
retire (detach what is due), retire concurrently, or drop. With retire
concurrently an action detach has done nothing yet: the client has to send
the statement in detail at top level, as a member of the owner, and then go
on. Other actions: create (partitions made, their number in detail),
detached, finalize, attach (a partition that is needed again), refused,
forget, drop, and skip when another session maintains the table. The caller
needs INSERT on parent.';

CREATE FUNCTION tidemark_internal.record_maintenance(parent regclass, error text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.partition_work_as_owner(parent, 'record', NULL, error);
END
$$;
COMMENT ON FUNCTION tidemark_internal.record_maintenance(regclass, text) IS
'Notes in tidemark_internal.partition_config how a client''s maintenance of a table
went: error NULL for a success, a bare SQLSTATE 55P03 or 40P01 for a lock
that was not to be had (counted), else what failed. The caller needs INSERT
on parent.';

CREATE FUNCTION tidemark.restore_partition(parent regclass, event_date date, hold interval DEFAULT interval '1 day') RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done text[] := tidemark_internal.partition_work_as_owner(parent, 'restore', event_date, coalesce(hold, interval '-1 day')::text);
BEGIN
    RETURN done[3]::regclass;
END
$$;
COMMENT ON FUNCTION tidemark.restore_partition(regclass, date, interval) IS
'Attaches the partition of a retired date again and returns it; the date is
no longer retired, and models recompute it when it is dirty. hold: for how
long retention leaves it alone, default one day; longer than that, raise
retention_days. A partition that was dropped is an error (55000), a date
that is not retired, too (42704). Takes SHARE UPDATE EXCLUSIVE on parent,
for at most 2 s of waiting. Only members of the owner of parent may call it.';

CREATE FUNCTION tidemark_internal.forget_missing_tables() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Their number may one day be that of another table.
    DELETE FROM tidemark_internal.retired_dates r WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = r.parent);
    DELETE FROM tidemark_internal.retention_holds h WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = h.parent);
    WITH gone AS (DELETE FROM tidemark_internal.partition_config p WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.parent) RETURNING p.parent)
    SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION tidemark_internal.forget_missing_tables() IS
'The work behind maintenance: removes the settings and retired dates of
tables that were dropped; returns how many tables were managed.';

CREATE PROCEDURE tidemark.run_maintenance(parent regclass DEFAULT NULL)
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit. Hence every name is qualified, operators too.
DECLARE
    table_of pg_catalog.regclass;
    work pg_catalog.text;
    step pg_catalog.record;
    tries pg_catalog.int4;
    code pg_catalog.text;
    message pg_catalog.text;
    failed pg_catalog.text;
    skipped pg_catalog.bool;
    failures pg_catalog.int4 := 0;
BEGIN
    IF parent IS NOT NULL AND NOT EXISTS (SELECT FROM tidemark_internal.partition_config c WHERE c.parent OPERATOR(pg_catalog.=) run_maintenance.parent) THEN
        RAISE EXCEPTION 'table % is not managed', parent USING ERRCODE = '42704', HINT = 'Register it with tidemark.manage_partitions.';
    END IF;
    PERFORM tidemark_internal.forget_missing_tables();
    COMMIT;
    FOREACH table_of IN ARRAY ARRAY(
        SELECT c.parent FROM tidemark_internal.partition_config c JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) c.parent
         WHERE c.parent OPERATOR(pg_catalog.=) run_maintenance.parent
            OR run_maintenance.parent IS NULL AND (pg_catalog.has_table_privilege(t.oid, 'INSERT') OR pg_catalog.pg_has_role(t.relowner, 'MEMBER'))
         ORDER BY c.parent::pg_catalog.text)
    LOOP
        failed := NULL;
        skipped := false;
        FOREACH work IN ARRAY ARRAY['create', 'retire', 'drop'] LOOP
            tries := 0;
            LOOP
                code := NULL;
                BEGIN
                    SELECT * INTO step FROM tidemark_internal.maintenance_step(table_of, work);
                EXCEPTION WHEN OTHERS THEN
                    code := SQLSTATE;
                    message := SQLERRM;
                END;
                COMMIT;
                IF code OPERATOR(pg_catalog.=) ANY (ARRAY['55P03', '40P01']) THEN
                    -- Somebody uses the table for longer than others should wait behind us: back off, others go first.
                    tries := tries OPERATOR(pg_catalog.+) 1;
                    BEGIN
                        PERFORM tidemark_internal.record_maintenance(table_of, code);
                    EXCEPTION WHEN OTHERS THEN NULL;
                    END;
                    COMMIT;
                    IF tries OPERATOR(pg_catalog.<) 3 THEN
                        PERFORM pg_catalog.pg_sleep(0.5 OPERATOR(pg_catalog.*) tries);
                        CONTINUE;
                    END IF;
                END IF;
                IF code IS NOT NULL THEN
                    failed := pg_catalog.concat_ws('; ', failed, pg_catalog.concat(code, ' ', work, ': ', message));
                    EXIT;
                END IF;
                skipped := skipped OR COALESCE(step.action OPERATOR(pg_catalog.=) 'skip', false);
                EXIT WHEN step.action IS NULL OR skipped;
            END LOOP;
        END LOOP;
        IF failed IS NOT NULL OR NOT skipped THEN
            BEGIN
                PERFORM tidemark_internal.record_maintenance(table_of, failed);
            EXCEPTION WHEN OTHERS THEN
                failed := pg_catalog.concat_ws('; ', failed, SQLERRM);
            END;
            COMMIT;
        END IF;
        IF failed IS NOT NULL THEN
            failures := failures OPERATOR(pg_catalog.+) 1;
            RAISE WARNING 'maintenance of %: %', table_of, failed;
        END IF;
    END LOOP;
    IF failures OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% tables could not be maintained', failures
            USING HINT = 'The warnings above and tidemark.partition_health say why; the next call goes on.';
    END IF;
END
$$;
COMMENT ON PROCEDURE tidemark.run_maintenance(regclass) IS
'Does all that is due for the partitions of one managed table, or with NULL
of all that the caller may insert into: creates those ahead, detaches those
older than retention_days, drops what was detached. Each step is a
transaction of its own as the owner of the table, waits at most 2 s for a
lock, and is tried three times. A table that fails is reported as a warning
and in tidemark.partition_health, does not hold up the others, and makes the
call fail at its end. A table that another session maintains is passed over.
CALL it outside a transaction block. It detaches with a short ACCESS
EXCLUSIVE lock, since DETACH CONCURRENTLY cannot run inside; tidemark
maintain does that.';

CREATE FUNCTION tidemark.plan_maintenance(INOUT parent regclass DEFAULT NULL, OUT step integer, OUT action text, OUT sql text, OUT lock_level text, OUT reason text)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    wanted regclass := plan_maintenance.parent;
    config record;
    day date;
    part record;
    today date := (now() AT TIME ZONE 'UTC')::date;
    refusal text;
BEGIN
    FOR config IN
        SELECT c.*, p.partdefid <> 0 AS has_default FROM tidemark_internal.partition_config c JOIN pg_partitioned_table p ON p.partrelid = c.parent
         WHERE wanted IS NULL OR c.parent = wanted ORDER BY c.parent::text
    LOOP
        plan_maintenance.parent := config.parent;
        step := 0;

        action := 'create';
        lock_level := 'SHARE UPDATE EXCLUSIVE on the table';
        FOR day IN SELECT d FROM tidemark_internal.wanted_dates(config.parent) AS d LOOP
            step := step + 1;
            sql := array_to_string(tidemark_internal.partition_sql(config.parent, day), E';\n');
            reason := CASE WHEN day < today THEN 'a date without partition since the last success'
                           ELSE format('%s days are wanted ahead', config.premake_days) END;
            RETURN NEXT;
        END LOOP;

        FOR part IN
            SELECT b.* FROM tidemark_internal.partition_bounds(config.parent) b WHERE b.pending
        LOOP
            step := step + 1;
            action := 'finalize';
            sql := format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', config.parent, part.partition);
            lock_level := 'SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition';
            reason := 'an interrupted DETACH CONCURRENTLY';
            RETURN NEXT;
        END LOOP;

        FOR part IN
            SELECT d.* FROM tidemark_internal.due_partitions(config.parent) d
            UNION ALL
            -- Noted by a round that ended before it detached them.
            SELECT b.partition, b.from_time, b.to_time, tidemark_internal.retirement_blocker(config.parent, b.from_time, b.to_time)
              FROM tidemark_internal.partition_bounds(config.parent) b
             WHERE NOT b.pending AND b.to_time <= tidemark_internal.retention_limit(config.parent)
               AND EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = config.parent AND r.partition_id = b.partition)
             ORDER BY 2
        LOOP
            step := step + 1;
            reason := format('older than %s days', config.retention_days);
            IF part.blocked IS NOT NULL THEN
                action := 'refused';
                sql := NULL;
                lock_level := NULL;
                reason := format('%s: %s', part.partition, part.blocked);
                RETURN NEXT;
                CONTINUE;
            END IF;
            action := CASE WHEN config.has_default THEN 'detach' ELSE 'detach concurrently' END;
            sql := format('ALTER TABLE %s DETACH PARTITION %s', config.parent, part.partition) || CASE WHEN config.has_default THEN '' ELSE ' CONCURRENTLY' END;
            lock_level := CASE WHEN config.has_default THEN 'ACCESS EXCLUSIVE on the table and the partition'
                               ELSE 'SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition; without CONCURRENTLY in run_maintenance: ACCESS EXCLUSIVE on both' END;
            RETURN NEXT;
            IF config.retention_action = 'drop' THEN
                step := step + 1;
                action := 'drop';
                sql := format('DROP TABLE %s', part.partition);
                lock_level := 'ACCESS EXCLUSIVE on the detached partition';
                RETURN NEXT;
            END IF;
        END LOOP;

        FOR part IN
            SELECT DISTINCT ON (r.partition_id) r.*, EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = r.partition_id) AS attached
              FROM tidemark_internal.retired_dates r WHERE r.parent = config.parent AND r.state <> 'dropped' ORDER BY r.partition_id, r.event_date
        LOOP
            CONTINUE WHEN part.attached OR config.retention_action <> 'drop' OR part.retention_action <> 'drop' OR part.to_time > coalesce(tidemark_internal.retention_limit(config.parent), '-infinity');
            step := step + 1;
            refusal := tidemark_internal.drop_refusal(config.parent, part.event_date);
            action := CASE WHEN refusal IS NULL THEN 'drop' ELSE 'refused' END;
            sql := CASE WHEN refusal IS NULL THEN format('DROP TABLE %s', part.partition) END;
            lock_level := CASE WHEN refusal IS NULL THEN 'ACCESS EXCLUSIVE on the detached partition' END;
            reason := coalesce(format('%s: %s', part.partition, refusal), 'detached');
            IF refusal IS NULL THEN reason := 'detached to be dropped'; END IF;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.plan_maintenance(regclass) IS
'What maintenance would do now for one managed table, or for all with NULL,
in order; nothing is done. parent: the table; step: 1, 2, ... within the
table; action: create, finalize, detach concurrently, detach, drop, or
refused (nothing is done); sql: the statements, NULL when refused;
lock_level: what they lock; reason: why, or what stands against it. No rows
when nothing is due, or for a table that is not managed. Needs no rights on
the tables.';

CREATE FUNCTION tidemark_internal.partition_figures(parent regclass, OUT partitions bigint, OUT premade_partitions bigint, OUT premade_hours numeric,
    OUT oldest_date date, OUT newest_date date, OUT gaps bigint, OUT overlapping bigint, OUT pending_detach bigint, OUT refused_dates bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    covered_until timestamptz;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE b.pending), min(b.from_time) FILTER (WHERE NOT b.pending)::date,
           (max(b.to_time) FILTER (WHERE NOT b.pending) - interval '1 microsecond')::date
      INTO partitions, pending_detach, oldest_date, newest_date
      FROM tidemark_internal.partition_bounds(parent) b;
    -- Until when every moment from now on has a partition.
    SELECT min(b.to_time) INTO covered_until FROM tidemark_internal.partition_bounds(parent) b
     WHERE b.to_time > now() AND NOT b.pending
       AND NOT EXISTS (SELECT FROM tidemark_internal.partition_bounds(parent) n WHERE NOT n.pending AND n.from_time <= b.to_time AND n.to_time > b.to_time);
    IF NOT EXISTS (SELECT FROM tidemark_internal.partition_bounds(parent) b WHERE NOT b.pending AND b.from_time <= now() AND b.to_time > now()) THEN
        covered_until := now();
    END IF;
    SELECT count(*) INTO premade_partitions FROM tidemark_internal.partition_bounds(parent) b WHERE NOT b.pending AND b.from_time > now() AND b.to_time <= covered_until;
    premade_hours := CASE WHEN isfinite(covered_until) THEN round((extract(epoch FROM covered_until - now()) / 3600)::numeric, 1) END;
    -- Old dates without rows need no partition: whoever has rows for them makes it.
    SELECT count(*) INTO gaps FROM tidemark_internal.wanted_dates(parent);
    SELECT count(*) FILTER (WHERE g.next < g.past) INTO overlapping
      FROM (SELECT b.to_time AS past, lead(b.from_time) OVER (ORDER BY b.from_time) AS next
              FROM tidemark_internal.partition_bounds(parent) b WHERE NOT b.pending) AS g;
    SELECT coalesce(sum((d.to_time - interval '1 microsecond')::date - d.from_time::date + 1) FILTER (WHERE isfinite(d.from_time)), 0) INTO refused_dates
      FROM tidemark_internal.due_partitions(parent) d WHERE d.blocked IS NOT NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.partition_figures(regclass) IS
'The work behind maintenance: the figures of tidemark.partition_health for
one table.';

CREATE VIEW tidemark.partition_health AS
SELECT c.parent, f.partitions, f.premade_partitions, f.premade_hours, f.oldest_date, f.newest_date, f.gaps, f.overlapping, f.pending_detach,
       (SELECT pg_catalog.count(DISTINCT r.partition) FROM tidemark_internal.retired_dates r WHERE r.parent = c.parent AND r.state = 'detached') AS detached_partitions,
       f.refused_dates, c.last_success, c.last_error, c.last_error_at, c.lock_timeouts
  FROM tidemark_internal.partition_config c
  JOIN pg_catalog.pg_class t ON t.oid = c.parent
 CROSS JOIN LATERAL tidemark_internal.partition_figures(c.parent) AS f;
COMMENT ON VIEW tidemark.partition_health IS 'One row per managed table: whether its partitions are as they should be, and how the last maintenance went.';
COMMENT ON COLUMN tidemark.partition_health.parent IS 'The managed table.';
COMMENT ON COLUMN tidemark.partition_health.partitions IS 'How many partitions it has, one whose detach is pending included.';
COMMENT ON COLUMN tidemark.partition_health.premade_partitions IS 'How many partitions are ready after today''s without a gap.';
COMMENT ON COLUMN tidemark.partition_health.premade_hours IS 'For how many hours from now every moment has a partition; 0 when not even now has one, NULL when there is no end.';
COMMENT ON COLUMN tidemark.partition_health.oldest_date IS 'First date of the oldest partition (UTC); NULL without any.';
COMMENT ON COLUMN tidemark.partition_health.newest_date IS 'Last date of the newest partition (UTC); NULL without any.';
COMMENT ON COLUMN tidemark.partition_health.gaps IS 'How many partitions are missing that maintenance should have made: of dates since its last success, and of those wanted ahead (tidemark.plan_maintenance lists them). 0 after each maintenance that succeeds; anything else for long means that it does not run or fails. Older dates without rows need no partition and do not count.';
COMMENT ON COLUMN tidemark.partition_health.overlapping IS 'How many partitions begin before the one before them ends: always 0, or the catalog is damaged.';
COMMENT ON COLUMN tidemark.partition_health.pending_detach IS 'Partitions whose DETACH CONCURRENTLY was interrupted (at most one); the next maintenance finishes it.';
COMMENT ON COLUMN tidemark.partition_health.detached_partitions IS 'Retired partitions that are still there as tables of their own: to be kept, or not yet dropped.';
COMMENT ON COLUMN tidemark.partition_health.refused_dates IS 'Dates past their retention that a model still needs, or that are held; tidemark.plan_maintenance says why.';
COMMENT ON COLUMN tidemark.partition_health.last_success IS 'When maintenance last did all that was due; NULL if never.';
COMMENT ON COLUMN tidemark.partition_health.last_error IS 'SQLSTATE and message of what failed in the last maintenance; NULL if nothing did.';
COMMENT ON COLUMN tidemark.partition_health.last_error_at IS 'When that was; NULL if nothing failed.';
COMMENT ON COLUMN tidemark.partition_health.lock_timeouts IS 'How often maintenance gave up waiting for a lock, in all.';
GRANT SELECT ON tidemark.partition_health TO PUBLIC;
-- Models: derived tables whose rows for one event_date are a function of their sources' rows around that date. Here:
-- what is known of them, the append-only log of dates that changed, and which dates are stale, frozen or needed.
--
-- Why no mark is ever lost: marks are rows without a shared key, so no writer's mark hides behind another's. A
-- refresher deletes the marks it can see first and reads the sources in a later statement, whose snapshot is newer:
-- whoever's mark it deleted has committed, so his rows are in the recompute; whoever commits in between leaves a
-- mark behind, and the date is recomputed once more. A mark says whether rows were only added: then the rows of a model
-- that makes each of its rows from one row of its source only grow in number, and those that are there stay as they are.
--
-- Whose rights: these tables are open to everybody under row level security, which lets only members of the role
-- that owns a model's table write about it. Functions that only move or read marks are SECURITY DEFINER and run no
-- one's code. Users' queries run as the owner of the model's table, never as the caller (models/owner.rs).

CREATE TABLE tidemark_internal.models (
    name text PRIMARY KEY,
    target regclass NOT NULL UNIQUE,
    query text NOT NULL,
    key name[] NOT NULL,
    lookback_days integer NOT NULL CHECK (lookback_days BETWEEN 0 AND 1000),
    lookahead_days integer NOT NULL CHECK (lookahead_days BETWEEN 0 AND 1000),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    live_view regclass,
    refresh_count bigint NOT NULL DEFAULT 0,
    change_count bigint NOT NULL DEFAULT 0,
    last_refreshed_at timestamptz,
    last_error text,
    last_error_at timestamptz
);
COMMENT ON TABLE tidemark_internal.models IS 'Registered models. Written by tidemark.create_model, tidemark.drop_model and tidemark.refresh.';
COMMENT ON COLUMN tidemark_internal.models.name IS 'Name of the model: its target table as schema.table.';
COMMENT ON COLUMN tidemark_internal.models.target IS 'Table that holds the rows; has a column event_date.';
COMMENT ON COLUMN tidemark_internal.models.query IS 'SELECT with $1 (first date) and $2 (end date, exclusive) that computes the rows of those dates.';
COMMENT ON COLUMN tidemark_internal.models.key IS 'Columns that identify a row of the target.';
COMMENT ON COLUMN tidemark_internal.models.lookback_days IS 'How many days before a date the query reads.';
COMMENT ON COLUMN tidemark_internal.models.lookahead_days IS 'How many days after a date the query reads.';
COMMENT ON COLUMN tidemark_internal.models.created_at IS 'When the model was first registered.';
COMMENT ON COLUMN tidemark_internal.models.live_view IS 'View that is exact at any moment; NULL without one.';
COMMENT ON COLUMN tidemark_internal.models.refresh_count IS 'How many dates have been recomputed in all.';
COMMENT ON COLUMN tidemark_internal.models.change_count IS 'How many of these recomputes changed rows; materialized views follow it.';
COMMENT ON COLUMN tidemark_internal.models.last_refreshed_at IS 'When a date of the model was last recomputed.';
COMMENT ON COLUMN tidemark_internal.models.last_error IS 'Message of the last failed recompute; NULL once a date succeeded after it.';
COMMENT ON COLUMN tidemark_internal.models.last_error_at IS 'When the last recompute failed.';

CREATE TABLE tidemark_internal.model_sources (
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    source regclass NOT NULL,
    source_name text NOT NULL,
    PRIMARY KEY (model, source)
);
COMMENT ON TABLE tidemark_internal.model_sources IS 'Which tables a model reads.';
COMMENT ON COLUMN tidemark_internal.model_sources.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_sources.source IS 'Table that the model reads; may be the target of another model. Shown as a number when it was dropped.';
COMMENT ON COLUMN tidemark_internal.model_sources.source_name IS 'Its name when tidemark.create_model was called, as schema.table. When the table is dropped, one that is created under this name takes its place (tidemark_internal.adopt_sources).';

CREATE TABLE tidemark_internal.dirty_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source regclass NOT NULL,
    -- Leaves room to widen: one impossible date must not stop the marks of everybody.
    event_date date NOT NULL CHECK (event_date BETWEEN '0001-01-01' AND '9999-12-31'),
    reason text,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    only_added boolean NOT NULL DEFAULT false,
    rows bigint,
    late_rows bigint,
    min_event_time timestamptz,
    max_event_time timestamptz,
    lateness bigint[]
);
COMMENT ON TABLE tidemark_internal.dirty_log IS
'Append-only log: one row for each table, date and transaction that changed rows of that date. Consumed by tidemark.refresh.';
COMMENT ON COLUMN tidemark_internal.dirty_log.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark_internal.dirty_log.source IS 'Table whose rows changed.';
COMMENT ON COLUMN tidemark_internal.dirty_log.event_date IS 'UTC date of the rows that changed.';
COMMENT ON COLUMN tidemark_internal.dirty_log.reason IS 'What changed them, for people who look.';
COMMENT ON COLUMN tidemark_internal.dirty_log.marked_at IS 'Start of the transaction that changed them.';
COMMENT ON COLUMN tidemark_internal.dirty_log.only_added IS 'Whether rows of the date were only added, none changed or deleted.';
COMMENT ON COLUMN tidemark_internal.dirty_log.rows IS 'How many rows the transaction added to the date; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.late_rows IS 'How many of them were late; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.min_event_time IS 'Earliest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.max_event_time IS 'Latest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.lateness IS 'How many of them fell into each bucket of lateness; NULL if it did not say.';

CREATE TABLE tidemark_internal.model_dirty (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    event_date date NOT NULL,
    marked_at timestamptz NOT NULL,
    only_added boolean NOT NULL DEFAULT false
);
CREATE INDEX ON tidemark_internal.model_dirty (model, event_date);
COMMENT ON TABLE tidemark_internal.model_dirty IS
'Append-only: dates of models that wait for a recompute. tidemark.refresh moves marks here from the dirty log, widened by lookback and lookahead.';
COMMENT ON COLUMN tidemark_internal.model_dirty.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark_internal.model_dirty.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_dirty.event_date IS 'Date to recompute.';
COMMENT ON COLUMN tidemark_internal.model_dirty.marked_at IS 'When the source was marked.';
COMMENT ON COLUMN tidemark_internal.model_dirty.only_added IS 'Whether rows of the source were only added, none changed or deleted.';

CREATE TABLE tidemark_internal.refresh_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run timestamptz NOT NULL,
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    event_date date NOT NULL,
    refreshed_at timestamptz NOT NULL,
    rows_inserted bigint NOT NULL,
    rows_updated bigint NOT NULL,
    rows_deleted bigint NOT NULL,
    seconds numeric(12, 3) NOT NULL,
    appended boolean NOT NULL DEFAULT false,
    horizon xid8
);
CREATE INDEX ON tidemark_internal.refresh_log (model, event_date);
COMMENT ON TABLE tidemark_internal.refresh_log IS
'Which dates were recomputed and what that changed: one row per recompute, kept for 30 days and for the last 100,000. run = (SELECT max(run) ...) gives the last refresh.';
COMMENT ON COLUMN tidemark_internal.refresh_log.id IS 'Identity of the recompute; later ones are greater.';
COMMENT ON COLUMN tidemark_internal.refresh_log.run IS 'When the refresh began that did it.';
COMMENT ON COLUMN tidemark_internal.refresh_log.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.refresh_log.event_date IS 'Date that was recomputed.';
COMMENT ON COLUMN tidemark_internal.refresh_log.refreshed_at IS 'When it was done.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_inserted IS 'Rows that were not there before.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_updated IS 'Rows with the key of an older one but other values.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_deleted IS 'Rows whose key the query no longer returned.';
COMMENT ON COLUMN tidemark_internal.refresh_log.seconds IS 'How long the recompute of the date took.';
COMMENT ON COLUMN tidemark_internal.refresh_log.appended IS 'Whether only the rows that its source had gained were computed, instead of the whole date.';
COMMENT ON COLUMN tidemark_internal.refresh_log.horizon IS 'All transactions before this one had ended when it began: rows of these were seen.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.models', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_sources', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.dirty_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dirty', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.refresh_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.dirty_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dirty_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.refresh_log_id_seq', '');

CREATE FUNCTION tidemark_internal.is_member_of_owner(relation regclass) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT pg_has_role(c.relowner, 'MEMBER') FROM pg_class c WHERE c.oid = relation), false);
COMMENT ON FUNCTION tidemark_internal.is_member_of_owner(regclass) IS
'Whether the current user is the owner of a relation or a member of the role
that owns it; superusers always are. false when the relation is NULL or does
not exist.';

CREATE FUNCTION tidemark_internal.is_member_of_model(model text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT tidemark_internal.is_member_of_owner(m.target) FROM tidemark_internal.models m WHERE m.name = model), false);
COMMENT ON FUNCTION tidemark_internal.is_member_of_model(text) IS
'Whether the current user is a member of the role that owns the table of a
model, and so may refresh it. false when there is no such model or its table
is gone.';

ALTER TABLE tidemark_internal.models ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.models FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.models USING (tidemark_internal.is_member_of_owner(target));
CREATE POLICY orphans_go ON tidemark_internal.models FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = target));
ALTER TABLE tidemark_internal.model_sources ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.model_sources FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.model_sources USING (tidemark_internal.is_member_of_model(model));
ALTER TABLE tidemark_internal.model_dirty ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.model_dirty FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.model_dirty USING (tidemark_internal.is_member_of_model(model));
ALTER TABLE tidemark_internal.refresh_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.refresh_log FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.refresh_log USING (tidemark_internal.is_member_of_model(model));
ALTER TABLE tidemark_internal.dirty_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY writers_read ON tidemark_internal.dirty_log FOR SELECT
    USING (pg_catalog.has_table_privilege(source, 'SELECT, INSERT') OR tidemark_internal.is_member_of_owner(source));
CREATE POLICY writers_mark ON tidemark_internal.dirty_log FOR INSERT
    WITH CHECK (pg_catalog.has_table_privilege(source, 'INSERT, UPDATE, DELETE') OR tidemark_internal.is_member_of_owner(source));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.models, tidemark_internal.model_sources, tidemark_internal.model_dirty, tidemark_internal.refresh_log TO PUBLIC;
GRANT SELECT, INSERT ON tidemark_internal.dirty_log TO PUBLIC;

CREATE FUNCTION tidemark.mark_dirty(source regclass, dates date[], reason text DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO tidemark_internal.dirty_log (source, event_date, reason)
    SELECT mark_dirty.source, d, mark_dirty.reason
      FROM (SELECT DISTINCT unnest(dates) AS d) AS x
     WHERE d IS NOT NULL
     ORDER BY d;
END;
COMMENT ON FUNCTION tidemark.mark_dirty(regclass, date[], text) IS
'Records that rows of source changed on these UTC dates, so that
tidemark.refresh recomputes the models that read them. Call it in the
transaction that changes the rows, or it proves nothing. NULL dates are
skipped, doubled ones count once; 23514 for dates outside the years 1 to
9999. The caller needs INSERT, UPDATE or DELETE on source, or to be a member
of its owner.';

CREATE FUNCTION tidemark_internal.distribute_dirty() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER COST 10000
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    ids bigint[];
    moved bigint;
BEGIN
    -- Who only looks must not hold marks in an open transaction. The current user is the definer here.
    IF EXISTS (SELECT FROM tidemark_internal.models) AND NOT EXISTS (
        SELECT FROM tidemark_internal.models m JOIN pg_class c ON c.oid = m.target WHERE pg_has_role(session_user, c.relowner, 'MEMBER')) THEN
        RAISE EXCEPTION 'permission denied to distribute marks'
            USING ERRCODE = '42501', HINT = 'The session''s user must be a member of a role that owns a model.';
    END IF;
    -- Shared with the other refreshers, exclusive with create_model.
    PERFORM pg_advisory_xact_lock_shared(('tidemark_internal.models'::regclass)::oid::bigint);
    ids := ARRAY(SELECT l.id FROM tidemark_internal.dirty_log l ORDER BY l.id FOR UPDATE SKIP LOCKED);
    IF cardinality(ids) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM tidemark_internal.absorb_marks(ids);
    WITH marks AS (
        DELETE FROM tidemark_internal.dirty_log l WHERE l.id = ANY (ids) RETURNING l.source, l.event_date, l.marked_at, l.only_added)
    INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at, only_added)
    SELECT m.name, k.event_date + shift, min(k.marked_at), bool_and(k.only_added)
      FROM marks k
      JOIN tidemark_internal.model_sources s ON s.source = k.source
      JOIN tidemark_internal.models m ON m.name = s.model
     CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
     GROUP BY m.name, k.event_date + shift;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION tidemark_internal.distribute_dirty() IS
'Part of tidemark.refresh: moves the marks of the dirty log to the models
that read the marked tables, widened by each model''s lookback and lookahead.
Returns the number of model dates marked. The session''s user must be a
member of a role that owns a model.';

CREATE FUNCTION tidemark_internal.is_frozen(model text, event_date date) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 50
SET search_path = pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM tidemark_internal.models m
                 JOIN tidemark_internal.model_sources s ON s.model = m.name
                 JOIN tidemark_internal.retired_dates r ON r.parent = s.source
                WHERE m.name = is_frozen.model
                  AND r.event_date BETWEEN is_frozen.event_date - m.lookback_days AND is_frozen.event_date + m.lookahead_days)
    OR EXISTS (SELECT FROM tidemark_internal.models m
                 JOIN tidemark_internal.retired_dates r ON r.parent = m.target
                WHERE m.name = is_frozen.model AND r.event_date = is_frozen.event_date);
COMMENT ON FUNCTION tidemark_internal.is_frozen(text, date) IS
'Whether a date of a model is frozen: one of the source dates that it reads
was retired, or the date of the model''s own table was. A frozen date is
never recomputed: its rows stay as they are. false for an unknown model.';

CREATE FUNCTION tidemark_internal.models_in_order() RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 ROWS 20
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE depth(name, target, level) AS (
        SELECT m.name, m.target, 0 FROM tidemark_internal.models m
        UNION
        SELECT d.name, d.target, b.level + 1
          FROM depth b
          JOIN tidemark_internal.model_sources s ON s.source = b.target
          JOIN tidemark_internal.models d ON d.name = s.model
         WHERE b.level < 100)
    SELECT x.name FROM depth x GROUP BY x.name ORDER BY max(x.level), x.name;
END
$$;
COMMENT ON FUNCTION tidemark_internal.models_in_order() IS
'The names of all models, each after those that it reads: the order in which
tidemark.refresh works.';

CREATE FUNCTION tidemark_internal.waiting_dates(model text) RETURNS TABLE (event_date date, marked_at timestamptz, frozen boolean)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off  -- the estimates of a recursive query are so high that compiling it would take a second
AS $$
#variable_conflict use_column
BEGIN
    -- plpgsql keeps the plan, which takes longer to make than to run: live views ask several times per query.
    RETURN QUERY
    -- The model, and the models that it reads, directly or through others.
    WITH RECURSIVE below(name) AS (
        SELECT m.name FROM tidemark_internal.models m WHERE m.name = waiting_dates.model
        UNION
        SELECT a.name FROM below b JOIN tidemark_internal.model_sources s ON s.model = b.name JOIN tidemark_internal.models a ON a.target = s.source
    ), cold(name, event_date) AS (
        -- See tidemark_internal.is_frozen.
        SELECT m.name, r.event_date + shift
          FROM below b
          JOIN tidemark_internal.models m ON m.name = b.name
          JOIN tidemark_internal.model_sources s ON s.model = m.name
          JOIN tidemark_internal.retired_dates r ON r.parent = s.source
         CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
        UNION
        SELECT m.name, r.event_date
          FROM below b JOIN tidemark_internal.models m ON m.name = b.name JOIN tidemark_internal.retired_dates r ON r.parent = m.target
    ), marks AS (
        SELECT x.model, x.event_date, min(x.marked_at) AS marked_at
          FROM (SELECT d.model, d.event_date, d.marked_at FROM tidemark_internal.model_dirty d WHERE d.model IN (SELECT b.name FROM below b)
                UNION ALL
                SELECT m.name, l.event_date + shift, l.marked_at
                  FROM (SELECT g.source, g.event_date, min(g.marked_at) AS marked_at FROM tidemark_internal.dirty_log g GROUP BY 1, 2) AS l
                  JOIN tidemark_internal.model_sources s ON s.source = l.source
                  JOIN tidemark_internal.models m ON m.name = s.model
                  JOIN below b ON b.name = m.name
                 CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift) AS x
         GROUP BY 1, 2
    ), waiting AS (
        SELECT k.model, k.event_date, k.marked_at, (k.model, k.event_date) IN (SELECT c.name, c.event_date FROM cold c) AS frozen FROM marks k
        UNION
        -- What is stale below is stale here, except where it will stay as it is.
        SELECT m.name, w.event_date + shift, w.marked_at, (m.name, w.event_date + shift) IN (SELECT c.name, c.event_date FROM cold c)
          FROM waiting w
          JOIN tidemark_internal.models a ON a.name = w.model
          JOIN tidemark_internal.model_sources s ON s.source = a.target
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN below b ON b.name = m.name
         CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
         WHERE NOT w.frozen)
    SELECT w.event_date, min(w.marked_at), bool_or(w.frozen) FROM waiting w
     WHERE w.model = waiting_dates.model
     GROUP BY w.event_date;
END
$$;
COMMENT ON FUNCTION tidemark_internal.waiting_dates(text) IS
'The dates of a model that the marks visible to the calling query make stale,
marks on the models below it included: each date once, with its oldest mark,
and whether it is frozen and so stays as it is. No rows for an unknown
model.';

CREATE FUNCTION tidemark.stale_dates(model text) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = stale_dates.model) THEN
        RAISE EXCEPTION 'model % does not exist', model USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    END IF;
    RETURN ARRAY(SELECT w.event_date FROM tidemark_internal.waiting_dates(model) w WHERE NOT w.frozen ORDER BY 1);
END
$$;
COMMENT ON FUNCTION tidemark.stale_dates(text) IS
'The dates on which the stored rows of a model may differ from what its query
would return, as seen by the calling query: those with marks, those that
read a stale date of another model; frozen dates are not among them.
Ascending; empty when the model is clean. Live views compute exactly these
dates. 42704 for an unknown model.';

CREATE FUNCTION tidemark_internal.date_blockers(source regclass, event_date date) RETURNS TABLE (model text, model_date date, reason text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH readers AS (
        SELECT m.name, m.lookback_days, m.lookahead_days, m.last_refreshed_at
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN pg_class c ON c.oid = m.target  -- a model whose table is gone needs nothing
         WHERE s.source = date_blockers.source)
    SELECT r.name, w.event_date, 'waits for a recompute'
      FROM readers r
     CROSS JOIN LATERAL tidemark_internal.waiting_dates(r.name) w
     WHERE NOT w.frozen
       AND w.event_date BETWEEN date_blockers.event_date - r.lookahead_days AND date_blockers.event_date + r.lookback_days
    UNION ALL
    SELECT r.name, date_blockers.event_date, 'the model was never refreshed'
      FROM readers r WHERE r.last_refreshed_at IS NULL
    UNION ALL
    SELECT r.name, date_blockers.event_date + r.lookback_days, 'the date is not over yet'
      FROM readers r
     WHERE date_blockers.event_date + r.lookback_days >= (now() AT TIME ZONE 'UTC')::date
    ORDER BY 1, 2, 3;
END;
COMMENT ON FUNCTION tidemark_internal.date_blockers(regclass, date) IS
'Why a date of a table must not be retired yet, one row per reason; no rows:
nothing stands in the way. A reason is a model that reads the table and has
a date that needs this one: that date waits for a recompute, or the model
was never refreshed, or the last date that reads this one is not over yet
(UTC). Frozen dates block nothing.';

CREATE VIEW tidemark.model_status AS
SELECT m.name AS model,
       w.dirty_dates,
       w.oldest_dirty_date,
       w.newest_dirty_date,
       w.frozen_dirty_dates,
       m.last_refreshed_at,
       COALESCE(EXTRACT(epoch FROM pg_catalog.now() - w.dirty_since), CASE WHEN m.last_refreshed_at IS NOT NULL THEN 0 END)::numeric(20, 3) AS freshness_seconds,
       m.last_error,
       m.last_error_at,
       ARRAY(SELECT s.source_name FROM tidemark_internal.model_sources s
              WHERE s.model = m.name AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.source) ORDER BY 1) AS missing_sources
  FROM tidemark_internal.models m
 CROSS JOIN LATERAL (
       SELECT pg_catalog.count(*) FILTER (WHERE NOT d.frozen) AS dirty_dates,
              pg_catalog.min(d.event_date) FILTER (WHERE NOT d.frozen) AS oldest_dirty_date,
              pg_catalog.max(d.event_date) FILTER (WHERE NOT d.frozen) AS newest_dirty_date,
              pg_catalog.count(*) FILTER (WHERE d.frozen) AS frozen_dirty_dates,
              pg_catalog.min(d.marked_at) FILTER (WHERE NOT d.frozen) AS dirty_since
         FROM tidemark_internal.waiting_dates(m.name) d) AS w;
GRANT SELECT ON tidemark.model_status TO PUBLIC;
COMMENT ON VIEW tidemark.model_status IS 'One row per model: what waits for a recompute and how it last went.';
COMMENT ON COLUMN tidemark.model_status.model IS 'Name of the model (schema.table).';
COMMENT ON COLUMN tidemark.model_status.dirty_dates IS 'How many dates are stale and wait for a recompute: those of tidemark.stale_dates.';
COMMENT ON COLUMN tidemark.model_status.oldest_dirty_date IS 'The earliest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.newest_dirty_date IS 'The latest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.frozen_dirty_dates IS 'How many dates have marks but stay as they are, because source dates that they read were retired.';
COMMENT ON COLUMN tidemark.model_status.last_refreshed_at IS 'When a date was last recomputed; NULL if never.';
COMMENT ON COLUMN tidemark.model_status.freshness_seconds IS 'For how long the stored rows have been behind the sources: age of the oldest mark that waits, in seconds; 0 when nothing waits, NULL when nothing waits and the model was never refreshed. Frozen dates do not count. The live view is never behind.';
COMMENT ON COLUMN tidemark.model_status.last_error IS 'Date and message of the last failed recompute; NULL once that date succeeded.';
COMMENT ON COLUMN tidemark.model_status.last_error_at IS 'When it failed; NULL while last_error is.';
COMMENT ON COLUMN tidemark.model_status.missing_sources IS 'Tables that the model reads and that were dropped, as schema.table: nothing that happens there is noticed. Empty when all are there. A table created under the same name is taken over by the next refresh.';
-- Recomputing dates of models by minimal diff, and checking stored dates against a recompute.
--
-- One statement computes the rows of a date, compares them byte by byte with the stored ones and writes only what
-- differs, all under one snapshot. It runs as the owner of the model's table.

CREATE FUNCTION tidemark_internal.execute_as_owner(relation regclass, statement text, event_date date DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_execute_as_owner';
COMMENT ON FUNCTION tidemark_internal.execute_as_owner(regclass, text, date) IS
'Part of tidemark.refresh: runs a statement as the owner of a relation, in a
security-restricted operation, with event_date as $1 and the day after as $2
(both NULL without event_date). Returns the first column of the first row as
text, or the number of rows written by a statement that returns none. The
caller must be a member of the role that owns the relation (42501), so it
gives nobody a right that SET ROLE would not.';

CREATE FUNCTION tidemark_internal.read_as_owner(relation regclass, statement text, event_date date DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100000 AS 'MODULE_PATHNAME', 'tidemark_read_as_owner';
COMMENT ON FUNCTION tidemark_internal.read_as_owner(regclass, text, date) IS
'Part of tidemark.verify_model: like tidemark_internal.execute_as_owner for a
statement that only reads, under the snapshot of the calling query.';

CREATE FUNCTION tidemark_internal.horizon_age(model text, event_date date) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT age(l.horizon::xid) FROM tidemark_internal.refresh_log l
         WHERE l.model = horizon_age.model AND l.event_date = horizon_age.event_date ORDER BY l.id DESC LIMIT 1);
COMMENT ON FUNCTION tidemark_internal.horizon_age(text, date) IS
'Part of tidemark.refresh: how many transactions ago the last refresh of a
date of a model began, as age(xid) counts: what is older was seen by it.
NULL when the log does not know.';

CREATE FUNCTION tidemark_internal.append_query(model tidemark_internal.models) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source record;
    copied text[];
    same_key text;
    recent text := '';
    rewritten text;
BEGIN
    SELECT s.source, n.nspname, c.relname INTO source
      FROM tidemark_internal.model_sources s JOIN pg_class c ON c.oid = s.source JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE s.model = model.name
       AND has_table_privilege((SELECT t.relowner FROM pg_class t WHERE t.oid = model.target), c.oid, 'SELECT');
    IF NOT FOUND OR (SELECT count(*) FROM tidemark_internal.model_sources s WHERE s.model = model.name) <> 1 THEN
        RETURN NULL;
    END IF;
    copied := tidemark_internal.read_as_owner(model.target, format('SELECT tidemark_internal.copied_columns(%L)', model.query))::text[];
    IF copied IS NULL OR tidemark_internal.read_as_owner(model.target, format('SELECT tidemark_internal.query_relations(%L)::oid[]', model.query))::oid[] IS DISTINCT FROM ARRAY[source.source::oid] THEN
        RETURN NULL;
    END IF;
    -- Of a key whose columns, but for the date, are the source's own, the rows that are stored already can be told
    -- before anything is computed.
    SELECT string_agg('tidemark_stored.' || quote_ident(k.name) || ' = tidemark_source.' || quote_ident(o.copied), ' AND ' ORDER BY k.n)
      INTO same_key
      FROM unnest(model.key) WITH ORDINALITY AS k(name, n)
      LEFT JOIN unnest(tidemark_internal.read_as_owner(model.target, format('SELECT tidemark_internal.query_columns(%L)', model.query))::text[], copied) AS o(name, copied)
        ON o.name = k.name
      LEFT JOIN pg_attribute t ON t.attrelid = model.target AND t.attname = k.name
      LEFT JOIN pg_attribute s ON s.attrelid = source.source AND s.attname = o.copied
     WHERE k.name <> 'event_date'
    -- Only types of Postgres itself, and enums: the = of another one need not be the one that its indexes use.
    HAVING bool_and(coalesce(t.atttypid = s.atttypid AND t.atttypmod IN (-1, s.atttypmod) AND t.attcollation = s.attcollation
                             AND (t.atttypid < 16384 OR EXISTS (SELECT FROM pg_type y WHERE y.oid = t.atttypid AND y.typtype = 'e')), false));
    IF same_key IS NULL THEN
        RETURN NULL;
    END IF;
    -- Most rows were there at the last refresh of the date, as their transactions say, which spares comparing them with
    -- what is stored. Tables that are no heaps may not know that, nor may their children.
    IF NOT EXISTS (
        WITH RECURSIVE tree(relid) AS (
            SELECT source.source::oid
            UNION
            SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.relid)
        SELECT FROM tree JOIN pg_class c ON c.oid = tree.relid
         WHERE c.relkind <> 'p' AND (c.relkind <> 'r' OR c.relam <> (SELECT a.oid FROM pg_am a WHERE a.amname = 'heap'))) THEN
        recent := format('age(tidemark_source.xmin) <= (SELECT tidemark_internal.horizon_age(%L, $1)) AND ', model.name);
    END IF;
    rewritten := tidemark_internal.rewrite_query(model.query, NULL, NULL, ARRAY[source.nspname]::text[], ARRAY[source.relname]::text[], ARRAY[format(
        '(SELECT tidemark_source.* FROM %s AS tidemark_source WHERE %sNOT EXISTS (SELECT FROM %s AS tidemark_stored WHERE tidemark_stored.event_date = $1 AND %s))',
        source.source, recent, model.target, same_key)]);
    RETURN nullif(rewritten, tidemark_internal.rewrite_query(model.query, NULL, NULL));
END
$$;
COMMENT ON FUNCTION tidemark_internal.append_query(tidemark_internal.models) IS
'Part of tidemark.refresh: the query of a model, made to read only those rows
of its source that came since the last refresh of the date ($1), and for
which no row of the date is stored. NULL for a model
that must be recomputed even if its source only gained rows: see
tidemark_internal.copied_columns; besides, it must have one source, named in the
query itself, and its key must be columns of the source, unchanged, with or
without event_date. The caller must be a member of the role that owns the
table.';

CREATE FUNCTION tidemark_internal.model_statement(model tidemark_internal.models, kind text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;      -- "a", "b"
    computed text;     -- CAST(q."a" AS type) AS "a", ...
    new_row text;
    old_row text;
    assigned text;
    join_keys text;
    keys text;
    null_key text;
    example text;      -- a key as JSON
    append_query text;
BEGIN
    -- Compared as what the table would store: numeric(12, 3) of a numeric, say. A cast to varchar(n) would cut in silence.
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('CAST(q.%1$I AS %2$s) AS %1$I', a.attname,
                             format_type(a.atttypid, CASE WHEN a.atttypid = 'varchar'::regtype THEN -1 ELSE a.atttypmod END)), ', ' ORDER BY a.attnum),
           string_agg(format('new.%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('old.%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('%1$I = d.%1$I', a.attname), ', ' ORDER BY a.attnum)
      INTO columns, computed, new_row, old_row, assigned
      FROM pg_attribute a
     WHERE a.attrelid = model.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    SELECT string_agg(format('new.%1$I = old.%1$I', k), ' AND ' ORDER BY n), string_agg(format('%I', k), ', ' ORDER BY n),
           string_agg(format('%I IS NULL', k), ' OR ' ORDER BY n),
           format('jsonb_build_object(%s)::text', string_agg(format('%1$L, %1$I', k), ', ' ORDER BY n))
      INTO join_keys, keys, null_key, example
      FROM unnest(model.key) WITH ORDINALITY AS x(k, n);
    CASE kind
        WHEN 'build', 'fill' THEN
            RETURN CASE kind WHEN 'build' THEN format('INSERT INTO %s ', model.target) ELSE '' END
                || format('(%1$s) SELECT %1$s FROM (%2$s' || E'\n' || ') AS q WHERE q.event_date = $1', columns, model.query);
        WHEN 'built' THEN
            RETURN format('SELECT %1$s FROM %2$s WHERE event_date = $1 GROUP BY %3$s HAVING count(*) > 1 OR %4$s LIMIT 1', example, model.target, keys, null_key);
        WHEN 'append' THEN
            -- Counted, so that a row which went without a mark, or a key that comes twice, is not passed over.
            append_query := tidemark_internal.append_query(model);
            RETURN CASE WHEN append_query IS NOT NULL THEN format(
                'WITH added AS (INSERT INTO %1$s (%2$s) SELECT %3$s FROM (%4$s' || E'\n' || ') AS q WHERE q.event_date = $1 RETURNING %9$s)
                 SELECT json_build_object(''inserted'', (SELECT count(*) FROM added),
                    ''surplus'', (SELECT count(*) FROM %1$s AS t WHERE t.event_date = $1) + (SELECT count(*) FROM added)
                                 - (SELECT count(*) FROM (%6$s' || E'\n' || ') AS q WHERE q.event_date = $1),
                    ''wrong'', (SELECT %7$s FROM added GROUP BY %5$s HAVING count(*) > 1 OR %8$s LIMIT 1),
                    ''elsewhere'', (SELECT count(*) FROM added WHERE event_date IS DISTINCT FROM $1))',
                model.target, columns, computed, append_query, keys, model.query, example, null_key,
                keys || CASE WHEN 'event_date' = ANY (model.key) THEN '' ELSE ', event_date' END) END;
        WHEN 'diff', 'compare' THEN
            -- Deleted before updated before inserted: each part waits for the count of the one before, so that a value
            -- which is unique in the table can move from one row to another.
            RETURN format(
                'WITH new AS MATERIALIZED (SELECT true AS tidemark_new, %2$s FROM (%3$s' || E'\n' || ') AS q WHERE q.event_date = $1),
                 old AS (SELECT t.tableoid AS tidemark_table, t.ctid AS tidemark_row, t.* FROM %1$s AS t WHERE t.event_date = $1),
                 wrong AS (SELECT %4$s AS key FROM new GROUP BY %5$s HAVING count(*) > 1 OR %6$s LIMIT 1),
                 diff AS MATERIALIZED (
                    SELECT old.tidemark_table, old.tidemark_row, new.tidemark_new, %7$s FROM new FULL JOIN old ON %8$s
                     WHERE new.tidemark_new IS NULL OR old.tidemark_row IS NULL OR ROW(%7$s)::record OPERATOR(pg_catalog.*<>) ROW(%9$s)::record)',
                model.target, computed, model.query, example, keys, null_key, new_row, join_keys, old_row)
                || CASE kind WHEN 'diff' THEN format(
                ', deleted AS (DELETE FROM %1$s AS t USING diff AS d
                     WHERE t.event_date = $1 AND t.tableoid = d.tidemark_table AND t.ctid = d.tidemark_row AND d.tidemark_new IS NULL RETURNING 1),
                 updated AS (UPDATE %1$s AS t SET %2$s FROM diff AS d
                     WHERE t.event_date = $1 AND t.tableoid = d.tidemark_table AND t.ctid = d.tidemark_row AND d.tidemark_new
                       AND (SELECT count(*) FROM deleted) >= 0 RETURNING t.event_date),
                 inserted AS (INSERT INTO %1$s (%3$s) SELECT %3$s FROM diff AS d
                     WHERE d.tidemark_row IS NULL AND (SELECT count(*) FROM updated) >= 0 RETURNING event_date)
                 SELECT json_build_object(''deleted'', (SELECT count(*) FROM deleted), ''updated'', (SELECT count(*) FROM updated),
                    ''inserted'', (SELECT count(*) FROM inserted), ''wrong'', (SELECT key FROM wrong),
                    ''elsewhere'', (SELECT count(*) FROM (SELECT event_date FROM updated UNION ALL SELECT event_date FROM inserted) AS w WHERE event_date IS DISTINCT FROM $1))',
                model.target, assigned, columns)
                ELSE format(
                ' SELECT json_build_object(''missing'', count(*) FILTER (WHERE d.tidemark_row IS NULL), ''extra'', count(*) FILTER (WHERE d.tidemark_new IS NULL),
                    ''different'', count(*) FILTER (WHERE d.tidemark_row IS NOT NULL AND d.tidemark_new),
                    ''stored'', (SELECT count(*) FROM old), ''computed'', (SELECT count(*) FROM new), ''wrong'', (SELECT key FROM wrong),
                    ''example'', (SELECT %1$s FROM (SELECT %2$s FROM diff JOIN old ON old.tidemark_table = diff.tidemark_table AND old.tidemark_row = diff.tidemark_row
                                  UNION ALL SELECT %3$s FROM diff WHERE diff.tidemark_row IS NULL) AS e ORDER BY %4$s LIMIT 1)) FROM diff AS d',
                example, (SELECT string_agg(format('old.%I', k), ', ' ORDER BY n) FROM unnest(model.key) WITH ORDINALITY AS x(k, n)),
                (SELECT string_agg(format('diff.%I', k), ', ' ORDER BY n) FROM unnest(model.key) WITH ORDINALITY AS x(k, n)), keys)
                END;
        ELSE
            RAISE EXCEPTION 'kind must be build, fill, built, append, diff or compare, got %', kind USING ERRCODE = '22023';
    END CASE;
END
$$;
COMMENT ON FUNCTION tidemark_internal.model_statement(tidemark_internal.models, text) IS
'Part of tidemark.refresh and tidemark.verify_model: the statement that works
on one date ($1, and the day after as $2) of a model. kind: build inserts
it, fill is the same without INSERT INTO and the table, built looks for a
doubled or NULL key afterwards, append adds the rows that are missing if the
source only gained rows (NULL for a model that cannot do so, see
tidemark_internal.append_query), diff brings the stored rows in line, compare only
says how they differ. Useful to EXPLAIN.';

CREATE FUNCTION tidemark_internal.refresh_date(model tidemark_internal.models, event_date date, only_added boolean,
    OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT appended boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET jit = off  -- a plan per date: compiling it costs more than it gains
AS $$
DECLARE
    wrong text;
    elsewhere bigint := 0;
    result json;
    may_fill boolean;
    filled boolean := false;
    append text;
    stored constant text := format('SELECT count(*) FROM %s WHERE event_date = $1', model.target);
BEGIN
    IF isfinite(event_date) AND EXISTS (
        SELECT FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
         WHERE p.partrelid = model.target AND p.partstrat = 'r' AND p.partnatts = 1 AND a.atttypid = 'timestamptz'::regtype) THEN
        -- A partition that is made is filled before it has indexes: they are built in far less time than they are kept up.
        -- Not behind the back of triggers.
        may_fill := NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = model.target AND NOT t.tgisinternal);
        filled := tidemark_internal.execute_as_owner(model.target, format('SELECT cardinality(tidemark_internal.create_partitions(%L, $1, $1, %L)) > 0',
            model.target::text, CASE WHEN may_fill THEN tidemark_internal.model_statement(model, 'fill') END), event_date)::boolean AND may_fill;
    END IF;
    appended := false;
    IF NOT filled AND tidemark_internal.execute_as_owner(model.target, format('SELECT EXISTS (SELECT FROM %s WHERE event_date = $1)', model.target), event_date)::boolean THEN
        -- Not over a change of columns, which may have changed stored rows or what the query makes of old ones.
        IF only_added AND (SELECT max(age(a.xmin)) IS NOT NULL AND min(age(a.xmin)) > tidemark_internal.horizon_age(model.name, refresh_date.event_date)
                             FROM pg_attribute a
                            WHERE a.attrelid = model.target OR a.attrelid IN (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name)) THEN
            BEGIN
                append := tidemark_internal.model_statement(model, 'append');
                IF append IS NOT NULL THEN
                    result := tidemark_internal.execute_as_owner(model.target, append, event_date)::json;
                    appended := result ->> 'wrong' IS NULL AND (result ->> 'surplus')::bigint = 0 AND (result ->> 'elsewhere')::bigint = 0;
                    IF NOT appended THEN
                        RAISE EXCEPTION 'not as expected' USING ERRCODE = 'TM002';
                    END IF;
                    inserted := result ->> 'inserted';
                    updated := 0;
                    deleted := 0;
                    RETURN;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                -- Undone. Whatever the matter is, a recompute sets it right or says what it is.
                appended := false;
            END;
        END IF;
        result := tidemark_internal.execute_as_owner(model.target, tidemark_internal.model_statement(model, 'diff'), event_date)::json;
        inserted := result ->> 'inserted';
        updated := result ->> 'updated';
        deleted := result ->> 'deleted';
        wrong := result ->> 'wrong';
        elsewhere := result ->> 'elsewhere';
    ELSE
        inserted := tidemark_internal.execute_as_owner(model.target, CASE WHEN filled THEN stored ELSE tidemark_internal.model_statement(model, 'build') END, event_date)::bigint;
        updated := 0;
        deleted := 0;
        -- A unique index on columns of the key, none of them NULL, has checked it already.
        IF inserted > 0 AND NOT EXISTS (
            SELECT FROM pg_index i
             WHERE i.indrelid = model.target AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
               AND NOT EXISTS (SELECT FROM unnest(i.indkey[:i.indnkeyatts - 1]::smallint[]) AS c(attnum)
                                 JOIN pg_attribute a ON a.attrelid = model.target AND a.attnum = c.attnum
                                WHERE NOT a.attname = ANY (model.key))
               AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = model.target AND a.attname = ANY (model.key) AND NOT a.attnotnull)) THEN
            wrong := tidemark_internal.execute_as_owner(model.target, tidemark_internal.model_statement(model, 'built'), event_date);
        END IF;
        IF NOT filled AND inserted > 0 AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = model.target AND a.attname = 'event_date' AND a.attgenerated <> '') THEN
            elsewhere := inserted - tidemark_internal.execute_as_owner(model.target, stored, event_date)::bigint;
        END IF;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'query of model % returns a key that is NULL or not unique', model.name
            USING ERRCODE = '21000', DETAIL = format('On %s it returns %s.', event_date, wrong),
                  HINT = format('The key is (%s): group by it, or give create_model another key.', array_to_string(model.key, ', '));
    ELSIF elsewhere <> 0 THEN
        RAISE EXCEPTION 'query of model % returns rows whose stored event_date is not the one it says', model.name
            USING ERRCODE = '22023', DETAIL = format('On %s these are %s rows.', event_date, elsewhere),
                  HINT = 'event_date is a generated column of the table; the query must compute it in the same way.';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_date(tidemark_internal.models, date, boolean) IS
'Part of tidemark.refresh: brings the stored rows of one date in line with
what the query returns, as the owner of the table, and says how many rows
that took. Makes the partition of the date if the table has daily ones.
only_added: nothing but added rows has happened to the source since the date
was last refreshed; then only these are computed where the model allows it
(appended), and the numbers of rows are compared afterwards.
Takes no marks away. 21000: the query returns a key that is NULL or not
unique.';

CREATE FUNCTION tidemark_internal.refresh_step(model text, skip text[], run timestamptz DEFAULT NULL,
    OUT refreshed_model text, OUT refreshed_date date, OUT error text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    candidate text;
    m tidemark_internal.models;
    began timestamptz;
    change record;
    changed boolean;
    only_added boolean;
    horizon xid8;
BEGIN
    -- Models that others read come first; among a model's dates the newest, which dashboards look at most.
    FOR candidate IN
        SELECT x FROM tidemark_internal.models_in_order() AS x WHERE refresh_step.model IS NULL OR x = refresh_step.model
    LOOP
        CONTINUE WHEN NOT tidemark_internal.is_member_of_model(candidate);
        CONTINUE WHEN NOT EXISTS (SELECT FROM tidemark_internal.model_dirty d WHERE d.model = candidate);
        -- One refresher per model; if another session has it, look for other work.
        SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = candidate FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        -- OFFSET 0: the conditions are looked at date by date until one fits, not for all dates that wait.
        SELECT d.event_date INTO refreshed_date
          FROM (SELECT DISTINCT x.event_date FROM tidemark_internal.model_dirty x WHERE x.model = candidate ORDER BY 1 DESC OFFSET 0) AS d
         WHERE NOT (candidate || ' ' || d.event_date) = ANY (skip) AND NOT tidemark_internal.is_frozen(candidate, d.event_date)
         LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        refreshed_model := candidate;
        began := clock_timestamp();
        horizon := pg_snapshot_xmin(pg_current_snapshot());
        BEGIN
            -- Marks go first, the sources are read by later statements with a newer snapshot (see the top of models.sql).
            WITH gone AS (DELETE FROM tidemark_internal.model_dirty d WHERE d.model = candidate AND d.event_date = refreshed_date RETURNING d.only_added)
            SELECT bool_and(g.only_added) INTO only_added FROM gone g;
            SELECT * INTO change FROM tidemark_internal.refresh_date(m, refreshed_date, only_added);
            -- A partition may have been detached since the date was chosen: then the rows computed are too few.
            IF tidemark_internal.is_frozen(candidate, refreshed_date) THEN
                RAISE EXCEPTION 'a source retired its rows meanwhile' USING ERRCODE = 'TM001';
            END IF;
            changed := change.inserted + change.updated + change.deleted > 0;
            -- Only models that read this one care, and only if there is something new to read.
            IF changed AND EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE s.source = m.target) THEN
                INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added)
                -- A recompute may have found rows to insert where none came: rows that somebody deleted from the table.
                VALUES (m.target, refreshed_date, 'refreshed ' || candidate, change.appended);
            END IF;
            UPDATE tidemark_internal.models x
               SET refresh_count = x.refresh_count + 1, change_count = x.change_count + changed::integer, last_refreshed_at = clock_timestamp()
             WHERE x.name = candidate;
            -- Another date's success cures nothing: an error stays until its own date, or whatever waits, is done.
            UPDATE tidemark_internal.models x SET last_error = NULL, last_error_at = NULL
             WHERE x.name = candidate AND x.last_error IS NOT NULL
               AND (starts_with(x.last_error, refreshed_date || ':')
                    OR NOT EXISTS (SELECT FROM tidemark_internal.model_dirty d WHERE d.model = candidate));
            INSERT INTO tidemark_internal.refresh_log (run, model, event_date, refreshed_at, rows_inserted, rows_updated, rows_deleted, seconds, appended, horizon)
            VALUES (coalesce(refresh_step.run, began), candidate, refreshed_date, clock_timestamp(), change.inserted, change.updated, change.deleted,
                    extract(epoch FROM clock_timestamp() - began), change.appended, horizon);
        EXCEPTION
          WHEN SQLSTATE 'TM001' THEN
            -- Undone, marks included; from now on the date is passed over as frozen.
            NULL;
          WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS error = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
            detail := nullif(detail, '');
            UPDATE tidemark_internal.models x SET last_error = refreshed_date || ': ' || error, last_error_at = clock_timestamp() WHERE x.name = candidate;
        END;
        RETURN;
    END LOOP;
    refreshed_date := NULL;
    -- Nothing left to do: a good time to keep the log small.
    DELETE FROM tidemark_internal.refresh_log l WHERE l.id <= (SELECT max(x.id) - 100000 FROM tidemark_internal.refresh_log x);
    DELETE FROM tidemark_internal.refresh_log l
     WHERE l.refreshed_at < now() - interval '30 days' AND l.id < (SELECT min(x.id) + 10000 FROM tidemark_internal.refresh_log x);
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_step(text, text[], timestamptz) IS
'Part of tidemark.refresh: recomputes one dirty date of one model, of those
whose owner the caller is a member of, and says which, with the error if it
failed; all NULL when nothing is left to do. skip holds ''model date'' entries
to pass over: those done before. run is what the refresh log records. Marks
must have been distributed before.';

CREATE PROCEDURE tidemark.refresh(model text DEFAULT NULL, max_dates integer DEFAULT NULL)
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit. Hence every name is qualified, operators too.
DECLARE
    step pg_catalog.record;
    -- Each date of a model once per call: a source that is loaded without a pause would otherwise be computed again and
    -- again, and the models that read it never. What is marked anew meanwhile waits for the next call.
    done pg_catalog.text[] := '{}';
    failed pg_catalog.int4 := 0;
    run pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF model IS NOT NULL AND NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name OPERATOR(pg_catalog.=) model) THEN
        RAISE EXCEPTION 'model % does not exist', model USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    ELSIF model IS NOT NULL AND NOT tidemark_internal.is_member_of_model(model) THEN
        RAISE EXCEPTION 'permission denied to refresh model %', model
            USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns its table.';
    ELSIF EXISTS (SELECT FROM tidemark_internal.models) AND NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE tidemark_internal.is_member_of_owner(m.target)) THEN
        RAISE EXCEPTION 'permission denied to refresh any model'
            USING ERRCODE = '42501', HINT = 'The caller must be a member of a role that owns the table of a model.';
    END IF;
    PERFORM tidemark_internal.adopt_sources();
    COMMIT;
    WHILE max_dates IS NULL OR pg_catalog.cardinality(done) OPERATOR(pg_catalog.<) max_dates LOOP
        -- In a transaction of its own: the recompute of a long date must not hold marks that others wait for.
        PERFORM tidemark_internal.distribute_dirty();
        COMMIT;
        SELECT * INTO step FROM tidemark_internal.refresh_step(model, done, run);
        COMMIT;
        EXIT WHEN step.refreshed_model IS NULL;
        done := pg_catalog.array_append(done, pg_catalog.concat(step.refreshed_model, ' ', step.refreshed_date));
        IF step.error IS NOT NULL THEN
            failed := failed OPERATOR(pg_catalog.+) 1;
            IF step.detail IS NULL THEN
                RAISE WARNING 'model %, date %: %', step.refreshed_model, step.refreshed_date, step.error;
            ELSE
                RAISE WARNING 'model %, date %: %', step.refreshed_model, step.refreshed_date, step.error USING DETAIL = step.detail;
            END IF;
        END IF;
    END LOOP;
    IF failed OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% model dates could not be refreshed', failed
            USING HINT = 'The warnings above and tidemark.model_status say why; the dates stay dirty.';
    END IF;
END
$$;
COMMENT ON PROCEDURE tidemark.refresh(text, integer) IS
'Recomputes the dirty dates of one model (schema.table), or of all models in
dependency order when model is NULL; at most max_dates dates, all when NULL.
Each date is done in a transaction of its own, and only rows that differ are
written; an interrupted refresh loses only the date in work and the next
call goes on. A call recomputes each date of a model at most once, so it
ends and reaches every model while sources are being loaded; what is marked
meanwhile waits for the next. CALL it outside a transaction block. Queries
run as the owner
of each model''s table; models whose owner the caller is no member of are
passed over (42501 if named, or if there is no other). Frozen dates are left
alone. Dates that fail stay dirty, are reported as warnings, and make the
call fail at its end.';

CREATE FUNCTION tidemark.verify_model(name text, from_date date, to_date date) RETURNS TABLE (event_date date, status text, detail text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET jit = off  -- a plan per date: compiling it costs more than it gains
AS $$
DECLARE
    m tidemark_internal.models;
    stale date[];
    statement text;
    result json;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = verify_model.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', name USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    ELSIF from_date IS NULL OR to_date IS NULL OR NOT isfinite(from_date) OR NOT isfinite(to_date) THEN
        RAISE EXCEPTION 'from_date and to_date must be finite dates' USING ERRCODE = '22023';
    ELSIF to_date < from_date THEN
        RAISE EXCEPTION 'to_date must not be before from_date' USING ERRCODE = '22023';
    END IF;
    stale := tidemark.stale_dates(name);
    statement := tidemark_internal.model_statement(m, 'compare');
    FOR event_date IN SELECT d::date FROM generate_series(from_date::timestamp, to_date::timestamp, interval '1 day') AS d LOOP
        detail := NULL;
        IF tidemark_internal.is_frozen(name, event_date) THEN
            status := 'frozen';
            detail := 'source rows were retired: the stored rows stay as they are';
        ELSIF event_date = ANY (stale) THEN
            status := 'stale';
            detail := 'marks wait: refresh first';
        ELSE
            result := tidemark_internal.read_as_owner(m.target, statement, event_date)::json;
            IF result ->> 'wrong' IS NOT NULL THEN
                status := 'different';
                detail := format('the query returns a key that is NULL or not unique: %s', result ->> 'wrong');
            ELSIF result ->> 'example' IS NOT NULL OR (result ->> 'stored')::bigint <> (result ->> 'computed')::bigint THEN
                status := 'different';
                detail := format('of %s stored and %s computed rows %s are missing, %s too many, %s different',
                                 result ->> 'stored', result ->> 'computed', result ->> 'missing', result ->> 'extra', result ->> 'different')
                          || coalesce(', for example ' || (result ->> 'example'), '');
            ELSE
                status := 'ok';
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.verify_model(text, date, date) IS
'Recomputes each date from from_date to to_date (both inclusive) and compares
it with the stored rows byte by byte, under the snapshot of the calling
query and without writing anything. status: ok; different (detail counts
rows that are missing, too many or different, with the key of one); stale
(marks wait for a refresh, so it was not compared); frozen (cannot be
compared: source rows were retired). The caller must be a member of the role
that owns the table. 42704: no such model; 22023: bad dates.';
-- Registering models and taking them away again.

CREATE FUNCTION tidemark_internal.source_dates(target regclass, source regclass) RETURNS date[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    key_column name;
BEGIN
    SELECT a.attname INTO key_column
      FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
     WHERE p.partrelid = source AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partdefid = 0 AND a.atttypid = 'timestamptz'::regtype;
    IF FOUND AND NOT EXISTS (SELECT FROM tidemark.partitions(source) p WHERE NOT isfinite(p.from_date) OR NOT isfinite(p.to_date)) THEN
        -- One look into each day's partition instead of a scan of all rows. OFFSET 0 keeps it one: as a join it would
        -- read all partitions for each date, since nothing but the date of the outer row says which are needed.
        RETURN tidemark_internal.execute_as_owner(target, format(
            'SELECT coalesce(array_agg(x.d), ''{}'') FROM (
                SELECT DISTINCT d::date AS d FROM tidemark.partitions(%1$L) p, generate_series(p.from_date::timestamp, p.to_date::timestamp, interval ''1 day'') AS d) AS x
              WHERE EXISTS (SELECT FROM %2$s s WHERE s.%3$I >= x.d::timestamp AT TIME ZONE ''UTC'' AND s.%3$I < (x.d + 1)::timestamp AT TIME ZONE ''UTC'' OFFSET 0)',
            source::text, source, key_column))::date[];
    ELSIF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'source % has no column event_date of type date', source
            USING ERRCODE = '42703', HINT = 'Add one, generated from its event time, or partition the table by range of one timestamptz column.';
    END IF;
    RETURN tidemark_internal.execute_as_owner(target, format(
        'SELECT coalesce(array_agg(d), ''{}'') FROM (SELECT DISTINCT event_date AS d FROM %s) AS x WHERE d IS NOT NULL', source))::date[];
END
$$;
COMMENT ON FUNCTION tidemark_internal.source_dates(regclass, regclass) IS
'Part of tidemark.create_model: the UTC dates that a source holds rows of,
read as the owner of target.';

CREATE FUNCTION tidemark.mark_all_dates(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    source regclass;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = mark_all_dates.model;
    FOR source IN SELECT s.source FROM tidemark_internal.model_sources s JOIN pg_class c ON c.oid = s.source WHERE s.model = m.name LOOP
        INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at)
        SELECT DISTINCT m.name, d + shift, now()
          FROM unnest(tidemark_internal.source_dates(m.target, source)) AS d, generate_series(-m.lookahead_days, m.lookback_days) AS shift;
    END LOOP;
    INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at)
    SELECT m.name, d, now() FROM unnest(tidemark_internal.source_dates(m.target, m.target)) AS d;
END
$$;
COMMENT ON FUNCTION tidemark.mark_all_dates(text) IS
'Part of tidemark.create_model: makes every date of a registered model dirty
that its sources or its table hold rows of.';

CREATE FUNCTION tidemark_internal.check_model(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    columns text[];
    wrong text;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = check_model.model;
    columns := tidemark_internal.query_columns(m.query);
    SELECT c INTO wrong FROM unnest(columns) AS c
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.target AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % returns column %, which the table does not have', m.name, quote_ident(wrong)
            USING ERRCODE = '42703', HINT = format('Add it first: ALTER TABLE %s ADD COLUMN %I ...;', m.target, wrong);
    END IF;
    SELECT a.attname INTO wrong FROM pg_attribute a
     WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND NOT a.attname = ANY (columns)
     ORDER BY a.attnum LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % does not return column % of the table', m.name, quote_ident(wrong)
            USING ERRCODE = '42703', HINT = format('Select it in the query, or drop it: ALTER TABLE %s DROP COLUMN %I;', m.target, wrong);
    ELSIF NOT 'event_date' = ANY (columns) OR NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = m.target AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'model % has no column event_date of type date', m.name
            USING ERRCODE = '42703', HINT = 'Select it in the query: it says which date a row belongs to.';
    END IF;
    SELECT k INTO wrong FROM unnest(m.key) AS k
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.target AND a.attname = k AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'key of model % names column %, which its query does not fill', m.name, quote_ident(wrong) USING ERRCODE = '42703';
    END IF;
    SELECT a.name INTO wrong FROM unnest(tidemark_internal.query_relations(m.query)) AS r JOIN tidemark_internal.models a ON a.target = r
     WHERE NOT EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE s.model = m.name AND s.source = r) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % reads model %, which is not among its sources', m.name, wrong
            USING ERRCODE = '42P17', HINT = CASE WHEN wrong = m.name THEN 'A model must not read itself.' ELSE format('Add %s to sources, so that its changes are followed.', wrong) END;
    END IF;
    -- Postgres's own judgement of types, privileges and comparability of the key, as the owner of the table.
    PERFORM tidemark_internal.execute_as_owner(m.target, 'EXPLAIN ' || tidemark_internal.model_statement(m, 'build'), '2000-01-01'),
            tidemark_internal.execute_as_owner(m.target, 'EXPLAIN ' || tidemark_internal.model_statement(m, 'diff'), '2000-01-01');
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_model(text) IS
'Part of tidemark.create_model: raises an error unless the query and the key
of a registered model fit its table and its sources.';

CREATE FUNCTION tidemark.create_model(name text, sources regclass[], query text, key name[], lookback_days integer DEFAULT 0, lookahead_days integer DEFAULT 0, live boolean DEFAULT false) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    parts text[];
    model_table regclass;
    old tidemark_internal.models;
    old_sources regclass[];
    source regclass;
BEGIN
    IF name IS NULL OR sources IS NULL OR cardinality(sources) = 0 OR query IS NULL OR key IS NULL OR cardinality(key) = 0 THEN
        RAISE EXCEPTION 'sources, query and key must not be empty' USING ERRCODE = '22023';
    ELSIF lookback_days IS NULL OR lookahead_days IS NULL OR lookback_days NOT BETWEEN 0 AND 1000 OR lookahead_days NOT BETWEEN 0 AND 1000 THEN
        RAISE EXCEPTION 'lookback_days and lookahead_days must be between 0 and 1000' USING ERRCODE = '22023';
    ELSIF array_position(sources, NULL::regclass) IS NOT NULL OR array_position(key, NULL::name) IS NOT NULL THEN
        RAISE EXCEPTION 'sources and key must not contain NULL' USING ERRCODE = '22004';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would miss dates whose marks were distributed while the model was not there.
        RAISE EXCEPTION 'create_model needs the isolation level READ COMMITTED' USING ERRCODE = '25001';
    END IF;
    parts := parse_ident(name);
    IF cardinality(parts) <> 2 THEN
        RAISE EXCEPTION 'name must be schema.table, got %', name USING ERRCODE = '22023';
    END IF;
    name := format('%I.%I', parts[1], parts[2]);
    query := tidemark_internal.rewrite_query(query, NULL, NULL);
    FOREACH source IN ARRAY sources LOOP
        IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = source AND c.relkind IN ('r', 'p', 'f')) THEN
            RAISE EXCEPTION 'source % is not a table', source
                USING ERRCODE = '42809', HINT = 'Marks are about tables: name those that the view reads, or the table of a model instead of its live view.';
        END IF;
    END LOOP;
    model_table := to_regclass(name);
    IF model_table IS NULL THEN
        EXECUTE format('CREATE TABLE %s AS SELECT * FROM (%s' || E'\n' || ') AS q WITH NO DATA', name,
            tidemark_internal.rewrite_query(query, '(NULL::pg_catalog.date)', '(NULL::pg_catalog.date)'));
        model_table := name::regclass;
        EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY (%s)', model_table,
            (SELECT string_agg(format('%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY AS x(k, n)));
    ELSIF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = model_table AND c.relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '% is not a table', model_table USING ERRCODE = '42809';
    ELSIF NOT tidemark_internal.is_member_of_owner(model_table) THEN
        RAISE EXCEPTION 'must be owner of table %', model_table
            USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns it.';
    END IF;
    FOREACH source IN ARRAY sources LOOP
        IF NOT (SELECT has_table_privilege(c.relowner, source, 'SELECT') OR has_any_column_privilege(c.relowner, source, 'SELECT')
                  FROM pg_class c WHERE c.oid = model_table) THEN
            RAISE EXCEPTION 'permission denied for source %', source
                USING ERRCODE = '42501', HINT = format('The query runs as the owner of %s, who needs SELECT on it.', model_table);
        END IF;
    END LOOP;

    -- Marks distributed while the model is not yet visible would pass it by.
    PERFORM pg_advisory_xact_lock(('tidemark_internal.models'::regclass)::oid::bigint);
    SELECT * INTO old FROM tidemark_internal.models m WHERE m.name = create_model.name FOR UPDATE;
    old_sources := ARRAY(SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = create_model.name ORDER BY s.source);
    INSERT INTO tidemark_internal.models AS m (name, target, query, key, lookback_days, lookahead_days)
    VALUES (name, model_table, query, key, lookback_days, lookahead_days)
    ON CONFLICT ON CONSTRAINT models_pkey DO UPDATE
       SET target = excluded.target, query = excluded.query, key = excluded.key,
           lookback_days = excluded.lookback_days, lookahead_days = excluded.lookahead_days;
    DELETE FROM tidemark_internal.model_sources s WHERE s.model = name AND NOT s.source = ANY (sources);
    INSERT INTO tidemark_internal.model_sources (model, source, source_name)
    SELECT name, c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (sources)
    ON CONFLICT ON CONSTRAINT model_sources_pkey DO UPDATE SET source_name = excluded.source_name;
    IF EXISTS (
        WITH RECURSIVE reads(target, path) AS (
            SELECT model_table, ARRAY[model_table]
            UNION ALL
            SELECT s.source, r.path || s.source
              FROM reads r
              JOIN tidemark_internal.models m ON m.target = r.target
              JOIN tidemark_internal.model_sources s ON s.model = m.name
             WHERE cardinality(r.path) < 100 AND NOT s.source = ANY (r.path[2:]))
        SELECT FROM reads r WHERE r.target = model_table AND cardinality(r.path) > 1) THEN
        RAISE EXCEPTION 'model % would read itself through its sources', name USING ERRCODE = '22023';
    END IF;
    PERFORM tidemark_internal.check_model(name);
    -- In a partition of a day nobody looks for a date.
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = model_table AND c.relkind = 'p')
       AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = model_table AND a.attname = 'event_date') THEN
        PERFORM tidemark_internal.execute_as_owner(model_table, format('CREATE INDEX ON %s (event_date)', model_table));
    END IF;

    -- A new definition makes every date dirty that a source or the table holds.
    IF old.name IS NULL OR (old.target, old.query, old.key, old.lookback_days, old.lookahead_days) IS DISTINCT FROM (model_table, query, key, lookback_days, lookahead_days)
       OR old_sources IS DISTINCT FROM ARRAY(SELECT DISTINCT s FROM unnest(sources) AS s ORDER BY 1) THEN
        PERFORM tidemark.mark_all_dates(name);
    END IF;

    IF live THEN
        PERFORM tidemark_internal.create_live_view(name);
    ELSIF old.live_view IS NOT NULL THEN
        UPDATE tidemark_internal.models m SET live_view = NULL WHERE m.name = create_model.name;
        PERFORM tidemark_internal.execute_as_owner(model_table, format('DROP VIEW IF EXISTS %s', old.live_view));
    END IF;
    RETURN model_table;
END
$$;
COMMENT ON FUNCTION tidemark.create_model(text, regclass[], text, name[], integer, integer, boolean) IS
'Registers a model: a table (created from the query if it does not exist,
with key as its primary key) whose rows for one event_date are what query
returns for it. query is one SELECT with $1 (first date) and $2 (end date,
exclusive) and schema-qualified names, which has every column of the table
by name, event_date among them; it may read its sources (tables, also those
of other models) from $1 - lookback_days to $2 + lookahead_days. It runs as
the owner of the table. live: also a view <name>_live that is exact at any
moment. All dates that the sources and the table hold become dirty when the
model is new or query, sources, key, lookback or lookahead changed;
otherwise calling it again does nothing. Returns the table.';

CREATE FUNCTION tidemark_internal.adopt_sources() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lost record;
    damaged text;
    adopted bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.source)) THEN
        RETURN 0;
    END IF;
    -- As in create_model: marks of the new table that were distributed before it is known would pass the model by.
    PERFORM pg_advisory_xact_lock(('tidemark_internal.models'::regclass)::oid::bigint);
    FOR lost IN
        -- By way of the catalog: to_regclass fails for a schema that the caller may not use.
        SELECT s.model, s.source, s.source_name, c.oid AS found
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN pg_namespace n ON n.nspname = (parse_ident(s.source_name))[1]
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = (parse_ident(s.source_name))[2] AND c.relkind IN ('r', 'p', 'f')
         WHERE NOT EXISTS (SELECT FROM pg_class x WHERE x.oid = s.source)
           AND NOT EXISTS (SELECT FROM tidemark_internal.model_sources o WHERE o.model = s.model AND o.source = c.oid)
           AND c.oid <> m.target AND tidemark_internal.is_member_of_model(s.model)
         ORDER BY s.model, s.source_name
    LOOP
        BEGIN
            UPDATE tidemark_internal.model_sources s SET source = lost.found WHERE s.model = lost.model AND s.source = lost.source;
            -- What it held before is gone, and with it what was marked: every date may be another one now.
            PERFORM tidemark.mark_all_dates(lost.model);
            UPDATE tidemark_internal.models m SET last_error = NULL, last_error_at = NULL
             WHERE m.name = lost.model AND starts_with(m.last_error, 'source ' || lost.source_name || ' ');
            adopted := adopted + 1;
        EXCEPTION WHEN OTHERS THEN
            -- One table that does not fit must not hold up the other models.
            UPDATE tidemark_internal.models m
               SET last_error = format('source %s was created anew and cannot be read: %s', lost.source_name, SQLERRM), last_error_at = clock_timestamp()
             WHERE m.name = lost.model;
            RAISE WARNING 'model %: source % was created anew and cannot be read: %', lost.model, lost.source_name, SQLERRM;
        END;
    END LOOP;
    -- Whoever dropped the table with CASCADE took live views along, also those of models above.
    FOR damaged IN
        SELECT o.name
          FROM tidemark_internal.models_in_order() WITH ORDINALITY AS o(name, n) JOIN tidemark_internal.models m ON m.name = o.name
         WHERE adopted > 0 AND m.live_view IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.live_view)
           AND tidemark_internal.is_member_of_model(o.name)
         ORDER BY o.n
    LOOP
        BEGIN
            PERFORM tidemark_internal.create_live_view(damaged);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'model %: its live view cannot be created again: %', damaged, SQLERRM;
        END;
    END LOOP;
    RETURN adopted;
END
$$;
COMMENT ON FUNCTION tidemark_internal.adopt_sources() IS
'Part of tidemark.refresh: where a table that a model reads was dropped and
another one created under its name, the model follows that one from now on.
Every date of the model becomes dirty, and live views that were dropped
along are created again. Returns how many tables were taken over; 0 when
none was. A table that the model cannot read (no event_date, no SELECT for
the owner of the model''s table) is left, with a warning and in last_error
of tidemark.model_status. Models whose owner the caller is no member of are
passed over.';

CREATE FUNCTION tidemark.drop_model(name text, drop_table boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    reader text;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = drop_model.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', name USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    END IF;
    SELECT s.model INTO reader FROM tidemark_internal.model_sources s WHERE s.source = m.target ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'model % is read by model %', name, reader USING ERRCODE = '2BP01', HINT = 'Drop the models that read it first.';
    END IF;
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = m.target) THEN
        IF NOT tidemark_internal.is_member_of_owner(m.target) THEN
            RAISE EXCEPTION 'must be owner of table %', m.target USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns it.';
        END IF;
        IF m.live_view IS NOT NULL AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.live_view) THEN
            PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP VIEW %s', m.live_view));
        END IF;
    END IF;
    -- Not while a refresher has it.
    PERFORM pg_advisory_xact_lock(('tidemark_internal.models'::regclass)::oid::bigint);
    DELETE FROM tidemark_internal.models x WHERE x.name = drop_model.name;
    IF drop_table AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.target) THEN
        PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP TABLE %s', m.target));
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark.drop_model(text, boolean) IS
'Takes a model away: its registration, marks and live view, and with
drop_table (default false) its table. Without it the table stays as it is
and is no longer kept up to date. 42704: no such model; 2BP01: other models
or views need it; 42501: the caller is not a member of the role that owns
the table.';
-- Materialized views across dates that follow models: refreshed, without blocking readers, when a model below changed.

CREATE TABLE tidemark_internal.materialized_views (
    view regclass PRIMARY KEY,
    models text[] NOT NULL,
    seen_count bigint NOT NULL DEFAULT -1,
    refresh_count bigint NOT NULL DEFAULT 0,
    refreshed_at timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.materialized_views', '');
COMMENT ON TABLE tidemark_internal.materialized_views IS 'Materialized views that follow models. Written by tidemark.manage_materialized_view and tidemark.refresh_materialized_views.';
COMMENT ON COLUMN tidemark_internal.materialized_views.view IS 'The materialized view; it has a unique index.';
COMMENT ON COLUMN tidemark_internal.materialized_views.models IS 'Models it reads.';
COMMENT ON COLUMN tidemark_internal.materialized_views.seen_count IS 'Sum of the models'' change_count before the last refresh of the view; -1 before the first.';
COMMENT ON COLUMN tidemark_internal.materialized_views.refresh_count IS 'How often it has been refreshed.';
COMMENT ON COLUMN tidemark_internal.materialized_views.refreshed_at IS 'When the view was last refreshed; NULL if never.';

ALTER TABLE tidemark_internal.materialized_views ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.materialized_views FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.materialized_views USING (tidemark_internal.is_member_of_owner(view));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.materialized_views TO PUBLIC;

CREATE FUNCTION tidemark.manage_materialized_view(view regclass, models text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = view AND relkind = 'm') THEN
        RAISE EXCEPTION 'view % is not a materialized view', view USING ERRCODE = '42809';
    ELSIF NOT tidemark_internal.is_member_of_owner(view) THEN
        RAISE EXCEPTION 'must be owner of materialized view %', view USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns it.';
    ELSIF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = view AND indisunique AND indpred IS NULL AND NOT 0 = ANY (indkey::smallint[])) THEN
        RAISE EXCEPTION 'view % has no unique index on plain columns', view
            USING ERRCODE = '55000', HINT = 'Create one: a refresh that does not block readers needs it.';
    END IF;
    SELECT n INTO unknown FROM unnest(models) AS n WHERE NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = n);
    IF FOUND THEN
        RAISE EXCEPTION 'model % does not exist', unknown USING ERRCODE = '42704';
    END IF;
    INSERT INTO tidemark_internal.materialized_views AS v (view, models) VALUES (view, models)
    ON CONFLICT ON CONSTRAINT materialized_views_pkey DO UPDATE SET models = excluded.models, seen_count = -1;
END
$$;
COMMENT ON FUNCTION tidemark.manage_materialized_view(regclass, text[]) IS
'Registers a materialized view that reads models (schema.table), so that
tidemark.refresh_materialized_views refreshes it when one of them changed.
The view needs a unique index; the caller must be a member of the role that
owns it.';

CREATE FUNCTION tidemark_internal.refresh_materialized_view_step() RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v tidemark_internal.materialized_views;
    now_count bigint;
BEGIN
    -- Only those that the caller may refresh; Postgres itself runs their queries as their owners.
    FOR v IN SELECT * FROM tidemark_internal.materialized_views x WHERE tidemark_internal.is_member_of_owner(x.view) ORDER BY x.view::text FOR UPDATE SKIP LOCKED LOOP
        -- Counted before the refresh takes its snapshot: whatever is counted is in the view afterwards.
        SELECT coalesce(sum(m.change_count), 0) INTO now_count FROM tidemark_internal.models m WHERE m.name = ANY (v.models);
        CONTINUE WHEN now_count = v.seen_count;
        EXECUTE format('REFRESH MATERIALIZED VIEW CONCURRENTLY %s', v.view);
        UPDATE tidemark_internal.materialized_views x SET seen_count = now_count, refresh_count = x.refresh_count + 1, refreshed_at = clock_timestamp() WHERE x.view = v.view;
        RETURN v.view;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_materialized_view_step() IS
'Part of tidemark.refresh_materialized_views: refreshes one materialized view
below which a model changed and returns it; NULL when none is left.';

CREATE PROCEDURE tidemark.refresh_materialized_views()
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit.
DECLARE
    refreshed pg_catalog.regclass;
BEGIN
    IF EXISTS (SELECT FROM tidemark_internal.materialized_views)
       AND NOT EXISTS (SELECT FROM tidemark_internal.materialized_views v WHERE tidemark_internal.is_member_of_owner(v.view)) THEN
        RAISE EXCEPTION 'permission denied to refresh any materialized view'
            USING ERRCODE = '42501', HINT = 'The caller must be a member of a role that owns a registered one.';
    END IF;
    LOOP
        refreshed := tidemark_internal.refresh_materialized_view_step();
        COMMIT;
        EXIT WHEN refreshed IS NULL;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE tidemark.refresh_materialized_views() IS
'Refreshes, CONCURRENTLY and each in a transaction of its own, the registered
materialized views below which a model changed since. Does nothing when
nothing changed. CALL it outside a transaction block, as a member of the
role that owns the views; those of others are passed over.';
-- Live views: the stored rows of clean dates and, computed now, those of stale dates. Exact under any snapshot, since
-- rows, marks and stored rows are seen by one query.

CREATE FUNCTION tidemark_internal.rewrite_query(query text, first text, last text, schemas text[] DEFAULT '{}', tables text[] DEFAULT '{}', replacements text[] DEFAULT '{}') RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_rewrite_query';
COMMENT ON FUNCTION tidemark_internal.rewrite_query(text, text, text, text[], text[], text[]) IS
'Part of tidemark.create_model: the text of a query with its parameters and
tables replaced. $1 and $2 become the SQL expressions first and last (left
as they are if one of these is NULL), and each table schemas[i].tables[i]
becomes replacements[i], wherever Postgres''s own parser finds them; names in
strings, comments and CTEs stay. 22023 unless query is one SELECT, 42P02 for
a parameter other than $1 and $2.';

CREATE FUNCTION tidemark_internal.query_columns(query text) RETURNS text[]
LANGUAGE c STABLE PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_query_columns';
COMMENT ON FUNCTION tidemark_internal.query_columns(text) IS
'Part of tidemark.create_model: the names of the columns of a query with two
parameters of type date, in order. Nothing is executed.';

CREATE FUNCTION tidemark_internal.query_relations(query text) RETURNS regclass[]
LANGUAGE c STABLE PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_query_relations';
COMMENT ON FUNCTION tidemark_internal.query_relations(text) IS
'Part of tidemark.create_model: the tables that a query with two parameters
of type date reads, those below views included. Nothing is executed.';

CREATE FUNCTION tidemark_internal.copied_columns(query text) RETURNS text[]
LANGUAGE c STABLE PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_copied_columns';
COMMENT ON FUNCTION tidemark_internal.copied_columns(text) IS
'Part of tidemark.refresh: for each column of a query with two parameters of
type date the name of the column of its table that it passes on unchanged,
NULL where it computes something. NULL altogether unless each row comes from
one row of one table: no aggregate, window function, DISTINCT, GROUP BY,
LIMIT, join, view, WITH, set operation, reference to a whole row, volatile
function, or stable function of a user. Nothing is executed.';

CREATE FUNCTION tidemark_internal.create_live_view(model text) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    schema_name name;
    table_name name;
    view_name text;
    schemas text[] := '{}';
    tables text[] := '{}';
    replacements text[] := '{}';
    source record;
    live_query text;
    hidden text;
    step text;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = create_live_view.model;
    SELECT n.nspname, c.relname INTO schema_name, table_name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = m.target;
    IF octet_length(table_name) > 58 THEN
        RAISE EXCEPTION 'name % is too long for a live view', m.name USING ERRCODE = '42622', HINT = 'The name of the table and _live together must not exceed 63 bytes.';
    END IF;
    view_name := format('%I.%I', schema_name, table_name || '_live');
    IF to_regclass(view_name) IS NOT NULL AND to_regclass(view_name) IS DISTINCT FROM m.live_view THEN
        RAISE EXCEPTION 'relation % exists and is not the live view of model %', view_name, m.name
            USING ERRCODE = '42P07', HINT = 'Rename it: live views have the name of the table with _live behind it.';
    END IF;
    FOR source IN
        SELECT n.nspname, c.relname, a.name, a.live_view
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models a ON a.target = s.source
          JOIN pg_class c ON c.oid = s.source
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE s.model = m.name
    LOOP
        IF source.live_view IS NULL THEN
            RAISE EXCEPTION 'model % reads model %, which has no live view', m.name, source.name
                USING ERRCODE = '55000', HINT = format('Create %s with live => true first.', source.name);
        END IF;
        schemas := schemas || source.nspname::text;
        tables := tables || source.relname::text;
        replacements := replacements || source.live_view::text;
    END LOOP;
    live_query := tidemark_internal.rewrite_query(m.query, 'tidemark_stale.stale_date', '(tidemark_stale.stale_date + 1)', schemas, tables, replacements);
    PERFORM tidemark_internal.execute_as_owner(m.target, format(
        'CREATE OR REPLACE VIEW %1$s AS
         SELECT %2$s FROM %3$s AS t WHERE t.event_date <> ALL ((SELECT tidemark.stale_dates(%4$L))::pg_catalog.date[])
         UNION ALL
         SELECT %5$s FROM pg_catalog.unnest((SELECT tidemark.stale_dates(%4$L))) AS tidemark_stale(stale_date)
          CROSS JOIN LATERAL (%6$s' || E'\n' || ') AS q WHERE q.event_date = tidemark_stale.stale_date',
        view_name, string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum), m.target, m.name,
        string_agg(format('CAST(q.%1$I AS %2$s) AS %1$I', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum), live_query))
      FROM pg_attribute a WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped;
    UPDATE tidemark_internal.models x SET live_view = view_name::regclass WHERE x.name = m.name;

    -- A view between the query and a model would show the model's stored rows, stale ones too.
    WITH RECURSIVE reads(relation) AS (
        SELECT view_name::regclass
        UNION
        SELECT d.refobjid::regclass
          FROM reads r
          JOIN pg_rewrite w ON w.ev_class = r.relation
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
         WHERE r.relation = view_name::regclass OR NOT EXISTS (SELECT FROM tidemark_internal.models a WHERE a.live_view = r.relation))
    SELECT a.name INTO hidden FROM reads r JOIN tidemark_internal.models a ON a.target = r.relation WHERE a.target <> m.target LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'model % reads model % through a view', m.name, hidden
            USING ERRCODE = '0A000', HINT = 'A live view needs the table itself in the query, so that it can read its live view instead.';
    END IF;

    -- Described and readable like the table.
    FOR step IN
        SELECT format('COMMENT ON VIEW %s IS %L', view_name, concat_ws(' ', replace(replace(obj_description(m.target, 'pg_class'), 'as of the last refresh', 'exact at any moment'), 'As of the last refresh', 'Exact at any moment'),
                      format('Live view of model %s: its rows, and those of dates that wait for a refresh computed while you read.', m.name)))
        UNION ALL
        SELECT format('COMMENT ON COLUMN %s.%I IS %L', view_name, a.attname, col_description(m.target, a.attnum))
          FROM pg_attribute a WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT format('GRANT SELECT ON %s TO %s%s', view_name, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END,
                      CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM pg_class c, aclexplode(c.relacl) AS x WHERE c.oid = m.target AND x.privilege_type = 'SELECT' AND x.grantee <> c.relowner
        UNION ALL
        SELECT format('GRANT SELECT (%I) ON %s TO %s%s', a.attname, view_name, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END,
                      CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM pg_attribute a, aclexplode(a.attacl) AS x
         WHERE a.attrelid = m.target AND NOT a.attisdropped AND x.privilege_type = 'SELECT'
    LOOP
        PERFORM tidemark_internal.execute_as_owner(m.target, step);
    END LOOP;
    RETURN view_name::regclass;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_live_view(text) IS
'Part of tidemark.create_model: creates or replaces the live view of a model,
owned by the owner of its table, and copies the table''s comments and SELECT
grants to it. 55000: a model that it reads has no live view; 0A000: it reads
a model through a view; 42P07: the name is taken.';
-- What was loaded, how late, and up to when a source is complete: statistics that travel with the marks of the dirty
-- log, the tables they are folded into, and the views over both. change_tracking.sql has the triggers of other writers.
--
-- A writer only appends: its statistics stand in its own marks. Whoever consumes marks (tidemark_internal.distribute_dirty)
-- hands them to absorb_marks first. Two consumers at once must not wait for each other's recompute, so the second one
-- sets its statistics aside in unfolded_loads; every reader adds marks, unfolded_loads and the tables.

CREATE FUNCTION tidemark.lateness_buckets() RETURNS TABLE (bucket integer, from_lateness interval, to_lateness interval)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10 ROWS 12
BEGIN ATOMIC
    SELECT * FROM (VALUES
        (1, NULL::interval, interval '1 second'),
        (2, interval '1 second', interval '10 seconds'),
        (3, interval '10 seconds', interval '1 minute'),
        (4, interval '1 minute', interval '10 minutes'),
        (5, interval '10 minutes', interval '1 hour'),
        (6, interval '1 hour', interval '6 hours'),
        (7, interval '6 hours', interval '1 day'),
        (8, interval '1 day', interval '3 days'),
        (9, interval '3 days', interval '7 days'),
        (10, interval '7 days', interval '30 days'),
        (11, interval '30 days', interval '90 days'),
        (12, interval '90 days', NULL::interval)) AS b;
END;
COMMENT ON FUNCTION tidemark.lateness_buckets() IS
'The twelve buckets in which lateness (received_at - event_time) is counted:
from_lateness inclusive, to_lateness exclusive; NULL: without bound. Fixed
for ever, because counts are stored by number. A day is 24 hours.';

CREATE TABLE tidemark_internal.watermarks (
    source regclass PRIMARY KEY,
    allowed_lateness interval NOT NULL DEFAULT '7 days' CHECK (allowed_lateness >= '0 seconds'),
    max_skew interval NOT NULL DEFAULT '5 minutes' CHECK (max_skew >= '0 seconds'),
    max_event_time timestamptz,
    watermark timestamptz,
    events_loaded bigint NOT NULL DEFAULT 0,
    late_events bigint NOT NULL DEFAULT 0,
    last_loaded_at timestamptz
);
COMMENT ON TABLE tidemark_internal.watermarks IS
'One row per source: its watermark policy and what its consumed marks said. Read tidemark.source_status instead, which adds the marks that nobody has consumed yet.';
COMMENT ON COLUMN tidemark_internal.watermarks.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark_internal.watermarks.allowed_lateness IS 'How far the watermark stays behind the latest event time.';
COMMENT ON COLUMN tidemark_internal.watermarks.max_skew IS 'How far an event time may lie after the start of the transaction that loaded it; later ones count as no later than that.';
COMMENT ON COLUMN tidemark_internal.watermarks.max_event_time IS 'Latest event time loaded, each held down to its load plus max_skew; NULL before the first.';
COMMENT ON COLUMN tidemark_internal.watermarks.watermark IS 'The watermark as of the last fold or change of policy; never moves back. NULL before the first.';
COMMENT ON COLUMN tidemark_internal.watermarks.events_loaded IS 'Rows loaded, as the writers said.';
COMMENT ON COLUMN tidemark_internal.watermarks.late_events IS 'How many of them the writers called late.';
COMMENT ON COLUMN tidemark_internal.watermarks.last_loaded_at IS 'Start of the latest transaction that loaded rows; NULL before the first.';

CREATE TABLE tidemark_internal.lateness_counts (
    source regclass NOT NULL,
    event_date date NOT NULL,
    bucket integer NOT NULL CHECK (bucket BETWEEN 1 AND 12),
    rows bigint NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (source, event_date, bucket)
);
COMMENT ON TABLE tidemark_internal.lateness_counts IS
'How many rows of each source and date were how late, from consumed marks. Read tidemark.lateness instead, which adds the marks that nobody has consumed yet.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.event_date IS 'UTC date of the rows.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.bucket IS 'Number of the bucket in tidemark.lateness_buckets().';
COMMENT ON COLUMN tidemark_internal.lateness_counts.rows IS 'Rows of this date in this bucket.';

CREATE TABLE tidemark_internal.unfolded_loads (
    source regclass NOT NULL,
    event_date date NOT NULL,
    marked_at timestamptz NOT NULL,
    rows bigint NOT NULL,
    late_rows bigint,
    max_event_time timestamptz,
    lateness bigint[]
);
COMMENT ON TABLE tidemark_internal.unfolded_loads IS
'Append-only: statistics of marks that were consumed while another session was folding. The next fold takes them in.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.source IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.event_date IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.marked_at IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.late_rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.max_event_time IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.lateness IS 'As in tidemark_internal.dirty_log.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.watermarks', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.lateness_counts', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.unfolded_loads', '');

-- Everybody who may use the schema may look; the policy of a source is its owner's business, the rest absorb_marks'.
ALTER TABLE tidemark_internal.watermarks ENABLE ROW LEVEL SECURITY;
ALTER TABLE tidemark_internal.lateness_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE tidemark_internal.unfolded_loads ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.watermarks FOR SELECT USING (true);
CREATE POLICY owner_inserts ON tidemark_internal.watermarks FOR INSERT
    WITH CHECK (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = source), 'MEMBER'));
CREATE POLICY owner_updates ON tidemark_internal.watermarks FOR UPDATE
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = source), 'MEMBER'));
CREATE POLICY everybody_reads ON tidemark_internal.lateness_counts FOR SELECT USING (true);
CREATE POLICY everybody_reads ON tidemark_internal.unfolded_loads FOR SELECT USING (true);
COMMENT ON POLICY everybody_reads ON tidemark_internal.watermarks IS 'Statistics hold no rows of the source.';
COMMENT ON POLICY owner_inserts ON tidemark_internal.watermarks IS 'Members of the owner of the source set its policy.';
COMMENT ON POLICY owner_updates ON tidemark_internal.watermarks IS 'Members of the owner of the source set its policy.';
COMMENT ON POLICY everybody_reads ON tidemark_internal.lateness_counts IS 'Statistics hold no rows of the source.';
COMMENT ON POLICY everybody_reads ON tidemark_internal.unfolded_loads IS 'Statistics hold no rows of the source.';
GRANT SELECT ON tidemark_internal.watermarks, tidemark_internal.lateness_counts, tidemark_internal.unfolded_loads TO PUBLIC;
GRANT INSERT (source, allowed_lateness, max_skew, watermark), UPDATE (allowed_lateness, max_skew, watermark) ON tidemark_internal.watermarks TO PUBLIC;

CREATE VIEW tidemark_internal.unfolded AS
SELECT l.source, l.event_date, l.marked_at, l.rows, l.late_rows, l.max_event_time, l.lateness
  FROM tidemark_internal.dirty_log l WHERE l.rows IS NOT NULL
 UNION ALL
SELECT u.source, u.event_date, u.marked_at, u.rows, u.late_rows, u.max_event_time, u.lateness
  FROM tidemark_internal.unfolded_loads u;
COMMENT ON VIEW tidemark_internal.unfolded IS 'Statistics of loads that are not yet folded into tidemark_internal.watermarks and tidemark_internal.lateness_counts.';
COMMENT ON COLUMN tidemark_internal.unfolded.source IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.event_date IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.marked_at IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.late_rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.max_event_time IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.lateness IS 'As in tidemark_internal.dirty_log.';

CREATE FUNCTION tidemark.mark_loaded(source regclass, dates date[], rows bigint[], late_rows bigint[], min_event_times timestamptz[], max_event_times timestamptz[], lateness bigint[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    n CONSTANT integer := cardinality(mark_loaded.dates);
BEGIN
    IF mark_loaded.source IS NULL THEN
        RAISE EXCEPTION 'source must not be null' USING ERRCODE = '22004';
    ELSIF n IS NULL OR n = 0 THEN
        RETURN;
    ELSIF (cardinality(mark_loaded.rows), cardinality(mark_loaded.late_rows), cardinality(mark_loaded.min_event_times), cardinality(mark_loaded.max_event_times)) IS DISTINCT FROM (n, n, n, n) THEN
        RAISE EXCEPTION 'rows, late_rows, min_event_times and max_event_times must have as many elements as dates, which has %', n USING ERRCODE = '2202E';
    ELSIF cardinality(mark_loaded.lateness) <> 12 * n THEN
        RAISE EXCEPTION 'lateness must have 12 elements for each of % dates, has %', n, cardinality(mark_loaded.lateness)
            USING ERRCODE = '2202E', HINT = 'tidemark.lateness_buckets() lists the buckets.';
    ELSIF 0 > ANY (mark_loaded.rows || mark_loaded.late_rows || mark_loaded.lateness) THEN
        RAISE EXCEPTION 'rows, late_rows and lateness must not be negative' USING ERRCODE = '22023';
    END IF;
    INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added, rows, late_rows, min_event_time, max_event_time, lateness)
    SELECT mark_loaded.source, v.event_date, 'loaded', true, coalesce(v.n_rows, 0), v.n_late, v.min_time, v.max_time, mark_loaded.lateness[12 * v.i - 11 : 12 * v.i]
      FROM unnest(mark_loaded.dates, mark_loaded.rows, mark_loaded.late_rows, mark_loaded.min_event_times, mark_loaded.max_event_times)
           WITH ORDINALITY AS v(event_date, n_rows, n_late, min_time, max_time, i)
     WHERE v.event_date IS NOT NULL
     ORDER BY v.event_date;
END
$$;
COMMENT ON FUNCTION tidemark.mark_loaded(regclass, date[], bigint[], bigint[], timestamptz[], timestamptz[], bigint[]) IS
'Records rows that a writer added: tidemark.mark_dirty for one that knows
more about them. Rows that it changed or deleted need tidemark.mark_dirty as
well: after this alone a refresh may look at new rows only. For each UTC
date: the number of rows, how many of them were late, the earliest and
latest event time, and the counts of the buckets of
tidemark.lateness_buckets(), twelve a date one after the other (NULL: not
counted). Feeds the watermark and the views lateness and source_status. Call
it in the transaction that loads the rows. Elements whose date is NULL are
skipped; arrays of different length raise 2202E, negative counts 22023.
Needs what tidemark.mark_dirty needs.';

CREATE FUNCTION tidemark_internal.absorb_marks(ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Held until the end of a transaction that may recompute for long: whoever does not get it sets its rows aside.
    IF NOT pg_try_advisory_xact_lock('tidemark_internal.watermarks'::regclass::oid::bigint) THEN
        INSERT INTO tidemark_internal.unfolded_loads (source, event_date, marked_at, rows, late_rows, max_event_time, lateness)
        SELECT l.source, l.event_date, l.marked_at, l.rows, l.late_rows, l.max_event_time, l.lateness
          FROM tidemark_internal.dirty_log l
         WHERE l.id = ANY (ids) AND l.rows IS NOT NULL;
        RETURN;
    END IF;
    WITH set_aside AS (
        DELETE FROM tidemark_internal.unfolded_loads u RETURNING u.*
    ), load AS (
        SELECT x.*
          FROM (SELECT l.source, l.event_date, l.marked_at, l.rows, l.late_rows, l.max_event_time, l.lateness
                  FROM tidemark_internal.dirty_log l WHERE l.id = ANY (ids) AND l.rows IS NOT NULL
                 UNION ALL
                SELECT s.source, s.event_date, s.marked_at, s.rows, s.late_rows, s.max_event_time, s.lateness FROM set_aside s) AS x
         WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = x.source)
    ), counted AS (
        INSERT INTO tidemark_internal.lateness_counts AS c (source, event_date, bucket, rows)
        SELECT l.source, l.event_date, b.bucket, sum(b.n)
          FROM load l CROSS JOIN LATERAL unnest(l.lateness) WITH ORDINALITY AS b(n, bucket)
         WHERE b.n > 0
         GROUP BY l.source, l.event_date, b.bucket
        ON CONFLICT ON CONSTRAINT lateness_counts_pkey DO UPDATE SET rows = c.rows + excluded.rows
    ), by_source AS (
        SELECT l.source, sum(l.rows) AS n, coalesce(sum(l.late_rows), 0) AS late, max(l.marked_at) AS loaded_at,
               max(least(l.max_event_time, (l.marked_at AT TIME ZONE 'UTC' + coalesce(w.max_skew, interval '5 minutes')) AT TIME ZONE 'UTC')) FILTER (WHERE l.max_event_time IS NOT NULL) AS max_time,
               coalesce(min(w.allowed_lateness), interval '7 days') AS allowed
          FROM load l LEFT JOIN tidemark_internal.watermarks w ON w.source = l.source
         GROUP BY l.source
    )
    INSERT INTO tidemark_internal.watermarks AS w (source, max_event_time, watermark, events_loaded, late_events, last_loaded_at)
    SELECT s.source, s.max_time, (s.max_time AT TIME ZONE 'UTC' - s.allowed) AT TIME ZONE 'UTC', s.n, s.late, s.loaded_at FROM by_source s
    ON CONFLICT ON CONSTRAINT watermarks_pkey DO UPDATE
       SET max_event_time = greatest(w.max_event_time, excluded.max_event_time),
           watermark = greatest(w.watermark, excluded.watermark),
           events_loaded = w.events_loaded + excluded.events_loaded,
           late_events = w.late_events + excluded.late_events,
           last_loaded_at = greatest(w.last_loaded_at, excluded.last_loaded_at);
END
$$;
REVOKE EXECUTE ON FUNCTION tidemark_internal.absorb_marks(bigint[]) FROM PUBLIC;
COMMENT ON FUNCTION tidemark_internal.absorb_marks(bigint[]) IS
'Part of tidemark_internal.distribute_dirty: folds the statistics of these marks of
tidemark_internal.dirty_log into tidemark_internal.watermarks and tidemark_internal.lateness_counts. To
be called once for each mark, in the transaction that deletes it; marks
without statistics and those of dropped tables add nothing.';

CREATE VIEW tidemark.source_status AS
WITH pending AS (
    SELECT u.source, pg_catalog.sum(u.rows) AS n, pg_catalog.sum(u.late_rows) AS late, pg_catalog.max(u.marked_at) AS loaded_at,
           pg_catalog.max(LEAST(u.max_event_time, (u.marked_at AT TIME ZONE 'UTC' + COALESCE(w.max_skew, interval '5 minutes')) AT TIME ZONE 'UTC')) FILTER (WHERE u.max_event_time IS NOT NULL) AS max_time
      FROM tidemark_internal.unfolded u LEFT JOIN tidemark_internal.watermarks w ON w.source = u.source
     GROUP BY u.source
), merged AS (
    SELECT COALESCE(w.source, p.source) AS source,
           COALESCE(w.allowed_lateness, interval '7 days') AS allowed_lateness,
           COALESCE(w.max_skew, interval '5 minutes') AS max_skew,
           w.watermark,
           GREATEST(w.max_event_time, p.max_time) AS max_event_time,
           (COALESCE(w.events_loaded, 0) + COALESCE(p.n, 0))::bigint AS events_loaded,
           (COALESCE(w.late_events, 0) + COALESCE(p.late, 0))::bigint AS late_events,
           GREATEST(w.last_loaded_at, p.loaded_at) AS last_loaded_at
      FROM tidemark_internal.watermarks w FULL JOIN pending p ON p.source = w.source
)
SELECT m.source,
       -- In UTC a day has 24 hours, whatever the session's time zone.
       GREATEST(m.watermark, (m.max_event_time AT TIME ZONE 'UTC' - m.allowed_lateness) AT TIME ZONE 'UTC') AS watermark,
       m.max_event_time,
       m.events_loaded,
       m.late_events,
       m.last_loaded_at,
       EXTRACT(epoch FROM pg_catalog.now() - m.max_event_time)::numeric(20, 3) AS seconds_behind,
       m.allowed_lateness,
       m.max_skew
  FROM merged m
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = m.source);
COMMENT ON VIEW tidemark.source_status IS
'One row per table that was loaded with statistics (tidemark.mark_loaded, tidemark.track_changes) or has a watermark policy: what is in it, marks not yet consumed included.';
COMMENT ON COLUMN tidemark.source_status.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.source_status.watermark IS 'No event older than this is expected any more: max_event_time - allowed_lateness, and never back; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.max_event_time IS 'Latest event time loaded, each held down to its load plus max_skew; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.events_loaded IS 'Rows loaded, as the writers said.';
COMMENT ON COLUMN tidemark.source_status.late_events IS 'How many of them were later than their writer allows; 0 for writers that do not count them.';
COMMENT ON COLUMN tidemark.source_status.last_loaded_at IS 'Start of the latest transaction that loaded rows; NULL before the first.';
COMMENT ON COLUMN tidemark.source_status.seconds_behind IS 'How old the latest event is: now() - max_event_time in seconds, negative when it lies in the future; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.allowed_lateness IS 'How far the watermark stays behind the latest event time.';
COMMENT ON COLUMN tidemark.source_status.max_skew IS 'How far an event time may lie after its load before it counts as no later than that.';

CREATE VIEW tidemark.lateness AS
WITH counted AS (
    SELECT c.source, c.event_date, c.bucket, c.rows FROM tidemark_internal.lateness_counts c
     UNION ALL
    SELECT u.source, u.event_date, b.bucket, b.n
      FROM tidemark_internal.unfolded u CROSS JOIN LATERAL pg_catalog.unnest(u.lateness) WITH ORDINALITY AS b(n, bucket)
     WHERE b.n > 0
), summed AS (
    SELECT c.source, c.event_date, c.bucket, pg_catalog.sum(c.rows)::bigint AS events
      FROM counted c GROUP BY c.source, c.event_date, c.bucket
)
SELECT s.source,
       s.event_date,
       b.bucket,
       b.from_lateness,
       b.to_lateness,
       s.events,
       pg_catalog.round(s.events / pg_catalog.sum(s.events) OVER day, 6) AS share,
       pg_catalog.round(pg_catalog.sum(s.events) OVER (day ORDER BY s.bucket) / pg_catalog.sum(s.events) OVER day, 6) AS cumulative_share
  FROM summed s JOIN tidemark.lateness_buckets() b ON b.bucket = s.bucket
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.source)
WINDOW day AS (PARTITION BY s.source, s.event_date);
COMMENT ON VIEW tidemark.lateness IS
'How late the rows of each source and date came, in the buckets of tidemark.lateness_buckets(); buckets without rows are left out, marks not yet consumed are counted.';
COMMENT ON COLUMN tidemark.lateness.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.lateness.event_date IS 'UTC date of the rows.';
COMMENT ON COLUMN tidemark.lateness.bucket IS 'Number of the bucket, 1 to 12.';
COMMENT ON COLUMN tidemark.lateness.from_lateness IS 'Least lateness (received_at - event_time) in the bucket, inclusive; NULL: no bound.';
COMMENT ON COLUMN tidemark.lateness.to_lateness IS 'End of the bucket, exclusive; NULL: no bound.';
COMMENT ON COLUMN tidemark.lateness.events IS 'Rows in the bucket.';
COMMENT ON COLUMN tidemark.lateness.share IS 'Their share of all counted rows of the date, 0 to 1.';
COMMENT ON COLUMN tidemark.lateness.cumulative_share IS 'Share of the rows of the date that came no later than the end of the bucket, 0 to 1.';

CREATE VIEW tidemark.lateness_quantiles AS
WITH summed AS (
    SELECT l.source, l.bucket, l.to_lateness, pg_catalog.sum(l.events) AS events
      FROM tidemark.lateness l GROUP BY l.source, l.bucket, l.to_lateness
), ranked AS (
    SELECT s.source, s.to_lateness, s.events,
           pg_catalog.sum(s.events) OVER (PARTITION BY s.source ORDER BY s.bucket) / pg_catalog.sum(s.events) OVER (PARTITION BY s.source) AS reached
      FROM summed s
)
SELECT r.source,
       pg_catalog.sum(r.events)::bigint AS events,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.5) AS p50_below,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.95) AS p95_below,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.99) AS p99_below
  FROM ranked r GROUP BY r.source;
COMMENT ON VIEW tidemark.lateness_quantiles IS 'One row per source: below which bound of a bucket the lateness of most of its rows lies, over all dates.';
COMMENT ON COLUMN tidemark.lateness_quantiles.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.lateness_quantiles.events IS 'Rows counted.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p50_below IS 'At least half of the rows came less late than this; NULL: the bucket has no end.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p95_below IS 'At least 95 of 100 rows came less late than this; NULL: the bucket has no end.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p99_below IS 'At least 99 of 100 rows came less late than this; NULL: the bucket has no end.';

-- They show totals, no rows of the sources.
GRANT SELECT ON tidemark.source_status, tidemark.lateness, tidemark.lateness_quantiles TO PUBLIC;

CREATE FUNCTION tidemark.watermark(source regclass) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT s.watermark FROM tidemark.source_status s WHERE s.source = watermark.source;
END;
COMMENT ON FUNCTION tidemark.watermark(regclass) IS
'Up to when source is complete, as far as its policy goes: the latest event
time loaded (held down to its load plus max_skew) minus allowed_lateness.
Never moves back, counts marks that nobody has consumed yet. NULL for NULL
and for a table that was never loaded with statistics.';

CREATE FUNCTION tidemark.set_watermark_policy(source regclass, allowed_lateness interval DEFAULT '7 days', max_skew interval DEFAULT '5 minutes') RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = set_watermark_policy.source);
    reached timestamptz;
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(set_watermark_policy.source::text, 'null') USING ERRCODE = '42P01';
    ELSIF NOT pg_has_role(owner, 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', set_watermark_policy.source USING ERRCODE = '42501';
    ELSIF set_watermark_policy.allowed_lateness IS NULL OR set_watermark_policy.allowed_lateness < interval '0' THEN
        RAISE EXCEPTION 'allowed_lateness must not be null or negative' USING ERRCODE = '22023';
    ELSIF set_watermark_policy.max_skew IS NULL OR set_watermark_policy.max_skew < interval '0' THEN
        RAISE EXCEPTION 'max_skew must not be null or negative' USING ERRCODE = '22023';
    ELSIF extract(year FROM set_watermark_policy.allowed_lateness) <> 0 OR extract(month FROM set_watermark_policy.allowed_lateness) <> 0
       OR extract(year FROM set_watermark_policy.max_skew) <> 0 OR extract(month FROM set_watermark_policy.max_skew) <> 0 THEN
        RAISE EXCEPTION 'allowed_lateness and max_skew must not contain months or years' USING ERRCODE = '22023', HINT = 'Write days: their length is fixed.';
    END IF;
    -- Waits for whoever folds; who comes meanwhile sets its statistics aside and does not wait for us.
    PERFORM pg_advisory_xact_lock('tidemark_internal.watermarks'::regclass::oid::bigint);
    -- What was reached under the old policy is kept: a watermark never moves back.
    reached := tidemark.watermark(set_watermark_policy.source);
    INSERT INTO tidemark_internal.watermarks AS w (source, allowed_lateness, max_skew, watermark)
    VALUES (set_watermark_policy.source, set_watermark_policy.allowed_lateness, set_watermark_policy.max_skew, reached)
    ON CONFLICT ON CONSTRAINT watermarks_pkey DO UPDATE
       SET allowed_lateness = excluded.allowed_lateness, max_skew = excluded.max_skew, watermark = excluded.watermark;
    RETURN tidemark.watermark(set_watermark_policy.source);
END
$$;
COMMENT ON FUNCTION tidemark.set_watermark_policy(regclass, interval, interval) IS
'Sets how far the watermark of source stays behind its latest event time
(allowed_lateness), and how far an event time may lie after its load before
it counts as no later than that (max_skew; for loads consumed from now on).
Returns the watermark, which never moves back, so a larger allowed_lateness
only slows it down. Raises 22023 for intervals that are NULL, negative or
contain months, 42501 for who does not own source.';
-- Statement triggers that mark dates for writers that do not call tidemark.mark_dirty themselves. Opt-in: they cost
-- every statement a pass over its rows, and on a partitioned table they switch off COPY's buffering.
--
-- The trigger function runs as the owner of the extension, so that writers need no right on tidemark's tables. Anybody
-- can put it on his own table with arguments and a column type of his choosing: it checks both against the catalog,
-- so that only casts of Postgres itself and the real transition table, never a temporary table of its name, are used.
-- It must not read the table itself: planning that may run functions of the table's owner. TRUNCATE has no transition
-- table, so its trigger reads the table with the rights of whoever truncates it.

CREATE FUNCTION tidemark_internal.mark_changes() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    -- The table that models read is the root, also when the trigger stands on a partition.
    root CONSTANT regclass := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    old_rows CONSTANT boolean := TG_OP IN ('UPDATE', 'DELETE');
    new_rows CONSTANT boolean := TG_OP IN ('INSERT', 'UPDATE');
    column_type oid;
    event_time text;
    event_date text;
    changed text;
BEGIN
    SELECT a.atttypid INTO column_type FROM pg_attribute a
     WHERE a.attrelid = TG_RELID AND a.attname = TG_ARGV[0] AND NOT a.attisdropped;
    IF column_type IS NULL OR column_type NOT IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) THEN
        RAISE EXCEPTION 'column % of % is gone or no longer a date or timestamp', TG_ARGV[0], TG_RELID::regclass
            USING ERRCODE = '55000', HINT = format('SELECT tidemark.untrack_changes(%L), then track_changes with another time_column.', TG_RELID::regclass);
    ELSIF TG_LEVEL <> 'STATEMENT' OR TG_WHEN <> 'AFTER' OR NOT (old_rows OR new_rows) OR NOT EXISTS (
            SELECT FROM pg_trigger t WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME
               AND (t.tgoldtable, t.tgnewtable) IS NOT DISTINCT FROM
                   (CASE WHEN old_rows THEN 'tidemark_old' END::name, CASE WHEN new_rows THEN 'tidemark_new' END::name)) THEN
        RAISE EXCEPTION 'trigger % was not made by tidemark.track_changes', TG_NAME USING ERRCODE = '55000';
    END IF;
    event_time := format('%I', TG_ARGV[0]);
    event_date := CASE WHEN column_type = 'timestamptz'::regtype THEN format('(%s AT TIME ZONE ''UTC'')::date', event_time)
                       ELSE format('%s::date', event_time) END;
    IF TG_OP = 'INSERT' AND column_type = 'timestamptz'::regtype THEN
        EXECUTE format(
            'INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added, rows, min_event_time, max_event_time)
             SELECT $1, %1$s, ''insert'', true, count(*), min(%2$s), max(%2$s) FROM tidemark_new
              WHERE isfinite(%2$s) GROUP BY 2', event_date, event_time) USING root;
        RETURN NULL;
    END IF;
    changed := CASE TG_OP
        WHEN 'INSERT' THEN format('SELECT %s FROM tidemark_new', event_time)
        WHEN 'DELETE' THEN format('SELECT %s FROM tidemark_old', event_time)
        ELSE format('SELECT %1$s FROM tidemark_old UNION ALL SELECT %1$s FROM tidemark_new', event_time) END;
    EXECUTE format(
        'INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added)
         SELECT DISTINCT $1, %s, $2, $3 FROM (%s) AS changed WHERE isfinite(%s)', event_date, changed, event_time) USING root, lower(TG_OP), TG_OP = 'INSERT';
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_changes() IS
'Trigger function of tidemark.track_changes: marks the dates of the rows that
a statement wrote, changed or deleted.';

CREATE FUNCTION tidemark_internal.mark_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    dates date[];
BEGIN
    EXECUTE format('SELECT array_agg(DISTINCT %1$I::date) FROM %2$s WHERE isfinite(%1$I)', TG_ARGV[0], TG_RELID::regclass) INTO dates;
    PERFORM tidemark.mark_dirty(coalesce(pg_partition_root(TG_RELID), TG_RELID), dates, 'truncate');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_truncate() IS
'Trigger function of tidemark.track_changes: marks the dates that a table
holds before TRUNCATE empties it. Runs with the rights of whoever truncates.';

CREATE FUNCTION tidemark.track_changes(source regclass, time_column name DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    found_column name;
BEGIN
    SELECT c.relkind, c.relowner INTO r FROM pg_class c WHERE c.oid = source;
    IF NOT FOUND OR r.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(source::text, 'null')
            USING ERRCODE = CASE WHEN source IS NULL THEN '22004' ELSE '42809' END;
    ELSIF NOT pg_has_role(r.relowner, 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', source USING ERRCODE = '42501';
    END IF;
    SELECT a.attname INTO found_column
      FROM pg_attribute a
     WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped
       AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
       AND (a.attname = time_column OR (time_column IS NULL AND a.attname IN ('event_time', 'event_date')))
     ORDER BY a.attname DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no column % of type date or timestamp', source, coalesce(time_column, 'event_time or event_date')
            USING ERRCODE = '42703', HINT = 'Name the column that says on which date a row belongs: time_column => ''...''.';
    END IF;
    PERFORM tidemark.untrack_changes(source);
    EXECUTE format('CREATE TRIGGER tidemark_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS tidemark_new FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%L)', source, found_column);
    EXECUTE format('CREATE TRIGGER tidemark_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS tidemark_old NEW TABLE AS tidemark_new FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%L)', source, found_column);
    EXECUTE format('CREATE TRIGGER tidemark_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS tidemark_old FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%L)', source, found_column);
    EXECUTE format('CREATE TRIGGER tidemark_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_truncate(%L)', source, found_column);
END
$$;
COMMENT ON FUNCTION tidemark.track_changes(regclass, name) IS
'Puts statement triggers on source that mark the UTC dates of all rows that
INSERT, COPY, UPDATE, DELETE, MERGE or TRUNCATE touch, in the writer''s
transaction. An update marks the old and the new date; changes before the
call are not marked. time_column (date, timestamp read as UTC, or
timestamptz) says which date a row belongs to; NULL: event_time, else
event_date. With a timestamptz column, inserts feed the watermark too. NULL
and infinite times mark nothing. On a partitioned table the triggers see
what is written through it, not what is written straight into a partition
(track that one too: it marks its root), nor ATTACH and DETACH. Writers need
no right on tidemark; only who truncates needs SELECT on the table and what
tidemark.mark_dirty needs. Calling it again puts the triggers anew. 42501
for who does not own source, 42703 without such a column.';

CREATE FUNCTION tidemark.untrack_changes(source regclass) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    trigger_name name;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = source AND c.relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(source::text, 'null')
            USING ERRCODE = CASE WHEN source IS NULL THEN '22004' ELSE '42809' END;
    END IF;
    FOR trigger_name IN
        SELECT t.tgname FROM pg_trigger t
         WHERE t.tgrelid = source AND t.tgfoid IN ('tidemark_internal.mark_changes()'::regprocedure, 'tidemark_internal.mark_truncate()'::regprocedure) AND NOT t.tgisinternal
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, source);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.untrack_changes(regclass) IS
'Takes the triggers of tidemark.track_changes off source; does nothing where
there are none. Only the owner of source may.';
-- The end of the script: what lies behind a door is called through it and by nobody else.

DO $$
DECLARE
    work regprocedure;
BEGIN
    FOR work IN
        SELECT p.oid FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'tidemark_internal'::regnamespace AND p.proargnames[1] = 'caller'
           AND EXISTS (SELECT FROM pg_catalog.pg_proc door
                        WHERE door.proname = p.proname AND door.prosrc = 'tidemark_act')
    LOOP
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', work);
    END LOOP;
END
$$;
