-- Maintenance of partitions as people and clients call it: single steps, the procedure, the dry run, and how things stand.
-- What a step does is in retirement.sql.

CREATE FUNCTION tidemark_internal.partition_work_as_owner(parent regclass, work text, event_date date, detail text) RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_partition_work';
COMMENT ON FUNCTION tidemark_internal.partition_work_as_owner(regclass, text, date, text) IS
'The work behind maintenance: checks that the caller may ask for this work,
then does it as the owner of parent: create, retire, retire concurrently,
drop and record for whoever may insert, restore for members of the owner.';

CREATE FUNCTION tidemark_internal.maintenance_step(parent regclass, work text, OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done text[] := tidemark_internal.partition_work_as_owner(parent, work, NULL, NULL);
BEGIN
    action := done[1];
    event_date := nullif(done[2], '')::date;
    partition := nullif(done[3], '');
    detail := nullif(done[4], '');
END
$$;
COMMENT ON FUNCTION tidemark_internal.maintenance_step(regclass, text) IS
'Does the next step of one kind of work on a managed table, as its owner, and
says what it did; all NULL when nothing is left to do. Call it until then,
each time in a transaction of its own. work: create (partitions ahead),
retire (detach what is due), retire concurrently, or drop. With retire
concurrently an action detach has done nothing yet: the client has to send
the statement in detail at top level, as a member of the owner, and then go
on. Other actions: create (partitions made, their number in detail),
detached, finalize, attach (a partition that is needed again), refused,
forget, drop, and skip when another session maintains the table. The caller
needs INSERT on parent.';

CREATE FUNCTION tidemark_internal.record_maintenance(parent regclass, error text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.partition_work_as_owner(parent, 'record', NULL, error);
END
$$;
COMMENT ON FUNCTION tidemark_internal.record_maintenance(regclass, text) IS
'Notes in tidemark_internal.partition_config how a client''s maintenance of a
table went: error NULL for a success, a bare SQLSTATE 55P03 or 40P01 for a
lock that was not to be had (counted), else what failed. The caller needs
INSERT on parent.';

CREATE FUNCTION tidemark.restore_partition(parent regclass, event_date date, hold interval DEFAULT interval '1 day') RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done text[] := tidemark_internal.partition_work_as_owner(parent, 'restore', event_date, coalesce(hold, interval '-1 day')::text);
BEGIN
    RETURN done[3]::regclass;
END
$$;
COMMENT ON FUNCTION tidemark.restore_partition(regclass, date, interval) IS
'Attaches the partition of a retired date again and returns it; the date is
no longer retired, and models recompute it when it is dirty. hold: for how
long retention leaves it alone, default one day; longer than that, raise
retention_days. A partition that was dropped is an error (55000), a date
that is not retired, too (42704). Takes SHARE UPDATE EXCLUSIVE on parent,
for at most 2 s of waiting. Only members of the owner of parent may call it.';

CREATE FUNCTION tidemark_internal.forget_missing_tables() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Their number may one day be that of another table.
    DELETE FROM tidemark_internal.retired_dates r WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = r.parent);
    DELETE FROM tidemark_internal.retention_holds h WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = h.parent);
    WITH gone AS (DELETE FROM tidemark_internal.partition_config p WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.parent) RETURNING p.parent)
    SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION tidemark_internal.forget_missing_tables() IS
'The work behind maintenance: removes the settings and retired dates of
tables that were dropped; returns how many tables were managed.';

CREATE PROCEDURE tidemark.run_maintenance(parent regclass DEFAULT NULL)
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit. Hence every name is qualified, operators too.
DECLARE
    table_of pg_catalog.regclass;
    work pg_catalog.text;
    step pg_catalog.record;
    tries pg_catalog.int4;
    code pg_catalog.text;
    message pg_catalog.text;
    failed pg_catalog.text;
    skipped pg_catalog.bool;
    failures pg_catalog.int4 := 0;
