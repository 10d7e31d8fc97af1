-- tidemark enrich update: what changed in silver.user_agents and silver.networks comes into the events, and nothing
-- else is computed again. One pass over silver.events finds them: an index would cost each event more than that.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION silver.apply_enrichment(OUT events bigint, OUT dates bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place regclass;
    changed record;
    typed record;
    places CONSTANT regclass[] := ARRAY(SELECT identity.places());
BEGIN
    PERFORM tidemark.change_dimension(VARIADIC places);
    WITH wrong AS MATERIALIZED (
        SELECT e.event_date, e.event_time, e.event_id, e.known_person, n.country, b.bot,
               e.ip_country IS DISTINCT FROM n.country AS other_country,
               e.excluded_as IS DISTINCT FROM b.bot AS other_reason
          FROM silver.events AS e
          LEFT JOIN silver.user_agents AS u ON u.user_agent_id = e.user_agent_id
          LEFT JOIN silver.networks AS n ON n.ip_prefix = e.ip_prefix
         -- Own traffic stays what it is.
         CROSS JOIN LATERAL (SELECT CASE WHEN e.excluded_as <> 'bot' THEN e.excluded_as
                                         WHEN u.bot IS NOT NULL THEN 'bot' END) AS b(bot)
         WHERE e.ip_country IS DISTINCT FROM n.country OR e.excluded_as IS DISTINCT FROM b.bot
    ), mended AS (
        UPDATE silver.events AS e SET ip_country = w.country, excluded_as = w.bot
          FROM wrong AS w
         WHERE e.event_time = w.event_time AND e.event_id = w.event_id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM mended) AS events, array_agg(DISTINCT w.event_date) AS dates,
           array_agg(DISTINCT w.event_date) FILTER (WHERE w.other_country) AS country_dates,
           array_agg(DISTINCT w.known_person) FILTER (WHERE w.other_country) AS country_persons,
           array_agg(DISTINCT w.event_date) FILTER (WHERE w.other_reason) AS reason_dates,
           array_agg(DISTINCT w.known_person) FILTER (WHERE w.other_reason) AS reason_persons
      INTO changed
      FROM wrong AS w;
    events := changed.events;
    dates := COALESCE(cardinality(changed.dates), 0);
    PERFORM silver.mark_enriched('silver.events', changed.country_persons, changed.country_dates, 'ip_country');
    PERFORM silver.mark_enriched('silver.events', changed.reason_persons, changed.reason_dates, 'excluded_as');
    FOREACH place IN ARRAY array_remove(places, 'silver.events'::regclass) LOOP
        EXECUTE format($sql$
            WITH mended AS (
                UPDATE %1$s AS p SET excluded_as = e.excluded_as
                  FROM silver.events AS e
                 WHERE e.event_time = p.event_time AND e.event_id = p.event_id
                   AND p.excluded_as IS DISTINCT FROM e.excluded_as
                RETURNING p.event_date, p.known_person
            )
            SELECT array_agg(DISTINCT m.known_person) AS persons, array_agg(DISTINCT m.event_date) AS dates,
                   -- It may have read what silver.events has not.
                   (SELECT array_agg(DISTINCT p.event_date) FROM %1$s AS p
                     WHERE NOT EXISTS (SELECT FROM silver.events AS e
                                        WHERE e.event_time = p.event_time AND e.event_id = p.event_id)) AS ahead
              FROM mended AS m$sql$, place)
           INTO typed;
        PERFORM silver.mark_enriched(place, typed.persons, typed.dates, 'excluded_as');
        PERFORM tidemark.mark_dirty('bronze.events', typed.ahead, 'enrichment') WHERE typed.ahead IS NOT NULL;
    END LOOP;
END
$$;
COMMENT ON FUNCTION silver.apply_enrichment() IS
    'Part of tidemark enrich update: brings ip_country and excluded_as of silver.events, and excluded_as of typed '
    'tables, up to silver.user_agents and silver.networks, and marks what reads these events. Returns how many events '
    'of how many dates of silver.events it changed. For members of tidemark_admin; needs the isolation level READ '
    'COMMITTED (25001).';
REVOKE EXECUTE ON FUNCTION silver.apply_enrichment() FROM PUBLIC;

CREATE OR REPLACE FUNCTION silver.mark_enriched(place regclass, persons text[], dates date[], changed name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF dates IS NOT NULL THEN
        -- Nobody is no person to be computed anew, and of many models are quicker computed with everybody.
        PERFORM tidemark.mark_persons(place,
            CASE WHEN cardinality(persons) <= 10000 AND array_position(persons, NULL) IS NULL THEN persons END,
            'enrichment', dates, changed, 'known_person');
    END IF;
END
$$;
COMMENT ON FUNCTION silver.mark_enriched(regclass, text[], date[], name) IS
    'Part of silver.apply_enrichment: marks what a column of a table says of these persons on these dates; NULL dates: '
    'nothing changed.';
REVOKE EXECUTE ON FUNCTION silver.mark_enriched(regclass, text[], date[], name) FROM PUBLIC;

CREATE OR REPLACE FUNCTION silver.unknown_user_agents() RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT u.user_agent
      FROM (SELECT DISTINCT ON (e.user_agent_id) e.event_time, e.event_id
              FROM silver.events AS e
             WHERE e.user_agent_id IS NOT NULL
               AND NOT EXISTS (SELECT FROM silver.user_agents AS u WHERE u.user_agent_id = e.user_agent_id)) AS f
      JOIN bronze.events AS b ON b.event_time = f.event_time AND b.event_id = f.event_id
     CROSS JOIN LATERAL silver.user_agent_of(COALESCE(b.payload -> 'context', silver.context_of(b.payload)))
                AS u(user_agent)
     WHERE u.user_agent IS NOT NULL
$$;
COMMENT ON FUNCTION silver.unknown_user_agents() IS
    'Part of tidemark enrich update: user agents that events name and silver.user_agents lacks, such as those of '
    'events that came without the loader.';
REVOKE EXECUTE ON FUNCTION silver.unknown_user_agents() FROM PUBLIC;

CREATE OR REPLACE FUNCTION silver.unknown_networks() RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT e.ip_prefix FROM silver.events AS e
     WHERE e.ip_prefix IS NOT NULL
       AND NOT EXISTS (SELECT FROM silver.networks AS n WHERE n.ip_prefix = e.ip_prefix)
$$;
COMMENT ON FUNCTION silver.unknown_networks() IS
    'Part of tidemark enrich update: networks that events are of and silver.networks lacks.';
REVOKE EXECUTE ON FUNCTION silver.unknown_networks() FROM PUBLIC;
