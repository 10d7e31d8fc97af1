-- Daily partitions of tables that are PARTITION BY RANGE on one timestamptz column, with UTC-day bounds: settings,
-- what exists, and how partitions are made. Retention, dry run and the procedure are in retirement.sql.
-- Logic in plpgsql here; maintenance.rs checks the caller's rights and switches to the table's owner.

CREATE TABLE tidemark_internal.partition_config (
    parent regclass PRIMARY KEY,
    premake_days integer NOT NULL CHECK (premake_days BETWEEN 0 AND 366),
    partition_schema name NOT NULL,
    unique_columns name[],
    managed_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    retention_days integer CHECK (retention_days BETWEEN 1 AND 36500),
    retention_action text NOT NULL DEFAULT 'drop' CHECK (retention_action IN ('drop', 'keep')),
    last_success timestamptz,
    last_error text,
    last_error_at timestamptz,
    lock_timeouts bigint NOT NULL DEFAULT 0
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.partition_config', '');
COMMENT ON TABLE tidemark_internal.partition_config IS
'Tables whose partitions tidemark creates and retires, and how the last maintenance went. Written by tidemark.manage_partitions, tidemark.unmanage_partitions and maintenance; everybody may read it, members of the owner of a table may write its row. Dumped with the database.';
COMMENT ON COLUMN tidemark_internal.partition_config.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.partition_config.premake_days IS 'How many days after today (UTC) have a partition ready.';
COMMENT ON COLUMN tidemark_internal.partition_config.partition_schema IS 'Schema in which partitions are created.';
COMMENT ON COLUMN tidemark_internal.partition_config.unique_columns IS 'Columns of a unique index that each partition gets on its own; NULL for none. Unlike a key on the parent it need not contain the partition key.';
COMMENT ON COLUMN tidemark_internal.partition_config.managed_since IS 'When the table was registered.';
COMMENT ON COLUMN tidemark_internal.partition_config.retention_days IS 'Dates more than this many days before today (UTC) are retired; NULL keeps all.';
COMMENT ON COLUMN tidemark_internal.partition_config.retention_action IS 'What becomes of a retired partition: drop, or keep (detached, a table of its own).';
COMMENT ON COLUMN tidemark_internal.partition_config.last_success IS 'When maintenance last did all that was due for this table; NULL if never.';
COMMENT ON COLUMN tidemark_internal.partition_config.last_error IS 'SQLSTATE and message of what failed in the last maintenance; NULL if nothing did.';
COMMENT ON COLUMN tidemark_internal.partition_config.last_error_at IS 'When that was; NULL if nothing failed.';
COMMENT ON COLUMN tidemark_internal.partition_config.lock_timeouts IS 'How often maintenance gave up waiting for a lock on this table, in all.';

-- Settings belong to whoever owns the table, so that no privileged role is needed to manage one. Maintenance reads and
-- writes them as that owner, too.
ALTER TABLE tidemark_internal.partition_config ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.partition_config FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.partition_config
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = parent), 'MEMBER'));
-- A row whose table was dropped is nobody's: every maintainer may remove it.
CREATE POLICY nobodys ON tidemark_internal.partition_config FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.partition_config TO PUBLIC;

