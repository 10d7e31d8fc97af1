-- Pausing a pipeline: by a person with tidemark pause, or by a loader that meets too many records it cannot load.
ALTER TABLE loader.pipelines
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_by text,
    ADD COLUMN pause_reason text,
    ADD COLUMN accept_dead_letters boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN loader.pipelines.paused IS
    'While true every loader of this pipeline leaves its position alone; see tidemark pause and resume';
COMMENT ON COLUMN loader.pipelines.paused_at IS 'Since when; NULL when it is not paused';
COMMENT ON COLUMN loader.pipelines.paused_by IS
    'The role of the person, or the owner of the loader that met too many dead letters; NULL when it is not paused';
COMMENT ON COLUMN loader.pipelines.pause_reason IS 'Why; NULL when it is not paused';
COMMENT ON COLUMN loader.pipelines.accept_dead_letters IS
    'Resumed with --accept-dead-letters: too many dead letters are no reason to pause until what comes is good again';

GRANT UPDATE (paused, paused_at, paused_by, pause_reason, accept_dead_letters) ON loader.pipelines TO tidemark_loader;
