-- Retention: which dates of a table are or were detached, and the steps that detach, drop and restore partitions. Each
-- step is one transaction and repairs what an earlier one left half done, so that a maintainer may die between any two.
-- They run as the owner of the table (maintenance.rs); what calls them is in maintenance.sql.

CREATE TABLE tidemark_internal.retired_dates (
    parent regclass NOT NULL,
    event_date date NOT NULL,
    partition text NOT NULL,
    state text NOT NULL CHECK (state IN ('detaching', 'detached', 'dropped')),
    retired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    partition_id regclass,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    retention_action text NOT NULL CHECK (retention_action IN ('drop', 'keep')),
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.retired_dates', '');
COMMENT ON TABLE tidemark_internal.retired_dates IS
'Dates whose partition is being or was detached by retention. tidemark.ensure_partitions refuses them, and models do not recompute what needs them. Written by tidemark.run_maintenance and tidemark maintain, and by tidemark.restore_partition, which removes a date.';
COMMENT ON COLUMN tidemark_internal.retired_dates.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.retired_dates.event_date IS 'A UTC date of the partition; a partition of several days has a row for each of them.';
COMMENT ON COLUMN tidemark_internal.retired_dates.partition IS 'Qualified name that the partition had when it was retired.';
COMMENT ON COLUMN tidemark_internal.retired_dates.state IS 'detaching: about to be detached, perhaps half done; detached: a table of its own; dropped: gone.';
COMMENT ON COLUMN tidemark_internal.retired_dates.retired_at IS 'When the row got its present state.';
COMMENT ON COLUMN tidemark_internal.retired_dates.partition_id IS 'The table itself; NULL once it is dropped.';
COMMENT ON COLUMN tidemark_internal.retired_dates.from_time IS 'Lower bound of the partition, inclusive.';
COMMENT ON COLUMN tidemark_internal.retired_dates.to_time IS 'Upper bound of the partition, exclusive.';
COMMENT ON COLUMN tidemark_internal.retired_dates.retention_action IS 'drop: the table is dropped once it is detached; keep: it stays.';

-- The owner may do to these rows what maintenance does as the owner; nothing here is done with more rights than that.
ALTER TABLE tidemark_internal.retired_dates ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.retired_dates FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.retired_dates
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = parent), 'MEMBER'));
CREATE POLICY nobodys ON tidemark_internal.retired_dates FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.retired_dates TO PUBLIC;

CREATE TABLE tidemark_internal.retention_holds (
    parent regclass NOT NULL,
    event_date date NOT NULL,
    held_until timestamptz NOT NULL,
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.retention_holds', '');
COMMENT ON TABLE tidemark_internal.retention_holds IS
'Dates that retention leaves alone for a while. Written by tidemark.restore_partition, so that a partition that was attached again is not retired at once; members of the owner of the table may write it, too.';
COMMENT ON COLUMN tidemark_internal.retention_holds.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.retention_holds.event_date IS 'The UTC date.';
COMMENT ON COLUMN tidemark_internal.retention_holds.held_until IS 'Until when its partition is not retired.';
ALTER TABLE tidemark_internal.retention_holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.retention_holds FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.retention_holds
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = parent), 'MEMBER'));
CREATE POLICY nobodys ON tidemark_internal.retention_holds FOR DELETE USING (NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = parent));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.retention_holds TO PUBLIC;

CREATE FUNCTION tidemark_internal.maintenance_lock_key(parent regclass) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1
SET search_path = pg_catalog, pg_temp
RETURN parent::oid::bigint::bit(32)::integer;
COMMENT ON FUNCTION tidemark_internal.maintenance_lock_key(regclass) IS
'The work behind tidemark_internal.try_maintenance_lock: the second key of
the advisory lock of a table; the first is 1953064045.';

CREATE FUNCTION tidemark_internal.try_maintenance_lock(parent regclass) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN pg_try_advisory_lock(1953064045, tidemark_internal.maintenance_lock_key(parent));
COMMENT ON FUNCTION tidemark_internal.try_maintenance_lock(regclass) IS
'Makes this session the maintainer of a table until
tidemark_internal.release_maintenance_lock or the end of the session; false
when another one is. For clients that detach partitions concurrently, in
several transactions.';