CREATE FUNCTION tidemark_internal.partition_bounds(parent regclass)
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, pending boolean)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
BEGIN ATOMIC
    SELECT c.oid::regclass,
           CASE WHEN b.bound[1] = 'MINVALUE' THEN '-infinity'::timestamptz ELSE trim(BOTH '''' FROM b.bound[1])::timestamptz END,
           CASE WHEN b.bound[2] = 'MAXVALUE' THEN 'infinity'::timestamptz ELSE trim(BOTH '''' FROM b.bound[2])::timestamptz END,
           i.inhdetachpending
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL regexp_match(
           pg_get_expr(c.relpartbound, c.oid),
           '^FOR VALUES FROM \((MINVALUE|''[^'']+'')\) TO \((MAXVALUE|''[^'']+'')\)$') AS b(bound)
     WHERE i.inhparent = parent
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark_internal.partition_bounds(regclass) IS
'The partitions of a range-partitioned table by ascending time: from_time
inclusive, to_time exclusive (-infinity and infinity for open ends), and
whether a DETACH CONCURRENTLY of it was begun and not finished. Read from
the catalog without any lock. A DEFAULT partition is not listed.';

CREATE FUNCTION tidemark.partitions(parent regclass)
RETURNS TABLE (partition regclass, from_date date, to_date date, rows_estimate bigint, bytes bigint, state text)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    SELECT b.partition, b.from_time::date, b.to_time::date,
           CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END,
           pg_total_relation_size(c.oid),
           CASE WHEN b.pending THEN 'detach pending' ELSE 'attached' END
      FROM tidemark_internal.partition_bounds(parent) AS b
      JOIN pg_class c ON c.oid = b.partition
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark.partitions(regclass) IS
'The partitions of a range-partitioned table, one a row, by ascending date.
from_date inclusive and to_date exclusive are UTC dates (-infinity and
infinity for open ends); rows_estimate is NULL before the first ANALYZE;
bytes are with indexes and TOAST; state is attached, or detach pending (an
interrupted DETACH CONCURRENTLY). Read from the catalog, never from names. A
table without partitions gives no rows; a DEFAULT partition is not listed.';

CREATE FUNCTION tidemark_internal.check_partitioned(parent regclass) RETURNS name
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
COMMENT ON FUNCTION tidemark_internal.check_partitioned(regclass) IS
'The name of the column a table is range-partitioned by; an error (42809) if
it is not partitioned by range of one timestamptz column.';

CREATE FUNCTION tidemark_internal.partition_name(parent_name name, day date) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Postgres cuts names at 63 bytes, and with them the date. 10 bytes are for the date, 9 for a hash where it is tight.
    SELECT (CASE WHEN octet_length(parent_name::text) <= 53 THEN parent_name::text
                 ELSE (SELECT left(parent_name::text, max(n)) FROM generate_series(0, 44) AS n WHERE octet_length(left(parent_name::text, n)) <= 44)
                      || '_' || left(md5(parent_name::text), 8)
            END || '_p' || to_char(day, 'YYYYMMDD'))::name;
END;
COMMENT ON FUNCTION tidemark_internal.partition_name(name, date) IS
'The name of the partition of a date: that of the table, _p and the date as
YYYYMMDD; at most 63 bytes, a longer table name is cut and gets a hash.';

CREATE FUNCTION tidemark_internal.partition_sql(parent regclass, day date, filled boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    from_time timestamptz := day::timestamptz;
    to_time timestamptz := (day + 1)::timestamptz;
    table_of record;
    config tidemark_internal.partition_config;
    neighbour regclass;
    options text;
    child text;
    statements text[];
BEGIN
    SELECT c.relname, n.nspname, c.relreplident, t.spcname, a.amname INTO table_of
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
      LEFT JOIN pg_am a ON a.oid = c.relam
     WHERE c.oid = parent;
    SELECT * INTO config FROM tidemark_internal.partition_config p WHERE p.parent = partition_sql.parent;
    child := format('%I.%I', coalesce(config.partition_schema, table_of.nspname), tidemark_internal.partition_name(table_of.relname, day));

    -- An identity belongs to the parent: its values come from there, and newer servers refuse a partition with its own.
    -- Indexes of the parent are made by ATTACH where they are missing.
    statements := ARRAY[concat(format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY%s)', child, parent, CASE WHEN filled THEN ' EXCLUDING INDEXES' END),
                               ' USING ' || quote_ident(table_of.amname), ' TABLESPACE ' || quote_ident(table_of.spcname))];
    -- A CHECK equal to the bounds lets ATTACH skip its scan; it is dropped once the bound itself says so.
    statements := statements || format('ALTER TABLE %s ADD CONSTRAINT tidemark_bounds CHECK (%I IS NOT NULL AND %I >= %L AND %I < %L)',
        child, key_column, key_column, from_time, key_column, to_time);
    IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = parent AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype AND NOT a.attisdropped) THEN
        -- Lets literal predicates on event_date prune; the partition key only prunes on event_time.
        statements := statements || format('ALTER TABLE %s ADD CONSTRAINT event_date_of_partition CHECK (event_date >= %L AND event_date < %L)', child, day, day + 1);
    END IF;
    IF config.unique_columns IS NOT NULL THEN
        statements := statements || format('CREATE UNIQUE INDEX ON %s (%s)', child,
            (SELECT string_agg(format('%I', u), ', ' ORDER BY n) FROM unnest(config.unique_columns) WITH ORDINALITY AS x(u, n)));
    END IF;
    -- A partitioned table has no storage options of its own: those of the newest partition before this one go on.
    SELECT b.partition INTO neighbour FROM tidemark_internal.partition_bounds(parent) b
     WHERE NOT b.pending AND b.from_time < day::timestamptz ORDER BY b.from_time DESC LIMIT 1;
    SELECT string_agg(format('%s = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') INTO options
      FROM (SELECT unnest(c.reloptions) FROM pg_class c WHERE c.oid = neighbour AND c.relkind = 'r'
            UNION ALL
            SELECT 'toast.' || unnest(t.reloptions) FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = neighbour) AS x(o);
    IF options IS NOT NULL THEN
        statements := statements || format('ALTER TABLE %s SET (%s)', child, options);
    END IF;
    IF table_of.relreplident IN ('f', 'n') THEN
        statements := statements || format('ALTER TABLE %s REPLICA IDENTITY %s', child, CASE table_of.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END);
    END IF;
    RETURN statements
        || format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, child, from_time, to_time)
        || format('ALTER TABLE %s DROP CONSTRAINT tidemark_bounds', child);
