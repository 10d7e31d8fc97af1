-- Types whose values are the bytes of a state: input, output, casts and comparisons. Implemented in support/stored.rs.
-- Each is described beside its aggregates. Equal states have equal bytes: they are compared as Postgres compares bytea.
DO $$
DECLARE
    stored name;
    operator text;
    function text;
    meaning text;
    options text;
BEGIN
    FOREACH stored IN ARRAY ARRAY['hll', 'ddsketch', 'funnel_stats', 'timeline'] LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE TYPE tidemark.%1$s;
            CREATE FUNCTION tidemark_internal.%1$s_in(cstring) RETURNS tidemark.%1$s
            LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_%1$s_in';
            CREATE FUNCTION tidemark_internal.%1$s_out(tidemark.%1$s) RETURNS cstring
            LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_stored_out';
            CREATE FUNCTION tidemark_internal.%1$s_recv(internal) RETURNS tidemark.%1$s
            LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_%1$s_recv';
            CREATE FUNCTION tidemark_internal.%1$s_send(tidemark.%1$s) RETURNS bytea
            LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'byteasend';
            CREATE TYPE tidemark.%1$s (
                INPUT = tidemark_internal.%1$s_in, OUTPUT = tidemark_internal.%1$s_out,
                RECEIVE = tidemark_internal.%1$s_recv, SEND = tidemark_internal.%1$s_send,
                INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = extended
            );
            COMMENT ON FUNCTION tidemark_internal.%1$s_in(cstring) IS
                E'Text input of %1$s: \\x and hexadecimal digits;\nbytes that are no valid value are refused (22P02).';
            COMMENT ON FUNCTION tidemark_internal.%1$s_out(tidemark.%1$s) IS
                'Text output of %1$s: \x and hexadecimal digits.';
            COMMENT ON FUNCTION tidemark_internal.%1$s_recv(internal) IS
                E'Binary input of %1$s: its bytes; anything else is refused (22P03).';
            COMMENT ON FUNCTION tidemark_internal.%1$s_send(tidemark.%1$s) IS 'Binary output of %1$s: its bytes.';

            CREATE FUNCTION tidemark_internal.%1$s_from_bytea(bytea) RETURNS tidemark.%1$s
            LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_%1$s_from_bytea';
            COMMENT ON FUNCTION tidemark_internal.%1$s_from_bytea(bytea) IS
                E'Reads the bytes of a %1$s; bytes that are not a valid value are\nrefused (22P03).';
            CREATE CAST (bytea AS tidemark.%1$s) WITH FUNCTION tidemark_internal.%1$s_from_bytea(bytea);
            COMMENT ON CAST (bytea AS tidemark.%1$s) IS 'Reads and checks the bytes of a %1$s.';
            CREATE CAST (tidemark.%1$s AS bytea) WITHOUT FUNCTION;
            COMMENT ON CAST (tidemark.%1$s AS bytea) IS 'The bytes of a %1$s.';
            $sql$, stored);

        FOR operator, function, meaning, options IN
            VALUES ('=', 'eq', 'equal', 'COMMUTATOR = OPERATOR(tidemark.=), NEGATOR = OPERATOR(tidemark.<>),
                                         RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES'),
                   ('<>', 'ne', 'not equal', 'COMMUTATOR = OPERATOR(tidemark.<>), NEGATOR = OPERATOR(tidemark.=),
                                              RESTRICT = neqsel, JOIN = neqjoinsel'),
                   ('<', 'lt', 'less', 'COMMUTATOR = OPERATOR(tidemark.>), NEGATOR = OPERATOR(tidemark.>=),
                                        RESTRICT = scalarltsel, JOIN = scalarltjoinsel'),
                   ('<=', 'le', 'less or equal', 'COMMUTATOR = OPERATOR(tidemark.>=), NEGATOR = OPERATOR(tidemark.>),
                                                  RESTRICT = scalarlesel, JOIN = scalarlejoinsel'),
                   ('>', 'gt', 'greater', 'COMMUTATOR = OPERATOR(tidemark.<), NEGATOR = OPERATOR(tidemark.<=),
                                           RESTRICT = scalargtsel, JOIN = scalargtjoinsel'),
                   ('>=', 'ge', 'greater or equal', 'COMMUTATOR = OPERATOR(tidemark.<=), NEGATOR = OPERATOR(tidemark.<),
                                                     RESTRICT = scalargesel, JOIN = scalargejoinsel')
        LOOP
            EXECUTE pg_catalog.format($sql$
                CREATE FUNCTION tidemark_internal.%1$s_%3$s(tidemark.%1$s, tidemark.%1$s) RETURNS boolean
                LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'bytea%3$s';
                COMMENT ON FUNCTION tidemark_internal.%1$s_%3$s(tidemark.%1$s, tidemark.%1$s) IS
                    'Compares the bytes of two %1$s: %4$s.';
                CREATE OPERATOR tidemark.%2$s (
                    LEFTARG = tidemark.%1$s, RIGHTARG = tidemark.%1$s, FUNCTION = tidemark_internal.%1$s_%3$s, %5$s
                );
                COMMENT ON OPERATOR tidemark.%2$s (tidemark.%1$s, tidemark.%1$s) IS 'Compares the bytes: %4$s.';
                $sql$, stored, operator, function, meaning, options);
        END LOOP;

        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION tidemark_internal.%1$s_cmp(tidemark.%1$s, tidemark.%1$s) RETURNS integer
            LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'byteacmp';
            COMMENT ON FUNCTION tidemark_internal.%1$s_cmp(tidemark.%1$s, tidemark.%1$s) IS
                'The order of two %1$s by their bytes, for indexes and sorts.';
            CREATE FUNCTION tidemark_internal.%1$s_hash(tidemark.%1$s) RETURNS integer
            LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'hashvarlena';
            COMMENT ON FUNCTION tidemark_internal.%1$s_hash(tidemark.%1$s) IS 'Hash of the bytes of a %1$s.';
            CREATE FUNCTION tidemark_internal.%1$s_hash(tidemark.%1$s, bigint) RETURNS bigint
            LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'hashvarlenaextended';
            COMMENT ON FUNCTION tidemark_internal.%1$s_hash(tidemark.%1$s, bigint) IS
                'Hash of the bytes of a %1$s, with a seed.';
            CREATE OPERATOR CLASS tidemark_internal.%1$s_ops DEFAULT FOR TYPE tidemark.%1$s USING btree AS
                OPERATOR 1 tidemark.<, OPERATOR 2 tidemark.<=, OPERATOR 3 tidemark.=, OPERATOR 4 tidemark.>=,
                OPERATOR 5 tidemark.>, FUNCTION 1 tidemark_internal.%1$s_cmp(tidemark.%1$s, tidemark.%1$s);
            COMMENT ON OPERATOR CLASS tidemark_internal.%1$s_ops USING btree IS 'Order of %1$s by their bytes.';
            COMMENT ON OPERATOR FAMILY tidemark_internal.%1$s_ops USING btree IS 'Order of %1$s by their bytes.';
            CREATE OPERATOR CLASS tidemark_internal.%1$s_ops DEFAULT FOR TYPE tidemark.%1$s USING hash AS
                OPERATOR 1 tidemark.=, FUNCTION 1 tidemark_internal.%1$s_hash(tidemark.%1$s),
                FUNCTION 2 tidemark_internal.%1$s_hash(tidemark.%1$s, bigint);
            COMMENT ON OPERATOR CLASS tidemark_internal.%1$s_ops USING hash IS 'Hashes of %1$s by their bytes.';
            COMMENT ON OPERATOR FAMILY tidemark_internal.%1$s_ops USING hash IS 'Hashes of %1$s by their bytes.';
            $sql$, stored);
    END LOOP;
END
$$;
