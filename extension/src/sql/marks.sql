-- Marks: which dates of which tables changed. Here: the append-only log that writers add to, and how its marks come to
-- the models. What marks say about loads goes on to freshness.sql, what they make stale is in stale_dates.sql.
--
-- Why no mark is ever lost: marks are rows without a shared key, so no writer's mark hides behind another's. A
-- refresher deletes the marks it can see first and reads the sources in a later statement, whose snapshot is newer:
-- whoever's mark it deleted has committed, so his rows are in the recompute; whoever commits in between leaves a
-- mark behind, and the date is recomputed once more.
--
-- A mark may say more than that rows of a date changed, so that less is to be done; what it does not say, is meant.
-- * added_by: none was changed or deleted, and this transaction added the rows, so many of them. A model that makes
--   each of its rows from one row of its source (append), or groups that can be put together (merge), only needs the
--   new ones, and finds them by it.
-- * persons: it concerns the rows of these persons only, by the column person_column of the source. A model that is
--   scoped by this column (scope) only needs theirs. The refresh of the model below says so, which knows the rows that
--   it wrote, or who calls tidemark.mark_persons (then for every column that a model is scoped by).
-- * since: of each of them only rows from this event time on changed. A model that knows from where on the rows of a
--   person can be computed (scope_since) needs theirs from there on.
-- * no date: all dates on which these persons have rows. They are looked up when the mark is taken, not when it is
--   made: whoever is just adding a row of theirs on another date could not be seen then.
-- * changed: only this column of the rows did. Models whose queries do not read it are not concerned.
-- All marks of a date together decide how it is refreshed (tidemark_internal.refresh_date): as the first of append,
-- merge and scope that all of them allow and the model has, and where there is none, or anything is not as expected,
-- recomputed.
--
-- And none that is distributed while a model is being registered, which nobody can see yet: its table was read before
-- the rows of the mark were there. Such marks stay in the log with the snapshot under which they were passed on, and
-- concern all models whose definition that snapshot does not contain. So nobody waits for a registration, however long.

CREATE TABLE tidemark_internal.dirty_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source regclass NOT NULL,
    -- Leaves room to widen: one impossible date must not stop the marks of everybody.
    event_date date CHECK (event_date BETWEEN '0001-01-01' AND '9999-12-31'),
    persons text[],
    since timestamptz[],
    person_column name,
    changed name,
    reason text,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    added_by xid,
    added bigint CHECK (added BETWEEN 0 AND 1000000000000),
    rows bigint CHECK (rows BETWEEN 0 AND 1000000000000),
    late_rows bigint CHECK (late_rows BETWEEN 0 AND 1000000000000),
    min_event_time timestamptz,
    max_event_time timestamptz,
    lateness bigint[] CHECK (pg_catalog.cardinality(lateness) = 12),
    passed pg_snapshot,
    set_aside text,
    CHECK (event_date IS NOT NULL OR persons IS NOT NULL),
    CHECK (min_event_time >= '0001-01-01 00:00:00Z' AND max_event_time < '10000-01-01 00:00:00Z')
);
CREATE INDEX ON tidemark_internal.dirty_log (source, event_date);
COMMENT ON TABLE tidemark_internal.dirty_log IS
'Append-only log: one row for each table, date and transaction that changed rows of that date. Consumed by '
'tidemark.refresh.';
COMMENT ON COLUMN tidemark_internal.dirty_log.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark_internal.dirty_log.source IS 'Table whose rows changed.';
COMMENT ON COLUMN tidemark_internal.dirty_log.event_date IS
'UTC date of the rows that changed; NULL: every date on which these persons have rows.';
COMMENT ON COLUMN tidemark_internal.dirty_log.persons IS 'Whose rows changed; NULL: not known, so anybody''s.';
COMMENT ON COLUMN tidemark_internal.dirty_log.since IS
'For each of persons: the earliest event_time among the rows that changed; NULL: not known.';
COMMENT ON COLUMN tidemark_internal.dirty_log.person_column IS
'Column of the table that persons are of; NULL: whichever a model is scoped by.';
COMMENT ON COLUMN tidemark_internal.dirty_log.changed IS
'The only column of these rows that changed; NULL: any may have.';
COMMENT ON COLUMN tidemark_internal.dirty_log.reason IS 'What changed them, for people who look.';
COMMENT ON COLUMN tidemark_internal.dirty_log.marked_at IS 'Start of the transaction that changed them.';
COMMENT ON COLUMN tidemark_internal.dirty_log.added_by IS
'Transaction, or part of one, that added rows of the date and changed or deleted none; NULL: not known.';
COMMENT ON COLUMN tidemark_internal.dirty_log.added IS 'How many rows it added; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.rows IS
'How many rows the transaction added to the date; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.late_rows IS 'How many of them were late; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.min_event_time IS
'Earliest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.max_event_time IS 'Latest event time among them; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.lateness IS
'How many of them fell into each bucket of lateness; NULL if it did not say.';
COMMENT ON COLUMN tidemark_internal.dirty_log.passed IS
'Snapshot under which it was passed on to the models: it only concerns those defined since. NULL: not yet.';
COMMENT ON COLUMN tidemark_internal.dirty_log.set_aside IS
'Why it could not be passed on: shown in tidemark.source_status. NULL for all good marks.';