CREATE FUNCTION tidemark_internal.release_maintenance_lock(parent regclass) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN pg_advisory_unlock(1953064045, tidemark_internal.maintenance_lock_key(parent));
COMMENT ON FUNCTION tidemark_internal.release_maintenance_lock(regclass) IS
'Undoes one tidemark_internal.try_maintenance_lock that returned true.';

CREATE FUNCTION tidemark_internal.retirement_blocker(parent regclass, from_time timestamptz, to_time timestamptz) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    first_date date := from_time::date;
    last_date date := (to_time - interval '1 microsecond')::date;
    there record;
BEGIN
    IF NOT isfinite(from_time) OR NOT isfinite(to_time) THEN
        RETURN 'its bounds are open';
    END IF;
    SELECT h.held_until INTO there FROM tidemark_internal.retention_holds h
     WHERE h.parent = retirement_blocker.parent AND h.event_date BETWEEN first_date AND last_date AND h.held_until > clock_timestamp()
     ORDER BY h.held_until DESC LIMIT 1;
    IF FOUND THEN
        RETURN format('held until %s', there.held_until);
    END IF;
    SELECT b.model, b.model_date, b.reason INTO there
      FROM generate_series(first_date::timestamp, last_date::timestamp, interval '1 day') AS d
     CROSS JOIN LATERAL tidemark_internal.date_blockers(parent, d::date) AS b
     LIMIT 1;
    IF FOUND THEN
        RETURN format('model %s still needs it for %s: %s', there.model, there.model_date, there.reason);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.retirement_blocker(regclass, timestamptz, timestamptz) IS
'The work behind maintenance: why the dates from from_time to to_time
(exclusive) of a table may not be retired now: a model needs them, a hold,
or open bounds; NULL when they may.';

CREATE FUNCTION tidemark_internal.retention_limit(parent regclass) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    SELECT ((now() AT TIME ZONE 'UTC')::date - c.retention_days)::timestamptz
      FROM tidemark_internal.partition_config c WHERE c.parent = retention_limit.parent;
END;
COMMENT ON FUNCTION tidemark_internal.retention_limit(regclass) IS
'The work behind maintenance: partitions that end at or before this time are
due to be retired; NULL for a table without retention.';

CREATE FUNCTION tidemark_internal.due_partitions(parent regclass)
RETURNS TABLE (partition regclass, from_time timestamptz, to_time timestamptz, blocked text)
LANGUAGE sql STABLE PARALLEL SAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT b.partition, b.from_time, b.to_time, tidemark_internal.retirement_blocker(parent, b.from_time, b.to_time)
      FROM tidemark_internal.partition_bounds(parent) b
     WHERE NOT b.pending AND b.to_time <= tidemark_internal.retention_limit(parent)
       AND NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = due_partitions.parent AND r.partition_id = b.partition)
     ORDER BY b.from_time;
END;
COMMENT ON FUNCTION tidemark_internal.due_partitions(regclass) IS
'The work behind maintenance: the attached partitions of a managed table that
retention wants to retire, oldest first; blocked says why one may not be
retired now, NULL when it may.';

CREATE FUNCTION tidemark_internal.drop_refusal(parent regclass, event_date date) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired record;
    there record;
BEGIN
    SELECT * INTO retired FROM tidemark_internal.retired_dates r WHERE r.parent = drop_refusal.parent AND r.event_date = drop_refusal.event_date;
    SELECT c.relkind, c.relispartition, c.relowner, c.oid::regclass::text AS name INTO there FROM pg_class c WHERE c.oid = retired.partition_id;
    -- A name alone proves nothing: somebody may have renamed the table, or put another one in its place.
    IF there.relkind IS NULL THEN
        RETURN 'the table is gone';
    ELSIF there.name <> retired.partition THEN
        RETURN format('%s is now called %s', retired.partition, there.name);
    ELSIF there.relkind NOT IN ('r', 'p') OR there.relispartition THEN
        RETURN format('%s is a partition again', there.name);
    ELSIF there.relowner <> (SELECT c.relowner FROM pg_class c WHERE c.oid = parent) THEN
        RETURN format('%s does not belong to the owner of %s', there.name, parent);
    END IF;
    RETURN tidemark_internal.retirement_blocker(parent, retired.from_time, retired.to_time);
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_refusal(regclass, date) IS
'The work behind maintenance: why the detached partition of a retired date
may not be dropped: it is not the table that was detached, or a model needs
it; NULL when it may.';

