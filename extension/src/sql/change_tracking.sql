-- Statement triggers that mark dates for writers that do not call tidemark.mark_dirty themselves. Opt-in: they cost
-- every statement a pass over its rows, and on a partitioned table they switch off COPY's buffering.
--
-- The trigger function runs as the owner of the extension, so that writers need no right on tidemark's tables. Anybody
-- can put it on his own table with arguments and a column type of his choosing: it checks both against the catalog,
-- so that only casts of Postgres itself and the real transition table, never a temporary table of its name, are used.
-- It must not read the table itself: planning that may run functions of the table's owner. TRUNCATE has no transition
-- table, so its trigger reads the table with the rights of whoever truncates it.

CREATE FUNCTION tidemark_internal.mark_changes() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    -- The table that models read is the root, also when the trigger stands on a partition.
    root CONSTANT regclass := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    old_rows CONSTANT boolean := TG_OP IN ('UPDATE', 'DELETE');
    new_rows CONSTANT boolean := TG_OP IN ('INSERT', 'UPDATE');
    column_type oid;
    event_time text;
    event_date text;
    changed text;
BEGIN
    SELECT a.atttypid INTO column_type FROM pg_attribute a
     WHERE a.attrelid = TG_RELID AND a.attname = TG_ARGV[0] AND NOT a.attisdropped;
    IF column_type IS NULL OR column_type NOT IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) THEN
        RAISE EXCEPTION 'column % of % is gone or no longer a date or timestamp', TG_ARGV[0], TG_RELID::regclass
            USING ERRCODE = '55000', HINT = format('SELECT tidemark.untrack_changes(%L), then track_changes with another time_column.', TG_RELID::regclass);
    ELSIF TG_LEVEL <> 'STATEMENT' OR TG_WHEN <> 'AFTER' OR NOT (old_rows OR new_rows) OR NOT EXISTS (
            SELECT FROM pg_trigger t WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME
               AND (t.tgoldtable, t.tgnewtable) IS NOT DISTINCT FROM
                   (CASE WHEN old_rows THEN 'tidemark_old' END::name, CASE WHEN new_rows THEN 'tidemark_new' END::name)) THEN
        RAISE EXCEPTION 'trigger % was not made by tidemark.track_changes', TG_NAME USING ERRCODE = '55000';
    END IF;
    event_time := format('%I', TG_ARGV[0]);
    event_date := CASE WHEN column_type = 'timestamptz'::regtype THEN format('(%s AT TIME ZONE ''UTC'')::date', event_time)
                       ELSE format('%s::date', event_time) END;
    IF TG_OP = 'INSERT' AND column_type = 'timestamptz'::regtype THEN
        EXECUTE format(
            'INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added, rows, min_event_time, max_event_time)
             SELECT $1, %1$s, ''insert'', true, count(*), min(%2$s), max(%2$s) FROM tidemark_new
              WHERE isfinite(%2$s) GROUP BY 2', event_date, event_time) USING root;
        RETURN NULL;
    END IF;
    changed := CASE TG_OP
        WHEN 'INSERT' THEN format('SELECT %s FROM tidemark_new', event_time)
        WHEN 'DELETE' THEN format('SELECT %s FROM tidemark_old', event_time)
        ELSE format('SELECT %1$s FROM tidemark_old UNION ALL SELECT %1$s FROM tidemark_new', event_time) END;
    EXECUTE format(
        'INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added)
         SELECT DISTINCT $1, %s, $2, $3 FROM (%s) AS changed WHERE isfinite(%s)', event_date, changed, event_time) USING root, lower(TG_OP), TG_OP = 'INSERT';
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_changes() IS
'Trigger function of tidemark.track_changes: marks the dates of the rows that
a statement wrote, changed or deleted.';

CREATE FUNCTION tidemark_internal.mark_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    dates date[];
BEGIN
    EXECUTE format('SELECT array_agg(DISTINCT %1$I::date) FROM %2$s WHERE isfinite(%1$I)', TG_ARGV[0], TG_RELID::regclass) INTO dates;
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
    SELECT c.relkind, c.relowner INTO r FROM pg_class c WHERE c.oid = source;
    IF NOT FOUND OR r.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(source::text, 'null')
            USING ERRCODE = CASE WHEN source IS NULL THEN '22004' ELSE '42809' END;
    ELSIF NOT pg_has_role(r.relowner, 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', source USING ERRCODE = '42501';
    END IF;
    SELECT a.attname INTO found_column
      FROM pg_attribute a
     WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped
       AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
       AND (a.attname = time_column OR (time_column IS NULL AND a.attname IN ('event_time', 'event_date')))
     ORDER BY a.attname DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no column % of type date or timestamp', source, coalesce(time_column, 'event_time or event_date')
            USING ERRCODE = '42703', HINT = 'Name the column that says on which date a row belongs: time_column => ''...''.';
    END IF;
    PERFORM tidemark.untrack_changes(source);
    EXECUTE format('CREATE TRIGGER tidemark_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS tidemark_new FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%L)', source, found_column);
    EXECUTE format('CREATE TRIGGER tidemark_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS tidemark_old NEW TABLE AS tidemark_new FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%L)', source, found_column);
    EXECUTE format('CREATE TRIGGER tidemark_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS tidemark_old FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes(%L)', source, found_column);
    EXECUTE format('CREATE TRIGGER tidemark_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_truncate(%L)', source, found_column);
END
$$;
COMMENT ON FUNCTION tidemark.track_changes(regclass, name) IS
'Puts statement triggers on source that mark the UTC dates of all rows that
INSERT, COPY, UPDATE, DELETE, MERGE or TRUNCATE touch, in the writer''s
transaction. An update marks the old and the new date; changes before the
call are not marked. time_column (date, timestamp read as UTC, or
timestamptz) says which date a row belongs to; NULL: event_time, else
event_date. With a timestamptz column, inserts feed the watermark too. NULL
and infinite times mark nothing. On a partitioned table the triggers see
what is written through it, not what is written straight into a partition
(track that one too: it marks its root), nor ATTACH and DETACH. Writers need
no right on tidemark; only who truncates needs SELECT on the table and what
tidemark.mark_dirty needs. Calling it again puts the triggers anew. 42501
for who does not own source, 42703 without such a column.';

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
         WHERE t.tgrelid = source AND t.tgfoid IN ('tidemark_internal.mark_changes()'::regprocedure, 'tidemark_internal.mark_truncate()'::regprocedure) AND NOT t.tgisinternal
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, source);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.untrack_changes(regclass) IS
'Takes the triggers of tidemark.track_changes off source; does nothing where
there are none. Only the owner of source may.';
