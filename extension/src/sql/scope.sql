-- Models whose rows are computed by person: whether a query may be, the query for some persons, and who of them matters
-- on a date. The analysis is models/scope.rs; when a refresh does so is in refresh.sql.

CREATE FUNCTION tidemark_internal.scope_problem(role oid, query text, source regclass, person text, scope text,
    dimension regclass DEFAULT NULL, id text DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'tidemark_scope_problem';
COMMENT ON FUNCTION tidemark_internal.scope_problem(oid, text, regclass, text, text, regclass, text) IS
'Why the rows that a query returns for a value of column scope may depend on
rows of its source with other values of column person, as a role sees it and
without running it. NULL: they do not. With dimension, a table without
dates: nor on rows of that one with other values of its column id. For the
owner of the extension only.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.scope_problem(oid, text, regclass, text, text, regclass, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.scope_needs_rows(role oid, query text, source regclass, person text, scope text)
RETURNS boolean
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'tidemark_scope_needs_rows';
COMMENT ON FUNCTION tidemark_internal.scope_needs_rows(oid, text, regclass, text, text) IS
'Whether event_date, as a query returns it for a value of column scope, is
that of a row of its source with this value: the column itself, or the least
or greatest of a group. Then who has no row on a date has no result on it.
False where tidemark_internal.scope_problem has a reason.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.scope_needs_rows(oid, text, regclass, text, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.ids_type(model tidemark_internal.models) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT format_type(a.atttypid, NULL) || '[]' FROM pg_attribute a
         WHERE a.attrelid = model.target AND a.attname = model.scope
           AND a.atttypid = ANY ('{text,varchar,uuid,integer,bigint}'::regtype[]));
COMMENT ON FUNCTION tidemark_internal.ids_type(tidemark_internal.models) IS
'Part of the statements of scoped models: the type of a list of persons. NULL
when the column has another one by now: that may run code of its owner.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.ids_type(tidemark_internal.models) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.among(relation regclass, person_column name, ids_type text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
-- Neither way shows the planner the array, whose elements it would all look up in the statistics of each partition.
RETURN format(CASE WHEN EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                                                                          AND a.attnum = i.indkey[0]
                                 WHERE i.indrelid = relation AND a.attname = person_column)
                   THEN '= ANY ((SELECT $3)::%s)' ELSE 'IN (SELECT pg_catalog.unnest($3::%s))' END, ids_type);
COMMENT ON FUNCTION tidemark_internal.among(regclass, name, text) IS
'Part of the statements of scoped models: what stands behind the column of a
table that is to be one of the persons ($3). Along an index if it has one.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.among(regclass, name, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.not_scoped(model tidemark_internal.models) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner CONSTANT oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = model.target);
    sources CONSTANT regclass[] := ARRAY(
        SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name);
    here record;
    there record;
BEGIN
    IF cardinality(sources) <> 1 THEN
        RETURN 'it has more than one source';
    END IF;
    SELECT a.atttypid, a.atttypmod, a.attcollation, a.attnotnull, o.collisdeterministic INTO here
      FROM pg_attribute a LEFT JOIN pg_collation o ON o.oid = a.attcollation
     WHERE a.attrelid = model.target AND a.attname = model.scope AND a.attnum > 0;
    SELECT a.atttypid, a.atttypmod, a.attcollation INTO there
      FROM pg_attribute a WHERE a.attrelid = sources[1] AND a.attname = model.scope_source AND a.attnum > 0;
    RETURN CASE
        WHEN here IS NULL THEN format('the table has no column %I', model.scope)
        WHEN there IS NULL THEN format('the source has no column %I', model.scope_source)
        WHEN NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = sources[1] AND a.attname = 'event_date'
                                                      AND a.atttypid = 'date'::regtype)
        THEN 'the source has no column event_date of type date'
        WHEN NOT here.attnotnull THEN format('column %I of the table is not declared NOT NULL', model.scope)
        WHEN (here.atttypid, here.attcollation) IS DISTINCT FROM (there.atttypid, there.attcollation)
             OR here.atttypmod NOT IN (-1, there.atttypmod)
        THEN 'the columns of table and source have not the same type and collation'
        WHEN here.atttypid <> ALL ('{text,varchar,uuid,integer,bigint}'::regtype[]::oid[])
        THEN 'the column is neither text, varchar, uuid, integer nor bigint'
        WHEN model.scope_since IS NOT NULL
             AND NOT EXISTS (SELECT FROM pg_attribute a
                              WHERE a.attrelid = model.target AND a.attname = model.scope_since AND a.attnotnull
                                AND a.atttypid = 'timestamptz'::regtype)
        THEN format('the table has no column %I of type timestamptz that is declared NOT NULL', model.scope_since)
        WHEN model.scope_since IS NOT NULL
             AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = sources[1] AND a.attname = 'event_time'
                                                          AND a.atttypid = 'timestamptz'::regtype)
        THEN 'scope_since needs a column event_time of type timestamptz in the source'
        WHEN NOT here.collisdeterministic THEN 'its collation finds different texts equal'
        ELSE tidemark_internal.scope_problem(owner, model.query, sources[1], model.scope_source, model.scope)
    END;
END
$$;
COMMENT ON FUNCTION tidemark_internal.not_scoped(tidemark_internal.models) IS
'Why the rows of a person cannot be computed without those of others: words
for an error message. NULL: they can.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.not_scoped(tidemark_internal.models) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.bounds(model tidemark_internal.models) RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 100
SET search_path = pg_catalog, pg_temp
RETURN (SELECT format('SELECT p.person, p.since FROM unnest(
                           ($3)[:pg_catalog.cardinality($3) / 2]::%s,
                           ($3)[pg_catalog.cardinality($3) / 2 + 1:]::timestamptz[]) AS p(person, since)',
                      tidemark_internal.ids_type(bounds.model))
         WHERE model.scope_since IS NOT NULL);
