-- Receipts of erasures: what was erased when, and never whose it was.
CREATE TABLE identity.erasures (
    erasure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now(),
    erased_by name NOT NULL DEFAULT session_user,
    ids integer NOT NULL,
    rows jsonb
);
ALTER TABLE identity.erasures OWNER TO tidemark_admin;
COMMENT ON TABLE identity.erasures IS 'Append-only: what identity.erase_person erased, without the ids';
COMMENT ON COLUMN identity.erasures.erasure_id IS 'Key';
COMMENT ON COLUMN identity.erasures.erased_at IS 'When';
COMMENT ON COLUMN identity.erasures.erased_by IS 'By whom';
COMMENT ON COLUMN identity.erasures.ids IS 'How many ids were named';
COMMENT ON COLUMN identity.erasures.rows IS 'How many rows of which table went; NULL: none';

-- Who was erased is not loaded again. Keyed hashes, and the key is not here.
CREATE TABLE loader.suppression_keys (
    key_hash uuid PRIMARY KEY
);
ALTER TABLE loader.suppression_keys OWNER TO tidemark_admin;
COMMENT ON TABLE loader.suppression_keys IS
    'The keys under which loader.suppressed has ids; a loader that lacks one of them loads nothing';
COMMENT ON COLUMN loader.suppression_keys.key_hash IS 'Which key: the hash of a fixed text under it';

CREATE TABLE loader.suppressed (
    id_hash uuid PRIMARY KEY,
    key_hash uuid NOT NULL REFERENCES loader.suppression_keys,
    suppressed_on date NOT NULL DEFAULT CURRENT_DATE
);
ALTER TABLE loader.suppressed OWNER TO tidemark_admin;
COMMENT ON TABLE loader.suppressed IS
    'Ids that were erased, by tidemark person erase: records with one of them end as filtered';
COMMENT ON COLUMN loader.suppressed.id_hash IS 'The first 16 bytes of HMAC-SHA-256 of the id under the key';
COMMENT ON COLUMN loader.suppressed.key_hash IS 'loader.suppression_keys.key_hash';
COMMENT ON COLUMN loader.suppressed.suppressed_on IS 'Since which date';
GRANT SELECT ON loader.suppression_keys, loader.suppressed TO tidemark_loader;