CREATE TABLE tidemark_internal.model_dirty (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- No foreign key: it would make marks wait for whoever registers or drops the model.
    model text NOT NULL,
    event_date date,
    persons text[],
    since timestamptz[],
    marked_at timestamptz NOT NULL,
    added_by xid[],
    added bigint
);
CREATE INDEX ON tidemark_internal.model_dirty (model, event_date);
COMMENT ON TABLE tidemark_internal.model_dirty IS
'Append-only: dates of models that wait for a recompute. tidemark.refresh moves marks here from the dirty log, widened '
'by lookback and lookahead.';
COMMENT ON COLUMN tidemark_internal.model_dirty.id IS 'Identity of the mark.';
COMMENT ON COLUMN tidemark_internal.model_dirty.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_dirty.event_date IS
'Date to recompute; NULL: every date that has rows, of these persons if there are some.';
COMMENT ON COLUMN tidemark_internal.model_dirty.persons IS 'Whose rows to recompute; NULL: everybody''s.';
COMMENT ON COLUMN tidemark_internal.model_dirty.since IS
'For each of persons: the earliest event_time of what changed; NULL: not known.';
COMMENT ON COLUMN tidemark_internal.model_dirty.marked_at IS 'When the source was marked.';
COMMENT ON COLUMN tidemark_internal.model_dirty.added_by IS
'Transactions, or parts of them, that added rows of the source, where none was changed or deleted; NULL: not known.';
COMMENT ON COLUMN tidemark_internal.model_dirty.added IS 'How many rows they added; NULL if one did not say.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.dirty_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dirty', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.dirty_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dirty_id_seq', '');

CREATE FUNCTION tidemark_internal.check_may_mark(caller oid, source regclass, dates date[]) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    SELECT c.relkind, c.relpersistence, c.relowner INTO r FROM pg_class c WHERE c.oid = source;
    IF source IS NULL THEN
        RAISE EXCEPTION 'source must not be NULL' USING ERRCODE = '22004';
    ELSIF r IS NULL THEN
        RAISE EXCEPTION 'source % does not exist', source USING ERRCODE = '42P01';
    ELSIF r.relkind NOT IN ('r', 'p', 'f') OR r.relpersistence = 't' THEN
        RAISE EXCEPTION 'source % is not a table, or a temporary one', source USING ERRCODE = '42809';
    ELSIF NOT (has_any_column_privilege(caller, source, 'INSERT, UPDATE')
               OR has_table_privilege(caller, source, 'DELETE, TRUNCATE')
               OR tidemark_internal.may_act_as(caller, r.relowner)) THEN
        RAISE EXCEPTION 'permission denied to mark dates of table %', source
            USING ERRCODE = '42501', HINT = 'The caller needs INSERT, UPDATE, DELETE or TRUNCATE on it.';
    ELSIF EXISTS (SELECT FROM unnest(dates) AS d WHERE d NOT BETWEEN '0001-01-01' AND '9999-12-31') THEN
        RAISE EXCEPTION 'dates must lie in the years 1 to 9999' USING ERRCODE = '22008';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_may_mark(oid, regclass, date[]) IS
'Raises an error unless a role may mark these dates of source: who may write
a table, or owns it.';

CREATE FUNCTION tidemark_internal.current_xid() RETURNS xid
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_current_xid';
COMMENT ON FUNCTION tidemark_internal.current_xid() IS
'What xmin will be in the rows that are written now: the transaction, or the
part of it that may be undone by itself. Assigns one if there is none.';

