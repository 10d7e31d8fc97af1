-- Distinct counts: type hll (HLL storage spec v1.0.0), its aggregates and functions. Implemented in hll.rs.

COMMENT ON TYPE tidemark.hll IS
'A HyperLogLog sketch: a mergeable distinct count of a few KB at most. Its
bytes are the HLL storage spec v1.0.0, which postgresql-hll, java-hll and
js-hll read; equal sets of values give equal bytes under any plan. Text
form: bytea hex. Do not put it before a BI tool: show hll_cardinality().';

CREATE FUNCTION tidemark.hll_cardinality(sketch tidemark.hll) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_cardinality';
COMMENT ON FUNCTION tidemark.hll_cardinality(tidemark.hll) IS
'The estimated number of distinct values, rounded: exact up to 128 values,
beyond that with a standard error of 1.04/sqrt(2^log2m) (0.81 % at the
default 14). Ertl''s improved raw estimator (arXiv 1702.01284). NULL for
NULL.';
CREATE OPERATOR tidemark.# (RIGHTARG = tidemark.hll, FUNCTION = tidemark.hll_cardinality);
COMMENT ON OPERATOR tidemark.# (NONE, tidemark.hll) IS
'The estimated number of distinct values; the same as hll_cardinality.';

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
CREATE OPERATOR tidemark.|| (
    LEFTARG = tidemark.hll, RIGHTARG = tidemark.hll, FUNCTION = tidemark.hll_union,
    COMMUTATOR = OPERATOR(tidemark.||)
);
COMMENT ON OPERATOR tidemark.|| (tidemark.hll, tidemark.hll) IS
'The sketch of the union; the same as hll_union.';

CREATE FUNCTION tidemark.hll_empty() RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_hll_empty';
COMMENT ON FUNCTION tidemark.hll_empty() IS 'The sketch of no values, with the default log2m of 14.';
CREATE FUNCTION tidemark.hll_empty(log2m integer) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'tidemark_hll_empty';
COMMENT ON FUNCTION tidemark.hll_empty(integer) IS
'The sketch of no values, with the given log2m (4 to 17; anything else is an
error, 22023).';

CREATE FUNCTION tidemark_internal.hll_final(state internal) RETURNS tidemark.hll
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_final';
CREATE FUNCTION tidemark_internal.hll_count_final(state internal) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 500 AS 'MODULE_PATHNAME', 'tidemark_hll_count_final';
CREATE FUNCTION tidemark_internal.hll_union_transition(state internal, sketch tidemark.hll) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'tidemark_hll_union_transition';

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

-- One signature for each type: of a polymorphic one Citus's workers would not know the type. What is hashed are the
-- bytes of the value: its own for those that postgresql-hll hashes so; for date, timestamptz and numeric what their
-- send functions give, which no release changes (a hash operator class may change). Of a numeric without trailing
-- zeros.
DO $$
DECLARE
    kind regtype;
    bytes name;
BEGIN
    FOR kind, bytes IN
        VALUES ('text'::regtype, 'bytes'::name), ('bytea', 'bytes'), ('smallint', 'int2'), ('integer', 'int4'),
               ('bigint', 'int8'), ('uuid', 'uuid'), ('date', 'date'), ('timestamptz', 'timestamptz'),
               ('numeric', 'numeric')
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION tidemark_internal.hll_transition(state internal, value %1$s) RETURNS internal
            LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_%2$s';
            CREATE FUNCTION tidemark_internal.hll_transition(state internal, value %1$s, log2m integer)
            RETURNS internal
            LANGUAGE c IMMUTABLE PARALLEL SAFE COST 3 AS 'MODULE_PATHNAME', 'tidemark_hll_add_%2$s';

            CREATE AGGREGATE tidemark.hll_agg(value %1$s) (
                SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
                FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
                SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize,
                PARALLEL = SAFE
            );
            COMMENT ON AGGREGATE tidemark.hll_agg(%1$s) IS
'A sketch of the distinct values of a group (log2m 14, at most 10 KB,
standard error 0.81 %%, exact up to 128 values). NULLs are skipped; no rows
give the empty sketch. The hash depends on the type: 5::integer and
5::bigint are different values. Other types: cast to text.';

            CREATE AGGREGATE tidemark.hll_agg(value %1$s, log2m integer) (
                SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
                FINALFUNC = tidemark_internal.hll_final, COMBINEFUNC = tidemark_internal.hll_combine,
                SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize,
                PARALLEL = SAFE
            );
            COMMENT ON AGGREGATE tidemark.hll_agg(%1$s, integer) IS
'A sketch of the distinct values of a group with 2^log2m registers, log2m 4
to 17 (22023 otherwise) and constant: a standard error of 1.04/sqrt(2^log2m)
and at most 0.625 * 2^log2m bytes. Otherwise as hll_agg(value).';

            CREATE AGGREGATE tidemark.approx_count_distinct(value %1$s) (
                SFUNC = tidemark_internal.hll_transition, STYPE = internal, SSPACE = 256,
                FINALFUNC = tidemark_internal.hll_count_final, COMBINEFUNC = tidemark_internal.hll_combine,
                SERIALFUNC = tidemark_internal.hll_serialize, DESERIALFUNC = tidemark_internal.hll_deserialize,
                PARALLEL = SAFE
            );
            COMMENT ON AGGREGATE tidemark.approx_count_distinct(%1$s) IS
'About how many distinct values a group has: exact up to 128, beyond that
with a standard error of 0.81 %%. NULLs are skipped; no rows give 0. Other
types: cast to text.';
            $sql$, kind, bytes);
    END LOOP;
END
$$;
