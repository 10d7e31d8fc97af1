-- How long the loader's own books are kept: what tidemark maintain asks of them once an hour. Sums stay for good.
CREATE TABLE loader.batch_totals (
    pipeline_id integer NOT NULL REFERENCES loader.pipelines,
    committed_date date NOT NULL,
    n_batches bigint NOT NULL,
    n_read bigint NOT NULL,
    n_loaded bigint NOT NULL,
    n_duplicate bigint NOT NULL,
    n_late bigint NOT NULL,
    n_dead bigint NOT NULL,
    n_filtered bigint NOT NULL,
    n_tombstone bigint NOT NULL,
    bytes bigint NOT NULL,
    n_missing bigint NOT NULL,
    last_committed_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline_id, committed_date)
);
ALTER TABLE loader.batch_totals OWNER TO tidemark_admin;
COMMENT ON TABLE loader.batch_totals IS
    'Sums of loader.batches by pipeline and UTC date of the commit, of those that loader.keep_books has counted';
COMMENT ON COLUMN loader.batch_totals.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.batch_totals.committed_date IS 'UTC date of loader.batches.committed_at';
COMMENT ON COLUMN loader.batch_totals.n_batches IS 'Batches';
COMMENT ON COLUMN loader.batch_totals.n_read IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_loaded IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_duplicate IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_late IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_dead IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_filtered IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_tombstone IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.bytes IS 'Sum of the column of loader.batches';
COMMENT ON COLUMN loader.batch_totals.n_missing IS
    'Of n_loaded, no longer in the table when the batches were counted, an hour or two after their commit: '
    'somebody deleted the rows, or their partition was retired';
COMMENT ON COLUMN loader.batch_totals.last_committed_at IS 'Commit of the last batch among them';

CREATE TABLE loader.dead_letter_totals (
    pipeline_id integer NOT NULL REFERENCES loader.pipelines,
    reason text NOT NULL,
    status text NOT NULL,
    letters bigint NOT NULL,
    PRIMARY KEY (pipeline_id, reason, status)
);
ALTER TABLE loader.dead_letter_totals OWNER TO tidemark_admin;
COMMENT ON TABLE loader.dead_letter_totals IS
    'How many resolved dead letters loader.keep_books has removed, 90 days after they were resolved';
COMMENT ON COLUMN loader.dead_letter_totals.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.dead_letter_totals.reason IS 'As in loader.dead_letters';
COMMENT ON COLUMN loader.dead_letter_totals.status IS 'replayed or discarded';
COMMENT ON COLUMN loader.dead_letter_totals.letters IS 'How many';

-- The few that wait to be counted are found at once, however many others there are.
CREATE INDEX batches_uncounted ON loader.batches (committed_at) WHERE NOT counted;
CREATE INDEX batches_committed_at ON loader.batches USING brin (committed_at);
CREATE INDEX dead_letters_resolved_at ON loader.dead_letters (resolved_at) WHERE status <> 'open';
-- Batches lie together in the partitions that they filled, so this costs next to nothing.
CREATE INDEX events_batch_id ON bronze.events USING brin (batch_id) WITH (autosummarize = on);

CREATE VIEW loader.pipeline_totals AS
SELECT p.name AS pipeline, coalesce(sum(t.n_read), 0)::bigint AS read, coalesce(sum(t.n_loaded), 0)::bigint AS loaded,
       coalesce(sum(t.n_duplicate), 0)::bigint AS duplicate, coalesce(sum(t.n_late), 0)::bigint AS late_diverted,
       coalesce(sum(t.n_dead), 0)::bigint AS dead, coalesce(sum(t.n_filtered), 0)::bigint AS filtered,
       coalesce(sum(t.n_tombstone), 0)::bigint AS tombstone, coalesce(sum(t.n_batches), 0)::bigint AS batches,
       coalesce(sum(t.n_missing), 0)::bigint AS missing, max(t.last_committed_at) AS last_committed_at
  FROM loader.pipelines AS p
  LEFT JOIN (
       SELECT pipeline_id, n_batches, n_read, n_loaded, n_duplicate, n_late, n_dead, n_filtered, n_tombstone,
              n_missing, last_committed_at
         FROM loader.batch_totals
       UNION ALL
       SELECT pipeline_id, 1, n_read, n_loaded, n_duplicate, n_late, n_dead, n_filtered, n_tombstone, 0, committed_at
         FROM loader.batches WHERE NOT counted) AS t USING (pipeline_id)
 GROUP BY p.name;
ALTER VIEW loader.pipeline_totals OWNER TO tidemark_admin;
COMMENT ON VIEW loader.pipeline_totals IS
    'How the records that each pipeline ever read ended, exactly: counted batches by their sums, the others one by one';
