-- Recomputing dates of models by minimal diff, and checking stored dates against a recompute.
--
-- One statement computes the rows of a date, compares them byte by byte with the stored ones and writes only what
-- differs, all under one snapshot. It runs as the owner of the model's table. The statements are put together in
-- models/statement.rs; the procedure tidemark.refresh, which calls the steps, is models/refresh.rs.

CREATE FUNCTION tidemark_internal.execute_as_owner(relation regclass, statement text, event_date date DEFAULT NULL,
    persons text[] DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_execute_as_owner';
COMMENT ON FUNCTION tidemark_internal.execute_as_owner(regclass, text, date, text[]) IS
'Runs a statement as the owner of a relation, in a security-restricted
operation and under fixed settings (UTC, ISO), with event_date as $1, the
day after as $2, persons as $3. NULL where they are not given. Returns the
first column of the first row as text, or the number of rows written by a
statement that returns none. For the extension''s owner only: who may is
asked before.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.execute_as_owner(regclass, text, date, text[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.read_as_owner(relation regclass, statement text, event_date date DEFAULT NULL,
    persons text[] DEFAULT NULL) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED COST 100000 AS 'MODULE_PATHNAME', 'tidemark_read_as_owner';
COMMENT ON FUNCTION tidemark_internal.read_as_owner(regclass, text, date, text[]) IS
'Like tidemark_internal.execute_as_owner for a statement that only reads,
under the snapshot of the calling query.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.read_as_owner(regclass, text, date, text[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.execute_for_persons(relation regclass, statement text, event_date date,
    persons text[]) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
-- A bitmap that has no room for each row looks for the persons of a page's rows in the whole list, one by one.
SET enable_bitmapscan = off
SET work_mem = '64MB'  -- what they read is sorted
AS $$
BEGIN
    RETURN tidemark_internal.execute_as_owner(relation, statement, event_date, persons);
END
$$;
COMMENT ON FUNCTION tidemark_internal.execute_for_persons(regclass, text, date, text[]) IS
'As tidemark_internal.execute_as_owner, for statements that look up many
persons along an index.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.execute_for_persons(regclass, text, date, text[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.execute_as(role oid, statement text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_execute_as';
COMMENT ON FUNCTION tidemark_internal.execute_as(oid, text) IS
'As tidemark_internal.execute_as_owner, with the rights of a role.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.execute_as(oid, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.execute_contained(statement text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_execute_contained';
COMMENT ON FUNCTION tidemark_internal.execute_contained(text) IS
'Runs a statement as the caller. EXCEPTION WHEN OTHERS catches what users''
code raises in it, 57014 and P0004 included; a cancel is still one.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.execute_contained(text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.describe_query(role oid, query text,
    OUT columns text[], OUT types oid[], OUT copied text[], OUT merges text[], OUT relations oid[], OUT unstable text,
    OUT hint text)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'tidemark_describe_query';
COMMENT ON FUNCTION tidemark_internal.describe_query(oid, text) IS
'What Postgres knows of a query with two parameters of type date, as a role
sees it, without running it. columns and types; copied: the columns of its
table that it passes on unchanged, NULL where it computes something;
merges: for each column key (it groups by it), sum, least, greatest, or the
type of sketch whose union two values become; relations: tables and views
that it reads, those below views included; unstable: what in it depends on
settings of the session, with a hint. copied is NULL altogether unless each
row comes from one row of one table (no aggregate, window function,
DISTINCT, GROUP BY, LIMIT, join, view, WITH, set operation, reference to a
whole row, volatile function, or stable function of a user), merges unless
each comes from a group of such rows. For the extension''s owner only.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.describe_query(oid, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.columns_read(role oid, query text, source regclass) RETURNS smallint[]
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'tidemark_columns_read';
COMMENT ON FUNCTION tidemark_internal.columns_read(oid, text, regclass) IS
'The numbers of the columns of a table that a query reads, as a role sees
it, without running it; 0 among them: its rows as a whole. {}: it reads
none. For the extension''s owner only.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.columns_read(oid, text, regclass) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.of_date(event_date date, wanted date, VARIADIC key "any") RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_of_date';
COMMENT ON FUNCTION tidemark_internal.of_date(date, date, "any") IS
'Part of the statements of models: true if both dates are the same, an error
otherwise (44000), which shows the key of the row. NULL is no date.';

CREATE FUNCTION tidemark_internal.statement_text(kind text, target text, columns text[], types text[], key text[],
    query text, part text, merges text[], scope text, hashed text, bounds text, touched text, since boolean)
RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_statement_text';
COMMENT ON FUNCTION tidemark_internal.statement_text(text, text, text[], text[], text[], text, text, text[], text,
    text, text, text, boolean) IS
'Part of tidemark_internal.model_statement: puts the text together. part is
the query for a part of the date, for append, merge and scope; merges how
two values of each column become one; scope what is true of a stored row of
these persons, hashed the same for many rows without an index; bounds who
they are and from when on their rows are computed, or NULL; touched a column
of which the values in rows that were written are returned, or NULL, with
since together with the earliest event_time of each.
22023 for an unknown kind.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.statement_text(text, text, text[], text[], text[], text, text, text[],
    text, text, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.horizon_age(model text, event_date date) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT age(d.horizon::xid) FROM tidemark_internal.model_dates d
         WHERE d.model = horizon_age.model AND d.event_date = horizon_age.event_date
           AND d.cluster = (SELECT c.system_identifier FROM pg_control_system() c)
           AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - d.horizon::text::bigint
               BETWEEN 0 AND 2000000000);
COMMENT ON FUNCTION tidemark_internal.horizon_age(text, date) IS
'Part of tidemark.refresh: how many transactions ago the last refresh of a
date of a model began, as age(xid) counts: what is older was seen by it.
NULL when that is not known: never, in another cluster, too long ago.';

CREATE FUNCTION tidemark_internal.model_statement(model tidemark_internal.models, kind text, touched name DEFAULT NULL,
    since boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text[];
    types text[];
    ids_type CONSTANT text := tidemark_internal.ids_type(model);
    bounds CONSTANT text := CASE kind WHEN 'scope' THEN tidemark_internal.bounds(model) END;
    part text := tidemark_internal.timeline_statement(model.name, kind);
    way text;
    merges text[];
BEGIN
    IF part IS NOT NULL THEN
        RETURN part;
    END IF;
    IF kind IN ('append', 'append and count', 'merge') THEN
        SELECT a.way, a.query, a.merges INTO way, part, merges FROM tidemark_internal.added_query(model) AS a;
        part := CASE WHEN kind LIKE way || '%' THEN part END;
    ELSIF kind = 'scope' THEN
        part := tidemark_internal.scope_query(model);
    END IF;
    IF kind IN ('append', 'append and count', 'merge', 'scope') AND part IS NULL THEN
        RETURN NULL;
    END IF;
    -- A cast to varchar(n) would cut in silence.
    SELECT array_agg(a.attname ORDER BY a.attnum),
           array_agg(format_type(a.atttypid, CASE WHEN a.atttypid = 'varchar'::regtype THEN -1 ELSE a.atttypmod END)
                     ORDER BY a.attnum)
      INTO columns, types
      FROM pg_attribute a
     WHERE a.attrelid = model.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    RETURN tidemark_internal.statement_text(kind, model.target::text, columns, types, model.key::text[],
        CASE kind WHEN 'append and count' THEN tidemark_internal.counted_query(model) ELSE model.query END,
        part, merges,
        CASE WHEN bounds IS NULL
             THEN quote_ident(model.scope) || ' ' || tidemark_internal.among(model.target, model.scope, ids_type)
             ELSE format('t.%I = tidemark_bounds.person AND t.%I >= tidemark_bounds.since', model.scope,
                         model.scope_since) END,
        CASE WHEN bounds IS NULL THEN quote_ident(model.scope) || ' ' || tidemark_internal.among(NULL, NULL, ids_type)
             ELSE quote_ident(model.scope) || ' IN (SELECT b.person FROM tidemark_bounds AS b)' END,
        bounds, touched, since);
END
$$;
COMMENT ON FUNCTION tidemark_internal.model_statement(tidemark_internal.models, text, name, boolean) IS
'Part of tidemark.refresh and tidemark.verify_model: the statement that works
on one date ($1, and the day after as $2) of a model. kind: build inserts
it, fill is the same without INSERT INTO and the table, built looks for a
doubled or NULL key afterwards, append adds what comes of the rows that some
transactions ($3) added to the source, append and count compares the numbers
of all rows as well, merge puts what comes of them together with the stored
rows, scope brings those of some persons ($3) in line (each NULL for models
that cannot do so), diff those of all, compare only says how they differ.
touched: a column of which the values in the rows that were written are
returned, with since together with the earliest event_time of each. Useful
to EXPLAIN.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.model_statement(tidemark_internal.models, text, name, boolean)
  FROM PUBLIC;

CREATE FUNCTION tidemark_internal.refresh_date(model tidemark_internal.models, event_date date, added_by text[],
    added bigint, persons text[], since timestamptz[], touched name, timed boolean, OUT inserted bigint,
    OUT updated bigint, OUT deleted bigint, OUT rows bigint, OUT way text, OUT written text[],
    OUT written_since timestamptz[], OUT written_by xid, OUT last_row tid, OUT counted boolean,
    OUT count_seconds float8, OUT seen bytea, OUT source_rows bigint, OUT computed_persons integer)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET jit = off  -- a plan per date: compiling it costs more than it gains
AS $$
DECLARE
    wrong text;
    elsewhere bigint := 0;
    result json;
    unseen CONSTANT boolean := NOT EXISTS (
        SELECT FROM pg_trigger t
         WHERE NOT t.tgisinternal
           AND t.tgrelid IN (SELECT model.target UNION ALL
                             SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = model.target));
    filled boolean := false;
    stored CONSTANT text := format('SELECT count(*) FROM %s WHERE event_date = $1', model.target);
    known tidemark_internal.model_dates;
    looked record;
    state json;
    statement text;
    moment CONSTANT float8 := CASE WHEN 'append' = ANY (model.ways) THEN 0.1 ELSE 0.02 END;
    due boolean;
    began timestamptz;
BEGIN
    SELECT * INTO known FROM tidemark_internal.model_dates d
     WHERE d.model = model.name AND d.event_date = refresh_date.event_date;
    -- Whoever changed rows without a mark is found out by counting all of them: each time where that is done in a
    -- moment, and else so rarely that it takes a hundredth of the time, all dates of the model together.
    due := coalesce(known.count_seconds <= moment, false) OR NOT EXISTS (
        SELECT FROM tidemark_internal.model_dates d
         WHERE d.model = model.name AND d.count_seconds > moment
           AND clock_timestamp() < d.counted_at + d.count_seconds * interval '100 seconds');
    counted := true;
    IF isfinite(event_date) AND EXISTS (
        SELECT FROM pg_partitioned_table p JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
         WHERE p.partrelid = model.target AND p.partstrat = 'r' AND p.partnatts = 1
           AND a.atttypid = 'timestamptz'::regtype) THEN
        -- A partition that is made is filled before it has indexes: they are built in far less time than they are kept
        -- up. Not behind the back of triggers.
        filled := tidemark_internal.execute_as_owner(model.target,
            format('SELECT cardinality(tidemark_internal.create_partitions(%L, ARRAY[$1], %L)) > 0', model.target::text,
                   CASE WHEN unseen THEN tidemark_internal.model_statement(model, 'fill') END),
            event_date)::boolean AND unseen;
    END IF;
    -- Less than the whole date: not over a change of columns, which may have changed stored rows or what the query
    -- makes of old ones.
    IF NOT filled AND (added_by IS NOT NULL OR persons IS NOT NULL)
       AND (SELECT max(age(a.xmin)) IS NOT NULL
               AND min(age(a.xmin)) > tidemark_internal.horizon_age(model.name, refresh_date.event_date)
              FROM pg_attribute a
             WHERE a.attrelid = ANY (ARRAY(SELECT s.source FROM tidemark_internal.model_sources s
                                            WHERE s.model = model.name) || model.target))
    THEN
        FOREACH way IN ARRAY CASE WHEN added_by IS NOT NULL THEN '{append}'::text[] ELSE '{}' END
                             || CASE WHEN added_by IS NOT NULL AND unseen
                                      AND tidemark_internal.seen(model.name, refresh_date.event_date) IS NOT NULL
                                     THEN '{merge}'::text[] ELSE '{}' END
                             || CASE WHEN persons IS NOT NULL AND unseen THEN '{scope}'::text[] ELSE '{}' END LOOP
            CONTINUE WHEN NOT way = ANY (model.ways);
            BEGIN
                counted := due;
                began := clock_timestamp();
                -- Rows that somebody deleted or added by hand are not those of some persons or groups only.
                CONTINUE WHEN way <> 'append' AND due AND known.rows IS DISTINCT FROM
                    tidemark_internal.execute_as_owner(model.target, stored, event_date)::bigint;
                count_seconds := extract(epoch FROM clock_timestamp() - began);
                IF way = 'scope' THEN
                    statement := tidemark_internal.present_statement(model);
                    IF model.scope_since IS NOT NULL THEN
                        persons := persons || coalesce(since::text[],
                                                       array_fill('-infinity'::text, ARRAY[cardinality(persons)]));
                    END IF;
                    IF statement IS NOT NULL THEN
                        persons := coalesce(tidemark_internal.execute_for_persons(model.target, statement, event_date,
                                                                                  persons)::text[], '{}');
                    END IF;
                    statement := tidemark_internal.model_statement(model, way, touched, timed);
                ELSE
                    looked := tidemark_internal.find_added(model, event_date, added_by, added, known.last_row);
                    CONTINUE WHEN NOT looked.complete OR way = 'merge' AND looked.complete IS NULL;
                    last_row := looked.last_row;
                    counted := due OR looked.complete IS NULL;
                    statement := tidemark_internal.model_statement(
                        model, way || CASE WHEN counted AND way = 'append' THEN ' and count' ELSE '' END, touched,
                        timed);
                END IF;
                CONTINUE WHEN statement IS NULL;
                began := clock_timestamp();
                computed_persons := CASE way WHEN 'scope' THEN
                    cardinality(persons) / CASE WHEN model.scope_since IS NULL THEN 1 ELSE 2 END END;
                result := CASE way
                    WHEN 'scope' THEN tidemark_internal.execute_for_persons(
                        model.target, statement, event_date, persons)
                    ELSE tidemark_internal.execute_as_owner(model.target, statement, event_date, added_by) END::json;
                -- What is seen beyond the marks is still to come; but persons are computed with all that is seen.
                seen := CASE way WHEN 'append' THEN coalesce((result ->> 'seen')::bytea, known.seen)
                                 WHEN 'merge' THEN known.seen
                                 ELSE CASE WHEN 'append' = ANY (model.ways) THEN known.seen END END;
                IF way <> 'append' THEN
                    began := clock_timestamp();
                END IF;
                IF 'merge' = ANY (model.ways) THEN
                    source_rows := known.source_rows + CASE way WHEN 'merge' THEN added END;
                    IF way = 'scope' OR counted OR source_rows IS NULL THEN
                        -- Of how many rows what is stored comes, a merge finds out that asks.
                        state := tidemark_internal.source_state(model, event_date, counted OR way <> 'scope');
                        seen := coalesce(seen, (state ->> 'seen')::bytea);
                        IF (state ->> 'rows')::bigint <> source_rows THEN
                            RAISE EXCEPTION 'not as expected' USING ERRCODE = 'TM002';
                        END IF;
                        source_rows := coalesce((state ->> 'rows')::bigint, source_rows);
                    END IF;
                END IF;
                count_seconds := count_seconds + extract(epoch FROM clock_timestamp() - began);
                IF result ->> 'wrong' IS NOT NULL OR (result ->> 'surplus')::bigint <> 0
                   OR (result ->> 'elsewhere')::bigint <> 0 THEN
                    RAISE EXCEPTION 'not as expected' USING ERRCODE = 'TM002';
                END IF;
                inserted := result ->> 'inserted';
                updated := coalesce((result ->> 'updated')::bigint, 0);
                deleted := coalesce((result ->> 'deleted')::bigint, 0);
                rows := coalesce((result ->> 'rows')::bigint, known.rows + inserted - deleted);
                written := tidemark_internal.written(result, 'persons', unseen);
                written_since := tidemark_internal.written(result, 'since', unseen)::timestamptz[];
                -- The rows have it as their xmin: they were written in this block, which may be undone by itself.
                IF way = 'append' THEN
                    written_by := tidemark_internal.current_xid();
                    PERFORM tidemark_internal.keep_places(model.target, event_date, ARRAY[written_by::text],
                        (result ->> 'places')::tid[]);
                END IF;
                RETURN;
            EXCEPTION WHEN OTHERS THEN
                -- Undone. Whatever the matter is, a recompute sets it right or says what it is.
            END;
        END LOOP;
    END IF;
    way := 'recompute';
    computed_persons := NULL;
    last_row := NULL;
    counted := true;
    count_seconds := NULL;
    seen := NULL;
    -- A timeline must know what it saw, which only this statement says.
    IF NOT filled AND (EXISTS (SELECT FROM tidemark_internal.timelines t WHERE t.name = model.name)
                       OR tidemark_internal.execute_as_owner(model.target,
            format('SELECT EXISTS (SELECT FROM %s WHERE event_date = $1)', model.target), event_date)::boolean) THEN
        result := tidemark_internal.execute_as_owner(model.target,
            tidemark_internal.model_statement(model, 'diff', touched, timed), event_date)::json;
        inserted := result ->> 'inserted';
        updated := result ->> 'updated';
        deleted := result ->> 'deleted';
        rows := result ->> 'computed';
        wrong := result ->> 'wrong';
        elsewhere := result ->> 'elsewhere';
        written := tidemark_internal.written(result, 'persons', unseen);
        written_since := tidemark_internal.written(result, 'since', unseen)::timestamptz[];
        seen := (result ->> 'seen')::bytea;
    ELSE
        inserted := tidemark_internal.execute_as_owner(model.target,
            CASE WHEN filled THEN stored ELSE tidemark_internal.model_statement(model, 'build') END,
            event_date)::bigint;
        updated := 0;
        deleted := 0;
        rows := inserted;
        -- A unique index on columns of the key, none of them NULL, has checked it already.
        IF inserted > 0 AND NOT EXISTS (
            SELECT FROM pg_index i
             WHERE i.indrelid = model.target AND i.indisunique AND i.indisvalid AND i.indimmediate
               AND i.indpred IS NULL AND i.indexprs IS NULL
               AND NOT EXISTS (SELECT FROM unnest(i.indkey[:i.indnkeyatts - 1]::smallint[]) AS c(attnum)
                                 JOIN pg_attribute a ON a.attrelid = model.target AND a.attnum = c.attnum
                                WHERE NOT a.attname = ANY (model.key))
               AND NOT EXISTS (SELECT FROM pg_attribute a
                                WHERE a.attrelid = model.target AND a.attname = ANY (model.key)
                                  AND NOT a.attnotnull)) THEN
            wrong := tidemark_internal.execute_as_owner(model.target,
                tidemark_internal.model_statement(model, 'built'), event_date);
        END IF;
        IF NOT filled AND inserted > 0 AND EXISTS (
            SELECT FROM pg_attribute a
             WHERE a.attrelid = model.target AND a.attname = 'event_date' AND a.attgenerated <> '') THEN
            elsewhere := inserted - tidemark_internal.execute_as_owner(model.target, stored, event_date)::bigint;
        END IF;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'query of model % returns a key that is NULL or not unique', model.name
            USING ERRCODE = '21000', DETAIL = format('On %s it returns %s.', event_date, wrong),
                  HINT = format('The key is (%s): group by it, or give create_model another key.',
                                array_to_string(model.key, ', '));
    ELSIF elsewhere <> 0 THEN
        RAISE EXCEPTION 'query of model % returns rows whose stored event_date is not the one it says', model.name
            USING ERRCODE = '22023', DETAIL = format('On %s these are %s rows.', event_date, elsewhere),
                  HINT = 'event_date is a generated column of the table; the query must compute it in the same way.';
    END IF;
    IF 'merge' = ANY (model.ways) THEN
        state := tidemark_internal.source_state(model, event_date, true);
        seen := CASE WHEN state IS NOT NULL THEN coalesce(seen, (state ->> 'seen')::bytea) END;
        source_rows := state ->> 'rows';
    ELSIF 'append' = ANY (model.ways) THEN
        seen := coalesce(seen, tidemark_internal.current_seen());
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_date(tidemark_internal.models, date, text[], bigint, text[],
    timestamptz[], name, boolean) IS
'Part of tidemark.refresh: brings the stored rows of one date in line with
what the query returns, as the owner of the table. Says what that took, in
which way, what the statement saw, and which values of column touched are in
the rows that it wrote (written; NULL: not known), timed with the earliest
event_time of each (written_since). Makes the partition of
the date if the table has daily ones. What its marks say decides the way.
append or merge, if only these transactions added rows: only these are
computed. scope, if persons are given: only their rows. Where the model does
not allow that, it is not enough, or anything is not as expected, recompute.
Takes no marks away. 21000: the query returns a key that is NULL or not
unique. 44000: it returns rows of other dates.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.refresh_date(tidemark_internal.models, date, text[], bigint, text[],
    timestamptz[], name, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.written(result json, what text, complete boolean) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN complete AND json_typeof(result #> ARRAY['written', what]) = 'array'
            THEN ARRAY(SELECT json_array_elements_text(result #> ARRAY['written', what])) END;
COMMENT ON FUNCTION tidemark_internal.written(json, text, boolean) IS
'Part of tidemark_internal.refresh_date: whose rows a statement says that it
wrote (persons), or from when on (since); NULL where it does not, or
triggers may have written others.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.written(json, text, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.start_refresh(caller oid, model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid := (SELECT c.relowner FROM tidemark_internal.models m JOIN pg_class c ON c.oid = m.target
                   WHERE m.name = start_refresh.model);
BEGIN
    IF model IS NOT NULL AND NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = model) THEN
        RAISE EXCEPTION 'model % does not exist', model
            USING ERRCODE = '42704', HINT = 'SELECT model FROM tidemark.model_status lists them.';
    ELSIF model IS NOT NULL AND NOT tidemark_internal.may_act_as(caller, owner) THEN
        RAISE EXCEPTION 'permission denied to refresh model %', model
            USING ERRCODE = '42501', HINT = 'The caller must have the rights of the role that owns its table.';
    ELSIF EXISTS (SELECT FROM tidemark_internal.models)
          AND NOT EXISTS (SELECT FROM tidemark_internal.models m JOIN pg_class c ON c.oid = m.target
                           WHERE tidemark_internal.may_act_as(caller, c.relowner)) THEN
        RAISE EXCEPTION 'permission denied to refresh any model'
            USING ERRCODE = '42501', HINT = 'The caller must have the rights of a role that owns the table of a model.';
    END IF;
    PERFORM tidemark_internal.adopt_sources(caller);
END
$$;
COMMENT ON FUNCTION tidemark_internal.start_refresh(oid, text) IS
'Part of tidemark.refresh: asks whether a role may refresh this model, or any
where model is NULL, and calls tidemark_internal.adopt_sources.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.start_refresh(oid, text) FROM PUBLIC;
