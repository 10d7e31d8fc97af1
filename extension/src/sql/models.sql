-- Models: derived tables whose rows for one event_date are a function of their sources' rows around that date. Here:
-- what is known of them, the append-only log of dates that changed, and which dates are stale, frozen or needed.
--
-- Why no mark is ever lost: marks are rows without a shared key, so no writer's mark hides behind another's. A
-- refresher deletes the marks it can see first and reads the sources in a later statement, whose snapshot is newer:
-- whoever's mark it deleted has committed, so his rows are in the recompute; whoever commits in between leaves a
-- mark behind, and the date is recomputed once more. A mark says whether rows were only added: then the rows of a model
-- that makes each of its rows from one row of its source only grow in number, and those that are there stay as they are.
--
-- Whose rights: these tables are open to everybody under row level security, which lets only members of the role
-- that owns a model's table write about it. Functions that only move or read marks are SECURITY DEFINER and run no
-- one's code. Users' queries run as the owner of the model's table, never as the caller (models/owner.rs).

CREATE TABLE tidemark_internal.models (
    name text PRIMARY KEY,
    target regclass NOT NULL UNIQUE,
    query text NOT NULL,
    key name[] NOT NULL,
    lookback_days integer NOT NULL CHECK (lookback_days BETWEEN 0 AND 1000),
    lookahead_days integer NOT NULL CHECK (lookahead_days BETWEEN 0 AND 1000),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    live_view regclass,
    refresh_count bigint NOT NULL DEFAULT 0,
    change_count bigint NOT NULL DEFAULT 0,
    last_refreshed_at timestamptz,
    last_error text,
    last_error_at timestamptz
);
COMMENT ON TABLE tidemark_internal.models IS 'Registered models. Written by tidemark.create_model, tidemark.drop_model and tidemark.refresh.';
COMMENT ON COLUMN tidemark_internal.models.name IS 'Name of the model: its target table as schema.table.';
COMMENT ON COLUMN tidemark_internal.models.target IS 'Table that holds the rows; has a column event_date.';
COMMENT ON COLUMN tidemark_internal.models.query IS 'SELECT with $1 (first date) and $2 (end date, exclusive) that computes the rows of those dates.';
COMMENT ON COLUMN tidemark_internal.models.key IS 'Columns that identify a row of the target.';
COMMENT ON COLUMN tidemark_internal.models.lookback_days IS 'How many days before a date the query reads.';
COMMENT ON COLUMN tidemark_internal.models.lookahead_days IS 'How many days after a date the query reads.';
COMMENT ON COLUMN tidemark_internal.models.created_at IS 'When the model was first registered.';
COMMENT ON COLUMN tidemark_internal.models.live_view IS 'View that is exact at any moment; NULL without one.';
COMMENT ON COLUMN tidemark_internal.models.refresh_count IS 'How many dates have been recomputed in all.';
COMMENT ON COLUMN tidemark_internal.models.change_count IS 'How many of these recomputes changed rows; materialized views follow it.';
COMMENT ON COLUMN tidemark_internal.models.last_refreshed_at IS 'When a date of the model was last recomputed.';
COMMENT ON COLUMN tidemark_internal.models.last_error IS 'Message of the last failed recompute; NULL once a date succeeded after it.';
COMMENT ON COLUMN tidemark_internal.models.last_error_at IS 'When the last recompute failed.';

CREATE TABLE tidemark_internal.model_sources (
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    source regclass NOT NULL,
    source_name text NOT NULL,
    PRIMARY KEY (model, source)
);
COMMENT ON TABLE tidemark_internal.model_sources IS 'Which tables a model reads.';
COMMENT ON COLUMN tidemark_internal.model_sources.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_sources.source IS 'Table that the model reads; may be the target of another model. Shown as a number when it was dropped.';
COMMENT ON COLUMN tidemark_internal.model_sources.source_name IS 'Its name when tidemark.create_model was called, as schema.table. When the table is dropped, one that is created under this name takes its place (tidemark_internal.adopt_sources).';

