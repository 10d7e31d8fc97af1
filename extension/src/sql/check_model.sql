-- What a model must be: a query that fits its table, sources that do not lead back to it. Registration itself is in
-- create_model.sql.

CREATE FUNCTION tidemark_internal.source_dates(target regclass, source regclass, persons text[] DEFAULT NULL,
    person_column name DEFAULT NULL, ids_type text DEFAULT NULL) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key_column name;
    whose CONSTANT text := CASE WHEN persons IS NOT NULL THEN format('AND s.%I %s', person_column,
        tidemark_internal.among(source, person_column, ids_type)) END;
BEGIN
    SELECT a.attname INTO key_column
      FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
     WHERE p.partrelid = source AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partdefid = 0
       AND a.atttypid = 'timestamptz'::regtype;
    IF FOUND AND NOT EXISTS (SELECT FROM tidemark.partitions(source) p
                              WHERE NOT isfinite(p.from_date) OR NOT isfinite(p.to_date)) THEN
        -- One look into each day's partition instead of a scan of all rows. OFFSET 0 keeps it one: as a join it would
        -- read all partitions for each date, since nothing but the date of the outer row says which are needed.
        RETURN tidemark_internal.read_as_owner(target, format(
            'SELECT coalesce(array_agg(x.d), ''{}'') FROM (
                SELECT DISTINCT d::date AS d
                  FROM tidemark.partitions(%1$L) p,
                       generate_series(p.from_date::timestamp, p.to_date::timestamp, interval ''1 day'') AS d) AS x
              WHERE EXISTS (SELECT FROM %2$s s
                             WHERE s.%3$I >= x.d::timestamp AT TIME ZONE ''UTC''
                               AND s.%3$I < (x.d + 1)::timestamp AT TIME ZONE ''UTC'' %4$s OFFSET 0)',
            source::text, source, key_column, whose), NULL, persons)::date[];
    ELSIF NOT EXISTS (SELECT FROM pg_attribute a
                       WHERE a.attrelid = source AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'source % has no column event_date of type date', source
            USING ERRCODE = '42703', HINT = 'Add one, generated from its event time, or partition the table by range '
                'of one timestamptz column.';
    END IF;
    RETURN tidemark_internal.read_as_owner(target, format(
        'SELECT coalesce(array_agg(d), ''{}'') FROM (SELECT DISTINCT s.event_date AS d FROM %s AS s WHERE true %s) AS x
          WHERE d BETWEEN ''0001-01-01'' AND ''9999-12-31''', source, whose),
        NULL, persons)::date[];
END
$$;
COMMENT ON FUNCTION tidemark_internal.source_dates(regclass, regclass, text[], name, text) IS
'Part of tidemark_internal.dates_with_rows: the UTC dates that a table holds
rows of, or rows of these persons, read as the owner of target.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.source_dates(regclass, regclass, text[], name, text) FROM PUBLIC;

CREATE FUNCTION tidemark.mark_all_dates(model text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.mark_all_dates(text) IS
'Makes every date of a model dirty that its sources or its table hold rows
of, as tidemark.create_model does for a new definition. The caller must have
the rights of the role that owns its table. 42704: no such model.';

CREATE FUNCTION tidemark_internal.mark_all_dates(caller oid, model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = mark_all_dates.model;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', model
            USING ERRCODE = '42704', HINT = 'SELECT model FROM tidemark.model_status lists them.';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, m.target);
    INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at)
    SELECT m.name, d, now() FROM unnest(tidemark_internal.dates_with_rows(m.name, NULL)) AS d;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_all_dates(oid, text) IS
'The work behind tidemark.mark_all_dates.';

CREATE FUNCTION tidemark_internal.check_sources(model text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    model_table CONSTANT regclass := (SELECT m.target FROM tidemark_internal.models m WHERE m.name = model);
    levels integer;
BEGIN
    IF EXISTS (
        WITH RECURSIVE reads(relation) AS (
            SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = check_sources.model
            UNION
            SELECT s.source
              FROM reads r
              JOIN tidemark_internal.models m ON m.target = r.relation
              JOIN tidemark_internal.model_sources s ON s.model = m.name)
        SELECT FROM reads r WHERE r.relation = model_table) THEN
        RAISE EXCEPTION 'model % would read itself through its sources', model USING ERRCODE = '22023';
    END IF;
    WITH RECURSIVE depth(target, level) AS (
        SELECT m.target, 1 FROM tidemark_internal.models m
        UNION
        SELECT d.target, b.level + 1
          FROM depth b
          JOIN tidemark_internal.model_sources s ON s.source = b.target
          JOIN tidemark_internal.models d ON d.name = s.model
         WHERE b.level <= 32)
    SELECT max(d.level) INTO levels FROM depth d;
    IF levels > 32 THEN
        RAISE EXCEPTION 'with model %, models would read each other over more than 32 levels', model
            USING ERRCODE = '54000';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_sources(text) IS
'Part of tidemark.create_model: raises an error if a registered model reads
itself through others (22023), or if a chain of models that read each other
is longer than 32 (54000). So every walk along them ends.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.check_sources(text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.check_model(model text, live boolean) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    described record;
    wrong record;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = check_model.model;
    described := tidemark_internal.describe_query((SELECT c.relowner FROM pg_class c WHERE c.oid = m.target), m.query);

    SELECT q.name, q.type, a.atttypid, a.attidentity, format_type(a.atttypid, a.atttypmod) AS stored_type INTO wrong
      FROM unnest(described.columns, described.types) WITH ORDINALITY AS q(name, type, n)
      LEFT JOIN pg_attribute a ON a.attrelid = m.target AND a.attname = q.name AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attname IS NULL OR a.attidentity = 'a'
        OR NOT (q.type IN (a.atttypid, t.typbasetype)
                -- What Postgres itself would pass on without being asked, and always alike.
                OR EXISTS (SELECT FROM pg_cast k LEFT JOIN pg_proc f ON f.oid = k.castfunc
                            WHERE k.castsource = q.type AND k.casttarget IN (a.atttypid, t.typbasetype)
                              AND k.castcontext = 'i' AND coalesce(f.provolatile, 'i') = 'i'))
     ORDER BY q.n LIMIT 1;
    IF FOUND AND wrong.atttypid IS NULL THEN
        RAISE EXCEPTION 'query of model % returns column %, which the table does not have', m.name,
            quote_ident(wrong.name)
            USING ERRCODE = '42703',
                  HINT = format('Add it first: ALTER TABLE %s ADD COLUMN %I ...;', m.target, wrong.name);
    ELSIF FOUND AND wrong.attidentity = 'a' THEN
        RAISE EXCEPTION 'column % of % is GENERATED ALWAYS AS IDENTITY, which a model cannot fill',
            quote_ident(wrong.name), m.target
            USING ERRCODE = '428C9',
                  HINT = format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY;', m.target, wrong.name);
    ELSIF FOUND THEN
        RAISE EXCEPTION 'column % of % is of type % and cannot take the % that the query returns',
            quote_ident(wrong.name), m.target, wrong.stored_type, format_type(wrong.type, NULL)
            USING ERRCODE = '42804', HINT = 'Cast it in the query, or drop the model and its table first: '
                'tidemark.drop_model(''...'', drop_table => true).';
    END IF;
    SELECT a.attname AS name INTO wrong FROM pg_attribute a
     WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
       AND NOT a.attname = ANY (described.columns)
     ORDER BY a.attnum LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % does not return column % of the table', m.name, quote_ident(wrong.name)
            USING ERRCODE = '42703',
                  HINT = format('Select it in the query, or drop it: ALTER TABLE %s DROP COLUMN %I;', m.target,
                                wrong.name);
    ELSIF NOT 'event_date' = ANY (described.columns) OR NOT EXISTS (
        SELECT FROM pg_attribute a
         WHERE a.attrelid = m.target AND a.attname = 'event_date' AND a.atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'model % has no column event_date of type date', m.name
            USING ERRCODE = '42703', HINT = 'Select it in the query: it says which date a row belongs to.';
    END IF;
    SELECT k AS name INTO wrong FROM unnest(m.key) AS k
     WHERE NOT EXISTS (SELECT FROM pg_attribute a
                        WHERE a.attrelid = m.target AND a.attname = k AND a.attnum > 0 AND NOT a.attisdropped
                          AND a.attgenerated = '') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'key of model % names column %, which its query does not fill', m.name,
            quote_ident(wrong.name) USING ERRCODE = '42703';
    END IF;
    SELECT a.name INTO wrong
      FROM unnest(described.relations) AS r JOIN tidemark_internal.models a ON a.target = r
     WHERE NOT EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE s.model = m.name AND s.source = r) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'query of model % reads model %, which is not among its sources', m.name, wrong.name
            USING ERRCODE = '42P17',
                  HINT = CASE WHEN wrong.name = m.name THEN 'A model must not read itself.'
                              ELSE format('Add %s to sources, so that its changes are followed.', wrong.name) END;
    ELSIF live AND described.unstable IS NOT NULL THEN
        RAISE EXCEPTION 'live view of model % would depend on the session that reads it: %', m.name, described.unstable
            USING ERRCODE = '42P17', HINT = described.hint;
    END IF;
    -- Postgres's own judgement of types, privileges and comparability of the key, as the owner of the table.
    PERFORM tidemark_internal.execute_as_owner(m.target,
                'EXPLAIN ' || tidemark_internal.model_statement(m, 'build'), '2000-01-01'),
            tidemark_internal.execute_as_owner(m.target,
                'EXPLAIN ' || tidemark_internal.model_statement(m, 'diff'), '2000-01-01');
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_model(text, boolean) IS
'Part of tidemark.create_model: raises an error unless the query and the key
of a registered model fit its table and its sources, and, if it is to have a
live view, unless its query means the same in every session.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.check_model(text, boolean) FROM PUBLIC;
