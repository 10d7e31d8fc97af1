-- Reading properties of events: each function returns NULL where a property is missing or is not what it should be, and
-- never an error, so that one malformed event cannot hold up a whole date. Bodies are parsed when they are created and
-- have no SET clause: thus they need no search_path, and the planner can inline them.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION silver.json_text(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.jsonb_typeof(value) IN ('string', 'number', 'boolean') THEN NULLIF(value #>> '{}', '') END;
COMMENT ON FUNCTION silver.json_text(jsonb) IS
    'A JSON string, number or boolean as text; NULL for an empty text, an object, an array, null and NULL.';

CREATE OR REPLACE FUNCTION silver.json_text(object jsonb, name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN tidemark_internal.member_text(object, name);
COMMENT ON FUNCTION silver.json_text(jsonb, text) IS
    'A member of a JSON object as silver.json_text(object -> name) has it, faster.';

CREATE OR REPLACE FUNCTION silver.json_numeric(value jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE pg_catalog.jsonb_typeof(value)
    WHEN 'number' THEN
        CASE WHEN pg_catalog.abs(value::numeric) < 1e18 AND pg_catalog.scale(value::numeric) <= 30
             THEN value::numeric END
    WHEN 'string' THEN
        CASE WHEN value #>> '{}' ~ '^ *[+-]?[0-9]{1,18}([.][0-9]{1,30})? *$' THEN (value #>> '{}')::numeric END
END;
COMMENT ON FUNCTION silver.json_numeric(jsonb) IS
    'A JSON number, or a string that holds a plain decimal number, as numeric; '
    'NULL for everything else, from 10^18 on, and with more than 30 decimals.';

CREATE OR REPLACE FUNCTION silver.json_bigint(value jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN silver.json_numeric(value) = pg_catalog.trunc(silver.json_numeric(value))
            THEN silver.json_numeric(value)::bigint END;
COMMENT ON FUNCTION silver.json_bigint(jsonb) IS
    'As silver.json_numeric, for whole numbers below 10^18; NULL for everything else.';

CREATE OR REPLACE FUNCTION silver.json_integer(value jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN silver.json_bigint(value) BETWEEN -2147483648 AND 2147483647
            THEN silver.json_bigint(value)::integer END;
COMMENT ON FUNCTION silver.json_integer(jsonb) IS
    'As silver.json_bigint, for what fits an integer; NULL for everything else.';

CREATE OR REPLACE FUNCTION silver.json_double(value jsonb) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN silver.json_numeric(value)::double precision;
COMMENT ON FUNCTION silver.json_double(jsonb) IS 'As silver.json_numeric, as double precision.';

CREATE OR REPLACE FUNCTION silver.json_boolean(value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE pg_catalog.lower(silver.json_text(value)) WHEN 'true' THEN true WHEN '1' THEN true WHEN 'yes' THEN true
    WHEN 'false' THEN false WHEN '0' THEN false WHEN 'no' THEN false END;
COMMENT ON FUNCTION silver.json_boolean(jsonb) IS
    'A JSON boolean, or true, yes, 1, false, no, 0 as text or number, as boolean; NULL for everything else.';

-- The pattern says what the cast accepts, but for the number of days of a month.
CREATE OR REPLACE FUNCTION silver.json_date(value jsonb) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN silver.json_text(value) ~ '^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])($|[T ])' THEN
    CASE WHEN pg_catalog.substr(silver.json_text(value), 9, 2)::integer <= EXTRACT(day FROM
                pg_catalog.make_date(pg_catalog.substr(silver.json_text(value), 1, 4)::integer,
                                     pg_catalog.substr(silver.json_text(value), 6, 2)::integer, 1)
                + interval '1 month' - interval '1 day')
         THEN pg_catalog.make_date(pg_catalog.substr(silver.json_text(value), 1, 4)::integer,
                                   pg_catalog.substr(silver.json_text(value), 6, 2)::integer,
                                   pg_catalog.substr(silver.json_text(value), 9, 2)::integer) END END;
COMMENT ON FUNCTION silver.json_date(jsonb) IS
    'The date with which an ISO 8601 text begins, years 1000 to 2999, as written there (no time zone is applied); '
    'NULL for everything else.';

-- Text without an offset is taken as UTC, hence nothing here depends on the session, whatever the cast is declared as.
CREATE OR REPLACE FUNCTION silver.json_timestamptz(value jsonb) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
    SELECT CASE WHEN silver.json_date(value) IS NOT NULL
        AND silver.json_text(value) ~ '^[0-9-]{10}([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?'
                                      '(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?)?$'
        THEN silver.json_text(value)::timestamptz END
$$;
COMMENT ON FUNCTION silver.json_timestamptz(jsonb) IS
    'An ISO 8601 text (date, or date and time, with an offset or in UTC), years 1000 to 2999, as timestamptz; '
    'NULL for everything else.';

CREATE OR REPLACE FUNCTION silver.json_items(value jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.jsonb_typeof(value) = 'array' THEN
    (SELECT COALESCE(pg_catalog.sum(COALESCE(silver.json_integer(line -> 'quantity'), 1)), 0)
       FROM pg_catalog.jsonb_array_elements(value) AS line) END;
COMMENT ON FUNCTION silver.json_items(jsonb) IS
    'The sum of quantity over the lines of an order, a JSON array; a line without one counts 1. '
    'NULL when it is no array.';

CREATE OR REPLACE FUNCTION silver.event_name(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.translate(pg_catalog.lower(name), ' -', '__');
COMMENT ON FUNCTION silver.event_name(text) IS
    'The name of an event in one spelling: lower case, with _ for blanks and hyphens; '
    'Order Completed becomes order_completed.';

CREATE OR REPLACE FUNCTION silver.is_page_view(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('page_viewed', 'page', 'screen', 'screen_viewed', 'page_view', 'pageview', '$pageview',
                      'screen_view', '$screen', '$mp_web_page_view', '[amplitude]_page_viewed',
                      '[amplitude]_screen_viewed');
COMMENT ON FUNCTION silver.is_page_view(text) IS
    'Whether events of this name, spelled as in silver.events, are views of a page or screen: page_viewed, page, '
    'screen, screen_viewed; page_view, pageview, $pageview, screen_view, $screen, $mp_web_page_view, '
    '[amplitude]_page_viewed and [amplitude]_screen_viewed of other systems.';

CREATE OR REPLACE FUNCTION silver.is_heartbeat(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('page_ping', 'heartbeat', 'page_heartbeat');
COMMENT ON FUNCTION silver.is_heartbeat(text) IS
    'Whether events of this name, spelled as in silver.events, say that a page is still looked at: page_ping '
    '(Snowplow), heartbeat, page_heartbeat.';

CREATE OR REPLACE FUNCTION silver.is_purchase(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('purchase_completed', 'order_completed', 'completed_order', 'purchase', 'transaction');
COMMENT ON FUNCTION silver.is_purchase(text) IS
    'Whether events of this name, spelled as in silver.events, are purchases: purchase_completed, order_completed, '
    'completed_order; purchase and transaction of other systems.';

CREATE OR REPLACE FUNCTION silver.is_nobody(id text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (pg_catalog.btrim(id, E' \t\r\n\u00A0"''0-') = ''
        OR pg_catalog.lower(pg_catalog.btrim(id, E' \t\r\n\u00A0"''')) IN
            ('null', 'nil', '<nil>', 'none', 'undefined', 'nan', '[object object]', '-1', 'true', 'false', 'unknown',
             'invalid', 'anonymous', 'guest', 'not_authenticated', 'id', 'user_id', 'email', 'distinct_id',
             'distinctid')) IS NOT FALSE;
COMMENT ON FUNCTION silver.is_nobody(text) IS
    'Whether an id is none: NULL, blank, nothing but zeros and hyphens (as the UUID of zeros), or what programs write '
    'in place of one, in any case and also in quotes (null, nil, <nil>, none, undefined, NaN, [object Object], -1, '
    'true, false, unknown, invalid, anonymous, guest, not_authenticated, id, user_id, email, distinct_id, distinctid). '
    'Everybody without an id would be one person else.';

CREATE OR REPLACE FUNCTION silver.bounded_id(id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.length(id) <= 256 THEN id
            ELSE pg_catalog."left"(id, 200) || '#' || pg_catalog.md5(id) END;
COMMENT ON FUNCTION silver.bounded_id(text) IS
    'The id; of more than 256 characters, which no index could hold, the first 200 with an MD5 hash behind.';

CREATE OR REPLACE FUNCTION silver.person_key(user_id text, anonymous_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN NOT silver.is_nobody(user_id) THEN silver.bounded_id(user_id)
            WHEN NOT silver.is_nobody(anonymous_id) THEN silver.bounded_id(anonymous_id) END;
COMMENT ON FUNCTION silver.person_key(text, text) IS
    'Who did it: the user_id, or the anonymous_id before login, as silver.bounded_id has it; '
    'NULL where both are nobody (silver.is_nobody).';

CREATE OR REPLACE FUNCTION silver.url_host(url text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog."substring"(pg_catalog.lower(url), '^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:]+)');
COMMENT ON FUNCTION silver.url_host(text) IS
    'Host of an absolute URL in lower case, without user, port and path; NULL when it is none.';

CREATE OR REPLACE FUNCTION silver.site_host(url text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.regexp_replace(silver.url_host(url), '^www[.]', '');
COMMENT ON FUNCTION silver.site_host(text) IS
    'As silver.url_host, without www. in front: with and without it is one site.';

CREATE OR REPLACE FUNCTION silver.url_parameter(url text, name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN NULLIF(pg_catalog.replace(pg_catalog.replace(
    pg_catalog."substring"(url, '[?&]' || name || '=([^&#]*)'), '+', ' '), '%20', ' '), '');
COMMENT ON FUNCTION silver.url_parameter(text, text) IS
    'The first value of a parameter of a URL, blanks decoded and all else as written; '
    'NULL where it is missing or empty.';

-- What GA4 says in an array of keys and values, each in the member of its type.
CREATE OR REPLACE FUNCTION silver.ga4_params(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.jsonb_typeof(payload -> 'event_params') = 'array' THEN (
    SELECT COALESCE(pg_catalog.jsonb_object_agg(v.param ->> 'key',
               COALESCE(v.param #> '{value,string_value}', v.param #> '{value,int_value}',
                        v.param #> '{value,double_value}', v.param #> '{value,float_value}')), '{}')
      FROM pg_catalog.jsonb_array_elements(payload -> 'event_params') AS v(param)
     WHERE v.param ->> 'key' IS NOT NULL) END;
COMMENT ON FUNCTION silver.ga4_params(jsonb) IS
    'The event_params of an event of Google Analytics 4, as BigQuery has them, as an object; NULL for others.';

CREATE OR REPLACE FUNCTION silver.properties_of(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN payload ? 'properties' AND NOT (payload ? 'traits' AND payload -> 'properties' = '{}')
    THEN payload -> 'properties'
    WHEN payload ? 'traits' THEN payload -> 'traits'
    WHEN payload ? 'event_properties' THEN payload -> 'event_properties'
    WHEN payload ? 'event_params' THEN silver.ga4_params(payload) || pg_catalog.jsonb_strip_nulls(
        pg_catalog.jsonb_build_object('ecommerce', payload -> 'ecommerce', 'items', payload -> 'items'))
    WHEN payload ? 'specversion' AND pg_catalog.jsonb_typeof(payload -> 'data') = 'object' THEN payload -> 'data'
    ELSE payload
END;
COMMENT ON FUNCTION silver.properties_of(jsonb) IS
    'What an event says of itself: its properties, its traits (identify and group of Segment), its event_properties '
    '(Amplitude), its event_params with ecommerce and items (Google Analytics 4), its data (CloudEvents); all of it '
    'where it has none of these.';

-- Whoever is not Segment-like has page, campaign and device somewhere else; here they are put where all others have
-- them.
CREATE OR REPLACE FUNCTION silver.context_of(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    -- Snowplow
    WHEN payload ?| ARRAY['collector_tstamp', 'derived_tstamp'] THEN pg_catalog.jsonb_build_object(
        'page', pg_catalog.jsonb_build_object('url', payload -> 'page_url', 'path', payload -> 'page_urlpath',
            'title', payload -> 'page_title', 'referrer', payload -> 'page_referrer'),
        'campaign', pg_catalog.jsonb_build_object('source', payload -> 'mkt_source', 'medium', payload -> 'mkt_medium',
            'name', payload -> 'mkt_campaign', 'term', payload -> 'mkt_term', 'content', payload -> 'mkt_content'),
        'device', pg_catalog.jsonb_build_object('type', payload -> 'dvce_type', 'os', payload -> 'os_name'),
        'platform', payload -> 'platform', 'country', payload -> 'geo_country', 'locale', payload -> 'br_lang',
        'userAgent', payload -> 'useragent', 'ip', payload -> 'user_ipaddress')
    -- Umami
    WHEN payload ?& ARRAY['url_path', 'website_id'] THEN pg_catalog.jsonb_build_object(
        'page', pg_catalog.jsonb_build_object('path', payload -> 'url_path', 'title', payload -> 'page_title',
            'url', 'https://' || (payload ->> 'hostname') || (payload ->> 'url_path') || COALESCE(
                '?' || pg_catalog.ltrim(payload ->> 'url_query', '?'), ''),
            'referrer', 'https://' || (payload ->> 'referrer_domain') || COALESCE(payload ->> 'referrer_path', '')),
        'campaign', pg_catalog.jsonb_build_object('source', payload -> 'utm_source', 'medium', payload -> 'utm_medium',
            'name', payload -> 'utm_campaign', 'term', payload -> 'utm_term', 'content', payload -> 'utm_content'),
        'device', pg_catalog.jsonb_build_object('type', payload -> 'device', 'os', payload -> 'os'),
        'platform', 'web', 'country', payload -> 'country', 'locale', payload -> 'language')
    -- PostHog and Mixpanel
    WHEN payload -> 'properties' ?| ARRAY['$current_url', '$pathname', '$lib', 'mp_lib'] THEN
        pg_catalog.jsonb_build_object(
        'page', pg_catalog.jsonb_build_object('url', payload #> '{properties,$current_url}',
            'path', COALESCE(payload #> '{properties,$pathname}', payload #> '{properties,current_url_path}'),
            'title', COALESCE(payload #> '{properties,title}', payload #> '{properties,current_page_title}'),
            'referrer', NULLIF(payload #>> '{properties,$referrer}', '$direct')),
        'campaign', pg_catalog.jsonb_build_object('source', payload #> '{properties,utm_source}',
            'medium', payload #> '{properties,utm_medium}', 'name', payload #> '{properties,utm_campaign}',
            'term', payload #> '{properties,utm_term}', 'content', payload #> '{properties,utm_content}'),
        'device', pg_catalog.jsonb_build_object('type', payload #> '{properties,$device_type}',
            'os', payload #> '{properties,$os}'),
        'platform', COALESCE(payload #> '{properties,$lib}', payload #> '{properties,mp_lib}'),
        'country', COALESCE(payload #> '{properties,$geoip_country_code}', payload #> '{properties,mp_country_code}'),
        'locale', payload #> '{properties,$browser_language}',
        'userAgent', COALESCE(payload #> '{properties,$raw_user_agent}', payload #> '{properties,$user_agent}'),
        'ip', COALESCE(payload #> '{properties,$ip}', payload #> '{properties,ip}', payload -> 'ip'))
    -- Amplitude, whose libraries write EMPTY where there is nothing. What it says of the user is of another time.
    WHEN payload ?& ARRAY['event_properties', 'device_id'] THEN (
        SELECT pg_catalog.jsonb_build_object(
            'page', pg_catalog.jsonb_build_object(
                'url', COALESCE(p.said -> '[Amplitude] Page Location', p.said -> '[Amplitude] Page URL'),
                'path', p.said -> '[Amplitude] Page Path', 'title', p.said -> '[Amplitude] Page Title',
                'referrer', NULLIF(p.said ->> 'referrer', 'EMPTY')),
            'campaign', pg_catalog.jsonb_build_object('source', NULLIF(p.said ->> 'utm_source', 'EMPTY'),
                'medium', NULLIF(p.said ->> 'utm_medium', 'EMPTY'), 'name', NULLIF(p.said ->> 'utm_campaign', 'EMPTY'),
                'term', NULLIF(p.said ->> 'utm_term', 'EMPTY'), 'content', NULLIF(p.said ->> 'utm_content', 'EMPTY')),
            'device', pg_catalog.jsonb_build_object('type', payload -> 'device_type', 'os', payload -> 'os_name'),
            'platform', pg_catalog.lower(payload ->> 'platform'), 'country', payload -> 'country',
            'locale', payload -> 'language', 'userAgent', payload -> 'user_agent', 'ip', payload -> 'ip_address')
          FROM (SELECT payload -> 'event_properties' AS said) AS p)
    -- Google Analytics 4 in BigQuery. Its traffic_source is where the user came from first, not this visit.
    WHEN pg_catalog.jsonb_typeof(payload -> 'event_params') = 'array' THEN (
        SELECT pg_catalog.jsonb_build_object(
            'page', pg_catalog.jsonb_build_object('url', p.said -> 'page_location', 'title', p.said -> 'page_title',
                'referrer', p.said -> 'page_referrer'),
            'campaign', pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
                'source', COALESCE(s.now -> 'manual_source', p.said -> 'source'),
                'medium', COALESCE(s.now -> 'manual_medium', p.said -> 'medium'),
                'name', COALESCE(s.now -> 'manual_campaign_name', p.said -> 'campaign'),
                'term', COALESCE(s.now -> 'manual_term', p.said -> 'term'),
                'content', COALESCE(s.now -> 'manual_content', p.said -> 'content'),
                'gclid', s.now -> 'gclid', 'dclid', s.now -> 'dclid')),
            'device', pg_catalog.jsonb_build_object('type', payload #> '{device,category}',
                'os', payload #> '{device,operating_system}'),
            'platform', pg_catalog.lower(payload ->> 'platform'), 'country', payload #> '{geo,country}',
            'locale', payload #> '{device,language}')
          FROM (SELECT silver.ga4_params(payload) AS said) AS p,
               (SELECT payload -> 'collected_traffic_source' AS now) AS s)
    -- Matomo: an action with its visit. The address of an outlink or a download is no page of the site. A campaign of
    -- which only the name is known is one of an unknown medium.
    WHEN payload -> 'visit' ? 'idVisit' THEN pg_catalog.jsonb_build_object(
        'page', pg_catalog.jsonb_build_object(
            'url', CASE WHEN payload ->> 'type' NOT IN ('outlink', 'download') THEN payload -> 'url' END,
            'title', payload -> 'pageTitle', 'referrer', payload #> '{visit,referrerUrl}'),
        'campaign', CASE WHEN payload #>> '{visit,referrerType}' = 'campaign' THEN pg_catalog.jsonb_build_object(
            'source', payload #> '{visit,campaignSource}',
            'medium', COALESCE(NULLIF(payload #>> '{visit,campaignMedium}', ''), 'campaign'),
            'name', COALESCE(NULLIF(payload #>> '{visit,campaignName}', ''), payload #>> '{visit,referrerName}')) END,
        'device', pg_catalog.jsonb_build_object('type', payload #> '{visit,deviceType}',
            'os', COALESCE(payload #> '{visit,operatingSystemName}', payload #> '{visit,operatingSystem}')),
        'country', pg_catalog.upper(payload #>> '{visit,countryCode}'), 'locale', payload #> '{visit,languageCode}',
        'ip', payload #> '{visit,visitIp}')
    -- Tables of Segment and RudderStack in a warehouse
    WHEN payload ?| ARRAY['context_page_url', 'context_library_name', 'context_ip'] THEN
        pg_catalog.jsonb_build_object(
        'page', pg_catalog.jsonb_build_object('url', COALESCE(payload -> 'context_page_url', payload -> 'url'),
            'path', COALESCE(payload -> 'context_page_path', payload -> 'path'),
            'title', COALESCE(payload -> 'context_page_title', payload -> 'title'),
            'referrer', COALESCE(payload -> 'context_page_referrer', payload -> 'referrer')),
        'campaign', pg_catalog.jsonb_build_object('source', payload -> 'context_campaign_source',
            'medium', payload -> 'context_campaign_medium', 'name', payload -> 'context_campaign_name',
            'term', payload -> 'context_campaign_term', 'content', payload -> 'context_campaign_content'),
        'device', pg_catalog.jsonb_build_object('type', payload -> 'context_device_type',
            'os', payload -> 'context_os_name'),
        'country', payload -> 'context_location_country', 'locale', payload -> 'context_locale',
        'userAgent', payload -> 'context_user_agent', 'ip', payload -> 'context_ip')
    -- A web server's log, which does not say its host.
    WHEN payload ?& ARRAY['remote_addr', 'status'] THEN pg_catalog.jsonb_build_object(
        'page', pg_catalog.jsonb_build_object('path', pg_catalog.split_part(payload ->> 'path', '?', 1),
            'url', payload -> 'path', 'referrer', payload -> 'referrer'),
        'userAgent', payload -> 'user_agent', 'ip', payload -> 'remote_addr')
END;
COMMENT ON FUNCTION silver.context_of(jsonb) IS
    'Page, campaign, device, platform, country, locale, userAgent and ip of an event without a context, as Segment has '
    'them there: '
    'of Snowplow, Umami, PostHog, Mixpanel, Amplitude, Google Analytics 4, Matomo, tables of Segment and web servers. '
    'NULL for any other event.';

CREATE OR REPLACE FUNCTION silver.page_key(url text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN COALESCE(NULLIF(pg_catalog."substring"(url, '^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*([^?#]*)'), ''),
                CASE WHEN silver.url_host(url) IS NOT NULL THEN '/' END);
COMMENT ON FUNCTION silver.page_key(text) IS
    'Path of an absolute URL; / where it has none, NULL when it is no absolute URL.';
