-- What was loaded, how late, and up to when a source is complete: statistics that travel with the marks of the dirty
-- log, the tables they are folded into, and the views over both. change_tracking.sql has the triggers of other writers.
--
-- A writer only appends: its statistics stand in its own marks. Whoever consumes marks (tidemark_internal.distribute_dirty)
-- hands them to absorb_marks first. Two consumers at once must not wait for each other's recompute, so the second one
-- sets its statistics aside in unfolded_loads; every reader adds marks, unfolded_loads and the tables.

CREATE FUNCTION tidemark.lateness_buckets() RETURNS TABLE (bucket integer, from_lateness interval, to_lateness interval)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10 ROWS 12
BEGIN ATOMIC
    SELECT * FROM (VALUES
        (1, NULL::interval, interval '1 second'),
        (2, interval '1 second', interval '10 seconds'),
        (3, interval '10 seconds', interval '1 minute'),
        (4, interval '1 minute', interval '10 minutes'),
        (5, interval '10 minutes', interval '1 hour'),
        (6, interval '1 hour', interval '6 hours'),
        (7, interval '6 hours', interval '1 day'),
        (8, interval '1 day', interval '3 days'),
        (9, interval '3 days', interval '7 days'),
        (10, interval '7 days', interval '30 days'),
        (11, interval '30 days', interval '90 days'),
        (12, interval '90 days', NULL::interval)) AS b;
END;
COMMENT ON FUNCTION tidemark.lateness_buckets() IS
'The twelve buckets in which lateness (received_at - event_time) is counted:
from_lateness inclusive, to_lateness exclusive; NULL: without bound. Fixed
for ever, because counts are stored by number. A day is 24 hours.';

CREATE TABLE tidemark_internal.watermarks (
    source regclass PRIMARY KEY,
    allowed_lateness interval NOT NULL DEFAULT '7 days' CHECK (allowed_lateness >= '0 seconds'),
    max_skew interval NOT NULL DEFAULT '5 minutes' CHECK (max_skew >= '0 seconds'),
    max_event_time timestamptz,
    watermark timestamptz,
    events_loaded bigint NOT NULL DEFAULT 0,
    late_events bigint NOT NULL DEFAULT 0,
    last_loaded_at timestamptz
);
COMMENT ON TABLE tidemark_internal.watermarks IS
'One row per source: its watermark policy and what its consumed marks said. Read tidemark.source_status instead, which adds the marks that nobody has consumed yet.';
COMMENT ON COLUMN tidemark_internal.watermarks.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark_internal.watermarks.allowed_lateness IS 'How far the watermark stays behind the latest event time.';
COMMENT ON COLUMN tidemark_internal.watermarks.max_skew IS 'How far an event time may lie after the start of the transaction that loaded it; later ones count as no later than that.';
COMMENT ON COLUMN tidemark_internal.watermarks.max_event_time IS 'Latest event time loaded, each held down to its load plus max_skew; NULL before the first.';
COMMENT ON COLUMN tidemark_internal.watermarks.watermark IS 'The watermark as of the last fold or change of policy; never moves back. NULL before the first.';
COMMENT ON COLUMN tidemark_internal.watermarks.events_loaded IS 'Rows loaded, as the writers said.';
COMMENT ON COLUMN tidemark_internal.watermarks.late_events IS 'How many of them the writers called late.';
COMMENT ON COLUMN tidemark_internal.watermarks.last_loaded_at IS 'Start of the latest transaction that loaded rows; NULL before the first.';

CREATE TABLE tidemark_internal.lateness_counts (
    source regclass NOT NULL,
    event_date date NOT NULL,
    bucket integer NOT NULL CHECK (bucket BETWEEN 1 AND 12),
    rows bigint NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (source, event_date, bucket)
);
COMMENT ON TABLE tidemark_internal.lateness_counts IS
'How many rows of each source and date were how late, from consumed marks. Read tidemark.lateness instead, which adds the marks that nobody has consumed yet.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.event_date IS 'UTC date of the rows.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.bucket IS 'Number of the bucket in tidemark.lateness_buckets().';
COMMENT ON COLUMN tidemark_internal.lateness_counts.rows IS 'Rows of this date in this bucket.';