CREATE TABLE tidemark_internal.dirty_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source regclass NOT NULL,
    -- Leaves room to widen: one impossible date must not stop the marks of everybody.
    event_date date NOT NULL CHECK (event_date BETWEEN '0001-01-01' AND '9999-12-31'),
    reason text,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    only_added boolean NOT NULL DEFAULT false,
    rows bigint,
    late_rows bigint,
    min_event_time timestamptz,
    max_event_time timestamptz,
    lateness bigint[]
);
COMMENT ON TABLE tidemark_internal.dirty_log IS
'Append-only log: one row for each table, date and transaction that changed rows of that date. Consumed by tidemark.refresh.';
COMMENT ON COLUMN tidemark_internal.dirty_log.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark_internal.dirty_log.source IS 'Table whose rows changed.';
COMMENT ON COLUMN tidemark_internal.dirty_log.event_date IS 'UTC date of the rows that changed.';
COMMENT ON COLUMN tidemark_internal.dirty_log.reason IS 'What changed them, for people who look.';
COMMENT ON COLUMN tidemark_internal.dirty_log.marked_at IS 'Start of the transaction that changed them.';
COMMENT ON COLUMN tidemark_internal.dirty_log.only_added IS 'Whether rows of the date were only added, none changed or deleted.';
COMMENT ON COLUMN tidemark_internal.dirty_log.rows IS 'How many rows the transaction added to the date; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.late_rows IS 'How many of them were late; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.min_event_time IS 'Earliest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.max_event_time IS 'Latest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.lateness IS 'How many of them fell into each bucket of lateness; NULL if it did not say.';

CREATE TABLE tidemark_internal.model_dirty (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    event_date date NOT NULL,
    marked_at timestamptz NOT NULL,
    only_added boolean NOT NULL DEFAULT false
);
CREATE INDEX ON tidemark_internal.model_dirty (model, event_date);
COMMENT ON TABLE tidemark_internal.model_dirty IS
'Append-only: dates of models that wait for a recompute. tidemark.refresh moves marks here from the dirty log, widened by lookback and lookahead.';
COMMENT ON COLUMN tidemark_internal.model_dirty.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark_internal.model_dirty.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_dirty.event_date IS 'Date to recompute.';
COMMENT ON COLUMN tidemark_internal.model_dirty.marked_at IS 'When the source was marked.';
COMMENT ON COLUMN tidemark_internal.model_dirty.only_added IS 'Whether rows of the source were only added, none changed or deleted.';

CREATE TABLE tidemark_internal.refresh_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run timestamptz NOT NULL,
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    event_date date NOT NULL,
    refreshed_at timestamptz NOT NULL,
    rows_inserted bigint NOT NULL,
    rows_updated bigint NOT NULL,
    rows_deleted bigint NOT NULL,
    seconds numeric(12, 3) NOT NULL,
    appended boolean NOT NULL DEFAULT false,
    horizon xid8
);
CREATE INDEX ON tidemark_internal.refresh_log (model, event_date);
COMMENT ON TABLE tidemark_internal.refresh_log IS
'Which dates were recomputed and what that changed: one row per recompute, kept for 30 days and for the last 100,000. run = (SELECT max(run) ...) gives the last refresh.';
COMMENT ON COLUMN tidemark_internal.refresh_log.id IS 'Identity of the recompute; later ones are greater.';
COMMENT ON COLUMN tidemark_internal.refresh_log.run IS 'When the refresh began that did it.';
COMMENT ON COLUMN tidemark_internal.refresh_log.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.refresh_log.event_date IS 'Date that was recomputed.';
COMMENT ON COLUMN tidemark_internal.refresh_log.refreshed_at IS 'When it was done.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_inserted IS 'Rows that were not there before.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_updated IS 'Rows with the key of an older one but other values.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_deleted IS 'Rows whose key the query no longer returned.';
COMMENT ON COLUMN tidemark_internal.refresh_log.seconds IS 'How long the recompute of the date took.';
COMMENT ON COLUMN tidemark_internal.refresh_log.appended IS 'Whether only the rows that its source had gained were computed, instead of the whole date.';
COMMENT ON COLUMN tidemark_internal.refresh_log.horizon IS 'All transactions before this one had ended when it began: rows of these were seen.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.models', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_sources', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.dirty_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dirty', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.refresh_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.dirty_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dirty_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.refresh_log_id_seq', '');

