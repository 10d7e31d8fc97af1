-- Retention: which dates of a table are or were detached, and the steps that detach, drop and restore partitions. Each
-- step is one transaction and repairs what an earlier one left half done, so that a maintainer may die between any two.
-- What calls them is in maintenance.sql; they work as the extension's owner, and touch users' tables as their owner.
--
-- Two maintainers at once: a step locks the row of the table in partition_config, which nobody else can lock, and is
-- passed over where it is locked. DETACH CONCURRENTLY takes several transactions of a client; meanwhile the note about
-- its partition says which session is at it, and others leave the table alone while that session lives.

CREATE TABLE tidemark_internal.retired_dates (
    parent regclass NOT NULL,
    event_date date NOT NULL CHECK (event_date BETWEEN '0001-01-01' AND '9999-12-31'),
    partition text NOT NULL,
    state text NOT NULL CHECK (state IN ('detaching', 'detached', 'dropped')),
    retired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    partition_id regclass,
    from_time timestamptz NOT NULL CHECK (pg_catalog.isfinite(from_time)),
    to_time timestamptz NOT NULL CHECK (pg_catalog.isfinite(to_time)),
    retention_action text NOT NULL CHECK (retention_action IN ('drop', 'keep')),
    detached_by integer,
    detached_by_since timestamptz,
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.retired_dates', '');
COMMENT ON TABLE tidemark_internal.retired_dates IS
'Dates whose partition is being or was detached by retention. tidemark.ensure_partitions refuses them, and models '
'do not recompute what needs them. Written by maintenance; tidemark.restore_partition and tidemark.reopen_date '
'remove a date.';
COMMENT ON COLUMN tidemark_internal.retired_dates.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.retired_dates.event_date IS
'A UTC date of the partition; a partition of several days has a row for each of them.';
COMMENT ON COLUMN tidemark_internal.retired_dates.partition IS
'Qualified name that the partition had when it was retired.';
COMMENT ON COLUMN tidemark_internal.retired_dates.state IS
'detaching: about to be detached, perhaps half done; detached: a table of its own; dropped: gone.';
COMMENT ON COLUMN tidemark_internal.retired_dates.retired_at IS 'When the row got its present state.';
COMMENT ON COLUMN tidemark_internal.retired_dates.partition_id IS 'The table itself; NULL once it is dropped.';
COMMENT ON COLUMN tidemark_internal.retired_dates.from_time IS 'Lower bound of the partition, inclusive.';
COMMENT ON COLUMN tidemark_internal.retired_dates.to_time IS 'Upper bound of the partition, exclusive.';
COMMENT ON COLUMN tidemark_internal.retired_dates.retention_action IS
'drop: the table is dropped once it is detached; keep: it stays.';
COMMENT ON COLUMN tidemark_internal.retired_dates.detached_by IS
'Process id of the session that detaches it concurrently; NULL where a step does it.';
COMMENT ON COLUMN tidemark_internal.retired_dates.detached_by_since IS 'When that session began.';
GRANT SELECT ON tidemark_internal.retired_dates TO PUBLIC;

CREATE VIEW tidemark.retired_dates AS
SELECT r.parent, r.event_date, r.partition, r.state, r.retired_at FROM tidemark_internal.retired_dates r;
COMMENT ON VIEW tidemark.retired_dates IS
'Dates whose partition is being or was detached by retention, or was found detached. No partition is made for them,'
' and models do not recompute what needs them; tidemark.restore_partition brings one back, tidemark.reopen_date '
'begins it anew.';
COMMENT ON COLUMN tidemark.retired_dates.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark.retired_dates.event_date IS
'A UTC date of the partition; a partition of several days has a row for each of them.';
COMMENT ON COLUMN tidemark.retired_dates.partition IS 'Qualified name that the partition had when it was retired.';
COMMENT ON COLUMN tidemark.retired_dates.state IS
'detaching: about to be detached, perhaps half done; detached: a table of its own; dropped: gone.';
COMMENT ON COLUMN tidemark.retired_dates.retired_at IS 'When it got this state.';
GRANT SELECT ON tidemark.retired_dates TO PUBLIC;

CREATE TABLE tidemark_internal.retention_holds (
    parent regclass NOT NULL,
    event_date date NOT NULL CHECK (event_date BETWEEN '0001-01-01' AND '9999-12-31'),
    held_until timestamptz NOT NULL CHECK (pg_catalog.isfinite(held_until)),
    code text CHECK (code ~ '^[0-9A-Z]{5}$'),
    error text,
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.retention_holds', '');
COMMENT ON TABLE tidemark_internal.retention_holds IS
'Dates that retention leaves alone for a while: a partition that tidemark.restore_partition attached again, and one'
' whose DETACH Postgres refused.';
COMMENT ON COLUMN tidemark_internal.retention_holds.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark_internal.retention_holds.event_date IS 'The UTC date.';
COMMENT ON COLUMN tidemark_internal.retention_holds.held_until IS 'Until when its partition is not retired.';
COMMENT ON COLUMN tidemark_internal.retention_holds.code IS
'SQLSTATE with which its DETACH was refused; NULL for a restored one.';
COMMENT ON COLUMN tidemark_internal.retention_holds.error IS
'SQLSTATE and message of that. It may quote values, so it is not open to all.';
GRANT SELECT (parent, event_date, held_until, code) ON tidemark_internal.retention_holds TO PUBLIC;

CREATE FUNCTION tidemark_internal.holds_whole_dates(from_time timestamptz, to_time timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1
SET search_path = pg_catalog, pg_temp
RETURN from_time >= '0001-01-01 00:00:00Z' AND to_time <= '10000-01-01 00:00:00Z'
   AND date_trunc('day', from_time AT TIME ZONE 'UTC') = from_time AT TIME ZONE 'UTC'
   AND date_trunc('day', to_time AT TIME ZONE 'UTC') = to_time AT TIME ZONE 'UTC';
COMMENT ON FUNCTION tidemark_internal.holds_whole_dates(timestamptz, timestamptz) IS
'Whether a partition with these bounds holds whole UTC dates, of the years 1
to 9999.';

CREATE FUNCTION tidemark_internal.retirement_blocker(parent regclass, from_time timestamptz, to_time timestamptz)
RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    first_date date;
    last_date date;
    there record;
BEGIN
    IF NOT isfinite(from_time) OR NOT isfinite(to_time) THEN
        RETURN 'its bounds are open';
    ELSIF NOT tidemark_internal.holds_whole_dates(from_time, to_time) THEN
        RETURN format('its bounds are no UTC dates (%s to %s): detach it by hand', from_time, to_time);
    END IF;
    first_date := from_time::date;
    last_date := (to_time - interval '1 microsecond')::date;
    IF last_date - first_date >= 1000 THEN
        RETURN format('it holds %s days: detach it by hand', last_date - first_date + 1);
    END IF;
    SELECT h.held_until, h.code INTO there FROM tidemark_internal.retention_holds h
     WHERE h.parent = retirement_blocker.parent AND h.event_date BETWEEN first_date AND last_date
       AND h.held_until > clock_timestamp()
     ORDER BY h.held_until DESC LIMIT 1;
    IF there.code IS NOT NULL THEN
        RETURN format('Postgres refused its DETACH (SQLSTATE %s, see tidemark.partition_health), next try after %s',
                      there.code, date_trunc('second', there.held_until));
    ELSIF FOUND THEN
        RETURN format('held until %s', date_trunc('second', there.held_until));
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
a DETACH that was refused, or bounds that are no UTC dates; NULL when they
may.';

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
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT b.partition, b.from_time, b.to_time, tidemark_internal.retirement_blocker(parent, b.from_time, b.to_time)
      FROM tidemark_internal.partition_bounds(parent) b
     WHERE NOT b.pending AND b.to_time <= tidemark_internal.retention_limit(parent)
       AND NOT EXISTS (SELECT FROM tidemark_internal.retired_dates r
                        WHERE r.parent = due_partitions.parent AND r.partition_id = b.partition)
     ORDER BY b.from_time;
END;
COMMENT ON FUNCTION tidemark_internal.due_partitions(regclass) IS
'The work behind maintenance: the attached partitions of a managed table that
retention wants to retire, oldest first; blocked says why one may not be
retired now, NULL when it may.';

CREATE FUNCTION tidemark_internal.drop_refusal(parent regclass, event_date date) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    retired record;
    there record;
BEGIN
    SELECT * INTO retired FROM tidemark_internal.retired_dates r
     WHERE r.parent = drop_refusal.parent AND r.event_date = drop_refusal.event_date;
    SELECT c.relkind, c.relispartition, c.relowner, c.oid::regclass::text AS name INTO there
      FROM pg_class c WHERE c.oid = retired.partition_id;
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

CREATE FUNCTION tidemark_internal.set_retired(parent regclass, partition regclass, from_time timestamptz,
    to_time timestamptz, state text, retention_action text, by_session boolean DEFAULT false) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    INSERT INTO tidemark_internal.retired_dates AS r
        (parent, event_date, partition, state, retired_at, partition_id, from_time, to_time, retention_action,
         detached_by, detached_by_since)
    SELECT parent, d::date, partition::text, set_retired.state, clock_timestamp(), partition, from_time, to_time,
           retention_action, a.pid, a.backend_start
      FROM generate_series(from_time::date::timestamp, (to_time - interval '1 microsecond')::date::timestamp,
                           interval '1 day') AS d
      LEFT JOIN pg_stat_activity a ON by_session AND a.pid = pg_backend_pid()
    ON CONFLICT ON CONSTRAINT retired_dates_pkey DO UPDATE SET state = excluded.state, retired_at = excluded.retired_at;
    DELETE FROM tidemark_internal.retention_holds h
     WHERE h.parent = set_retired.parent AND h.code IS NOT NULL
       AND h.event_date BETWEEN from_time::date AND (to_time - interval '1 microsecond')::date;
END;
COMMENT ON FUNCTION tidemark_internal.set_retired(regclass, regclass, timestamptz, timestamptz, text, text, boolean) IS
'The work behind maintenance: writes the rows of
tidemark_internal.retired_dates for the dates of one partition. by_session:
this session is going to detach it.';
REVOKE EXECUTE ON FUNCTION
    tidemark_internal.set_retired(regclass, regclass, timestamptz, timestamptz, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.detach_refused(parent regclass, from_time timestamptz, to_time timestamptz,
    error text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
BEGIN ATOMIC
    DELETE FROM tidemark_internal.retired_dates r
     WHERE r.parent = detach_refused.parent AND r.from_time = detach_refused.from_time AND r.state = 'detaching';
    -- A lock that was not to be had is no refusal.
    INSERT INTO tidemark_internal.retention_holds AS h (parent, event_date, held_until, code, error)
    SELECT parent, d::date, clock_timestamp() + interval '1 hour', left(error, 5), error
      FROM generate_series(from_time::date::timestamp, (to_time - interval '1 microsecond')::date::timestamp,
                           interval '1 day') AS d
     WHERE left(error, 5) NOT IN ('55P03', '40P01')
    ON CONFLICT ON CONSTRAINT retention_holds_pkey DO UPDATE
       SET held_until = greatest(h.held_until, excluded.held_until), code = excluded.code, error = excluded.error;
END;
COMMENT ON FUNCTION tidemark_internal.detach_refused(regclass, timestamptz, timestamptz, text) IS
'The work behind maintenance: takes the note about a partition back whose
DETACH Postgres refused. So its dates go on as if nothing had been tried,
and retention tries again an hour later, lest it asks for the same lock in
each round. error: SQLSTATE and message.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.detach_refused(regclass, timestamptz, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.attach_again(parent regclass, partition regclass, from_time timestamptz,
    to_time timestamptz) RETURNS void
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
    bounds := format('((%1$I IS NOT NULL) AND (%1$I >= %2$L::timestamp with time zone)'
                     ' AND (%1$I < %3$L::timestamp with time zone))', key_column, from_time, to_time);
    IF NOT EXISTS (SELECT FROM pg_constraint c
                    WHERE c.conrelid = partition AND c.contype = 'c' AND c.convalidated
                      AND pg_get_expr(c.conbin, c.conrelid) = bounds) THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tidemark_bounds CHECK %s', partition, bounds);
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
                   parent, partition, from_time, to_time);
    FOR other IN
        SELECT c.conname FROM pg_constraint c
         WHERE c.conrelid = partition AND c.contype = 'c' AND c.conislocal AND c.coninhcount = 0
           AND pg_get_expr(c.conbin, c.conrelid) = bounds
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', partition, other);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.attach_again(regclass, regclass, timestamptz, timestamptz) IS
'The work behind maintenance: attaches a detached partition with its old
bounds, with the rights of the caller.';

CREATE FUNCTION tidemark_internal.attach_again_sql(parent regclass, partition regclass, from_time timestamptz,
    to_time timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
RETURN format('SELECT tidemark_internal.attach_again(%s::pg_catalog.regclass, %s::pg_catalog.regclass, %L, %L)',
              parent::oid, partition::oid, from_time, to_time);
COMMENT ON FUNCTION tidemark_internal.attach_again_sql(regclass, regclass, timestamptz, timestamptz) IS
'The work behind maintenance: the statement that calls
tidemark_internal.attach_again with these arguments.';
