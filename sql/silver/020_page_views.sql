-- silver.page_views: page views with how long the page took to load. The largest of the typed tables, hence
-- partitioned.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS silver.page_views (
    event_id uuid NOT NULL,
    event_time timestamptz NOT NULL,
    event_date date NOT NULL,
    person text,
    page_path text,
    page_title text,
    page_url text,
    referrer text,
    platform text,
    country text,
    load_ms integer
) PARTITION BY RANGE (event_time);
CREATE INDEX IF NOT EXISTS page_views_person ON silver.page_views (person, event_time);
SELECT tidemark.manage_partitions(parent => 'silver.page_views'::regclass, premake_days => 4,
    partition_schema => 'silver_partitions', partition_unique => ARRAY['event_id']);

COMMENT ON TABLE silver.page_views IS
    'Page views (events of which silver.is_page_view), one partition per UTC date. '
    'Filter on event_time or on literal dates of event_date.';
COMMENT ON COLUMN silver.page_views.event_id IS 'Identity of the event; unique within its event_date.';
COMMENT ON COLUMN silver.page_views.event_time IS 'When it happened.';
COMMENT ON COLUMN silver.page_views.event_date IS 'UTC date of event_time.';
COMMENT ON COLUMN silver.page_views.person IS 'Who did it, as in silver.events.';
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

SELECT tidemark.create_model('silver.page_views', ARRAY['bronze.events']::regclass[], $query$
    SELECT e.event_id,
           e.event_time,
           (e.event_time AT TIME ZONE 'UTC')::date AS event_date,
           silver.person_key(e.user_id, e.anonymous_id) AS person,
           COALESCE(silver.json_text(e.page -> 'path'), silver.json_text(e.properties -> 'path'),
                    silver.page_key(COALESCE(silver.json_text(e.page -> 'url'),
                                             silver.json_text(e.properties -> 'url')))) AS page_path,
           COALESCE(silver.json_text(e.page -> 'title'), silver.json_text(e.properties -> 'title')) AS page_title,
           COALESCE(silver.json_text(e.page -> 'url'), silver.json_text(e.properties -> 'url')) AS page_url,
           COALESCE(silver.json_text(e.page -> 'referrer'), silver.json_text(e.properties -> 'referrer')) AS referrer,
           silver.json_text(e.context -> 'platform') AS platform,
           COALESCE(silver.json_text(e.context -> 'country'),
                    silver.json_text(e.context #> '{location,country}')) AS country,
           CASE WHEN e.load BETWEEN 0 AND 3600000 THEN round(e.load)::integer END AS load_ms
      FROM (SELECT c.event_id, c.event_time, c.user_id, c.anonymous_id, c.context, c.properties,
                   c.context -> 'page' AS page,
                   COALESCE(silver.json_numeric(c.properties #> '{performance,load_ms}'),
                            silver.json_numeric(c.properties -> 'load_ms')) AS load
              FROM (SELECT b.event_id, b.event_time, b.user_id, b.anonymous_id,
                           COALESCE(b.payload -> 'context', silver.context_of(b.payload)) AS context,
                           b.payload -> 'properties' AS properties
                      FROM bronze.events AS b
                     WHERE b.event_time >= $1::timestamp AT TIME ZONE 'UTC'
                       AND b.event_time < $2::timestamp AT TIME ZONE 'UTC'
                       AND silver.is_page_view(silver.event_name(b.event_type))
                    OFFSET 0) AS c
            OFFSET 0) AS e
$query$, key => ARRAY['event_date', 'event_id']::name[], live => true);