CREATE FUNCTION tidemark_internal.is_member_of_owner(relation regclass) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT pg_has_role(c.relowner, 'MEMBER') FROM pg_class c WHERE c.oid = relation), false);
COMMENT ON FUNCTION tidemark_internal.is_member_of_owner(regclass) IS
'Whether the current user is the owner of a relation or a member of the role
that owns it; superusers always are. false when the relation is NULL or does
not exist.';

CREATE FUNCTION tidemark_internal.is_member_of_model(model text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT tidemark_internal.is_member_of_owner(m.target) FROM tidemark_internal.models m WHERE m.name = model), false);
COMMENT ON FUNCTION tidemark_internal.is_member_of_model(text) IS
'Whether the current user is a member of the role that owns the table of a
model, and so may refresh it. false when there is no such model or its table
is gone.';

ALTER TABLE tidemark_internal.models ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.models FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.models USING (tidemark_internal.is_member_of_owner(target));
CREATE POLICY orphans_go ON tidemark_internal.models FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = target));
ALTER TABLE tidemark_internal.model_sources ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.model_sources FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.model_sources USING (tidemark_internal.is_member_of_model(model));
ALTER TABLE tidemark_internal.model_dirty ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.model_dirty FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.model_dirty USING (tidemark_internal.is_member_of_model(model));
ALTER TABLE tidemark_internal.refresh_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.refresh_log FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.refresh_log USING (tidemark_internal.is_member_of_model(model));
ALTER TABLE tidemark_internal.dirty_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY writers_read ON tidemark_internal.dirty_log FOR SELECT
    USING (pg_catalog.has_table_privilege(source, 'SELECT, INSERT') OR tidemark_internal.is_member_of_owner(source));
CREATE POLICY writers_mark ON tidemark_internal.dirty_log FOR INSERT
    WITH CHECK (pg_catalog.has_table_privilege(source, 'INSERT, UPDATE, DELETE') OR tidemark_internal.is_member_of_owner(source));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.models, tidemark_internal.model_sources, tidemark_internal.model_dirty, tidemark_internal.refresh_log TO PUBLIC;
GRANT SELECT, INSERT ON tidemark_internal.dirty_log TO PUBLIC;

