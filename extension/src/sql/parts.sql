-- Parts of timelines: how a date gains rows without being made anew. Its slices are the rows of part 0; what came since
-- is in further rows of slice 0, each part one value for all slices, numbered as they came. Reports read them beside
-- the slices (timelines/read.rs); a recompute of the date makes slices of all.
--
-- Which rows are new: those of the transactions that marks name, unless what was stored last saw them already: a
-- recompute reads all rows, also those whose mark comes after it. What it saw is kept in tidemark_internal.model_dates:
-- a snapshot, less the transactions whose marks still waited under it. That is all there is to say, since rows and
-- their mark come in one transaction. What came without a mark is found by counting, as with other models.
--
-- Where rows of some persons changed, their slices are made of what is stored of everybody else and of their rows. What
-- the date saw stays what it was: of rows that were added since, only those are among theirs whose mark is set aside
-- with this one, and it names them, too.
--
-- Few parts are kept: eight that are alike become one, and when those of a date hold more than an eighth of what its
-- slices do, they become slices. So an event is written about ten times, however many rounds a day has.

CREATE FUNCTION tidemark_internal.current_seen(but xid[] DEFAULT '{}') RETURNS bytea
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 10 AS 'MODULE_PATHNAME', 'tidemark_current_seen';
COMMENT ON FUNCTION tidemark_internal.current_seen(xid[]) IS
'Which transactions the calling statement sees, subtransactions told apart,
but for some, for tidemark_internal.unseen. NULL where that is not known:
somebody has very many of them in progress.';

CREATE FUNCTION tidemark_internal.unseen(added_by xid, seen bytea) RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 2 AS 'MODULE_PATHNAME', 'tidemark_unseen';
COMMENT ON FUNCTION tidemark_internal.unseen(xid, bytea) IS
'Whether a row, by its xmin, was added by a transaction that a statement did
not see (tidemark_internal.current_seen), if that was less than two thousand
million transactions ago.';

CREATE FUNCTION tidemark_internal.seen(model text, event_date date) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT d.seen FROM tidemark_internal.model_dates d
         WHERE d.model = seen.model AND d.event_date = seen.event_date
           AND tidemark_internal.horizon_age(d.model, d.event_date) IS NOT NULL);
COMMENT ON FUNCTION tidemark_internal.seen(text, date) IS
'What the last refresh of a date of a model saw, for
tidemark_internal.unseen. NULL when that is not known: never refreshed, in
another cluster, too long ago.';

CREATE FUNCTION tidemark_internal.waiting_additions(model text, event_date date) RETURNS xid[]
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 100
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT l.added_by FROM tidemark_internal.dirty_log l
               JOIN tidemark_internal.model_sources s ON s.source = l.source
              WHERE s.model = waiting_additions.model AND l.event_date = waiting_additions.event_date
                AND l.added_by IS NOT NULL AND l.passed IS NULL
              UNION
             SELECT unnest(d.added_by) FROM tidemark_internal.model_dirty d
              WHERE d.model = waiting_additions.model AND d.event_date = waiting_additions.event_date);
COMMENT ON FUNCTION tidemark_internal.waiting_additions(text, date) IS
'Which transactions added rows to a date of the source of a model whose marks
wait for a refresh, as far as the calling statement sees.';

CREATE FUNCTION tidemark_internal.not_seen(added_by xid[], seen bytea) RETURNS xid[]
LANGUAGE sql STABLE STRICT PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT x FROM unnest(added_by) AS x WHERE tidemark_internal.unseen(x, seen));
COMMENT ON FUNCTION tidemark_internal.not_seen(xid[], bytea) IS
'Those of these transactions that a statement did not see
(tidemark_internal.unseen). NULL where it is not known what it saw.';

CREATE FUNCTION tidemark_internal.timeline_merged(target regclass, properties integer, bits integer, event_date date,
    first_part integer, more integer DEFAULT 0)
RETURNS TABLE (event_date date, property smallint, slice integer, part integer, events integer, persons integer,
               data tidemark.timeline)
LANGUAGE c STABLE PARALLEL SAFE COST 1000000 ROWS 2000 AS 'MODULE_PATHNAME', 'tidemark_timeline_merged';
COMMENT ON FUNCTION tidemark_internal.timeline_merged(regclass, integer, integer, date, integer, integer) IS
'The parts of a date of a timeline from first_part on, put together: all of
them as slices if that is 0, as if no row had come later. more: so many
properties are added, which are NULL.';

CREATE FUNCTION tidemark_internal.timeline_scoped(target regclass, row_view regclass, codes regclass,
    properties integer, bits integer, event_date date, persons text[], but xid[])
