-- Triggers that mark dates for writers that do not call tidemark.mark_dirty themselves. Opt-in: they cost every
-- statement a pass over its rows, and on a partitioned table they switch off COPY's buffering.
--
-- Two kinds. Statement triggers see what sessions write. A worker that applies what a publisher sends fires none, nor
-- does a session whose session_replication_role is replica: for these there are row triggers, which fire for nobody
-- else.
--
-- The trigger functions run as the owner of the extension, so that writers need no right on tidemark's tables. Anybody
-- can put them on his own table with arguments and a column type of his choosing: they check both against the catalog,
-- so that only casts of Postgres itself and the real transition table, never a temporary table of its name, are used.
-- They must not read the table itself: planning that may run functions of the table's owner. TRUNCATE has no transition
-- table, so its trigger reads the table with the rights of whoever truncates it.

CREATE FUNCTION tidemark_internal.tracked_time(relation regclass, time_column text, of_row text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    SELECT a.atttypid::regtype AS type, c.relpersistence INTO r
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE a.attrelid = relation AND a.attname = time_column AND a.attnum > 0 AND NOT a.attisdropped
       AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'column % of % is gone or no longer a date or timestamp', time_column, relation
            USING ERRCODE = '55000', HINT = format('SELECT tidemark.untrack_changes(%L), then track_changes with '
                'another time_column.', relation);
    ELSIF r.relpersistence = 't' THEN
        RAISE EXCEPTION 'table % is temporary: its changes concern no model', relation USING ERRCODE = '42809';
    END IF;
    RETURN format(CASE r.type WHEN 'timestamptz'::regtype THEN '(%s%I AT TIME ZONE ''UTC'')' ELSE '%s%I' END,
                  of_row, time_column);
END
$$;
COMMENT ON FUNCTION tidemark_internal.tracked_time(regclass, text, text) IS
'Part of the triggers of tidemark.track_changes: the expression that says, as
date or timestamp, on which UTC date a row belongs. of_row stands before the
column. 55000 and 42809 for what they must not be put on.';

CREATE FUNCTION tidemark_internal.mark_changes() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    -- The table that models read is the root, also when the trigger stands on a partition.
    root CONSTANT regclass := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    at CONSTANT text := tidemark_internal.tracked_time(TG_RELID, TG_ARGV[0], '');
    old_rows CONSTANT boolean := TG_OP IN ('UPDATE', 'DELETE');
    new_rows CONSTANT boolean := TG_OP IN ('INSERT', 'UPDATE');
    statistics text := 'NULL::bigint, NULL::timestamptz, NULL::timestamptz';
BEGIN
    IF TG_LEVEL <> 'STATEMENT' OR TG_WHEN <> 'AFTER' OR NOT (old_rows OR new_rows) OR NOT EXISTS (
            SELECT FROM pg_trigger t WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME
               AND (t.tgoldtable, t.tgnewtable) IS NOT DISTINCT FROM
                   (CASE WHEN old_rows THEN 'tidemark_old' END::name,
                    CASE WHEN new_rows THEN 'tidemark_new' END::name)) THEN
        RAISE EXCEPTION 'trigger % was not made by tidemark.track_changes', TG_NAME USING ERRCODE = '55000';
    END IF;
    IF TG_OP = 'INSERT' AND at LIKE '(%' THEN
        statistics := 'count(*), min(c.at) AT TIME ZONE ''UTC'', max(c.at) AT TIME ZONE ''UTC''';
    END IF;
    EXECUTE format(
        'INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, added_by, added, rows, min_event_time,
                                                  max_event_time)
         SELECT $1, c.at::date, $2, $3, count(*), %s FROM (%s) AS c
          WHERE c.at >= ''0001-01-01'' AND c.at < ''10000-01-01'' GROUP BY c.at::date',
        statistics, concat_ws(' UNION ALL ',
            CASE WHEN old_rows THEN format('SELECT %s AS at FROM tidemark_old', at) END,
            CASE WHEN new_rows THEN format('SELECT %s AS at FROM tidemark_new', at) END))
      USING root, lower(TG_OP), CASE TG_OP WHEN 'INSERT' THEN tidemark_internal.current_xid() END;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_changes() IS
