-- Pausing a pipeline, by a person with tidemark pause; and topics of it that are not read while the others are.
ALTER TABLE loader.pipelines
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_by text,
    ADD COLUMN pause_reason text;
COMMENT ON COLUMN loader.pipelines.paused IS
    'While true every loader of this pipeline leaves its position alone; see tidemark pause and resume';
COMMENT ON COLUMN loader.pipelines.paused_at IS 'Since when; NULL when it is not paused';
COMMENT ON COLUMN loader.pipelines.paused_by IS 'The role of the person; NULL when it is not paused';
COMMENT ON COLUMN loader.pipelines.pause_reason IS 'Why; NULL when it is not paused';

GRANT UPDATE (paused, paused_at, paused_by, pause_reason) ON loader.pipelines TO tidemark_loader;

CREATE TABLE loader.topic_states (
    pipeline_id integer NOT NULL REFERENCES loader.pipelines,
    topic text NOT NULL,
    state text NOT NULL CHECK (state IN ('paused', 'missing', 'accepting')),
    reason text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL,
    PRIMARY KEY (pipeline_id, topic)
);
ALTER TABLE loader.topic_states OWNER TO tidemark_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON loader.topic_states TO tidemark_loader;
COMMENT ON TABLE loader.topic_states IS 'Topics of a pipeline that are not read as usual; those that are have no row';
COMMENT ON COLUMN loader.topic_states.pipeline_id IS 'loader.pipelines.pipeline_id';
COMMENT ON COLUMN loader.topic_states.topic IS 'Name in Kafka; for one that is missing, as it was configured';
COMMENT ON COLUMN loader.topic_states.state IS
    'paused: no loader of the pipeline reads it until somebody resumes it; missing: there is no such topic, '
    'or it may not be read; accepting: resumed with --accept-dead-letters, until what comes is good again';
COMMENT ON COLUMN loader.topic_states.reason IS 'Why';
COMMENT ON COLUMN loader.topic_states.changed_at IS 'Since when';
COMMENT ON COLUMN loader.topic_states.changed_by IS 'The role of the person, or the owner of the loader';
