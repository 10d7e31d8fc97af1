-- silver.page_views: the page views among silver.events, with what a page says of itself.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE VIEW silver.page_views AS
SELECT e.event_id, e.event_time, e.event_date, e.person, e.page_path, e.page_title, e.page_url, e.referrer, e.platform,
       e.country, e.load_ms, e.known_person
  FROM silver.events AS e
 WHERE silver.is_page_view(e.event_type);
COMMENT ON VIEW silver.page_views IS
    'Page views (events of which silver.is_page_view), as of the last refresh. '
    'Filter on event_time or on literal dates of event_date.';
COMMENT ON COLUMN silver.page_views.event_id IS 'Identity of the event; unique within its event_date.';
COMMENT ON COLUMN silver.page_views.event_time IS 'When it happened.';
COMMENT ON COLUMN silver.page_views.event_date IS 'UTC date of event_time.';
COMMENT ON COLUMN silver.page_views.person IS 'Who did it, as in silver.events.';
COMMENT ON COLUMN silver.page_views.known_person IS 'Who it is known to be now, as in silver.events.';
COMMENT ON COLUMN silver.page_views.page_path IS 'Path of the page; NULL when the event names none.';
COMMENT ON COLUMN silver.page_views.page_title IS 'Title of the page; NULL when the event names none.';
COMMENT ON COLUMN silver.page_views.page_url IS 'Address (URL) of the page; NULL when the event names none.';
COMMENT ON COLUMN silver.page_views.referrer IS 'Address (URL) of the page before; NULL when the event has none.';
COMMENT ON COLUMN silver.page_views.platform IS
    'Where it ran, for example web, ios or android; NULL when the event does not say.';
COMMENT ON COLUMN silver.page_views.country IS
    'Country as the event says, in general an ISO 3166 code; NULL when it does not.';
COMMENT ON COLUMN silver.page_views.load_ms IS
    'How long the page took to load, in milliseconds; NULL where it was not measured, below 0 or above an hour.';
GRANT SELECT ON silver.page_views TO tidemark_reader;
