-- Models: derived tables whose rows for one event_date are a function of their sources' rows around that date, and
-- the append-only log of dates that changed. First version: no live view, no verify, no retention guard.
--
-- Why no mark is ever lost: marks are rows without a shared key, so no writer's mark hides behind another's. A
-- refresher deletes the marks it can see first and reads the sources in a later statement, whose snapshot is newer:
-- whoever's mark it deleted has committed, so his rows are in the recompute; whoever commits in between leaves a
-- mark behind, and the date is recomputed once more.

CREATE TABLE tidemark.models (
    name text PRIMARY KEY,
    target regclass NOT NULL UNIQUE,
    query text NOT NULL,
    key name[] NOT NULL,
    lookback_days integer NOT NULL CHECK (lookback_days >= 0),
    lookahead_days integer NOT NULL CHECK (lookahead_days >= 0),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    refresh_count bigint NOT NULL DEFAULT 0,
    last_refreshed_at timestamptz,
    last_error text,
    last_error_at timestamptz
);
COMMENT ON TABLE tidemark.models IS 'Registered models. Written by tidemark.create_model and tidemark.refresh.';
COMMENT ON COLUMN tidemark.models.name IS 'Name of the model: its target table as schema.table.';
COMMENT ON COLUMN tidemark.models.target IS 'Table that holds the rows; has a column event_date.';
COMMENT ON COLUMN tidemark.models.query IS 'SELECT with $1 (first date) and $2 (end date, exclusive) that computes the rows of those dates.';
COMMENT ON COLUMN tidemark.models.key IS 'Columns that identify a row of the target.';
COMMENT ON COLUMN tidemark.models.lookback_days IS 'How many days before a date the query reads.';
COMMENT ON COLUMN tidemark.models.lookahead_days IS 'How many days after a date the query reads.';
COMMENT ON COLUMN tidemark.models.created_at IS 'When the model was first registered.';
COMMENT ON COLUMN tidemark.models.refresh_count IS 'How many dates have been recomputed in all; moves with every change of the target.';
COMMENT ON COLUMN tidemark.models.last_refreshed_at IS 'When a date of the model was last recomputed.';
COMMENT ON COLUMN tidemark.models.last_error IS 'Message of the last failed recompute; NULL once a date succeeded after it.';
COMMENT ON COLUMN tidemark.models.last_error_at IS 'When the last recompute failed.';

CREATE TABLE tidemark.model_sources (
    model text NOT NULL REFERENCES tidemark.models ON DELETE CASCADE,
    source regclass NOT NULL,
    PRIMARY KEY (model, source)
);
COMMENT ON TABLE tidemark.model_sources IS 'Which tables a model reads.';
COMMENT ON COLUMN tidemark.model_sources.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark.model_sources.source IS 'Table that the model reads; may be the target of another model.';

CREATE TABLE tidemark.dirty_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source regclass NOT NULL,
    event_date date NOT NULL,
    reason text,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    rows bigint,
    late_rows bigint,
    min_event_time timestamptz,
    max_event_time timestamptz,
    lateness bigint[]
);
COMMENT ON TABLE tidemark.dirty_log IS
'Append-only log: one row for each table, date and transaction that changed rows of that date. Consumed by tidemark.refresh.';
COMMENT ON COLUMN tidemark.dirty_log.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark.dirty_log.source IS 'Table whose rows changed.';
COMMENT ON COLUMN tidemark.dirty_log.event_date IS 'UTC date of the rows that changed.';
COMMENT ON COLUMN tidemark.dirty_log.reason IS 'What changed them, for people who look.';
COMMENT ON COLUMN tidemark.dirty_log.marked_at IS 'Start of the transaction that changed them.';
COMMENT ON COLUMN tidemark.dirty_log.rows IS 'How many rows the transaction added to the date; NULL if it did not say.';
COMMENT ON COLUMN tidemark.dirty_log.late_rows IS 'How many of them were late; NULL if it did not say.';
COMMENT ON COLUMN tidemark.dirty_log.min_event_time IS 'Earliest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark.dirty_log.max_event_time IS 'Latest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark.dirty_log.lateness IS 'How many of them fell into each bucket of lateness; NULL if it did not say.';

