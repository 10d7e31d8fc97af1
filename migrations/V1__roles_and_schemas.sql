-- Group roles, schemas and the extension. Roles belong to the whole cluster, so another database of the same
-- cluster may have created them already, or may be doing so right now.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('tidemark_admin', 'tidemark: owns bronze, silver, gold and loader; runs refresh and maintenance'),
            ('tidemark_loader', 'tidemark: appends events, dead letters and offsets; reads no model'),
            ('tidemark_reader', 'tidemark: reads the parents and views of silver and gold, nothing else')
        ) AS roles (role_name, role_comment)
    LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.role_name) THEN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.role_name);
                EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.role_name, wanted.role_comment);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database of this cluster was faster
        END;
    END LOOP;
END
$$;

CREATE SCHEMA bronze AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA bronze IS 'Raw events as produced: append-only, never updated';
CREATE SCHEMA bronze_partitions AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA bronze_partitions IS
    'Daily partitions of the bronze tables; query the parents in schema bronze instead';
CREATE SCHEMA silver AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA silver IS 'Cleaned and typed events: silver.events and one table per high-value event type';
CREATE SCHEMA silver_partitions AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA silver_partitions IS
    'Daily partitions of the silver tables; query the parents in schema silver instead';
CREATE SCHEMA gold AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA gold IS 'What dashboards read: sessions, daily actives, funnels, retention';
-- A schema of its own: tools that list a schema without asking for privileges, as most do over JDBC and ODBC, then show
-- in gold what dashboards read and nothing else.
CREATE SCHEMA gold_storage AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA gold_storage IS
    'Storage behind the views of gold: sketches, states and materialized views; query the views in schema gold instead';

-- The schema loader exists already: the migration runner keeps its history table there.
ALTER SCHEMA loader OWNER TO tidemark_admin;
COMMENT ON SCHEMA loader IS 'The loader''s own books: position, batches, dead letters';
COMMENT ON TABLE loader.schema_history IS 'Versioned migrations that were applied; written by tidemark migrate';
COMMENT ON COLUMN loader.schema_history.version IS 'Number of the migration';
COMMENT ON COLUMN loader.schema_history.name IS 'Its name';
COMMENT ON COLUMN loader.schema_history.applied_on IS 'When it was applied';
COMMENT ON COLUMN loader.schema_history.checksum IS
    'Checksum of its text; another text under the same number is refused';
COMMENT ON COLUMN loader.schema_history.oldest_binary IS
    'Oldest tidemark that may go on after it, by the last migration that it knows: older loaders wait to be replaced';

-- The extension makes its schemas itself, so none is named here.
CREATE EXTENSION IF NOT EXISTS tidemark;

GRANT USAGE ON SCHEMA tidemark, tidemark_internal TO tidemark_admin, tidemark_loader, tidemark_reader;
GRANT USAGE ON SCHEMA bronze, loader TO tidemark_loader;
GRANT USAGE ON SCHEMA silver, gold TO tidemark_reader;

-- Who loads or replays looks first whether the binary knows the schema.
GRANT SELECT ON loader.schema_history TO tidemark_admin, tidemark_loader;
