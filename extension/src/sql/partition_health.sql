-- How the partitions of managed tables stand: what maintenance would do, what is in its way, and how it went last.
-- Nothing here changes anything, and nothing needs rights on the tables.

CREATE FUNCTION tidemark_internal.other_partitions(parent regclass)
RETURNS TABLE (kind text, partitions bigint, example text, advice text)
LANGUAGE sql STABLE PARALLEL SAFE COST 10000 ROWS 2
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
BEGIN ATOMIC
    SELECT k.kind, count(*), (array_agg(format('%s (%s to %s)', b.partition, b.from_time, b.to_time)
                                        ORDER BY b.from_time))[1],
           CASE k.kind
               WHEN 'without an end' THEN 'no date within is made or retired: put its rows into partitions of UTC days'
               WHEN 'of several days' THEN 'retired as a whole once its last date is due'
               ELSE 'no date that it shares is made, and it is never retired: put its rows into partitions of UTC '
                    'days, or detach it by hand' END
      FROM tidemark_internal.partition_bounds(parent) b
     CROSS JOIN LATERAL (SELECT CASE
               WHEN NOT isfinite(b.from_time) OR NOT isfinite(b.to_time) THEN 'without an end'
               WHEN NOT tidemark_internal.holds_whole_dates(b.from_time, b.to_time) THEN 'of other bounds'
               WHEN b.to_time - b.from_time > interval '1 day' THEN 'of several days' END AS kind) AS k
     WHERE NOT b.pending AND k.kind IS NOT NULL
     GROUP BY k.kind
    UNION ALL
    SELECT 'for the rest', 1, p.partdefid::regclass::text || ' (DEFAULT)',
           'no date of which it has rows is made: put these into partitions of UTC days'
      FROM pg_partitioned_table p
     WHERE p.partrelid = parent AND p.partdefid <> 0 AND tidemark_internal.bytes_of_one(p.partdefid) > 0
     ORDER BY 1;
END;
COMMENT ON FUNCTION tidemark_internal.other_partitions(regclass) IS
'The partitions of a table that do not hold one UTC date each, by kind: how
many, the oldest, and what that means. Kinds: of other bounds (hours, days
of another time zone), of several days, without an end, and for the rest (a
DEFAULT partition that has or had rows).';

CREATE FUNCTION tidemark.plan_maintenance(INOUT parent regclass DEFAULT NULL,
    OUT step integer, OUT action text, OUT sql text, OUT lock_level text, OUT reason text)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 100000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    wanted regclass := plan_maintenance.parent;
    today constant date := (now() AT TIME ZONE 'UTC')::date;
    config record;
    part record;
    refusal text;
BEGIN
    FOR config IN
        SELECT c.parent, c.premake_days, c.retention_days, c.retention_action, p.partdefid <> 0 AS has_default
          FROM tidemark_internal.partition_config c JOIN pg_partitioned_table p ON p.partrelid = c.parent
         WHERE wanted IS NULL OR c.parent = wanted ORDER BY c.parent::text
    LOOP
        plan_maintenance.parent := config.parent;
        step := 0;

        FOR part IN
            SELECT s.* FROM tidemark_internal.partition_sql(
                config.parent, ARRAY(SELECT d FROM tidemark_internal.wanted_dates(config.parent) AS d)) s
        LOOP
            step := step + 1;
            action := 'create';
            sql := array_to_string(part.statements, E';\n');
            lock_level := 'SHARE UPDATE EXCLUSIVE on the table';
            reason := CASE WHEN part.event_date < today THEN 'a date without partition since the last success'
                           ELSE format('%s days are wanted ahead, and no gaps', config.premake_days) END;
            RETURN NEXT;
        END LOOP;

        FOR part IN SELECT o.* FROM tidemark_internal.other_partitions(config.parent) o LOOP
            step := step + 1;
            action := 'look';
            sql := NULL;
            lock_level := NULL;
            reason := format('%s%s, a partition %s: %s', part.example,
                             CASE WHEN part.partitions > 1 THEN format(' and %s more', part.partitions - 1) END,
                             part.kind, part.advice);
            RETURN NEXT;
        END LOOP;

        FOR part IN SELECT b.* FROM tidemark_internal.partition_bounds(config.parent) b WHERE b.pending LOOP
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
            SELECT b.partition, b.from_time, b.to_time,
                   tidemark_internal.retirement_blocker(config.parent, b.from_time, b.to_time)
              FROM tidemark_internal.partition_bounds(config.parent) b
             WHERE NOT b.pending AND b.to_time <= tidemark_internal.retention_limit(config.parent)
               AND EXISTS (SELECT FROM tidemark_internal.retired_dates r
                            WHERE r.parent = config.parent AND r.partition_id = b.partition)
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
            sql := format('ALTER TABLE %s DETACH PARTITION %s', config.parent, part.partition)
                || CASE WHEN config.has_default THEN '' ELSE ' CONCURRENTLY' END;
            lock_level := CASE WHEN config.has_default THEN 'ACCESS EXCLUSIVE on the table and the partition'
                               ELSE 'SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition; '
                                    'without CONCURRENTLY in run_maintenance: ACCESS EXCLUSIVE on both' END;
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
            SELECT DISTINCT ON (r.partition_id) r.event_date, r.partition, r.partition_id
              FROM tidemark_internal.retired_dates r
             WHERE r.parent = config.parent AND r.state <> 'dropped' AND r.retention_action = 'drop'
               AND config.retention_action = 'drop' AND r.to_time <= tidemark_internal.retention_limit(config.parent)
               AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = r.partition_id)
             ORDER BY r.partition_id, r.event_date
        LOOP
            step := step + 1;
            refusal := tidemark_internal.drop_refusal(config.parent, part.event_date);
            action := CASE WHEN refusal IS NULL THEN 'drop' ELSE 'refused' END;
            sql := CASE WHEN refusal IS NULL THEN format('DROP TABLE %s', part.partition_id) END;
            lock_level := CASE WHEN refusal IS NULL THEN 'ACCESS EXCLUSIVE on the detached partition' END;
            reason := coalesce(format('%s: %s', part.partition, refusal), 'detached to be dropped');
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark.plan_maintenance(regclass) IS
'What maintenance would do now for one managed table, or for all with NULL,
in order; nothing is done. parent: the table; step: 1, 2, ... within the
table; action: create, finalize, detach concurrently, detach, drop, refused
(nothing is done), or look (partitions that are no UTC days, and what to do
about them); sql: the statements, NULL when refused; lock_level: what they
lock; reason: why, or what stands against it. No rows when nothing is due,
or for a table that is not managed. Needs no rights on the tables.';