'Trigger function of tidemark.track_changes: marks the dates of the rows that
a statement wrote, changed or deleted.';

CREATE FUNCTION tidemark_internal.mark_replicated() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    root CONSTANT regclass := coalesce(pg_partition_root(TG_RELID), TG_RELID);
BEGIN
    IF TG_LEVEL <> 'ROW' OR TG_WHEN <> 'AFTER' THEN
        RAISE EXCEPTION 'trigger % was not made by tidemark.track_changes', TG_NAME USING ERRCODE = '55000';
    ELSIF current_setting('session_replication_role') <> 'replica' THEN
        RETURN NULL;  -- ALTER TABLE ... ENABLE TRIGGER ALL makes triggers of this kind fire for everybody
    END IF;
    -- One mark for each date of a transaction, not for each row.
    EXECUTE format(
        'INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, added_by)
         SELECT DISTINCT $3, c.at::date, ''replicated'', $4 FROM (%s) AS c
          WHERE c.at >= ''0001-01-01'' AND c.at < ''10000-01-01''
            AND NOT EXISTS (SELECT FROM tidemark_internal.dirty_log l
                             WHERE l.source = $3 AND l.event_date = c.at::date
                               AND (l.added_by IS NULL OR l.added_by = $4) AND l.xmin = pg_current_xact_id()::xid)',
        concat_ws(' UNION ALL ',
            CASE WHEN TG_OP <> 'INSERT'
                 THEN 'SELECT ' || tidemark_internal.tracked_time(TG_RELID, TG_ARGV[0], '($1).') || ' AS at' END,
            CASE WHEN TG_OP <> 'DELETE'
                 THEN 'SELECT ' || tidemark_internal.tracked_time(TG_RELID, TG_ARGV[0], '($2).') || ' AS at' END))
      USING OLD, NEW, root, CASE TG_OP WHEN 'INSERT' THEN tidemark_internal.current_xid() END;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_replicated() IS
'Trigger function of tidemark.track_changes: marks the date of a row that was
written where statement triggers do not fire, once in a transaction.';

CREATE FUNCTION tidemark_internal.mark_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    dates date[];
BEGIN
    EXECUTE format('SELECT array_agg(DISTINCT %1$I::date) FROM %2$s
                     WHERE %1$I >= ''0001-01-01'' AND %1$I < ''10000-01-01''', TG_ARGV[0], TG_RELID::regclass)
       INTO dates;
    PERFORM tidemark.mark_dirty(coalesce(pg_partition_root(TG_RELID), TG_RELID), dates, 'truncate');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_truncate() IS
'Trigger function of tidemark.track_changes: marks the dates that a table
holds before TRUNCATE empties it. Runs with the rights of whoever truncates.';

CREATE FUNCTION tidemark.track_changes(source regclass, time_column name DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    found_column name;
BEGIN
    SELECT c.relkind, c.relpersistence INTO r FROM pg_class c WHERE c.oid = source;
    IF NOT FOUND OR r.relkind NOT IN ('r', 'p') OR r.relpersistence = 't' THEN
        RAISE EXCEPTION 'source must be a table that is not temporary, got %', coalesce(source::text, 'null')
            USING ERRCODE = CASE WHEN source IS NULL THEN '22004' ELSE '42809' END;
    ELSIF NOT tidemark_internal.may_see(source) THEN
        RAISE EXCEPTION 'must be owner of table %', source USING ERRCODE = '42501';
    END IF;
    SELECT a.attname INTO found_column
      FROM pg_attribute a
     WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped
       AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
       AND (a.attname = time_column OR (time_column IS NULL AND a.attname IN ('event_time', 'event_date')))
     ORDER BY a.attname DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no column % of type date or timestamp', source,
            coalesce(time_column, 'event_time or event_date')
            USING ERRCODE = '42703', HINT = 'Name the column that says on which date a row belongs: time_column => '
                '''...''.';
    END IF;
    PERFORM tidemark.untrack_changes(source);
    EXECUTE format('CREATE TRIGGER tidemark_insert AFTER INSERT ON %1$s REFERENCING NEW TABLE AS tidemark_new
                        FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%2$L);
                    CREATE TRIGGER tidemark_update AFTER UPDATE ON %1$s
                        REFERENCING OLD TABLE AS tidemark_old NEW TABLE AS tidemark_new
                        FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%2$L);
                    CREATE TRIGGER tidemark_delete AFTER DELETE ON %1$s REFERENCING OLD TABLE AS tidemark_old
                        FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%2$L);
                    CREATE TRIGGER tidemark_truncate BEFORE TRUNCATE ON %1$s
                        FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_truncate(%2$L);
                    ALTER TABLE %1$s ENABLE ALWAYS TRIGGER tidemark_truncate;
                    CREATE TRIGGER %3$I AFTER INSERT OR UPDATE OR DELETE ON %1$s
                        FOR EACH ROW EXECUTE FUNCTION tidemark_internal.mark_replicated(%2$L);
                    ALTER TABLE %1$s ENABLE REPLICA TRIGGER %3$I', source, found_column,
                   -- Partitions get it from their parent; one may have its own beside it.
                   'tidemark_replicated_' || source::oid);
