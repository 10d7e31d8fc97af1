-- Daily partitions of tables that are PARTITION BY RANGE on one timestamptz column, with UTC-day bounds: what exists,
-- which dates have no partition, how partitions are made, and for whom. Settings are in manage_partitions.sql,
-- retention in retirement.sql, what runs now and then in maintenance.sql.
--
-- Whose rights: statements on users' tables run as the owner of the table (models/owner.rs). A function that consists
-- of nothing else (create_partitions) has the rights of its caller; tidemark.ensure_partitions is a door to it.

CREATE FUNCTION tidemark_internal.partition_bounds(parent regclass)
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, pending boolean)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
BEGIN ATOMIC
    -- 0 in place of the table: with it, pg_get_expr would wait for whoever has the partition locked.
    SELECT c.oid::regclass,
           CASE b.bound[1] WHEN 'MINVALUE' THEN '-infinity' ELSE trim(BOTH '''' FROM b.bound[1])::timestamptz END,
           CASE b.bound[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE trim(BOTH '''' FROM b.bound[2])::timestamptz END,
           i.inhdetachpending
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL regexp_match(
           pg_get_expr(c.relpartbound, 0),
           '^FOR VALUES FROM \((MINVALUE|''[^'']+'')\) TO \((MAXVALUE|''[^'']+'')\)$') AS b(bound)
     WHERE i.inhparent = parent AND b.bound IS NOT NULL
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark_internal.partition_bounds(regclass) IS
'The partitions of a range-partitioned table by ascending time: from_time
inclusive, to_time exclusive (-infinity and infinity for open ends), and
whether a DETACH CONCURRENTLY of it was begun and not finished. Read from
the catalog without any lock. A DEFAULT partition is not listed.';

CREATE FUNCTION tidemark_internal.bytes_of_one(relation oid) RETURNS bigint
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'tidemark_bytes_of_one';
COMMENT ON FUNCTION tidemark_internal.bytes_of_one(oid) IS
'The size of the rows or entries of one table or index, without those it has
beside it. NULL when it does not exist, or somebody holds it locked so that
reading it would wait.';

CREATE FUNCTION tidemark_internal.bytes(relation oid) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH tables(id) AS (
        SELECT relation
        UNION ALL
        SELECT c.reltoastrelid FROM pg_class c WHERE c.oid = relation AND c.reltoastrelid <> 0)
    SELECT CASE WHEN count(*) = count(b.bytes) THEN sum(b.bytes)::bigint END
      FROM (SELECT t.id FROM tables t
            UNION ALL
            SELECT i.indexrelid FROM tables t JOIN pg_index i ON i.indrelid = t.id) AS x
     CROSS JOIN LATERAL (SELECT tidemark_internal.bytes_of_one(x.id) AS bytes) AS b;
END;
COMMENT ON FUNCTION tidemark_internal.bytes(oid) IS
'The size of a table with its TOAST table and their indexes, without the maps
of free space; pg_total_relation_size that waits for no lock. NULL when it
would have to.';

CREATE FUNCTION tidemark.partitions(parent regclass)
RETURNS TABLE (partition regclass, from_date date, to_date date, rows_estimate bigint, bytes bigint, state text)
LANGUAGE sql STABLE PARALLEL SAFE COST 1000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    SELECT b.partition, b.from_time::date, b.to_time::date,
           CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END,
           tidemark_internal.bytes(c.oid),
           CASE WHEN b.pending THEN 'detach pending' ELSE 'attached' END
      FROM tidemark_internal.partition_bounds(parent) AS b
      JOIN pg_class c ON c.oid = b.partition
     ORDER BY 2;
END;
COMMENT ON FUNCTION tidemark.partitions(regclass) IS
'The partitions of a range-partitioned table, one a row, by ascending date.
from_date inclusive and to_date exclusive are UTC dates (-infinity and
infinity for open ends); rows_estimate is NULL before the first ANALYZE;
bytes are with indexes and TOAST, NULL while the partition is locked; state
is attached, or detach pending (an interrupted DETACH CONCURRENTLY). Read
from the catalog, never from names. A table without partitions gives no
rows; a DEFAULT partition is not listed.';

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

CREATE FUNCTION tidemark_internal.may_act_for(caller oid, parent regclass) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
RETURN tidemark_internal.may_act_as(caller, (SELECT c.relowner FROM pg_class c WHERE c.oid = parent));
COMMENT ON FUNCTION tidemark_internal.may_act_for(oid, regclass) IS
'Whether a role has the rights of the owner of a relation.';

CREATE FUNCTION tidemark_internal.check_may_insert(caller oid, parent regclass, what text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT coalesce(has_table_privilege(caller, parent, 'INSERT'), false)
       AND NOT tidemark_internal.may_act_for(caller, parent) THEN
        RAISE EXCEPTION 'permission denied to % partitions of table %', what, parent
            USING ERRCODE = '42501', HINT = 'The caller needs INSERT on the table.';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_may_insert(oid, regclass, text) IS
'Raises 42501 unless a role may insert into a table or has the rights of its
owner; what: the verb of the message.';

CREATE FUNCTION tidemark_internal.partition_name(parent_name name, day date) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Postgres cuts names at 63 bytes, and with them the date. 10 bytes are for the date, 9 for a hash where it is
    -- tight.
    SELECT (CASE WHEN octet_length(parent_name::text) <= 53 THEN parent_name::text
                 ELSE (SELECT left(parent_name::text, max(n)) FROM generate_series(0, 44) AS n
                        WHERE octet_length(left(parent_name::text, n)) <= 44)
                      || '_' || left(md5(parent_name::text), 8)
            END || '_p' || to_char(day, 'YYYYMMDD'))::name;
END;
COMMENT ON FUNCTION tidemark_internal.partition_name(name, date) IS
'The name of the partition of a date: that of the table, _p and the date as
YYYYMMDD; at most 63 bytes, a longer table name is cut and gets a hash.';

CREATE FUNCTION tidemark_internal.missing_dates(parent regclass, dates date[], as_owner boolean)
RETURNS TABLE (event_date date, code text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
#variable_conflict use_column
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    first_date date := '1900-01-01';
    last_date date := today + 366;
    held tstzmultirange;
    part record;
    asked record;
BEGIN
    IF NOT as_owner THEN
        SELECT today - coalesce(max(c.retention_days), 731), today + greatest(max(c.premake_days), 7)
          INTO first_date, last_date
          FROM tidemark_internal.partition_config c WHERE c.parent = missing_dates.parent;
    END IF;
    -- Once, for all dates: there may be thousands of either.
    SELECT coalesce(range_agg(tstzrange(b.from_time, b.to_time)), '{}') INTO held
      FROM tidemark_internal.partition_bounds(parent) b;
    FOR asked IN
        SELECT d.day, tstzrange(d.day, d.day + 1) AS span, r.partition, r.state
          FROM unnest(dates) AS d(day)
          LEFT JOIN tidemark_internal.retired_dates r ON r.parent = missing_dates.parent AND r.event_date = d.day
         ORDER BY d.day
    LOOP
        CONTINUE WHEN asked.state IS NULL AND asked.span <@ held;
        event_date := asked.day;
        code := NULL;
        message := NULL;
        detail := NULL;
        hint := NULL;
        IF asked.state IS NOT NULL THEN
            -- An empty partition would let the next refresh overwrite the date with its late rows alone.
            code := '55000';
            message := format('date %s of %s is retired', asked.day, parent);
            detail := format('Its partition %s is %s.', asked.partition, asked.state);
            hint := CASE asked.state
                WHEN 'dropped' THEN format('Its rows are gone. SELECT tidemark.reopen_date(%L, %L) begins it anew.',
                                           parent, asked.day)
                ELSE format('SELECT tidemark.restore_partition(%L, %L) attaches it again.', parent, asked.day) END;
        ELSIF asked.span && held THEN
            IF part IS NULL THEN
                SELECT b.* INTO part FROM tidemark_internal.partition_bounds(parent) b
                 WHERE tstzrange(b.from_time, b.to_time) && asked.span LIMIT 1;
            END IF;
            code := '55000';
            message := format('partitions of %s hold a part of date %s only', parent, asked.day);
            detail := format('%s holds %s to %s.', part.partition, part.from_time, part.to_time);
            hint := 'Partitions are made for whole UTC days. Put the rows of those with other bounds into such ones, '
                 || 'or make the rest of the date by hand.';
        ELSIF asked.day NOT BETWEEN first_date AND last_date THEN
            code := '22023';
            message := format('no partition of %s is made for %s', parent, asked.day);
            detail := format(CASE WHEN as_owner THEN 'Dates go from %s to %s.'
                                  ELSE 'Who may only insert gets partitions from %s to %s.' END, first_date, last_date);
            hint := CASE WHEN as_owner THEN 'If the date is no mistake, make a partition by hand.'
                         ELSE 'If the date is no mistake, whoever has the rights of the owner of the table can call '
                              'tidemark.ensure_partitions for it.' END;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.missing_dates(regclass, date[], boolean) IS
'Those of the dates that no partition of parent holds, ascending, and for
each the error that making one would give. code (SQLSTATE), message, detail
and hint are NULL where one may be made; 55000 for a retired date, or one of
which other partitions hold a part; 22023 for one out of bounds, which are
narrower unless as_owner.';

CREATE FUNCTION tidemark_internal.dates_to_make(parent regclass, dates date[], as_owner boolean) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing record;
    free date[] := '{}';
BEGIN
    FOR missing IN SELECT * FROM tidemark_internal.missing_dates(parent, dates, as_owner) LOOP
        IF missing.code IS NOT NULL THEN
            RAISE EXCEPTION '%', missing.message
                USING ERRCODE = missing.code, DETAIL = missing.detail, HINT = missing.hint;
        END IF;
        free := free || missing.event_date;
    END LOOP;
    RETURN free;
END
$$;
COMMENT ON FUNCTION tidemark_internal.dates_to_make(regclass, date[], boolean) IS
'Those of the dates that no partition of parent holds, ascending, or the
first error of tidemark_internal.missing_dates.';

CREATE FUNCTION tidemark_internal.partition_sql(parent regclass, dates date[], filled boolean DEFAULT false)
RETURNS TABLE (event_date date, child text, statements text[])
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
#variable_conflict use_column
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    shape record;
    place record;
    options text;
BEGIN
    SELECT c.relname, coalesce(p.partition_schema, n.nspname) AS partition_schema,
           concat(' USING ' || quote_ident(a.amname)) AS access_method,
           concat(' TABLESPACE ' || quote_ident(t.spcname)) AS tablespace,
           CASE c.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' END AS replica_identity,
           (SELECT string_agg(quote_ident(u), ', ' ORDER BY n)
              FROM unnest(p.unique_columns) WITH ORDINALITY AS x(u, n)) AS unique_columns,
           EXISTS (SELECT FROM pg_attribute d
                    WHERE d.attrelid = c.oid AND d.attname = 'event_date' AND d.atttypid = 'date'::regtype
                      AND NOT d.attisdropped) AS has_event_date
      INTO shape
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
      LEFT JOIN pg_am a ON a.oid = c.relam
      LEFT JOIN tidemark_internal.partition_config p ON p.parent = c.oid
     WHERE c.oid = partition_sql.parent;
    -- A partitioned table has no storage options of its own: those of the newest partition before a date go on. So the
    -- partitions and the dates are taken in one order.
    FOR place IN
        SELECT b.from_time, NULL::date AS day, c.reloptions, t.reloptions AS toast_options
          FROM tidemark_internal.partition_bounds(parent) b
          JOIN pg_class c ON c.oid = b.partition
          LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
         WHERE NOT b.pending
        UNION ALL
        SELECT d.day, d.day, NULL, NULL FROM unnest(dates) AS d(day)
         ORDER BY 1, 2 NULLS LAST
    LOOP
        IF place.day IS NULL THEN
            options := NULL;
            IF place.reloptions IS NOT NULL OR place.toast_options IS NOT NULL THEN
                SELECT format(' WITH (%s)', string_agg(format('%s = %L', split_part(o, '=', 1),
                                                              substr(o, strpos(o, '=') + 1)), ', '))
                  INTO options
                  FROM (SELECT unnest(place.reloptions) UNION ALL
                        SELECT 'toast.' || unnest(place.toast_options)) AS x(o);
            END IF;
            CONTINUE;
        END IF;
        event_date := place.day;
        child := format('%I.%I', shape.partition_schema, tidemark_internal.partition_name(shape.relname, event_date));
        -- An identity belongs to the parent: its values come from there, and newer servers refuse a partition with its
        -- own. Indexes of the parent are made by ATTACH where they are missing. The CHECK lets literal predicates on
        -- event_date prune; the partition key only prunes on event_time.
        statements := ARRAY[concat(
            format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY', child, parent),
            CASE WHEN filled THEN ' EXCLUDING INDEXES' END,
            CASE WHEN shape.has_event_date
                 THEN format(', CONSTRAINT event_date_of_partition CHECK (event_date >= %L AND event_date < %L)',
                             event_date, event_date + 1) END,
            ')', shape.access_method, options, shape.tablespace)];
        IF shape.unique_columns IS NOT NULL THEN
            statements := statements || format('CREATE UNIQUE INDEX ON %s (%s)', child, shape.unique_columns);
        END IF;
        IF shape.replica_identity IS NOT NULL THEN
            statements := statements || format('ALTER TABLE %s REPLICA IDENTITY %s', child, shape.replica_identity);
        END IF;
        statements := statements || format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
            parent, child, event_date::timestamptz, (event_date + 1)::timestamptz);
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.partition_sql(regclass, date[], boolean) IS
'For each of these UTC dates, ascending, the qualified name of its partition
and the statements that make it and attach it, in order. filled: rows are
put into the table after the first of them, so its indexes are only made
later. Nothing is executed, and not asked whether a partition exists. An
error as for tidemark.ensure_partitions when parent is not partitioned by
range of one timestamptz column.';

CREATE FUNCTION tidemark_internal.create_partitions(parent regclass, dates date[], fill text DEFAULT NULL)
RETURNS regclass[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    rest regclass := (SELECT nullif(p.partdefid, 0) FROM pg_partitioned_table p WHERE p.partrelid = parent);
    part record;
    statement text;
    taken date;
    missing date[];
    created regclass[] := '{}';
BEGIN
    -- The parent first: every maintainer takes locks in this order, and one that waited sees what the other made.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    missing := tidemark_internal.dates_to_make(parent, dates, true);
    IF missing = '{}' THEN
        RETURN created;
    ELSIF pg_relation_size(rest) > 0 AND has_table_privilege(rest, 'SELECT') THEN
        EXECUTE format('SELECT min((%1$I AT TIME ZONE ''UTC'')::date) FROM %2$s
                         WHERE (%1$I AT TIME ZONE ''UTC'')::date = ANY ($1)', key_column, rest)
           INTO taken USING missing;
        IF taken IS NOT NULL THEN
            RAISE EXCEPTION 'rows of date % lie in the DEFAULT partition % of %', taken, rest, parent
                USING ERRCODE = '55000', HINT = 'Move them, in one transaction: detach it, make the partitions of its '
                    'dates with tidemark.ensure_partitions, insert its rows into the table, and drop it.';
        END IF;
    END IF;
    FOR part IN SELECT * FROM tidemark_internal.partition_sql(parent, missing, fill IS NOT NULL) LOOP
        EXECUTE part.statements[1];
        IF fill IS NOT NULL THEN
            EXECUTE format('INSERT INTO %s %s', part.child, fill) USING part.event_date, part.event_date + 1;
        END IF;
        FOREACH statement IN ARRAY part.statements[2:] LOOP
            EXECUTE statement;
        END LOOP;
        created := created || part.child::regclass;
    END LOOP;
    -- An index that identifies rows for replication is known by name only now. And rows are read through the parent;
    -- default privileges may have said otherwise.
    FOR statement IN
        SELECT format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', i.indrelid::regclass, c.relname)
          FROM pg_index p
          JOIN pg_inherits h ON h.inhparent = p.indexrelid
          JOIN pg_index i ON i.indexrelid = h.inhrelid
          JOIN pg_class c ON c.oid = i.indexrelid
         WHERE p.indrelid = parent AND p.indisreplident AND i.indrelid = ANY (created)
        UNION ALL
        SELECT DISTINCT format('REVOKE ALL ON TABLE %s FROM %s', c.oid::regclass,
                               CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END)
          FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS x
         WHERE c.oid = ANY (created) AND x.grantee <> c.relowner
    LOOP
        EXECUTE statement;
    END LOOP;
    RETURN created;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_partitions(regclass, date[], text) IS
'Makes the missing partitions of these dates with the rights of the caller,
and returns them. Use tidemark.ensure_partitions, which acts as the owner of
the table. fill, for tidemark.refresh, is what stands behind INSERT INTO and
the name of the table, with the date as $1 and the day after as $2: run
before there are indexes, which takes a fraction of the time.';

CREATE FUNCTION tidemark.ensure_partitions(parent regclass, dates date[]) RETURNS SETOF regclass
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.ensure_partitions(regclass, date[]) IS
'Makes the daily partitions of parent that are missing for these UTC dates
(at most 500), all or none, and returns those it made; nothing when all
exist. parent must be partitioned by range of one timestamptz column. Who
has the rights of the owner makes those from 1900 to 366 days ahead. With
INSERT alone, and only where there is no DEFAULT partition and no foreign
key, dates go from the last that retention keeps (731 days ago without
retention) to 7 days ahead (premake_days if that is more). 22023 for other
dates, 55000 for retired ones (tidemark.retired_dates) and where partitions
with other bounds or DEFAULT are in the way. The partitions belong to the
owner of parent and are granted to nobody. Takes SHARE UPDATE EXCLUSIVE on
parent only if something is missing, so readers and writers go on. Safe to
call from many sessions at once.';

CREATE FUNCTION tidemark_internal.ensure_partitions(caller oid, parent regclass, dates date[]) RETURNS SETOF regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    wanted constant date[] := ARRAY(SELECT DISTINCT d FROM unnest(dates) AS d);
    missing date[];
BEGIN
    PERFORM tidemark_internal.check_partitioned(parent);
    PERFORM tidemark_internal.check_may_insert(caller, parent, 'make');
    IF dates IS NULL OR array_position(dates, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'dates must not be NULL or contain NULL' USING ERRCODE = '22004';
    ELSIF NOT '0001-01-01' <= ALL (dates) OR NOT '9999-12-31' >= ALL (dates) THEN
        RAISE EXCEPTION 'dates must lie in the years 1 to 9999' USING ERRCODE = '22023';
    ELSIF cardinality(wanted) > 500 THEN
        RAISE EXCEPTION 'dates has % dates, at most 500 are allowed', cardinality(wanted)
            USING ERRCODE = '22023', HINT = 'Each partition that is made keeps some locks until its transaction ends. '
                'Call it once for each 500 dates, in transactions of their own.';
    END IF;
    missing := tidemark_internal.dates_to_make(parent, wanted, tidemark_internal.may_act_for(caller, parent));
    -- Nothing missing is the usual case and takes no lock.
    IF missing <> '{}' AND NOT tidemark_internal.may_act_for(caller, parent)
       AND (EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = parent AND p.partdefid <> 0)
            OR EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = parent AND c.contype = 'f')) THEN
        -- In a transaction that he may leave open.
        RAISE EXCEPTION 'permission denied to make partitions of table %', parent
            USING ERRCODE = '42501', HINT = 'It has a DEFAULT partition or a foreign key, so that others would be '
                'locked out: CALL tidemark.run_maintenance makes those ahead, its owner any.';
    ELSIF missing <> '{}' THEN
        RETURN QUERY SELECT unnest(tidemark_internal.execute_as_owner(parent, format(
            'SELECT tidemark_internal.create_partitions(%s::pg_catalog.regclass, %L)::pg_catalog.oid[]',
            parent::oid, missing))::oid[])::regclass;
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.ensure_partitions(oid, regclass, date[]) IS
'The work behind tidemark.ensure_partitions.';
