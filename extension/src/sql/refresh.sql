-- Recomputing dates of models by minimal diff, and checking stored dates against a recompute.
--
-- One statement computes the rows of a date, compares them byte by byte with the stored ones and writes only what
-- differs, all under one snapshot. It runs as the owner of the model's table.

CREATE FUNCTION tidemark_internal.execute_as_owner(relation regclass, statement text, event_date date DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_execute_as_owner';
COMMENT ON FUNCTION tidemark_internal.execute_as_owner(regclass, text, date) IS
'Part of tidemark.refresh: runs a statement as the owner of a relation, in a
security-restricted operation, with event_date as $1 and the day after as $2
(both NULL without event_date). Returns the first column of the first row as
text, or the number of rows written by a statement that returns none. The
caller must be a member of the role that owns the relation (42501), so it
gives nobody a right that SET ROLE would not.';

CREATE FUNCTION tidemark_internal.read_as_owner(relation regclass, statement text, event_date date DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100000 AS 'MODULE_PATHNAME', 'tidemark_read_as_owner';
COMMENT ON FUNCTION tidemark_internal.read_as_owner(regclass, text, date) IS
'Part of tidemark.verify_model: like tidemark_internal.execute_as_owner for a
statement that only reads, under the snapshot of the calling query.';

CREATE FUNCTION tidemark_internal.horizon_age(model text, event_date date) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT age(l.horizon::xid) FROM tidemark_internal.refresh_log l
         WHERE l.model = horizon_age.model AND l.event_date = horizon_age.event_date ORDER BY l.id DESC LIMIT 1);
COMMENT ON FUNCTION tidemark_internal.horizon_age(text, date) IS
'Part of tidemark.refresh: how many transactions ago the last refresh of a
date of a model began, as age(xid) counts: what is older was seen by it.
NULL when the log does not know.';

CREATE FUNCTION tidemark_internal.append_query(model tidemark_internal.models) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source record;
    copied text[];
    same_key text;
    recent text := '';
    rewritten text;
BEGIN
    SELECT s.source, n.nspname, c.relname INTO source
      FROM tidemark_internal.model_sources s JOIN pg_class c ON c.oid = s.source JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE s.model = model.name
       AND has_table_privilege((SELECT t.relowner FROM pg_class t WHERE t.oid = model.target), c.oid, 'SELECT');
    IF NOT FOUND OR (SELECT count(*) FROM tidemark_internal.model_sources s WHERE s.model = model.name) <> 1 THEN
        RETURN NULL;
    END IF;
    copied := tidemark_internal.read_as_owner(model.target, format('SELECT tidemark_internal.copied_columns(%L)', model.query))::text[];
    IF copied IS NULL OR tidemark_internal.read_as_owner(model.target, format('SELECT tidemark_internal.query_relations(%L)::oid[]', model.query))::oid[] IS DISTINCT FROM ARRAY[source.source::oid] THEN
        RETURN NULL;
    END IF;
    -- Of a key whose columns, but for the date, are the source's own, the rows that are stored already can be told
    -- before anything is computed.
    SELECT string_agg('tidemark_stored.' || quote_ident(k.name) || ' = tidemark_source.' || quote_ident(o.copied), ' AND ' ORDER BY k.n)
      INTO same_key
      FROM unnest(model.key) WITH ORDINALITY AS k(name, n)
      LEFT JOIN unnest(tidemark_internal.read_as_owner(model.target, format('SELECT tidemark_internal.query_columns(%L)', model.query))::text[], copied) AS o(name, copied)
        ON o.name = k.name
      LEFT JOIN pg_attribute t ON t.attrelid = model.target AND t.attname = k.name
      LEFT JOIN pg_attribute s ON s.attrelid = source.source AND s.attname = o.copied
     WHERE k.name <> 'event_date'
    -- Only types of Postgres itself, and enums: the = of another one need not be the one that its indexes use.
    HAVING bool_and(coalesce(t.atttypid = s.atttypid AND t.atttypmod IN (-1, s.atttypmod) AND t.attcollation = s.attcollation
                             AND (t.atttypid < 16384 OR EXISTS (SELECT FROM pg_type y WHERE y.oid = t.atttypid AND y.typtype = 'e')), false));
    IF same_key IS NULL THEN
        RETURN NULL;
    END IF;
    -- Most rows were there at the last refresh of the date, as their transactions say, which spares comparing them with
    -- what is stored. Tables that are no heaps may not know that, nor may their children.
    IF NOT EXISTS (
        WITH RECURSIVE tree(relid) AS (
            SELECT source.source::oid
            UNION
            SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.relid)
        SELECT FROM tree JOIN pg_class c ON c.oid = tree.relid
         WHERE c.relkind <> 'p' AND (c.relkind <> 'r' OR c.relam <> (SELECT a.oid FROM pg_am a WHERE a.amname = 'heap'))) THEN
        recent := format('age(tidemark_source.xmin) <= (SELECT tidemark_internal.horizon_age(%L, $1)) AND ', model.name);
    END IF;
    rewritten := tidemark_internal.rewrite_query(model.query, NULL, NULL, ARRAY[source.nspname]::text[], ARRAY[source.relname]::text[], ARRAY[format(
        '(SELECT tidemark_source.* FROM %s AS tidemark_source WHERE %sNOT EXISTS (SELECT FROM %s AS tidemark_stored WHERE tidemark_stored.event_date = $1 AND %s))',
        source.source, recent, model.target, same_key)]);
    RETURN nullif(rewritten, tidemark_internal.rewrite_query(model.query, NULL, NULL));
END
$$;
COMMENT ON FUNCTION tidemark_internal.append_query(tidemark_internal.models) IS
'Part of tidemark.refresh: the query of a model, made to read only those rows
of its source that came since the last refresh of the date ($1), and for
which no row of the date is stored. NULL for a model
that must be recomputed even if its source only gained rows: see
tidemark_internal.copied_columns; besides, it must have one source, named in the
query itself, and its key must be columns of the source, unchanged, with or
without event_date. The caller must be a member of the role that owns the
table.';

CREATE FUNCTION tidemark_internal.model_statement(model tidemark_internal.models, kind text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;      -- "a", "b"
    computed text;     -- CAST(q."a" AS type) AS "a", ...
    new_row text;
    old_row text;
    assigned text;
    join_keys text;
    keys text;
    null_key text;
    example text;      -- a key as JSON
    append_query text;
BEGIN
    -- Compared as what the table would store: numeric(12, 3) of a numeric, say. A cast to varchar(n) would cut in silence.
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('CAST(q.%1$I AS %2$s) AS %1$I', a.attname,
                             format_type(a.atttypid, CASE WHEN a.atttypid = 'varchar'::regtype THEN -1 ELSE a.atttypmod END)), ', ' ORDER BY a.attnum),
           string_agg(format('new.%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('old.%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('%1$I = d.%1$I', a.attname), ', ' ORDER BY a.attnum)
      INTO columns, computed, new_row, old_row, assigned
      FROM pg_attribute a
     WHERE a.attrelid = model.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    SELECT string_agg(format('new.%1$I = old.%1$I', k), ' AND ' ORDER BY n), string_agg(format('%I', k), ', ' ORDER BY n),
           string_agg(format('%I IS NULL', k), ' OR ' ORDER BY n),
           format('jsonb_build_object(%s)::text', string_agg(format('%1$L, %1$I', k), ', ' ORDER BY n))
      INTO join_keys, keys, null_key, example
      FROM unnest(model.key) WITH ORDINALITY AS x(k, n);
    CASE kind
        WHEN 'build', 'fill' THEN
            RETURN CASE kind WHEN 'build' THEN format('INSERT INTO %s ', model.target) ELSE '' END
                || format('(%1$s) SELECT %1$s FROM (%2$s' || E'\n' || ') AS q WHERE q.event_date = $1', columns, model.query);
        WHEN 'built' THEN
            RETURN format('SELECT %1$s FROM %2$s WHERE event_date = $1 GROUP BY %3$s HAVING count(*) > 1 OR %4$s LIMIT 1', example, model.target, keys, null_key);
        WHEN 'append' THEN
            -- Counted, so that a row which went without a mark, or a key that comes twice, is not passed over.
            append_query := tidemark_internal.append_query(model);
            RETURN CASE WHEN append_query IS NOT NULL THEN format(
                'WITH added AS (INSERT INTO %1$s (%2$s) SELECT %3$s FROM (%4$s' || E'\n' || ') AS q WHERE q.event_date = $1 RETURNING %9$s)
                 SELECT json_build_object(''inserted'', (SELECT count(*) FROM added),
                    ''surplus'', (SELECT count(*) FROM %1$s AS t WHERE t.event_date = $1) + (SELECT count(*) FROM added)
                                 - (SELECT count(*) FROM (%6$s' || E'\n' || ') AS q WHERE q.event_date = $1),
                    ''wrong'', (SELECT %7$s FROM added GROUP BY %5$s HAVING count(*) > 1 OR %8$s LIMIT 1),
                    ''elsewhere'', (SELECT count(*) FROM added WHERE event_date IS DISTINCT FROM $1))',
                model.target, columns, computed, append_query, keys, model.query, example, null_key,
                keys || CASE WHEN 'event_date' = ANY (model.key) THEN '' ELSE ', event_date' END) END;
        WHEN 'diff', 'compare' THEN
            -- Deleted before updated before inserted: each part waits for the count of the one before, so that a value
            -- which is unique in the table can move from one row to another.
            RETURN format(
                'WITH new AS MATERIALIZED (SELECT true AS tidemark_new, %2$s FROM (%3$s' || E'\n' || ') AS q WHERE q.event_date = $1),
                 old AS (SELECT t.tableoid AS tidemark_table, t.ctid AS tidemark_row, t.* FROM %1$s AS t WHERE t.event_date = $1),
                 wrong AS (SELECT %4$s AS key FROM new GROUP BY %5$s HAVING count(*) > 1 OR %6$s LIMIT 1),
                 diff AS MATERIALIZED (
                    SELECT old.tidemark_table, old.tidemark_row, new.tidemark_new, %7$s FROM new FULL JOIN old ON %8$s
                     WHERE new.tidemark_new IS NULL OR old.tidemark_row IS NULL OR ROW(%7$s)::record OPERATOR(pg_catalog.*<>) ROW(%9$s)::record)',
                model.target, computed, model.query, example, keys, null_key, new_row, join_keys, old_row)
                || CASE kind WHEN 'diff' THEN format(
                ', deleted AS (DELETE FROM %1$s AS t USING diff AS d
                     WHERE t.event_date = $1 AND t.tableoid = d.tidemark_table AND t.ctid = d.tidemark_row AND d.tidemark_new IS NULL RETURNING 1),
                 updated AS (UPDATE %1$s AS t SET %2$s FROM diff AS d
                     WHERE t.event_date = $1 AND t.tableoid = d.tidemark_table AND t.ctid = d.tidemark_row AND d.tidemark_new
                       AND (SELECT count(*) FROM deleted) >= 0 RETURNING t.event_date),
                 inserted AS (INSERT INTO %1$s (%3$s) SELECT %3$s FROM diff AS d
                     WHERE d.tidemark_row IS NULL AND (SELECT count(*) FROM updated) >= 0 RETURNING event_date)
                 SELECT json_build_object(''deleted'', (SELECT count(*) FROM deleted), ''updated'', (SELECT count(*) FROM updated),
                    ''inserted'', (SELECT count(*) FROM inserted), ''wrong'', (SELECT key FROM wrong),
                    ''elsewhere'', (SELECT count(*) FROM (SELECT event_date FROM updated UNION ALL SELECT event_date FROM inserted) AS w WHERE event_date IS DISTINCT FROM $1))',
                model.target, assigned, columns)
                ELSE format(
                ' SELECT json_build_object(''missing'', count(*) FILTER (WHERE d.tidemark_row IS NULL), ''extra'', count(*) FILTER (WHERE d.tidemark_new IS NULL),
                    ''different'', count(*) FILTER (WHERE d.tidemark_row IS NOT NULL AND d.tidemark_new),
                    ''stored'', (SELECT count(*) FROM old), ''computed'', (SELECT count(*) FROM new), ''wrong'', (SELECT key FROM wrong),
                    ''example'', (SELECT %1$s FROM (SELECT %2$s FROM diff JOIN old ON old.tidemark_table = diff.tidemark_table AND old.tidemark_row = diff.tidemark_row
                                  UNION ALL SELECT %3$s FROM diff WHERE diff.tidemark_row IS NULL) AS e ORDER BY %4$s LIMIT 1)) FROM diff AS d',
                example, (SELECT string_agg(format('old.%I', k), ', ' ORDER BY n) FROM unnest(model.key) WITH ORDINALITY AS x(k, n)),
                (SELECT string_agg(format('diff.%I', k), ', ' ORDER BY n) FROM unnest(model.key) WITH ORDINALITY AS x(k, n)), keys)
                END;
        ELSE
            RAISE EXCEPTION 'kind must be build, fill, built, append, diff or compare, got %', kind USING ERRCODE = '22023';
    END CASE;
