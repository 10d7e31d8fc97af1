-- What lies behind the views of gold (sketches, states, materialized views) moves to a schema of its own. Tools that
-- list a schema without asking for privileges, as most do over JDBC and ODBC, then show in gold what dashboards read and
-- nothing else. Tables and views keep their rows and whatever depends on them. A model is registered by name: it gets
-- its new one with an empty query, so the scripts in sql/ see a changed model and the next refresh looks at every date.
CREATE SCHEMA gold_storage AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA gold_storage IS 'Storage behind the views of gold: sketches, states and materialized views; query the views in schema gold instead';

DO $$
DECLARE
    old tidemark_internal.models;
    entry text;
BEGIN
    FOREACH entry IN ARRAY ARRAY['session_facts', 'daily_activity', 'funnel_facts', 'load_times'] LOOP
        SELECT * INTO old FROM tidemark_internal.models m WHERE m.name = 'gold.' || entry;
        IF FOUND THEN
            EXECUTE pg_catalog.format('ALTER TABLE gold.%I SET SCHEMA gold_storage', entry);
            EXECUTE pg_catalog.format('ALTER VIEW gold.%I SET SCHEMA gold_storage', entry || '_live');
            DELETE FROM tidemark_internal.models m WHERE m.name = old.name;
            old.name := 'gold_storage.' || entry;
            old.query := '';
            INSERT INTO tidemark_internal.models SELECT (old).*;
        END IF;
    END LOOP;
    FOREACH entry IN ARRAY ARRAY['rolling_actives_stored', 'retention_stored', 'lifecycle_stored'] LOOP
        IF pg_catalog.to_regclass('gold.' || entry) IS NOT NULL THEN
            EXECUTE pg_catalog.format('ALTER MATERIALIZED VIEW gold.%I SET SCHEMA gold_storage', entry);
        END IF;
    END LOOP;
END
$$;