CREATE TABLE tidemark.model_dirty (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL REFERENCES tidemark.models ON DELETE CASCADE,
    event_date date NOT NULL,
    marked_at timestamptz NOT NULL
);
CREATE INDEX ON tidemark.model_dirty (model, event_date);
COMMENT ON TABLE tidemark.model_dirty IS
'Append-only: dates of models that wait for a recompute. tidemark.refresh moves marks here from the dirty log, widened by lookback and lookahead.';
COMMENT ON COLUMN tidemark.model_dirty.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark.model_dirty.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark.model_dirty.event_date IS 'Date to recompute.';
COMMENT ON COLUMN tidemark.model_dirty.marked_at IS 'When the source was marked.';

SELECT pg_catalog.pg_extension_config_dump('tidemark.models', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark.model_sources', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark.dirty_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark.model_dirty', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark.dirty_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark.model_dirty_id_seq', '');

CREATE FUNCTION tidemark.mark_dirty(source regclass, dates date[], reason text DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO tidemark.dirty_log (source, event_date, reason)
    SELECT mark_dirty.source, d, mark_dirty.reason
      FROM (SELECT DISTINCT unnest(dates) AS d) AS x
     WHERE d IS NOT NULL
     ORDER BY d;
END;
COMMENT ON FUNCTION tidemark.mark_dirty(regclass, date[], text) IS
'Records that rows of source changed on these UTC dates, so that tidemark.refresh recomputes the models that read them. Call it in the transaction that changes the rows, or it proves nothing. NULL dates are skipped, doubled ones count once. Needs INSERT on tidemark.dirty_log.';

CREATE FUNCTION tidemark.create_model(name text, sources regclass[], query text, key name[], lookback_days integer DEFAULT 0, lookahead_days integer DEFAULT 0, live boolean DEFAULT false) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    parts text[] := parse_ident(name);
    model_table regclass;
    old tidemark.models;
    source regclass;
    first_date date;
    last_date date;
BEGIN
    IF cardinality(parts) <> 2 THEN
        RAISE EXCEPTION 'name must be schema.table, got %', name USING ERRCODE = '22023';
    ELSIF sources IS NULL OR cardinality(sources) = 0 OR query IS NULL OR key IS NULL OR cardinality(key) = 0 THEN
        RAISE EXCEPTION 'sources, query and key must not be empty' USING ERRCODE = '22023';
    ELSIF lookback_days IS NULL OR lookahead_days IS NULL OR least(lookback_days, lookahead_days) < 0 THEN
        RAISE EXCEPTION 'lookback_days and lookahead_days must not be negative' USING ERRCODE = '22023';
    END IF;
    name := format('%I.%I', parts[1], parts[2]);
    model_table := to_regclass(name);
    IF model_table IS NULL THEN
        EXECUTE format('CREATE TABLE %s AS SELECT * FROM (%s) AS q WITH NO DATA', name,
            regexp_replace(query, '\$([12])(?![0-9])', '(NULL::pg_catalog.date)', 'g'));
        model_table := name::regclass;
        EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY (%s)', model_table,
            (SELECT string_agg(format('%I', k), ', ' ORDER BY n) FROM unnest(key) WITH ORDINALITY AS x(k, n)));
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = model_table AND attname = 'event_date' AND atttypid = 'date'::regtype) THEN
        RAISE EXCEPTION 'model % has no column event_date of type date', name
            USING ERRCODE = '42703', HINT = 'Select it in the query: it says which date a row belongs to.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = model_table AND a.attname = 'event_date') THEN
        EXECUTE format('CREATE INDEX ON %s (event_date)', model_table);
    END IF;

    -- Marks distributed while the model is not yet visible would pass it by.
    PERFORM pg_advisory_xact_lock(('tidemark.models'::regclass)::oid::bigint);
    SELECT * INTO old FROM tidemark.models m WHERE m.name = create_model.name FOR UPDATE;
    INSERT INTO tidemark.models AS m (name, target, query, key, lookback_days, lookahead_days)
    VALUES (name, model_table, query, key, lookback_days, lookahead_days)
    ON CONFLICT ON CONSTRAINT models_pkey DO UPDATE
       SET target = excluded.target, query = excluded.query, key = excluded.key,
           lookback_days = excluded.lookback_days, lookahead_days = excluded.lookahead_days;
    DELETE FROM tidemark.model_sources s WHERE s.model = name;
    INSERT INTO tidemark.model_sources (model, source) SELECT DISTINCT name, s FROM unnest(sources) AS s;
    IF EXISTS (
        WITH RECURSIVE reads(target, path) AS (
            SELECT model_table, ARRAY[model_table]
            UNION ALL
            SELECT s.source, r.path || s.source
              FROM reads r
              JOIN tidemark.models m ON m.target = r.target
              JOIN tidemark.model_sources s ON s.model = m.name
             WHERE cardinality(r.path) < 100 AND NOT s.source = ANY (r.path[2:]))
        SELECT FROM reads r WHERE r.target = model_table AND cardinality(r.path) > 1) THEN
        RAISE EXCEPTION 'model % would read itself through its sources', name USING ERRCODE = '22023';
    END IF;

    -- A new definition makes every date that the sources hold dirty.
    IF old IS NULL OR (old.query, old.lookback_days, old.lookahead_days) IS DISTINCT FROM (query, lookback_days, lookahead_days) THEN
        FOREACH source IN ARRAY sources LOOP
            EXECUTE format(
                'INSERT INTO tidemark.model_dirty (model, event_date, marked_at)
                 SELECT DISTINCT %L, d + shift, now()
                   FROM (SELECT DISTINCT event_date AS d FROM %s) AS x, generate_series(%s, %s) AS shift',
                name, source, -lookahead_days, lookback_days);
        END LOOP;
    END IF;
    IF live THEN
        -- For now the name only: the view shows what is stored.
        EXECUTE format('CREATE OR REPLACE VIEW %I.%I AS SELECT * FROM %s', parts[1], parts[2] || '_live', model_table);
    END IF;
    RETURN model_table;