BEGIN
    IF parent IS NOT NULL AND NOT EXISTS (SELECT FROM tidemark_internal.partition_config c WHERE c.parent OPERATOR(pg_catalog.=) run_maintenance.parent) THEN
        RAISE EXCEPTION 'table % is not managed', parent USING ERRCODE = '42704', HINT = 'Register it with tidemark.manage_partitions.';
    END IF;
    PERFORM tidemark_internal.forget_missing_tables();
    COMMIT;
    FOREACH table_of IN ARRAY ARRAY(
        SELECT c.parent FROM tidemark_internal.partition_config c JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) c.parent
         WHERE c.parent OPERATOR(pg_catalog.=) run_maintenance.parent
            OR run_maintenance.parent IS NULL AND (pg_catalog.has_table_privilege(t.oid, 'INSERT') OR pg_catalog.pg_has_role(t.relowner, 'MEMBER'))
         ORDER BY c.parent::pg_catalog.text)
    LOOP
        failed := NULL;
        skipped := false;
        FOREACH work IN ARRAY ARRAY['create', 'retire', 'drop'] LOOP
            tries := 0;
            LOOP
                code := NULL;
                BEGIN
                    SELECT * INTO step FROM tidemark_internal.maintenance_step(table_of, work);
                EXCEPTION WHEN OTHERS THEN
                    code := SQLSTATE;
                    message := SQLERRM;
                END;
                COMMIT;
                IF code OPERATOR(pg_catalog.=) ANY (ARRAY['55P03', '40P01']) THEN
                    -- Somebody uses the table for longer than others should wait behind us: back off, others go first.
                    tries := tries OPERATOR(pg_catalog.+) 1;
                    BEGIN
                        PERFORM tidemark_internal.record_maintenance(table_of, code);
                    EXCEPTION WHEN OTHERS THEN NULL;
                    END;
                    COMMIT;
                    IF tries OPERATOR(pg_catalog.<) 3 THEN
                        PERFORM pg_catalog.pg_sleep(0.5 OPERATOR(pg_catalog.*) tries);
                        CONTINUE;
                    END IF;
                END IF;
                IF code IS NOT NULL THEN
                    failed := pg_catalog.concat_ws('; ', failed, pg_catalog.concat(code, ' ', work, ': ', message));
                    EXIT;
                END IF;
                skipped := skipped OR COALESCE(step.action OPERATOR(pg_catalog.=) 'skip', false);
                EXIT WHEN step.action IS NULL OR skipped;
            END LOOP;
        END LOOP;
        IF failed IS NOT NULL OR NOT skipped THEN
            BEGIN
                PERFORM tidemark_internal.record_maintenance(table_of, failed);
            EXCEPTION WHEN OTHERS THEN
                failed := pg_catalog.concat_ws('; ', failed, SQLERRM);
            END;
            COMMIT;
        END IF;
        IF failed IS NOT NULL THEN
            failures := failures OPERATOR(pg_catalog.+) 1;
            RAISE WARNING 'maintenance of %: %', table_of, failed;
        END IF;
    END LOOP;
    IF failures OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% tables could not be maintained', failures
            USING HINT = 'The warnings above and tidemark.partition_health say why; the next call goes on.';
    END IF;
END
$$;
COMMENT ON PROCEDURE tidemark.run_maintenance(regclass) IS
'Does all that is due for the partitions of one managed table, or with NULL
of all that the caller may insert into: creates those ahead, detaches those
older than retention_days, drops what was detached. Each step is a
transaction of its own as the owner of the table, waits at most 2 s for a
lock, and is tried three times. A table that fails is reported as a warning
and in tidemark.partition_health, does not hold up the others, and makes the
call fail at its end. A table that another session maintains is passed over.
CALL it outside a transaction block. It detaches with a short ACCESS
EXCLUSIVE lock, since DETACH CONCURRENTLY cannot run inside; tidemark
maintain does that.';

CREATE FUNCTION tidemark.plan_maintenance(INOUT parent regclass DEFAULT NULL, OUT step integer, OUT action text, OUT sql text, OUT lock_level text, OUT reason text)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    wanted regclass := plan_maintenance.parent;
    config record;
    day date;
    part record;
    today date := (now() AT TIME ZONE 'UTC')::date;
    refusal text;