CREATE FUNCTION tidemark_internal.partition_figures(parent regclass, OUT partitions bigint,
    OUT premade_partitions bigint, OUT premade_hours numeric, OUT oldest_date date, OUT newest_date date,
    OUT gaps bigint, OUT overlapping bigint, OUT other_bounds bigint, OUT pending_detach bigint,
    OUT refused_dates bigint)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    covered_until timestamptz := now();
BEGIN
    WITH bounds AS MATERIALIZED (SELECT b.* FROM tidemark_internal.partition_bounds(parent) b),
         attached AS (SELECT b.*, lead(b.from_time) OVER (ORDER BY b.from_time) AS next
                        FROM bounds b WHERE NOT b.pending),
         -- Until when every moment from now on has a partition.
         covered AS (SELECT upper(r) AS until
                       FROM (SELECT unnest(range_agg(tstzrange(a.from_time, a.to_time))) AS r FROM attached a) AS x
                      WHERE r @> now())
    SELECT (SELECT count(*) FROM bounds), (SELECT count(*) FROM bounds b WHERE b.pending), min(a.from_time)::date,
           (max(a.to_time) FILTER (WHERE a.to_time > '0001-01-01 00:00:00Z') - interval '1 microsecond')::date,
           count(*) FILTER (WHERE a.next < a.to_time),
           coalesce((SELECT c.until FROM covered c), now()),
           count(*) FILTER (WHERE a.from_time > now() AND a.to_time <= (SELECT c.until FROM covered c))
      INTO partitions, pending_detach, oldest_date, newest_date, overlapping, covered_until, premade_partitions
      FROM attached a;
    premade_hours := CASE WHEN isfinite(covered_until)
                          THEN round((extract(epoch FROM covered_until - now()) / 3600)::numeric, 1) END;
    -- Old dates without rows need no partition: whoever has rows for them makes it.
    SELECT count(*) INTO gaps FROM tidemark_internal.wanted_dates(parent);
    SELECT coalesce(sum(o.partitions), 0) INTO other_bounds FROM tidemark_internal.other_partitions(parent) o;
    SELECT coalesce(sum((greatest(d.to_time, '0001-01-01 00:00:00Z') - interval '1 microsecond')::date
                        - greatest(d.from_time, '0001-01-01 00:00:00Z')::date + 1), 0) INTO refused_dates
      FROM tidemark_internal.due_partitions(parent) d WHERE d.blocked IS NOT NULL AND isfinite(d.from_time);
END
$$;
COMMENT ON FUNCTION tidemark_internal.partition_figures(regclass) IS
'The work behind maintenance: the figures of tidemark.partition_health for
one table.';