CREATE TABLE tidemark_internal.unfolded_loads (
    source regclass NOT NULL,
    event_date date NOT NULL,
    marked_at timestamptz NOT NULL,
    rows bigint NOT NULL,
    late_rows bigint,
    max_event_time timestamptz,
    lateness bigint[]
);
COMMENT ON TABLE tidemark_internal.unfolded_loads IS
'Append-only: statistics of marks that were consumed while another session was folding. The next fold takes them in.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.source IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.event_date IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.marked_at IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.late_rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.max_event_time IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded_loads.lateness IS 'As in tidemark_internal.dirty_log.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.watermarks', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.lateness_counts', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.unfolded_loads', '');

-- Everybody who may use the schema may look; the policy of a source is its owner's business, the rest absorb_marks'.
ALTER TABLE tidemark_internal.watermarks ENABLE ROW LEVEL SECURITY;
ALTER TABLE tidemark_internal.lateness_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE tidemark_internal.unfolded_loads ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.watermarks FOR SELECT USING (true);
CREATE POLICY owner_inserts ON tidemark_internal.watermarks FOR INSERT
    WITH CHECK (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = source), 'MEMBER'));
CREATE POLICY owner_updates ON tidemark_internal.watermarks FOR UPDATE
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = source), 'MEMBER'));
CREATE POLICY everybody_reads ON tidemark_internal.lateness_counts FOR SELECT USING (true);
CREATE POLICY everybody_reads ON tidemark_internal.unfolded_loads FOR SELECT USING (true);
COMMENT ON POLICY everybody_reads ON tidemark_internal.watermarks IS 'Statistics hold no rows of the source.';
COMMENT ON POLICY owner_inserts ON tidemark_internal.watermarks IS 'Members of the owner of the source set its policy.';
COMMENT ON POLICY owner_updates ON tidemark_internal.watermarks IS 'Members of the owner of the source set its policy.';
COMMENT ON POLICY everybody_reads ON tidemark_internal.lateness_counts IS 'Statistics hold no rows of the source.';
COMMENT ON POLICY everybody_reads ON tidemark_internal.unfolded_loads IS 'Statistics hold no rows of the source.';
GRANT SELECT ON tidemark_internal.watermarks, tidemark_internal.lateness_counts, tidemark_internal.unfolded_loads TO PUBLIC;
GRANT INSERT (source, allowed_lateness, max_skew, watermark), UPDATE (allowed_lateness, max_skew, watermark) ON tidemark_internal.watermarks TO PUBLIC;

CREATE VIEW tidemark_internal.unfolded AS
SELECT l.source, l.event_date, l.marked_at, l.rows, l.late_rows, l.max_event_time, l.lateness
  FROM tidemark_internal.dirty_log l WHERE l.rows IS NOT NULL
 UNION ALL
SELECT u.source, u.event_date, u.marked_at, u.rows, u.late_rows, u.max_event_time, u.lateness
  FROM tidemark_internal.unfolded_loads u;
COMMENT ON VIEW tidemark_internal.unfolded IS 'Statistics of loads that are not yet folded into tidemark_internal.watermarks and tidemark_internal.lateness_counts.';
COMMENT ON COLUMN tidemark_internal.unfolded.source IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.event_date IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.marked_at IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.late_rows IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.max_event_time IS 'As in tidemark_internal.dirty_log.';
COMMENT ON COLUMN tidemark_internal.unfolded.lateness IS 'As in tidemark_internal.dirty_log.';