END
$$;
COMMENT ON FUNCTION tidemark_internal.partition_sql(regclass, date, boolean) IS
'The statements that create the partition of a UTC date and attach it, in
order. filled: rows are put into the table after the first of them, so its
indexes are only made later. Nothing is executed. An error as for
tidemark.ensure_partitions when parent is not partitioned by range of one
timestamptz column.';

CREATE FUNCTION tidemark_internal.missing_dates(parent regclass, from_date date, to_date date) RETURNS SETOF date
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    WITH bounds AS MATERIALIZED (SELECT b.from_time::date AS first, b.to_time::date AS past FROM tidemark_internal.partition_bounds(parent) b)
    SELECT d::date FROM generate_series(from_date::timestamp, to_date::timestamp, interval '1 day') AS d
     WHERE NOT EXISTS (SELECT FROM bounds b WHERE b.first <= d::date AND b.past > d::date)
     ORDER BY 1;
END;
COMMENT ON FUNCTION tidemark_internal.missing_dates(regclass, date, date) IS
'The work behind maintenance: the UTC dates from from_date to to_date, both
inclusive, that no partition of parent holds, ascending.';

CREATE FUNCTION tidemark_internal.check_not_retired(parent regclass, from_date date, to_date date) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired record;
BEGIN
    SELECT * INTO retired FROM tidemark_internal.retired_dates r
     WHERE r.parent = check_not_retired.parent AND r.event_date BETWEEN from_date AND to_date ORDER BY r.event_date LIMIT 1;
    IF FOUND THEN
        -- An empty partition would let the next refresh overwrite the date with its late rows alone.
        RAISE EXCEPTION 'date % of % is retired', retired.event_date, parent
            USING ERRCODE = '55000', DETAIL = format('Its partition %s is %s.', retired.partition, retired.state),
                  HINT = CASE retired.state
                      WHEN 'dropped' THEN 'Its rows are gone. To begin the date anew, delete its row from tidemark_internal.retired_dates first.'
                      ELSE format('SELECT tidemark.restore_partition(%L, %L) attaches it again.', parent, retired.event_date) END;
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_not_retired(regclass, date, date) IS
'The work behind maintenance: raises an error (55000) when one of the dates,
both inclusive, is in tidemark_internal.retired_dates.';