CREATE VIEW tidemark.partition_health AS
SELECT c.parent, c.premake_days, c.partition_schema, c.unique_columns, c.retention_days, c.retention_action,
       f.partitions, f.premade_partitions, f.premade_hours, f.oldest_date, f.newest_date, f.gaps, f.overlapping,
       f.other_bounds, f.pending_detach,
       (SELECT pg_catalog.count(DISTINCT r.partition) FROM tidemark_internal.retired_dates r
         WHERE r.parent = c.parent AND r.state = 'detached') AS detached_partitions,
       f.refused_dates, c.last_success,
       CASE WHEN tidemark_internal.may_act_as(u.oid, t.relowner) THEN e.error ELSE pg_catalog.left(e.error, 5) END
           AS last_error,
       c.last_error_at, c.lock_timeouts
  FROM tidemark_internal.partition_config c
  JOIN pg_catalog.pg_class t ON t.oid = c.parent
  JOIN pg_catalog.pg_roles u ON u.rolname = current_user
 CROSS JOIN LATERAL tidemark_internal.partition_figures(c.parent) AS f
 CROSS JOIN LATERAL (
       -- A DETACH that was refused is said until it is done, also in rounds that did not try it again.
       SELECT COALESCE(c.last_error, (SELECT h.error FROM tidemark_internal.retention_holds h
                                       WHERE h.parent = c.parent AND h.code IS NOT NULL
                                       ORDER BY h.event_date LIMIT 1)) AS error) AS e;
COMMENT ON VIEW tidemark.partition_health IS
'One row per managed table: its settings, whether its partitions are as they should be, and how the last '
'maintenance went.';
COMMENT ON COLUMN tidemark.partition_health.parent IS 'The managed table.';
COMMENT ON COLUMN tidemark.partition_health.premake_days IS
'How many days after today (UTC) have a partition ready. This and the other settings are those of '
'tidemark.manage_partitions.';
COMMENT ON COLUMN tidemark.partition_health.partition_schema IS 'Schema in which partitions are made.';
COMMENT ON COLUMN tidemark.partition_health.unique_columns IS
'Columns of the unique index that each partition gets; NULL for none.';
COMMENT ON COLUMN tidemark.partition_health.retention_days IS
'Dates more than this many days before today (UTC) are retired; NULL keeps all.';
COMMENT ON COLUMN tidemark.partition_health.retention_action IS
'What becomes of a retired partition: drop, or keep (detached, a table of its own).';
COMMENT ON COLUMN tidemark.partition_health.partitions IS
'How many partitions it has, one whose detach is pending included.';
COMMENT ON COLUMN tidemark.partition_health.premade_partitions IS
'How many partitions are ready after today''s without a gap.';
COMMENT ON COLUMN tidemark.partition_health.premade_hours IS
'For how many hours from now every moment has a partition; 0 when not even now has one, NULL when there is no end.';
COMMENT ON COLUMN tidemark.partition_health.oldest_date IS
'First date of the oldest partition (UTC); NULL without any.';
COMMENT ON COLUMN tidemark.partition_health.newest_date IS 'Last date of the newest partition (UTC); NULL without any.';
COMMENT ON COLUMN tidemark.partition_health.gaps IS
'How many partitions are missing that maintenance should have made: of dates since its last success, and of those '
'wanted ahead (tidemark.plan_maintenance lists them). 0 after each maintenance that succeeds; anything else for '
'long means that it does not run or fails. Older dates without rows need no partition and do not count.';
COMMENT ON COLUMN tidemark.partition_health.overlapping IS
'How many partitions begin before the one before them ends: always 0, or the catalog is damaged.';
COMMENT ON COLUMN tidemark.partition_health.other_bounds IS
'How many partitions do not hold exactly one UTC date: hours, weeks, days of another time zone, open ends, and a '
'DEFAULT partition with rows. tidemark.plan_maintenance names them and says what to do.';
COMMENT ON COLUMN tidemark.partition_health.pending_detach IS
'Partitions whose DETACH CONCURRENTLY was interrupted (at most one); the next maintenance finishes it.';
COMMENT ON COLUMN tidemark.partition_health.detached_partitions IS
'Retired partitions that are still there as tables of their own: to be kept, or not yet dropped.';
COMMENT ON COLUMN tidemark.partition_health.refused_dates IS
'Dates past their retention that a model still needs, that are held, whose DETACH Postgres refused, or whose '
'partition is no UTC day; tidemark.plan_maintenance says why.';
COMMENT ON COLUMN tidemark.partition_health.last_success IS
'When maintenance last did all that was due; NULL if never.';
COMMENT ON COLUMN tidemark.partition_health.last_error IS
'SQLSTATE and message of what failed in the last maintenance, or of a DETACH that Postgres refuses; NULL if nothing'
' did. Only the SQLSTATE for who has not the rights of the owner.';
COMMENT ON COLUMN tidemark.partition_health.last_error_at IS 'When the last maintenance failed; NULL if it did not.';
COMMENT ON COLUMN tidemark.partition_health.lock_timeouts IS
'How often maintenance gave up waiting for a lock, in all.';
GRANT SELECT ON tidemark.partition_health TO PUBLIC;
