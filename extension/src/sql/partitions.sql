-- Daily partitions of tables that are PARTITION BY RANGE on one timestamptz column, with UTC-day bounds.
-- Logic in plpgsql here; maintenance.rs checks the caller's rights and switches to the table's owner.
-- Not here yet: retention, detach, dry run.

CREATE TABLE tidemark.partition_config (
    parent regclass PRIMARY KEY,
    premake_days integer NOT NULL CHECK (premake_days BETWEEN 0 AND 366),
    partition_schema name NOT NULL,
    unique_columns name[],
    managed_since timestamptz NOT NULL DEFAULT pg_catalog.now()
);
SELECT pg_catalog.pg_extension_config_dump('tidemark.partition_config', '');
-- Partitions are created with the rights of each table's owner, who has to read the settings.
GRANT SELECT ON tidemark.partition_config TO PUBLIC;
COMMENT ON TABLE tidemark.partition_config IS
'Tables whose partitions tidemark creates. Written by tidemark.manage_partitions; dumped with the database.';
COMMENT ON COLUMN tidemark.partition_config.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark.partition_config.premake_days IS 'How many days after today (UTC) have a partition ready.';
COMMENT ON COLUMN tidemark.partition_config.partition_schema IS 'Schema in which partitions are created.';
COMMENT ON COLUMN tidemark.partition_config.unique_columns IS 'Columns of a unique index that each partition gets on its own; NULL for none. Unlike a key on the parent it need not contain the partition key.';
COMMENT ON COLUMN tidemark.partition_config.managed_since IS 'When the table was registered.';

CREATE FUNCTION tidemark.partitions(parent regclass)
RETURNS TABLE (partition regclass, from_date date, to_date date, rows_estimate bigint, bytes bigint, state text)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    SELECT c.oid::regclass,
           CASE WHEN b.bound[1] = 'MINVALUE' THEN '-infinity'::date ELSE trim(BOTH '''' FROM b.bound[1])::timestamptz::date END,
           CASE WHEN b.bound[2] = 'MAXVALUE' THEN 'infinity'::date ELSE trim(BOTH '''' FROM b.bound[2])::timestamptz::date END,
           CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END,
           pg_total_relation_size(c.oid),
           CASE WHEN i.inhdetachpending THEN 'detach pending' ELSE 'attached' END
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL regexp_match(
           pg_get_expr(c.relpartbound, c.oid),
           '^FOR VALUES FROM \((MINVALUE|''[^'']+'')\) TO \((MAXVALUE|''[^'']+'')\)$') AS b(bound)
     WHERE i.inhparent = parent
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark.partitions(regclass) IS
'The partitions of a range-partitioned table by ascending date: from_date inclusive and to_date exclusive as UTC dates (-infinity and infinity for open ends), estimated rows (NULL before the first ANALYZE), bytes with indexes and TOAST, and state: attached, or detach pending (an interrupted DETACH CONCURRENTLY). Read from the catalog, never from names. A table without partitions gives no rows; a DEFAULT partition is not listed.';

CREATE FUNCTION tidemark.check_partitioned(parent regclass) RETURNS name
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key_column name;
BEGIN
    IF parent IS NULL THEN
        RAISE EXCEPTION 'parent must not be NULL' USING ERRCODE = '22004';
    END IF;
    SELECT a.attname INTO key_column
      FROM pg_partitioned_table p
      JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
     WHERE p.partrelid = parent AND p.partstrat = 'r' AND p.partnatts = 1 AND a.atttypid = 'timestamptz'::regtype;
    IF key_column IS NULL THEN
        RAISE EXCEPTION 'parent % is not partitioned by range of one timestamptz column', parent
            USING ERRCODE = '42809', HINT = 'Create it with PARTITION BY RANGE (event_time).';
    END IF;
    RETURN key_column;
END
$$;
COMMENT ON FUNCTION tidemark.check_partitioned(regclass) IS
'The name of the column a table is range-partitioned by; an error (42809) if it is not partitioned by range of one timestamptz column.';

CREATE FUNCTION tidemark.create_partitions(parent regclass, from_date date, to_date date) RETURNS regclass[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    key_column name := tidemark.check_partitioned(parent);
    config tidemark.partition_config;
    parent_schema name;
    parent_name name;
    child_schema name;
    child_name text;
    child text;
    day date;
    has_event_date boolean;
    created regclass[] := '{}';
BEGIN
    IF from_date IS NULL OR to_date IS NULL OR NOT isfinite(from_date) OR NOT isfinite(to_date) THEN
        RAISE EXCEPTION 'from_date and to_date must be finite dates' USING ERRCODE = '22023';
    ELSIF to_date < from_date THEN
        RAISE EXCEPTION 'to_date must not be before from_date' USING ERRCODE = '22023';
    ELSIF to_date - from_date >= 1000 THEN
        RAISE EXCEPTION 'from_date to to_date spans % days, at most 1000 are allowed', to_date - from_date + 1
            USING ERRCODE = '22023', HINT = 'A range this long is usually one event with a wrong time. Call it once per run of dates.';
    END IF;

    -- Nothing missing is the usual case and takes no lock.
    IF NOT EXISTS (
        SELECT FROM generate_series(from_date::timestamp, to_date::timestamp, interval '1 day') AS d
         WHERE NOT EXISTS (SELECT FROM tidemark.partitions(parent) p WHERE p.from_date <= d::date AND p.to_date > d::date)) THEN
        RETURN created;
    END IF;

    -- The parent first: every maintainer takes locks in this order, and one that waited sees what the other made.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', parent);

    SELECT n.nspname, c.relname INTO parent_schema, parent_name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = parent;
    SELECT * INTO config FROM tidemark.partition_config p WHERE p.parent = create_partitions.parent;
    child_schema := coalesce(config.partition_schema, parent_schema);
    has_event_date := EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = parent AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype AND NOT a.attisdropped);

    FOR day IN
        SELECT d::date FROM generate_series(from_date::timestamp, to_date::timestamp, interval '1 day') AS d
         WHERE NOT EXISTS (SELECT FROM tidemark.partitions(parent) p WHERE p.from_date <= d::date AND p.to_date > d::date)
         ORDER BY 1
    LOOP
        child_name := parent_name || to_char(day, '"_p"YYYYMMDD');
        IF octet_length(child_name) > 63 THEN
            -- Longer names would be cut by Postgres and could collide.
            child_name := left(parent_name, 40) || '_' || left(md5(parent_name), 8) || to_char(day, '"_p"YYYYMMDD');
        END IF;
        child := format('%I.%I', child_schema, child_name);
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', child, parent);
        -- A CHECK equal to the bounds lets ATTACH skip its scan; it is dropped once the bound itself says so.
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tidemark_bounds CHECK (%I IS NOT NULL AND %I >= %L AND %I < %L)',
            child, key_column, key_column, day::timestamptz, key_column, (day + 1)::timestamptz);
        IF has_event_date THEN
            -- Lets literal predicates on event_date prune; the partition key only prunes on event_time.
            EXECUTE format('ALTER TABLE %s ADD CONSTRAINT event_date_of_partition CHECK (event_date >= %L AND event_date < %L)', child, day, day + 1);
        END IF;
        IF config.unique_columns IS NOT NULL THEN
            EXECUTE format('CREATE UNIQUE INDEX ON %s (%s)', child,
                (SELECT string_agg(format('%I', u), ', ' ORDER BY n) FROM unnest(config.unique_columns) WITH ORDINALITY AS x(u, n)));
        END IF;
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, child, day::timestamptz, (day + 1)::timestamptz);
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT tidemark_bounds', child);
        created := created || child::regclass;
    END LOOP;
    RETURN created;
