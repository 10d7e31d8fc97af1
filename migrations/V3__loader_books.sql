CREATE TABLE loader.pipelines (
    pipeline_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    cluster_id text,
    paused boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE loader.pipelines IS 'One row per independent reader of a source; another name is another position';
COMMENT ON COLUMN loader.pipelines.pipeline_id IS 'Key';
COMMENT ON COLUMN loader.pipelines.name IS 'As given with --pipeline; "file" for tidemark load';
COMMENT ON COLUMN loader.pipelines.cluster_id IS 'Kafka cluster seen first; another one is refused. NULL for files';
COMMENT ON COLUMN loader.pipelines.paused IS 'Reserved for stopping a pipeline without stopping its process';
COMMENT ON COLUMN loader.pipelines.created_at IS 'First run';

CREATE TABLE loader.topics (
    topic_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);
COMMENT ON TABLE loader.topics IS 'Short numbers for the names of topics and files, for bronze.events.source_topic';
COMMENT ON COLUMN loader.topics.topic_id IS 'Key';
COMMENT ON COLUMN loader.topics.name IS
    'Kafka topic; file:<sha256 of the content> for a file; stdin:<uuid> for one reading of standard input';

-- Position changes with every batch and its row is never indexed beyond the key: room on the page keeps updates HOT.
CREATE TABLE loader.offsets (
    pipeline_id integer NOT NULL REFERENCES loader.pipelines,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    leader_epoch integer,
    kafka_topic_id text,
    run integer NOT NULL DEFAULT 1,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    owner_pid integer,
    last_batch_id bigint,
    last_received_at timestamptz,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline_id, topic, partition)
) WITH (fillfactor = 20);
COMMENT ON TABLE loader.offsets IS
    'The truth about position: advanced in the transaction that loads the events before it';
COMMENT ON COLUMN loader.offsets.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.offsets.topic IS 'As in loader.topics.name';
COMMENT ON COLUMN loader.offsets.partition IS 'Kafka partition; 0 for files';
COMMENT ON COLUMN loader.offsets.next_offset IS 'First offset not yet loaded; for files the number of lines done';
COMMENT ON COLUMN loader.offsets.leader_epoch IS
    'Kafka''s leader epoch of the record before it: the log was cut if that record now has another; NULL when unknown';
COMMENT ON COLUMN loader.offsets.kafka_topic_id IS
    'Id that Kafka gave the topic: one made anew has another; NULL for files and for brokers before 2.8';
COMMENT ON COLUMN loader.offsets.run IS 'Raised by one each time the position was set by hand or reset';
COMMENT ON COLUMN loader.offsets.epoch IS
    'Raised by one with each claim; a loader holding an older epoch can commit nothing';
COMMENT ON COLUMN loader.offsets.owner IS 'Process that claimed it last: host, process id and a random part';
COMMENT ON COLUMN loader.offsets.owner_pid IS 'Postgres backend that made the claim';
COMMENT ON COLUMN loader.offsets.last_batch_id IS 'Batch that moved it last; NULL before the first';
COMMENT ON COLUMN loader.offsets.last_received_at IS 'Latest received_at of that batch; NULL when it had none';
COMMENT ON COLUMN loader.offsets.claimed_at IS 'When it was claimed last';
COMMENT ON COLUMN loader.offsets.updated_at IS 'When it was claimed or moved last';

CREATE SEQUENCE loader.batch_ids;
COMMENT ON SEQUENCE loader.batch_ids IS 'Numbers of loader.batches; gaps are batches that were rolled back';

CREATE TABLE loader.batches (
    batch_id bigint PRIMARY KEY,
    pipeline_id integer NOT NULL REFERENCES loader.pipelines,
    owner text NOT NULL,
    target text NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    write_path text NOT NULL CHECK (write_path IN ('direct', 'probed', 'staged')),
    row_retries integer NOT NULL DEFAULT 0,
    n_records integer NOT NULL,
    n_read integer NOT NULL,
    n_loaded integer NOT NULL,
    n_duplicate integer NOT NULL,
    n_late integer NOT NULL,
    n_dead integer NOT NULL,
    n_filtered integer NOT NULL,
    n_tombstone integer NOT NULL,
    bytes bigint NOT NULL,
    min_event_time timestamptz,
    max_event_time timestamptz,
    counted boolean NOT NULL DEFAULT false,
    CONSTRAINT batches_every_event_has_one_outcome
        CHECK (n_read = n_loaded + n_duplicate + n_late + n_dead + n_filtered + n_tombstone)
);
COMMENT ON TABLE loader.batches IS
    'One row per committed batch: how each event that was read ended; a record with several counts as so many';
COMMENT ON COLUMN loader.batches.batch_id IS 'Key, from loader.batch_ids; also in bronze.events.batch_id';
COMMENT ON COLUMN loader.batches.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.batches.owner IS 'Process that loaded it';
COMMENT ON COLUMN loader.batches.target IS 'Table that its events went to, as an SQL name with its schema';
COMMENT ON COLUMN loader.batches.committed_at IS 'Start of its transaction, equal to loaded_at of its events';
COMMENT ON COLUMN loader.batches.write_path IS
    'direct: COPY into bronze.events; '
    'probed: the same after taking known ids out; staged: in pieces, with a temporary table where needed';
