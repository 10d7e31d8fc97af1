-- Support functions of aggregates are described by what they belong to. Stands behind the last aggregate.
DO $$
DECLARE
    support regprocedure;
    aggregates text;
BEGIN
    FOR support, aggregates IN
        SELECT f.oid, pg_catalog.string_agg(DISTINCT p.proname::text, ', ')
          FROM pg_catalog.pg_aggregate AS a
          JOIN pg_catalog.pg_proc AS p ON p.oid = a.aggfnoid
          JOIN pg_catalog.pg_proc AS f
            ON f.oid IN (a.aggtransfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggfinalfn)
         WHERE f.pronamespace = 'tidemark_internal'::regnamespace
         GROUP BY f.oid
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s IS %L', support,
                                  E'Not for direct use: support function of\n' || aggregates || '.');
    END LOOP;
END
$$;
