-- gold.sessions: one row per session of a person; a session belongs to the date on which it starts, in the time zone of
-- reports. The rows are in gold_storage.session_facts by UTC date, and the same in any zone; the view numbers them,
-- which no model by date could keep right: one late session renumbers all later ones of its person. Whoever does not
-- select session_number does not pay for it.
-- The query reads one day back, to see whether the first event of a date goes on with an older session, and two days
-- ahead, to follow sessions over midnight: a session is whole if it ends within 48 hours after the date it starts on.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold_storage.session_facts (
    event_date date NOT NULL,
    report_date date NOT NULL,
    session_id uuid NOT NULL,
    person text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    duration_seconds numeric(12, 3) NOT NULL,
    events bigint NOT NULL,
    page_views bigint NOT NULL,
    purchases bigint NOT NULL,
    bounced boolean NOT NULL,
    entry_page text,
    exit_page text,
    channel text NOT NULL,
    utm_source text,
    utm_medium text,
    utm_campaign text,
    referrer_host text,
    platform text,
    device text,
    country text,
    engaged_seconds integer,
    user_agent_id uuid,
    ip_prefix text,
    PRIMARY KEY (event_date, session_id)
) WITH (fillfactor = 70);  -- today's rows are written again and again: beside themselves
CREATE INDEX IF NOT EXISTS session_facts_person ON gold_storage.session_facts (person, started_at);

COMMENT ON TABLE gold_storage.session_facts IS 'Storage of gold.sessions; read that view instead.';

CREATE OR REPLACE FUNCTION gold_storage.define_sessions() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $define$
DECLARE
    wanted CONSTANT gold_storage.reporting := (SELECT r FROM gold_storage.reporting AS r);
    -- What ends a session is said by an event and the one before it, so that half an hour before the date says enough.
    cuts CONSTANT text := nullif(concat_ws(' OR ',
        CASE WHEN 'midnight' = ANY (wanted.session_cut) THEN '{{date of x}} <> lag({{date of x}}) OVER previous' END,
        CASE WHEN 'campaign' = ANY (wanted.session_cut) THEN
            'COALESCE(x.utm_source, x.utm_medium, x.utm_campaign, x.click_id) IS NOT NULL AND '
            'ARRAY[x.utm_source, x.utm_medium, x.utm_campaign, x.click_id] IS DISTINCT FROM '
            'lag(ARRAY[x.utm_source, x.utm_medium, x.utm_campaign, x.click_id]) OVER previous' END), '');
    -- Of each page the spans of a heartbeat in which it was seen or beat, but for the first, which is 5 seconds.
    engaged CONSTANT text := format(
        '(%1$s * count(DISTINCT ROW(s.page_path, floor(extract(epoch FROM s.event_time AT TIME ZONE ''UTC'') / %1$s)))'
        '    FILTER (WHERE %2$s) - (%1$s - 5) * count(DISTINCT s.page_path) FILTER (WHERE %2$s))::integer',
        wanted.heartbeat_seconds,
        's.page_path IS NOT NULL AND (silver.is_page_view(s.event_type) OR silver.is_heartbeat(s.event_type))');
    written text := $zoned$
{{|CREATE INDEX IF NOT EXISTS session_facts_report_date ON gold_storage.session_facts (report_date);}}