COMMENT ON COLUMN loader.pipeline_totals.pipeline IS 'loader.pipelines.name';
COMMENT ON COLUMN loader.pipeline_totals.read IS 'Records read, the sum of the six after it';
COMMENT ON COLUMN loader.pipeline_totals.loaded IS 'Loaded';
COMMENT ON COLUMN loader.pipeline_totals.duplicate IS 'Loaded before';
COMMENT ON COLUMN loader.pipeline_totals.late_diverted IS 'Diverted to bronze.late_events';
COMMENT ON COLUMN loader.pipeline_totals.dead IS 'Dead letters';
COMMENT ON COLUMN loader.pipeline_totals.filtered IS 'Skipped on purpose';
COMMENT ON COLUMN loader.pipeline_totals.tombstone IS 'Kafka records without a value';
COMMENT ON COLUMN loader.pipeline_totals.batches IS 'Batches committed';
COMMENT ON COLUMN loader.pipeline_totals.missing IS 'As loader.batch_totals.n_missing';
COMMENT ON COLUMN loader.pipeline_totals.last_committed_at IS 'Commit of the last batch; NULL before the first';

-- How many rows each of these batches has in a table, which must be one that the caller may read.
CREATE FUNCTION loader.rows_of_batches(target text, batch_ids bigint[], from_time timestamptz, to_time timestamptz)
RETURNS TABLE (batch_id bigint, n bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT e.batch_id, count(*) FROM %s AS e
          WHERE e.batch_id BETWEEN $1 AND $2 AND e.event_time BETWEEN $3 AND $4 AND e.batch_id = ANY ($5)
          GROUP BY e.batch_id', to_regclass(target))
    USING (SELECT min(x) FROM unnest(batch_ids) AS x), (SELECT max(x) FROM unnest(batch_ids) AS x), from_time, to_time,
          batch_ids;
END
$$;
ALTER FUNCTION loader.rows_of_batches(text, bigint[], timestamptz, timestamptz) OWNER TO tidemark_admin;
REVOKE EXECUTE ON FUNCTION loader.rows_of_batches(text, bigint[], timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION loader.rows_of_batches(text, bigint[], timestamptz, timestamptz) IS
    'Part of loader.keep_books: rows of each of these batches in a table, between two event times (inclusive)';

CREATE FUNCTION loader.keep_books(OUT counted bigint, OUT missing bigint, OUT removed_batches bigint,
    OUT removed_letters bigint, OUT more boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    -- What one call, which is one transaction, takes on.
    most CONSTANT integer := 20000;
    ids bigint[];
    found record;
    merged bigint[] := '{}';
    short jsonb := '{}';
    horizon timestamptz;
BEGIN
    -- One at a time; loaders do not touch this table.
    LOCK TABLE loader.batch_totals IN SHARE ROW EXCLUSIVE MODE;

    -- By whole hours, so that ranges are merged by the hour as well.
    SELECT array_agg(b.batch_id) INTO ids
      FROM (SELECT x.batch_id FROM loader.batches x
             WHERE NOT x.counted AND x.committed_at < date_trunc('hour', now()) - interval '1 hour'
             ORDER BY x.committed_at LIMIT most) AS b;
    counted := coalesce(cardinality(ids), 0);
    FOR found IN
        SELECT b.target, array_agg(b.batch_id) AS batch_ids, min(b.min_event_time) AS from_time,
               max(b.max_event_time) AS to_time
          FROM loader.batches b
         WHERE b.batch_id = ANY (ids) AND b.n_loaded > 0
         GROUP BY b.target
    LOOP
        -- A table that is gone, or that is somebody else's, is taken at its word.
        CONTINUE WHEN to_regclass(found.target) IS NULL
                   OR NOT has_table_privilege(to_regclass(found.target), 'SELECT');
        short := short || coalesce((
            SELECT jsonb_object_agg(b.batch_id, b.n_loaded - coalesce(r.n, 0))
              FROM loader.batches b
              LEFT JOIN loader.rows_of_batches(found.target, found.batch_ids, found.from_time, found.to_time) AS r
                USING (batch_id)
             WHERE b.batch_id = ANY (found.batch_ids) AND b.n_loaded > coalesce(r.n, 0)), '{}');
    END LOOP;
    SELECT coalesce(sum(s.value::bigint), 0) INTO missing FROM jsonb_each_text(short) AS s;

    WITH taken AS (
        UPDATE loader.batches b SET counted = true WHERE b.batch_id = ANY (ids) RETURNING b.*)
    INSERT INTO loader.batch_totals AS t
    SELECT b.pipeline_id, b.committed_at::date, count(*), sum(b.n_read), sum(b.n_loaded), sum(b.n_duplicate),
           sum(b.n_late), sum(b.n_dead), sum(b.n_filtered), sum(b.n_tombstone), sum(b.bytes),
           coalesce(sum((short ->> b.batch_id::text)::bigint), 0), max(b.committed_at)
      FROM taken b
     GROUP BY b.pipeline_id, b.committed_at::date
        ON CONFLICT (pipeline_id, committed_date) DO UPDATE
       SET n_batches = t.n_batches + excluded.n_batches, n_read = t.n_read + excluded.n_read,
           n_loaded = t.n_loaded + excluded.n_loaded, n_duplicate = t.n_duplicate + excluded.n_duplicate,
           n_late = t.n_late + excluded.n_late, n_dead = t.n_dead + excluded.n_dead,
           n_filtered = t.n_filtered + excluded.n_filtered, n_tombstone = t.n_tombstone + excluded.n_tombstone,
           bytes = t.bytes + excluded.bytes, n_missing = t.n_missing + excluded.n_missing,
           last_committed_at = greatest(t.last_committed_at, excluded.last_committed_at);

    -- Ranges of the batches whose rows are all there become one where they touch; those of others stay as evidence.
    WITH gone AS (
        DELETE FROM loader.batch_ranges r
         WHERE r.batch_id = ANY (ids) AND NOT short ? r.batch_id::text
        RETURNING r.*
    ), islands AS (
        SELECT g.*, count(*) FILTER (WHERE g.from_offset IS DISTINCT FROM g.previous) OVER (
                   PARTITION BY g.pipeline_id, g.topic, g.partition, g.run ORDER BY g.from_offset) AS island
          FROM (SELECT x.*, lag(x.to_offset) OVER (
                           PARTITION BY x.pipeline_id, x.topic, x.partition, x.run ORDER BY x.from_offset) AS previous
                  FROM gone x) AS g)
    INSERT INTO loader.batch_ranges (batch_id, pipeline_id, topic, partition, run, from_offset, to_offset)
    SELECT max(i.batch_id), i.pipeline_id, i.topic, i.partition, i.run, min(i.from_offset), max(i.to_offset)
      FROM islands i
     GROUP BY i.pipeline_id, i.topic, i.partition, i.run, i.island;

    -- A batch is kept as long as a partition may hold rows of it. While bronze keeps all its dates, so do the books.
    SELECT now() - make_interval(days => h.retention_days) INTO horizon
      FROM tidemark.partition_health h WHERE h.parent = 'bronze.events'::regclass;
    removed_batches := 0;
    IF horizon IS NOT NULL THEN
        WITH partitions AS MATERIALIZED (SELECT p.from_date, p.to_date FROM tidemark.partitions('bronze.events') AS p)
        DELETE FROM loader.batches b
         WHERE b.ctid = ANY (ARRAY(
               SELECT x.ctid FROM loader.batches x
                WHERE x.counted AND x.committed_at < horizon
                  AND (x.n_loaded = 0 OR to_regclass(x.target) IS NULL
                       OR to_regclass(x.target) = 'bronze.events'::regclass AND NOT EXISTS (
                           SELECT FROM partitions p
                            WHERE p.from_date <= x.max_event_time::date AND p.to_date > x.min_event_time::date))
                  AND (x.n_late = 0
                       OR NOT EXISTS (SELECT FROM bronze.late_events l WHERE l.batch_id = x.batch_id))
                LIMIT most));
        GET DIAGNOSTICS removed_batches = ROW_COUNT;
    END IF;

    WITH gone AS (
        DELETE FROM loader.dead_letters d
         WHERE d.ctid = ANY (ARRAY(
               SELECT x.ctid FROM loader.dead_letters x
                WHERE x.status <> 'open' AND x.resolved_at < now() - interval '90 days' LIMIT most))
        RETURNING d.pipeline_id, d.reason, d.status
    ), noted AS (
        INSERT INTO loader.dead_letter_totals AS t
        SELECT g.pipeline_id, g.reason, g.status, count(*) FROM gone g GROUP BY 1, 2, 3
            ON CONFLICT (pipeline_id, reason, status) DO UPDATE SET letters = t.letters + excluded.letters)
    SELECT count(*) INTO removed_letters FROM gone;
    more := greatest(counted, removed_batches, removed_letters) >= most;
END
$$;
ALTER FUNCTION loader.keep_books() OWNER TO tidemark_admin;
REVOKE EXECUTE ON FUNCTION loader.keep_books() FROM PUBLIC;
COMMENT ON FUNCTION loader.keep_books() IS
    'Counts batches of past hours into loader.batch_totals after comparing each with its rows in the table, merges '
    'the ranges of those that agree, removes batches of which no partition is left and, 90 days after they were '
    'resolved, dead letters. Returns how many batches it counted, how many of their rows were missing, what it '
    'removed, and whether another call would find more. For tidemark_admin; tidemark maintain calls it';

GRANT SELECT ON loader.batch_totals, loader.dead_letter_totals, loader.pipeline_totals TO tidemark_loader;
