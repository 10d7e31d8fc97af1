-- Live views: the stored rows of clean dates and, computed now, those of stale dates. Exact under any snapshot, since
-- rows, marks and stored rows are seen by one query.

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
    -- Rows of other dates are left out here, which refresh and verify_model report as an error: a look at each row
    -- would keep what readers filter by from reaching the query.
    PERFORM tidemark_internal.execute_as_owner(m.target, format(
        'CREATE OR REPLACE VIEW %1$s AS
         SELECT %2$s FROM %3$s AS t
          WHERE t.event_date <> ALL ((SELECT tidemark.stale_dates(%4$L))::pg_catalog.date[])
         UNION ALL
         SELECT %5$s FROM pg_catalog.unnest((SELECT tidemark.stale_dates(%4$L))) AS tidemark_stale(stale_date)
          CROSS JOIN LATERAL (%6$s' || E'\n' || ') AS q WHERE q.event_date = tidemark_stale.stale_date',
        view_name, string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum), m.target, m.name,
        string_agg(format('CAST(q.%1$I AS %2$s) AS %1$I', a.attname, format_type(a.atttypid, a.atttypmod)), ', '
                   ORDER BY a.attnum),
        live_query))
      FROM pg_attribute a WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped;
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
