-- What is known of the user agents and networks that events name. The loader gives each its row before the first event
-- that names it is committed, so that silver can look it up; tidemark enrich update brings rows up to new data files.
CREATE TABLE silver.user_agents (
    user_agent_id uuid PRIMARY KEY,
    user_agent text NOT NULL,
    browser text,
    browser_version text,
    os text,
    os_version text,
    device text,
    bot text,
    enriched_by text,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    -- Whoever loads may add rows: a wrong key would never be mended.
    CHECK (length(user_agent) <= 1000 AND user_agent_id = md5(user_agent)::uuid)
);
ALTER TABLE silver.user_agents OWNER TO tidemark_admin;
COMMENT ON TABLE silver.user_agents IS
    'What user agents are, by the files that the loader was given; joins silver.events by user_agent_id.';
COMMENT ON COLUMN silver.user_agents.user_agent_id IS 'silver.user_agent_id of the text.';
COMMENT ON COLUMN silver.user_agents.user_agent IS 'The text, as far as 1,000 characters.';
COMMENT ON COLUMN silver.user_agents.browser IS 'Family of the browser, for example Mobile Safari; NULL: unknown.';
COMMENT ON COLUMN silver.user_agents.browser_version IS 'Its version, for example 17.4; NULL: unknown.';
COMMENT ON COLUMN silver.user_agents.os IS 'Operating system, for example iOS; NULL: unknown.';
COMMENT ON COLUMN silver.user_agents.os_version IS 'Its version; NULL: unknown.';
COMMENT ON COLUMN silver.user_agents.device IS 'Device, for example iPhone; NULL: unknown.';
COMMENT ON COLUMN silver.user_agents.bot IS 'Which bot it is; NULL for what looks like a human''s.';
COMMENT ON COLUMN silver.user_agents.enriched_by IS 'The files that say so, with their versions; NULL: none.';
COMMENT ON COLUMN silver.user_agents.first_seen_at IS 'When the loader met it first.';

CREATE TABLE silver.networks (
    ip_prefix text PRIMARY KEY,
    country text,
    region text,
    city text,
    network text,
    enriched_by text,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    CHECK (ip_prefix = ip_prefix::cidr::text AND masklen(ip_prefix::cidr) IN (24, 48))
);
ALTER TABLE silver.networks OWNER TO tidemark_admin;
COMMENT ON TABLE silver.networks IS
    'Where networks are, by the files that the loader was given; joins silver.events by ip_prefix.';
COMMENT ON COLUMN silver.networks.ip_prefix IS
    'The network, such as 203.0.113.0/24: 24 bits of an IPv4 address, 48 of an IPv6 one.';
COMMENT ON COLUMN silver.networks.country IS 'ISO 3166 code of the country; NULL: unknown.';
COMMENT ON COLUMN silver.networks.region IS 'Part of the country; NULL: unknown.';
COMMENT ON COLUMN silver.networks.city IS 'City; NULL: unknown.';
COMMENT ON COLUMN silver.networks.network IS 'Number and name of its autonomous system; NULL: unknown.';
COMMENT ON COLUMN silver.networks.enriched_by IS 'The files that say so, with their versions; NULL: none.';
COMMENT ON COLUMN silver.networks.first_seen_at IS 'When the loader met it first.';

-- The loader adds rows and reads none.
GRANT USAGE ON SCHEMA silver TO tidemark_loader;
GRANT INSERT ON silver.user_agents, silver.networks TO tidemark_loader;
GRANT SELECT ON silver.user_agents, silver.networks TO tidemark_reader;

-- The loader keeps their addresses whole, and silver excludes what comes from them.
CREATE TABLE loader.own_networks (network cidr PRIMARY KEY);
ALTER TABLE loader.own_networks OWNER TO tidemark_admin;
COMMENT ON TABLE loader.own_networks IS 'The company''s own networks, as silver.set_own_traffic was told';
COMMENT ON COLUMN loader.own_networks.network IS 'The network';
GRANT SELECT ON loader.own_networks TO tidemark_loader;

ALTER TABLE gold_storage.silver_settings ADD COLUMN test_hosts text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN gold_storage.silver_settings.test_hosts IS 'Hosts whose pages no customer sees, with all below them';
COMMENT ON TABLE gold_storage.silver_settings IS
    'What silver.set_own_hosts, silver.set_own_traffic and silver.show_properties were told; one row';