CREATE FUNCTION tidemark.mark_dirty(source regclass, dates date[], reason text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.mark_dirty(regclass, date[], text) IS
'Records that rows of source changed on these UTC dates, so that
tidemark.refresh recomputes the models that read them. Call it in the
transaction that changes the rows, or it proves nothing. NULL dates are
skipped, doubled ones count once; 22008 for dates outside the years 1 to
9999, 22023 for a reason of more than 1,000 characters. The caller needs
INSERT, UPDATE, DELETE or TRUNCATE on source, or the rights of its owner.
source must not be a view or a temporary table (42809).';

CREATE FUNCTION tidemark_internal.mark_dirty(caller oid, source regclass, dates date[], reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.check_may_mark(caller, source, dates);
    IF length(reason) > 1000 THEN
        RAISE EXCEPTION 'reason must have at most 1000 characters' USING ERRCODE = '22023';
    END IF;
    INSERT INTO tidemark_internal.dirty_log (source, event_date, reason)
    SELECT mark_dirty.source, d, mark_dirty.reason
      FROM (SELECT DISTINCT unnest(dates) AS d) AS x
     WHERE d IS NOT NULL
     ORDER BY d;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_dirty(oid, regclass, date[], text) IS
'The work behind tidemark.mark_dirty.';

CREATE FUNCTION tidemark.mark_persons(source regclass, ids text[], reason text DEFAULT NULL,
    dates date[] DEFAULT NULL, changed name DEFAULT NULL, id_column name DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.mark_persons(regclass, text[], text, date[], name, name) IS
'Records that rows of these persons changed in source, on these UTC dates or
(NULL) on whichever, so that tidemark.refresh computes anew what models say
of them: those that are scoped only their rows, others every date. changed:
only this column did, and models that do not read it are left alone; hold
off refreshes by tidemark.change_dimension before such a change, which
tidemark.refresh_log then shows if source is a model. ids must be complete:
all values by which rows of these persons are found in source and in
models, before and after the change, or those of id_column alone (else of
changed); NULL: anybody''s, with dates. Call it in the same transaction.
NULL elements are skipped; none at all mark nothing. 54000: more than
100,000 ids, or one of more than 1,000 bytes; 22P02: one that is no value
of the column by which a model is scoped; 22004: neither ids nor dates;
22023: a reason of more than 1,000 characters; 42703: a column that is not
there. Needs what tidemark.mark_dirty needs.';

CREATE FUNCTION tidemark_internal.checked_ids(ids text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given CONSTANT text[] := CASE WHEN ids IS NOT NULL
                                  THEN ARRAY(SELECT DISTINCT x FROM unnest(ids) AS x WHERE x IS NOT NULL) END;
BEGIN
    IF cardinality(given) > 100000 THEN
        RAISE EXCEPTION 'ids must have at most 100000 elements' USING ERRCODE = '54000';
    ELSIF EXISTS (SELECT FROM unnest(given) AS x WHERE octet_length(x) > 1000) THEN
        RAISE EXCEPTION 'ids must have at most 1000 bytes each' USING ERRCODE = '54000';
    END IF;
    RETURN given;
END
$$;
COMMENT ON FUNCTION tidemark_internal.checked_ids(text[]) IS
'The ids of a mark, each once and without NULL; NULL for NULL. 54000 for too
many or too long ones.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.checked_ids(text[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.mark_persons(caller oid, source regclass, ids text[], reason text, dates date[],
    changed name, id_column name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given CONSTANT text[] := tidemark_internal.checked_ids(ids);
    missing CONSTANT name := (SELECT c FROM unnest(ARRAY[changed, id_column]) AS c
                               WHERE NOT EXISTS (SELECT FROM pg_attribute a
                                                  WHERE a.attrelid = mark_persons.source AND a.attname = c
                                                    AND a.attnum > 0 AND NOT a.attisdropped)
                                 AND c IS NOT NULL LIMIT 1);
    refused text;
BEGIN
    PERFORM tidemark_internal.check_may_mark(caller, source, dates);
    IF coalesce(ids::text, dates::text) IS NULL THEN
        RAISE EXCEPTION 'ids and dates must not both be NULL' USING ERRCODE = '22004';
    ELSIF length(reason) > 1000 THEN
        RAISE EXCEPTION 'reason must have at most 1000 characters' USING ERRCODE = '22023';
    ELSIF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', source, quote_ident(missing) USING ERRCODE = '42703';
    ELSIF given IS DISTINCT FROM '{}' THEN
        -- No cast: a type may be anybody's by now, and its code would run with the rights of the extension's owner.
        SELECT rtrim(t.ids_type, '[]') INTO refused
          FROM (SELECT DISTINCT tidemark_internal.ids_type(m) AS ids_type
                  FROM tidemark_internal.model_sources s JOIN tidemark_internal.models m ON m.name = s.model
                 WHERE s.source = mark_persons.source AND m.scope IS NOT NULL OFFSET 0) t
         WHERE t.ids_type IS NOT NULL AND given IS NOT NULL AND tidemark_internal.known_ids(given, t.ids_type) IS NULL
         LIMIT 1;
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION 'ids must be values of type %', refused
                USING ERRCODE = '22P02', HINT = 'It is that of the column by which a model of this source is scoped.';
        END IF;
        INSERT INTO tidemark_internal.dirty_log (source, event_date, persons, person_column, changed, reason)
        SELECT mark_persons.source, d, given, coalesce(id_column, mark_persons.changed), mark_persons.changed,
               mark_persons.reason
          FROM (SELECT DISTINCT unnest(dates) AS d UNION ALL SELECT NULL WHERE dates IS NULL) AS x
         WHERE d IS NOT NULL OR dates IS NULL
         ORDER BY d;
        -- Whoever does not read the column may still have to look for added rows by the transactions that added them,
        -- and would not find those that were changed since.
        INSERT INTO tidemark_internal.dirty_log (source, event_date, reason)
        SELECT mark_persons.source, w.event_date, mark_persons.reason
          FROM (SELECT l.event_date FROM tidemark_internal.dirty_log l
                 WHERE l.source = mark_persons.source AND l.added_by IS NOT NULL
                UNION
                SELECT d.event_date FROM tidemark_internal.model_sources s
                  JOIN tidemark_internal.model_dirty d ON d.model = s.model
                 WHERE s.source = mark_persons.source AND d.added_by IS NOT NULL) AS w
         WHERE mark_persons.changed IS NOT NULL AND (dates IS NULL OR w.event_date = ANY (dates))
         ORDER BY 2;
        -- For those who follow a model by its log. Under the lock of change_dimension its order is that of commits.
        INSERT INTO tidemark_internal.refresh_log (run, model, event_date, refreshed_at, rows_inserted, rows_updated,
                                                   rows_deleted, seconds, way, persons)
        SELECT now(), m.name, d, clock_timestamp(), 0, 0, 0, 0, 'changed', cardinality(given)
          FROM tidemark_internal.models m CROSS JOIN (SELECT DISTINCT unnest(dates) AS d) AS x
         WHERE m.target = mark_persons.source AND mark_persons.changed IS NOT NULL AND d IS NOT NULL
         ORDER BY d;
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_persons(oid, regclass, text[], text, date[], name, name) IS
'The work behind tidemark.mark_persons.';

CREATE FUNCTION tidemark.mark_loaded(source regclass, dates date[], rows bigint[], late_rows bigint[],
    min_event_times timestamptz[], max_event_times timestamptz[], lateness bigint[] DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.mark_loaded(regclass, date[], bigint[], bigint[], timestamptz[], timestamptz[],
    bigint[]) IS
'Records rows that a writer added: tidemark.mark_dirty for one that knows
more about them. Rows that it changed or deleted need tidemark.mark_dirty as
well: after this alone a refresh may look at new rows only. For each UTC
date: the number of rows, how many of them were late, the earliest and
latest event time, and the counts of the buckets of
tidemark.lateness_buckets(), twelve a date one after the other (NULL: not
counted). Feeds the watermark and the views lateness and source_status. Call
it in the transaction that loads the rows. Elements whose date is NULL are
skipped; arrays of different length raise 2202E, counts below 0 or above
10^12 22023, dates and times outside the years 1 to 9999 22008. Needs what
tidemark.mark_dirty needs.';

CREATE FUNCTION tidemark_internal.mark_loaded(caller oid, source regclass, dates date[], rows bigint[],
    late_rows bigint[], min_event_times timestamptz[], max_event_times timestamptz[], lateness bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    n CONSTANT integer := coalesce(cardinality(mark_loaded.dates), 0);
    -- However the array is written, its elements count from 1.
    buckets CONSTANT bigint[] := ARRAY(SELECT unnest(mark_loaded.lateness));
BEGIN
    PERFORM tidemark_internal.check_may_mark(caller, mark_loaded.source, mark_loaded.dates);
    IF n = 0 THEN
        RETURN;
    ELSIF (cardinality(mark_loaded.rows), cardinality(mark_loaded.late_rows), cardinality(mark_loaded.min_event_times),
           cardinality(mark_loaded.max_event_times)) IS DISTINCT FROM (n, n, n, n) THEN
        RAISE EXCEPTION 'rows, late_rows, min_event_times and max_event_times must have as many elements as dates, '
            'which has %', n USING ERRCODE = '2202E';
    ELSIF mark_loaded.lateness IS NOT NULL AND cardinality(buckets) <> 12 * n THEN
        RAISE EXCEPTION 'lateness must have 12 elements for each of % dates, has %', n, cardinality(buckets)
            USING ERRCODE = '2202E', HINT = 'tidemark.lateness_buckets() lists the buckets.';
    ELSIF EXISTS (SELECT FROM unnest(mark_loaded.rows || mark_loaded.late_rows || buckets) AS c
                   WHERE c NOT BETWEEN 0 AND 1000000000000) THEN
        RAISE EXCEPTION 'rows, late_rows and lateness must lie between 0 and 10^12' USING ERRCODE = '22023';
    ELSIF EXISTS (SELECT FROM unnest(mark_loaded.min_event_times || mark_loaded.max_event_times) AS t
                   WHERE t < '0001-01-01 00:00:00Z' OR t >= '10000-01-01 00:00:00Z') THEN
        RAISE EXCEPTION 'min_event_times and max_event_times must lie in the years 1 to 9999' USING ERRCODE = '22008';
    END IF;
    INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, added_by, added, rows, late_rows,
                                             min_event_time, max_event_time, lateness)
    SELECT mark_loaded.source, v.event_date, 'loaded', tidemark_internal.current_xid(), v.n_rows,
           coalesce(v.n_rows, 0), v.n_late, v.min_time, v.max_time, nullif(buckets[12 * v.i - 11 : 12 * v.i], '{}')
      FROM unnest(mark_loaded.dates, mark_loaded.rows, mark_loaded.late_rows, mark_loaded.min_event_times,
                  mark_loaded.max_event_times)
           WITH ORDINALITY AS v(event_date, n_rows, n_late, min_time, max_time, i)
     WHERE v.event_date IS NOT NULL
     ORDER BY v.event_date;
END
$$;
COMMENT ON FUNCTION tidemark_internal.mark_loaded(oid, regclass, date[], bigint[], bigint[], timestamptz[],
    timestamptz[], bigint[]) IS
'The work behind tidemark.mark_loaded.';

CREATE FUNCTION tidemark_internal.pass_on(ids bigint[], alone boolean) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
DECLARE
    half CONSTANT integer := cardinality(ids) / 2;
BEGIN
    PERFORM tidemark_internal.absorb_marks(ids);
    -- One statement, so that the snapshot that is noted is the one that decides which models there are.
    WITH gone AS (
        DELETE FROM tidemark_internal.dirty_log l WHERE alone AND l.id = ANY (ids)
        RETURNING l.source, l.event_date, l.persons, l.since, l.person_column, l.changed, l.marked_at, l.added_by,
                  l.added, l.passed
    ), kept AS (
        UPDATE tidemark_internal.dirty_log l
           SET passed = pg_current_snapshot(), rows = NULL, late_rows = NULL, lateness = NULL
         WHERE NOT alone AND l.id = ANY (ids)
        RETURNING l.source, l.event_date, l.persons, l.since, l.person_column, l.changed, l.marked_at, l.added_by,
                  l.added, NULL::pg_snapshot
    ), concerned AS (
        SELECT m.name, m.lookback_days, m.lookahead_days, k.event_date, k.marked_at,
               -- What a model that is new has of a date, the mark does not say, and nothing of neighbouring dates.
               CASE WHEN k.passed IS NULL AND m.lookback_days + m.lookahead_days = 0 THEN k.added_by END AS added_by,
               k.added,
               CASE WHEN k.passed IS NULL AND m.scope_source = coalesce(k.person_column, m.scope_source)
                    THEN k.persons END AS persons,
               CASE WHEN m.scope_since IS NOT NULL THEN k.since END AS since
          FROM (TABLE gone UNION ALL TABLE kept) AS k
          JOIN tidemark_internal.model_sources s ON s.source = k.source
                                                AND (k.changed = ANY (s.columns)) IS NOT FALSE
          JOIN tidemark_internal.models m ON m.name = s.model
         WHERE k.passed IS NULL OR NOT pg_visible_in_snapshot(m.defined_by, k.passed))
    INSERT INTO tidemark_internal.model_dirty (model, event_date, persons, since, marked_at, added_by, added)
    SELECT s.name, lower(span) + n, s.persons, s.since, s.marked_at, s.added_by, s.added
      FROM (SELECT c.name, c.persons, c.since, min(c.marked_at) AS marked_at,
                   array_agg(c.added_by) FILTER (WHERE c.added_by IS NOT NULL) AS added_by,
                   CASE WHEN count(*) = count(c.added) THEN sum(c.added)::bigint END AS added,
                   -- Of no date it has no bounds, and neither has what comes of it a date.
                   range_agg(daterange(c.event_date - c.lookahead_days, c.event_date + c.lookback_days, '[]')) AS dates
              FROM concerned c
             -- Where nothing is widened, each date keeps its own time.
             GROUP BY c.name, c.added_by IS NULL, c.persons, c.since, c.event_date IS NULL,
                      CASE WHEN c.lookback_days + c.lookahead_days = 0 THEN c.event_date END
           ) AS s
     CROSS JOIN LATERAL unnest(s.dates) AS span
     CROSS JOIN LATERAL generate_series(
           0, CASE WHEN isfinite(lower(span)) THEN upper(span) - lower(span) - 1 ELSE 0 END) AS n;
EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
    -- Whatever is wrong with a mark, and however it came here: only that one stays behind.
    IF half = 0 THEN
        UPDATE tidemark_internal.dirty_log l SET set_aside = concat(SQLSTATE, ' ', SQLERRM) WHERE l.id = ids[1];
    ELSE
        PERFORM tidemark_internal.pass_on(ids[:half], alone);
        PERFORM tidemark_internal.pass_on(ids[half + 1:], alone);
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.pass_on(bigint[], boolean) IS
'Part of tidemark_internal.distribute_dirty: passes these marks on to the
models that read the marked tables. alone: nobody is registering a model;
otherwise they stay in the log for models that are not yet to be seen. A
mark that raises an error is set aside.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.pass_on(bigint[], boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.distribute_dirty() RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1min'
SET plan_cache_mode = force_custom_plan  -- a plan made for a few ids compares each row with each of many
AS $$
DECLARE
    -- What one call, which is one transaction, takes: marks, and dates that come of them at most.
    most_marks CONSTANT integer := 100000;
    most_dates CONSTANT integer := 1000000;
    alone boolean := true;
    marks bigint[];
    ids bigint[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'marks are distributed at the isolation level READ COMMITTED only' USING ERRCODE = '25001';
    END IF;
    -- One distributor at a time. None is ever in a transaction for longer than this takes (models/refresh.rs).
    LOCK TABLE tidemark_internal.watermarks IN SHARE ROW EXCLUSIVE MODE;
    BEGIN
        LOCK TABLE tidemark_internal.model_sources IN SHARE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        alone := false;
    END;
    marks := ARRAY(SELECT l.id FROM tidemark_internal.dirty_log l
                    WHERE l.set_aside IS NULL AND (alone OR l.passed IS NULL) ORDER BY l.id LIMIT most_marks);
    ids := ARRAY(
        SELECT w.id
          FROM (SELECT l.id, sum(r.dates) OVER (ORDER BY l.id) - r.dates AS dates_before
                  FROM tidemark_internal.dirty_log l
                  LEFT JOIN (SELECT s.source, sum(1 + m.lookback_days + m.lookahead_days) AS dates
                               FROM tidemark_internal.model_sources s
                               JOIN tidemark_internal.models m ON m.name = s.model
                              GROUP BY s.source) AS r USING (source)
                 WHERE l.id = ANY (marks)) AS w
         WHERE coalesce(w.dates_before, 0) < most_dates
         ORDER BY w.id);
    IF ids <> '{}' THEN
        PERFORM tidemark_internal.pass_on(ids, alone);
    END IF;
    RETURN cardinality(ids) = most_marks OR cardinality(ids) < cardinality(marks);
END
$$;
COMMENT ON FUNCTION tidemark_internal.distribute_dirty() IS
'Part of tidemark.refresh: moves marks of the dirty log, up to a limit, to
the models that read the marked tables, widened by each model''s lookback
and lookahead. Returns whether some may be left.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.distribute_dirty() FROM PUBLIC;
