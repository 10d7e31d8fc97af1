-- What was loaded, how late, and up to when a source is complete: statistics that travel with the marks of the dirty
-- log, the tables they are folded into, and the views over both. change_tracking.sql has the triggers of other writers.
--
-- A writer only appends: its statistics stand in its own marks. Whoever passes marks on (marks.sql) hands them to
-- absorb_marks first, one session at a time; every reader adds the marks that are still in the log.

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

CREATE TABLE tidemark_internal.watermark_policies (
    source regclass PRIMARY KEY,
    allowed_lateness interval NOT NULL,
    max_skew interval NOT NULL,
    reached timestamptz,
    CHECK (allowed_lateness BETWEEN '0 seconds' AND '36500 days' AND max_skew BETWEEN '0 seconds' AND '36500 days')
);
COMMENT ON TABLE tidemark_internal.watermark_policies IS
'What tidemark.set_watermark_policy was told; apart from tidemark_internal.watermarks, so that nobody who folds marks '
'waits for who sets a policy.';
COMMENT ON COLUMN tidemark_internal.watermark_policies.source IS 'Table that the rows go into.';
COMMENT ON COLUMN tidemark_internal.watermark_policies.allowed_lateness IS
'How far the watermark stays behind the latest event time.';
COMMENT ON COLUMN tidemark_internal.watermark_policies.max_skew IS
'How far an event time may lie after the start of the transaction that loaded it; later ones count as no later than '
'that.';
COMMENT ON COLUMN tidemark_internal.watermark_policies.reached IS
'The watermark when the policy was set, behind which it never moves back. NULL before the first load.';

CREATE TABLE tidemark_internal.watermarks (
    source regclass PRIMARY KEY,
    max_event_time timestamptz,
    events_loaded bigint NOT NULL DEFAULT 0,
    late_events bigint NOT NULL DEFAULT 0,
    last_loaded_at timestamptz
);
COMMENT ON TABLE tidemark_internal.watermarks IS
'One row per source: what its consumed marks said. Read tidemark.source_status instead, which adds the marks that '
'nobody has consumed yet.';
COMMENT ON COLUMN tidemark_internal.watermarks.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark_internal.watermarks.max_event_time IS
'Latest event time loaded, each held down to its load plus max_skew; NULL before the first.';
COMMENT ON COLUMN tidemark_internal.watermarks.events_loaded IS 'Rows loaded, as the writers said.';
COMMENT ON COLUMN tidemark_internal.watermarks.late_events IS 'How many of them the writers called late.';
COMMENT ON COLUMN tidemark_internal.watermarks.last_loaded_at IS
'Start of the latest transaction that loaded rows; NULL before the first.';

CREATE TABLE tidemark_internal.lateness_counts (
    source regclass NOT NULL,
    event_date date NOT NULL,
    bucket integer NOT NULL CHECK (bucket BETWEEN 1 AND 12),
    rows bigint NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (source, event_date, bucket)
);
COMMENT ON TABLE tidemark_internal.lateness_counts IS
'How many rows of each source and date were how late, from consumed marks. Read tidemark.lateness instead, which adds '
'the marks that nobody has consumed yet.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.event_date IS 'UTC date of the rows.';
COMMENT ON COLUMN tidemark_internal.lateness_counts.bucket IS 'Number of the bucket in tidemark.lateness_buckets().';
COMMENT ON COLUMN tidemark_internal.lateness_counts.rows IS 'Rows of this date in this bucket.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.watermark_policies', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.watermarks', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.lateness_counts', '');