END
$$;
COMMENT ON FUNCTION tidemark.track_changes(regclass, name) IS
'Puts triggers on source that mark the UTC dates of all rows that INSERT,
COPY, UPDATE, DELETE, MERGE, TRUNCATE or logical replication touch, in the
writer''s transaction. An update marks the old and the new date; changes
before the call are not marked. time_column (date, timestamp read as UTC, or
timestamptz) says which date a row belongs to; NULL: event_time, else
event_date. With a timestamptz column, inserts feed the watermark too. NULL,
infinite times and years after 9999 mark nothing. A partitioned table does
not see what is written straight into a partition (track that one too: it
marks its root), nor ATTACH and DETACH; no table what pg_restore
--disable-triggers writes. Writers need no right on tidemark; only who
truncates needs SELECT. Calling it again puts the triggers anew. 42501 for
who has not the rights of the owner of source, 42703 without such a column.';

CREATE FUNCTION tidemark.untrack_changes(source regclass) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    trigger_name name;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = source AND c.relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(source::text, 'null')
            USING ERRCODE = CASE WHEN source IS NULL THEN '22004' ELSE '42809' END;
    END IF;
    FOR trigger_name IN
        SELECT t.tgname FROM pg_trigger t
         WHERE t.tgrelid = source AND NOT t.tgisinternal AND t.tgparentid = 0
           AND t.tgfoid IN ('tidemark_internal.mark_changes()'::regprocedure,
                            'tidemark_internal.mark_truncate()'::regprocedure,
                            'tidemark_internal.mark_replicated()'::regprocedure)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, source);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.untrack_changes(regclass) IS
'Takes the triggers of tidemark.track_changes off source; does nothing where
there are none. Only the owner of source may.';

CREATE FUNCTION tidemark.change_dimension(VARIADIC dimensions regclass[]) RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.change_dimension(regclass[]) IS
'Begins a change of tables without dates that models read, such as names or
categories, or of rows that a model wrote: holds off the refreshes of these
models until the transaction ends. Call it before the change, once for all
tables; what the statements after it read of the sources is all that any
refresh has read. So a transaction that changes a table and then marks the
dates of these rows (tidemark.mark_dirty), or who reads it
(tidemark.mark_readers), leaves no date behind that was loaded and refreshed
meanwhile. Waits for refreshes of these models that are under way. Returns
their names, {} if none reads the tables. Needs the rights of the owner of
each table (42501) and the isolation level READ COMMITTED (25001). 22004:
NULL; 42P01: no such table.';

CREATE FUNCTION tidemark_internal.readers_of(relations regclass[]) RETURNS SETOF tidemark_internal.models
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    reads regclass[];
BEGIN
    FOR m IN SELECT * FROM tidemark_internal.models x ORDER BY x.name LOOP
        BEGIN
            reads := (tidemark_internal.describe_query(
                         (SELECT c.relowner FROM pg_class c WHERE c.oid = m.target), m.query)).relations;
        EXCEPTION WHEN lock_not_available THEN
            RAISE;
        WHEN OTHERS THEN
            -- No refresh can run this query either, whatever is wrong with it.
            CONTINUE;
        END;
        IF relations && reads THEN
            RETURN NEXT m;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.readers_of(regclass[]) IS