CREATE FUNCTION tidemark_internal.create_partitions(parent regclass, from_date date, to_date date, fill text DEFAULT NULL) RETURNS regclass[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    statement text;
    child text;
    other text;
    is_first boolean;
    name_of name;
    schema_of name;
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
    PERFORM tidemark_internal.check_not_retired(parent, from_date, to_date);

    -- Nothing missing is the usual case and takes no lock.
    IF NOT EXISTS (SELECT FROM tidemark_internal.missing_dates(parent, from_date, to_date)) THEN
        RETURN created;
    ELSIF to_date > today + 366 OR from_date < '1900-01-01' THEN
        RAISE EXCEPTION 'no partition is created for %', CASE WHEN to_date > today + 366 THEN to_date ELSE from_date END
            USING ERRCODE = '22023', HINT = 'Dates go from 1900-01-01 to 366 days after today. Beyond, make a partition by hand if the date is no mistake.';
    END IF;

    SELECT c.relname, coalesce(p.partition_schema, n.nspname) INTO name_of, schema_of
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN tidemark_internal.partition_config p ON p.parent = c.oid
     WHERE c.oid = create_partitions.parent;
    -- The parent first: every maintainer takes locks in this order, and one that waited sees what the other made.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    PERFORM tidemark_internal.check_not_retired(parent, from_date, to_date);

    FOR day IN SELECT d FROM tidemark_internal.missing_dates(parent, from_date, to_date) AS d LOOP
        is_first := true;
        FOREACH statement IN ARRAY tidemark_internal.partition_sql(parent, day, fill IS NOT NULL) LOOP
            EXECUTE statement;
            IF is_first AND fill IS NOT NULL THEN
                EXECUTE format('INSERT INTO %I.%I ', schema_of, tidemark_internal.partition_name(name_of, day)) || fill USING day, day + 1;
            END IF;
            is_first := false;
        END LOOP;
        SELECT b.partition INTO child FROM tidemark_internal.partition_bounds(parent) b WHERE b.from_time = day::timestamptz;
        -- An index that identifies rows for replication is known by name only now.
        SELECT c.relname INTO other
          FROM pg_index p JOIN pg_inherits h ON h.inhparent = p.indexrelid JOIN pg_index i ON i.indexrelid = h.inhrelid
          JOIN pg_class c ON c.oid = i.indexrelid
         WHERE p.indrelid = parent AND p.indisreplident AND i.indrelid = child::regclass;
        IF FOUND THEN
            EXECUTE format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', child, other);
        END IF;
        -- Rows are read through the parent; default privileges may have said otherwise.
        FOR other IN
            SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
              FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS x WHERE c.oid = child::regclass AND x.grantee <> c.relowner
        LOOP
            EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', child, other);
        END LOOP;
        created := created || child::regclass;
    END LOOP;
    RETURN created;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_partitions(regclass, date, date, text) IS
'Creates the missing daily partitions with the rights of the caller, and
returns them. Use tidemark.ensure_partitions, which acts as the owner of the
table. fill, for tidemark.refresh, is what stands behind INSERT INTO and the
name of the table, with the date as $1 and the day after as $2: run before
there are indexes, which takes a fraction of the time.';

CREATE FUNCTION tidemark_internal.ensure_partitions_as_owner(parent regclass, from_date date, to_date date) RETURNS regclass[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_ensure_partitions';
COMMENT ON FUNCTION tidemark_internal.ensure_partitions_as_owner(regclass, date, date) IS
'The work behind tidemark.ensure_partitions: checks that the caller may
insert into parent, then creates partitions as its owner.';

CREATE FUNCTION tidemark.ensure_partitions(parent regclass, from_date date, to_date date) RETURNS SETOF regclass
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT unnest(tidemark_internal.ensure_partitions_as_owner(parent, from_date, to_date));
END;
COMMENT ON FUNCTION tidemark.ensure_partitions(regclass, date, date) IS
'Creates the daily partitions of parent that are missing from from_date to
to_date (UTC dates, both inclusive, at most 1000 days) and returns those it
created; nothing when all exist. parent must be partitioned by range of one
timestamptz column. Dates before 1900 or more than 366 days ahead are
refused (22023), and so are dates in tidemark_internal.retired_dates
(55000). The caller needs INSERT on parent; the partitions belong to the
owner of parent and are granted to nobody. Takes SHARE UPDATE EXCLUSIVE on
parent only if something is missing, so readers and writers go on. Safe to
call from many sessions at once.';

CREATE FUNCTION tidemark.manage_partitions(parent regclass, premake_days integer DEFAULT 4, partition_schema name DEFAULT NULL, partition_unique name[] DEFAULT NULL, retention_days integer DEFAULT NULL, retention_action text DEFAULT 'drop') RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing name;
BEGIN
    PERFORM tidemark_internal.check_partitioned(parent);
    IF premake_days IS NULL OR premake_days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'premake_days must be between 0 and 366' USING ERRCODE = '22023';
    ELSIF retention_days NOT BETWEEN 1 AND 36500 THEN
        RAISE EXCEPTION 'retention_days must be between 1 and 36500' USING ERRCODE = '22023', HINT = 'NULL keeps everything.';
    ELSIF retention_action IS NULL OR retention_action NOT IN ('drop', 'keep') THEN
        RAISE EXCEPTION 'retention_action must be drop or keep' USING ERRCODE = '22023';
    ELSIF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = parent), 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', parent USING ERRCODE = '42501';
    ELSIF partition_schema IS NOT NULL AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = partition_schema) THEN
        RAISE EXCEPTION 'partition_schema % does not exist', quote_ident(partition_schema)
            USING ERRCODE = '3F000', HINT = format('Create it first: CREATE SCHEMA %I;', partition_schema);
    END IF;
    SELECT u INTO missing FROM unnest(partition_unique) AS u
     WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = parent AND attname = u AND attnum > 0 AND NOT attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION 'partition_unique names column %, which % does not have', quote_ident(missing), parent USING ERRCODE = '42703';
    END IF;
    INSERT INTO tidemark_internal.partition_config AS c (parent, premake_days, partition_schema, unique_columns, retention_days, retention_action)
    VALUES (parent, premake_days,
            coalesce(partition_schema, (SELECT n.nspname FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = parent)),
            nullif(partition_unique, '{}'), retention_days, retention_action)
    ON CONFLICT ON CONSTRAINT partition_config_pkey DO UPDATE
       SET premake_days = excluded.premake_days, partition_schema = excluded.partition_schema, unique_columns = excluded.unique_columns,
           retention_days = excluded.retention_days, retention_action = excluded.retention_action;
    PERFORM tidemark_internal.premake_partitions(parent);