BEGIN
    FOR config IN
        SELECT c.*, p.partdefid <> 0 AS has_default FROM tidemark_internal.partition_config c JOIN pg_partitioned_table p ON p.partrelid = c.parent
         WHERE wanted IS NULL OR c.parent = wanted ORDER BY c.parent::text
    LOOP
        plan_maintenance.parent := config.parent;
        step := 0;

        action := 'create';
        lock_level := 'SHARE UPDATE EXCLUSIVE on the table';
        FOR day IN SELECT d FROM tidemark_internal.wanted_dates(config.parent) AS d LOOP
            step := step + 1;
            sql := array_to_string(tidemark_internal.partition_sql(config.parent, day), E';\n');
            reason := CASE WHEN day < today THEN 'a date without partition since the last success'
                           ELSE format('%s days are wanted ahead', config.premake_days) END;
            RETURN NEXT;
        END LOOP;

        FOR part IN
            SELECT b.* FROM tidemark_internal.partition_bounds(config.parent) b WHERE b.pending
        LOOP
            step := step + 1;
            action := 'finalize';
            sql := format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', config.parent, part.partition);
            lock_level := 'SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition';
            reason := 'an interrupted DETACH CONCURRENTLY';
            RETURN NEXT;
        END LOOP;

        FOR part IN
            SELECT d.* FROM tidemark_internal.due_partitions(config.parent) d
            UNION ALL
            -- Noted by a round that ended before it detached them.
            SELECT b.partition, b.from_time, b.to_time, tidemark_internal.retirement_blocker(config.parent, b.from_time, b.to_time)
              FROM tidemark_internal.partition_bounds(config.parent) b
             WHERE NOT b.pending AND b.to_time <= tidemark_internal.retention_limit(config.parent)
               AND EXISTS (SELECT FROM tidemark_internal.retired_dates r WHERE r.parent = config.parent AND r.partition_id = b.partition)
             ORDER BY 2
        LOOP
            step := step + 1;
            reason := format('older than %s days', config.retention_days);
            IF part.blocked IS NOT NULL THEN
                action := 'refused';
                sql := NULL;
                lock_level := NULL;
                reason := format('%s: %s', part.partition, part.blocked);
                RETURN NEXT;
                CONTINUE;
            END IF;
            action := CASE WHEN config.has_default THEN 'detach' ELSE 'detach concurrently' END;
            sql := format('ALTER TABLE %s DETACH PARTITION %s', config.parent, part.partition) || CASE WHEN config.has_default THEN '' ELSE ' CONCURRENTLY' END;
            lock_level := CASE WHEN config.has_default THEN 'ACCESS EXCLUSIVE on the table and the partition'
                               ELSE 'SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition; without CONCURRENTLY in run_maintenance: ACCESS EXCLUSIVE on both' END;
            RETURN NEXT;
            IF config.retention_action = 'drop' THEN
                step := step + 1;
                action := 'drop';
                sql := format('DROP TABLE %s', part.partition);
                lock_level := 'ACCESS EXCLUSIVE on the detached partition';
                RETURN NEXT;
            END IF;
        END LOOP;

        FOR part IN
            SELECT DISTINCT ON (r.partition_id) r.*, EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = r.partition_id) AS attached
              FROM tidemark_internal.retired_dates r WHERE r.parent = config.parent AND r.state <> 'dropped' ORDER BY r.partition_id, r.event_date
        LOOP
            CONTINUE WHEN part.attached OR config.retention_action <> 'drop' OR part.retention_action <> 'drop' OR part.to_time > coalesce(tidemark_internal.retention_limit(config.parent), '-infinity');
            step := step + 1;
            refusal := tidemark_internal.drop_refusal(config.parent, part.event_date);
            action := CASE WHEN refusal IS NULL THEN 'drop' ELSE 'refused' END;
            sql := CASE WHEN refusal IS NULL THEN format('DROP TABLE %s', part.partition) END;
            lock_level := CASE WHEN refusal IS NULL THEN 'ACCESS EXCLUSIVE on the detached partition' END;
            reason := coalesce(format('%s: %s', part.partition, refusal), 'detached');
            IF refusal IS NULL THEN reason := 'detached to be dropped'; END IF;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.plan_maintenance(regclass) IS
'What maintenance would do now for one managed table, or for all with NULL,
in order; nothing is done. parent: the table; step: 1, 2, ... within the
table; action: create, finalize, detach concurrently, detach, drop, or
refused (nothing is done); sql: the statements, NULL when refused;
lock_level: what they lock; reason: why, or what stands against it. No rows
when nothing is due, or for a table that is not managed. Needs no rights on
the tables.';

