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

CREATE FUNCTION tidemark_internal.sessions_transition(state internal, event_time timestamptz, gap interval)
RETURNS internal LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_sessions_transition';

CREATE FUNCTION tidemark_internal.sessions_final(state internal) RETURNS tidemark.session[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_sessions_final';

CREATE FUNCTION tidemark_internal.session_count_final(state internal) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 50 AS 'MODULE_PATHNAME', 'tidemark_session_count_final';

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