CREATE FUNCTION tidemark.mark_dirty(source regclass, dates date[], reason text DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO tidemark_internal.dirty_log (source, event_date, reason)
    SELECT mark_dirty.source, d, mark_dirty.reason
      FROM (SELECT DISTINCT unnest(dates) AS d) AS x
     WHERE d IS NOT NULL
     ORDER BY d;
END;
COMMENT ON FUNCTION tidemark.mark_dirty(regclass, date[], text) IS
'Records that rows of source changed on these UTC dates, so that
tidemark.refresh recomputes the models that read them. Call it in the
transaction that changes the rows, or it proves nothing. NULL dates are
skipped, doubled ones count once; 23514 for dates outside the years 1 to
9999. The caller needs INSERT, UPDATE or DELETE on source, or to be a member
of its owner.';

CREATE FUNCTION tidemark_internal.distribute_dirty() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER COST 10000
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    ids bigint[];
    moved bigint;
BEGIN
    -- Who only looks must not hold marks in an open transaction. The current user is the definer here.
    IF EXISTS (SELECT FROM tidemark_internal.models) AND NOT EXISTS (
        SELECT FROM tidemark_internal.models m JOIN pg_class c ON c.oid = m.target WHERE pg_has_role(session_user, c.relowner, 'MEMBER')) THEN
        RAISE EXCEPTION 'permission denied to distribute marks'
            USING ERRCODE = '42501', HINT = 'The session''s user must be a member of a role that owns a model.';
    END IF;
    -- Shared with the other refreshers, exclusive with create_model.
    PERFORM pg_advisory_xact_lock_shared(('tidemark_internal.models'::regclass)::oid::bigint);
    ids := ARRAY(SELECT l.id FROM tidemark_internal.dirty_log l ORDER BY l.id FOR UPDATE SKIP LOCKED);
    IF cardinality(ids) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM tidemark_internal.absorb_marks(ids);
    WITH marks AS (
        DELETE FROM tidemark_internal.dirty_log l WHERE l.id = ANY (ids) RETURNING l.source, l.event_date, l.marked_at, l.only_added)
    INSERT INTO tidemark_internal.model_dirty (model, event_date, marked_at, only_added)
    SELECT m.name, k.event_date + shift, min(k.marked_at), bool_and(k.only_added)
      FROM marks k
      JOIN tidemark_internal.model_sources s ON s.source = k.source
      JOIN tidemark_internal.models m ON m.name = s.model
     CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
     GROUP BY m.name, k.event_date + shift;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION tidemark_internal.distribute_dirty() IS
'Part of tidemark.refresh: moves the marks of the dirty log to the models
that read the marked tables, widened by each model''s lookback and lookahead.
Returns the number of model dates marked. The session''s user must be a
member of a role that owns a model.';

CREATE FUNCTION tidemark_internal.is_frozen(model text, event_date date) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 50
SET search_path = pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM tidemark_internal.models m
                 JOIN tidemark_internal.model_sources s ON s.model = m.name
                 JOIN tidemark_internal.retired_dates r ON r.parent = s.source
                WHERE m.name = is_frozen.model
                  AND r.event_date BETWEEN is_frozen.event_date - m.lookback_days AND is_frozen.event_date + m.lookahead_days)
    OR EXISTS (SELECT FROM tidemark_internal.models m
                 JOIN tidemark_internal.retired_dates r ON r.parent = m.target
                WHERE m.name = is_frozen.model AND r.event_date = is_frozen.event_date);
COMMENT ON FUNCTION tidemark_internal.is_frozen(text, date) IS
'Whether a date of a model is frozen: one of the source dates that it reads
was retired, or the date of the model''s own table was. A frozen date is
never recomputed: its rows stay as they are. false for an unknown model.';

CREATE FUNCTION tidemark_internal.models_in_order() RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 ROWS 20
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE depth(name, target, level) AS (
        SELECT m.name, m.target, 0 FROM tidemark_internal.models m
        UNION
        SELECT d.name, d.target, b.level + 1
          FROM depth b
          JOIN tidemark_internal.model_sources s ON s.source = b.target
          JOIN tidemark_internal.models d ON d.name = s.model
         WHERE b.level < 100)
    SELECT x.name FROM depth x GROUP BY x.name ORDER BY max(x.level), x.name;
END
$$;
COMMENT ON FUNCTION tidemark_internal.models_in_order() IS
'The names of all models, each after those that it reads: the order in which
tidemark.refresh works.';