END
$$;
COMMENT ON FUNCTION tidemark.create_model(text, regclass[], text, name[], integer, integer, boolean) IS
'Registers a model: a table (created from the query if it does not exist, with key as its primary key) whose rows for one event_date are what query returns for it. query is a SELECT with $1 (first date) and $2 (end date, exclusive) that has every column of the table by name, event_date among them; it may read its sources from $1 - lookback_days to $2 + lookahead_days. All dates that the sources hold become dirty when the model is new or its query, lookback or lookahead changed; otherwise calling it again does nothing. Returns the table.';

CREATE FUNCTION tidemark.distribute_dirty() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    -- Shared with the other refreshers, exclusive with create_model.
    PERFORM pg_advisory_xact_lock_shared(('tidemark.models'::regclass)::oid::bigint);
    WITH marks AS (
        DELETE FROM tidemark.dirty_log l
         WHERE l.id = ANY (ARRAY(SELECT id FROM tidemark.dirty_log FOR UPDATE SKIP LOCKED))
        RETURNING l.source, l.event_date, l.marked_at)
    INSERT INTO tidemark.model_dirty (model, event_date, marked_at)
    SELECT m.name, k.event_date + shift, min(k.marked_at)
      FROM marks k
      JOIN tidemark.model_sources s ON s.source = k.source
      JOIN tidemark.models m ON m.name = s.model
     CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
     GROUP BY m.name, k.event_date + shift;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION tidemark.distribute_dirty() IS
