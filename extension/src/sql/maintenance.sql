-- Maintenance of partitions as people and clients call it: single steps, the procedure, and what a person does about a
-- retired date. What a step does is in retirement_steps.sql, how things stand in partition_health.sql.
--
-- Who may: whoever may insert into a table may ask for what its owner has configured, by the procedure, which holds no
-- lock for longer than a step (partitions.rs). A single step in a transaction of the caller's own, which may stay open,
-- needs the rights of the owner; so does what notes something or brings a date back.

CREATE FUNCTION tidemark_internal.managed_tables()
RETURNS TABLE (parent regclass, owner regrole, as_owner boolean)
LANGUAGE sql STABLE PARALLEL SAFE COST 100 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.parent, t.relowner::regrole,
           tidemark_internal.may_act_as(u.oid, t.relowner)
           AND pg_has_role(u.oid, t.relowner, CASE WHEN current_setting('server_version_num')::integer < 160000
                                                   THEN 'MEMBER' ELSE 'SET' END)
      FROM tidemark_internal.partition_config c
      JOIN pg_class t ON t.oid = c.parent
      JOIN pg_roles u ON u.rolname = current_user
     WHERE has_table_privilege(t.oid, 'INSERT') OR tidemark_internal.may_act_as(u.oid, t.relowner)
     ORDER BY c.parent::text;
END;
COMMENT ON FUNCTION tidemark_internal.managed_tables() IS
'The managed tables that the current user may maintain, their owners, and
whether a client may detach their partitions concurrently, for which it has
to SET ROLE to the owner.';