CREATE FUNCTION tidemark_internal.waiting_dates(model text) RETURNS TABLE (event_date date, marked_at timestamptz, frozen boolean)
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off  -- the estimates of a recursive query are so high that compiling it would take a second
AS $$
#variable_conflict use_column
BEGIN
    -- plpgsql keeps the plan, which takes longer to make than to run: live views ask several times per query.
    RETURN QUERY
    -- The model, and the models that it reads, directly or through others.
    WITH RECURSIVE below(name) AS (
        SELECT m.name FROM tidemark_internal.models m WHERE m.name = waiting_dates.model
        UNION
        SELECT a.name FROM below b JOIN tidemark_internal.model_sources s ON s.model = b.name JOIN tidemark_internal.models a ON a.target = s.source
    ), cold(name, event_date) AS (
        -- See tidemark_internal.is_frozen.
        SELECT m.name, r.event_date + shift
          FROM below b
          JOIN tidemark_internal.models m ON m.name = b.name
          JOIN tidemark_internal.model_sources s ON s.model = m.name
          JOIN tidemark_internal.retired_dates r ON r.parent = s.source
         CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
        UNION
        SELECT m.name, r.event_date
          FROM below b JOIN tidemark_internal.models m ON m.name = b.name JOIN tidemark_internal.retired_dates r ON r.parent = m.target
    ), marks AS (
        SELECT x.model, x.event_date, min(x.marked_at) AS marked_at
          FROM (SELECT d.model, d.event_date, d.marked_at FROM tidemark_internal.model_dirty d WHERE d.model IN (SELECT b.name FROM below b)
                UNION ALL
                SELECT m.name, l.event_date + shift, l.marked_at
                  FROM (SELECT g.source, g.event_date, min(g.marked_at) AS marked_at FROM tidemark_internal.dirty_log g GROUP BY 1, 2) AS l
                  JOIN tidemark_internal.model_sources s ON s.source = l.source
                  JOIN tidemark_internal.models m ON m.name = s.model
                  JOIN below b ON b.name = m.name
                 CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift) AS x
         GROUP BY 1, 2
    ), waiting AS (
        SELECT k.model, k.event_date, k.marked_at, (k.model, k.event_date) IN (SELECT c.name, c.event_date FROM cold c) AS frozen FROM marks k
        UNION
        -- What is stale below is stale here, except where it will stay as it is.
        SELECT m.name, w.event_date + shift, w.marked_at, (m.name, w.event_date + shift) IN (SELECT c.name, c.event_date FROM cold c)
          FROM waiting w
          JOIN tidemark_internal.models a ON a.name = w.model
          JOIN tidemark_internal.model_sources s ON s.source = a.target
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN below b ON b.name = m.name
         CROSS JOIN LATERAL generate_series(-m.lookahead_days, m.lookback_days) AS shift
         WHERE NOT w.frozen)
    SELECT w.event_date, min(w.marked_at), bool_or(w.frozen) FROM waiting w
     WHERE w.model = waiting_dates.model
     GROUP BY w.event_date;
END
$$;
COMMENT ON FUNCTION tidemark_internal.waiting_dates(text) IS
'The dates of a model that the marks visible to the calling query make stale,
marks on the models below it included: each date once, with its oldest mark,
and whether it is frozen and so stays as it is. No rows for an unknown
model.';

CREATE FUNCTION tidemark.stale_dates(model text) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = stale_dates.model) THEN
        RAISE EXCEPTION 'model % does not exist', model USING ERRCODE = '42704', HINT = 'SELECT name FROM tidemark_internal.models lists them.';
    END IF;
    RETURN ARRAY(SELECT w.event_date FROM tidemark_internal.waiting_dates(model) w WHERE NOT w.frozen ORDER BY 1);
END
$$;
COMMENT ON FUNCTION tidemark.stale_dates(text) IS
'The dates on which the stored rows of a model may differ from what its query
would return, as seen by the calling query: those with marks, those that
read a stale date of another model; frozen dates are not among them.
Ascending; empty when the model is clean. Live views compute exactly these
dates. 42704 for an unknown model.';