END
$$;
COMMENT ON FUNCTION tidemark.create_partitions(regclass, date, date) IS
'Creates the missing daily partitions with the rights of the caller. Use tidemark.ensure_partitions, which acts as the owner of the table.';

CREATE FUNCTION tidemark.ensure_partitions_as_owner(parent regclass, from_date date, to_date date) RETURNS regclass[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_ensure_partitions';
COMMENT ON FUNCTION tidemark.ensure_partitions_as_owner(regclass, date, date) IS
'The work behind tidemark.ensure_partitions: checks that the caller may insert into parent, then creates partitions as its owner.';

CREATE FUNCTION tidemark.ensure_partitions(parent regclass, from_date date, to_date date) RETURNS SETOF regclass
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT unnest(tidemark.ensure_partitions_as_owner(parent, from_date, to_date));
END;
COMMENT ON FUNCTION tidemark.ensure_partitions(regclass, date, date) IS
'Creates the daily partitions of parent that are missing from from_date to to_date (UTC dates, both inclusive, at most 1000 days) and returns those it created; nothing when all exist. parent must be partitioned by range of one timestamptz column. The caller needs INSERT on parent; the partitions belong to the owner of parent. Takes SHARE UPDATE EXCLUSIVE on parent only if something is missing, so readers and writers go on. Safe to call from many sessions at once.';

CREATE FUNCTION tidemark.manage_partitions(parent regclass, premake_days integer DEFAULT 4, partition_schema name DEFAULT NULL, partition_unique name[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing name;
BEGIN
    PERFORM tidemark.check_partitioned(parent);
    IF premake_days IS NULL OR premake_days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'premake_days must be between 0 and 366' USING ERRCODE = '22023';
    END IF;
    IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = parent), 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', parent USING ERRCODE = '42501';
    END IF;
    IF partition_schema IS NOT NULL AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = partition_schema) THEN
        RAISE EXCEPTION 'partition_schema % does not exist', quote_ident(partition_schema)
            USING ERRCODE = '3F000', HINT = format('Create it first: CREATE SCHEMA %I;', partition_schema);
    END IF;
    SELECT u INTO missing FROM unnest(partition_unique) AS u
     WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = parent AND attname = u AND attnum > 0 AND NOT attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION 'partition_unique names column %, which % does not have', quote_ident(missing), parent USING ERRCODE = '42703';
    END IF;
    INSERT INTO tidemark.partition_config AS c (parent, premake_days, partition_schema, unique_columns)
    VALUES (parent, premake_days,
            coalesce(partition_schema, (SELECT n.nspname FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = parent)),
            partition_unique)
    ON CONFLICT ON CONSTRAINT partition_config_pkey DO UPDATE
       SET premake_days = excluded.premake_days, partition_schema = excluded.partition_schema, unique_columns = excluded.unique_columns;
    PERFORM tidemark.premake_partitions(parent);
END
$$;
COMMENT ON FUNCTION tidemark.manage_partitions(regclass, integer, name, name[]) IS
'Registers a table whose daily partitions tidemark creates, and makes those from today (UTC) to premake_days ahead (default 4). partition_schema: where partitions are created (default: the schema of parent). partition_unique: columns of a unique index that every partition gets (default none). Calling it again changes the settings; existing partitions stay as they are. Only the owner of parent may call it.';

CREATE FUNCTION tidemark.premake_partitions(parent regclass) RETURNS SETOF regclass
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT tidemark.ensure_partitions(parent, today, today + c.premake_days)
      FROM tidemark.partition_config c, (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS clock
     WHERE c.parent = premake_partitions.parent;
END;
COMMENT ON FUNCTION tidemark.premake_partitions(regclass) IS
'Creates the partitions of a managed table from today (UTC) to its premake_days ahead and returns those it created. A table that is not managed gives no rows.';