COMMENT ON FUNCTION tidemark_internal.bounds(tidemark_internal.models) IS
'Part of the statements of models with scope_since: the persons, and from
when on their rows are computed, both in $3, the times behind the persons.
NULL for other models, for which $3 is persons only.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.bounds(tidemark_internal.models) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.scope_query(model tidemark_internal.models, condition text DEFAULT NULL,
    first text DEFAULT NULL, last text DEFAULT NULL, live boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF model.scope IS NULL OR tidemark_internal.not_scoped(model) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT tidemark_internal.rewrite_query(model.query, first, last, ARRAY[n.nspname]::text[],
                ARRAY[c.relname]::text[], ARRAY[CASE
                WHEN condition IS NULL AND model.scope_since IS NOT NULL THEN format(
                    -- One person after the other, each from its own time on, by an index. OFFSET 0: without statistics
                    -- of today the planner would rather read and sort all of it.
                    '(SELECT tidemark_source.* FROM tidemark_bounds CROSS JOIN LATERAL (
                         SELECT x.* FROM %s AS x
                          WHERE x.%I = tidemark_bounds.person AND x.event_time >= tidemark_bounds.since
                            AND x.event_time >= ($1 - %s)::timestamp AT TIME ZONE ''UTC''
                            AND x.event_time < ($2 + %s)::timestamp AT TIME ZONE ''UTC'' OFFSET 0) AS tidemark_source)',
                    s.source, model.scope_source, model.lookback_days, model.lookahead_days)
                ELSE format(
                    '(SELECT tidemark_source.* FROM %s AS tidemark_source WHERE tidemark_source.%I %s)',
                    CASE WHEN live AND a.name IS NOT NULL THEN a.live_view ELSE s.source END, model.scope_source,
                    coalesce(condition, tidemark_internal.among(s.source, model.scope_source,
                                                                tidemark_internal.ids_type(scope_query.model)))) END])
              FROM tidemark_internal.model_sources s
              JOIN pg_class c ON c.oid = s.source
              JOIN pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN tidemark_internal.models a ON a.target = s.source
             WHERE s.model = model.name);
END
$$;
COMMENT ON FUNCTION tidemark_internal.scope_query(tidemark_internal.models, text, text, text, boolean) IS
'Part of tidemark.refresh and of live views: the query of a scoped model,
made to read only rows of some persons ($3, or whom the SQL condition behind
their column says), with scope_since from the times of tidemark_bounds on.
first and last as for tidemark_internal.rewrite_query;
live: from the live view of its source. NULL where that would not be the
same.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.scope_query(tidemark_internal.models, text, text, text, boolean)
  FROM PUBLIC;

CREATE FUNCTION tidemark_internal.present_statement(model tidemark_internal.models) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source CONSTANT regclass := (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name);
    present text[];
    bounds CONSTANT text := tidemark_internal.bounds(model);
    -- Only with scope_since event_date is known to be the UTC date of these.
    in_source CONSTANT text := CASE WHEN bounds IS NULL THEN '' ELSE
        ' AND s.event_time >= $1::timestamp AT TIME ZONE ''UTC'''
        ' AND s.event_time < $2::timestamp AT TIME ZONE ''UTC''' END;
BEGIN
    IF model.lookback_days + model.lookahead_days > 0
       AND tidemark_internal.scope_needs_rows((SELECT c.relowner FROM pg_class c WHERE c.oid = model.target),
                                              model.query, source, model.scope_source, model.scope) THEN
        present := ARRAY[format('EXISTS (SELECT FROM %s AS s WHERE s.event_date = $1', source) || in_source,
                         format('EXISTS (SELECT FROM %s AS t WHERE t.event_date = $1', model.target),
                         format(' AND s.%I = p.person', model.scope_source),
                         format(' AND t.%I = p.person', model.scope)];
    END IF;
    IF bounds IS NULL THEN
        RETURN format('SELECT array_agg(p.person) FROM unnest($3::%s) AS p(person) WHERE ',
                      tidemark_internal.ids_type(model))
               || present[1] || present[3] || ') OR ' || present[2] || present[4] || ')';
    END IF;
    RETURN format('SELECT array_agg(p.person::text) || array_agg(p.since::text)
                     FROM (SELECT b.person, coalesce((SELECT max(t.%1$I) FROM %2$s AS t
                                                       WHERE t.%3$I = b.person AND t.%1$I <= b.since),
                                                     ''-infinity'') AS since
                             FROM (%4$s) AS b OFFSET 0) AS p
                    WHERE p.since < $2::timestamp AT TIME ZONE ''UTC''',
                  model.scope_since, model.target, model.scope, bounds)
           -- Whether there is anybody is asked once; and who has a stored row here is here.
           || coalesce(' AND (SELECT ' || present[1] || ') OR ' || present[2] || ')) AND ('
                       || 'p.since >= $1::timestamp AT TIME ZONE ''UTC'' OR '
                       || present[1] || present[3] || ' AND s.event_time >= p.since) OR '
                       || present[2] || present[4] || format(' AND t.%I >= p.since))', model.scope_since), '');
END
$$;
COMMENT ON FUNCTION tidemark_internal.present_statement(tidemark_internal.models) IS
'Part of tidemark.refresh: the statement that says which of some persons
($3) have rows of the source or of the model on a date ($1). On the dates
around those that changed they are the only ones whose rows may change. NULL
where all must be looked at: the model reads no such dates, or may have
results for who has no rows. With scope_since $3 is persons and, behind
them, from when on their rows changed; what comes out is persons and the
times from which on their rows are computed: the last that is stored before.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.present_statement(tidemark_internal.models) FROM PUBLIC;