CREATE FUNCTION tidemark_internal.set_retired(parent regclass, partition regclass, from_time timestamptz, to_time timestamptz, state text, retention_action text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    INSERT INTO tidemark_internal.retired_dates AS r (parent, event_date, partition, state, retired_at, partition_id, from_time, to_time, retention_action)
    SELECT parent, d::date, partition::text, state, clock_timestamp(), partition, from_time, to_time, retention_action
      FROM generate_series(from_time::date::timestamp, (to_time - interval '1 microsecond')::date::timestamp, interval '1 day') AS d
    ON CONFLICT ON CONSTRAINT retired_dates_pkey DO UPDATE SET state = excluded.state, retired_at = excluded.retired_at;
END;
COMMENT ON FUNCTION tidemark_internal.set_retired(regclass, regclass, timestamptz, timestamptz, text, text) IS
'The work behind maintenance: writes the rows of
tidemark_internal.retired_dates for the dates of one partition.';

CREATE FUNCTION tidemark_internal.attach_again(parent regclass, partition regclass, from_time timestamptz, to_time timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    key_column name := tidemark_internal.check_partitioned(parent);
    bounds text;
    other name;
BEGIN
    -- DETACH CONCURRENTLY may have left a CHECK equal to the bounds. Ours is added where it did not; that reads the
    -- partition before the parent is locked, and ATTACH reads it no more.
    bounds := format('((%1$I IS NOT NULL) AND (%1$I >= %2$L::timestamp with time zone) AND (%1$I < %3$L::timestamp with time zone))', key_column, from_time, to_time);
    IF NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = partition AND c.contype = 'c' AND c.convalidated AND pg_get_expr(c.conbin, c.conrelid) = bounds) THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tidemark_bounds CHECK %s', partition, bounds);
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent, partition, from_time, to_time);
    FOR other IN
        SELECT c.conname FROM pg_constraint c
         WHERE c.conrelid = partition AND c.contype = 'c' AND c.conislocal AND c.coninhcount = 0 AND pg_get_expr(c.conbin, c.conrelid) = bounds
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', partition, other);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.attach_again(regclass, regclass, timestamptz, timestamptz) IS
'The work behind maintenance: attaches a detached partition with its old
bounds.';

CREATE FUNCTION tidemark_internal.wanted_dates(parent regclass) RETURNS SETOF date
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    config tidemark_internal.partition_config;
    today date := (now() AT TIME ZONE 'UTC')::date;
    first_date date;
    last_date date;
BEGIN
    SELECT * INTO config FROM tidemark_internal.partition_config c WHERE c.parent = wanted_dates.parent;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Dates ahead; and those that came while no maintenance ran. Older holes stay: somebody may have made them on
    -- purpose, and the loader makes what late events need. The data do not count: one event of 2100 makes nothing.
    first_date := greatest(least(today, coalesce(config.last_success, config.managed_since)::date), today - coalesce(config.retention_days, 366), today - 366);
    SELECT greatest(today + config.premake_days, least(max(b.to_time) - interval '1 day', (today + 366)::timestamptz)::date) INTO last_date
      FROM tidemark_internal.partition_bounds(parent) b WHERE isfinite(b.to_time);
    RETURN QUERY
        SELECT d FROM tidemark_internal.missing_dates(parent, first_date, last_date) AS d
         WHERE NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = wanted_dates.parent AND r.event_date = d)
         ORDER BY 1;