END
$$;
COMMENT ON FUNCTION tidemark_internal.model_statement(tidemark_internal.models, text) IS
'Part of tidemark.refresh and tidemark.verify_model: the statement that works
on one date ($1, and the day after as $2) of a model. kind: build inserts
it, fill is the same without INSERT INTO and the table, built looks for a
doubled or NULL key afterwards, append adds the rows that are missing if the
source only gained rows (NULL for a model that cannot do so, see
tidemark_internal.append_query), diff brings the stored rows in line, compare only
says how they differ. Useful to EXPLAIN.';

CREATE FUNCTION tidemark_internal.refresh_date(model tidemark_internal.models, event_date date, only_added boolean,
    OUT inserted bigint, OUT updated bigint, OUT deleted bigint, OUT appended boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET jit = off  -- a plan per date: compiling it costs more than it gains
AS $$
DECLARE
    wrong text;
    elsewhere bigint := 0;
    result json;
    may_fill boolean;
    filled boolean := false;
    append text;
    stored constant text := format('SELECT count(*) FROM %s WHERE event_date = $1', model.target);
BEGIN
    IF isfinite(event_date) AND EXISTS (
        SELECT FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
         WHERE p.partrelid = model.target AND p.partstrat = 'r' AND p.partnatts = 1 AND a.atttypid = 'timestamptz'::regtype) THEN
        -- A partition that is made is filled before it has indexes: they are built in far less time than they are kept up.
        -- Not behind the back of triggers.
        may_fill := NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = model.target AND NOT t.tgisinternal);
        filled := tidemark_internal.execute_as_owner(model.target, format('SELECT cardinality(tidemark_internal.create_partitions(%L, $1, $1, %L)) > 0',
            model.target::text, CASE WHEN may_fill THEN tidemark_internal.model_statement(model, 'fill') END), event_date)::boolean AND may_fill;
    END IF;
    appended := false;
    IF NOT filled AND tidemark_internal.execute_as_owner(model.target, format('SELECT EXISTS (SELECT FROM %s WHERE event_date = $1)', model.target), event_date)::boolean THEN
        -- Not over a change of columns, which may have changed stored rows or what the query makes of old ones.
        IF only_added AND (SELECT max(age(a.xmin)) IS NOT NULL AND min(age(a.xmin)) > tidemark_internal.horizon_age(model.name, refresh_date.event_date)
                             FROM pg_attribute a
                            WHERE a.attrelid = model.target OR a.attrelid IN (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name)) THEN
            BEGIN
                append := tidemark_internal.model_statement(model, 'append');
                IF append IS NOT NULL THEN
                    result := tidemark_internal.execute_as_owner(model.target, append, event_date)::json;
                    appended := result ->> 'wrong' IS NULL AND (result ->> 'surplus')::bigint = 0 AND (result ->> 'elsewhere')::bigint = 0;
                    IF NOT appended THEN
                        RAISE EXCEPTION 'not as expected' USING ERRCODE = 'TM002';
                    END IF;
                    inserted := result ->> 'inserted';
                    updated := 0;
                    deleted := 0;
                    RETURN;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                -- Undone. Whatever the matter is, a recompute sets it right or says what it is.
                appended := false;
            END;
        END IF;
        result := tidemark_internal.execute_as_owner(model.target, tidemark_internal.model_statement(model, 'diff'), event_date)::json;
        inserted := result ->> 'inserted';
        updated := result ->> 'updated';
        deleted := result ->> 'deleted';
        wrong := result ->> 'wrong';
        elsewhere := result ->> 'elsewhere';
    ELSE
        inserted := tidemark_internal.execute_as_owner(model.target, CASE WHEN filled THEN stored ELSE tidemark_internal.model_statement(model, 'build') END, event_date)::bigint;
        updated := 0;
        deleted := 0;
        -- A unique index on columns of the key, none of them NULL, has checked it already.
        IF inserted > 0 AND NOT EXISTS (
            SELECT FROM pg_index i
             WHERE i.indrelid = model.target AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
               AND NOT EXISTS (SELECT FROM unnest(i.indkey[:i.indnkeyatts - 1]::smallint[]) AS c(attnum)
                                 JOIN pg_attribute a ON a.attrelid = model.target AND a.attnum = c.attnum
                                WHERE NOT a.attname = ANY (model.key))
               AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = model.target AND a.attname = ANY (model.key) AND NOT a.attnotnull)) THEN
            wrong := tidemark_internal.execute_as_owner(model.target, tidemark_internal.model_statement(model, 'built'), event_date);
        END IF;
        IF NOT filled AND inserted > 0 AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = model.target AND a.attname = 'event_date' AND a.attgenerated <> '') THEN
            elsewhere := inserted - tidemark_internal.execute_as_owner(model.target, stored, event_date)::bigint;
        END IF;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'query of model % returns a key that is NULL or not unique', model.name
            USING ERRCODE = '21000', DETAIL = format('On %s it returns %s.', event_date, wrong),
                  HINT = format('The key is (%s): group by it, or give create_model another key.', array_to_string(model.key, ', '));
    ELSIF elsewhere <> 0 THEN
        RAISE EXCEPTION 'query of model % returns rows whose stored event_date is not the one it says', model.name
            USING ERRCODE = '22023', DETAIL = format('On %s these are %s rows.', event_date, elsewhere),
                  HINT = 'event_date is a generated column of the table; the query must compute it in the same way.';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_date(tidemark_internal.models, date, boolean) IS
