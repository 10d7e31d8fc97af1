-- Live views: the stored rows of clean dates and, computed now, those of stale dates. Exact under any snapshot, since
-- rows, marks and stored rows are seen by one query.
--
-- Of a scoped model, whose marks may concern some persons only, it computes their rows of these dates, and shows the
-- stored ones of the others. It must not tell its readers who they are, as a function would: in a view, too, it is its
-- reader who must be allowed to call it. Tables and views are read with the rights of the owner of the view around
-- them. So each such model has a view of its persons in tidemark_internal, for the owner of its table and nobody else.

CREATE FUNCTION tidemark_internal.rewrite_query(query text, first text, last text, schemas text[] DEFAULT '{}',
    tables text[] DEFAULT '{}', replacements text[] DEFAULT '{}') RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_rewrite_query';
COMMENT ON FUNCTION tidemark_internal.rewrite_query(text, text, text, text[], text[], text[]) IS
'Part of tidemark.create_model: the text of a query with its parameters and
tables replaced. $1 and $2 become the SQL expressions first and last (left
as they are if one of these is NULL), and each table schemas[i].tables[i]
becomes replacements[i], wherever Postgres''s own parser finds them; names in
strings, comments and CTEs stay. 22023 unless query is one SELECT, 42P02 for
a parameter other than $1 and $2, 0A000 where a table to be replaced stands
is sampled, or is written in a way that is not understood.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.rewrite_query(text, text, text, text[], text[], text[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.create_persons_view(m tidemark_internal.models) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    persons CONSTANT text := 'tidemark_internal.persons_' || md5(m.name);
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE VIEW %1$s AS
         SELECT COALESCE(pg_catalog.array_agg(DISTINCT p.id), ''{}'')::%3$s AS ids
           FROM (SELECT pg_catalog.unnest(tidemark_internal.known_ids(d.persons, %3$L))
                   FROM tidemark_internal.model_dirty AS d WHERE d.model = %2$L
                 UNION ALL
                 SELECT pg_catalog.unnest(tidemark_internal.known_ids(l.persons, %3$L))
                   FROM tidemark_internal.model_sources AS s
                   JOIN tidemark_internal.dirty_log AS l ON l.source = s.source
                  WHERE s.model = %2$L AND l.set_aside IS NULL AND l.passed IS NULL
                    AND (l.person_column IS NULL OR l.person_column = %4$L)) AS p(id)',
        persons, m.name, tidemark_internal.ids_type(m), m.scope_source);
    EXECUTE format('COMMENT ON VIEW %s IS %L', persons, format(
        'Persons of model %s whose rows wait for a recompute: for its live view, and no business of others.', m.name));
    EXECUTE format('COMMENT ON COLUMN %s.ids IS %L', persons, 'Who they are, each once.');
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', persons);
    EXECUTE format('GRANT SELECT ON %s TO %s', persons,
                   (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = m.target));
    RETURN persons;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_persons_view(tidemark_internal.models) IS
'Part of tidemark_internal.create_live_view: creates the view of the persons
of a scoped model who wait, for the owner of its table only.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.create_persons_view(tidemark_internal.models) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.drop_live_view(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = drop_live_view.model;
    UPDATE tidemark_internal.models x SET live_view = NULL WHERE x.name = m.name;
    IF EXISTS (SELECT FROM pg_class v, pg_class t WHERE v.oid = m.live_view AND t.oid = m.target) THEN
        PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP VIEW %s', m.live_view));
    END IF;
    EXECUTE format('DROP VIEW IF EXISTS tidemark_internal.persons_%s', md5(m.name));
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_live_view(text) IS
'Drops the live view of a model, and the view of its persons, if there are
any.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.drop_live_view(text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.create_live_view(model text) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    schema_name name;
    table_name name;
    view_name text;
    schemas text[] := '{}';
    tables text[] := '{}';
    replacements text[] := '{}';
    source record;
    live_query text;
    ids text;
    whole text := format('tidemark.stale_dates(%L)', create_live_view.model);
    partly CONSTANT text := format('tidemark_internal.stale_dates(%L, true)', create_live_view.model);
    stored text;
    computed text;
    -- What is computed of some dates: which columns, which dates, the query.
    of_dates CONSTANT text := 'UNION ALL SELECT %s FROM pg_catalog.unnest((SELECT %s)) AS tidemark_stale(stale_date) '
        'CROSS JOIN LATERAL (%s' || E'\n' || ') AS q WHERE q.event_date = tidemark_stale.stale_date';
    of_persons text;
    hidden text;
    step text;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = create_live_view.model;
    SELECT n.nspname, c.relname INTO schema_name, table_name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = m.target;
    IF octet_length(table_name) > 58 THEN
        RAISE EXCEPTION 'name % is too long for a live view', m.name
            USING ERRCODE = '42622', HINT = 'The name of the table and _live together must not exceed 63 bytes.';
    END IF;
    view_name := format('%I.%I', schema_name, table_name || '_live');
    IF to_regclass(view_name) IS NOT NULL AND to_regclass(view_name) IS DISTINCT FROM m.live_view THEN
        RAISE EXCEPTION 'relation % exists and is not the live view of model %', view_name, m.name
            USING ERRCODE = '42P07',
                  HINT = 'Rename it: live views have the name of the table with _live behind it.';
    END IF;
    FOR source IN
        SELECT n.nspname, c.relname, a.name, a.live_view
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models a ON a.target = s.source
          JOIN pg_class c ON c.oid = s.source
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE s.model = m.name
    LOOP
        IF source.live_view IS NULL THEN
            RAISE EXCEPTION 'model % reads model %, which has no live view', m.name, source.name
                USING ERRCODE = '55000', HINT = format('Create %s with live => true first.', source.name);
        END IF;
        schemas := schemas || source.nspname::text;
        tables := tables || source.relname::text;
        replacements := replacements || source.live_view::text;
    END LOOP;
    live_query := tidemark_internal.rewrite_query(m.query, 'tidemark_stale.stale_date',
        '(tidemark_stale.stale_date + 1)', schemas, tables, replacements);
    SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum),
           string_agg(format('CAST(q.%1$I AS %2$s) AS %1$I', a.attname, format_type(a.atttypid, a.atttypmod)), ', '
                      ORDER BY a.attnum)
      INTO stored, computed
      FROM pg_attribute a WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped;
    IF m.scope IS NOT NULL THEN
        ids := format('((SELECT tidemark_waiting.ids FROM %s AS tidemark_waiting)::%s)',
                      tidemark_internal.create_persons_view(m), tidemark_internal.ids_type(m));
        whole := format('tidemark_internal.stale_dates(%L, false)', m.name);
        of_persons := format('AND NOT (t.event_date = ANY ((SELECT %s)::pg_catalog.date[]) AND t.%I = ANY (%s)) %s',
            partly, m.scope, ids, format(of_dates, computed, partly, tidemark_internal.scope_query(
                m, '= ANY (' || ids || ')', 'tidemark_stale.stale_date', '(tidemark_stale.stale_date + 1)', true)));
    END IF;
    -- Rows of other dates are left out here, which refresh and verify_model report as an error: a look at each row
    -- would keep what readers filter by from reaching the query.
    PERFORM tidemark_internal.execute_as_owner(m.target, concat_ws(' ', format(
        'CREATE OR REPLACE VIEW %s AS SELECT %s FROM %s AS t
          WHERE t.event_date <> ALL ((SELECT %s)::pg_catalog.date[])', view_name, stored, m.target, whole),
        of_persons, format(of_dates, computed, whole, live_query)));
    UPDATE tidemark_internal.models x SET live_view = view_name::regclass WHERE x.name = m.name;

    -- A view between the query and a model would show the model's stored rows, stale ones too.
    WITH RECURSIVE reads(relation) AS (
        SELECT view_name::regclass
        UNION
        SELECT d.refobjid::regclass
          FROM reads r
          JOIN pg_rewrite w ON w.ev_class = r.relation
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                          AND d.refclassid = 'pg_class'::regclass
         WHERE r.relation = view_name::regclass
            OR NOT EXISTS (SELECT FROM tidemark_internal.models a WHERE a.live_view = r.relation))
    SELECT a.name INTO hidden
      FROM reads r JOIN tidemark_internal.models a ON a.target = r.relation WHERE a.target <> m.target LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'model % reads model % through a view', m.name, hidden
            USING ERRCODE = '0A000', HINT = 'A live view needs the table itself in the query, so that it can read its '
                'live view instead.';
    END IF;

    -- Described and readable like the table.
    FOR step IN
        SELECT format('COMMENT ON VIEW %s IS %L', view_name, concat_ws(' ',
                      replace(replace(obj_description(m.target, 'pg_class'), 'as of the last refresh',
                                      'exact at any moment'), 'As of the last refresh', 'Exact at any moment'),
                      format('Live view of model %s: its rows, and those of dates that wait for a refresh computed '
                             'while you read.', m.name)))
        UNION ALL
        SELECT format('COMMENT ON COLUMN %s.%I IS %L', view_name, a.attname, col_description(m.target, a.attnum))
          FROM pg_attribute a WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT format('GRANT SELECT ON %s TO %s%s', view_name, g.grantee, g.option)
          FROM pg_class c, aclexplode(c.relacl) AS x, LATERAL (SELECT
               CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee,
               CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' END AS option) AS g
         WHERE c.oid = m.target AND x.privilege_type = 'SELECT' AND x.grantee <> c.relowner
        UNION ALL
        SELECT format('GRANT SELECT (%I) ON %s TO %s%s', a.attname, view_name, g.grantee, g.option)
          FROM pg_attribute a, aclexplode(a.attacl) AS x, LATERAL (SELECT
               CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee,
               CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' END AS option) AS g
         WHERE a.attrelid = m.target AND NOT a.attisdropped AND x.privilege_type = 'SELECT'
    LOOP
        PERFORM tidemark_internal.execute_as_owner(m.target, step);
    END LOOP;
    RETURN view_name::regclass;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_live_view(text) IS
'Part of tidemark.create_model: creates or replaces the live view of a model,
owned by the owner of its table, and copies the table''s comments and SELECT
grants to it. 55000: a model that it reads has no live view; 0A000: it reads
a model through a view; 42P07: the name is taken.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.create_live_view(text) FROM PUBLIC;