END
$$;
COMMENT ON FUNCTION tidemark_internal.wanted_dates(regclass) IS
'The UTC dates for which maintenance would create a partition now, ascending:
from today, or from the day of the last success, to premake_days ahead or
the newest partition (at most 366 days ahead); retired dates left out. A
table that is not managed gives no rows.';

CREATE FUNCTION tidemark_internal.create_step(parent regclass) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    run record;
    created regclass[] := '{}';
BEGIN
    FOR run IN
        SELECT min(m.day) AS first, max(m.day) AS last
          FROM (SELECT d AS day, d - row_number() OVER (ORDER BY d)::integer AS island FROM tidemark_internal.wanted_dates(parent) AS d) AS m
         GROUP BY m.island ORDER BY 1
    LOOP
        created := created || tidemark_internal.create_partitions(parent, run.first, run.last);
    END LOOP;
    IF created = '{}' THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY['create', '', array_to_string(created, ', '), cardinality(created)::text];
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_step(regclass) IS
'The work behind maintenance: creates in one transaction the partitions of
all tidemark_internal.wanted_dates of a table. NULL when none is missing.';

CREATE FUNCTION tidemark_internal.retire_step(parent regclass, by_client boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    config tidemark_internal.partition_config;
    half record;
    due record;
    pending boolean;
    began timestamptz;
    blocked text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would not see the marks of a writer that we waited for.
        RAISE EXCEPTION 'partitions are retired in READ COMMITTED transactions only' USING ERRCODE = '25000', HINT = 'SET default_transaction_isolation = ''read committed'';';
    END IF;
    SELECT * INTO config FROM tidemark_internal.partition_config c WHERE c.parent = retire_step.parent;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF NOT pg_try_advisory_xact_lock(1953064045, tidemark_internal.maintenance_lock_key(parent)) THEN
        RETURN ARRAY['skip', '', '', ''];
    END IF;
    -- DETACH CONCURRENTLY is refused beside a DEFAULT partition.
    by_client := by_client AND EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = parent AND p.partdefid = 0);

    -- A detach that somebody else began and left pending hides its rows already and stands in the way of ours.
    SELECT b.* INTO due FROM tidemark_internal.partition_bounds(parent) b
     WHERE b.pending AND NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.partition_id = b.partition);
    IF FOUND THEN
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, due.partition);
        IF isfinite(due.from_time) AND isfinite(due.to_time) THEN
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detached', 'keep');
        END IF;
        RETURN ARRAY['finalize', due.from_time::date::text, due.partition::text, ''];
    END IF;

    -- What an earlier round left half done comes first.
    SELECT * INTO half FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.state = 'detaching' ORDER BY r.event_date LIMIT 1;
    IF FOUND THEN
        SELECT i.inhdetachpending INTO pending FROM pg_inherits i WHERE i.inhrelid = half.partition_id AND i.inhparent = parent;
        IF NOT FOUND THEN
            IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = half.partition_id AND c.oid::regclass::text = half.partition) THEN
                UPDATE tidemark_internal.retired_dates r SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
                 WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
                RETURN ARRAY['forget', half.event_date::text, half.partition, ''];
            END IF;
            -- Detached. Everybody who could write through the parent has ended: what they marked is visible now. Without
            -- its row, that is: dates that read a retired date are frozen and would not ask for it.
            DELETE FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
            blocked := CASE WHEN half.to_time <= tidemark_internal.retention_limit(parent) THEN tidemark_internal.retirement_blocker(parent, half.from_time, half.to_time)
                            ELSE 'it is not due any more' END;
            IF blocked IS NULL THEN
                PERFORM tidemark_internal.set_retired(parent, half.partition_id, half.from_time, half.to_time, 'detached', half.retention_action);
                RETURN ARRAY['detached', half.event_date::text, half.partition, ''];
            END IF;
            PERFORM tidemark_internal.attach_again(parent, half.partition_id, half.from_time, half.to_time);
            -- Whoever read the table meanwhile missed these rows.
            PERFORM tidemark.mark_dirty(parent, ARRAY(SELECT d::date FROM generate_series(half.from_time::date::timestamp, (half.to_time - interval '1 microsecond')::date::timestamp, interval '1 day') AS d), 'attached again');
            RETURN ARRAY['attach', half.event_date::text, half.partition, blocked];
        ELSIF pending THEN
            EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, half.partition_id);
            RETURN ARRAY['finalize', half.event_date::text, half.partition, ''];
        END IF;
        -- Still attached: nothing has happened yet. Begin anew, or not at all.
        DELETE FROM tidemark_internal.retired_dates r WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
    END IF;

    FOR due IN SELECT * FROM tidemark_internal.due_partitions(parent) LOOP
        CONTINUE WHEN due.blocked IS NOT NULL;
        IF by_client THEN
            EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detaching', config.retention_action);
            RETURN ARRAY['detach', due.from_time::date::text, due.partition::text, format('ALTER TABLE %s DETACH PARTITION %s CONCURRENTLY', parent, due.partition)];
        END IF;
        -- Others queue behind our request: both locks together may take no longer than one lock_timeout.
        began := clock_timestamp();
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', parent);
        PERFORM set_config('lock_timeout', greatest(100, 2000 - (extract(epoch FROM clock_timestamp() - began) * 1000)::integer)::text, true);
        -- Nobody writes now. Whoever wrote before we had the lock has committed, and their marks are visible.
        blocked := tidemark_internal.retirement_blocker(parent, due.from_time, due.to_time);
        IF blocked IS NOT NULL THEN
            RETURN ARRAY['refused', due.from_time::date::text, due.partition::text, blocked];
        END IF;
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, due.partition);
        PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detached', config.retention_action);
        RETURN ARRAY['detached', due.from_time::date::text, due.partition::text, ''];
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.retire_step(regclass, boolean) IS
'The work behind maintenance: takes the next step towards detaching what is
due: repairs what was left half done, or detaches one partition. With
by_client it only notes the partition and returns the statement that the
client has to send. NULL when nothing is left to do.';