CREATE FUNCTION tidemark.mark_loaded(source regclass, dates date[], rows bigint[], late_rows bigint[], min_event_times timestamptz[], max_event_times timestamptz[], lateness bigint[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    n CONSTANT integer := cardinality(mark_loaded.dates);
BEGIN
    IF mark_loaded.source IS NULL THEN
        RAISE EXCEPTION 'source must not be null' USING ERRCODE = '22004';
    ELSIF n IS NULL OR n = 0 THEN
        RETURN;
    ELSIF (cardinality(mark_loaded.rows), cardinality(mark_loaded.late_rows), cardinality(mark_loaded.min_event_times), cardinality(mark_loaded.max_event_times)) IS DISTINCT FROM (n, n, n, n) THEN
        RAISE EXCEPTION 'rows, late_rows, min_event_times and max_event_times must have as many elements as dates, which has %', n USING ERRCODE = '2202E';
    ELSIF cardinality(mark_loaded.lateness) <> 12 * n THEN
        RAISE EXCEPTION 'lateness must have 12 elements for each of % dates, has %', n, cardinality(mark_loaded.lateness)
            USING ERRCODE = '2202E', HINT = 'tidemark.lateness_buckets() lists the buckets.';
    ELSIF 0 > ANY (mark_loaded.rows || mark_loaded.late_rows || mark_loaded.lateness) THEN
        RAISE EXCEPTION 'rows, late_rows and lateness must not be negative' USING ERRCODE = '22023';
    END IF;
    INSERT INTO tidemark_internal.dirty_log (source, event_date, reason, only_added, rows, late_rows, min_event_time, max_event_time, lateness)
    SELECT mark_loaded.source, v.event_date, 'loaded', true, coalesce(v.n_rows, 0), v.n_late, v.min_time, v.max_time, mark_loaded.lateness[12 * v.i - 11 : 12 * v.i]
      FROM unnest(mark_loaded.dates, mark_loaded.rows, mark_loaded.late_rows, mark_loaded.min_event_times, mark_loaded.max_event_times)
           WITH ORDINALITY AS v(event_date, n_rows, n_late, min_time, max_time, i)
     WHERE v.event_date IS NOT NULL
     ORDER BY v.event_date;
END
$$;
COMMENT ON FUNCTION tidemark.mark_loaded(regclass, date[], bigint[], bigint[], timestamptz[], timestamptz[], bigint[]) IS
'Records rows that a writer added: tidemark.mark_dirty for one that knows
more about them. Rows that it changed or deleted need tidemark.mark_dirty as
well: after this alone a refresh may look at new rows only. For each UTC
date: the number of rows, how many of them were late, the earliest and
latest event time, and the counts of the buckets of
tidemark.lateness_buckets(), twelve a date one after the other (NULL: not
counted). Feeds the watermark and the views lateness and source_status. Call
it in the transaction that loads the rows. Elements whose date is NULL are
skipped; arrays of different length raise 2202E, negative counts 22023.
Needs what tidemark.mark_dirty needs.';

CREATE FUNCTION tidemark_internal.absorb_marks(ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Held until the end of a transaction that may recompute for long: whoever does not get it sets its rows aside.
    IF NOT pg_try_advisory_xact_lock('tidemark_internal.watermarks'::regclass::oid::bigint) THEN
        INSERT INTO tidemark_internal.unfolded_loads (source, event_date, marked_at, rows, late_rows, max_event_time, lateness)
        SELECT l.source, l.event_date, l.marked_at, l.rows, l.late_rows, l.max_event_time, l.lateness
          FROM tidemark_internal.dirty_log l
         WHERE l.id = ANY (ids) AND l.rows IS NOT NULL;
        RETURN;
    END IF;
    WITH set_aside AS (
        DELETE FROM tidemark_internal.unfolded_loads u RETURNING u.*
    ), load AS (
        SELECT x.*
          FROM (SELECT l.source, l.event_date, l.marked_at, l.rows, l.late_rows, l.max_event_time, l.lateness
                  FROM tidemark_internal.dirty_log l WHERE l.id = ANY (ids) AND l.rows IS NOT NULL
                 UNION ALL
                SELECT s.source, s.event_date, s.marked_at, s.rows, s.late_rows, s.max_event_time, s.lateness FROM set_aside s) AS x
         WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = x.source)
    ), counted AS (
        INSERT INTO tidemark_internal.lateness_counts AS c (source, event_date, bucket, rows)
        SELECT l.source, l.event_date, b.bucket, sum(b.n)
          FROM load l CROSS JOIN LATERAL unnest(l.lateness) WITH ORDINALITY AS b(n, bucket)
         WHERE b.n > 0
         GROUP BY l.source, l.event_date, b.bucket
        ON CONFLICT ON CONSTRAINT lateness_counts_pkey DO UPDATE SET rows = c.rows + excluded.rows
    ), by_source AS (
        SELECT l.source, sum(l.rows) AS n, coalesce(sum(l.late_rows), 0) AS late, max(l.marked_at) AS loaded_at,
               max(least(l.max_event_time, (l.marked_at AT TIME ZONE 'UTC' + coalesce(w.max_skew, interval '5 minutes')) AT TIME ZONE 'UTC')) FILTER (WHERE l.max_event_time IS NOT NULL) AS max_time,
               coalesce(min(w.allowed_lateness), interval '7 days') AS allowed
          FROM load l LEFT JOIN tidemark_internal.watermarks w ON w.source = l.source
         GROUP BY l.source
    )
    INSERT INTO tidemark_internal.watermarks AS w (source, max_event_time, watermark, events_loaded, late_events, last_loaded_at)
    SELECT s.source, s.max_time, (s.max_time AT TIME ZONE 'UTC' - s.allowed) AT TIME ZONE 'UTC', s.n, s.late, s.loaded_at FROM by_source s
    ON CONFLICT ON CONSTRAINT watermarks_pkey DO UPDATE
       SET max_event_time = greatest(w.max_event_time, excluded.max_event_time),
           watermark = greatest(w.watermark, excluded.watermark),
           events_loaded = w.events_loaded + excluded.events_loaded,
           late_events = w.late_events + excluded.late_events,
           last_loaded_at = greatest(w.last_loaded_at, excluded.last_loaded_at);
END
$$;
REVOKE EXECUTE ON FUNCTION tidemark_internal.absorb_marks(bigint[]) FROM PUBLIC;
COMMENT ON FUNCTION tidemark_internal.absorb_marks(bigint[]) IS
'Part of tidemark_internal.distribute_dirty: folds the statistics of these marks of
tidemark_internal.dirty_log into tidemark_internal.watermarks and tidemark_internal.lateness_counts. To
be called once for each mark, in the transaction that deletes it; marks
without statistics and those of dropped tables add nothing.';

CREATE VIEW tidemark.source_status AS
WITH pending AS (
    SELECT u.source, pg_catalog.sum(u.rows) AS n, pg_catalog.sum(u.late_rows) AS late, pg_catalog.max(u.marked_at) AS loaded_at,
           pg_catalog.max(LEAST(u.max_event_time, (u.marked_at AT TIME ZONE 'UTC' + COALESCE(w.max_skew, interval '5 minutes')) AT TIME ZONE 'UTC')) FILTER (WHERE u.max_event_time IS NOT NULL) AS max_time
      FROM tidemark_internal.unfolded u LEFT JOIN tidemark_internal.watermarks w ON w.source = u.source
     GROUP BY u.source
), merged AS (
    SELECT COALESCE(w.source, p.source) AS source,
           COALESCE(w.allowed_lateness, interval '7 days') AS allowed_lateness,
           COALESCE(w.max_skew, interval '5 minutes') AS max_skew,
           w.watermark,
           GREATEST(w.max_event_time, p.max_time) AS max_event_time,
           (COALESCE(w.events_loaded, 0) + COALESCE(p.n, 0))::bigint AS events_loaded,
           (COALESCE(w.late_events, 0) + COALESCE(p.late, 0))::bigint AS late_events,
           GREATEST(w.last_loaded_at, p.loaded_at) AS last_loaded_at
      FROM tidemark_internal.watermarks w FULL JOIN pending p ON p.source = w.source
)
SELECT m.source,
       -- In UTC a day has 24 hours, whatever the session's time zone.
       GREATEST(m.watermark, (m.max_event_time AT TIME ZONE 'UTC' - m.allowed_lateness) AT TIME ZONE 'UTC') AS watermark,
       m.max_event_time,
       m.events_loaded,
       m.late_events,
       m.last_loaded_at,
       EXTRACT(epoch FROM pg_catalog.now() - m.max_event_time)::numeric(20, 3) AS seconds_behind,
       m.allowed_lateness,
       m.max_skew
  FROM merged m
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = m.source);
COMMENT ON VIEW tidemark.source_status IS
'One row per table that was loaded with statistics (tidemark.mark_loaded, tidemark.track_changes) or has a watermark policy: what is in it, marks not yet consumed included.';
COMMENT ON COLUMN tidemark.source_status.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.source_status.watermark IS 'No event older than this is expected any more: max_event_time - allowed_lateness, and never back; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.max_event_time IS 'Latest event time loaded, each held down to its load plus max_skew; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.events_loaded IS 'Rows loaded, as the writers said.';
COMMENT ON COLUMN tidemark.source_status.late_events IS 'How many of them were later than their writer allows; 0 for writers that do not count them.';
COMMENT ON COLUMN tidemark.source_status.last_loaded_at IS 'Start of the latest transaction that loaded rows; NULL before the first.';
COMMENT ON COLUMN tidemark.source_status.seconds_behind IS 'How old the latest event is: now() - max_event_time in seconds, negative when it lies in the future; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.allowed_lateness IS 'How far the watermark stays behind the latest event time.';
COMMENT ON COLUMN tidemark.source_status.max_skew IS 'How far an event time may lie after its load before it counts as no later than that.';

CREATE VIEW tidemark.lateness AS
WITH counted AS (
    SELECT c.source, c.event_date, c.bucket, c.rows FROM tidemark_internal.lateness_counts c
     UNION ALL
    SELECT u.source, u.event_date, b.bucket, b.n
      FROM tidemark_internal.unfolded u CROSS JOIN LATERAL pg_catalog.unnest(u.lateness) WITH ORDINALITY AS b(n, bucket)
     WHERE b.n > 0
), summed AS (
    SELECT c.source, c.event_date, c.bucket, pg_catalog.sum(c.rows)::bigint AS events
      FROM counted c GROUP BY c.source, c.event_date, c.bucket
)
SELECT s.source,
       s.event_date,
       b.bucket,
       b.from_lateness,
       b.to_lateness,
       s.events,
       pg_catalog.round(s.events / pg_catalog.sum(s.events) OVER day, 6) AS share,
       pg_catalog.round(pg_catalog.sum(s.events) OVER (day ORDER BY s.bucket) / pg_catalog.sum(s.events) OVER day, 6) AS cumulative_share
  FROM summed s JOIN tidemark.lateness_buckets() b ON b.bucket = s.bucket
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.source)
WINDOW day AS (PARTITION BY s.source, s.event_date);
COMMENT ON VIEW tidemark.lateness IS
'How late the rows of each source and date came, in the buckets of tidemark.lateness_buckets(); buckets without rows are left out, marks not yet consumed are counted.';
COMMENT ON COLUMN tidemark.lateness.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.lateness.event_date IS 'UTC date of the rows.';
COMMENT ON COLUMN tidemark.lateness.bucket IS 'Number of the bucket, 1 to 12.';
COMMENT ON COLUMN tidemark.lateness.from_lateness IS 'Least lateness (received_at - event_time) in the bucket, inclusive; NULL: no bound.';
COMMENT ON COLUMN tidemark.lateness.to_lateness IS 'End of the bucket, exclusive; NULL: no bound.';
COMMENT ON COLUMN tidemark.lateness.events IS 'Rows in the bucket.';
COMMENT ON COLUMN tidemark.lateness.share IS 'Their share of all counted rows of the date, 0 to 1.';
COMMENT ON COLUMN tidemark.lateness.cumulative_share IS 'Share of the rows of the date that came no later than the end of the bucket, 0 to 1.';

