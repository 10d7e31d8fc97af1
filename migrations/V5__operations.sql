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

-- For tidemark ... --dedupe id_window: which ids were received within the last days, whatever date their events have.
CREATE TABLE loader.seen_ids (
    target text NOT NULL,
    event_id uuid NOT NULL,
    received_date date NOT NULL,
    PRIMARY KEY (target, event_id)
);
CREATE INDEX seen_ids_received_date ON loader.seen_ids (target, received_date);
ALTER TABLE loader.seen_ids OWNER TO tidemark_admin;
GRANT SELECT, INSERT, UPDATE (received_date), DELETE ON loader.seen_ids TO tidemark_loader;
COMMENT ON TABLE loader.seen_ids IS
    'Ids loaded with --dedupe id_window; older ones than the window are removed once a day';
COMMENT ON COLUMN loader.seen_ids.target IS 'Table that the event was loaded into, as given on the command line';
COMMENT ON COLUMN loader.seen_ids.event_id IS 'As in bronze.events';
COMMENT ON COLUMN loader.seen_ids.received_date IS 'UTC date of received_at of the event that was loaded with this id';