CREATE FUNCTION tidemark_internal.saturated(total numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 5
RETURN LEAST(total, 9223372036854775807)::bigint;
COMMENT ON FUNCTION tidemark_internal.saturated(numeric) IS
'A sum of counts as bigint, or the greatest one if it is greater still.';

CREATE FUNCTION tidemark_internal.absorb_marks(ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    WITH load AS (
        SELECT l.*, coalesce(p.max_skew, interval '5 minutes') AS max_skew
          FROM tidemark_internal.dirty_log l
          LEFT JOIN tidemark_internal.watermark_policies p ON p.source = l.source
         WHERE l.id = ANY (ids) AND l.rows IS NOT NULL AND EXISTS (SELECT FROM pg_class c WHERE c.oid = l.source)
    ), counted AS (
        INSERT INTO tidemark_internal.lateness_counts AS c (source, event_date, bucket, rows)
        SELECT l.source, l.event_date, b.bucket, tidemark_internal.saturated(sum(b.n))
          FROM load l CROSS JOIN LATERAL unnest(l.lateness) WITH ORDINALITY AS b(n, bucket)
         WHERE b.n > 0
         GROUP BY l.source, l.event_date, b.bucket
        ON CONFLICT ON CONSTRAINT lateness_counts_pkey
        DO UPDATE SET rows = tidemark_internal.saturated(c.rows::numeric + excluded.rows)
    )
    INSERT INTO tidemark_internal.watermarks AS w (source, max_event_time, events_loaded, late_events, last_loaded_at)
    SELECT l.source, max(least(l.max_event_time, l.marked_at + l.max_skew)) FILTER (WHERE l.max_event_time IS NOT NULL),
           tidemark_internal.saturated(sum(l.rows)), tidemark_internal.saturated(coalesce(sum(l.late_rows), 0)),
           max(l.marked_at)
      FROM load l GROUP BY l.source
    ON CONFLICT ON CONSTRAINT watermarks_pkey DO UPDATE
       SET max_event_time = greatest(w.max_event_time, excluded.max_event_time),
           events_loaded = tidemark_internal.saturated(w.events_loaded::numeric + excluded.events_loaded),
           late_events = tidemark_internal.saturated(w.late_events::numeric + excluded.late_events),
           last_loaded_at = greatest(w.last_loaded_at, excluded.last_loaded_at);
END
$$;
REVOKE EXECUTE ON FUNCTION tidemark_internal.absorb_marks(bigint[]) FROM PUBLIC;
COMMENT ON FUNCTION tidemark_internal.absorb_marks(bigint[]) IS
'Part of tidemark_internal.pass_on: folds the statistics of these marks of
tidemark_internal.dirty_log into tidemark_internal.watermarks and
tidemark_internal.lateness_counts. To be called once for each mark, in the
transaction that takes its statistics away; marks without any and those of
dropped tables add nothing.';

CREATE VIEW tidemark.source_status AS
WITH pending AS (
    SELECT l.source, pg_catalog.sum(l.rows) AS n, pg_catalog.sum(l.late_rows) AS late,
           pg_catalog.max(l.marked_at) FILTER (WHERE l.rows IS NOT NULL) AS loaded_at,
           -- In UTC a day has 24 hours, whatever the session's time zone.
           pg_catalog.max(LEAST(l.max_event_time,
                                (l.marked_at AT TIME ZONE 'UTC' + COALESCE(p.max_skew, interval '5 minutes'))
                                    AT TIME ZONE 'UTC'))
               FILTER (WHERE l.rows IS NOT NULL AND l.max_event_time IS NOT NULL) AS max_time,
           pg_catalog.count(l.set_aside) AS set_aside
      FROM tidemark_internal.dirty_log l LEFT JOIN tidemark_internal.watermark_policies p ON p.source = l.source
     WHERE l.rows IS NOT NULL OR l.set_aside IS NOT NULL
     GROUP BY l.source
), source AS (
    SELECT p.source FROM tidemark_internal.watermark_policies p
    UNION SELECT w.source FROM tidemark_internal.watermarks w
    UNION SELECT p.source FROM pending p
), merged AS (
    SELECT s.source,
           COALESCE(c.allowed_lateness, interval '7 days') AS allowed_lateness,
           COALESCE(c.max_skew, interval '5 minutes') AS max_skew,
           c.reached,
           GREATEST(w.max_event_time, p.max_time) AS max_event_time,
           tidemark_internal.saturated(COALESCE(w.events_loaded, 0) + COALESCE(p.n, 0)) AS events_loaded,
           tidemark_internal.saturated(COALESCE(w.late_events, 0) + COALESCE(p.late, 0)) AS late_events,
           GREATEST(w.last_loaded_at, p.loaded_at) AS last_loaded_at,
           COALESCE(p.set_aside, 0) AS marks_set_aside
      FROM source s
      LEFT JOIN tidemark_internal.watermark_policies c ON c.source = s.source
      LEFT JOIN tidemark_internal.watermarks w ON w.source = s.source
      LEFT JOIN pending p ON p.source = s.source
)
SELECT m.source,
       GREATEST(m.reached, (m.max_event_time AT TIME ZONE 'UTC' - m.allowed_lateness) AT TIME ZONE 'UTC')
           AS watermark,
       m.max_event_time,
       m.events_loaded,
       m.late_events,
       m.last_loaded_at,
       EXTRACT(epoch FROM pg_catalog.now() - m.max_event_time)::numeric(20, 3) AS seconds_behind,
       m.allowed_lateness,
       m.max_skew,
       m.marks_set_aside
  FROM merged m
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = m.source);
COMMENT ON VIEW tidemark.source_status IS
'One row per table that was loaded with statistics (tidemark.mark_loaded, tidemark.track_changes), has a watermark '
'policy or a mark that could not be passed on: what is in it, marks not yet consumed included.';
COMMENT ON COLUMN tidemark.source_status.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.source_status.watermark IS
'No event older than this is expected any more: max_event_time - allowed_lateness, and never back; NULL before the '
'first load.';
COMMENT ON COLUMN tidemark.source_status.max_event_time IS
'Latest event time loaded, each held down to its load plus max_skew; NULL before the first load.';
COMMENT ON COLUMN tidemark.source_status.events_loaded IS 'Rows loaded, as the writers said.';
COMMENT ON COLUMN tidemark.source_status.late_events IS
'How many of them were later than their writer allows; 0 for writers that do not count them.';
COMMENT ON COLUMN tidemark.source_status.last_loaded_at IS
'Start of the latest transaction that loaded rows; NULL before the first.';
COMMENT ON COLUMN tidemark.source_status.seconds_behind IS
'How old the latest event is: now() - max_event_time in seconds, negative when it lies in the future; NULL before the '
'first load.';
COMMENT ON COLUMN tidemark.source_status.allowed_lateness IS
'How far the watermark stays behind the latest event time.';
COMMENT ON COLUMN tidemark.source_status.max_skew IS
'How far an event time may lie after its load before it counts as no later than that.';
COMMENT ON COLUMN tidemark.source_status.marks_set_aside IS
'Marks that raised an error when they were passed on to the models, which tidemark.mark_all_dates makes up for; 0 '
'unless somebody wrote them by hand.';

CREATE VIEW tidemark.lateness AS
WITH counted AS (
    SELECT c.source, c.event_date, c.bucket, c.rows FROM tidemark_internal.lateness_counts c
     UNION ALL
    SELECT u.source, u.event_date, b.bucket, b.n
      FROM tidemark_internal.dirty_log u
     CROSS JOIN LATERAL pg_catalog.unnest(u.lateness) WITH ORDINALITY AS b(n, bucket)
     WHERE u.rows IS NOT NULL AND b.n > 0
), summed AS (
    SELECT c.source, c.event_date, c.bucket, tidemark_internal.saturated(pg_catalog.sum(c.rows)) AS events
      FROM counted c GROUP BY c.source, c.event_date, c.bucket
)
SELECT s.source,
       s.event_date,
       b.bucket,
       b.from_lateness,
       b.to_lateness,
       s.events,
       pg_catalog.round(s.events / pg_catalog.sum(s.events) OVER day, 6) AS share,
       pg_catalog.round(pg_catalog.sum(s.events) OVER (day ORDER BY s.bucket) / pg_catalog.sum(s.events) OVER day, 6)
           AS cumulative_share
  FROM summed s JOIN tidemark.lateness_buckets() b ON b.bucket = s.bucket
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.source)
WINDOW day AS (PARTITION BY s.source, s.event_date);
COMMENT ON VIEW tidemark.lateness IS
'How late the rows of each source and date came, in the buckets of tidemark.lateness_buckets(); buckets without rows '
'are left out, marks not yet consumed are counted.';
COMMENT ON COLUMN tidemark.lateness.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.lateness.event_date IS 'UTC date of the rows.';
COMMENT ON COLUMN tidemark.lateness.bucket IS 'Number of the bucket, 1 to 12.';
COMMENT ON COLUMN tidemark.lateness.from_lateness IS
'Least lateness (received_at - event_time) in the bucket, inclusive; NULL: no bound.';
COMMENT ON COLUMN tidemark.lateness.to_lateness IS 'End of the bucket, exclusive; NULL: no bound.';
COMMENT ON COLUMN tidemark.lateness.events IS 'Rows in the bucket.';
COMMENT ON COLUMN tidemark.lateness.share IS 'Their share of all counted rows of the date, 0 to 1.';
COMMENT ON COLUMN tidemark.lateness.cumulative_share IS
'Share of the rows of the date that came no later than the end of the bucket, 0 to 1.';

