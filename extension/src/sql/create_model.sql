-- Registering models and taking them away again.

CREATE FUNCTION tidemark_internal.source_dates(target regclass, source regclass) RETURNS date[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    key_column name;
BEGIN
    SELECT a.attname INTO key_column
      FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
     WHERE p.partrelid = source AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partdefid = 0 AND a.atttypid = 'timestamptz'::regtype;
    IF FOUND AND NOT EXISTS (SELECT FROM tidemark.partitions(source) p WHERE NOT isfinite(p.from_date) OR NOT isfinite(p.to_date)) THEN
        -- One look into each day's partition instead of a scan of all rows. OFFSET 0 keeps it one: as a join it would
        -- read all partitions for each date, since nothing but the date of the outer row says which are needed.
        RETURN tidemark_internal.execute_as_owner(target, format(
            'SELECT coalesce(array_agg(x.d), ''{}'') FROM (
                SELECT DISTINCT d::date AS d FROM tidemark.partitions(%1$L) p, generate_series(p.from_date::timestamp, p.to_date::timestamp, interval ''1 day'') AS d) AS x
              WHERE EXISTS (SELECT FROM %2$s s WHERE s.%3$I >= x.d::timestamp AT TIME ZONE ''UTC'' AND s.%3$I < (x.d + 1)::timestamp AT TIME ZONE ''UTC'' OFFSET 0)',
            source::text, source, key_column))::date[];
    ELSIF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = source AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'source % has no column event_date of type date', source
            USING ERRCODE = '42703', HINT = 'Add one, generated from its event time, or partition the table by range of one timestamptz column.';
    END IF;
    RETURN tidemark_internal.execute_as_owner(target, format(
        'SELECT coalesce(array_agg(d), ''{}'') FROM (SELECT DISTINCT event_date AS d FROM %s) AS x WHERE d IS NOT NULL', source))::date[];
END
$$;
COMMENT ON FUNCTION tidemark_internal.source_dates(regclass, regclass) IS
'Part of tidemark.create_model: the UTC dates that a source holds rows of,
read as the owner of target.';

CREATE FUNCTION tidemark.mark_all_dates(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    source regclass;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = mark_all_dates.model;
    FOR source IN SELECT s.source FROM tidemark_internal.model_sources s JOIN pg_class c ON c.oid = s.source WHERE s.model = m.name LOOP
        INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at)
        SELECT DISTINCT m.name, d + shift, now()
          FROM unnest(tidemark_internal.source_dates(m.target, source)) AS d, generate_series(-m.lookahead_days, m.lookback_days) AS shift;
    END LOOP;
    INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at)
    SELECT m.name, d, now() FROM unnest(tidemark_internal.source_dates(m.target, m.target)) AS d;
END
$$;
COMMENT ON FUNCTION tidemark.mark_all_dates(text) IS
'Part of tidemark.create_model: makes every date of a registered model dirty
that its sources or its table hold rows of.';

CREATE FUNCTION tidemark_internal.check_model(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    columns text[];
    wrong text;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = check_model.model;
    columns := tidemark_internal.query_columns(m.query);
    SELECT c INTO wrong FROM unnest(columns) AS c
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.target AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % returns column %, which the table does not have', m.name, quote_ident(wrong)
            USING ERRCODE = '42703', HINT = format('Add it first: ALTER TABLE %s ADD COLUMN %I ...;', m.target, wrong);
    END IF;
    SELECT a.attname INTO wrong FROM pg_attribute a
     WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND NOT a.attname = ANY (columns)
     ORDER BY a.attnum LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % does not return column % of the table', m.name, quote_ident(wrong)
            USING ERRCODE = '42703', HINT = format('Select it in the query, or drop it: ALTER TABLE %s DROP COLUMN %I;', m.target, wrong);
    ELSIF NOT 'event_date' = ANY (columns) OR NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = m.target AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'model % has no column event_date of type date', m.name
            USING ERRCODE = '42703', HINT = 'Select it in the query: it says which date a row belongs to.';
    END IF;
    SELECT k INTO wrong FROM unnest(m.key) AS k
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.target AND a.attname = k AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'key of model % names column %, which its query does not fill', m.name, quote_ident(wrong) USING ERRCODE = '42703';
    END IF;
    SELECT a.name INTO wrong FROM unnest(tidemark_internal.query_relations(m.query)) AS r JOIN tidemark_internal.models a ON a.target = r
     WHERE NOT EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE s.model = m.name AND s.source = r) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % reads model %, which is not among its sources', m.name, wrong
            USING ERRCODE = '42P17', HINT = CASE WHEN wrong = m.name THEN 'A model must not read itself.' ELSE format('Add %s to sources, so that its changes are followed.', wrong) END;
    END IF;
    -- Postgres's own judgement of types, privileges and comparability of the key, as the owner of the table.
    PERFORM tidemark_internal.execute_as_owner(m.target, 'EXPLAIN ' || tidemark_internal.model_statement(m, 'build'), '2000-01-01'),
            tidemark_internal.execute_as_owner(m.target, 'EXPLAIN ' || tidemark_internal.model_statement(m, 'diff'), '2000-01-01');
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_model(text) IS
'Part of tidemark.create_model: raises an error unless the query and the key
of a registered model fit its table and its sources.';

