-- By which mapping events were read: bronze.events.batch_id leads to loader.batches, and that to here. A batch is of
-- one mapping, so rows need no column of their own. A mapping that says something else is another version, whatever
-- its name.
CREATE TABLE loader.mappings (
    mapping_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    description text NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version)
);
ALTER TABLE loader.mappings OWNER TO tidemark_admin;
COMMENT ON TABLE loader.mappings IS 'Each mapping by which events were ever read; rows are never changed';
COMMENT ON COLUMN loader.mappings.mapping_id IS 'Key; also in loader.batches.mapping_id';
COMMENT ON COLUMN loader.mappings.name IS 'Name of a mapping that is shipped, or the path of its file';
COMMENT ON COLUMN loader.mappings.version IS 'The beginning of the SHA-256 of its description';
COMMENT ON COLUMN loader.mappings.description IS 'Its text (TOML), and what options replaced of it';
COMMENT ON COLUMN loader.mappings.first_used_at IS 'When the first batch was committed that was read by it';
-- UPDATE of the name alone: that is how an INSERT of what another transaction has just inserted learns its key.
GRANT SELECT, INSERT, UPDATE (name) ON loader.mappings TO tidemark_loader;

ALTER TABLE loader.batches ADD COLUMN mapping_id integer REFERENCES loader.mappings;
COMMENT ON COLUMN loader.batches.mapping_id IS
    'loader.mappings.mapping_id of what its events were read by; NULL for batches from before there were such books';