CREATE FUNCTION tidemark_internal.partition_figures(parent regclass, OUT partitions bigint, OUT premade_partitions bigint, OUT premade_hours numeric,
    OUT oldest_date date, OUT newest_date date, OUT gaps bigint, OUT overlapping bigint, OUT pending_detach bigint, OUT refused_dates bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    covered_until timestamptz;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE b.pending), min(b.from_time) FILTER (WHERE NOT b.pending)::date,
           (max(b.to_time) FILTER (WHERE NOT b.pending) - interval '1 microsecond')::date
      INTO partitions, pending_detach, oldest_date, newest_date
      FROM tidemark_internal.partition_bounds(parent) b;
    -- Until when every moment from now on has a partition.
    SELECT min(b.to_time) INTO covered_until FROM tidemark_internal.partition_bounds(parent) b
     WHERE b.to_time > now() AND NOT b.pending
       AND NOT EXISTS (SELECT FROM tidemark_internal.partition_bounds(parent) n WHERE NOT n.pending AND n.from_time <= b.to_time AND n.to_time > b.to_time);
    IF NOT EXISTS (SELECT FROM tidemark_internal.partition_bounds(parent) b WHERE NOT b.pending AND b.from_time <= now() AND b.to_time > now()) THEN
        covered_until := now();
    END IF;
    SELECT count(*) INTO premade_partitions FROM tidemark_internal.partition_bounds(parent) b WHERE NOT b.pending AND b.from_time > now() AND b.to_time <= covered_until;
    premade_hours := CASE WHEN isfinite(covered_until) THEN round((extract(epoch FROM covered_until - now()) / 3600)::numeric, 1) END;
    -- Old dates without rows need no partition: whoever has rows for them makes it.
    SELECT count(*) INTO gaps FROM tidemark_internal.wanted_dates(parent);
    SELECT count(*) FILTER (WHERE g.next < g.past) INTO overlapping
      FROM (SELECT b.to_time AS past, lead(b.from_time) OVER (ORDER BY b.from_time) AS next
              FROM tidemark_internal.partition_bounds(parent) b WHERE NOT b.pending) AS g;
    SELECT coalesce(sum((d.to_time - interval '1 microsecond')::date - d.from_time::date + 1) FILTER (WHERE isfinite(d.from_time)), 0) INTO refused_dates
      FROM tidemark_internal.due_partitions(parent) d WHERE d.blocked IS NOT NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.partition_figures(regclass) IS
'The work behind maintenance: the figures of tidemark.partition_health for
one table.';

CREATE VIEW tidemark.partition_health AS
SELECT c.parent, f.partitions, f.premade_partitions, f.premade_hours, f.oldest_date, f.newest_date, f.gaps, f.overlapping, f.pending_detach,
       (SELECT pg_catalog.count(DISTINCT r.partition) FROM tidemark_internal.retired_dates r WHERE r.parent = c.parent AND r.state = 'detached') AS detached_partitions,
       f.refused_dates, c.last_success, c.last_error, c.last_error_at, c.lock_timeouts
  FROM tidemark_internal.partition_config c
  JOIN pg_catalog.pg_class t ON t.oid = c.parent
 CROSS JOIN LATERAL tidemark_internal.partition_figures(c.parent) AS f;
COMMENT ON VIEW tidemark.partition_health IS 'One row per managed table: whether its partitions are as they should be, and how the last maintenance went.';
COMMENT ON COLUMN tidemark.partition_health.parent IS 'The managed table.';
COMMENT ON COLUMN tidemark.partition_health.partitions IS 'How many partitions it has, one whose detach is pending included.';
COMMENT ON COLUMN tidemark.partition_health.premade_partitions IS 'How many partitions are ready after today''s without a gap.';
COMMENT ON COLUMN tidemark.partition_health.premade_hours IS 'For how many hours from now every moment has a partition; 0 when not even now has one, NULL when there is no end.';
COMMENT ON COLUMN tidemark.partition_health.oldest_date IS 'First date of the oldest partition (UTC); NULL without any.';
COMMENT ON COLUMN tidemark.partition_health.newest_date IS 'Last date of the newest partition (UTC); NULL without any.';
COMMENT ON COLUMN tidemark.partition_health.gaps IS 'How many partitions are missing that maintenance should have made: of dates since its last success, and of those wanted ahead (tidemark.plan_maintenance lists them). 0 after each maintenance that succeeds; anything else for long means that it does not run or fails. Older dates without rows need no partition and do not count.';
COMMENT ON COLUMN tidemark.partition_health.overlapping IS 'How many partitions begin before the one before them ends: always 0, or the catalog is damaged.';
COMMENT ON COLUMN tidemark.partition_health.pending_detach IS 'Partitions whose DETACH CONCURRENTLY was interrupted (at most one); the next maintenance finishes it.';
COMMENT ON COLUMN tidemark.partition_health.detached_partitions IS 'Retired partitions that are still there as tables of their own: to be kept, or not yet dropped.';
COMMENT ON COLUMN tidemark.partition_health.refused_dates IS 'Dates past their retention that a model still needs, or that are held; tidemark.plan_maintenance says why.';
COMMENT ON COLUMN tidemark.partition_health.last_success IS 'When maintenance last did all that was due; NULL if never.';
COMMENT ON COLUMN tidemark.partition_health.last_error IS 'SQLSTATE and message of what failed in the last maintenance; NULL if nothing did.';
COMMENT ON COLUMN tidemark.partition_health.last_error_at IS 'When that was; NULL if nothing failed.';
COMMENT ON COLUMN tidemark.partition_health.lock_timeouts IS 'How often maintenance gave up waiting for a lock, in all.';
GRANT SELECT ON tidemark.partition_health TO PUBLIC;