'Part of tidemark.refresh: brings the stored rows of one date in line with
what the query returns, as the owner of the table, and says how many rows
that took. Makes the partition of the date if the table has daily ones.
only_added: nothing but added rows has happened to the source since the date
was last refreshed; then only these are computed where the model allows it
(appended), and the numbers of rows are compared afterwards.
Takes no marks away. 21000: the query returns a key that is NULL or not
unique.';

CREATE FUNCTION tidemark_internal.refresh_step(model text, skip text[], run timestamptz DEFAULT NULL,
    OUT refreshed_model text, OUT refreshed_date date, OUT error text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    candidate text;
    m tidemark_internal.models;
    began timestamptz;
    change record;
    changed boolean;
    only_added boolean;
    horizon xid8;
BEGIN
    -- Models that others read come first; among a model's dates the newest, which dashboards look at most.
    FOR candidate IN
        SELECT x FROM tidemark_internal.models_in_order() AS x WHERE refresh_step.model IS NULL OR x = refresh_step.model
    LOOP
        CONTINUE WHEN NOT tidemark_internal.is_member_of_model(candidate);
        CONTINUE WHEN NOT EXISTS (SELECT FROM tidemark_internal.model_dirty d WHERE d.model = candidate);
        -- One refresher per model; if another session has it, look for other work.
        SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = candidate FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        -- OFFSET 0: the conditions are looked at date by date until one fits, not for all dates that wait.
        SELECT d.event_date INTO refreshed_date
          FROM (SELECT DISTINCT x.event_date FROM tidemark_internal.model_dirty x WHERE x.model = candidate ORDER BY 1 DESC OFFSET 0) AS d
         WHERE NOT (candidate || ' ' || d.event_date) = ANY (skip) AND NOT tidemark_internal.is_frozen(candidate, d.event_date)
         LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        refreshed_model := candidate;
        began := clock_timestamp();
        horizon := pg_snapshot_xmin(pg_current_snapshot());
        BEGIN
            -- Marks go first, the sources are read by later statements with a newer snapshot (see the top of models.sql).
            WITH gone AS (DELETE FROM tidemark_internal.model_dirty d WHERE d.model = candidate AND d.event_date = refreshed_date RETURNING d.only_added)
            SELECT bool_and(g.only_added) INTO only_added FROM gone g;
            SELECT * INTO change FROM tidemark_internal.refresh_date(m, refreshed_date, only_added);
            -- A partition may have been detached since the date was chosen: then the rows computed are too few.
            IF tidemark_internal.is_frozen(candidate, refreshed_date) THEN
                RAISE EXCEPTION 'a source retired its rows meanwhile' USING ERRCODE = 'TM001';
            END IF;
            changed := change.inserted + change.updated + change.deleted > 0;
            -- Only models that read this one care, and only if there is something new to read.
            IF changed AND EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE s.source = m.target) THEN
                INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added)
                -- A recompute may have found rows to insert where none came: rows that somebody deleted from the table.
                VALUES (m.target, refreshed_date, 'refreshed ' || candidate, change.appended);
            END IF;
            UPDATE tidemark_internal.models x
               SET refresh_count = x.refresh_count + 1, change_count = x.change_count + changed::integer, last_refreshed_at = clock_timestamp()
             WHERE x.name = candidate;
            -- Another date's success cures nothing: an error stays until its own date, or whatever waits, is done.
            UPDATE tidemark_internal.models x SET last_error = NULL, last_error_at = NULL
             WHERE x.name = candidate AND x.last_error IS NOT NULL
               AND (starts_with(x.last_error, refreshed_date || ':')
                    OR NOT EXISTS (SELECT FROM tidemark_internal.model_dirty d WHERE d.model = candidate));
            INSERT INTO tidemark_internal.refresh_log (run, model, event_date, refreshed_at, rows_inserted, rows_updated, rows_deleted, seconds, appended, horizon)
            VALUES (coalesce(refresh_step.run, began), candidate, refreshed_date, clock_timestamp(), change.inserted, change.updated, change.deleted,
                    extract(epoch FROM clock_timestamp() - began), change.appended, horizon);
        EXCEPTION
          WHEN SQLSTATE 'TM001' THEN
            -- Undone, marks included; from now on the date is passed over as frozen.
            NULL;
          WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS error = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
            detail := nullif(detail, '');
            UPDATE tidemark_internal.models x SET last_error = refreshed_date || ': ' || error, last_error_at = clock_timestamp() WHERE x.name = candidate;
        END;
        RETURN;
    END LOOP;
    refreshed_date := NULL;
    -- Nothing left to do: a good time to keep the log small.
    DELETE FROM tidemark_internal.refresh_log l WHERE l.id <= (SELECT max(x.id) - 100000 FROM tidemark_internal.refresh_log x);
    DELETE FROM tidemark_internal.refresh_log l
     WHERE l.refreshed_at < now() - interval '30 days' AND l.id < (SELECT min(x.id) + 10000 FROM tidemark_internal.refresh_log x);
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_step(text, text[], timestamptz) IS
'Part of tidemark.refresh: recomputes one dirty date of one model, of those
whose owner the caller is a member of, and says which, with the error if it
failed; all NULL when nothing is left to do. skip holds ''model date'' entries
to pass over: those done before. run is what the refresh log records. Marks
must have been distributed before.';

