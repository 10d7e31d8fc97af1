-- The fixed-width columns that the loader fills per batch come first in its COPY, not here: here the order is the
-- one a person wants to read.
CREATE TABLE bronze.events (
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
    payload jsonb NOT NULL
) PARTITION BY RANGE (event_time);
ALTER TABLE bronze.events OWNER TO tidemark_admin;

COMMENT ON TABLE bronze.events IS
    'Every accepted event as it was produced, one partition per UTC day of event_time; an event_id occurs once per day';
COMMENT ON COLUMN bronze.events.event_id IS
    'The producer''s messageId; one that is no UUID is mapped to a UUIDv5, '
    'an event without one gets the UUIDv5 of its source coordinates and bytes';
COMMENT ON COLUMN bronze.events.event_time IS 'When it happened, as the producer says; the partition key';
COMMENT ON COLUMN bronze.events.event_date IS 'UTC date of event_time';
COMMENT ON COLUMN bronze.events.event_type IS 'The event''s name (event), or its type where it has no name';
COMMENT ON COLUMN bronze.events.user_id IS 'Known user, NULL before login';
COMMENT ON COLUMN bronze.events.anonymous_id IS 'Device or browser identity before login';
COMMENT ON COLUMN bronze.events.received_at IS
    'When the broker got it (Kafka record timestamp; receivedAt for files); lateness = received_at - event_time. '
    'The event time itself where nobody knows the receipt, so the lateness is 0';
COMMENT ON COLUMN bronze.events.loaded_at IS 'Start of the transaction that committed it to Postgres';
COMMENT ON COLUMN bronze.events.source_topic IS 'loader.topics.topic_id of the Kafka topic or file that it came from';
COMMENT ON COLUMN bronze.events.source_partition IS 'Kafka partition; 0 for files';
COMMENT ON COLUMN bronze.events.source_offset IS 'Kafka offset; for files the line number, counted from 0';
COMMENT ON COLUMN bronze.events.source_index IS
    'Which of the events of its record it is, counted from 1; NULL where the record is the event';
COMMENT ON COLUMN bronze.events.batch_id IS 'loader.batches.batch_id of the transaction that loaded it';
COMMENT ON COLUMN bronze.events.payload IS 'The whole event; jsonb, so key order and number spelling are not kept';

-- COPY and INSERT through the parent check the parent's privileges only.
GRANT INSERT ON bronze.events TO tidemark_loader;
-- To look up which ids of a batch are there already; what the events say is none of its business.
GRANT SELECT (event_id, event_time) ON bronze.events TO tidemark_loader;

SELECT tidemark.manage_partitions(
    parent => 'bronze.events'::regclass,
    premake_days => 4,
    partition_schema => 'bronze_partitions',
    partition_unique => ARRAY['event_id']
);

GRANT EXECUTE ON FUNCTION tidemark.ensure_partitions(regclass, date[]) TO tidemark_loader;
