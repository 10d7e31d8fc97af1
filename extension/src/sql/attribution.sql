-- Attribution: first and last touch, and the channel of a visit. Implemented in attribution.rs.
-- The state is internal and the result polymorphic, so the final function gets the aggregate's arguments too
-- (FINALFUNC_EXTRA), which tells Postgres its result type.

CREATE FUNCTION tidemark_internal.first_transition(state internal, value anyelement, event_time timestamptz)
RETURNS internal LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_first_transition';

CREATE FUNCTION tidemark_internal.last_transition(state internal, value anyelement, event_time timestamptz)
RETURNS internal LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_last_transition';

CREATE FUNCTION tidemark_internal.touch_final(state internal, value anyelement, event_time timestamptz)
RETURNS anyelement LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_touch_final';

CREATE AGGREGATE tidemark.first(value anyelement, event_time timestamptz) (
    SFUNC = tidemark_internal.first_transition, STYPE = internal, SSPACE = 64,
    FINALFUNC = tidemark_internal.touch_final, FINALFUNC_EXTRA, COMBINEFUNC = tidemark_internal.touch_combine,
    SERIALFUNC = tidemark_internal.touch_serialize, DESERIALFUNC = tidemark_internal.touch_deserialize,
    PARALLEL = SAFE
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
    FINALFUNC = tidemark_internal.touch_final, FINALFUNC_EXTRA, COMBINEFUNC = tidemark_internal.touch_combine,
    SERIALFUNC = tidemark_internal.touch_serialize, DESERIALFUNC = tidemark_internal.touch_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.last(anyelement, timestamptz) IS
'The value at the latest event_time in a group: the last touch, whatever the
order of rows. Rows with a NULL value or event_time are ignored, so it is
the last known value; nothing left gives NULL. Of several values at that
time the greatest wins, in the default order of the type and its collation;
values that are equal there, or of a type without an order (json, point),
are compared by their text form, bytewise. See tidemark.first.';

CREATE FUNCTION tidemark.channel_group(
    utm_source text, utm_medium text, utm_campaign text, referrer_host text, click_id text
) RETURNS text
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
