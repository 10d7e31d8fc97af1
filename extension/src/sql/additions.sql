-- Additions: the rows that a source gained since a model was refreshed, and models that only compute what comes of
-- them: new rows (append), or groups that are put together with the stored ones (merge). Which transactions added them,
-- and how many, the marks say (marks.sql); when this way is taken, refresh.sql.
--
-- Nothing is merged twice and nothing left out: a mark is taken once, in the transaction that merges its rows, and only
-- if they are as many as it says; and of its rows those that the last recompute of the date saw already, before their
-- mark was taken, are passed over (model_dates.seen). Unmarked changes show in the number of rows: what the source held
-- then and what was merged since is what it holds now, but for rows whose marks wait.

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

CREATE FUNCTION tidemark_internal.keep_places(source regclass, event_date date, added_by text[], places tid[])
RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_keep_places';
COMMENT ON FUNCTION tidemark_internal.keep_places(regclass, date, text[], tid[]) IS
'Part of tidemark.refresh: remembers in this session where the rows are that
some transactions added to a date of a source.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.keep_places(regclass, date, text[], tid[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.places(source regclass, event_date date, added_by text[]) RETURNS tid[]
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'tidemark_places';
COMMENT ON FUNCTION tidemark_internal.places(regclass, date, text[]) IS
'Part of the statements of models: what tidemark_internal.keep_places
remembers. NULL if it does not.';

CREATE FUNCTION tidemark_internal.added_query(model tidemark_internal.models, OUT way text, OUT query text,
    OUT merges text[])
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner CONSTANT oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = model.target);
    source record;
    described record;
    same_key text;
    fits boolean;
BEGIN
    SELECT s.source, n.nspname, c.relname INTO source
      FROM tidemark_internal.model_sources s
      JOIN pg_class c ON c.oid = s.source
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE s.model = model.name AND has_table_privilege(owner, c.oid, 'SELECT');
    IF NOT FOUND OR (SELECT count(*) FROM tidemark_internal.model_sources s WHERE s.model = model.name) <> 1 THEN
        RETURN;
    END IF;
    described := tidemark_internal.describe_query(owner, model.query);
    IF described.relations IS DISTINCT FROM ARRAY[source.source::oid]
       OR NOT tidemark_internal.knows_transactions(source.source) THEN
        RETURN;
    END IF;
    -- Only types of Postgres itself, and enums: the = of another one need not be the one that its indexes use.
    IF described.copied IS NOT NULL THEN
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
        HAVING bool_and(coalesce(t.atttypid = s.atttypid AND t.atttypmod IN (-1, s.atttypmod)
                                 AND t.attcollation = s.attcollation
                                 AND (t.atttypid < 16384
                                      OR EXISTS (SELECT FROM pg_type y WHERE y.oid = t.atttypid AND y.typtype = 'e')),
                                 false));
        -- The last recompute may have seen some whose mark came after it. It saw none of transactions that began later.
        same_key := format('((SELECT bool_and(tidemark_internal.unseen(x.id::pg_catalog.xid,'
                           '                                           tidemark_internal.seen(%L, $1)))'
                           '    FROM pg_catalog.unnest($3) AS x(id))'
                           ' OR NOT EXISTS (SELECT FROM %s AS tidemark_stored WHERE tidemark_stored.event_date = $1'
                           '                   AND ', model.name, model.target) || same_key || '))';
        way := 'append';
    ELSIF described.merges IS NOT NULL AND model.lookback_days + model.lookahead_days = 0 THEN
        -- What is stored must be all of what the query said, and a group must be one row, found by its key.
        SELECT array_agg(o.how ORDER BY t.attnum),
               bool_and(CASE WHEN o.how = 'key'
                             THEN t.attname = ANY (model.key) AND coalesce(l.collisdeterministic, true)
                                  AND (t.atttypmod = -1 OR t.atttypid = 'varchar'::regtype)
                                  AND (t.atttypid = ANY ('{bool,bytea,date,int2,int4,int8,text,time,timestamp,
                                                           timestamptz,uuid,varchar}'::regtype[])
                                       OR EXISTS (SELECT FROM pg_type y WHERE y.oid = t.atttypid AND y.typtype = 'e'))
                             ELSE NOT t.attname = ANY (model.key) AND t.atttypmod = -1 END
                        AND coalesce(o.type = t.atttypid, false))
          INTO merges, fits
          FROM pg_attribute t
          LEFT JOIN pg_collation l ON l.oid = t.attcollation
          LEFT JOIN unnest(described.columns, described.types, described.merges) AS o(name, type, how)
            ON o.name = t.attname
         WHERE t.attrelid = model.target AND t.attnum > 0 AND NOT t.attisdropped AND t.attgenerated = '';
        same_key := CASE WHEN fits THEN format(
            'tidemark_internal.unseen(tidemark_source.xmin, (SELECT tidemark_internal.seen(%L, $1)))', model.name) END;
        way := 'merge';
    END IF;
    IF same_key IS NOT NULL THEN
        query := tidemark_internal.rewrite_query(model.query, NULL, NULL, ARRAY[source.nspname]::text[],
            ARRAY[source.relname]::text[], ARRAY[format(
                '(SELECT tidemark_source.* FROM %s AS tidemark_source'
                '  WHERE tidemark_source.ctid = ANY ((SELECT tidemark_internal.places(%s, $1, $3))::pg_catalog.tid[])'
                '    AND tidemark_source.xmin = ANY ($3::pg_catalog.xid[]) AND %s)',
                source.source, source.source::oid, same_key)]);
    END IF;
    IF query IS NOT DISTINCT FROM tidemark_internal.rewrite_query(model.query, NULL, NULL) OR query IS NULL THEN
        way := NULL;
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.added_query(tidemark_internal.models) IS
'Part of tidemark.refresh: the query of a model, made to read only those rows
of its source that some transactions added ($3), of which the places are
known, and that are not in the rows of the date ($1) yet. way: append, if
each row comes from one row and its key is columns of the source, with or
without event_date; merge, if rows are groups that can be put together
(merges: how, for each column of the table); NULL for a model that must be
recomputed even if its source only gained rows. It must have one source, a
heap named in the query itself.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.added_query(tidemark_internal.models) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.counted_query(model tidemark_internal.models) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT tidemark_internal.rewrite_query(model.query, NULL, NULL, ARRAY[n.nspname]::text[],
            ARRAY[c.relname]::text[], ARRAY[format(
                '(SELECT tidemark_source.* FROM %1$s AS tidemark_source
                   WHERE NOT tidemark_source.xmin = ANY ((SELECT coalesce(
                         tidemark_internal.not_seen(w.added_by, tidemark_internal.seen(%2$L, $1)), w.added_by)
                    FROM tidemark_internal.waiting_additions(%2$L, $1) AS w(added_by))::pg_catalog.xid[]))',
                s.source, model.name)])
          FROM tidemark_internal.model_sources s
          JOIN pg_class c ON c.oid = s.source
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE s.model = model.name);
END
$$;
COMMENT ON FUNCTION tidemark_internal.counted_query(tidemark_internal.models) IS
'Part of tidemark.refresh: the query of a model that appends, made to read
only what its stored rows come of: not what transactions added whose marks
wait, but for those that the last recompute of the date saw.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.counted_query(tidemark_internal.models) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.pending(model text, event_date date) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 100
SET search_path = pg_catalog, pg_temp
RETURN (SELECT CASE WHEN count(*) = count(p.added) THEN coalesce(sum(p.added), 0)::bigint END
          FROM (SELECT CASE WHEN d.added_by IS NOT NULL THEN d.added END AS added
                  FROM tidemark_internal.model_dirty d
                 WHERE d.model = pending.model AND (d.event_date = pending.event_date OR d.event_date IS NULL)
                UNION ALL
                SELECT CASE WHEN l.added_by IS NOT NULL AND l.passed IS NULL THEN l.added END
                  FROM tidemark_internal.model_sources s
                  JOIN tidemark_internal.models m ON m.name = s.model
                  JOIN tidemark_internal.dirty_log l ON l.source = s.source
                 WHERE m.name = pending.model AND (l.event_date = pending.event_date OR l.event_date IS NULL)
                   AND l.set_aside IS NULL
                   AND (l.passed IS NULL OR NOT pg_visible_in_snapshot(m.defined_by, l.passed))) AS p);
