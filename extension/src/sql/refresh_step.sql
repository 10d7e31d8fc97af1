-- The steps of a refresh: which model and dates come next, and what is noted of them; and verification of stored dates.
-- A step is called by tidemark.refresh (models/refresh.rs), which commits after each one, and by nobody else: whoever
-- could take a step in a transaction of his own would hold marks for as long as he likes.

CREATE FUNCTION tidemark_internal.models_to_refresh(caller oid, model text, skip text[], busy text[],
    busy_seconds float8[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
SET plan_cache_mode = force_custom_plan  -- what is passed over may be thousands: looked up, not compared one by one
AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE waiting AS MATERIALIZED (
        -- Asked once a model: in a join, the planner would ask of all that pg_class lists, and of all dates that wait.
        SELECT x.name, x.target, x.attempted_at
          FROM tidemark_internal.models x
         WHERE tidemark_internal.may_act_as(caller, (SELECT c.relowner FROM pg_class c WHERE c.oid = x.target))
           AND EXISTS (SELECT FROM tidemark_internal.model_dirty d
                        WHERE d.model = x.name
                          AND NOT x.name = ANY (skip)
                          AND NOT x.name || ' ' || coalesce(d.event_date::text, 'every date') = ANY (skip)
                          AND NOT tidemark_internal.is_frozen(x.name, d.event_date) OFFSET 0)
    ), above(name, target) AS (
        SELECT r.name, r.target
          FROM waiting w
          JOIN tidemark_internal.model_sources s ON s.source = w.target
          JOIN tidemark_internal.models r ON r.name = s.model
        UNION
        SELECT r.name, r.target
          FROM above a
          JOIN tidemark_internal.model_sources s ON s.source = a.target
          JOIN tidemark_internal.models r ON r.name = s.model)
    SELECT w.name
      FROM (SELECT x.name, x.attempted_at, x.name IN (SELECT a.name FROM above a) AS later FROM waiting x) AS w
      JOIN tidemark_internal.models_in_order() WITH ORDINALITY AS o(name, n) ON o.name = w.name
      LEFT JOIN unnest(busy, busy_seconds) AS b(name, seconds) ON b.name = w.name
     WHERE models_to_refresh.model IS NULL OR w.name = models_to_refresh.model
     -- Those that must wait come in order: they only get a turn when another session has the others.
     ORDER BY w.later, CASE WHEN NOT w.later THEN w.attempted_at END NULLS FIRST,
              CASE WHEN NOT w.later THEN coalesce(b.seconds, 0) END, o.n;
END
$$;
COMMENT ON FUNCTION tidemark_internal.models_to_refresh(oid, text, text[], text[], float8[]) IS
'Part of tidemark.refresh: which models have a dirty date to recompute, best
first. Those that read none which waits; of these, those whose last attempt
came to an end; of these, the one on which least time was spent. Arguments
as for tidemark_internal.refresh_step.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.models_to_refresh(oid, text, text[], text[], float8[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.dates_to_refresh(model text, skip text[], most integer) RETURNS SETOF date
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    -- The newest date comes first, which dashboards look at most; before all, marks of no date.
    -- OFFSET 0: the conditions are looked at date by date until enough fit, not for all dates that wait.
    RETURN QUERY
    SELECT d.event_date
      FROM (SELECT DISTINCT x.event_date FROM tidemark_internal.model_dirty x
             WHERE x.model = dates_to_refresh.model ORDER BY 1 DESC OFFSET 0) AS d
     WHERE NOT model = ANY (skip) AND NOT model || ' ' || coalesce(d.event_date::text, 'every date') = ANY (skip)
       AND NOT tidemark_internal.is_frozen(model, d.event_date)
     LIMIT most;
END
$$;
COMMENT ON FUNCTION tidemark_internal.dates_to_refresh(text, text[], integer) IS
'Part of tidemark.refresh: the dates of a model that come next, no more than
most; NULL for marks of no date. skip as for tidemark_internal.refresh_step.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.dates_to_refresh(text, text[], integer) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.note_attempt(caller oid, model text, skip text[], busy text[],
    busy_seconds float8[]) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    candidate text;
BEGIN
    -- Whether it survives a crash is not worth waiting for.
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR candidate IN SELECT * FROM tidemark_internal.models_to_refresh(caller, model, skip, busy, busy_seconds) LOOP
        PERFORM FROM tidemark_internal.models x WHERE x.name = candidate FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE tidemark_internal.models x SET attempted_at = clock_timestamp() WHERE x.name = candidate;
        RETURN candidate;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.note_attempt(oid, text, text[], text[], float8[]) IS
'Part of tidemark.refresh: the model whose turn it is, noted as attempted. If
that never comes to an end, because the query hangs and somebody cancels it,
the other models come first the next time. NULL when nothing is left to do.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.note_attempt(oid, text, text[], text[], float8[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.date_marks(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mark record;
    dates date[];
BEGIN
    -- As with those of a date: deleted first, what they are about read by later statements.
    FOR mark IN
        DELETE FROM tidemark_internal.model_dirty d
         WHERE d.model = date_marks.model AND d.event_date IS NULL RETURNING d.*
    LOOP
        -- By itself: below unnest, the planner would call it, too.
        dates := tidemark_internal.dates_with_rows(date_marks.model, mark.persons);
        INSERT INTO tidemark_internal.model_dirty (model, event_date, persons, marked_at)
        SELECT date_marks.model, d, mark.persons, mark.marked_at FROM unnest(dates) AS d;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.date_marks(text) IS
'Part of tidemark.refresh: turns marks of a model that name no date into
marks of all dates on which there are rows for them.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.date_marks(text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.refresh_step(caller oid, model text, skip text[], most integer DEFAULT 1,
    run timestamptz DEFAULT NULL)
RETURNS TABLE (refreshed_model text, refreshed_date text, error text, detail text, code text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
-- Whoever locks the table of a model holds up that model, and hardly the others.
SET lock_timeout = '10s'
AS $$
DECLARE
    -- A commit and the choice of a model cost as much as a date of few persons. What a crash may lose stays small.
    until CONSTANT timestamptz := clock_timestamp() + interval '100 milliseconds';
    candidate text;
    day date;
    m tidemark_internal.models;
    began timestamptz;
    change record;
    changed boolean;
    marks record;
    touched name;
    timed boolean;
    horizon xid8;
BEGIN
    FOR candidate IN
        SELECT * FROM tidemark_internal.models_to_refresh(caller, model, skip, '{}', '{}')
    LOOP
        -- One refresher per model; if another session has it, look for other work.
        SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = candidate FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        refreshed_model := candidate;
        -- The column by which most of its readers are scoped; the others recompute.
        SELECT r.scope_source, bool_or(r.scope_since IS NOT NULL) INTO touched, timed
          FROM tidemark_internal.model_sources s JOIN tidemark_internal.models r ON r.name = s.model
         WHERE s.source = m.target AND r.scope_source IS NOT NULL
         GROUP BY r.scope_source ORDER BY count(*) DESC, r.scope_source LIMIT 1;
        FOR day IN SELECT * FROM tidemark_internal.dates_to_refresh(candidate, skip, most) LOOP
            refreshed_date := coalesce(day::text, 'every date');
            error := NULL;
            detail := NULL;
            code := NULL;
            began := clock_timestamp();
            horizon := pg_snapshot_xmin(pg_current_snapshot());
            BEGIN
                IF day IS NULL THEN
                    PERFORM tidemark_internal.date_marks(candidate);
                ELSE
                    -- Marks go first, the sources are read by later statements with a newer snapshot (see marks.sql).
                    WITH gone AS (
                        DELETE FROM tidemark_internal.model_dirty d
                         WHERE d.model = candidate AND d.event_date = day
                        RETURNING d.added_by, d.added, d.persons, d.since
                    ), whose AS (
                        SELECT coalesce(array_agg(p.person), '{}') AS persons,
                               coalesce(array_agg(p.since), '{}') AS since
                          FROM (SELECT u.person, min(coalesce(u.since, '-infinity')) AS since
                                  FROM gone g CROSS JOIN LATERAL unnest(g.persons, g.since) AS u(person, since)
                                 GROUP BY u.person LIMIT 100001) AS p
                        HAVING NOT EXISTS (SELECT FROM gone g WHERE g.persons IS NULL)
                    )
                    SELECT CASE WHEN bool_and(g.added_by IS NOT NULL)
                                THEN ARRAY(SELECT DISTINCT unnest(x.added_by)::text FROM gone x ORDER BY 1)
                                END AS added_by,
                           CASE WHEN bool_and(g.added IS NOT NULL) THEN sum(g.added)::bigint END AS added,
                           (SELECT w.persons FROM whose w) AS persons, (SELECT w.since FROM whose w) AS since
                      INTO marks FROM gone g;
                    SELECT * INTO change
                      FROM tidemark_internal.refresh_date(m, day, marks.added_by, marks.added,
                               CASE WHEN cardinality(marks.persons) <= 100000 THEN marks.persons END, marks.since,
                               touched, timed);
                    -- A partition may have been detached since the date was chosen: the rows computed are too few.
                    IF tidemark_internal.is_frozen(candidate, day) THEN
                        RAISE EXCEPTION 'a source retired its rows meanwhile' USING ERRCODE = 'TM001';
                    END IF;
                    changed := change.inserted + change.updated + change.deleted > 0;
                    -- Only models that read this one care, and only if there is something new to read.
                    IF changed AND EXISTS (SELECT FROM tidemark_internal.model_sources s WHERE s.source = m.target) THEN
                        INSERT INTO tidemark_internal.dirty_log (source, event_date, persons, since, person_column,
                                                                 reason, added_by, added)
                        -- Not those of a recompute, which may have been there before: somebody deleted them.
                        VALUES (m.target, day, change.written, change.written_since, touched, 'refreshed ' || candidate,
                                change.written_by, change.inserted);
                    END IF;
                    UPDATE tidemark_internal.models x
                       SET refresh_count = x.refresh_count + 1, change_count = x.change_count + changed::integer,
                           last_refreshed_at = clock_timestamp()
                     WHERE x.name = candidate;
                    -- Another date's success cures nothing: an error stays until its own date, or whatever waits, is
                    -- done.
                    UPDATE tidemark_internal.models x
                       SET failed_date = NULL, failed_code = NULL, failed_message = NULL, failed_at = NULL
                     WHERE x.name = candidate AND x.failed_at IS NOT NULL
                       AND (x.failed_date = day
                            OR NOT EXISTS (SELECT FROM tidemark_internal.model_dirty d WHERE d.model = candidate));
                    INSERT INTO tidemark_internal.refresh_log (run, model, event_date, refreshed_at, rows_inserted,
                                                               rows_updated, rows_deleted, seconds, way, persons)
                    VALUES (coalesce(refresh_step.run, began), candidate, day, clock_timestamp(), change.inserted,
                            change.updated, change.deleted, extract(epoch FROM clock_timestamp() - began), change.way,
                            change.computed_persons);
                    INSERT INTO tidemark_internal.model_dates AS d (model, event_date, rows, horizon, cluster,
                                                                    last_row, counted_at, count_seconds, seen,
                                                                    source_rows)
                    SELECT candidate, day, change.rows, horizon, c.system_identifier, change.last_row,
                           CASE WHEN change.counted THEN clock_timestamp() END, change.count_seconds, change.seen,
                           change.source_rows
                      FROM pg_control_system() c
                    ON CONFLICT ON CONSTRAINT model_dates_pkey DO UPDATE
                       SET rows = excluded.rows, cluster = excluded.cluster, last_row = excluded.last_row,
                           -- A merge goes on from what the last recompute saw.
                           horizon = CASE change.way WHEN 'merge' THEN d.horizon ELSE excluded.horizon END,
                           seen = excluded.seen, source_rows = excluded.source_rows,
                           counted_at = coalesce(excluded.counted_at, d.counted_at),
                           count_seconds = CASE WHEN change.counted THEN excluded.count_seconds
                                                ELSE d.count_seconds END;
                END IF;
            EXCEPTION
              WHEN SQLSTATE 'TM001' THEN
                -- Undone, marks included; from now on the date is passed over as frozen.
              WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, error = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
                -- The message is the user's: as long as it likes.
                error := left(error, 1000);
                detail := nullif(left(detail, 1000), '');
                UPDATE tidemark_internal.models x
                   SET failed_date = day, failed_code = code, failed_message = error, failed_at = clock_timestamp()
                 WHERE x.name = candidate;
            END;
            RETURN NEXT;
            -- After marks of no date there are more dates; other dates would wait for the same lock.
            EXIT WHEN day IS NULL OR code = '55P03' OR clock_timestamp() > until;
        END LOOP;
        CONTINUE WHEN NOT FOUND;
        UPDATE tidemark_internal.models x SET attempted_at = NULL WHERE x.name = candidate;
        RETURN;
    END LOOP;
    -- Nothing left to do: a good time to keep the tables small. What others are removing is not waited for.
    DELETE FROM tidemark_internal.refresh_log l WHERE l.ctid = ANY (ARRAY(
        SELECT x.ctid FROM tidemark_internal.refresh_log x
         WHERE x.id <= (SELECT max(y.id) - 100000 FROM tidemark_internal.refresh_log y) FOR UPDATE SKIP LOCKED));
    DELETE FROM tidemark_internal.refresh_log l WHERE l.ctid = ANY (ARRAY(
        SELECT x.ctid FROM tidemark_internal.refresh_log x
         WHERE x.refreshed_at < now() - interval '30 days'
           AND x.id < (SELECT min(y.id) + 10000 FROM tidemark_internal.refresh_log y) FOR UPDATE SKIP LOCKED));
    DELETE FROM tidemark_internal.model_dirty d WHERE d.ctid = ANY (ARRAY(
        SELECT x.ctid FROM tidemark_internal.model_dirty x
         WHERE NOT EXISTS (SELECT FROM tidemark_internal.models y WHERE y.name = x.model)
           AND x.marked_at < now() - interval '1 day'  -- a younger model may not be visible yet
           FOR UPDATE SKIP LOCKED));
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_step(oid, text, text[], integer, timestamptz) IS
'Part of tidemark.refresh: recomputes dirty dates of one model, of those
whose owner the caller may act for: as many as begin within a tenth of a
second, and no more than most. Says which, with the error and its SQLSTATE
if one failed; no rows when nothing is left to do. skip holds what to pass
over, as ''model date'' or, whole, ''model''. run is what the refresh log
records. Marks must have been distributed before.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.refresh_step(oid, text, text[], integer, timestamptz) FROM PUBLIC;

CREATE PROCEDURE tidemark.refresh(model text DEFAULT NULL, max_dates integer DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'tidemark_refresh';
COMMENT ON PROCEDURE tidemark.refresh(text, integer) IS
'Recomputes the dirty dates of one model (schema.table), or of all models in
dependency order when model is NULL; at most max_dates dates, all when NULL.
Only rows that differ are written. It commits after each date that takes
long, otherwise ten times a second; an interrupted refresh loses only what
was not committed, and the next call goes on. A call recomputes each date of
a model at most once, so it ends and reaches every model while sources are
being loaded; what is marked meanwhile waits for the next. CALL it outside a
transaction block. Queries run as the owner of each model''s table, under
fixed settings (UTC); models whose owner the caller has not the rights of
are passed over (42501 if named, or if there is no other). Frozen dates are
left alone. Dates that fail stay dirty, are reported as warnings, and make
the call fail at its end; so does a model that somebody keeps locked for
10 s.';

CREATE FUNCTION tidemark.verify_model(name text, from_date date, to_date date)
RETURNS TABLE (event_date date, status text, detail text)
LANGUAGE c STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.verify_model(text, date, date) IS
'Recomputes each date from from_date to to_date (both inclusive) and compares
it with the stored rows byte by byte, under the snapshot of the calling
query and without writing anything. status: ok; different (detail counts
rows that are missing, too many or different, with the key of one, or says
what is wrong with the rows that the query returns); stale (marks wait for a
refresh, so it was not compared); frozen (cannot be compared: source rows
were retired). The caller must have the rights of the role that owns the
table. 42704: no such model; 22023: bad dates.';

CREATE FUNCTION tidemark_internal.verify_model(caller oid, name text, from_date date, to_date date)
RETURNS TABLE (event_date date, status text, detail text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp
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
        RAISE EXCEPTION 'model % does not exist', name
            USING ERRCODE = '42704', HINT = 'SELECT model FROM tidemark.model_status lists them.';
    ELSIF from_date IS NULL OR to_date IS NULL OR NOT isfinite(from_date) OR NOT isfinite(to_date) THEN
        RAISE EXCEPTION 'from_date and to_date must be finite dates' USING ERRCODE = '22023';
    ELSIF to_date < from_date THEN
        RAISE EXCEPTION 'to_date must not be before from_date' USING ERRCODE = '22023';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, m.target);
    stale := tidemark.stale_dates(name);
    statement := tidemark_internal.model_statement(m, 'compare');
    FOR event_date IN SELECT from_date + d FROM generate_series(0, to_date - from_date) AS d LOOP
        IF tidemark_internal.is_frozen(name, event_date) THEN
            status := 'frozen';
            detail := 'source rows were retired: the stored rows stay as they are';
        ELSIF event_date = ANY (stale) THEN
            status := 'stale';
            detail := 'marks wait: refresh first';
        ELSE
            result := tidemark_internal.read_as_owner(m.target, statement, event_date)::json;
            detail := coalesce(
                'the query returns rows of other dates, for example ' || (result ->> 'outside'),
                'the query returns a key that is NULL or not unique: ' || (result ->> 'wrong'),
                CASE WHEN result ->> 'example' IS NOT NULL
                       OR (result ->> 'stored')::bigint <> (result ->> 'computed')::bigint THEN
                    format('of %s stored and %s computed rows %s are missing, %s too many, %s different',
                           result ->> 'stored', result ->> 'computed', result ->> 'missing', result ->> 'extra',
                           result ->> 'different')
                    || coalesce(', for example ' || (result ->> 'example'), '') END);
            status := CASE WHEN detail IS NULL THEN 'ok' ELSE 'different' END;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.verify_model(oid, text, date, date) IS
'The work behind tidemark.verify_model.';