SELECT tidemark.create_model('gold_storage.session_facts', ARRAY['silver.events']::regclass[], $query$
    WITH near AS MATERIALIZED (
        -- A session goes on only over gaps of at most 30 minutes: so much before the date tells which of its first
        -- events continue an older session.
        SELECT e.known_person AS person, e.event_date, e.event_time, e.event_type, e.page_path,
               e.page_path IS NOT NULL OR e.page_url IS NOT NULL AS has_page,
               e.utm_source, e.utm_medium, e.utm_campaign,
               e.referrer_host, e.click_id, e.platform, e.device, COALESCE(e.country, e.ip_country) AS country,
               e.user_agent_id, e.ip_prefix{{event id}}
          FROM silver.events AS e
         WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' - interval '30 minutes'
           AND e.event_time < ($2 + 2)::timestamp AT TIME ZONE 'UTC'
           AND e.known_person IS NOT NULL AND e.excluded_as IS NULL
    ), events AS (
        -- And of the days after only persons matter who were there in the last 30 minutes: the others need not be
        -- sorted.
        SELECT n.*,
               tidemark.sessionize(n.event_time, interval '30 minutes'{{cut}})
                   OVER (PARTITION BY n.person ORDER BY n.event_time{{then}}) AS started_at
          FROM {{near}} AS n
         WHERE n.event_time < $2::timestamp AT TIME ZONE 'UTC'
            OR n.person IN (SELECT late.person FROM near AS late
                             WHERE late.event_time >= $2::timestamp AT TIME ZONE 'UTC' - interval '30 minutes'
                               AND late.event_time < $2::timestamp AT TIME ZONE 'UTC')
    ), sessions AS (
        SELECT s.person,
               -- That of the first event: nobody has a session on a date without an event on it.
               min(s.event_date) AS event_date,
               s.started_at,
               max(s.event_time) AS ended_at,
               count(*) AS events,
               count(*) FILTER (WHERE silver.is_page_view(s.event_type)) AS page_views,
               count(*) FILTER (WHERE silver.is_purchase(s.event_type)) AS purchases,
               -- Only an event of a page could have said where the visit came from.
               bool_or(s.has_page) AS has_page,
               tidemark.first(s.page_path, s.event_time) AS entry_page,
               tidemark.last(s.page_path, s.event_time) AS exit_page,
               -- One event's values together: a mixture of two touches would be no touch at all.
               tidemark.first(ARRAY[s.utm_source, s.utm_medium, s.utm_campaign, s.referrer_host, s.click_id],
                              s.event_time)
                   FILTER (WHERE COALESCE(s.utm_source, s.utm_medium, s.utm_campaign, s.referrer_host, s.click_id)
                                 IS NOT NULL) AS touch,
               tidemark.first(s.platform, s.event_time) AS platform,
               tidemark.first(s.device, s.event_time) AS device,
               tidemark.first(s.country, s.event_time) AS country,
               tidemark.first(s.user_agent_id, s.event_time) AS user_agent_id,
               tidemark.first(s.ip_prefix, s.event_time) AS ip_prefix,
               {{engaged}} AS engaged_seconds
          FROM events AS s
         WHERE s.started_at >= $1::timestamp AT TIME ZONE 'UTC' AND s.started_at < $2::timestamp AT TIME ZONE 'UTC'
         GROUP BY s.person, s.started_at
    )
    SELECT s.event_date,
           {{s.event_date|(s.started_at AT TIME ZONE {{zone}})::date}} AS report_date,
           tidemark.session_id(s.person, s.started_at) AS session_id,
           s.person,
           s.started_at,
           s.ended_at,
           extract(epoch FROM s.ended_at - s.started_at)::numeric(12, 3) AS duration_seconds,
           s.events,
           s.page_views,
           s.purchases,
           s.page_views < 2 AND s.purchases = 0 AND s.ended_at - s.started_at <= interval '10 seconds' AS bounced,
           s.entry_page,
           s.exit_page,
           CASE WHEN s.touch IS NULL AND NOT s.has_page THEN 'Unknown'
                ELSE tidemark.channel_group(s.touch[1], s.touch[2], s.touch[3], s.touch[4], s.touch[5]) END AS channel,
           s.touch[1] AS utm_source,
           s.touch[2] AS utm_medium,
           s.touch[3] AS utm_campaign,
           s.touch[4] AS referrer_host,
           s.platform,
           s.device,
           s.country,
           s.engaged_seconds,
           s.user_agent_id,
           s.ip_prefix
      FROM sessions AS s
$query$, key => ARRAY['event_date', 'session_id']::name[], lookback_days => 1, lookahead_days => 2, live => true,
    scope => 'person', scope_source => 'known_person'{{since}});

CREATE OR REPLACE VIEW gold.sessions AS
SELECT {{f.event_date|f.report_date}} AS event_date, f.session_id, f.person,
       (SELECT count(*) FROM gold_storage.session_facts AS before
         WHERE before.person = f.person AND before.started_at <= f.started_at) AS session_number,
       f.started_at, f.ended_at, f.duration_seconds, f.events, f.page_views, f.purchases, f.bounced, f.entry_page,
       f.exit_page,
       f.channel, f.utm_source, f.utm_medium, f.utm_campaign, f.referrer_host, f.platform, f.device, f.country,
       f.engaged_seconds, a.browser, a.os, n.region
  FROM gold_storage.session_facts AS f
  LEFT JOIN silver.user_agents AS a ON a.user_agent_id = f.user_agent_id
  LEFT JOIN silver.networks AS n ON n.ip_prefix = f.ip_prefix;

