-- Settings of the tables whose partitions tidemark makes and retires. Written by functions only, as the extension's
-- owner (act.sql). How they stand is shown by tidemark.partition_health (partition_health.sql).

CREATE TABLE tidemark_internal.partition_config (
    parent regclass PRIMARY KEY,
    premake_days integer NOT NULL CHECK (premake_days BETWEEN 0 AND 366),
    partition_schema name NOT NULL,
    unique_columns name[],
    managed_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    retention_days integer CHECK (retention_days BETWEEN 1 AND 36500),
    retention_action text NOT NULL CHECK (retention_action IN ('drop', 'keep')),
    last_success timestamptz,
    last_error text,
    last_error_at timestamptz,
    lock_timeouts bigint NOT NULL DEFAULT 0
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.partition_config', '');
COMMENT ON TABLE tidemark_internal.partition_config IS
'Tables whose partitions tidemark makes and retires, and how the last maintenance went; shown by '
'tidemark.partition_health. Written by tidemark.manage_partitions, tidemark.unmanage_partitions and maintenance. A '
'maintainer locks its row.';
COMMENT ON COLUMN tidemark_internal.partition_config.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.partition_config.premake_days IS
'How many days after today (UTC) have a partition ready.';
COMMENT ON COLUMN tidemark_internal.partition_config.partition_schema IS 'Schema in which partitions are made.';
COMMENT ON COLUMN tidemark_internal.partition_config.unique_columns IS
'Columns of a unique index that each partition gets on its own; NULL for none. Unlike a key on the parent it need '
'not contain the partition key.';
COMMENT ON COLUMN tidemark_internal.partition_config.managed_since IS 'When the table was registered.';
COMMENT ON COLUMN tidemark_internal.partition_config.retention_days IS
'Dates more than this many days before today (UTC) are retired; NULL keeps all.';
COMMENT ON COLUMN tidemark_internal.partition_config.retention_action IS
'What becomes of a retired partition: drop, or keep (detached, a table of its own).';
COMMENT ON COLUMN tidemark_internal.partition_config.last_success IS
'When maintenance last did all that was due for this table; NULL if never.';
COMMENT ON COLUMN tidemark_internal.partition_config.last_error IS
'SQLSTATE and message of what failed in the last maintenance; NULL if nothing did. It may quote values, so it is '
'not open to all.';
COMMENT ON COLUMN tidemark_internal.partition_config.last_error_at IS 'When that was; NULL if nothing failed.';
COMMENT ON COLUMN tidemark_internal.partition_config.lock_timeouts IS
'How often maintenance gave up waiting for a lock on this table, in all.';
GRANT SELECT (parent, premake_days, partition_schema, unique_columns, managed_since, retention_days, retention_action,
    last_success, last_error_at, lock_timeouts) ON tidemark_internal.partition_config TO PUBLIC;

CREATE FUNCTION tidemark.manage_partitions(parent regclass, premake_days integer DEFAULT NULL,
    partition_schema name DEFAULT NULL, partition_unique name[] DEFAULT NULL, retention_days integer DEFAULT NULL,
    retention_action text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.manage_partitions(regclass, integer, name, name[], integer, text) IS
'Registers a table whose daily partitions tidemark makes and retires, or
changes its settings, and makes the partitions from today (UTC) to
premake_days ahead (0 to 366, at first 4). partition_schema: where
partitions are made (at first the schema of parent). partition_unique:
columns of a unique index that every partition gets (at first {}, none).
retention_days: partitions that lie entirely more than this many days before
today are retired by maintenance, 1 to 36500 (at first 0: none is).
retention_action: what becomes of them, drop (at first) or keep (detached,
as tables of their own). What is NULL or left out stays as it is. Existing
partitions stay as they are, and nothing is retired by this call. The caller
must have the rights of the owner of parent.';

CREATE FUNCTION tidemark_internal.manage_partitions(caller oid, parent regclass, premake_days integer,
    partition_schema name, partition_unique name[], retention_days integer, retention_action text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    unknown name;
    ahead integer;
    missing record;
    free date[] := '{}';
BEGIN
    PERFORM tidemark_internal.check_partitioned(parent);
    PERFORM tidemark_internal.check_may_act_as(caller, parent);
    IF (SELECT c.relpersistence FROM pg_class c WHERE c.oid = parent) = 't' THEN
        -- Every other session would fail to maintain it.
        RAISE EXCEPTION 'table % is temporary', parent USING ERRCODE = '42809';
    END IF;
    SELECT u INTO unknown FROM unnest(partition_unique) AS u
     WHERE NOT EXISTS (SELECT FROM pg_attribute a
                        WHERE a.attrelid = parent AND a.attname = u AND a.attnum > 0 AND NOT a.attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION 'partition_unique names column %, which % does not have',
            coalesce(quote_ident(unknown), 'NULL'), parent USING ERRCODE = '42703';
    ELSIF premake_days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'premake_days must be between 0 and 366' USING ERRCODE = '22023';
    ELSIF retention_days NOT BETWEEN 0 AND 36500 THEN
        RAISE EXCEPTION 'retention_days must be between 0 and 36500'
            USING ERRCODE = '22023', HINT = '0 keeps everything.';
    ELSIF retention_action NOT IN ('drop', 'keep') THEN
        RAISE EXCEPTION 'retention_action must be drop or keep' USING ERRCODE = '22023';
    ELSIF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = coalesce(partition_schema, 'pg_catalog')) THEN
        RAISE EXCEPTION 'partition_schema % does not exist', quote_ident(partition_schema)
            USING ERRCODE = '3F000', HINT = format('Create it first: CREATE SCHEMA %I;', partition_schema);
    END IF;
    INSERT INTO tidemark_internal.partition_config AS c
        (parent, premake_days, partition_schema, unique_columns, retention_days, retention_action)
    SELECT parent, coalesce(manage_partitions.premake_days, 4), coalesce(manage_partitions.partition_schema, n.nspname),
           nullif(partition_unique, '{}'), nullif(manage_partitions.retention_days, 0),
           coalesce(manage_partitions.retention_action, 'drop')
      FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = manage_partitions.parent
    ON CONFLICT ON CONSTRAINT partition_config_pkey DO UPDATE
       SET premake_days = coalesce(manage_partitions.premake_days, c.premake_days),
           partition_schema = coalesce(manage_partitions.partition_schema, c.partition_schema),
           unique_columns = nullif(coalesce(partition_unique, c.unique_columns), '{}'),
           retention_days = nullif(coalesce(manage_partitions.retention_days, c.retention_days), 0),
           retention_action = coalesce(manage_partitions.retention_action, c.retention_action)
    RETURNING c.premake_days INTO ahead;
    FOR missing IN
        SELECT * FROM tidemark_internal.missing_dates(
            parent, ARRAY(SELECT d::date FROM generate_series(today, today + ahead, interval '1 day') AS d), true)
    LOOP
        IF missing.code IS NULL THEN
            free := free || missing.event_date;
        ELSE
            RAISE WARNING '%', missing.message USING DETAIL = missing.detail, HINT = missing.hint;
        END IF;
    END LOOP;
    PERFORM tidemark_internal.ensure_partitions(caller, parent, free);
END
$$;
COMMENT ON FUNCTION tidemark_internal.manage_partitions(oid, regclass, integer, name, name[], integer, text) IS
'The work behind tidemark.manage_partitions.';

CREATE FUNCTION tidemark.unmanage_partitions(parent regclass) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.unmanage_partitions(regclass) IS
'Forgets the settings of a managed table; true if it was managed. Touches no
table and no partition, and what was retired stays retired. The caller must
have the rights of the owner of parent.';

CREATE FUNCTION tidemark_internal.unmanage_partitions(caller oid, parent regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.check_partitioned(parent);
    PERFORM tidemark_internal.check_may_act_as(caller, parent);
    DELETE FROM tidemark_internal.partition_config c WHERE c.parent = unmanage_partitions.parent;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tidemark_internal.unmanage_partitions(oid, regclass) IS
'The work behind tidemark.unmanage_partitions.';
