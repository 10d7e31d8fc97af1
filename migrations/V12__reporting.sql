-- In which time zone the days of the reports are, when weeks and fiscal years begin, what ends a session. Models read
-- no table for it: sql/gold writes it into their queries.
CREATE TABLE gold_storage.reporting (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    time_zone text NOT NULL DEFAULT 'UTC',
    week_start smallint NOT NULL DEFAULT 1 CHECK (week_start BETWEEN 1 AND 7),
    fiscal_month smallint NOT NULL DEFAULT 1 CHECK (fiscal_month BETWEEN 1 AND 12),
    session_cut text[] NOT NULL DEFAULT '{}' CHECK (session_cut <@ '{campaign,midnight}'),
    heartbeat_seconds integer CHECK (heartbeat_seconds BETWEEN 5 AND 600),
    currency text CHECK (currency ~ '^[A-Z]{3}$'),
    offsets jsonb NOT NULL DEFAULT '{"1970-01-01": 0}',
    offsets_checked_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE gold_storage.reporting OWNER TO tidemark_admin;
INSERT INTO gold_storage.reporting DEFAULT VALUES;
COMMENT ON TABLE gold_storage.reporting IS 'What gold.set_reporting and gold.set_sessions were told; one row.';
COMMENT ON COLUMN gold_storage.reporting.only_row IS 'Key: there is one row.';
COMMENT ON COLUMN gold_storage.reporting.time_zone IS 'Time zone in which days begin and end.';
COMMENT ON COLUMN gold_storage.reporting.week_start IS 'First weekday of a week: 1 Monday to 7 Sunday.';
COMMENT ON COLUMN gold_storage.reporting.fiscal_month IS 'First month of a fiscal year, 1 to 12.';
COMMENT ON COLUMN gold_storage.reporting.session_cut IS 'What ends a session besides a pause: campaign, midnight.';
COMMENT ON COLUMN gold_storage.reporting.heartbeat_seconds IS
    'How many seconds apart pages send heartbeats; NULL: engaged time is not computed.';
COMMENT ON COLUMN gold_storage.reporting.currency IS 'Currency into which amounts are converted; NULL: none.';
COMMENT ON COLUMN gold_storage.reporting.offsets IS
    'What the time zone meant when it was last looked up: by the date from which on, seconds to be added to UTC.';
COMMENT ON COLUMN gold_storage.reporting.offsets_checked_at IS 'When that was.';

-- What others cost, written by whoever runs the warehouse.
CREATE TABLE gold.currency_rates (
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid_from date NOT NULL,
    rate numeric NOT NULL CHECK (rate > 0 AND rate < 'Infinity'),
    source text,
    PRIMARY KEY (currency, valid_from)
);
ALTER TABLE gold.currency_rates OWNER TO tidemark_admin;
GRANT SELECT ON gold.currency_rates TO tidemark_reader;
COMMENT ON TABLE gold.currency_rates IS
    'What currencies are worth, for amounts in the currency of gold.reporting: insert here; nothing needs a refresh.';
COMMENT ON COLUMN gold.currency_rates.currency IS 'ISO 4217 code.';
COMMENT ON COLUMN gold.currency_rates.valid_from IS
    'First UTC date of the rate; it counts until the next one, and for 7 days after it at most.';
COMMENT ON COLUMN gold.currency_rates.rate IS 'How much of the currency of gold.reporting one unit is worth, above 0.';
COMMENT ON COLUMN gold.currency_rates.source IS 'Where it is from, in your words.';
