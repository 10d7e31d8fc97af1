-- silver.events: every event once, typed, without the raw payload. What an event type carries beyond these columns is
-- in the tables by type (030 and on), and in properties as far as somebody chose it: readers must see nothing that
-- nobody chose.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS silver.events (
    event_id uuid NOT NULL,
    event_time timestamptz NOT NULL,
    event_date date NOT NULL,
    event_type text NOT NULL,
    person text,
    known_person text,
    user_id text,
    anonymous_id text,
    page_path text,
    page_url text,
    page_title text,
    referrer text,
    referrer_host text,
    utm_source text,
    utm_medium text,
    utm_campaign text,
    utm_term text,
    utm_content text,
    click_id text,
    platform text,
    device text,
    os text,
    country text,
    locale text,
    load_ms integer,
    received_at timestamptz NOT NULL,
    loaded_at timestamptz NOT NULL
) PARTITION BY RANGE (event_time);
ALTER TABLE silver.events ADD COLUMN IF NOT EXISTS properties jsonb;
ALTER TABLE silver.events ADD COLUMN IF NOT EXISTS known_person text;
ALTER TABLE silver.events ADD COLUMN IF NOT EXISTS user_agent_id uuid;
ALTER TABLE silver.events ADD COLUMN IF NOT EXISTS ip_prefix text;
ALTER TABLE silver.events ADD COLUMN IF NOT EXISTS ip_country text;
ALTER TABLE silver.events ADD COLUMN IF NOT EXISTS excluded_as text;
-- Rows of a person in order: sessions, funnels and look-ups of one person read along it. By the person as sent, events
-- are found that come to be known as another one's.
CREATE INDEX IF NOT EXISTS events_known_person ON silver.events (known_person, event_time);
CREATE INDEX IF NOT EXISTS events_person ON silver.events (person, event_time);
-- They are few, and gold asks which they are.
CREATE INDEX IF NOT EXISTS events_excluded ON silver.events (event_date, event_id) WHERE excluded_as IS NOT NULL;
SELECT tidemark.manage_partitions(parent => 'silver.events'::regclass, premake_days => 4,
    partition_schema => 'silver_partitions', partition_unique => ARRAY['event_id']);

COMMENT ON TABLE silver.events IS
    'Every event once, typed, as of the last refresh; one partition per UTC date. '
    'Filter on event_time or on literal dates of event_date: both prune partitions.';
COMMENT ON COLUMN silver.events.event_id IS 'Identity of the event; unique within its event_date.';
COMMENT ON COLUMN silver.events.event_time IS 'When it happened.';
COMMENT ON COLUMN silver.events.event_date IS 'UTC date of event_time.';
COMMENT ON COLUMN silver.events.event_type IS
    'Name of the event in one spelling: '
    'lower case with underscores (page_viewed; Order Completed becomes order_completed).';
COMMENT ON COLUMN silver.events.person IS
    'Who did it: the user_id, or the anonymous_id before login; NULL when the event has neither, or only what '
    'programs write in place of an id (silver.is_nobody). '
    'As sent: anonymous events are not linked to the user who logs in later.';
COMMENT ON COLUMN silver.events.known_person IS
    'Who it is known to be now: the person of the account, that of the account whose the device was at that time, or '
    'the device; NULL for nobody. As of the last identity.resolve.';
COMMENT ON COLUMN silver.events.user_id IS 'Known user; NULL before login.';
COMMENT ON COLUMN silver.events.anonymous_id IS 'Device or browser identity; NULL when the event has none.';
COMMENT ON COLUMN silver.events.page_path IS 'Path of the page it happened on; NULL when the event names no page.';
COMMENT ON COLUMN silver.events.page_url IS 'Address (URL) of that page; NULL when the event has none.';
COMMENT ON COLUMN silver.events.page_title IS 'Title of that page; NULL when the event has none.';
COMMENT ON COLUMN silver.events.referrer IS 'Address (URL) of the page before; NULL when the event has none.';
COMMENT ON COLUMN silver.events.referrer_host IS
    'Host of the page before where that is another site; NULL without one, '
    'for pages of the own site, and for hosts that silver.set_own_hosts names.';