CREATE FUNCTION tidemark_internal.drop_step(parent regclass) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    retired record;
    refused text;
    failed text;
    code text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1953064045, tidemark_internal.maintenance_lock_key(parent)) THEN
        RETURN ARRAY['skip', '', '', ''];
    END IF;
    FOR retired IN
        SELECT DISTINCT ON (r.partition_id) r.*
          FROM tidemark_internal.retired_dates r JOIN tidemark_internal.partition_config c ON c.parent = r.parent
         WHERE r.parent = drop_step.parent AND r.state = 'detached' AND r.retention_action = 'drop'
           -- Both then and now: whoever turns to keep keeps what is still there.
           AND c.retention_action = 'drop' AND r.to_time <= tidemark_internal.retention_limit(r.parent)
         ORDER BY r.partition_id, r.event_date
    LOOP
        refused := tidemark_internal.drop_refusal(parent, retired.event_date);
        IF refused = 'the table is gone' THEN
            UPDATE tidemark_internal.retired_dates r SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
             WHERE r.parent = drop_step.parent AND r.partition_id IS NOT DISTINCT FROM retired.partition_id AND r.partition = retired.partition;
            RETURN ARRAY['forget', retired.event_date::text, retired.partition, ''];
        END IF;
        CONTINUE WHEN refused IS NOT NULL;
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', retired.partition_id);
            -- The name was looked up anew for the lock; and it may have been needed while we waited.
            CONTINUE WHEN to_regclass(retired.partition) IS DISTINCT FROM retired.partition_id OR tidemark_internal.drop_refusal(parent, retired.event_date) IS NOT NULL;
            EXECUTE format('DROP TABLE %s', retired.partition_id);
            UPDATE tidemark_internal.retired_dates r SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
             WHERE r.parent = drop_step.parent AND r.partition_id = retired.partition_id;
            RETURN ARRAY['drop', retired.event_date::text, retired.partition, ''];
        EXCEPTION WHEN OTHERS THEN
            -- A view on one partition must not keep the others.
            GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, failed = MESSAGE_TEXT;
        END;
    END LOOP;
    IF failed IS NOT NULL THEN
        RAISE EXCEPTION '%', failed USING ERRCODE = code;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_step(regclass) IS