RETURNS TABLE (event_date date, property smallint, slice integer, part integer, events integer, persons integer,
               data tidemark.timeline)
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100 AS 'MODULE_PATHNAME', 'tidemark_timeline_scoped';
COMMENT ON FUNCTION tidemark_internal.timeline_scoped(regclass, regclass, regclass, integer, integer, date, text[],
    xid[]) IS
'Part of a refresh of a timeline where rows of some persons changed: what of
a date is to be written, slices, parts and counts. It is put together of
what is stored of everybody else and of their rows, but those that some
transactions added. data is NULL for rows that are no longer there.';

CREATE FUNCTION tidemark_internal.timeline_statement(model text, kind text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t record;
BEGIN
    SELECT x.*, m.target, m.query, cardinality(x.properties) AS n INTO t
      FROM tidemark_internal.timelines x JOIN tidemark_internal.models m ON m.name = x.name WHERE x.name = model;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN CASE WHEN kind IN ('append', 'append and count') THEN
            format('SELECT tidemark_internal.timeline_append(%L, %L, %L, %L, %s, %s, $1, $3::pg_catalog.xid[],
                        tidemark_internal.places(%s, $1, $3), tidemark_internal.seen(%L, $1), %L)',
                   t.name, t.target, t.row_view, t.codes, t.n, t.bits, t.source::oid, t.name, kind = 'append and count')
        WHEN kind = 'scope' THEN
            -- What was added and is still to be appended must not be there already.
            format('WITH made AS MATERIALIZED (
                        SELECT * FROM tidemark_internal.timeline_scoped(%1$L, %2$L, %3$L, %4$s, %5$s, $1, $3,
                            tidemark_internal.waiting_additions(%6$L, $1))),
                    gone AS (
                        DELETE FROM %7$s AS t USING made AS m
                         WHERE m.data IS NULL AND t.slice = m.slice AND t.event_date = $1 AND t.property = m.property
                           AND t.part = m.part
                        RETURNING 1),
                    put AS (
                        INSERT INTO %7$s AS t (event_date, property, slice, part, events, persons, data)
                        SELECT m.event_date, m.property, m.slice, m.part, m.events, m.persons, m.data FROM made AS m
                         WHERE m.data IS NOT NULL
                            ON CONFLICT (slice, event_date, property, part) DO UPDATE
                           SET events = excluded.events, persons = excluded.persons, data = excluded.data
                         WHERE t.persons <> excluded.persons OR t.data OPERATOR(tidemark.<>) excluded.data
                        RETURNING t.xmax = 0 AS new)
                    SELECT json_build_object(%8$L, count(*) FILTER (WHERE new), %9$L, count(*) FILTER (WHERE NOT new),
                        %10$L, (SELECT count(*) FROM gone), %11$L, 0, %12$L, 0) FROM put',
                   t.target, t.row_view, t.codes, t.n, t.bits, t.name, t.target, 'inserted', 'updated', 'deleted',
                   'surplus', 'elsewhere')
        WHEN kind = 'compare' THEN
            format('SELECT json_build_object(
                        %L, count(*) FILTER (WHERE s.slice IS NULL), %L, count(*) FILTER (WHERE q.slice IS NULL),
                        %L, count(*) FILTER (WHERE q.data OPERATOR(tidemark.<>) s.data), %L, count(s.slice),
                        %L, count(q.slice), %L, min(CASE WHEN (q.data OPERATOR(tidemark.=) s.data) IS NOT TRUE
                            THEN json_build_object(%L, slice, %L, property)::text END))
                      FROM (%s) AS q
                      FULL JOIN tidemark_internal.timeline_merged(%L, %s, %s, $1, 0) AS s
                      USING (slice, event_date, property)',
                   'missing', 'extra', 'different', 'stored', 'computed', 'example', 'slice', 'property', t.query,
                   t.target, t.n, t.bits) END;
END
$$;
COMMENT ON FUNCTION tidemark_internal.timeline_statement(text, text) IS
'Part of tidemark_internal.model_statement: the statement of a timeline for
append, scope and compare, which do not look at its rows one by one. NULL
for other models and kinds.';

CREATE FUNCTION tidemark_internal.timeline_append(model text, target regclass, row_view regclass, codes regclass,
    properties integer, bits integer, event_date date, added_by xid[], places tid[], seen bytea, counted boolean)
RETURNS json
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns CONSTANT text := 'event_date, property, slice, part, events, persons, data';
    base bigint;
    parts integer[];
    sizes bigint[];
    first integer;
    new bigint;
    surplus bigint;
    made bytea;
    inserted bigint;
    updated bigint := 0;
    deleted bigint := 0;
    rows bigint;