CREATE VIEW tidemark.lateness_quantiles AS
WITH summed AS (
    SELECT l.source, l.bucket, l.to_lateness, pg_catalog.sum(l.events) AS events
      FROM tidemark.lateness l GROUP BY l.source, l.bucket, l.to_lateness
), ranked AS (
    SELECT s.source, s.to_lateness, s.events,
           pg_catalog.sum(s.events) OVER (PARTITION BY s.source ORDER BY s.bucket)
               / pg_catalog.sum(s.events) OVER (PARTITION BY s.source) AS reached
      FROM summed s
)
SELECT r.source,
       tidemark_internal.saturated(pg_catalog.sum(r.events)) AS events,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.5) AS p50_below,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.95) AS p95_below,
       pg_catalog.min(r.to_lateness) FILTER (WHERE r.reached >= 0.99) AS p99_below
  FROM ranked r GROUP BY r.source;
COMMENT ON VIEW tidemark.lateness_quantiles IS
'One row per source: below which bound of a bucket the lateness of most of its rows lies, over all dates.';
COMMENT ON COLUMN tidemark.lateness_quantiles.source IS 'Table that the rows went into.';
COMMENT ON COLUMN tidemark.lateness_quantiles.events IS 'Rows counted.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p50_below IS
'At least half of the rows came less late than this; NULL: the bucket has no end.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p95_below IS
'At least 95 of 100 rows came less late than this; NULL: the bucket has no end.';
COMMENT ON COLUMN tidemark.lateness_quantiles.p99_below IS
'At least 99 of 100 rows came less late than this; NULL: the bucket has no end.';

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