-- Up to the first date that waits for a refresh the stored rows say how many sessions a person had; from there on rows
-- are numbered as they come out of the live view. Numbers are put together outside the UNION ALL, which computes all
-- columns of its branches, wanted or not.
CREATE OR REPLACE VIEW gold.sessions_live AS
WITH changed AS MATERIALIZED (
    -- No date waits: everything is stored.
    SELECT COALESCE(min(d.day), 'infinity') AS since
      FROM unnest(tidemark.stale_dates('gold_storage.session_facts')) AS d(day)
)
SELECT {{u.event_date|u.report_date}} AS event_date, u.session_id, u.person,
       CASE WHEN u.number IS NULL
            THEN (SELECT count(*) FROM gold_storage.session_facts AS before
                   WHERE before.person = u.person AND before.started_at <= u.started_at)
            ELSE (SELECT count(*) FROM gold_storage.session_facts AS before
                   WHERE before.person = u.person AND before.event_date < (SELECT c.since FROM changed AS c)) + u.number
       END AS session_number,
       u.started_at, u.ended_at, u.duration_seconds, u.events, u.page_views, u.purchases, u.bounced, u.entry_page,
       u.exit_page,
       u.channel, u.utm_source, u.utm_medium, u.utm_campaign, u.referrer_host, u.platform, u.device, u.country,
       u.engaged_seconds, a.browser, a.os, n.region
  FROM (SELECT f.*, NULL::bigint AS number
          FROM gold_storage.session_facts AS f
         WHERE f.event_date < (SELECT c.since FROM changed AS c)
        UNION ALL
        SELECT l.*, row_number() OVER (PARTITION BY l.person ORDER BY l.started_at) AS number
          FROM gold_storage.session_facts_live AS l
         WHERE l.event_date >= (SELECT c.since FROM changed AS c)) AS u
  LEFT JOIN silver.user_agents AS a ON a.user_agent_id = u.user_agent_id
  LEFT JOIN silver.networks AS n ON n.ip_prefix = u.ip_prefix;
$zoned$;
    part record;
BEGIN
    FOR part IN SELECT p.name, p.replacement FROM (VALUES
        ('{{event id}}', CASE WHEN cuts IS NOT NULL THEN ', e.event_id' END),
        ('{{cut}}', CASE WHEN cuts IS NOT NULL THEN ', n.cuts' END),
        ('{{then}}', CASE WHEN cuts IS NOT NULL THEN ', n.event_id' END),
        ('{{near}}', COALESCE('(SELECT x.*, ' || cuts || ' AS cuts FROM near AS x '
                              'WINDOW previous AS (PARTITION BY x.person ORDER BY x.event_time, x.event_id))', 'near')),
        ('{{engaged}}', CASE WHEN wanted.heartbeat_seconds IS NULL THEN 'NULL::integer' ELSE engaged END),
        -- Whether a campaign is another one is said by an event of the session before: a session is not by itself.
        ('{{since}}', CASE WHEN NOT 'campaign' = ANY (wanted.session_cut) THEN ', scope_since => ''started_at''' END)
    ) AS p(name, replacement) LOOP
        written := replace(written, part.name, COALESCE(part.replacement, ''));
    END LOOP;
    EXECUTE gold_storage.zoned(written);
END
$define$;
COMMENT ON FUNCTION gold_storage.define_sessions() IS
    'Makes gold.sessions what gold_storage.reporting says; its dates become dirty if that is something new.';
-- The zone shows that it is to be run again.
SELECT gold_storage.in_zone('sessions', 'SELECT gold_storage.define_sessions() /* {{zone}} */');

