-- silver.events: the events as analysts want them, typed, without the raw payload.
-- A view for now: cheap to change, and always as fresh as bronze.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW silver.events AS
SELECT e.event_id,
       e.event_time,
       e.event_date,
       e.event_type,
       COALESCE(e.user_id, e.anonymous_id) AS person,
       e.user_id,
       e.anonymous_id,
       e.payload #>> '{context,page,path}' AS page_path,
       e.payload #>> '{context,page,referrer}' AS referrer,
       e.payload #>> '{context,campaign,source}' AS utm_source,
       e.payload #>> '{context,campaign,medium}' AS utm_medium,
       e.payload #>> '{context,campaign,name}' AS utm_campaign,
       e.payload #>> '{context,platform}' AS platform,
       e.payload #>> '{context,device,type}' AS device,
       e.payload #>> '{context,country}' AS country,
       e.received_at,
       e.loaded_at
  FROM bronze.events e;

COMMENT ON VIEW silver.events IS 'Every event once, typed. Filter on event_time or on literal dates of event_date: both prune partitions.';
COMMENT ON COLUMN silver.events.event_id IS 'Identity of the event; unique within its event_date.';
COMMENT ON COLUMN silver.events.event_time IS 'When it happened.';
COMMENT ON COLUMN silver.events.event_date IS 'UTC date of event_time.';
COMMENT ON COLUMN silver.events.event_type IS 'Name of the event, for example page_viewed.';
COMMENT ON COLUMN silver.events.person IS 'Who did it: the user_id, or the anonymous_id before login; NULL when the event has neither. Anonymous events are not yet linked to the user who logs in later.';
COMMENT ON COLUMN silver.events.user_id IS 'Known user; NULL before login.';
COMMENT ON COLUMN silver.events.anonymous_id IS 'Device or browser identity.';
COMMENT ON COLUMN silver.events.page_path IS 'Path of the page it happened on.';
COMMENT ON COLUMN silver.events.referrer IS 'Address of the page before.';
COMMENT ON COLUMN silver.events.utm_source IS 'Campaign source.';
COMMENT ON COLUMN silver.events.utm_medium IS 'Campaign medium.';
COMMENT ON COLUMN silver.events.utm_campaign IS 'Campaign name.';
COMMENT ON COLUMN silver.events.platform IS 'web, ios or android.';
COMMENT ON COLUMN silver.events.device IS 'Kind of device: desktop, mobile, tablet.';
COMMENT ON COLUMN silver.events.country IS 'ISO 3166 country code.';
COMMENT ON COLUMN silver.events.received_at IS 'When the broker got it; received_at - event_time is its lateness.';
COMMENT ON COLUMN silver.events.loaded_at IS 'When it was committed to Postgres.';

GRANT SELECT ON silver.events TO tidemark_reader;
