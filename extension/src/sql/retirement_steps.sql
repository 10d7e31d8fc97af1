-- The steps of maintenance: each makes, detaches, drops or restores something in one transaction, and says what it did.
-- What is due and what stands against it is in retirement.sql, who may ask for a step in maintenance.sql.

CREATE FUNCTION tidemark_internal.lock_settings(parent regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM tidemark_internal.partition_config c WHERE c.parent = lock_settings.parent FOR UPDATE SKIP LOCKED;
    RETURN FOUND OR (SELECT false FROM tidemark_internal.partition_config c WHERE c.parent = lock_settings.parent);
END
$$;
COMMENT ON FUNCTION tidemark_internal.lock_settings(regclass) IS
'The work behind maintenance: makes this transaction the maintainer of a
table. false when another one is, NULL when the table is not managed. Only
the extension''s owner may lock a row of its settings.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.lock_settings(regclass) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.wanted_dates(parent regclass) RETURNS SETOF date
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    config record;
    first_date date;
    last_date date;
BEGIN
    SELECT c.premake_days, c.retention_days, coalesce(c.last_success, c.managed_since)::date AS seen INTO config
      FROM tidemark_internal.partition_config c WHERE c.parent = wanted_dates.parent;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Dates ahead; and those that came while no maintenance ran. Older holes stay: somebody may have made them on
    -- purpose, and the loader makes what late events need. The data do not count: one event of 2100 makes nothing.
    first_date := greatest(least(today, config.seen), today - coalesce(config.retention_days, 366), today - 366);
    SELECT greatest(today + config.premake_days,
                    least(greatest(max(b.to_time), now()) - interval '1 day', (today + 366)::timestamptz)::date)
      INTO last_date
      FROM tidemark_internal.partition_bounds(parent) b WHERE isfinite(b.to_time);
    RETURN QUERY
        SELECT m.event_date
          FROM tidemark_internal.missing_dates(
               parent, ARRAY(SELECT d::date FROM generate_series(first_date, last_date, interval '1 day') AS d), true) m
         WHERE m.code IS NULL
         ORDER BY 1;
END
$$;
COMMENT ON FUNCTION tidemark_internal.wanted_dates(regclass) IS
'The UTC dates for which maintenance would make a partition now, ascending.
They go from today, or from the day of the last success, to premake_days
ahead or the newest partition (at most 366 days ahead); those are left out
for which none may be made. A table that is not managed gives no rows.';

CREATE FUNCTION tidemark_internal.create_step(parent regclass,
    OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET lock_timeout = '2s'
AS $$
DECLARE
    days constant date[] := ARRAY(SELECT d FROM tidemark_internal.wanted_dates(parent) AS d LIMIT 500);
    statement constant text :=
        'SELECT tidemark_internal.create_partitions(%s::pg_catalog.regclass, %L)::pg_catalog.oid[]';
    created oid[] := '{}';
    day date;
    code text;
    failed text;
    hint text;
BEGIN
    IF days = '{}' THEN
        RETURN;
    END IF;
    BEGIN
        created := tidemark_internal.execute_as_owner(parent, format(statement, parent::oid, days));
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RAISE;
    WHEN OTHERS THEN
        -- One of them cannot be made: then the others.
        FOREACH day IN ARRAY days LOOP
            BEGIN
                created := created
                    || tidemark_internal.execute_as_owner(parent, format(statement, parent::oid, ARRAY[day]))::oid[];
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                RAISE;
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, failed = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
            END;
        END LOOP;
    END;
    IF created <> '{}' THEN
        action := 'create';
        partition := array_to_string(created::regclass[], ', ');
        detail := cardinality(created);
    ELSIF failed IS NOT NULL THEN
        RAISE EXCEPTION '%', failed USING ERRCODE = code, HINT = hint;
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_step(regclass) IS
'The work behind maintenance: makes in one transaction the partitions of
tidemark_internal.wanted_dates of a table, at most 500, those that can be
made. NULL when none is missing; an error when none can be made.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.create_step(regclass) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.retire_step(parent regclass, by_client boolean,
    OUT action text, OUT event_date date, OUT partition text, OUT detail text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '2s'
AS $$
DECLARE
    keep_or_drop text;
    half record;
    due record;
    pending boolean;
    began timestamptz;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would not see the marks of a writer that we waited for.
        RAISE EXCEPTION 'partitions are retired in READ COMMITTED transactions only'
            USING ERRCODE = '25000', HINT = 'SET default_transaction_isolation = ''read committed'';';
    END IF;
    IF NOT tidemark_internal.lock_settings(parent) THEN
        action := 'skip';
        RETURN;
    END IF;
    SELECT c.retention_action INTO keep_or_drop
      FROM tidemark_internal.partition_config c WHERE c.parent = retire_step.parent;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT p.partdefid = 0 AND by_client INTO by_client FROM pg_partitioned_table p WHERE p.partrelid = parent;

    -- What an earlier round left half done comes first.
    SELECT * INTO half FROM tidemark_internal.retired_dates r
     WHERE r.parent = retire_step.parent AND r.state = 'detaching' ORDER BY r.event_date LIMIT 1;
    IF FOUND THEN
        event_date := half.event_date;
        partition := half.partition;
        -- Another session is between two transactions of its DETACH CONCURRENTLY, unless it has forgotten about it.
        IF half.retired_at > clock_timestamp() - interval '10 minutes'
           AND EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = half.detached_by
                          AND a.backend_start = half.detached_by_since AND a.pid <> pg_backend_pid()) THEN
            action := 'skip';
            RETURN;
        END IF;
        SELECT i.inhdetachpending INTO pending FROM pg_inherits i
         WHERE i.inhrelid = half.partition_id AND i.inhparent = parent;
        IF pending THEN
            action := 'finalize';
            PERFORM tidemark_internal.execute_as_owner(parent,
                format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, half.partition_id));
            RETURN;
        END IF;
        IF pending IS NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = half.partition_id
                                              AND c.oid::regclass::text = half.partition) THEN
            action := 'forget';
            UPDATE tidemark_internal.retired_dates r
               SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
             WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
            RETURN;
        END IF;
        -- Without its row, for dates that read a retired date are frozen and would not ask for it.
        DELETE FROM tidemark_internal.retired_dates r
         WHERE r.parent = retire_step.parent AND r.partition_id = half.partition_id;
        IF pending IS NULL THEN
            -- Detached. Everybody who could write through the parent has ended: what they marked is visible now.
            detail := CASE WHEN half.to_time <= tidemark_internal.retention_limit(parent)
                           THEN tidemark_internal.retirement_blocker(parent, half.from_time, half.to_time)
                           ELSE 'it is not due any more' END;
            IF detail IS NULL THEN
                action := 'detached';
                PERFORM tidemark_internal.set_retired(parent, half.partition_id, half.from_time, half.to_time,
                                                      'detached', half.retention_action);
                RETURN;
            END IF;
            action := 'attach';
            PERFORM tidemark_internal.execute_as_owner(parent,
                tidemark_internal.attach_again_sql(parent, half.partition_id, half.from_time, half.to_time));
            -- Whoever read the table meanwhile missed these rows.
            PERFORM tidemark.mark_dirty(parent, ARRAY(
                SELECT d::date
                  FROM generate_series(half.from_time, half.to_time - interval '1 microsecond', interval '1 day') AS d),
                'attached again');
            RETURN;
        END IF;
        -- Still attached: nothing has happened yet. Begin anew, or not at all.
    END IF;

    -- A detach that somebody else began and left pending hides its rows already and stands in the way of ours.
    SELECT b.* INTO due FROM tidemark_internal.partition_bounds(parent) b WHERE b.pending;
    IF FOUND THEN
        action := 'finalize';
        event_date := due.from_time::date;
        partition := due.partition;
        PERFORM tidemark_internal.execute_as_owner(parent,
            format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', parent, due.partition));
        IF tidemark_internal.holds_whole_dates(due.from_time, due.to_time) THEN
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detached',
                                                  'keep');
        END IF;
        RETURN;
    END IF;

    FOR due IN SELECT * FROM tidemark_internal.due_partitions(parent) LOOP
        CONTINUE WHEN due.blocked IS NOT NULL;
        event_date := due.from_time::date;
        partition := due.partition;
        IF by_client THEN
            PERFORM tidemark_internal.execute_as_owner(parent,
                format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent));
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detaching',
                                                  keep_or_drop, true);
            action := 'detach';
            detail := format('ALTER TABLE %s DETACH PARTITION %s CONCURRENTLY', parent, due.partition);
            RETURN;
        END IF;
        -- Others queue behind our request: both locks together may take no longer than one lock_timeout.
        began := clock_timestamp();
        PERFORM tidemark_internal.execute_as_owner(parent,
            format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', parent));
        PERFORM set_config('lock_timeout', greatest(100,
            2000 - (extract(epoch FROM clock_timestamp() - began) * 1000)::integer)::text, true);
        -- Nobody writes now. Whoever wrote before we had the lock has committed, and their marks are visible.
        detail := tidemark_internal.retirement_blocker(parent, due.from_time, due.to_time);
        IF detail IS NOT NULL THEN
            action := 'refused';
            RETURN;
        END IF;
        BEGIN
            PERFORM tidemark_internal.execute_as_owner(parent,
                format('ALTER TABLE %s DETACH PARTITION %s', parent, due.partition));
            PERFORM tidemark_internal.set_retired(parent, due.partition, due.from_time, due.to_time, 'detached',
                                                  keep_or_drop);
            action := 'detached';
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE;
        WHEN OTHERS THEN
            -- A foreign key that refers to its rows, say. Others must not wait for that.
            action := 'failed';
            detail := SQLSTATE || ' ' || SQLERRM;
            PERFORM tidemark_internal.detach_refused(parent, due.from_time, due.to_time, detail);
        END;
        RETURN;
    END LOOP;
    event_date := NULL;
    partition := NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.retire_step(regclass, boolean) IS
'The work behind maintenance: takes the next step towards detaching what is
due: repairs what was left half done, or detaches one partition. With
by_client it only notes the partition and returns the statement that the
client has to send. NULL when nothing is left to do.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.retire_step(regclass, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.drop_step(parent regclass,
    OUT action text, OUT event_date date, OUT partition text, OUT detail text)
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
    IF NOT tidemark_internal.lock_settings(parent) THEN
        action := 'skip';
        RETURN;
    END IF;
    FOR retired IN
        SELECT DISTINCT ON (r.partition_id) r.*
          FROM tidemark_internal.retired_dates r JOIN tidemark_internal.partition_config c ON c.parent = r.parent
         WHERE r.parent = drop_step.parent AND r.state = 'detached' AND r.retention_action = 'drop'
           -- Both then and now: whoever turns to keep keeps what is still there.
           AND c.retention_action = 'drop' AND r.to_time <= tidemark_internal.retention_limit(r.parent)
         ORDER BY r.partition_id, r.event_date
    LOOP
        event_date := retired.event_date;
        partition := retired.partition;
        refused := tidemark_internal.drop_refusal(parent, retired.event_date);
        IF refused = 'the table is gone' THEN
            action := 'forget';
        ELSIF refused IS NULL THEN
            BEGIN
                PERFORM tidemark_internal.execute_as_owner(parent,
                    format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', retired.partition_id));
                -- The name was looked up anew for the lock; and it may have been needed while we waited.
                CONTINUE WHEN to_regclass(retired.partition) IS DISTINCT FROM retired.partition_id
                    OR tidemark_internal.drop_refusal(parent, retired.event_date) IS NOT NULL;
                PERFORM tidemark_internal.execute_as_owner(parent, format('DROP TABLE %s', retired.partition_id));
                action := 'drop';
            EXCEPTION WHEN OTHERS THEN
                -- A view on one partition must not keep the others.
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, failed = MESSAGE_TEXT;
            END;
        END IF;
        CONTINUE WHEN action IS NULL;
        UPDATE tidemark_internal.retired_dates r
           SET state = 'dropped', partition_id = NULL, retired_at = clock_timestamp()
         WHERE r.parent = drop_step.parent AND r.partition = retired.partition
           AND r.partition_id IS NOT DISTINCT FROM retired.partition_id;
        RETURN;
    END LOOP;
    IF failed IS NOT NULL THEN
        RAISE EXCEPTION '%', failed USING ERRCODE = code;
    END IF;
    event_date := NULL;
    partition := NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_step(regclass) IS
'The work behind maintenance: drops one partition that was detached to be
dropped, after it is proved to be that very table. NULL when nothing is left
to do.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.drop_step(regclass) FROM PUBLIC;