CREATE FUNCTION tidemark.create_model(name text, sources regclass[], query text, key name[], lookback_days integer DEFAULT 0, lookahead_days integer DEFAULT 0, live boolean DEFAULT false) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    parts text[];
    model_table regclass;
    old tidemark_internal.models;
    old_sources regclass[];
    source regclass;
BEGIN
    IF name IS NULL OR sources IS NULL OR cardinality(sources) = 0 OR query IS NULL OR key IS NULL OR cardinality(key) = 0 THEN
        RAISE EXCEPTION 'sources, query and key must not be empty' USING ERRCODE = '22023';
    ELSIF lookback_days IS NULL OR lookahead_days IS NULL OR lookback_days NOT BETWEEN 0 AND 1000 OR lookahead_days NOT BETWEEN 0 AND 1000 THEN
        RAISE EXCEPTION 'lookback_days and lookahead_days must be between 0 and 1000' USING ERRCODE = '22023';
    ELSIF array_position(sources, NULL::regclass) IS NOT NULL OR array_position(key, NULL::name) IS NOT NULL THEN
        RAISE EXCEPTION 'sources and key must not contain NULL' USING ERRCODE = '22004';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would miss dates whose marks were distributed while the model was not there.
        RAISE EXCEPTION 'create_model needs the isolation level READ COMMITTED' USING ERRCODE = '25001';
    END IF;
    parts := parse_ident(name);
    IF cardinality(parts) <> 2 THEN
        RAISE EXCEPTION 'name must be schema.table, got %', name USING ERRCODE = '22023';
    END IF;
    name := format('%I.%I', parts[1], parts[2]);
    query := tidemark_internal.rewrite_query(query, NULL, NULL);
    FOREACH source IN ARRAY sources LOOP
        IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = source AND c.relkind IN ('r', 'p', 'f')) THEN
            RAISE EXCEPTION 'source % is not a table', source
                USING ERRCODE = '42809', HINT = 'Marks are about tables: name those that the view reads, or the table of a model instead of its live view.';
        END IF;
    END LOOP;
    model_table := to_regclass(name);
    IF model_table IS NULL THEN
        EXECUTE format('CREATE TABLE %s AS SELECT * FROM (%s' || E'\n' || ') AS q WITH NO DATA', name,
            tidemark_internal.rewrite_query(query, '(NULL::pg_catalog.date)', '(NULL::pg_catalog.date)'));
        model_table := name::regclass;
        EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY (%s)', model_table,
            (SELECT string_agg(format('%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY AS x(k, n)));
    ELSIF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = model_table AND c.relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '% is not a table', model_table USING ERRCODE = '42809';
    ELSIF NOT tidemark_internal.is_member_of_owner(model_table) THEN
        RAISE EXCEPTION 'must be owner of table %', model_table
            USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns it.';
    END IF;
    FOREACH source IN ARRAY sources LOOP
        IF NOT (SELECT has_table_privilege(c.relowner, source, 'SELECT') OR has_any_column_privilege(c.relowner, source, 'SELECT')
                  FROM pg_class c WHERE c.oid = model_table) THEN
            RAISE EXCEPTION 'permission denied for source %', source
                USING ERRCODE = '42501', HINT = format('The query runs as the owner of %s, who needs SELECT on it.', model_table);
        END IF;
    END LOOP;

    -- Marks distributed while the model is not yet visible would pass it by.
    PERFORM pg_advisory_xact_lock(('tidemark_internal.models'::regclass)::oid::bigint);
    SELECT * INTO old FROM tidemark_internal.models m WHERE m.name = create_model.name FOR UPDATE;
    old_sources := ARRAY(SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = create_model.name ORDER BY s.source);
    INSERT INTO tidemark_internal.models AS m (name, target, query, key, lookback_days, lookahead_days)
    VALUES (name, model_table, query, key, lookback_days, lookahead_days)
    ON CONFLICT ON CONSTRAINT models_pkey DO UPDATE
       SET target = excluded.target, query = excluded.query, key = excluded.key,
           lookback_days = excluded.lookback_days, lookahead_days = excluded.lookahead_days;
    DELETE FROM tidemark_internal.model_sources s WHERE s.model = name AND NOT s.source = ANY (sources);
    INSERT INTO tidemark_internal.model_sources (model, source, source_name)
    SELECT name, c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (sources)
    ON CONFLICT ON CONSTRAINT model_sources_pkey DO UPDATE SET source_name = excluded.source_name;
    IF EXISTS (
        WITH RECURSIVE reads(target, path) AS (
            SELECT model_table, ARRAY[model_table]
            UNION ALL
            SELECT s.source, r.path || s.source
              FROM reads r
              JOIN tidemark_internal.models m ON m.target = r.target
              JOIN tidemark_internal.model_sources s ON s.model = m.name
             WHERE cardinality(r.path) < 100 AND NOT s.source = ANY (r.path[2:]))
        SELECT FROM reads r WHERE r.target = model_table AND cardinality(r.path) > 1) THEN
        RAISE EXCEPTION 'model % would read itself through its sources', name USING ERRCODE = '22023';
    END IF;
    PERFORM tidemark_internal.check_model(name);
    -- In a partition of a day nobody looks for a date.
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = model_table AND c.relkind = 'p')
       AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = model_table AND a.attname = 'event_date') THEN
        PERFORM tidemark_internal.execute_as_owner(model_table, format('CREATE INDEX ON %s (event_date)', model_table));
    END IF;

    -- A new definition makes every date dirty that a source or the table holds.
    IF old.name IS NULL OR (old.target, old.query, old.key, old.lookback_days, old.lookahead_days) IS DISTINCT FROM (model_table, query, key, lookback_days, lookahead_days)
       OR old_sources IS DISTINCT FROM ARRAY(SELECT DISTINCT s FROM unnest(sources) AS s ORDER BY 1) THEN
        PERFORM tidemark.mark_all_dates(name);
    END IF;

    IF live THEN
        PERFORM tidemark_internal.create_live_view(name);
    ELSIF old.live_view IS NOT NULL THEN
        UPDATE tidemark_internal.models m SET live_view = NULL WHERE m.name = create_model.name;
        PERFORM tidemark_internal.execute_as_owner(model_table, format('DROP VIEW IF EXISTS %s', old.live_view));
    END IF;
    RETURN model_table;
END
$$;
COMMENT ON FUNCTION tidemark.create_model(text, regclass[], text, name[], integer, integer, boolean) IS
'Registers a model: a table (created from the query if it does not exist,
with key as its primary key) whose rows for one event_date are what query
returns for it. query is one SELECT with $1 (first date) and $2 (end date,
exclusive) and schema-qualified names, which has every column of the table
by name, event_date among them; it may read its sources (tables, also those
of other models) from $1 - lookback_days to $2 + lookahead_days. It runs as
the owner of the table. live: also a view <name>_live that is exact at any
moment. All dates that the sources and the table hold become dirty when the
model is new or query, sources, key, lookback or lookahead changed;
otherwise calling it again does nothing. Returns the table.';