END
$$;
COMMENT ON FUNCTION tidemark.manage_partitions(regclass, integer, name, name[], integer, text) IS
'Registers a table whose daily partitions tidemark creates and retires, and
makes those from today (UTC) to premake_days ahead (default 4).
partition_schema: where partitions are created (default: the schema of
parent). partition_unique: columns of a unique index that every partition
gets (default none). retention_days: partitions that lie entirely more than
this many days before today are retired by maintenance, 1 to 36500 (default
NULL: none). retention_action: what becomes of them, drop (default) or keep
(detached, as tables of their own). Calling it again replaces all settings;
existing partitions stay as they are, and nothing is retired by this call.
Only members of the owner of parent may call it.';

CREATE FUNCTION tidemark.unmanage_partitions(parent regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF parent IS NULL THEN
        RAISE EXCEPTION 'parent must not be NULL' USING ERRCODE = '22004';
    ELSIF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = parent), 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', parent USING ERRCODE = '42501';
    END IF;
    DELETE FROM tidemark_internal.partition_config c WHERE c.parent = unmanage_partitions.parent;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tidemark.unmanage_partitions(regclass) IS
'Forgets the settings of a managed table; true if it was managed. Touches no
table and no partition, and what was retired stays retired. Only members of
the owner of parent may call it.';

CREATE FUNCTION tidemark_internal.premake_partitions(parent regclass) RETURNS SETOF regclass
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT tidemark.ensure_partitions(parent, today, today + c.premake_days)
      FROM tidemark_internal.partition_config c, (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS clock
     WHERE c.parent = premake_partitions.parent;
END;
COMMENT ON FUNCTION tidemark_internal.premake_partitions(regclass) IS
'Creates the partitions of a managed table from today (UTC) to its
premake_days ahead and returns those it created. A table that is not managed
gives no rows.';