CREATE OR REPLACE FUNCTION gold.set_sessions(cut text[] DEFAULT NULL, heartbeat interval DEFAULT NULL)
RETURNS TABLE (model text, dates bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 10
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
DECLARE
    seconds CONSTANT numeric := extract(epoch FROM heartbeat);
BEGIN
    IF array_ndims(cut) > 1
       OR EXISTS (SELECT FROM unnest(cut) AS c WHERE (c IN ('campaign', 'midnight')) IS NOT TRUE) THEN
        RAISE EXCEPTION 'cut must be of campaign and midnight, got %', cut
            USING ERRCODE = '22023', HINT = '{} for none.';
    ELSIF seconds <> trunc(seconds) OR seconds NOT BETWEEN 5 AND 600 AND seconds <> 0 THEN
        RAISE EXCEPTION 'heartbeat must be 5 to 600 whole seconds, got %', heartbeat
            USING ERRCODE = '22023', HINT = '0: no engaged time.';
    END IF;
    UPDATE gold_storage.reporting AS r
       SET session_cut = CASE WHEN cut IS NULL THEN r.session_cut
                              ELSE ARRAY(SELECT DISTINCT c FROM unnest(cut) AS c ORDER BY 1) END,
           heartbeat_seconds = CASE WHEN heartbeat IS NULL THEN r.heartbeat_seconds ELSE nullif(seconds, 0) END;
    UPDATE gold_storage.zoned_statements AS s SET ran = NULL WHERE s.name = 'sessions';
    PERFORM gold_storage.run_zoned();
    RETURN QUERY SELECT * FROM gold_storage.waiting();
END
$$;
COMMENT ON FUNCTION gold.set_sessions(text[], interval) IS
    'Says what ends a session of gold.sessions besides a pause of 30 minutes: campaign (an event with another campaign '
    'or click than the event before it), midnight (in the time zone of gold.reporting), both, or {} for neither, as in '
    'the beginning; and every how many seconds pages send a heartbeat (silver.is_heartbeat), 5 to 600, from which '
    'engaged_seconds are counted; 0: not at all, as in the beginning. NULL leaves it as it is. For members of '
    'tidemark_admin. Returns which models wait for a refresh now, and how many dates of each. 22023 for anything else.';
REVOKE EXECUTE ON FUNCTION gold.set_sessions(text[], interval) FROM PUBLIC;

DO $$
DECLARE
    relation text;
    entry record;
BEGIN
    COMMENT ON VIEW gold.sessions IS
        'Sessions of a person: events with no gap greater than 30 minutes, whole up to 48 hours after the '
        'date they start on. Filter on event_date. As of the last refresh; gold.sessions_live is exact at any moment.';
    COMMENT ON VIEW gold.sessions_live IS
        'As gold.sessions, with events that came in since the last refresh: '
        'dates that wait for one are computed when the view is read. Filter on event_date.';
    FOREACH relation IN ARRAY ARRAY['gold_storage.session_facts', 'gold_storage.session_facts_live',
                                    'gold.sessions', 'gold.sessions_live'] LOOP
        FOR entry IN SELECT c.column_name, c.meaning FROM (VALUES
            ('event_date', CASE WHEN relation LIKE 'gold.%'
                                THEN 'Date on which the session starts, in the time zone of gold.reporting.'
                                ELSE 'UTC date on which the session starts.' END),
            ('report_date', 'Date on which the session starts, in the time zone of gold.reporting.'),
            ('session_id', 'Stable key: tidemark.session_id(person, started_at).'),
            ('person', 'Who it is known to be: silver.events.known_person.'),
            ('session_number', 'How many sessions the person had with this one, 1 for the first; '
                               'costs an index look-up per row, nothing when it is not selected.'),
            ('started_at', 'Time of its first event.'),
            ('ended_at', 'Time of its last event.'),
            ('duration_seconds', 'ended_at - started_at in seconds; 0 for a session of one event.'),
            ('events', 'Number of events.'),
            ('page_views', 'Number of page views.'),
            ('purchases', 'Number of purchases.'),
            ('bounced', 'Neither two page views nor a purchase nor longer than 10 seconds.'),
            ('entry_page', 'Path of the first page seen; NULL without one.'),
            ('exit_page', 'Path of the last page seen; NULL without one.'),
            ('channel', 'Marketing channel of the first touch in the session that is known (tidemark.channel_group); '
                        'Direct without any, Unknown where no event has a page that could have said so.'),
            ('utm_source', 'Campaign source of that touch; NULL without one.'),
            ('utm_medium', 'Campaign medium of that touch; NULL without one.'),
            ('utm_campaign', 'Campaign name of that touch; NULL without one.'),
            ('referrer_host', 'Host of the other site that referred it; NULL without one.'),
            ('platform', 'First platform known in the session; NULL without any.'),
            ('device', 'First kind of device known in the session; NULL without any.'),
            ('country', 'First country known in the session, as its events say or by silver.networks, in general an '
                        'ISO 3166 code; NULL without any.'),
            ('user_agent_id', 'First user agent known in the session: key of silver.user_agents; NULL without any.'),
            ('ip_prefix', 'First network known in the session: key of silver.networks; NULL without any.'),
            ('browser', 'Its browser, by silver.user_agents; NULL when nobody knows.'),
            ('os', 'Its operating system, by silver.user_agents; NULL when nobody knows.'),
            ('region', 'The part of the country where it was, by silver.networks; NULL when nobody knows.'),
            ('engaged_seconds', 'For how long its pages were looked at, by heartbeats (gold.set_sessions): of each '
                                'page 5 s and a heartbeat for each further span of one in which it was seen or beat. '
                                'NULL unless heartbeats are set.')
        ) AS c(column_name, meaning)
        LOOP
            IF EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = pg_catalog.to_regclass(relation) AND a.attname = entry.column_name) THEN
                EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', relation, entry.column_name, entry.meaning);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

GRANT SELECT ON gold.sessions, gold.sessions_live TO tidemark_reader;