'The work behind maintenance: drops one partition that was detached to be
dropped, after it is proved to be that very table. NULL when nothing is left
to do.';

CREATE FUNCTION tidemark_internal.restore_step(parent regclass, event_date date, hold interval) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    retired record;
    pending boolean;
BEGIN
    IF event_date IS NULL OR hold IS NULL OR hold < interval '0' THEN
        RAISE EXCEPTION 'event_date and hold must not be NULL, and hold not negative' USING ERRCODE = '22023';
    END IF;
    IF NOT pg_try_advisory_xact_lock(1953064045, tidemark_internal.maintenance_lock_key(parent)) THEN
        RAISE EXCEPTION 'table % is under maintenance', parent USING ERRCODE = '55P03', HINT = 'Try again when it is done.';
    END IF;
    SELECT * INTO retired FROM tidemark_internal.retired_dates r WHERE r.parent = restore_step.parent AND r.event_date = restore_step.event_date;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'date % of % is not retired', event_date, parent USING ERRCODE = '42704', HINT = 'tidemark_internal.retired_dates lists those that are.';
    ELSIF retired.state = 'dropped' OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = retired.partition_id AND c.oid::regclass::text = retired.partition) THEN
        RAISE EXCEPTION 'the partition of date % of % is gone', event_date, parent
            USING ERRCODE = '55000', HINT = 'Its rows are gone. To begin the date anew, delete its row from tidemark_internal.retired_dates.';
    END IF;
    SELECT i.inhdetachpending INTO pending FROM pg_inherits i WHERE i.inhrelid = retired.partition_id AND i.inhparent = parent;
    IF FOUND AND pending THEN
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, retired.partition_id);
    END IF;
    IF pending IS DISTINCT FROM false THEN
        PERFORM tidemark_internal.attach_again(parent, retired.partition_id, retired.from_time, retired.to_time);
    END IF;
    DELETE FROM tidemark_internal.retention_holds h WHERE h.parent = restore_step.parent AND h.held_until <= clock_timestamp();
    INSERT INTO tidemark_internal.retention_holds AS h (parent, event_date, held_until)
    SELECT r.parent, r.event_date, clock_timestamp() + hold FROM tidemark_internal.retired_dates r
     WHERE r.parent = restore_step.parent AND r.partition_id = retired.partition_id
    ON CONFLICT ON CONSTRAINT retention_holds_pkey DO UPDATE SET held_until = excluded.held_until;
    DELETE FROM tidemark_internal.retired_dates r WHERE r.parent = restore_step.parent AND r.partition_id = retired.partition_id;
    RETURN ARRAY['attach', event_date::text, retired.partition, ''];
END
$$;
COMMENT ON FUNCTION tidemark_internal.restore_step(regclass, date, interval) IS
'The work behind tidemark.restore_partition, with the rights of the caller.';

CREATE FUNCTION tidemark_internal.record_step(parent regclass, error text) RETURNS text[]
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
BEGIN ATOMIC
    UPDATE tidemark_internal.partition_config c
       SET lock_timeouts = c.lock_timeouts + CASE WHEN error IN ('55P03', '40P01') THEN 1 ELSE 0 END,
           last_success = CASE WHEN error IS NULL THEN clock_timestamp() ELSE c.last_success END,
           last_error = CASE WHEN error IN ('55P03', '40P01') THEN c.last_error ELSE error END,
           last_error_at = CASE WHEN error IS NULL THEN NULL WHEN error IN ('55P03', '40P01') THEN c.last_error_at ELSE clock_timestamp() END
     WHERE c.parent = record_step.parent
    RETURNING ARRAY['record', '', '', ''];
END;
COMMENT ON FUNCTION tidemark_internal.record_step(regclass, text) IS
'The work behind maintenance: notes how maintenance of a table went: error
NULL for a success, a bare 55P03 or 40P01 for a lock that was not to be had,
else what failed.';