COMMENT ON COLUMN loader.batches.row_retries IS 'How often the batch was written again because Postgres refused a row';
COMMENT ON COLUMN loader.batches.n_records IS
    'Records of the source read: what batch_ranges cover, but for holes in Kafka';
COMMENT ON COLUMN loader.batches.n_read IS 'Events read, and records without one: the sum of the following';
COMMENT ON COLUMN loader.batches.n_loaded IS 'Now in bronze.events';
COMMENT ON COLUMN loader.batches.n_duplicate IS 'Same event_id on the same date as one loaded before';
COMMENT ON COLUMN loader.batches.n_late IS 'Later than the allowed lateness and diverted';
COMMENT ON COLUMN loader.batches.n_dead IS 'Now in loader.dead_letters';
COMMENT ON COLUMN loader.batches.n_filtered IS 'Skipped on purpose: empty lines, and events of who was erased';
COMMENT ON COLUMN loader.batches.n_tombstone IS 'Kafka records without a value';
COMMENT ON COLUMN loader.batches.bytes IS 'Size of the values read, in bytes';
COMMENT ON COLUMN loader.batches.min_event_time IS 'Earliest event time written; NULL when none was';
COMMENT ON COLUMN loader.batches.max_event_time IS 'Latest event time written; NULL when none was';
COMMENT ON COLUMN loader.batches.counted IS 'Whether loader.batch_totals has it; see loader.keep_books';

CREATE TABLE loader.batch_ranges (
    batch_id bigint NOT NULL,
    pipeline_id integer NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    run integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    CHECK (to_offset > from_offset),
    PRIMARY KEY (pipeline_id, topic, partition, run, from_offset)
);
COMMENT ON TABLE loader.batch_ranges IS
    'Which offsets each batch covered; for one (pipeline, topic, partition, run) contiguous and without overlap';
COMMENT ON COLUMN loader.batch_ranges.batch_id IS
    'loader.batches.batch_id; of merged ranges (see loader.keep_books) the last one''s. The batch itself may be gone';
COMMENT ON COLUMN loader.batch_ranges.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.batch_ranges.topic IS 'As in loader.topics.name';
COMMENT ON COLUMN loader.batch_ranges.partition IS 'Kafka partition; 0 for files';
COMMENT ON COLUMN loader.batch_ranges.run IS 'loader.offsets.run at that time';
COMMENT ON COLUMN loader.batch_ranges.from_offset IS 'First offset, inclusive';
COMMENT ON COLUMN loader.batch_ranges.to_offset IS 'Last offset, exclusive';

-- Bytes that a producer controls are bytea: storing a dead letter must not be able to fail.
CREATE TABLE loader.dead_letters (
    pipeline_id integer NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    source_index integer NOT NULL DEFAULT 0,
    batch_id bigint NOT NULL,
    received_at timestamptz,
    key bytea,
    headers bytea,
    payload bytea,
    payload_truncated boolean NOT NULL DEFAULT false,
    payload_sha256 bytea NOT NULL,
    stage text NOT NULL,
    reason text NOT NULL,
    detail text,
    sqlstate text,
    event_id uuid,
    event_time timestamptz,
    event_type text,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'replayed', 'discarded')),
    attempts integer NOT NULL DEFAULT 1,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolved_by text,
    -- A topic that was made anew uses its offsets again for other records.
    PRIMARY KEY (pipeline_id, topic, partition, "offset", source_index, payload_sha256)
);
CREATE INDEX dead_letters_open ON loader.dead_letters (reason, quarantined_at) WHERE status = 'open';
COMMENT ON TABLE loader.dead_letters IS 'Events that could not be loaded: whole, with where they came from and why';
COMMENT ON COLUMN loader.dead_letters.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.dead_letters.topic IS 'As in loader.topics.name';
COMMENT ON COLUMN loader.dead_letters.partition IS 'Kafka partition; 0 for files';
COMMENT ON COLUMN loader.dead_letters."offset" IS 'Kafka offset; for files the line number, counted from 0';
COMMENT ON COLUMN loader.dead_letters.source_index IS
    'Which of the events of its record it is, counted from 1; 0 where the record is the event';
COMMENT ON COLUMN loader.dead_letters.batch_id IS
    'loader.batches.batch_id that recorded it; the batch itself may be gone';
COMMENT ON COLUMN loader.dead_letters.received_at IS 'As in bronze.events; NULL when unknown';
COMMENT ON COLUMN loader.dead_letters.key IS 'Kafka key, raw; NULL when there was none';
COMMENT ON COLUMN loader.dead_letters.headers IS
    'Kafka headers, raw: for each one the length of its name, '
    'the name, the length of its value or -1, the value (lengths as 4 bytes, big-endian)';