CREATE FUNCTION tidemark_internal.take_step(parent regclass, work text,
    OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF work = 'create' THEN
        SELECT s.* INTO action, event_date, partition, detail FROM tidemark_internal.create_step(parent) s;
    ELSIF work = 'drop' THEN
        SELECT s.* INTO action, event_date, partition, detail FROM tidemark_internal.drop_step(parent) s;
    ELSIF work IN ('retire', 'retire concurrently') THEN
        SELECT s.* INTO action, event_date, partition, detail
          FROM tidemark_internal.retire_step(parent, work = 'retire concurrently') s;
    ELSE
        RAISE EXCEPTION 'work must be create, retire, retire concurrently or drop' USING ERRCODE = '22023';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.take_step(regclass, text) IS
'The work behind tidemark_internal.maintenance_step, for whoever may.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.take_step(regclass, text) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.maintenance_step(parent regclass, work text,
    OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark_internal.maintenance_step(regclass, text) IS
'Does the next step of one kind of work on a managed table, as its owner, and
says what it did; all NULL when nothing is left to do. Call it until then,
each time in a transaction of its own. work: create (partitions ahead),
retire (detach what is due), retire concurrently, or drop. With retire
concurrently an action detach has done nothing yet: the client has to send
the statement in detail at top level, as the owner, tell
tidemark_internal.record_maintenance if it fails, and then go on. Other
actions: create (partitions made, their number in detail), detached,
finalize, attach (a partition that is needed again), refused, failed
(Postgres refused a DETACH, and why), forget, drop, and skip when another
session maintains the table. The caller must have the rights of the owner of
parent; INSERT on it is enough for tidemark.run_maintenance.';

CREATE FUNCTION tidemark_internal.maintenance_step(caller oid, parent regclass, work text,
    OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF parent IS NULL THEN
        RAISE EXCEPTION 'parent must not be NULL' USING ERRCODE = '22004';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, parent);
    SELECT s.* INTO action, event_date, partition, detail FROM tidemark_internal.take_step(parent, work) s;
END
$$;
COMMENT ON FUNCTION tidemark_internal.maintenance_step(oid, regclass, text) IS
'The work behind tidemark_internal.maintenance_step.';

CREATE FUNCTION tidemark_internal.record_maintenance(parent regclass, error text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark_internal.record_maintenance(regclass, text) IS
'Notes how a client''s maintenance of a table went: error NULL for a success,
a bare SQLSTATE 55P03 or 40P01 for a lock that was not to be had (counted),
else SQLSTATE and message of what failed. When that was the DETACH
CONCURRENTLY that this session was told to send, its dates go on as if
nothing had been tried. Does nothing while another session maintains the
table. The caller must have the rights of the owner of parent.';

CREATE FUNCTION tidemark_internal.record_maintenance(caller oid, parent regclass, error text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF parent IS NULL THEN
        RAISE EXCEPTION 'parent must not be NULL' USING ERRCODE = '22004';
    ELSIF error !~ '^[0-9A-Z]{5}( |$)' THEN
        RAISE EXCEPTION 'error must begin with an SQLSTATE' USING ERRCODE = '22023';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, parent);
    PERFORM tidemark_internal.note_maintenance(parent, error);
END
$$;
COMMENT ON FUNCTION tidemark_internal.record_maintenance(oid, regclass, text) IS
'The work behind tidemark_internal.record_maintenance.';

CREATE FUNCTION tidemark_internal.note_maintenance(parent regclass, error text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    is_lock constant boolean := coalesce(error IN ('55P03', '40P01'), false);
    half record;
BEGIN
    IF tidemark_internal.lock_settings(parent) IS NOT TRUE THEN
        RETURN;
    END IF;
    SELECT r.from_time, r.to_time INTO half
      FROM tidemark_internal.retired_dates r
      JOIN pg_inherits i ON i.inhrelid = r.partition_id AND i.inhparent = r.parent AND NOT i.inhdetachpending
      JOIN pg_stat_activity a ON a.pid = r.detached_by AND a.backend_start = r.detached_by_since
     WHERE r.parent = note_maintenance.parent AND r.state = 'detaching' AND a.pid = pg_backend_pid()
     LIMIT 1;
    IF FOUND AND error IS NOT NULL THEN
        PERFORM tidemark_internal.detach_refused(parent, half.from_time, half.to_time, left(error, 2000));
    END IF;
    UPDATE tidemark_internal.partition_config c
       SET lock_timeouts = c.lock_timeouts + is_lock::integer,
           last_success = CASE WHEN error IS NULL THEN clock_timestamp() ELSE c.last_success END,
           last_error = CASE WHEN is_lock THEN c.last_error ELSE left(error, 2000) END,
           last_error_at = CASE WHEN is_lock THEN c.last_error_at WHEN error IS NOT NULL THEN clock_timestamp() END
     WHERE c.parent = note_maintenance.parent;
END
$$;
COMMENT ON FUNCTION tidemark_internal.note_maintenance(regclass, text) IS
'The work behind maintenance: notes how it went, see
tidemark_internal.record_maintenance.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.note_maintenance(regclass, text) FROM PUBLIC;

CREATE FUNCTION tidemark.restore_partition(parent regclass, event_date date, hold interval DEFAULT interval '1 day')
RETURNS regclass
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.restore_partition(regclass, date, interval) IS
'Attaches the partition of a retired date again and returns it; the date is
no longer retired, and models recompute it when it is dirty. hold: for how
long retention leaves it alone, at most 36500 days, by default one; longer
than a while, raise retention_days. A partition that was dropped is an error
(55000), a date that is not retired, too (42704). Takes SHARE UPDATE
EXCLUSIVE on parent, for at most 2 s of waiting. The caller must have the
rights of the owner of parent.';

CREATE FUNCTION tidemark_internal.restore_partition(caller oid, parent regclass, event_date date, hold interval)
RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    retired record;
    pending boolean;
BEGIN
    retired := tidemark_internal.lock_retired(caller, parent, event_date);
    IF hold IS NULL OR NOT hold BETWEEN interval '0' AND interval '36500 days' THEN
        RAISE EXCEPTION 'hold must be between 0 and 36500 days' USING ERRCODE = '22023';
    ELSIF NOT EXISTS (SELECT FROM pg_class c
                       WHERE c.oid = retired.partition_id AND c.oid::regclass::text = retired.partition) THEN
        RAISE EXCEPTION 'the partition of date % of % is gone', event_date, parent
            USING ERRCODE = '55000', HINT = format('Its rows are gone with it. SELECT tidemark.reopen_date(%L, %L) '
                                                   'begins the date anew.', parent, event_date);
    END IF;
    SELECT i.inhdetachpending INTO pending FROM pg_inherits i
     WHERE i.inhrelid = retired.partition_id AND i.inhparent = parent;
    IF pending THEN
        PERFORM tidemark_internal.execute_as_owner(parent,
            format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, retired.partition_id));
    END IF;
    IF pending IS DISTINCT FROM false THEN
        PERFORM tidemark_internal.execute_as_owner(parent,
            tidemark_internal.attach_again_sql(parent, retired.partition_id, retired.from_time, retired.to_time));
    END IF;
    DELETE FROM tidemark_internal.retention_holds h
     WHERE h.parent = restore_partition.parent AND h.held_until <= clock_timestamp() AND h.code IS NULL;
    INSERT INTO tidemark_internal.retention_holds AS h (parent, event_date, held_until)
    SELECT r.parent, r.event_date, clock_timestamp() + hold FROM tidemark_internal.retired_dates r
     WHERE r.parent = restore_partition.parent AND r.partition_id = retired.partition_id
    ON CONFLICT ON CONSTRAINT retention_holds_pkey DO UPDATE
       SET held_until = excluded.held_until, code = NULL, error = NULL;
    DELETE FROM tidemark_internal.retired_dates r
     WHERE r.parent = restore_partition.parent AND r.partition_id = retired.partition_id;
    RETURN retired.partition_id;
END
$$;
COMMENT ON FUNCTION tidemark_internal.restore_partition(oid, regclass, date, interval) IS
'The work behind tidemark.restore_partition.';

CREATE FUNCTION tidemark.reopen_date(parent regclass, event_date date) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.reopen_date(regclass, date) IS
'Begins a retired date anew whose rows are gone: a partition may be made for
it again, and models recompute it from the rows that come, in place of what
they have stored. 55000 while its detached partition is there (see
tidemark.restore_partition), 42704 when the date is not retired. The caller
must have the rights of the owner of parent.';

CREATE FUNCTION tidemark_internal.reopen_date(caller oid, parent regclass, event_date date) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    retired record;
BEGIN
    retired := tidemark_internal.lock_retired(caller, parent, event_date);
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = retired.partition_id) THEN
        RAISE EXCEPTION 'the rows of date % of % are in %', event_date, parent, retired.partition_id
            USING ERRCODE = '55000', HINT = format(
                'SELECT tidemark.restore_partition(%L, %L) attaches it again; or drop it first.', parent, event_date);
    END IF;
    DELETE FROM tidemark_internal.retired_dates r
     WHERE r.parent = reopen_date.parent AND r.event_date = reopen_date.event_date;
END
$$;
COMMENT ON FUNCTION tidemark_internal.reopen_date(oid, regclass, date) IS
'The work behind tidemark.reopen_date.';

CREATE FUNCTION tidemark_internal.lock_retired(caller oid, parent regclass, event_date date)
RETURNS tidemark_internal.retired_dates
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    retired tidemark_internal.retired_dates;
BEGIN
    IF parent IS NULL OR event_date IS NULL THEN
        RAISE EXCEPTION 'parent and event_date must not be NULL' USING ERRCODE = '22004';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, parent);
    IF NOT tidemark_internal.lock_settings(parent) OR EXISTS (
        SELECT FROM tidemark_internal.retired_dates r
          JOIN pg_stat_activity a ON a.pid = r.detached_by AND a.backend_start = r.detached_by_since
         WHERE r.parent = lock_retired.parent AND r.event_date = lock_retired.event_date AND r.state = 'detaching'
           AND a.pid <> pg_backend_pid()) THEN
        RAISE EXCEPTION 'table % is under maintenance', parent
            USING ERRCODE = '55P03', HINT = 'Try again when it is done.';
    END IF;
    SELECT * INTO retired FROM tidemark_internal.retired_dates r
     WHERE r.parent = lock_retired.parent AND r.event_date = lock_retired.event_date;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'date % of % is not retired', event_date, parent
            USING ERRCODE = '42704', HINT = 'tidemark.retired_dates lists those that are.';
    END IF;
    RETURN retired;