CREATE VIEW tidemark.lateness_quantiles AS
WITH summed AS (
    SELECT l.source, l.bucket, l.to_lateness, pg_catalog.sum(l.events) AS events
      FROM tidemark.lateness l GROUP BY l.source, l.bucket, l.to_lateness
), ranked AS (
    SELECT s.source, s.to_lateness, s.events,
           pg_catalog.sum(s.events) OVER (PARTITION BY s.source ORDER BY s.bucket) / pg_catalog.sum(s.events) OVER (PARTITION BY s.source) AS reached
      FROM summed s
)
SELECT r.source,
       pg_catalog.sum(r.events)::bigint AS events,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.5) AS p50_below,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.95) AS p95_below,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.99) AS p99_below
  FROM ranked r GROUP BY r.source;
COMMENT ON VIEW tidemark.lateness_quantiles IS 'One row per source: below which bound of a bucket the lateness of most of its rows lies, over all dates.';
COMMENT ON COLUMN tidemark.lateness_quantiles.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.lateness_quantiles.events IS 'Rows counted.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p50_below IS 'At least half of the rows came less late than this; NULL: the bucket has no end.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p95_below IS 'At least 95 of 100 rows came less late than this; NULL: the bucket has no end.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p99_below IS 'At least 99 of 100 rows came less late than this; NULL: the bucket has no end.';