BEGIN
    IF seen IS NULL THEN
        RETURN json_build_object('surplus', 1);
    END IF;
    -- One statement, so one snapshot: which marks wait under it is what those rows are of that it does not encode.
    EXECUTE format(
        'WITH added AS (
             INSERT INTO %1$s (%2$s)
             SELECT %2$s FROM tidemark_internal.timeline_encode($1, $2, $3, 0, $4, $4 + 1,
                 (SELECT coalesce(max(part), 0) + 1 FROM %1$s WHERE event_date = $4 AND property = 0),
                 tidemark_internal.not_seen($5, $6), $7)
             RETURNING property, events),
         waiting AS MATERIALIZED (
             SELECT x, tidemark_internal.not_seen(x, $6) AS new FROM tidemark_internal.waiting_additions($8, $4) AS x)
         SELECT count(*), coalesce(sum(events) FILTER (WHERE property = 0), 0),
                (SELECT tidemark_internal.current_seen(x) FROM waiting),
                CASE WHEN $9 THEN (SELECT count(*) FROM %3$s AS r
                      WHERE r.event_date = $4 AND r.person IS NOT NULL AND r.event_time IS NOT NULL
                        AND r.added_by <> ALL ((SELECT new FROM waiting)::xid[]))
                    - (SELECT coalesce(sum(events), 0) FROM %1$s WHERE event_date = $4 AND property = 0) END
           FROM added', target, columns, row_view)
       INTO inserted, new, made, surplus
      USING row_view, codes, properties, event_date, added_by, seen, places, model, counted;
    IF surplus <> new THEN
        RETURN json_build_object('surplus', surplus - new);
    END IF;
    LOOP
        EXECUTE format(
            'SELECT coalesce(sum(s.events) FILTER (WHERE s.part = 0), 0),
                    array_agg(s.part ORDER BY s.part) FILTER (WHERE s.part > 0),
                    array_agg(s.events ORDER BY s.part) FILTER (WHERE s.part > 0)
               FROM (SELECT part, sum(events) AS events FROM %s
                      WHERE event_date = $1 AND property = 0 GROUP BY part) AS s', target)
           INTO base, parts, sizes USING event_date;
        IF 8 * (SELECT sum(e) FROM unnest(sizes) AS e) > base THEN
            first := 0;
        ELSE
            -- The last ones, as many as are of the same size or smaller.
            first := cardinality(parts);
            WHILE first > 1 AND floor(log(8, sizes[first - 1])) <= floor(log(8, sizes[cardinality(sizes)])) LOOP
                first := first - 1;
            END LOOP;
            EXIT WHEN first IS NULL OR cardinality(parts) - first < 7;
            first := parts[first];
        END IF;
        EXECUTE format(
            'WITH merged AS MATERIALIZED (
                 SELECT * FROM tidemark_internal.timeline_merged($1, $2, CASE WHEN $5 = 0 THEN $3 ELSE 0 END, $4, $5)
             ), gone AS (
                 DELETE FROM %1$s WHERE event_date = $4 AND part >= greatest($5, 1)
                                    AND (SELECT count(*) FROM merged) > 0 RETURNING 1
             ), put AS (
                 INSERT INTO %1$s AS t (%2$s)
                 SELECT %2$s FROM merged AS m
                  WHERE (SELECT count(*) FROM gone) > 0
                    AND NOT EXISTS (SELECT FROM %1$s AS s
                                     WHERE s.slice = m.slice AND s.event_date = $4 AND s.property = m.property
                                       AND s.part = 0 AND $5 = 0 AND s.data OPERATOR(tidemark.=) m.data)
                     ON CONFLICT (slice, event_date, property, part) DO UPDATE
                    SET events = excluded.events, persons = excluded.persons, data = excluded.data
                 RETURNING t.xmax = 0 AS new)
             SELECT count(*) FILTER (WHERE new), $6 + count(*) FILTER (WHERE NOT new),
                    $7 + (SELECT count(*) FROM gone) FROM put', target, columns)
           INTO inserted, updated, deleted USING target, properties, bits, event_date, first, updated, deleted;
    END LOOP;
    EXECUTE format('SELECT count(*) FROM %s WHERE event_date = $1', target) INTO rows USING event_date;
    RETURN json_build_object('inserted', inserted, 'updated', updated, 'deleted', deleted, 'rows', rows, 'surplus', 0,
                             'elsewhere', 0, 'seen', made);
END
$$;
COMMENT ON FUNCTION tidemark_internal.timeline_append(text, regclass, regclass, regclass, integer, integer, date,
    xid[], tid[], bytea, boolean) IS
'The work of tidemark.refresh where a date of a timeline only gained rows, by
transactions of which some may be seen already: makes a part of the others,
which are at these places, and puts parts together where there are many.
Says what it wrote, as the statements of other models do; surplus is not 0
if the rows, counted, are not as many as they should be.';
