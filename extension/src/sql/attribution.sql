-- Attribution: first and last touch, what touches get of conversions, the channel of a visit. Implemented in
-- attribution.rs and attribution/credits.rs.
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

CREATE TYPE tidemark.credit AS (
    conversion_time timestamptz,
    touch_time timestamptz,
    channel text,
    weight double precision,
    amount numeric
);
COMMENT ON TYPE tidemark.credit IS
'What a touch gets of a conversion, as tidemark.attribution(...) finds it.';
COMMENT ON COLUMN tidemark.credit.conversion_time IS 'When the conversion was.';
COMMENT ON COLUMN tidemark.credit.touch_time IS 'When the touch was; NULL where there was none.';
COMMENT ON COLUMN tidemark.credit.channel IS 'Channel of the touch; Unattributed where there was none.';
COMMENT ON COLUMN tidemark.credit.weight IS 'Share of the conversion, 0 to 1; those of a conversion are 1 together.';
COMMENT ON COLUMN tidemark.credit.amount IS
'The same share of its amount, rounded so that those of a conversion are exactly its amount together.';

CREATE FUNCTION tidemark_internal.attribution_transition(
    state internal, model text, look_back interval, event_time timestamptz, channel text, amount numeric
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_attribution_transition';

CREATE FUNCTION tidemark_internal.attribution_final(state internal) RETURNS tidemark.credit[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_attribution_final';

CREATE AGGREGATE tidemark.attribution(
    model text, look_back interval, event_time timestamptz, channel text, amount numeric
) (
    SFUNC = tidemark_internal.attribution_transition, STYPE = internal, SSPACE = 512,
    FINALFUNC = tidemark_internal.attribution_final, COMBINEFUNC = tidemark_internal.attribution_combine,
    SERIALFUNC = tidemark_internal.attribution_serialize, DESERIALFUNC = tidemark_internal.attribution_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.attribution(text, interval, timestamptz, text, numeric) IS
'What the touches of a person (GROUP BY person) get of the conversions; read
with unnest. A row with a channel is a touch, one with an amount a
conversion, which may be 0 or negative (a refund); a row may be both. A
conversion is credited to the touches at most look_back before it and not
after it, both inclusive. model: first, last, linear (the same to each),
position (40 % first, 40 % last, the rest to those between) or time_decay
(half for each 7 days that a touch is older; time_decay=DAYS). Touches of
channel Direct get nothing where there are others, unless model has ,direct
behind it. Touches at one time are in the order of their channels'' bytes.
Shares are rounded to the decimals of amount, two at least, so that they add
up to it. Without a touch all goes to Unattributed. Rows without event_time
are skipped, no conversion gives {}. model and look_back must be constant
and not NULL; unknown words, months and infinite amounts are errors (22023).';

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