COMMENT ON COLUMN silver.events.utm_source IS
    'Campaign source (context.campaign.source, else utm_source in the address of the page); NULL without one.';
COMMENT ON COLUMN silver.events.utm_medium IS
    'Campaign medium (context.campaign.medium, else utm_medium in the address of the page); NULL without one.';
COMMENT ON COLUMN silver.events.utm_campaign IS
    'Campaign name (context.campaign.name, else utm_campaign in the address of the page); NULL without one.';
COMMENT ON COLUMN silver.events.utm_term IS
    'Campaign term (context.campaign.term, else utm_term in the address of the page); NULL without one.';
COMMENT ON COLUMN silver.events.utm_content IS
    'Campaign content (context.campaign.content, else utm_content in the address of the page); NULL without one.';
COMMENT ON COLUMN silver.events.click_id IS
    'Mark of a click on an advertisement '
    'as name=value (gclid, dclid, gbraid, wbraid, fbclid, msclkid, ttclid, twclid, li_fat_id, epik, yclid, gad_source, '
    'rdt_cid, sccid); NULL without one.';
COMMENT ON COLUMN silver.events.platform IS
    'Where it ran, for example web, ios or android; NULL when the event does not say.';
COMMENT ON COLUMN silver.events.device IS
    'Kind of device as the event says, for example desktop, mobile or tablet; NULL when it does not.';
COMMENT ON COLUMN silver.events.os IS 'Operating system; NULL when the event does not say.';
COMMENT ON COLUMN silver.events.country IS
    'Country as the event says, in general an ISO 3166 code; NULL when it does not.';
COMMENT ON COLUMN silver.events.ip_country IS
    'Country of its network by silver.networks, an ISO 3166 code; NULL when nobody knows.';
COMMENT ON COLUMN silver.events.locale IS
    'Language and region of the client, for example en-GB; NULL when the event does not say.';
COMMENT ON COLUMN silver.events.load_ms IS
    'How long the page took to load, in milliseconds; NULL where it was not measured, below 0 or above an hour, '
    'and for events that are no page views.';
COMMENT ON COLUMN silver.events.received_at IS
    'When the broker got it; received_at - event_time is its lateness. '
    'The event time itself where nobody knows the receipt.';
COMMENT ON COLUMN silver.events.loaded_at IS 'Start of the transaction that committed it to Postgres.';
COMMENT ON COLUMN silver.events.user_agent_id IS
    'Its user agent: key of silver.user_agents; NULL when the event names none.';
COMMENT ON COLUMN silver.events.ip_prefix IS
    'The network of its IP address: key of silver.networks; NULL when the event has none.';
COMMENT ON COLUMN silver.events.excluded_as IS
    'Why gold does not count it: own network or test host (silver.set_own_traffic), or bot (silver.user_agents); '
    'NULL for what gold counts.';
COMMENT ON COLUMN silver.events.properties IS
    'What the event says of itself beyond these columns, as far as silver.show_properties shows it; '
    'NULL unless it does.';
GRANT SELECT ON silver.events TO tidemark_reader;

