-- Sequences: patterns over the ordered events of a person. Implemented in sequences.rs.
-- Conditions are VARIADIC "any" and checked to be boolean at run time, as in funnel.sql.

CREATE FUNCTION tidemark_internal.sequence_transition(
    state internal, pattern text, event_time timestamptz, VARIADIC conditions "any"
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_sequence_transition';

CREATE FUNCTION tidemark_internal.sequence_match_final(state internal) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_sequence_match_final';

CREATE FUNCTION tidemark_internal.sequence_count_final(state internal) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_sequence_count_final';

CREATE AGGREGATE tidemark.sequence_match(pattern text, event_time timestamptz, VARIADIC conditions "any") (
    SFUNC = tidemark_internal.sequence_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.sequence_match_final, COMBINEFUNC = tidemark_internal.sequence_combine,
    SERIALFUNC = tidemark_internal.sequence_serialize, DESERIALFUNC = tidemark_internal.sequence_deserialize,
    PARALLEL = SAFE
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
    SERIALFUNC = tidemark_internal.sequence_serialize, DESERIALFUNC = tidemark_internal.sequence_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.sequence_count(text, timestamptz, "any") IS
'How often the events of a group (GROUP BY person) contain a pattern, without
overlap: the match that ends first counts, and the search goes on behind it.
Patterns and rules as in tidemark.sequence_match; no rows give 0.';

CREATE FUNCTION tidemark_internal.next_node_transition(
    state internal, direction text, base text, event_time timestamptz, value text, base_cond boolean,
    VARIADIC conditions "any"
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_next_node_transition';

CREATE FUNCTION tidemark_internal.next_node_final(state internal) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_next_node_final';

CREATE AGGREGATE tidemark.sequence_next_node(
    direction text, base text, event_time timestamptz, value text, base_cond boolean, VARIADIC conditions "any"
) (
    SFUNC = tidemark_internal.next_node_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.next_node_final, COMBINEFUNC = tidemark_internal.next_node_combine,
    SERIALFUNC = tidemark_internal.next_node_serialize, DESERIALFUNC = tidemark_internal.next_node_deserialize,
    PARALLEL = SAFE
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