CREATE PROCEDURE tidemark.refresh(model text DEFAULT NULL, max_dates integer DEFAULT NULL)
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit. Hence every name is qualified, operators too.
DECLARE
    step pg_catalog.record;
    -- Each date of a model once per call: a source that is loaded without a pause would otherwise be computed again and
    -- again, and the models that read it never. What is marked anew meanwhile waits for the next call.
    done pg_catalog.text[] := '{}';
    failed pg_catalog.int4 := 0;
    run pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF model IS NOT NULL AND NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name OPERATOR(pg_catalog.=) model) THEN
        RAISE EXCEPTION 'model % does not exist', model USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    ELSIF model IS NOT NULL AND NOT tidemark_internal.is_member_of_model(model) THEN
        RAISE EXCEPTION 'permission denied to refresh model %', model
            USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns its table.';
    ELSIF EXISTS (SELECT FROM tidemark_internal.models) AND NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE tidemark_internal.is_member_of_owner(m.target)) THEN
        RAISE EXCEPTION 'permission denied to refresh any model'
            USING ERRCODE = '42501', HINT = 'The caller must be a member of a role that owns the table of a model.';
    END IF;
    PERFORM tidemark_internal.adopt_sources();
    COMMIT;
    WHILE max_dates IS NULL OR pg_catalog.cardinality(done) OPERATOR(pg_catalog.<) max_dates LOOP
        -- In a transaction of its own: the recompute of a long date must not hold marks that others wait for.
        PERFORM tidemark_internal.distribute_dirty();
        COMMIT;
        SELECT * INTO step FROM tidemark_internal.refresh_step(model, done, run);
        COMMIT;
        EXIT WHEN step.refreshed_model IS NULL;
        done := pg_catalog.array_append(done, pg_catalog.concat(step.refreshed_model, ' ', step.refreshed_date));
        IF step.error IS NOT NULL THEN
            failed := failed OPERATOR(pg_catalog.+) 1;
            IF step.detail IS NULL THEN
                RAISE WARNING 'model %, date %: %', step.refreshed_model, step.refreshed_date, step.error;
            ELSE
                RAISE WARNING 'model %, date %: %', step.refreshed_model, step.refreshed_date, step.error USING DETAIL = step.detail;
            END IF;
        END IF;
    END LOOP;
    IF failed OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% model dates could not be refreshed', failed
            USING HINT = 'The warnings above and tidemark.model_status say why; the dates stay dirty.';
    END IF;