CREATE FUNCTION tidemark_internal.date_blockers(source regclass, event_date date) RETURNS TABLE (model text, model_date date, reason text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH readers AS (
        SELECT m.name, m.lookback_days, m.lookahead_days, m.last_refreshed_at
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN pg_class c ON c.oid = m.target  -- a model whose table is gone needs nothing
         WHERE s.source = date_blockers.source)
    SELECT r.name, w.event_date, 'waits for a recompute'
      FROM readers r
     CROSS JOIN LATERAL tidemark_internal.waiting_dates(r.name) w
     WHERE NOT w.frozen
       AND w.event_date BETWEEN date_blockers.event_date - r.lookahead_days AND date_blockers.event_date + r.lookback_days
    UNION ALL
    SELECT r.name, date_blockers.event_date, 'the model was never refreshed'
      FROM readers r WHERE r.last_refreshed_at IS NULL
    UNION ALL
    SELECT r.name, date_blockers.event_date + r.lookback_days, 'the date is not over yet'
      FROM readers r
     WHERE date_blockers.event_date + r.lookback_days >= (now() AT TIME ZONE 'UTC')::date
    ORDER BY 1, 2, 3;
END;
COMMENT ON FUNCTION tidemark_internal.date_blockers(regclass, date) IS
'Why a date of a table must not be retired yet, one row per reason; no rows:
nothing stands in the way. A reason is a model that reads the table and has
a date that needs this one: that date waits for a recompute, or the model
was never refreshed, or the last date that reads this one is not over yet
(UTC). Frozen dates block nothing.';

CREATE VIEW tidemark.model_status AS
SELECT m.name AS model,
       w.dirty_dates,
       w.oldest_dirty_date,
       w.newest_dirty_date,
       w.frozen_dirty_dates,
       m.last_refreshed_at,
       COALESCE(EXTRACT(epoch FROM pg_catalog.now() - w.dirty_since), CASE WHEN m.last_refreshed_at IS NOT NULL THEN 0 END)::numeric(20, 3) AS freshness_seconds,
       m.last_error,
       m.last_error_at,
       ARRAY(SELECT s.source_name FROM tidemark_internal.model_sources s
              WHERE s.model = m.name AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.source) ORDER BY 1) AS missing_sources
  FROM tidemark_internal.models m
 CROSS JOIN LATERAL (
       SELECT pg_catalog.count(*) FILTER (WHERE NOT d.frozen) AS dirty_dates,
              pg_catalog.min(d.event_date) FILTER (WHERE NOT d.frozen) AS oldest_dirty_date,
              pg_catalog.max(d.event_date) FILTER (WHERE NOT d.frozen) AS newest_dirty_date,
              pg_catalog.count(*) FILTER (WHERE d.frozen) AS frozen_dirty_dates,
              pg_catalog.min(d.marked_at) FILTER (WHERE NOT d.frozen) AS dirty_since
         FROM tidemark_internal.waiting_dates(m.name) d) AS w;
GRANT SELECT ON tidemark.model_status TO PUBLIC;
COMMENT ON VIEW tidemark.model_status IS 'One row per model: what waits for a recompute and how it last went.';
COMMENT ON COLUMN tidemark.model_status.model IS 'Name of the model (schema.table).';
COMMENT ON COLUMN tidemark.model_status.dirty_dates IS 'How many dates are stale and wait for a recompute: those of tidemark.stale_dates.';
COMMENT ON COLUMN tidemark.model_status.oldest_dirty_date IS 'The earliest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.newest_dirty_date IS 'The latest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.frozen_dirty_dates IS 'How many dates have marks but stay as they are, because source dates that they read were retired.';
COMMENT ON COLUMN tidemark.model_status.last_refreshed_at IS 'When a date was last recomputed; NULL if never.';
COMMENT ON COLUMN tidemark.model_status.freshness_seconds IS 'For how long the stored rows have been behind the sources: age of the oldest mark that waits, in seconds; 0 when nothing waits, NULL when nothing waits and the model was never refreshed. Frozen dates do not count. The live view is never behind.';
COMMENT ON COLUMN tidemark.model_status.last_error IS 'Date and message of the last failed recompute; NULL once that date succeeded.';
COMMENT ON COLUMN tidemark.model_status.last_error_at IS 'When it failed; NULL while last_error is.';
COMMENT ON COLUMN tidemark.model_status.missing_sources IS 'Tables that the model reads and that were dropped, as schema.table: nothing that happens there is noticed. Empty when all are there. A table created under the same name is taken over by the next refresh.';
