-- Quantiles: the type ddsketch, its aggregates and functions. Implemented in ddsketch.rs.

COMMENT ON TYPE tidemark.ddsketch IS
'A quantile sketch with a bounded relative error (DDSketch): a mergeable
distribution of at most about 20 KB, usually some hundred bytes. Equal
multisets of values give equal bytes under any plan. Text form: bytea hex.
Do not put it before a BI tool: show ddsketch_quantile().';

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

CREATE FUNCTION tidemark_internal.ddsketch_transition(
    state internal, value double precision, relative_error double precision
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_transition';

CREATE FUNCTION tidemark_internal.approx_percentile_transition(
    state internal, q double precision, value double precision
) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_approx_percentile_transition';

CREATE FUNCTION tidemark_internal.ddsketch_union_transition(state internal, sketch tidemark.ddsketch) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_union_transition';

CREATE FUNCTION tidemark_internal.ddsketch_final(state internal) RETURNS tidemark.ddsketch
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_ddsketch_final';

CREATE FUNCTION tidemark_internal.approx_percentile_final(state internal) RETURNS double precision
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_approx_percentile_final';

CREATE AGGREGATE tidemark.ddsketch_agg(value double precision) (
    SFUNC = tidemark_internal.ddsketch_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.ddsketch_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.ddsketch_agg(double precision) IS
'A sketch of the values of a group, for quantiles with a relative error of 1
%. Rows need no order. NULLs are skipped; NaN and the infinities are an
error (22023); no rows give the empty sketch.';

CREATE AGGREGATE tidemark.ddsketch_agg(value double precision, relative_error double precision) (
    SFUNC = tidemark_internal.ddsketch_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.ddsketch_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.ddsketch_agg(double precision, double precision) IS
'A sketch of the values of a group, for quantiles with the given relative
error: a whole number of per mille from 0.001 to 0.1 (22023 otherwise),
constant. Otherwise as ddsketch_agg(value).';

CREATE AGGREGATE tidemark.ddsketch_union_agg(sketch tidemark.ddsketch) (
    SFUNC = tidemark_internal.ddsketch_union_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.ddsketch_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.ddsketch_union_agg(tidemark.ddsketch) IS
'The sketch of all values of the sketches of a group (daily rollups to a
month): equal in bytes to a sketch built from all values. Different relative
errors are an error (22023), except of empty sketches. NULLs are skipped; no
rows give the empty sketch.';

CREATE AGGREGATE tidemark.approx_percentile(q double precision, value double precision) (
    SFUNC = tidemark_internal.approx_percentile_transition, STYPE = internal, SSPACE = 1024,
    FINALFUNC = tidemark_internal.approx_percentile_final, COMBINEFUNC = tidemark_internal.ddsketch_combine,
    SERIALFUNC = tidemark_internal.ddsketch_serialize, DESERIALFUNC = tidemark_internal.ddsketch_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE tidemark.approx_percentile(double precision, double precision) IS
'About the q-quantile of the values of a group, q from 0 to 1 (22023
otherwise) and constant: within 1 % of the value of rank floor(q * (n - 1))
in ascending order; exact for the least and the greatest. NULL values are
skipped; NaN and the infinities are an error (22023); no values give NULL.';
