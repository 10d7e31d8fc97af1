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
