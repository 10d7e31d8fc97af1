-- Late events that a loader diverts (--late-policy divert), the way back into bronze.events, and the fingerprint that
-- tells an event sent twice from two events with one id.
ALTER TABLE bronze.events ADD COLUMN payload_hash bigint;
COMMENT ON COLUMN bronze.events.payload_hash IS
    'Hash of the event without sentAt and receivedAt: the same id with another hash is another event. '
    'NULL in rows from before there was one, which count as equal';

-- Few rows, read by date only when they are merged: one table, not partitioned.
CREATE TABLE bronze.late_events (
    event_id uuid NOT NULL,
    event_time timestamptz NOT NULL,
    event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED,
    event_type text NOT NULL,
    user_id text,
    anonymous_id text,
    received_at timestamptz NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    source_topic integer,
    source_partition integer,
    source_offset bigint,
    source_index integer,
    batch_id bigint,
    payload jsonb NOT NULL,
    payload_hash bigint,
    UNIQUE (event_id, event_date)
);
CREATE INDEX late_events_event_date ON bronze.late_events (event_date);
ALTER TABLE bronze.late_events OWNER TO tidemark_admin;
COMMENT ON TABLE bronze.late_events IS
    'Events that came later than allowed and were diverted; '
    'no model reads them until loader.merge_late_events moves them to bronze.events';
COMMENT ON COLUMN bronze.late_events.event_id IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.event_time IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.event_date IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.event_type IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.user_id IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.anonymous_id IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.received_at IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.loaded_at IS 'Start of the transaction that diverted it';
COMMENT ON COLUMN bronze.late_events.source_topic IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.source_partition IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.source_offset IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.source_index IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.batch_id IS 'loader.batches.batch_id of the transaction that diverted it';
COMMENT ON COLUMN bronze.late_events.payload IS 'As in bronze.events';
COMMENT ON COLUMN bronze.late_events.payload_hash IS 'As in bronze.events';

CREATE FUNCTION loader.merge_late_events(from_date date DEFAULT NULL, to_date date DEFAULT NULL)
RETURNS TABLE (event_date date, merged bigint, duplicates bigint, remaining bigint, reason text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    first_time timestamptz;
    last_time timestamptz;
    buckets bigint[];
    removed bigint;
BEGIN
    FOR merge_late_events.event_date IN
        SELECT DISTINCT l.event_date FROM bronze.late_events l
         WHERE (merge_late_events.from_date IS NULL OR l.event_date >= merge_late_events.from_date)
           AND (merge_late_events.to_date IS NULL OR l.event_date <= merge_late_events.to_date)
         ORDER BY l.event_date
    LOOP
        merged := 0;
        removed := 0;
        reason := NULL;
        BEGIN
            PERFORM tidemark.ensure_partitions('bronze.events'::regclass, ARRAY[merge_late_events.event_date]);
            -- Rows whose id is there already stay behind for the DELETE to judge.
            WITH moved AS (
                INSERT INTO bronze.events (event_id, event_time, event_type, user_id, anonymous_id, received_at,
                                           source_topic, source_partition, source_offset, source_index, batch_id,
                                           payload, payload_hash)
                SELECT l.event_id, l.event_time, l.event_type, l.user_id, l.anonymous_id, l.received_at,
                       l.source_topic, l.source_partition, l.source_offset, l.source_index, l.batch_id,
                       l.payload, l.payload_hash
                  FROM bronze.late_events l WHERE l.event_date = merge_late_events.event_date
                ON CONFLICT DO NOTHING
                RETURNING event_time, received_at - event_time AS lateness)
            SELECT count(*), min(m.event_time), max(m.event_time),
                   ARRAY(SELECT count(n.lateness) FROM tidemark.lateness_buckets() b
                           LEFT JOIN moved n ON n.lateness >= coalesce(b.from_lateness, n.lateness)
                                            AND (b.to_lateness IS NULL OR n.lateness < b.to_lateness)
                          GROUP BY b.bucket ORDER BY b.bucket)
              INTO merged, first_time, last_time, buckets
              FROM moved m;
            DELETE FROM bronze.late_events l
             USING bronze.events e
             WHERE l.event_date = merge_late_events.event_date
               AND e.event_time >= merge_late_events.event_date::timestamptz
               AND e.event_time < (merge_late_events.event_date + 1)::timestamptz
               AND e.event_id = l.event_id
               AND (e.payload_hash = l.payload_hash) IS NOT FALSE;
            GET DIAGNOSTICS removed = ROW_COUNT;
            IF merged > 0 THEN
                PERFORM tidemark.mark_loaded('bronze.events'::regclass, ARRAY[merge_late_events.event_date],
                                             ARRAY[merged], ARRAY[merged], ARRAY[first_time], ARRAY[last_time],
                                             buckets);
            END IF;
        EXCEPTION WHEN object_not_in_prerequisite_state THEN
            merged := 0;
            removed := 0;
            reason := SQLERRM;
        END;
        duplicates := removed - merged;
        SELECT count(*) INTO remaining FROM bronze.late_events l WHERE l.event_date = merge_late_events.event_date;
        IF remaining > 0 AND reason IS NULL THEN
            reason := 'bronze.events has other events with these ids';
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
ALTER FUNCTION loader.merge_late_events(date, date) OWNER TO tidemark_admin;
COMMENT ON FUNCTION loader.merge_late_events(date, date) IS
    'Moves diverted events of these UTC dates (both inclusive, NULL: no bound) from bronze.late_events '
    'to bronze.events, each exactly once, and marks the dates. One row a date: moved, dropped as duplicates, '
    'and left behind with the reason (date retired, or another event has the id). Needs tidemark_admin';

GRANT INSERT ON bronze.late_events TO tidemark_loader;
-- To tell whether an id is there already, and with the same content.
GRANT SELECT (event_id, event_time, payload_hash) ON bronze.late_events TO tidemark_loader;
GRANT SELECT (payload_hash) ON bronze.events TO tidemark_loader;
