-- What a device did on a date, by account: from this alone it is known which devices an event concerns, and for nearly
-- all of them whose they were. Additions are merged, so it costs what comes.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS identity.device_days (
    event_date date NOT NULL,
    anonymous_id text NOT NULL,
    account text NOT NULL,
    logout boolean NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (event_date, anonymous_id, account, logout)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS device_days_device ON identity.device_days (anonymous_id, event_date);
CREATE INDEX IF NOT EXISTS device_days_account ON identity.device_days (account) WHERE account <> '';
COMMENT ON TABLE identity.device_days IS 'What a device did on a UTC date, by account.';
COMMENT ON COLUMN identity.device_days.event_date IS 'UTC date.';
COMMENT ON COLUMN identity.device_days.anonymous_id IS 'The device, as silver.bounded_id has it.';
COMMENT ON COLUMN identity.device_days.account IS 'Who was logged in: the user_id, or '''' for anonymous events.';
COMMENT ON COLUMN identity.device_days.logout IS 'Whether these are events that end a login (silver.is_logout).';
COMMENT ON COLUMN identity.device_days.first_at IS 'The earliest of them.';
COMMENT ON COLUMN identity.device_days.last_at IS 'The latest of them.';
COMMENT ON COLUMN identity.device_days.events IS 'How many there are.';

SELECT tidemark.create_model('identity.device_days', ARRAY['silver.events']::regclass[], $query$
    SELECT e.event_date,
           silver.person_key(NULL, e.anonymous_id) AS anonymous_id,
           COALESCE(silver.person_key(e.user_id, NULL), '') AS account,
           silver.is_logout(e.event_type) AS logout,
           min(e.event_time) AS first_at,
           max(e.event_time) AS last_at,
           count(*) AS events
      FROM silver.events AS e
     WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'
       AND NOT silver.is_nobody(e.anonymous_id)
     GROUP BY e.event_date, silver.person_key(NULL, e.anonymous_id), COALESCE(silver.person_key(e.user_id, NULL), ''),
              silver.is_logout(e.event_type)
$query$, key => ARRAY['event_date', 'anonymous_id', 'account', 'logout']::name[]);
