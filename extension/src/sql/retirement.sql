-- Retention: which dates of a table are or were detached, and the functions that detach, drop and restore partitions.

CREATE TABLE tidemark.retired_dates (
    parent regclass NOT NULL,
    event_date date NOT NULL,
    partition text NOT NULL,
    state text NOT NULL CHECK (state IN ('detaching', 'detached', 'dropped')),
    retired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    partition_id regclass,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    retention_action text NOT NULL CHECK (retention_action IN ('drop', 'keep')),
    PRIMARY KEY (parent, event_date)
);
SELECT pg_catalog.pg_extension_config_dump('tidemark.retired_dates', '');
COMMENT ON TABLE tidemark.retired_dates IS
'Dates whose partition is being or was detached by retention. tidemark.ensure_partitions refuses them, and models do not recompute what needs them. Written by tidemark.run_maintenance and tidemark maintain, and by tidemark.restore_partition, which removes a date.';
COMMENT ON COLUMN tidemark.retired_dates.parent IS 'The partitioned table.';
COMMENT ON COLUMN tidemark.retired_dates.event_date IS 'A UTC date of the partition; a partition of several days has a row for each of them.';
COMMENT ON COLUMN tidemark.retired_dates.partition IS 'Qualified name that the partition had when it was retired.';
COMMENT ON COLUMN tidemark.retired_dates.state IS 'detaching: about to be detached, perhaps half done; detached: a table of its own; dropped: gone.';
COMMENT ON COLUMN tidemark.retired_dates.retired_at IS 'When the row got its present state.';
COMMENT ON COLUMN tidemark.retired_dates.partition_id IS 'The table itself; NULL once it is dropped.';
COMMENT ON COLUMN tidemark.retired_dates.from_time IS 'Lower bound of the partition, inclusive.';
COMMENT ON COLUMN tidemark.retired_dates.to_time IS 'Upper bound of the partition, exclusive.';
COMMENT ON COLUMN tidemark.retired_dates.retention_action IS 'drop: the table is dropped once it is detached; keep: it stays.';