CREATE FUNCTION tidemark_internal.adopt_sources() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lost record;
    damaged text;
    adopted bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.source)) THEN
        RETURN 0;
    END IF;
    -- As in create_model: marks of the new table that were distributed before it is known would pass the model by.
    PERFORM pg_advisory_xact_lock(('tidemark_internal.models'::regclass)::oid::bigint);
    FOR lost IN
        -- By way of the catalog: to_regclass fails for a schema that the caller may not use.
        SELECT s.model, s.source, s.source_name, c.oid AS found
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN pg_namespace n ON n.nspname = (parse_ident(s.source_name))[1]
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = (parse_ident(s.source_name))[2] AND c.relkind IN ('r', 'p', 'f')
         WHERE NOT EXISTS (SELECT FROM pg_class x WHERE x.oid = s.source)
           AND NOT EXISTS (SELECT FROM tidemark_internal.model_sources o WHERE o.model = s.model AND o.source = c.oid)
           AND c.oid <> m.target AND tidemark_internal.is_member_of_model(s.model)
         ORDER BY s.model, s.source_name
    LOOP
        BEGIN
            UPDATE tidemark_internal.model_sources s SET source = lost.found WHERE s.model = lost.model AND s.source = lost.source;
            -- What it held before is gone, and with it what was marked: every date may be another one now.
            PERFORM tidemark.mark_all_dates(lost.model);
            UPDATE tidemark_internal.models m SET last_error = NULL, last_error_at = NULL
             WHERE m.name = lost.model AND starts_with(m.last_error, 'source ' || lost.source_name || ' ');
            adopted := adopted + 1;
        EXCEPTION WHEN OTHERS THEN
            -- One table that does not fit must not hold up the other models.
            UPDATE tidemark_internal.models m
               SET last_error = format('source %s was created anew and cannot be read: %s', lost.source_name, SQLERRM), last_error_at = clock_timestamp()
             WHERE m.name = lost.model;
            RAISE WARNING 'model %: source % was created anew and cannot be read: %', lost.model, lost.source_name, SQLERRM;
        END;
    END LOOP;
    -- Whoever dropped the table with CASCADE took live views along, also those of models above.
    FOR damaged IN
        SELECT o.name
          FROM tidemark_internal.models_in_order() WITH ORDINALITY AS o(name, n) JOIN tidemark_internal.models m ON m.name = o.name
         WHERE adopted > 0 AND m.live_view IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.live_view)
           AND tidemark_internal.is_member_of_model(o.name)
         ORDER BY o.n
    LOOP
        BEGIN
            PERFORM tidemark_internal.create_live_view(damaged);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'model %: its live view cannot be created again: %', damaged, SQLERRM;
        END;
    END LOOP;
    RETURN adopted;