END
$$;
COMMENT ON PROCEDURE tidemark.refresh(text, integer) IS
'Recomputes the dirty dates of one model (schema.table), or of all models in
dependency order when model is NULL; at most max_dates dates, all when NULL.
Each date is done in a transaction of its own, and only rows that differ are
written; an interrupted refresh loses only the date in work and the next
call goes on. A call recomputes each date of a model at most once, so it
ends and reaches every model while sources are being loaded; what is marked
meanwhile waits for the next. CALL it outside a transaction block. Queries
run as the owner
of each model''s table; models whose owner the caller is no member of are
passed over (42501 if named, or if there is no other). Frozen dates are left
alone. Dates that fail stay dirty, are reported as warnings, and make the
call fail at its end.';

CREATE FUNCTION tidemark.verify_model(name text, from_date date, to_date date) RETURNS TABLE (event_date date, status text, detail text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET jit = off  -- a plan per date: compiling it costs more than it gains
AS $$
DECLARE
    m tidemark_internal.models;
    stale date[];
    statement text;
    result json;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = verify_model.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', name USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    ELSIF from_date IS NULL OR to_date IS NULL OR NOT isfinite(from_date) OR NOT isfinite(to_date) THEN
        RAISE EXCEPTION 'from_date and to_date must be finite dates' USING ERRCODE = '22023';
    ELSIF to_date < from_date THEN
        RAISE EXCEPTION 'to_date must not be before from_date' USING ERRCODE = '22023';
    END IF;
    stale := tidemark.stale_dates(name);
    statement := tidemark_internal.model_statement(m, 'compare');
    FOR event_date IN SELECT d::date FROM generate_series(from_date::timestamp, to_date::timestamp, interval '1 day') AS d LOOP
        detail := NULL;
        IF tidemark_internal.is_frozen(name, event_date) THEN
            status := 'frozen';
            detail := 'source rows were retired: the stored rows stay as they are';
        ELSIF event_date = ANY (stale) THEN
            status := 'stale';
            detail := 'marks wait: refresh first';
        ELSE
            result := tidemark_internal.read_as_owner(m.target, statement, event_date)::json;
            IF result ->> 'wrong' IS NOT NULL THEN
                status := 'different';
                detail := format('the query returns a key that is NULL or not unique: %s', result ->> 'wrong');
            ELSIF result ->> 'example' IS NOT NULL OR (result ->> 'stored')::bigint <> (result ->> 'computed')::bigint THEN
                status := 'different';
                detail := format('of %s stored and %s computed rows %s are missing, %s too many, %s different',
                                 result ->> 'stored', result ->> 'computed', result ->> 'missing', result ->> 'extra', result ->> 'different')
                          || coalesce(', for example ' || (result ->> 'example'), '');
            ELSE
                status := 'ok';
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.verify_model(text, date, date) IS
'Recomputes each date from from_date to to_date (both inclusive) and compares
it with the stored rows byte by byte, under the snapshot of the calling
query and without writing anything. status: ok; different (detail counts
rows that are missing, too many or different, with the key of one); stale
(marks wait for a refresh, so it was not compared); frozen (cannot be
compared: source rows were retired). The caller must be a member of the role
that owns the table. 42704: no such model; 22023: bad dates.';
