-- What people note when they decide about dead letters by hand.
ALTER TABLE loader.dead_letters ADD COLUMN note text;
COMMENT ON COLUMN loader.dead_letters.note IS 'Why it was discarded, in the words of whoever did it; NULL otherwise';
COMMENT ON COLUMN loader.dead_letters.status IS
    'open; replayed: tried again and then loaded, or found to be loaded already; discarded: nobody wants it';
COMMENT ON COLUMN loader.dead_letters.resolved_at IS 'When it was replayed or discarded; NULL while open';
COMMENT ON COLUMN loader.dead_letters.resolved_by IS
    'Database role that did that, with the operating system''s user name where known';
COMMENT ON COLUMN loader.pipelines.name IS
    'As given with --pipeline; '
    'file for tidemark load; dead-letters for replays of dead letters; replay ... for tidemark replay';

-- Keeps a listing of open letters in order of their age cheap, whatever the number of resolved ones.
CREATE INDEX dead_letters_open_by_age ON loader.dead_letters (quarantined_at) WHERE status = 'open';

-- For tidemark ... --dedupe id_window: which ids were loaded within the last days, whatever date their events have. All
-- transactions that note ids at the same time note them on one date, so that the key of its partition lets one of them
-- win; the dates before have nothing that is not committed. A date ends when the next one begins, under a lock.
CREATE TABLE loader.seen_ids (
    target text NOT NULL,
    event_id uuid NOT NULL,
    received_date date NOT NULL,
    PRIMARY KEY (target, event_id, received_date)
) PARTITION BY LIST (received_date);
ALTER TABLE loader.seen_ids OWNER TO tidemark_admin;
GRANT SELECT, INSERT, DELETE ON loader.seen_ids TO tidemark_loader;
COMMENT ON TABLE loader.seen_ids IS
    'Ids loaded with --dedupe id_window, a partition for each date that a window reaches: see loader.seen_dates';
COMMENT ON COLUMN loader.seen_ids.target IS 'Table that the event was loaded into, as given on the command line';
COMMENT ON COLUMN loader.seen_ids.event_id IS 'As in bronze.events';
COMMENT ON COLUMN loader.seen_ids.received_date IS
    'UTC date on which this server got it, by its own clock: the latest of loader.seen_dates then';

CREATE TABLE loader.seen_dates (
    received_date date PRIMARY KEY,
    keep_days integer NOT NULL
);
ALTER TABLE loader.seen_dates OWNER TO tidemark_admin;
GRANT SELECT ON loader.seen_dates TO tidemark_loader;
COMMENT ON TABLE loader.seen_dates IS
    'The partitions of loader.seen_ids; ids are noted on the latest date. '
    'tidemark maintain drops what is no longer kept';
COMMENT ON COLUMN loader.seen_dates.received_date IS 'UTC date';
COMMENT ON COLUMN loader.seen_dates.keep_days IS
    'For how many days it is kept, its own included: the largest --dedupe-window-days of those that load';

CREATE FUNCTION loader.begin_seen_date(keep_days integer) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
SET lock_timeout = '2s'
AS $$
DECLARE
    today constant date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    part constant text := format('loader.seen_ids_%s', to_char(today, 'YYYYMMDD'));
BEGIN
    IF EXISTS (SELECT FROM loader.seen_dates d
                WHERE d.received_date >= today AND d.keep_days >= begin_seen_date.keep_days) THEN
        RETURN;
    END IF;
    -- Waits for those that note ids on the date before, and has the next ones wait; readers go on.
    LOCK TABLE ONLY loader.seen_ids IN SHARE ROW EXCLUSIVE MODE;
    UPDATE loader.seen_dates d SET keep_days = begin_seen_date.keep_days WHERE d.keep_days < begin_seen_date.keep_days;
    IF NOT EXISTS (SELECT FROM loader.seen_dates d WHERE d.received_date >= today) THEN
        EXECUTE format('CREATE TABLE %s (LIKE loader.seen_ids INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE loader.seen_ids ATTACH PARTITION %s FOR VALUES IN (%L)', part, today);
        EXECUTE format('COMMENT ON TABLE %s IS %L', part, format('The rows of loader.seen_ids of %s', today));
        INSERT INTO loader.seen_dates VALUES (today, begin_seen_date.keep_days);
    END IF;
EXCEPTION WHEN lock_not_available THEN
    -- The date before goes on for a while, which forgets nothing.
    IF NOT EXISTS (SELECT FROM loader.seen_dates) THEN
        RAISE;
    END IF;
END
$$;
ALTER FUNCTION loader.begin_seen_date(integer) OWNER TO tidemark_admin;
REVOKE EXECUTE ON FUNCTION loader.begin_seen_date(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loader.begin_seen_date(integer) TO tidemark_loader;
COMMENT ON FUNCTION loader.begin_seen_date(integer) IS
    'Makes the partition of loader.seen_ids for today, UTC and by the clock of the server, and has all of them kept '
    'for at least so many days, their own included. Does nothing when that is so, and tries again the next time when '
    'the lock is not to be had within 2 seconds. For the loader, before each of its transactions';

CREATE FUNCTION loader.drop_seen_dates() RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    today constant date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    old date;
    dropped integer := 0;
BEGIN
    FOR old IN
        SELECT d.received_date FROM loader.seen_dates d
         WHERE d.received_date + d.keep_days <= today
           AND d.received_date < (SELECT max(l.received_date) FROM loader.seen_dates l)
         ORDER BY d.received_date
    LOOP
        EXECUTE format('DROP TABLE loader.seen_ids_%s', to_char(old, 'YYYYMMDD'));
        DELETE FROM loader.seen_dates d WHERE d.received_date = old;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
ALTER FUNCTION loader.drop_seen_dates() OWNER TO tidemark_admin;
REVOKE EXECUTE ON FUNCTION loader.drop_seen_dates() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION loader.drop_seen_dates() TO tidemark_loader;
COMMENT ON FUNCTION loader.drop_seen_dates() IS
    'Drops the partitions of loader.seen_ids that no window reaches any more, and returns how many there were. Locks '
    'the table for a moment; an error when it has to wait longer than 2 seconds for that. For tidemark maintain';