END
$$;
COMMENT ON FUNCTION tidemark_internal.adopt_sources() IS
'Part of tidemark.refresh: where a table that a model reads was dropped and
another one created under its name, the model follows that one from now on.
Every date of the model becomes dirty, and live views that were dropped
along are created again. Returns how many tables were taken over; 0 when
none was. A table that the model cannot read (no event_date, no SELECT for
the owner of the model''s table) is left, with a warning and in last_error
of tidemark.model_status. Models whose owner the caller is no member of are
passed over.';

CREATE FUNCTION tidemark.drop_model(name text, drop_table boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    reader text;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = drop_model.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', name USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    END IF;
    SELECT s.model INTO reader FROM tidemark_internal.model_sources s WHERE s.source = m.target ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'model % is read by model %', name, reader USING ERRCODE = '2BP01', HINT = 'Drop the models that read it first.';
    END IF;
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = m.target) THEN
        IF NOT tidemark_internal.is_member_of_owner(m.target) THEN
            RAISE EXCEPTION 'must be owner of table %', m.target USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns it.';
        END IF;
        IF m.live_view IS NOT NULL AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.live_view) THEN
            PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP VIEW %s', m.live_view));
        END IF;
    END IF;
    -- Not while a refresher has it.
    PERFORM pg_advisory_xact_lock(('tidemark_internal.models'::regclass)::oid::bigint);
    DELETE FROM tidemark_internal.models x WHERE x.name = drop_model.name;
    IF drop_table AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.target) THEN
        PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP TABLE %s', m.target));
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark.drop_model(text, boolean) IS
'Takes a model away: its registration, marks and live view, and with
drop_table (default false) its table. Without it the table stays as it is
and is no longer kept up to date. 42704: no such model; 2BP01: other models
or views need it; 42501: the caller is not a member of the role that owns
the table.';