'Moves the marks of the dirty log to the models that read the marked tables, widened by each model''s lookback and lookahead. Returns the number of model dates marked. Part of tidemark.refresh.';

CREATE FUNCTION tidemark.refresh_step(model text, skip text[], OUT refreshed_model text, OUT refreshed_date date, OUT error text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    m tidemark.models;
BEGIN
    PERFORM tidemark.distribute_dirty();
    -- Models that others read come first; among a model's dates the newest, which dashboards look at most.
    FOR refreshed_model, refreshed_date IN
        WITH RECURSIVE depth(name, target, level) AS (
            SELECT name, target, 0 FROM tidemark.models
            UNION
            SELECT d.name, d.target, b.level + 1
              FROM depth b
              JOIN tidemark.model_sources s ON s.source = b.target
              JOIN tidemark.models d ON d.name = s.model
             WHERE b.level < 100)
        SELECT d.model, d.event_date
          FROM tidemark.model_dirty d
          JOIN (SELECT x.name, max(x.level) AS level FROM depth x GROUP BY x.name) AS o ON o.name = d.model
         WHERE (refresh_step.model IS NULL OR d.model = refresh_step.model)
           AND NOT (d.model || ' ' || d.event_date) = ANY (skip)
         GROUP BY d.model, d.event_date, o.level
         ORDER BY o.level, d.model, d.event_date DESC
    LOOP
        -- One refresher per model; if another session has it, look for other work.
        SELECT * INTO m FROM tidemark.models x WHERE x.name = refreshed_model FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        BEGIN
            -- Marks go first, the sources are read by later statements with a newer snapshot (see the top of this file).
            DELETE FROM tidemark.model_dirty d WHERE d.model = refreshed_model AND d.event_date = refreshed_date;
            EXECUTE format('DELETE FROM %s WHERE event_date = $1', m.target) USING refreshed_date;
            EXECUTE format('INSERT INTO %1$s (%2$s) SELECT %2$s FROM (%3$s) AS q WHERE q.event_date >= $1 AND q.event_date < $2',
                    m.target,
                    (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                      WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
                    m.query)
              USING refreshed_date, refreshed_date + 1;
            -- Only models that read this one care.
            IF EXISTS (SELECT FROM tidemark.model_sources s WHERE s.source = m.target) THEN
                PERFORM tidemark.mark_dirty(m.target, ARRAY[refreshed_date], 'refreshed ' || refreshed_model);
            END IF;
            UPDATE tidemark.models x SET refresh_count = refresh_count + 1, last_refreshed_at = clock_timestamp() WHERE x.name = refreshed_model;
            -- Another date's success cures nothing: an error stays until its own date, or whatever waits, is done.
            UPDATE tidemark.models x SET last_error = NULL, last_error_at = NULL
             WHERE x.name = refreshed_model AND x.last_error IS NOT NULL
               AND (starts_with(x.last_error, refreshed_date || ':')
                    OR NOT EXISTS (SELECT FROM tidemark.model_dirty d WHERE d.model = refreshed_model));
        EXCEPTION WHEN OTHERS THEN
            error := SQLERRM;
            UPDATE tidemark.models x SET last_error = refreshed_date || ': ' || error, last_error_at = clock_timestamp() WHERE x.name = refreshed_model;
        END;
        RETURN;
    END LOOP;
    refreshed_model := NULL;
    refreshed_date := NULL;
END
$$;
COMMENT ON FUNCTION tidemark.refresh_step(text, text[]) IS
'Recomputes one dirty date of one model and says which; all NULL when nothing is left to do. skip holds ''model date'' entries to pass over. Part of tidemark.refresh.';

CREATE PROCEDURE tidemark.refresh(model text DEFAULT NULL, max_dates integer DEFAULT NULL)
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit. Hence every name is qualified, operators too.
DECLARE
    step pg_catalog.record;
    failed pg_catalog.text[] := '{}';
    dates pg_catalog.int4 := 0;
BEGIN
    IF model IS NOT NULL AND NOT EXISTS (SELECT FROM tidemark.models m WHERE m.name OPERATOR(pg_catalog.=) model) THEN
        RAISE EXCEPTION 'model % does not exist', model USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark.models lists them.';
    END IF;
    WHILE max_dates IS NULL OR dates OPERATOR(pg_catalog.<) max_dates LOOP
        SELECT * INTO step FROM tidemark.refresh_step(model, failed);
        COMMIT;
        EXIT WHEN step.refreshed_model IS NULL;
        dates := dates OPERATOR(pg_catalog.+) 1;
        IF step.error IS NOT NULL THEN
            failed := pg_catalog.array_append(failed, pg_catalog.concat(step.refreshed_model, ' ', step.refreshed_date));
            RAISE WARNING 'model %, date %: %', step.refreshed_model, step.refreshed_date, step.error;
        END IF;
    END LOOP;
    IF pg_catalog.cardinality(failed) OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% model dates could not be refreshed', pg_catalog.cardinality(failed)
            USING HINT = 'The warnings above and tidemark.model_status say why; the dates stay dirty.';
    END IF;
END
$$;
COMMENT ON PROCEDURE tidemark.refresh(text, integer) IS
'Recomputes the dirty dates of one model (schema.table), or of all models in dependency order when model is NULL; at most max_dates dates, all when NULL. Each date is overwritten in a transaction of its own, so an interrupted refresh loses only the date in work and the next call goes on. CALL it outside a transaction block. Needs the rights of the owner of the models. Dates that fail stay dirty, are reported as warnings, and make the call fail at its end.';

CREATE VIEW tidemark.model_status AS
WITH waiting AS (
    SELECT d.model, d.event_date, d.marked_at FROM tidemark.model_dirty d
    UNION ALL
    SELECT s.model, l.event_date + shift.days, l.marked_at
      FROM tidemark.dirty_log l
      JOIN tidemark.model_sources s ON s.source = l.source
      JOIN tidemark.models m ON m.name = s.model
     CROSS JOIN LATERAL pg_catalog.generate_series(-m.lookahead_days, m.lookback_days) AS shift(days)
), per_model AS (
    SELECT w.model, pg_catalog.count(DISTINCT w.event_date) AS dirty_dates, pg_catalog.min(w.event_date) AS oldest_dirty_date,
           pg_catalog.min(w.marked_at) AS dirty_since
      FROM waiting w GROUP BY w.model
)
SELECT m.name AS model,
       COALESCE(p.dirty_dates, 0) AS dirty_dates,
       p.oldest_dirty_date,
       m.last_refreshed_at,
       COALESCE(EXTRACT(epoch FROM pg_catalog.now() - p.dirty_since), 0)::numeric(20, 3) AS freshness_seconds,
       m.last_error
  FROM tidemark.models m
  LEFT JOIN per_model p ON p.model = m.name;
COMMENT ON VIEW tidemark.model_status IS 'One row per model: what waits for a recompute and how it last went.';
COMMENT ON COLUMN tidemark.model_status.model IS 'Name of the model (schema.table).';
COMMENT ON COLUMN tidemark.model_status.dirty_dates IS 'How many dates wait for a recompute, marks not yet distributed included.';
COMMENT ON COLUMN tidemark.model_status.oldest_dirty_date IS 'The earliest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.last_refreshed_at IS 'When a date was last recomputed; NULL if never.';
COMMENT ON COLUMN tidemark.model_status.freshness_seconds IS 'For how long the model has been behind its sources: age of the oldest waiting mark in seconds; 0 when nothing waits.';
COMMENT ON COLUMN tidemark.model_status.last_error IS 'Date and message of the last failed recompute; NULL if none failed since the last success.';