CREATE FUNCTION tidemark.set_watermark_policy(source regclass, allowed_lateness interval DEFAULT '7 days',
    max_skew interval DEFAULT '5 minutes') RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.set_watermark_policy(regclass, interval, interval) IS
'Sets how far the watermark of source stays behind its latest event time
(allowed_lateness), and how far an event time may lie after its load before
it counts as no later than that (max_skew; for loads consumed from now on).
Returns the watermark, which never moves back, so a larger allowed_lateness
only slows it down. Raises 22023 for intervals that are NULL, negative,
longer than 36,500 days or contain months, 42501 for who has not the rights
of the owner of source.';

CREATE FUNCTION tidemark_internal.set_watermark_policy(caller oid, source regclass, allowed_lateness interval,
    max_skew interval) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    given record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c
                    WHERE c.oid = source AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't') THEN
        RAISE EXCEPTION 'source must be a table, got %', coalesce(source::text, 'null') USING ERRCODE = '42P01';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, source);
    FOR given IN
        SELECT * FROM (VALUES ('allowed_lateness', allowed_lateness), ('max_skew', max_skew)) AS x(name, span)
    LOOP
        IF given.span IS NULL OR NOT given.span BETWEEN interval '0' AND interval '36500 days' THEN
            RAISE EXCEPTION '% must lie between 0 and 36500 days', given.name USING ERRCODE = '22023';
        ELSIF extract(year FROM given.span) <> 0 OR extract(month FROM given.span) <> 0 THEN
            RAISE EXCEPTION '% must not contain months or years', given.name
                USING ERRCODE = '22023', HINT = 'Write days: their length is fixed.';
        END IF;
    END LOOP;
    -- What was reached under the old policy is kept: a watermark never moves back.
    INSERT INTO tidemark_internal.watermark_policies AS p (source, allowed_lateness, max_skew, reached)
    VALUES (source, allowed_lateness, max_skew, tidemark.watermark(source))
    ON CONFLICT ON CONSTRAINT watermark_policies_pkey DO UPDATE
       SET allowed_lateness = excluded.allowed_lateness, max_skew = excluded.max_skew,
           reached = greatest(p.reached, excluded.reached);
    RETURN tidemark.watermark(source);
END
$$;
COMMENT ON FUNCTION tidemark_internal.set_watermark_policy(oid, regclass, interval, interval) IS
'The work behind tidemark.set_watermark_policy.';