COMMENT ON COLUMN loader.dead_letters.payload IS 'The event, raw; only its beginning when payload_truncated';
COMMENT ON COLUMN loader.dead_letters.payload_truncated IS 'Longer than the size limit, so only its beginning is kept';
COMMENT ON COLUMN loader.dead_letters.payload_sha256 IS 'SHA-256 of the whole event';
COMMENT ON COLUMN loader.dead_letters.stage IS 'Where it failed: decode, envelope, partition or database';
COMMENT ON COLUMN loader.dead_letters.reason IS 'Why, as a fixed word';
COMMENT ON COLUMN loader.dead_letters.detail IS 'Why, in words';
COMMENT ON COLUMN loader.dead_letters.sqlstate IS 'Error code where Postgres refused it; else NULL';
COMMENT ON COLUMN loader.dead_letters.event_id IS
    'As it would have been in bronze.events; NULL when unknown or none was given';
COMMENT ON COLUMN loader.dead_letters.event_time IS 'As it would have been in bronze.events; NULL when unknown';
COMMENT ON COLUMN loader.dead_letters.event_type IS 'As it would have been in bronze.events; NULL when unknown';
COMMENT ON COLUMN loader.dead_letters.status IS 'open, replayed or discarded';
COMMENT ON COLUMN loader.dead_letters.attempts IS 'How often it was tried';
COMMENT ON COLUMN loader.dead_letters.quarantined_at IS 'When it was recorded first';
COMMENT ON COLUMN loader.dead_letters.resolved_at IS 'When it was replayed or discarded; NULL while open';
COMMENT ON COLUMN loader.dead_letters.resolved_by IS 'Who did that';

CREATE TABLE loader.offset_gaps (
    gap_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline_id integer NOT NULL REFERENCES loader.pipelines,
    topic text NOT NULL,
    partition integer NOT NULL,
    expected bigint NOT NULL,
    resumed_at bigint NOT NULL,
    cause text NOT NULL CHECK (cause IN ('retention', 'topic_recreated', 'log_truncated', 'manual')),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    acknowledged_by text
);
COMMENT ON TABLE loader.offset_gaps IS 'Places where loading did not continue at the offset after the last one loaded';
COMMENT ON COLUMN loader.offset_gaps.gap_id IS 'Key';
COMMENT ON COLUMN loader.offset_gaps.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.offset_gaps.topic IS 'Kafka topic';
COMMENT ON COLUMN loader.offset_gaps.partition IS 'Kafka partition';
COMMENT ON COLUMN loader.offset_gaps.expected IS 'Offset at which loading should have continued';
COMMENT ON COLUMN loader.offset_gaps.resumed_at IS 'Offset at which it did';
COMMENT ON COLUMN loader.offset_gaps.cause IS
    'retention: deleted by the broker before it was read; topic_recreated: another topic of that name; '
    'log_truncated: the log was cut below our position, as after an unclean leader election; manual';
COMMENT ON COLUMN loader.offset_gaps.recorded_at IS 'When it was noticed';
COMMENT ON COLUMN loader.offset_gaps.acknowledged_by IS 'Who took note of it; NULL until then';

CREATE TABLE loader.repeatable_scripts (
    name text PRIMARY KEY,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE loader.repeatable_scripts IS
    'The warehouse scripts that tidemark migrate has applied, run again when they change';
COMMENT ON COLUMN loader.repeatable_scripts.name IS 'Path below sql/';
COMMENT ON COLUMN loader.repeatable_scripts.sha256 IS 'SHA-256 of the script as applied';
COMMENT ON COLUMN loader.repeatable_scripts.applied_at IS 'When it was applied last';

ALTER TABLE loader.pipelines OWNER TO tidemark_admin;
ALTER TABLE loader.topics OWNER TO tidemark_admin;
ALTER TABLE loader.offsets OWNER TO tidemark_admin;
ALTER SEQUENCE loader.batch_ids OWNER TO tidemark_admin;
ALTER TABLE loader.batches OWNER TO tidemark_admin;
ALTER TABLE loader.batch_ranges OWNER TO tidemark_admin;
ALTER TABLE loader.dead_letters OWNER TO tidemark_admin;
ALTER TABLE loader.offset_gaps OWNER TO tidemark_admin;
ALTER TABLE loader.repeatable_scripts OWNER TO tidemark_admin;

GRANT SELECT, INSERT, UPDATE ON loader.offsets TO tidemark_loader;
GRANT SELECT, INSERT ON loader.pipelines, loader.dead_letters TO tidemark_loader;
GRANT UPDATE (cluster_id) ON loader.pipelines TO tidemark_loader;
-- What a record that fails once more changes of its letter: never its bytes, nor what people decided about it.
GRANT UPDATE (batch_id, stage, reason, detail, sqlstate, attempts) ON loader.dead_letters TO tidemark_loader;
GRANT SELECT, INSERT ON loader.topics, loader.batches, loader.batch_ranges, loader.offset_gaps TO tidemark_loader;
GRANT USAGE ON SEQUENCE loader.batch_ids TO tidemark_loader;