END
$$;
COMMENT ON FUNCTION tidemark_internal.lock_retired(oid, regclass, date) IS
'What is known of a retired date, after it is clear that the caller has the
rights of the owner of the table and nobody else maintains it (55P03); an
error (42704) when the date is not retired.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.lock_retired(oid, regclass, date) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.forget_missing_tables() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark_internal.forget_missing_tables() IS
'Part of maintenance: removes the settings, holds and retired dates of tables
that were dropped; returns how many tables were managed. Everybody may: they
are nobody''s now.';

CREATE FUNCTION tidemark_internal.forget_missing_tables(caller oid) RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Their number may one day be that of another table. What another session removes already is not waited for.
    DELETE FROM tidemark_internal.retired_dates r WHERE r.ctid = ANY (ARRAY(
        SELECT x.ctid FROM tidemark_internal.retired_dates x
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = x.parent) FOR UPDATE SKIP LOCKED));
    DELETE FROM tidemark_internal.retention_holds r WHERE r.ctid = ANY (ARRAY(
        SELECT x.ctid FROM tidemark_internal.retention_holds x
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = x.parent) FOR UPDATE SKIP LOCKED));
    WITH gone AS (
        DELETE FROM tidemark_internal.partition_config r WHERE r.ctid = ANY (ARRAY(
            SELECT x.ctid FROM tidemark_internal.partition_config x
             WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = x.parent) FOR UPDATE SKIP LOCKED))
        RETURNING r.parent)
    SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION tidemark_internal.forget_missing_tables(oid) IS
