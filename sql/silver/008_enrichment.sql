-- What silver.events looks up in silver.user_agents and silver.networks. These functions read tables, and yet are
-- declared to depend on their arguments alone: a row is there before the first event that names it, and
-- silver.apply_enrichment changes the events with the row. So silver.events can be appended to.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION silver.user_agent_of(context jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN NULLIF(CASE
    WHEN pg_catalog.jsonb_typeof(context -> 'userAgent') = 'string' THEN context ->> 'userAgent'
    WHEN pg_catalog.jsonb_typeof(context -> 'user_agent') = 'string' THEN context ->> 'user_agent' END, '');
COMMENT ON FUNCTION silver.user_agent_of(jsonb) IS
    'The user agent that the context of an event names; NULL without one.';

CREATE OR REPLACE FUNCTION silver.ip_of(payload jsonb, context jsonb) RETURNS inet
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN COALESCE(tidemark_internal.ip_address(silver.json_text(context, 'ip')),
                tidemark_internal.ip_address(silver.json_text(payload, 'request_ip')));
COMMENT ON FUNCTION silver.ip_of(jsonb, jsonb) IS
    'The IP address that an event names in its context, or as request_ip (RudderStack), as far as the loader left it; '
    'NULL without one.';

CREATE OR REPLACE FUNCTION silver.user_agent_id(user_agent text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.md5(pg_catalog."left"(user_agent, 1000))::uuid;
COMMENT ON FUNCTION silver.user_agent_id(text) IS
    'Key of a user agent in silver.user_agents: the MD5 hash of its first 1,000 characters. NULL for NULL.';

CREATE OR REPLACE FUNCTION silver.ip_prefix(address inet) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.network(pg_catalog.set_masklen(address, CASE pg_catalog.family(address) WHEN 4 THEN 24 ELSE 48 END)
       )::text;
COMMENT ON FUNCTION silver.ip_prefix(inet) IS
    'Key of the network of an address in silver.networks: its first 24 bits (IPv4) or 48 bits (IPv6). NULL for NULL.';

CREATE OR REPLACE FUNCTION silver.is_bot(user_agent_id uuid) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT SECURITY DEFINER COST 100
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM silver.user_agents AS u
                    WHERE u.user_agent_id OPERATOR(pg_catalog.=) is_bot.user_agent_id AND u.bot IS NOT NULL);
END
$$;
COMMENT ON FUNCTION silver.is_bot(uuid) IS
    'Whether silver.user_agents says of a user agent that it is a bot''s. False for an unknown one, NULL for NULL.';

CREATE OR REPLACE FUNCTION silver.network_country(ip_prefix text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT SECURITY DEFINER COST 100
AS $$
BEGIN
    RETURN (SELECT n.country FROM silver.networks AS n
             WHERE n.ip_prefix OPERATOR(pg_catalog.=) network_country.ip_prefix);
END
$$;
COMMENT ON FUNCTION silver.network_country(text) IS
    'The country of a network by silver.networks. NULL for an unknown one and for NULL.';
REVOKE EXECUTE ON FUNCTION silver.is_bot(uuid), silver.network_country(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION silver.is_bot(uuid), silver.network_country(text) TO tidemark_reader;

CREATE OR REPLACE FUNCTION silver.define_own_traffic() RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    networks CONSTANT cidr[] := ARRAY(SELECT n.network FROM loader.own_networks AS n ORDER BY 1);
    -- Of one that is only a part of what the loader leaves of an address, the first address may be anybody's, cut.
    parts CONSTANT cidr[] := ARRAY(SELECT n FROM unnest(networks) AS n
                                    WHERE masklen(n) > CASE family(n) WHEN 4 THEN 24 ELSE 48 END);
    hosts CONSTANT text[] := (SELECT ARRAY(SELECT '%.' || h FROM unnest(s.test_hosts) AS h)
                                FROM gold_storage.silver_settings AS s);
    defined CONSTANT regprocedure := to_regprocedure('silver.own_traffic(inet, text)');
    before CONSTANT text := pg_get_functiondef(defined);
BEGIN
    -- Planned into the queries that call it: for each event it costs what it asks, and nothing while nothing is said.
    EXECUTE format($sql$
        CREATE OR REPLACE FUNCTION silver.own_traffic(address inet, page_url text) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN %s$sql$,
        CASE WHEN networks <> '{}' OR hosts <> '{}' THEN concat(
            'CASE ',
            CASE WHEN networks <> '{}' THEN
                format('WHEN address <<= ANY (%L::inet[])', networks) END,
            CASE WHEN parts <> '{}' THEN
                format(' AND (address <> host(silver.ip_prefix(address)::inet)::inet'
                       ' OR NOT address <<= ANY (%L::inet[]) OR address <<= ANY (%L::inet[]))', parts,
                       ARRAY(SELECT n FROM unnest(networks) AS n WHERE n <> ALL (parts))) END,
            CASE WHEN networks <> '{}' THEN ' THEN ''own network'' ' END,
            CASE WHEN hosts <> '{}' THEN
                format('WHEN (''.'' || silver.url_host(page_url)) LIKE ANY (%L::text[]) THEN ''test host'' ',
                       hosts) END,
            'END') ELSE 'NULL::text' END);
    RETURN before IS DISTINCT FROM pg_get_functiondef('silver.own_traffic(inet, text)'::regprocedure);
END
$$;
COMMENT ON FUNCTION silver.define_own_traffic() IS
    'Part of silver.set_own_traffic: makes silver.own_traffic what it was told. Returns whether that is something new.';
REVOKE EXECUTE ON FUNCTION silver.define_own_traffic() FROM PUBLIC;
SELECT silver.define_own_traffic();
COMMENT ON FUNCTION silver.own_traffic(inet, text) IS
    'Why an event of this address and page is no customer''s: own network or test host, as silver.set_own_traffic was '
    'told; NULL for others.';

CREATE OR REPLACE FUNCTION silver.set_own_traffic(networks cidr[] DEFAULT NULL, hosts text[] DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bad text := (SELECT h FROM unnest(hosts) AS h WHERE (h ~ '^[a-z0-9-]+([.][a-z0-9-]+)*$') IS NOT TRUE LIMIT 1);
    dates date[];
BEGIN
    IF bad IS NOT NULL OR array_position(hosts, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'hosts must be names of hosts in lower case, got %', quote_nullable(bad)
            USING ERRCODE = '22023', HINT = 'For example {staging.shop.example}; all hosts below them count, too.';
    ELSIF array_position(networks, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'networks must be networks and not NULL' USING ERRCODE = '22004';
    END IF;
    -- What is refreshed meanwhile would be of both.
    PERFORM tidemark.change_dimension(VARIADIC ARRAY(SELECT identity.places()));
    DELETE FROM loader.own_networks AS n WHERE n.network <> ALL (networks);
    INSERT INTO loader.own_networks SELECT DISTINCT n FROM unnest(networks) AS n ON CONFLICT DO NOTHING;
    UPDATE gold_storage.silver_settings AS s
       SET test_hosts = ARRAY(SELECT DISTINCT h FROM unnest(hosts) AS h ORDER BY 1) WHERE hosts IS NOT NULL;
    IF NOT silver.define_own_traffic() THEN
        RETURN 0;
    END IF;
    -- Of bronze, since one table may have what another one has not read yet.
    dates := ARRAY(SELECT DISTINCT b.event_date FROM bronze.events AS b);
    PERFORM tidemark.mark_dirty('bronze.events', dates, 'own traffic') WHERE dates <> '{}';
    RETURN cardinality(dates);
END
$$;
COMMENT ON FUNCTION silver.set_own_traffic(cidr[], text[]) IS
    'Says what is not of customers: addresses of the company''s own networks, which the loader keeps whole from its '
    'next start on, and pages of hosts for tests, with all hosts below them. Gold does not count such events; '
    'silver.events has them, with the reason in excluded_as. Replaces what was said before; NULL leaves it as it is, '
    '{} says none. For members of tidemark_admin. Returns how many dates are to be computed anew. 22023: no name of a '
    'host; 22004: NULL among the networks; 25001: another isolation level than READ COMMITTED.';
REVOKE EXECUTE ON FUNCTION silver.set_own_traffic(cidr[], text[]) FROM PUBLIC;
