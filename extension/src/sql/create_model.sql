-- Registering models and taking them away again.

CREATE FUNCTION tidemark_internal.note_ways(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    reason text;
    additions text;
    timeline boolean;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = note_ways.model;
    BEGIN
        additions := CASE WHEN tidemark_internal.timeline_statement(m.name, 'append') IS NULL
                          THEN (tidemark_internal.added_query(m)).way
                          ELSE (SELECT 'append' FROM tidemark_internal.timelines t
                                 WHERE t.name = m.name AND tidemark_internal.knows_transactions(t.source)) END;
        IF m.scope IS NOT NULL THEN
            reason := tidemark_internal.not_scoped(m);
            PERFORM tidemark_internal.scope_query(m);
        END IF;
    EXCEPTION WHEN feature_not_supported THEN
        -- A table written in a way that cannot be replaced.
        additions := NULL;
        reason := SQLERRM;
    END;
    IF m.scope IS NOT NULL AND reason IS NOT NULL THEN
        RAISE EXCEPTION 'model % cannot be scoped by %: %', m.name, quote_ident(m.scope), reason
            USING ERRCODE = '42P17', HINT = 'Rows with one value of the column must not depend on rows of the source '
                'with others. Write the query so that each level keeps the column, or leave scope out.';
    END IF;
    timeline := EXISTS (SELECT FROM tidemark_internal.timelines t WHERE t.name = m.name) AND additions IS NOT NULL;
    UPDATE tidemark_internal.models x
       SET ways = CASE WHEN additions IS NOT NULL THEN ARRAY[additions] ELSE '{}' END
                  || CASE WHEN m.scope IS NOT NULL OR timeline THEN ARRAY['scope'] ELSE '{}' END || ARRAY['recompute'],
           other_ways = nullif(concat_ws('; ',
               CASE WHEN additions IS DISTINCT FROM 'append'
                    THEN 'append: its rows do not each come from one row of its only source, with columns of the '
                         'source as their key' END,
               CASE WHEN additions IS NULL
                    THEN 'merge: they are not groups of rows of its only source, with sums, counts, the least, the '
                         'greatest and sketches' END,
               CASE WHEN m.scope IS NULL AND NOT timeline THEN 'scope: create_model was given none' END), '')
     WHERE x.name = m.name;
    IF m.scope IS NOT NULL THEN
        PERFORM tidemark_internal.execute_as_owner(m.target,
            'EXPLAIN ' || tidemark_internal.model_statement(m, 'scope', m.scope), '2000-01-01', '{}');
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.note_ways(text) IS
'Part of tidemark.create_model: finds out in which ways the dates of a model
may be refreshed, and why not in others. 42P17 for a scope that it cannot
have.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.note_ways(text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.lock_registrations() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- No SET of the function: it would override what the caller set, who knows how long he may hold up others.
    unlimited CONSTANT boolean := current_setting('lock_timeout') = '0';
BEGIN
    IF unlimited THEN
        PERFORM set_config('lock_timeout', '10s', true);
    END IF;
    LOCK TABLE tidemark_internal.model_sources IN SHARE ROW EXCLUSIVE MODE;
    IF unlimited THEN
        PERFORM set_config('lock_timeout', '0', true);
    END IF;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'another transaction registers or drops a model and is still open'
        USING ERRCODE = '55P03', HINT = concat('It is that of process ',
            (SELECT string_agg(concat(l.pid, ' (', a.usename, ')'), ', ')
               FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
              WHERE l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                AND l.relation = 'tidemark_internal.model_sources'::regclass AND l.granted
                AND l.mode IN ('ShareRowExclusiveLock', 'RowExclusiveLock') AND l.pid <> pg_backend_pid()),
            '. Try again when it has ended.');
END
$$;
COMMENT ON FUNCTION tidemark_internal.lock_registrations() IS
'Part of tidemark.create_model and tidemark.drop_model: makes this the only
transaction that registers or drops models. Marks that are distributed
meanwhile stay for models that cannot be seen yet. Waits for as long as
lock_timeout says, 10 s where it says nothing; 55P03 after that.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.lock_registrations() FROM PUBLIC;

CREATE FUNCTION tidemark.create_model(name text, sources regclass[], query text, key name[],
    lookback_days integer DEFAULT 0, lookahead_days integer DEFAULT 0, live boolean DEFAULT false,
    scope name DEFAULT NULL, scope_source name DEFAULT NULL, scope_since name DEFAULT NULL) RETURNS regclass
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.create_model(text, regclass[], text, name[], integer, integer, boolean, name, name,
    name) IS
'Registers a model: a table (created from the query if it does not exist,
with key as its primary key) whose rows for one event_date are what query
returns for it. query is one SELECT with $1 (first date) and $2 (end date,
exclusive) and schema-qualified names, with every column of the table by
name; it may read its sources (tables, or models) from
$1 - lookback_days to $2 + lookahead_days, and runs as the table''s owner.
live: also a view <name>_live that is exact at any moment. scope: a column,
such as person, whose rows depend only on source rows with the same value of
scope_source (NULL: of that name); 42P17 where the query does not show it.
scope_since: a column of times, such as the start of a session: a person''s
rows before one of its values depend only on source rows before that
event_time, the others only on rows from there on. All dates that sources
and table hold become dirty when the model is new or anything but live
changed, else another call does nothing. Returns the table.';

CREATE FUNCTION tidemark_internal.note_columns(model text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE tidemark_internal.model_sources s
       SET columns = (SELECT array_agg(a.attname)
                        FROM unnest(tidemark_internal.columns_read(c.relowner, m.query, s.source)) AS n
                        LEFT JOIN pg_attribute a ON a.attrelid = s.source AND a.attnum = n
                      -- What is below a view, its owner may change at any time.
                      HAVING bool_and(n > 0)
                         AND NOT EXISTS (
                             SELECT FROM pg_class v
                              WHERE v.oid = ANY ((tidemark_internal.describe_query(c.relowner, m.query)).relations)
                                AND v.relkind NOT IN ('r', 'p', 'f')))
      FROM tidemark_internal.models m JOIN pg_class c ON c.oid = m.target
     WHERE m.name = note_columns.model AND s.model = m.name;
$$;
COMMENT ON FUNCTION tidemark_internal.note_columns(text) IS
'Part of tidemark.create_model: writes down which columns of its sources the
query of a model reads. A source that it does not read concerns it whatever
changes there.';

CREATE FUNCTION tidemark_internal.create_model(caller oid, name text, sources regclass[], query text, key name[],
    lookback_days integer, lookahead_days integer, live boolean, scope name, scope_source name, scope_since name)
RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $$
DECLARE
    parts text[];
    model_table regclass;
    scoped_by name := coalesce(scope_source, scope);
    old tidemark_internal.models;
    old_sources regclass[];
    source regclass;
    other text;
    changed boolean;
BEGIN
    IF name IS NULL OR sources IS NULL OR cardinality(sources) = 0 OR query IS NULL OR key IS NULL
       OR cardinality(key) = 0 THEN
        RAISE EXCEPTION 'sources, query and key must not be empty' USING ERRCODE = '22023';
    ELSIF lookback_days IS NULL OR lookahead_days IS NULL OR lookback_days NOT BETWEEN 0 AND 1000
          OR lookahead_days NOT BETWEEN 0 AND 1000 THEN
        RAISE EXCEPTION 'lookback_days and lookahead_days must be between 0 and 1000' USING ERRCODE = '22023';
    ELSIF array_position(sources, NULL::regclass) IS NOT NULL OR array_position(key, NULL::name) IS NOT NULL THEN
        RAISE EXCEPTION 'sources and key must not contain NULL' USING ERRCODE = '22004';
    ELSIF scope IS NULL AND scope_source IS NOT NULL THEN
        RAISE EXCEPTION 'scope_source needs a scope' USING ERRCODE = '22023';
    ELSIF scope IS NULL AND scope_since IS NOT NULL THEN
        RAISE EXCEPTION 'scope_since needs a scope' USING ERRCODE = '22023';
    ELSIF octet_length(query) > 1000000 THEN
        RAISE EXCEPTION 'query must have at most 1000000 bytes' USING ERRCODE = '54000';
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
        IF NOT EXISTS (SELECT FROM pg_class c
                        WHERE c.oid = source AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't') THEN
            RAISE EXCEPTION 'source % is not a table, or a temporary one', source
                USING ERRCODE = '42809', HINT = 'Marks are about tables: name those that the view reads, or the table '
                    'of a model instead of its live view.';
        END IF;
    END LOOP;
    model_table := to_regclass(name);
    IF model_table IS NULL THEN
        PERFORM tidemark_internal.execute_as(caller, format(
            'CREATE TABLE %s AS SELECT * FROM (%s' || E'\n' || ') AS q WITH NO DATA', name,
            tidemark_internal.rewrite_query(query, '(NULL::pg_catalog.date)', '(NULL::pg_catalog.date)')));
        model_table := name::regclass;
        PERFORM tidemark_internal.execute_as(caller, format('ALTER TABLE %s ADD PRIMARY KEY (%s)', model_table,
            (SELECT string_agg(format('%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY AS x(k, n))));
    ELSIF NOT EXISTS (SELECT FROM pg_class c
                       WHERE c.oid = model_table AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't') THEN
        RAISE EXCEPTION '% is not a table, or a temporary one', model_table USING ERRCODE = '42809';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, model_table);
    FOREACH source IN ARRAY sources LOOP
        IF NOT tidemark_internal.may_read((SELECT c.relowner FROM pg_class c WHERE c.oid = model_table), source) THEN
            RAISE EXCEPTION 'permission denied for source %', source
                USING ERRCODE = '42501',
                      HINT = format('The query runs as the owner of %s, who needs SELECT on it.', model_table);
        END IF;
    END LOOP;
    SELECT m.name INTO other FROM tidemark_internal.models m
     WHERE m.target = model_table AND m.name <> create_model.name;
    IF FOUND THEN
        RAISE EXCEPTION '% is the table of model %, which was registered under that name', model_table, other
            USING ERRCODE = '42710', HINT = format('Give the table its name again, or call '
                'tidemark.drop_model(%L) first: both leave its rows.', other);
    END IF;

    -- Marks that are distributed from now on are kept for this definition (marks.sql), and registrations wait for each
    -- other: two at once could make a circle of models.
    SELECT * INTO old FROM tidemark_internal.models m WHERE m.name = create_model.name FOR UPDATE;
    IF old.target <> model_table AND EXISTS (SELECT FROM pg_class c WHERE c.oid = old.target) THEN
        -- Its table was renamed, and is refreshed under the old name.
        PERFORM tidemark_internal.check_may_act_as(caller, old.target);
    END IF;
    PERFORM tidemark_internal.lock_registrations();
    old_sources := ARRAY(SELECT s.source FROM tidemark_internal.model_sources s
                          WHERE s.model = create_model.name ORDER BY s.source);
    changed := old.name IS NULL
        OR (old.target, old.query, old.key, old.lookback_days, old.lookahead_days, old.scope, old.scope_source,
            old.scope_since)
           IS DISTINCT FROM (model_table, query, key, lookback_days, lookahead_days, scope, scoped_by, scope_since)
        OR old_sources IS DISTINCT FROM ARRAY(SELECT DISTINCT s FROM unnest(sources) AS s ORDER BY 1);
    INSERT INTO tidemark_internal.models AS m (name, target, query, key, lookback_days, lookahead_days, scope,
                                               scope_source, scope_since, defined_by)
    VALUES (name, model_table, query, key, lookback_days, lookahead_days, scope, scoped_by, scope_since,
            pg_current_xact_id())
    ON CONFLICT ON CONSTRAINT models_pkey DO UPDATE
       SET target = excluded.target, query = excluded.query, key = excluded.key,
           lookback_days = excluded.lookback_days, lookahead_days = excluded.lookahead_days,
           scope = excluded.scope, scope_source = excluded.scope_source,
           scope_since = excluded.scope_since,
           defined_by = CASE WHEN changed THEN excluded.defined_by ELSE m.defined_by END;
    DELETE FROM tidemark_internal.model_sources s WHERE s.model = name AND NOT s.source = ANY (sources);
    INSERT INTO tidemark_internal.model_sources (model, source, source_name)
    SELECT name, c.oid, format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY (sources)
    ON CONFLICT ON CONSTRAINT model_sources_pkey DO UPDATE SET source_name = excluded.source_name;
    PERFORM tidemark_internal.check_sources(name),
            tidemark_internal.check_model(name, live);
    PERFORM tidemark_internal.note_ways(name);
    PERFORM tidemark_internal.note_columns(name);
    -- In a partition of a day nobody looks for a date.
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = model_table AND c.relkind = 'p')
       AND NOT EXISTS (SELECT FROM pg_index i
                         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                        WHERE i.indrelid = model_table AND a.attname = 'event_date') THEN
        PERFORM tidemark_internal.execute_as_owner(model_table, format('CREATE INDEX ON %s (event_date)', model_table));
    END IF;

    -- A new definition makes every date dirty that a source or the table holds.
    IF changed THEN
        DELETE FROM tidemark_internal.model_dates d WHERE d.model = name;
        PERFORM tidemark_internal.mark_all_dates(caller, name);
    END IF;

    IF live THEN
        PERFORM tidemark_internal.create_live_view(name);
    ELSIF old.live_view IS NOT NULL THEN
        PERFORM tidemark_internal.drop_live_view(name);
    END IF;
    RETURN model_table;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_model(oid, text, regclass[], text, name[], integer, integer, boolean, name,
    name, name) IS
'The work behind tidemark.create_model.';

CREATE FUNCTION tidemark_internal.adopt_sources(caller oid) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
-- Every refresh comes by here: who locks a table that is adopted, or registers, holds it up for a moment only.
SET lock_timeout = '2s'
AS $$
DECLARE
    lost record;
    damaged text;
    adopted bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM tidemark_internal.model_sources s
                    WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.source)) THEN
        RETURN 0;
    END IF;
    FOR lost IN
        -- By way of the catalog: to_regclass fails for a schema that the caller may not use.
        SELECT s.model, s.source, s.source_name, c.oid AS found
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN pg_class t ON t.oid = m.target
          JOIN pg_namespace n ON n.nspname = (parse_ident(s.source_name))[1]
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = (parse_ident(s.source_name))[2]
                         AND c.relkind IN ('r', 'p', 'f')
         WHERE NOT EXISTS (SELECT FROM pg_class x WHERE x.oid = s.source)
           AND NOT EXISTS (SELECT FROM tidemark_internal.model_sources o WHERE o.model = s.model AND o.source = c.oid)
           AND tidemark_internal.may_act_as(caller, t.relowner)
         ORDER BY s.model, s.source_name
           FOR UPDATE OF m SKIP LOCKED  -- whoever has it registers, drops or refreshes it: the next refresh looks again
    LOOP
        BEGIN
            PERFORM tidemark_internal.lock_registrations();
            IF NOT tidemark_internal.may_read((SELECT c.relowner FROM tidemark_internal.models m
                                                 JOIN pg_class c ON c.oid = m.target WHERE m.name = lost.model),
                                              lost.found) THEN
                RAISE EXCEPTION 'permission denied for table %', lost.found::regclass USING ERRCODE = '42501';
            END IF;
            UPDATE tidemark_internal.model_sources s SET source = lost.found
             WHERE s.model = lost.model AND s.source = lost.source;
            PERFORM tidemark_internal.check_sources(lost.model);
            -- What it held before is gone, and with it what was marked: every date may be another one now.
            PERFORM tidemark_internal.mark_all_dates(caller, lost.model);
            UPDATE tidemark_internal.models m
               SET defined_by = pg_current_xact_id(), failed_date = NULL, failed_code = NULL, failed_message = NULL,
                   failed_at = NULL
             WHERE m.name = lost.model;
            adopted := adopted + 1;
        EXCEPTION WHEN OTHERS THEN
            -- One table that does not fit must not hold up the other models.
            UPDATE tidemark_internal.models m
               SET failed_date = NULL, failed_code = SQLSTATE, failed_at = clock_timestamp(),
                   failed_message = left(format('source %s was created anew and cannot be read: %s', lost.source_name,
                                                SQLERRM), 1000)
             WHERE m.name = lost.model;
            RAISE WARNING 'model %: source % was created anew and cannot be read: %', lost.model, lost.source_name,
                SQLERRM;
        END;
    END LOOP;
    -- Whoever dropped the table with CASCADE took live views along, also those of models above.
    FOR damaged IN
        SELECT o.name
          FROM tidemark_internal.models_in_order() WITH ORDINALITY AS o(name, n)
          JOIN tidemark_internal.models m ON m.name = o.name
          JOIN pg_class t ON t.oid = m.target
         WHERE adopted > 0 AND m.live_view IS NOT NULL
           AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = m.live_view)
           AND tidemark_internal.may_act_as(caller, t.relowner)
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
COMMENT ON FUNCTION tidemark_internal.adopt_sources(oid) IS
'Part of tidemark.refresh: where a table that a model reads was dropped and
another one created under its name, the model follows that one from now on.
Every date of the model becomes dirty, and live views that were dropped
along are created again. Returns how many tables were taken over; 0 when
none was. A table that the model cannot read (no event_date, no SELECT for
the owner of the model''s table) is left, with a warning and in last_error
of tidemark.model_status. Models whose owner the caller may not act for are
passed over.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.adopt_sources(oid) FROM PUBLIC;

CREATE FUNCTION tidemark.drop_model(name text, drop_table boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.drop_model(text, boolean) IS
'Takes a model away: its registration, marks and live view, and with
drop_table (default false) its table. Without it the table stays as it is
and is no longer kept up to date; models that read it read it on. 42704: no
such model; 2BP01: views need its live view, or models the table that is to
be dropped; 42501: the caller has not the rights of the role that owns the
table, or may not create it again if it is gone; 55P03: another transaction
that registers or drops a model is still open.';

CREATE FUNCTION tidemark_internal.drop_model(caller oid, name text, drop_table boolean) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    reader text;
    there boolean;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = drop_model.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', name
            USING ERRCODE = '42704', HINT = 'SELECT model FROM tidemark.model_status lists them.';
    END IF;
    there := EXISTS (SELECT FROM pg_class c WHERE c.oid = m.target);
    IF there THEN
        PERFORM tidemark_internal.check_may_act_as(caller, m.target);
    ELSIF NOT coalesce(
        (SELECT has_schema_privilege(caller, n.oid, 'CREATE') FROM pg_namespace n
          WHERE n.nspname = (parse_ident(m.name))[1]),
        has_database_privilege(caller, current_database(), 'CREATE'))
    THEN
        RAISE EXCEPTION 'permission denied to drop model %', name
            USING ERRCODE = '42501', HINT = 'Its table is gone: the caller must be allowed to create it again.';
    END IF;
    -- Waits for whoever refreshes it.
    PERFORM FROM tidemark_internal.models x WHERE x.name = drop_model.name FOR UPDATE;
    PERFORM tidemark_internal.lock_registrations();
    -- A table that stays may be read on: whoever makes a model of it cannot keep its owner from dropping his.
    SELECT s.model INTO reader FROM tidemark_internal.model_sources s WHERE s.source = m.target ORDER BY 1 LIMIT 1;
    IF FOUND AND drop_table THEN
        RAISE EXCEPTION 'the table of model % is read by model %', name, reader
            USING ERRCODE = '2BP01', HINT = 'Drop the models that read it first, or keep the table.';
    END IF;
    PERFORM tidemark_internal.drop_live_view(name);
    DELETE FROM tidemark_internal.models x WHERE x.name = drop_model.name;
    DELETE FROM tidemark_internal.model_dirty d WHERE d.model = drop_model.name;
    IF there AND drop_table THEN
        PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP TABLE %s', m.target));
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_model(oid, text, boolean) IS
'The work behind tidemark.drop_model.';