COMMENT ON FUNCTION tidemark_internal.pending(text, date) IS
'How many rows of a date were added to the sources of a model whose marks no
refresh has taken yet, as the calling query sees it. NULL when they do not
say so, or not only that.';

CREATE FUNCTION tidemark_internal.source_state(model tidemark_internal.models, event_date date, counted boolean)
RETURNS json
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (tidemark_internal.added_query(model)).way IS DISTINCT FROM 'merge' THEN
        RETURN NULL;
    END IF;
    RETURN tidemark_internal.execute_as_owner(model.target, format(
        'SELECT json_build_object(''rows'', CASE WHEN %L
                                      THEN (SELECT count(*) FROM %s AS s WHERE s.event_date = $1) - p.n END,
                                  ''seen'', CASE p.n WHEN 0 THEN tidemark_internal.current_seen() END)
           FROM (SELECT tidemark_internal.pending(%L, $1) AS n OFFSET 0) AS p',
        counted, (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name), model.name),
        event_date);
EXCEPTION WHEN OTHERS THEN
    -- The owner may read less of the source than all its rows: a recompute goes without.
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.source_state(tidemark_internal.models, date, boolean) IS
'Part of tidemark.refresh: how many rows of a date the only source of a model
holds but for those of which marks wait, unless they are not counted. And if
none waits, which transactions are seen: what is stored then comes of all of
them. NULL where that is not known, or the model cannot merge (any more).';
REVOKE EXECUTE ON FUNCTION tidemark_internal.source_state(tidemark_internal.models, date, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.rows_added(relation oid, added_by text[], first_row tid, most integer) RETURNS tid[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 AS 'MODULE_PATHNAME', 'tidemark_rows_added';
COMMENT ON FUNCTION tidemark_internal.rows_added(oid, text[], tid, integer) IS
'Part of tidemark_internal.find_added: where a heap has rows, living or dead,
that some transactions added; about most places at most. From the page of
first_row on, or, if it is NULL, on the pages that were written since the
last vacuum. Empty for a table that somebody locks, or no heap.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.rows_added(oid, text[], tid, integer) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.find_added(model tidemark_internal.models, event_date date, added_by text[],
    added bigint, INOUT last_row tid, OUT complete boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Beyond that, to compute the date is no more work.
    most CONSTANT integer := 1000000;
    source CONSTANT regclass := (SELECT s.source FROM tidemark_internal.model_sources s WHERE s.model = model.name);
    look CONSTANT text := format('SELECT coalesce(array_agg(s.ctid), ''{}'') FROM (SELECT x.ctid FROM %s AS x
        WHERE x.event_date = $1 AND x.xmin = ANY ($3::xid[])', source);
    places tid[] := tidemark_internal.places(source, event_date, added_by);
    holder oid := source;
    first tid := last_row;
BEGIN
    IF cardinality(places) = added IS NOT TRUE THEN
        IF (SELECT c.relkind FROM pg_class c WHERE c.oid = source) = 'p' THEN
            holder := tidemark_internal.execute_as_owner(model.target,
                format('SELECT x.tableoid FROM %s AS x WHERE x.event_date = $1 LIMIT 1', source), event_date)::oid;
        END IF;
        -- First behind those that came before, then where a vacuum left gaps, and only then everywhere.
        LOOP
            places := tidemark_internal.rows_added(holder, added_by, first, most);
            PERFORM tidemark_internal.keep_places(source, event_date, added_by, places);
            places := tidemark_internal.execute_as_owner(model.target, look || format(
                ' AND x.ctid = ANY ((SELECT tidemark_internal.places(%s, $1, $3))::tid[])) AS s', source::oid),
                event_date, added_by);
            EXIT WHEN cardinality(places) = added OR first IS NULL;
            first := NULL;
        END LOOP;
        IF cardinality(places) = added IS NOT TRUE THEN
            places := tidemark_internal.execute_as_owner(model.target, look || format(' LIMIT %s) AS s', most + 1),
                                                         event_date, added_by);
        END IF;
        PERFORM tidemark_internal.keep_places(source, event_date, added_by, places);
    END IF;
    complete := CASE WHEN cardinality(places) > most THEN false ELSE cardinality(places) = added END;
    last_row := coalesce((SELECT max(p) FROM unnest(places) AS p), last_row);
END
$$;
COMMENT ON FUNCTION tidemark_internal.find_added(tidemark_internal.models, date, text[], bigint, tid) IS
'Part of tidemark.refresh: finds the rows that transactions added to a date
of the only source of a model. Keeps their places for the statements
(tidemark_internal.keep_places). complete: they are as many as marks say;
NULL if these do not say, false for more than a million. last_row: where
those that come next are looked for first.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.find_added(tidemark_internal.models, date, text[], bigint, tid)
  FROM PUBLIC;
