-- silver.events_known: the same events, by the person known now. A view of its own, so that a question is asked of one
-- or the other by the name of the table alone.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW silver.events_known AS
SELECT e.event_id, e.event_time, e.event_date, e.event_type, e.known_person AS person, e.person AS person_as_sent,
       e.user_id, e.anonymous_id, e.page_path, e.page_url, e.page_title, e.referrer, e.referrer_host, e.utm_source,
       e.utm_medium, e.utm_campaign, e.utm_term, e.utm_content, e.click_id, e.platform, e.device, e.os, e.country,
       e.locale, e.load_ms, e.received_at, e.loaded_at, e.properties, e.user_agent_id, e.ip_prefix, e.ip_country,
       e.excluded_as
  FROM silver.events AS e;
COMMENT ON VIEW silver.events_known IS
    'Every event once, as silver.events has it, but by the person who it is known to be now: anonymous events '
    'belong to the account whose the device was, accounts that are linked to one person. As of the last '
    'identity.resolve.';
COMMENT ON COLUMN silver.events_known.person IS 'Who it is known to be now: silver.events.known_person.';
COMMENT ON COLUMN silver.events_known.person_as_sent IS
    'Who it was when it was sent, which never changes: silver.events.person.';
DO $$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS words
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = 'silver.events'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attname NOT IN ('person', 'known_person')
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN silver.events_known.%I IS %L', described.attname, described.words);
    END LOOP;
END
$$;
GRANT SELECT ON silver.events_known TO tidemark_reader;