-- They show totals, no rows of the sources.
GRANT SELECT ON tidemark.source_status, tidemark.lateness, tidemark.lateness_quantiles TO PUBLIC;

CREATE FUNCTION tidemark.watermark(source regclass) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT s.watermark FROM tidemark.source_status s WHERE s.source = watermark.source;
END;
COMMENT ON FUNCTION tidemark.watermark(regclass) IS
'Up to when source is complete, as far as its policy goes: the latest event
time loaded (held down to its load plus max_skew) minus allowed_lateness.
Never moves back, counts marks that nobody has consumed yet. NULL for NULL
and for a table that was never loaded with statistics.';

CREATE FUNCTION tidemark.set_watermark_policy(source regclass, allowed_lateness interval DEFAULT '7 days', max_skew interval DEFAULT '5 minutes') RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = set_watermark_policy.source);
    reached timestamptz;
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(set_watermark_policy.source::text, 'null') USING ERRCODE = '42P01';
    ELSIF NOT pg_has_role(owner, 'MEMBER') THEN
        RAISE EXCEPTION 'must be owner of table %', set_watermark_policy.source USING ERRCODE = '42501';
    ELSIF set_watermark_policy.allowed_lateness IS NULL OR set_watermark_policy.allowed_lateness < interval '0' THEN
        RAISE EXCEPTION 'allowed_lateness must not be null or negative' USING ERRCODE = '22023';
    ELSIF set_watermark_policy.max_skew IS NULL OR set_watermark_policy.max_skew < interval '0' THEN
        RAISE EXCEPTION 'max_skew must not be null or negative' USING ERRCODE = '22023';
    ELSIF extract(year FROM set_watermark_policy.allowed_lateness) <> 0 OR extract(month FROM set_watermark_policy.allowed_lateness) <> 0
       OR extract(year FROM set_watermark_policy.max_skew) <> 0 OR extract(month FROM set_watermark_policy.max_skew) <> 0 THEN
        RAISE EXCEPTION 'allowed_lateness and max_skew must not contain months or years' USING ERRCODE = '22023', HINT = 'Write days: their length is fixed.';
    END IF;
    -- Waits for whoever folds; who comes meanwhile sets its statistics aside and does not wait for us.
    PERFORM pg_advisory_xact_lock('tidemark_internal.watermarks'::regclass::oid::bigint);
    -- What was reached under the old policy is kept: a watermark never moves back.
    reached := tidemark.watermark(set_watermark_policy.source);
    INSERT INTO tidemark_internal.watermarks AS w (source, allowed_lateness, max_skew, watermark)
    VALUES (set_watermark_policy.source, set_watermark_policy.allowed_lateness, set_watermark_policy.max_skew, reached)
    ON CONFLICT ON CONSTRAINT watermarks_pkey DO UPDATE
       SET allowed_lateness = excluded.allowed_lateness, max_skew = excluded.max_skew, watermark = excluded.watermark;
    RETURN tidemark.watermark(set_watermark_policy.source);
END
$$;
COMMENT ON FUNCTION tidemark.set_watermark_policy(regclass, interval, interval) IS
'Sets how far the watermark of source stays behind its latest event time
(allowed_lateness), and how far an event time may lie after its load before
it counts as no later than that (max_skew; for loads consumed from now on).
Returns the watermark, which never moves back, so a larger allowed_lateness
only slows it down. Raises 22023 for intervals that are NULL, negative or
contain months, 42501 for who does not own source.';
