-- gold.persons: what was valid of a person when; and sessions and purchases with what was valid of their person then,
-- in one view each, since few BI tools can join by an interval.
SET LOCAL ROLE tidemark_admin;

SELECT gold.create_dimension('persons', 'silver.trait_changes', '{plan,company}');
COMMENT ON TABLE gold.persons IS
    'What is valid of a person from when to when, a row for each change (slowly changing dimension, type 2), from '
    'silver.trait_changes. As of the last refresh, by the person known now.';
COMMENT ON COLUMN gold.persons.plan IS 'The plan last said until then; NULL where none was, or it was taken away.';
COMMENT ON COLUMN gold.persons.company IS
    'The company last said until then; NULL where none was, or it was taken away.';

CREATE OR REPLACE VIEW gold.sessions_star AS
SELECT s.event_date, s.session_id, s.person, s.session_number, s.started_at, s.ended_at, s.duration_seconds, s.events,
       s.page_views, s.purchases, s.bounced, s.entry_page, s.exit_page, s.channel, s.utm_source, s.utm_medium,
       s.utm_campaign, s.referrer_host, s.platform, s.device, s.country, s.engaged_seconds, s.browser, s.os, s.region,
       p.plan, p.company
  FROM gold.sessions AS s
  LEFT JOIN gold.persons AS p ON p.person = s.person AND p.valid_from <= s.started_at AND s.started_at < p.valid_to;
COMMENT ON VIEW gold.sessions_star IS
    'gold.sessions, with what gold.persons says of the person when the session began. Filter on event_date.';

SELECT gold_storage.in_zone('purchases_star', $zoned$
CREATE OR REPLACE VIEW gold.purchases_star AS
SELECT {{date of b}} AS event_date, b.event_id, b.event_time, b.known_person AS person,
       b.order_id, b.revenue, b.currency, gold.converted(b.revenue, b.currency, b.event_date) AS revenue_converted,
       b.items, b.platform, b.country, p.plan, p.company
  FROM silver.purchases AS b
  LEFT JOIN gold.persons AS p
    ON p.person = b.known_person AND p.valid_from <= b.event_time AND b.event_time < p.valid_to
 WHERE b.excluded_as IS NULL;
$zoned$);
COMMENT ON VIEW gold.purchases_star IS
    'Purchases by the person known now, without those of bots and own traffic, with what gold.persons says of that '
    'person at the time. '
    'As of the last refresh. Filter on event_date.';
COMMENT ON COLUMN gold.purchases_star.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.purchases_star.revenue_converted IS
    'Revenue in the currency of gold.reporting (gold.converted); NULL where a rate is missing.';
COMMENT ON COLUMN gold.purchases_star.person IS 'Who it is known to be now, as in silver.events.';

DO $$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT v.star, a.attname, pg_catalog.col_description(f.attrelid, f.attnum) AS words
          FROM (VALUES ('gold.sessions_star', 'gold.sessions'), ('gold.purchases_star', 'silver.purchases'),
                       ('gold.sessions_star', 'gold.persons'), ('gold.purchases_star', 'gold.persons'))
               AS v(star, origin)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = v.star::pg_catalog.regclass
          JOIN pg_catalog.pg_attribute AS f ON f.attrelid = v.origin::pg_catalog.regclass AND f.attname = a.attname
         WHERE (v.star, a.attname, v.origin) <> ('gold.sessions_star', 'person', 'gold.persons')
           AND (v.star, a.attname) NOT IN (('gold.purchases_star', 'person'), ('gold.purchases_star', 'event_date'))
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', described.star, described.attname, described.words);
    END LOOP;
END
$$;
GRANT SELECT ON gold.sessions_star, gold.purchases_star TO tidemark_reader;
