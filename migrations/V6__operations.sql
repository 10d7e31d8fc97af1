-- What people note when they decide about dead letters by hand.
ALTER TABLE loader.dead_letters ADD COLUMN note text;
COMMENT ON COLUMN loader.dead_letters.note IS 'Why it was discarded, in the words of whoever did it; NULL otherwise';
COMMENT ON COLUMN loader.dead_letters.status IS
    'open; replayed: tried again and then loaded, or found to be loaded already; discarded: nobody wants it';
COMMENT ON COLUMN loader.dead_letters.resolved_at IS 'When it was replayed or discarded; NULL while open';
COMMENT ON COLUMN loader.dead_letters.resolved_by IS 'Database role that did that, with the operating system''s user name where known';
COMMENT ON COLUMN loader.pipelines.name IS
    'As given with --pipeline; file for tidemark load; dead-letters for replays of dead letters; replay ... for tidemark replay';

-- Keeps a listing of open letters in order of their age cheap, whatever the number of resolved ones.
CREATE INDEX dead_letters_open_by_age ON loader.dead_letters (quarantined_at) WHERE status = 'open';