CREATE OR REPLACE FUNCTION silver.pick_properties(properties jsonb, shown text[], hidden text[], hashed text[])
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.jsonb_typeof(properties) = 'object' THEN (
    SELECT COALESCE(pg_catalog.jsonb_object_agg(p.key, CASE WHEN p.key = ANY (hashed) AND p.value <> 'null'
               THEN pg_catalog.to_jsonb(pg_catalog.encode(pg_catalog.sha256(
                        pg_catalog.convert_to(p.value #>> '{}', 'UTF8')), 'hex'))
               ELSE p.value END), '{}')
      FROM pg_catalog.jsonb_each(properties) AS p(key, value)
     WHERE (shown = '{*}' OR p.key = ANY (shown) OR p.key = ANY (hashed)) AND p.key <> ALL (hidden)) END;
COMMENT ON FUNCTION silver.pick_properties(jsonb, text[], text[], text[]) IS
    'Of an object, the members that are shown ({*}: all) or hashed (as the SHA-256 hash of their text, in hexadecimal) '
    'and not hidden. NULL when it is no object.';

CREATE OR REPLACE FUNCTION silver.define_events() RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $define$
DECLARE
    wanted gold_storage.silver_settings := (SELECT s FROM gold_storage.silver_settings AS s);
    not_own text := CASE WHEN wanted.own_hosts <> '{}' THEN format(
        $sql$AND NOT ('.' || silver.url_host(e.referrer)) LIKE ANY (%L::text[])$sql$,
        ARRAY(SELECT '%.' || host FROM unnest(wanted.own_hosts) AS host)) ELSE '' END;
    properties text := CASE WHEN wanted.shown_properties || wanted.hashed_properties = '{}' THEN 'NULL::jsonb'
        ELSE format('silver.pick_properties(silver.properties_of(e.payload), %L, %L, %L)',
                    wanted.shown_properties, wanted.hidden_properties, wanted.hashed_properties) END;
BEGIN
    -- OFFSET 0 keeps the objects of the context from being looked up again for each of their columns.
    RETURN tidemark.create_model('silver.events', ARRAY['bronze.events']::regclass[],
        replace(replace($query$
    SELECT e.event_id,
           e.event_time,
           (e.event_time AT TIME ZONE 'UTC')::date AS event_date,
           e.event_type,
           e.person,
           silver.known_person(e.person, e.user_id, e.anonymous_id, e.event_time) AS known_person,
           e.user_id,
           e.anonymous_id,
           e.page_path,
           e.page_url,
           e.page_title,
           e.referrer,
           -- Most pages come from the own site, and this comparison is far cheaper than taking both hosts apart.
           CASE WHEN e.referrer IS NULL OR split_part(e.referrer, '/', 3) = split_part(e.page_url, '/', 3) THEN NULL
                WHEN silver.site_host(e.referrer) IS DISTINCT FROM silver.site_host(e.page_url) {{not own}}
                THEN silver.url_host(e.referrer) END AS referrer_host,
           COALESCE(silver.json_text(e.campaign, 'source'), CASE WHEN e.tagged_url LIKE '%utm@_source=%' ESCAPE '@'
                    THEN silver.url_parameter(e.tagged_url, 'utm_source') END) AS utm_source,
           COALESCE(silver.json_text(e.campaign, 'medium'), CASE WHEN e.tagged_url LIKE '%utm@_medium=%' ESCAPE '@'
                    THEN silver.url_parameter(e.tagged_url, 'utm_medium') END) AS utm_medium,
           COALESCE(silver.json_text(e.campaign, 'name'), CASE WHEN e.tagged_url LIKE '%utm@_campaign=%' ESCAPE '@'
                    THEN silver.url_parameter(e.tagged_url, 'utm_campaign') END) AS utm_campaign,
           COALESCE(silver.json_text(e.campaign, 'term'), CASE WHEN e.tagged_url LIKE '%utm@_term=%' ESCAPE '@'
                    THEN silver.url_parameter(e.tagged_url, 'utm_term') END) AS utm_term,
           COALESCE(silver.json_text(e.campaign, 'content'), CASE WHEN e.tagged_url LIKE '%utm@_content=%' ESCAPE '@'
                    THEN silver.url_parameter(e.tagged_url, 'utm_content') END) AS utm_content,
           COALESCE(
               CASE WHEN e.campaign ?| ARRAY['gclid', 'dclid', 'gbraid', 'wbraid', 'fbclid', 'msclkid', 'ttclid',
                                             'twclid', 'li_fat_id', 'epik', 'yclid', 'gad_source', 'rdt_cid',
                                             'sccid'] THEN
                   (SELECT k.name || '=' || silver.json_text(e.campaign, k.name)
                      FROM unnest(ARRAY['gclid', 'dclid', 'gbraid', 'wbraid', 'fbclid', 'msclkid', 'ttclid',
                                        'twclid', 'li_fat_id', 'epik', 'yclid', 'gad_source', 'rdt_cid',
                                        'sccid']) WITH ORDINALITY AS k(name, n)
                     WHERE silver.json_text(e.campaign, k.name) IS NOT NULL ORDER BY k.n LIMIT 1) END,
               substring(e.tagged_url from '(?i)[?&]((?:gclid|dclid|gbraid|wbraid|fbclid|msclkid|ttclid|twclid'
                                           '|li_fat_id|epik|yclid|gad_source|rdt_cid|sccid)=[^&#]+)')) AS click_id,
           silver.json_text(e.context, 'platform') AS platform,
           silver.json_text(e.device, 'type') AS device,
           COALESCE(silver.json_text(e.context #> '{os,name}'), silver.json_text(e.device, 'os')) AS os,
           COALESCE(silver.json_text(e.context, 'country'),
                    silver.json_text(e.context #> '{location,country}')) AS country,
           silver.json_text(e.context, 'locale') AS locale,
           CASE WHEN e.load BETWEEN 0 AND 3600000 THEN round(e.load)::integer END AS load_ms,
           e.received_at,
           e.loaded_at,
           {{properties}} AS properties,
           e.user_agent_id,
           e.ip_prefix,
           silver.network_country(e.ip_prefix) AS ip_country,
           -- Bots come last: that one is a bot may turn out later, and must not hide another reason.
           COALESCE(silver.own_traffic(e.ip, e.page_url),
                    CASE WHEN silver.is_bot(e.user_agent_id) THEN 'bot' END) AS excluded_as
      FROM (SELECT d.*, silver.person_key(d.user_id, d.anonymous_id) AS person,
                   silver.user_agent_id(d.user_agent) AS user_agent_id, silver.ip_prefix(d.ip) AS ip_prefix,
                   -- Few addresses have parameters: the others are not searched for one after the other.
                   CASE WHEN d.page_url LIKE '%=%' THEN d.page_url END AS tagged_url
              FROM (SELECT c.*,
                           COALESCE(silver.json_text(c.page, 'path'), silver.json_text(c.properties, 'path'),
                                    silver.page_key(COALESCE(silver.json_text(c.page, 'url'),
                                                             silver.json_text(c.properties, 'url')))) AS page_path,
                           COALESCE(silver.json_text(c.page, 'url'),
                                    silver.json_text(c.properties, 'url')) AS page_url,
                           COALESCE(silver.json_text(c.page, 'title'),
                                    silver.json_text(c.properties, 'title')) AS page_title,
                           COALESCE(silver.json_text(c.page, 'referrer'),
                                    silver.json_text(c.properties, 'referrer')) AS referrer,
                           silver.user_agent_of(c.context) AS user_agent,
                           silver.ip_of(c.payload, c.context) AS ip,
                           COALESCE(silver.json_numeric(c.properties #> '{performance,load_ms}'),
                                    silver.json_numeric(c.properties -> 'load_ms')) AS load
                      FROM (SELECT b.event_id, b.event_time, b.event_type, b.user_id, b.anonymous_id, b.received_at,
                                   b.loaded_at, b.payload, b.context, b.context -> 'page' AS page,
                                   b.context -> 'campaign' AS campaign, b.context -> 'device' AS device,
                                   -- Only views describe their page in properties.
                                   CASE WHEN silver.is_page_view(b.event_type) THEN b.payload -> 'properties'
                                        END AS properties
                              FROM (SELECT r.event_id, r.event_time, silver.event_name(r.event_type) AS event_type,
                                           r.user_id, r.anonymous_id, r.received_at, r.loaded_at, r.payload,
                                           COALESCE(r.payload -> 'context',
                                                    silver.context_of(r.payload)) AS context
                                      FROM bronze.events AS r
                                     WHERE r.event_time >= $1::timestamp AT TIME ZONE 'UTC'
                                       AND r.event_time < $2::timestamp AT TIME ZONE 'UTC'
                                    OFFSET 0) AS b
                            OFFSET 0) AS c
                    OFFSET 0) AS d
            OFFSET 0) AS e
$query$, '{{not own}}', not_own), '{{properties}}', properties),
        key => ARRAY['event_date', 'event_id']::name[], live => true);
END
$define$;
COMMENT ON FUNCTION silver.define_events() IS
    'Makes silver.events what gold_storage.silver_settings says; its dates become dirty if that is something new. '
    'Returns the table.';
REVOKE EXECUTE ON FUNCTION silver.define_events() FROM PUBLIC;
SELECT silver.define_events();

CREATE OR REPLACE FUNCTION silver.set_own_hosts(hosts text[]) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bad text := (SELECT h FROM unnest(hosts) AS h WHERE (h ~ '^[a-z0-9-]+([.][a-z0-9-]+)*$') IS NOT TRUE LIMIT 1);
BEGIN
    IF hosts IS NULL OR bad IS NOT NULL OR array_position(hosts, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'hosts must be names of hosts in lower case, got %', quote_nullable(bad)
            USING ERRCODE = '22023', HINT = 'For example {shop.example,pay.example}; all hosts below them count, too.';
    END IF;
    UPDATE gold_storage.silver_settings SET own_hosts = ARRAY(SELECT DISTINCT h FROM unnest(hosts) AS h ORDER BY 1);
    RETURN silver.define_events();
END
$$;
COMMENT ON FUNCTION silver.set_own_hosts(text[]) IS
    'Says which hosts, with all below them, are never where a visit came from: the own domains, and those of payment '
    'and login that a visitor comes back from. Replaces what was said before. For members of tidemark_admin. '
    'All dates of silver.events become dirty when it is another list. Returns silver.events.';
REVOKE EXECUTE ON FUNCTION silver.set_own_hosts(text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION silver.show_properties(
    shown text[], hidden text[] DEFAULT '{}', hashed text[] DEFAULT '{}'
) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF shown IS NULL OR hidden IS NULL OR hashed IS NULL
       OR array_position(shown || hidden || hashed, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'shown, hidden and hashed must be names of properties and not NULL' USING ERRCODE = '22004';
    ELSIF '*' = ANY (shown) AND cardinality(shown) > 1 THEN
        RAISE EXCEPTION 'shown must be names of properties, or * alone for all' USING ERRCODE = '22023';
    END IF;
    UPDATE gold_storage.silver_settings SET
        shown_properties = ARRAY(SELECT DISTINCT p FROM unnest(shown) AS p ORDER BY 1),
        hidden_properties = ARRAY(SELECT DISTINCT p FROM unnest(hidden) AS p ORDER BY 1),
        hashed_properties = ARRAY(SELECT DISTINCT p FROM unnest(hashed) AS p ORDER BY 1);
    RETURN silver.define_events();
END
$$;
COMMENT ON FUNCTION silver.show_properties(text[], text[], text[]) IS
    'Says which properties of events readers see in silver.events.properties: those in shown ({*}: all), those in '
    'hashed as the SHA-256 hash of their text, and none in hidden. {} for all, as in the beginning, shows none. '
    'Replaces what was said before. For members of tidemark_admin. All dates of silver.events become dirty when that '
    'is something new. Returns silver.events.';
REVOKE EXECUTE ON FUNCTION silver.show_properties(text[], text[], text[]) FROM PUBLIC;
