-- Additions: the rows that a source gained since a model was refreshed, and models that only compute what comes of
-- them. Which transactions added them, and how many, the marks say (marks.sql); when this way is taken, refresh.sql.

CREATE FUNCTION tidemark_internal.knows_transactions(relation regclass) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
RETURN NOT EXISTS (
    WITH RECURSIVE tree(relid) AS (
        SELECT relation::oid
        UNION
        SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.relid)
    SELECT FROM tree JOIN pg_class c ON c.oid = tree.relid
     WHERE c.relkind <> 'p'
       AND (c.relkind <> 'r' OR c.relam <> (SELECT a.oid FROM pg_am a WHERE a.amname = 'heap')));
COMMENT ON FUNCTION tidemark_internal.knows_transactions(regclass) IS
'Whether the rows of a table say which transaction added them, as those of
heaps do: other tables may not know that, nor may their children.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.knows_transactions(regclass) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.added_rows(from_row tid) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN concat('tidemark_source.xmin = ANY ($3::pg_catalog.xid[])',
              ' AND tidemark_source.ctid >= ' || quote_literal(from_row::text) || '::pg_catalog.tid');
COMMENT ON FUNCTION tidemark_internal.added_rows(tid) IS
'Part of the statements of models: what is true of rows of the source that
these transactions ($3) added, looked for from a place on, or everywhere for
NULL.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.added_rows(tid) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.append_query(model tidemark_internal.models, from_row tid DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner CONSTANT oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = model.target);
    source record;
    described record;
    same_key text;
    rewritten text;
BEGIN
    SELECT s.source, n.nspname, c.relname INTO source
      FROM tidemark_internal.model_sources s
      JOIN pg_class c ON c.oid = s.source
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE s.model = model.name AND has_table_privilege(owner, c.oid, 'SELECT');
    IF NOT FOUND OR (SELECT count(*) FROM tidemark_internal.model_sources s WHERE s.model = model.name) <> 1 THEN
        RETURN NULL;
    END IF;
    described := tidemark_internal.describe_query(owner, model.query);
    IF described.copied IS NULL OR described.relations IS DISTINCT FROM ARRAY[source.source::oid] THEN
        RETURN NULL;
    END IF;
    -- Of a key whose columns, but for the date, are the source's own, the rows that are stored already can be told
    -- before anything is computed.
    SELECT string_agg('tidemark_stored.' || quote_ident(k.name) || ' = tidemark_source.' || quote_ident(o.copied),
                      ' AND ' ORDER BY k.n)
      INTO same_key
      FROM unnest(model.key) WITH ORDINALITY AS k(name, n)
      LEFT JOIN unnest(described.columns, described.copied) AS o(name, copied) ON o.name = k.name
      LEFT JOIN pg_attribute t ON t.attrelid = model.target AND t.attname = k.name
      LEFT JOIN pg_attribute s ON s.attrelid = source.source AND s.attname = o.copied
     WHERE k.name <> 'event_date'
    -- Only types of Postgres itself, and enums: the = of another one need not be the one that its indexes use.
    HAVING bool_and(coalesce(t.atttypid = s.atttypid AND t.atttypmod IN (-1, s.atttypmod)
                             AND t.attcollation = s.attcollation
                             AND (t.atttypid < 16384
                                  OR EXISTS (SELECT FROM pg_type y WHERE y.oid = t.atttypid AND y.typtype = 'e')),
                             false));
    IF same_key IS NULL THEN
        RETURN NULL;
    END IF;
    IF NOT tidemark_internal.knows_transactions(source.source) THEN
        RETURN NULL;
    END IF;
    -- Most of them are not stored yet; the last refresh may have seen some whose mark came after it.
    rewritten := tidemark_internal.rewrite_query(model.query, NULL, NULL, ARRAY[source.nspname]::text[],
        ARRAY[source.relname]::text[], ARRAY[format(
            '(SELECT tidemark_source.* FROM %s AS tidemark_source WHERE %s AND NOT EXISTS ('
            'SELECT FROM %s AS tidemark_stored WHERE tidemark_stored.event_date = $1 AND %s))',
            source.source, tidemark_internal.added_rows(from_row), model.target, same_key)]);
    RETURN nullif(rewritten, tidemark_internal.rewrite_query(model.query, NULL, NULL));
END
$$;
COMMENT ON FUNCTION tidemark_internal.append_query(tidemark_internal.models, tid) IS
'Part of tidemark.refresh: the query of a model, made to read only those rows
of its source that some transactions added ($3, and from_row, see
tidemark_internal.added_rows), and for which no row of the date ($1) is
stored. NULL for a model that must be recomputed even if its source only
gained rows: each of its rows must come from one row
(tidemark_internal.describe_query), it must have one source, a heap named in
the query itself, and its key must be columns of the source, unchanged, with
or without event_date.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.append_query(tidemark_internal.models, tid) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.find_added(model tidemark_internal.models, event_date date, added_by text[],
    added bigint, INOUT from_row tid, OUT complete boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    expected CONSTANT tid := from_row;
    here json;
BEGIN
    -- First where they should be: behind those that came before. A table fills gaps, too.
    FOREACH from_row IN ARRAY CASE WHEN from_row IS NULL THEN '{NULL}' ELSE ARRAY[from_row, NULL] END LOOP
        here := tidemark_internal.execute_as_owner(model.target, format(
            'SELECT json_build_object(''rows'', count(*), ''first'', min(tidemark_source.ctid))
               FROM %s AS tidemark_source WHERE tidemark_source.event_date = $1 AND %s',
            (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name),
            tidemark_internal.added_rows(from_row)), event_date, added_by)::json;
        complete := (here ->> 'rows')::bigint = added;
        IF complete OR added IS NULL AND from_row IS NULL THEN
            from_row := coalesce((here ->> 'first')::tid, expected);
            RETURN;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.find_added(tidemark_internal.models, date, text[], bigint, tid) IS
'Part of tidemark.refresh: whether the only source of a model holds as many
rows of a date as marks say that these transactions added to it (NULL: they
do not say), and where the first of them is, as a place to look from.
from_row: where to look first.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.find_added(tidemark_internal.models, date, text[], bigint, tid)
  FROM PUBLIC;
