-- What whoever runs the warehouse decides about silver. Models read no table for it: silver.define_events writes it
-- into the query of silver.events, so that what is appended stays appended, and a change computes every date anew.
CREATE TABLE gold_storage.silver_settings (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    own_hosts text[] NOT NULL DEFAULT '{}',
    shown_properties text[] NOT NULL DEFAULT '{}',
    hidden_properties text[] NOT NULL DEFAULT '{}',
    hashed_properties text[] NOT NULL DEFAULT '{}'
);
ALTER TABLE gold_storage.silver_settings OWNER TO tidemark_admin;
INSERT INTO gold_storage.silver_settings DEFAULT VALUES;
COMMENT ON TABLE gold_storage.silver_settings IS
    'What silver.set_own_hosts and silver.show_properties were told; one row';
COMMENT ON COLUMN gold_storage.silver_settings.only_row IS 'Key: there is one row';
COMMENT ON COLUMN gold_storage.silver_settings.own_hosts IS 'Hosts that are no referrer, with all below them';
COMMENT ON COLUMN gold_storage.silver_settings.shown_properties IS
    'Properties that silver.events has; * for all, empty for none';
COMMENT ON COLUMN gold_storage.silver_settings.hidden_properties IS 'Properties that it does not have in any case';
COMMENT ON COLUMN gold_storage.silver_settings.hashed_properties IS 'Properties of which it has the SHA-256 hash';
