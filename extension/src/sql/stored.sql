-- Types whose values are the bytes of a state: input, output and casts. Implemented in support/stored.rs.
-- Each is described beside its aggregates.
DO $$
DECLARE
    stored name;
BEGIN
    FOREACH stored IN ARRAY ARRAY['hll', 'ddsketch', 'funnel_stats'] LOOP
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
                E'Text input of %1$s: \\x and hexadecimal digits;\nbytes that are not a valid value are refused (22P02).';
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
    END LOOP;
END
$$;