'The work behind tidemark_internal.forget_missing_tables.';

CREATE FUNCTION tidemark_internal.start_maintenance(caller oid, parent regclass) RETURNS SETOF regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.forget_missing_tables(caller);
    IF parent IS NULL THEN
        RETURN QUERY
        SELECT c.parent FROM tidemark_internal.partition_config c
         WHERE has_table_privilege(caller, c.parent, 'INSERT') OR tidemark_internal.may_act_for(caller, c.parent)
         ORDER BY c.parent::text;
        RETURN;
    ELSIF NOT EXISTS (SELECT FROM tidemark_internal.partition_config c WHERE c.parent = start_maintenance.parent) THEN
        RAISE EXCEPTION 'table % is not managed', parent
            USING ERRCODE = '42704', HINT = 'Register it with tidemark.manage_partitions.';
    END IF;
    PERFORM tidemark_internal.check_may_insert(caller, parent, 'maintain');
    RETURN NEXT parent;
END
$$;
COMMENT ON FUNCTION tidemark_internal.start_maintenance(oid, regclass) IS
'Part of tidemark.run_maintenance: the tables that it is about. 42704 for one
that is not managed, 42501 for one that the caller may not insert into.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.start_maintenance(oid, regclass) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.try_step(caller oid, parent regclass, work text,
    OUT action text, OUT detail text, OUT code text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.check_may_insert(caller, parent, work);
    SELECT s.action, s.detail INTO action, detail FROM tidemark_internal.take_step(parent, work) s;
EXCEPTION WHEN OTHERS THEN
    code := SQLSTATE;
    detail := SQLERRM;
    IF code IN ('55P03', '40P01') THEN
        PERFORM tidemark_internal.note_maintenance(parent, code);
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.try_step(oid, regclass, text) IS
'Part of tidemark.run_maintenance: tidemark_internal.maintenance_step that
raises no error but returns its SQLSTATE (code) and message (detail).';
REVOKE EXECUTE ON FUNCTION tidemark_internal.try_step(oid, regclass, text) FROM PUBLIC;

CREATE PROCEDURE tidemark.run_maintenance(parent regclass DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'tidemark_run_maintenance';
COMMENT ON PROCEDURE tidemark.run_maintenance(regclass) IS
'Does all that is due for the partitions of one managed table, or with NULL
of all that the caller may insert into: creates those ahead, detaches those
older than retention_days, drops what was detached. Each step is a
transaction of its own as the owner of the table, waits at most 2 s for a
lock, and is tried three times. A table that fails is reported as a warning
and in tidemark.partition_health, does not hold up the others, and makes the
call fail at its end; a date whose DETACH Postgres refuses does not hold up
other dates either, and is tried again an hour later. A table that another
session maintains is passed over. CALL it outside a transaction block. It
detaches with a short ACCESS EXCLUSIVE lock, since DETACH CONCURRENTLY
cannot run inside; tidemark maintain does that.';