'The models whose query reads one of some relations, itself or through a
view; by name.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.readers_of(regclass[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.change_dimension(caller oid, dimensions regclass[]) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader text;
    readers text[] := '{}';
BEGIN
    IF dimensions IS NULL THEN
        RAISE EXCEPTION 'dimensions must not be NULL' USING ERRCODE = '22004';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, d) FROM unnest(dimensions) AS d;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would miss dates that were refreshed in the meantime.
        RAISE EXCEPTION 'change_dimension needs the isolation level READ COMMITTED' USING ERRCODE = '25001';
    END IF;
    -- Models that write these tables first: a refresh of one of them may itself hold off readers of what it keeps.
    FOR reader IN SELECT m.name FROM tidemark_internal.models m WHERE m.target = ANY (dimensions) ORDER BY 1 LOOP
        -- Not against whoever only refers to it.
        PERFORM FROM tidemark_internal.models x WHERE x.name = reader FOR NO KEY UPDATE;
        readers := readers || reader;
    END LOOP;
    FOR reader IN SELECT r.name FROM tidemark_internal.readers_of(dimensions) AS r LOOP
        PERFORM FROM tidemark_internal.models x WHERE x.name = reader FOR NO KEY UPDATE;
        readers := readers || reader;
    END LOOP;
    RETURN ARRAY(SELECT DISTINCT r FROM unnest(readers) AS r ORDER BY 1);
END
$$;
COMMENT ON FUNCTION tidemark_internal.change_dimension(oid, regclass[]) IS
'The work behind tidemark.change_dimension.';

CREATE FUNCTION tidemark.mark_readers(dimension regclass, ids text[] DEFAULT NULL, id name DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.mark_readers(regclass, text[], name) IS
'Has the models that read a table without dates compute all of their dates
anew at the next refresh. Ends a change that tidemark.change_dimension
began. ids: only rows with these values of its column id changed; a model
that is scoped, and whose query compares its scope with this column wherever
it reads the table, then computes only their rows. Other models are left
alone; tidemark.mark_dirty on a source marks single dates of all that read
it. Needs the rights of the owner of the table (42501). 42P01: no such
table; 22004: ids without id, or the other way round; 42703: no such column;
54000: more than 100,000 ids, or one of more than 1,000 bytes.';

CREATE FUNCTION tidemark_internal.mark_readers(caller oid, dimension regclass, ids text[], id name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given CONSTANT text[] := tidemark_internal.checked_ids(mark_readers.ids);
    m tidemark_internal.models;
    scoped boolean;
BEGIN
    PERFORM tidemark_internal.check_may_act_as(caller, dimension);
    IF (ids IS NULL) <> (id IS NULL) THEN
        RAISE EXCEPTION 'ids needs id, and the other way round' USING ERRCODE = '22004';
    ELSIF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = dimension AND a.attname = coalesce(id, a.attname)
                                                   AND a.attnum > 0 AND NOT a.attisdropped) THEN
        RAISE EXCEPTION 'table % has no column %', dimension, quote_ident(id) USING ERRCODE = '42703';
    END IF;
    FOR m IN SELECT * FROM tidemark_internal.readers_of(ARRAY[dimension]) AS r
              WHERE r.target <> dimension AND given IS DISTINCT FROM '{}' LOOP
        scoped := given IS NOT NULL AND m.scope IS NOT NULL
            AND tidemark_internal.known_ids(given, tidemark_internal.ids_type(m)) IS NOT NULL
            AND tidemark_internal.scope_problem(
                    (SELECT c.relowner FROM pg_class c WHERE c.oid = m.target), m.query,
                    (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = m.name),
                    m.scope_source, m.scope, dimension, id) IS NULL;
        INSERT INTO tidemark_internal.model_dirty (model, persons, marked_at)
        VALUES (m.name, CASE WHEN scoped THEN given END, now());
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_readers(oid, regclass, text[], name) IS
'The work behind tidemark.mark_readers.';
