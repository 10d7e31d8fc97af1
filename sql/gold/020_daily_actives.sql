-- Daily activity: exact counts, and a sketch of the persons from which any longer span is a union. One model: a row for
-- the whole date (grain total) and one per platform and country, since persons of two platforms must not count twice in
-- the total. Sketches stay here; dashboards read plain numbers from the views.
-- It is computed from what each person did on the date, which is kept by person: so an event costs the rows of its
-- person and a scan of the persons of the date, however many events it has.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold_storage.person_activity (
    event_date date NOT NULL,
    person text NOT NULL,
    platform text NOT NULL,
    country text NOT NULL,
    events bigint NOT NULL,
    received_after_day bigint NOT NULL,
    page_views bigint NOT NULL,
    purchases bigint NOT NULL,
    last_event_at timestamptz NOT NULL,
    last_loaded_at timestamptz NOT NULL,
    PRIMARY KEY (event_date, person, platform, country)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS person_activity_person ON gold_storage.person_activity (person, event_date);
COMMENT ON TABLE gold_storage.person_activity IS
    'What each person did on each date, by platform and country: gold_storage.daily_activity is computed from it.';
COMMENT ON COLUMN gold_storage.person_activity.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold_storage.person_activity.person IS 'Who it is known to be: silver.events.known_person.';
COMMENT ON COLUMN gold_storage.person_activity.platform IS 'Platform; unknown where events name none.';
COMMENT ON COLUMN gold_storage.person_activity.country IS
    'Country, as events say or by their network; unknown where nobody knows.';
COMMENT ON COLUMN gold_storage.person_activity.events IS 'Number of events.';
COMMENT ON COLUMN gold_storage.person_activity.received_after_day IS
    'Events received on a later date than they happened on.';
COMMENT ON COLUMN gold_storage.person_activity.page_views IS 'Number of page views.';
COMMENT ON COLUMN gold_storage.person_activity.purchases IS 'Number of purchases.';
COMMENT ON COLUMN gold_storage.person_activity.last_event_at IS 'Latest event time.';
COMMENT ON COLUMN gold_storage.person_activity.last_loaded_at IS 'When the latest loaded event was committed.';

SELECT gold_storage.in_zone('person_activity', $zoned$
SELECT tidemark.create_model('gold_storage.person_activity', ARRAY['silver.events']::regclass[], $query$
    SELECT {{date of e}} AS event_date, e.known_person AS person,
           COALESCE(e.platform, 'unknown') AS platform,
           COALESCE(e.country, e.ip_country, 'unknown') AS country,
           count(*) AS events,
           count(*) FILTER (WHERE (e.received_at AT TIME ZONE {{zone}})::date > {{date of e}}) AS received_after_day,
           count(*) FILTER (WHERE silver.is_page_view(e.event_type)) AS page_views,
           count(*) FILTER (WHERE silver.is_purchase(e.event_type)) AS purchases,
           max(e.event_time) AS last_event_at,
           max(e.loaded_at) AS last_loaded_at
      FROM silver.events AS e
     WHERE e.event_time >= {{start of $1}} AND e.event_time < {{start of $2}}
       AND e.known_person IS NOT NULL AND e.excluded_as IS NULL
     GROUP BY {{date of e}}, e.known_person, COALESCE(e.platform, 'unknown'),
              COALESCE(e.country, e.ip_country, 'unknown')
$query$, key => ARRAY['event_date', 'person', 'platform', 'country']::name[], lookback_days => {{before}},
    lookahead_days => {{after}}, live => true, scope => 'person', scope_source => 'known_person');
$zoned$);

CREATE TABLE IF NOT EXISTS gold_storage.daily_activity (
    event_date date NOT NULL,
    grain text NOT NULL CHECK (grain IN ('total', 'platform_country')),
    platform text NOT NULL,
    country text NOT NULL,
    events bigint NOT NULL,
    received_after_day bigint NOT NULL,
    persons bigint NOT NULL,
    persons_sketch tidemark.hll NOT NULL,
    page_views bigint NOT NULL,
    purchases bigint NOT NULL,
    last_event_at timestamptz NOT NULL,
    last_loaded_at timestamptz NOT NULL,
    PRIMARY KEY (event_date, grain, platform, country)
);
COMMENT ON TABLE gold_storage.daily_activity IS
    'Storage of gold.daily_actives and gold.daily_actives_by_platform_country; read those views instead.';
COMMENT ON COLUMN gold_storage.daily_activity.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold_storage.daily_activity.grain IS
    'total: the whole date; platform_country: one platform and country of it.';
COMMENT ON COLUMN gold_storage.daily_activity.platform IS 'Platform; unknown where events name none, empty in totals.';
COMMENT ON COLUMN gold_storage.daily_activity.country IS
    'Country, as events say or by their network; unknown where nobody knows, empty in totals.';
COMMENT ON COLUMN gold_storage.daily_activity.events IS 'Number of events.';
COMMENT ON COLUMN gold_storage.daily_activity.received_after_day IS
    'Events received after the date was over: on a later date than they happened on. '
    'What counts as late is another question: see gold.source_freshness.late_events.';
COMMENT ON COLUMN gold_storage.daily_activity.persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold_storage.daily_activity.persons_sketch IS 'HyperLogLog sketch of the persons (log2m 14).';
COMMENT ON COLUMN gold_storage.daily_activity.page_views IS 'Number of page views.';
COMMENT ON COLUMN gold_storage.daily_activity.purchases IS 'Number of purchases.';
COMMENT ON COLUMN gold_storage.daily_activity.last_event_at IS 'Latest event time.';
COMMENT ON COLUMN gold_storage.daily_activity.last_loaded_at IS 'When the latest loaded event was committed.';

-- Events of nobody are few, and found by the index on persons. In the total the first row of a person stands for the
-- person, so that nobody needs to be told from all others; by platform and country a person has one row.
SELECT gold_storage.in_zone('daily_activity', $zoned$
SELECT tidemark.create_model('gold_storage.daily_activity',
    ARRAY['gold_storage.person_activity', 'silver.events']::regclass[], $query$
    SELECT a.event_date,
           CASE WHEN GROUPING(a.platform) = 1 THEN 'total' ELSE 'platform_country' END AS grain,
           CASE WHEN GROUPING(a.platform) = 1 THEN '' ELSE a.platform END AS platform,
           CASE WHEN GROUPING(a.platform) = 1 THEN '' ELSE a.country END AS country,
           sum(a.events)::bigint AS events,
           sum(a.received_after_day)::bigint AS received_after_day,
           CASE WHEN GROUPING(a.platform) = 1 THEN count(a.person) FILTER (WHERE a.is_first)
                ELSE count(a.person) END AS persons,
           tidemark.hll_agg(a.person) AS persons_sketch,
           sum(a.page_views)::bigint AS page_views,
           sum(a.purchases)::bigint AS purchases,
           max(a.last_event_at) AS last_event_at,
           max(a.last_loaded_at) AS last_loaded_at
      FROM (SELECT p.event_date, p.person, p.platform, p.country, p.events, p.received_after_day, p.page_views,
                   p.purchases, p.last_event_at, p.last_loaded_at,
                   row_number() OVER (PARTITION BY p.event_date, p.person
                                          ORDER BY p.platform, p.country) = 1 AS is_first
              FROM gold_storage.person_activity AS p
             WHERE p.event_date >= $1 AND p.event_date < $2
            UNION ALL
            SELECT {{date of e}}, NULL, COALESCE(e.platform, 'unknown'),
                   COALESCE(e.country, e.ip_country, 'unknown'), 1,
                   ((e.received_at AT TIME ZONE {{zone}})::date > {{date of e}})::integer,
                   silver.is_page_view(e.event_type)::integer,
                   silver.is_purchase(e.event_type)::integer,
                   e.event_time, e.loaded_at, false
              FROM silver.events AS e
             WHERE e.event_time >= {{start of $1}}
               AND e.event_time < {{start of $2}}
               AND e.known_person IS NULL AND e.excluded_as IS NULL) AS a
     GROUP BY GROUPING SETS ((a.event_date), (a.event_date, a.platform, a.country))
$query$, key => ARRAY['event_date', 'grain', 'platform', 'country']::name[], lookback_days => {{before}},
    lookahead_days => {{after}}, live => true);
$zoned$);

CREATE OR REPLACE VIEW gold.daily_actives AS
SELECT a.event_date, a.events, a.persons AS active_persons,
       tidemark.hll_cardinality(a.persons_sketch) AS active_persons_estimate,
       a.page_views, a.purchases, a.received_after_day, a.last_event_at, a.last_loaded_at
  FROM gold_storage.daily_activity AS a
 WHERE a.grain = 'total';
COMMENT ON VIEW gold.daily_actives IS 'Daily actives: one row per date with events, as of the last refresh.';
COMMENT ON COLUMN gold.daily_actives.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.daily_actives.events IS 'Number of events.';
COMMENT ON COLUMN gold.daily_actives.active_persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold.daily_actives.active_persons_estimate IS
    'Distinct persons by the sketch; exact up to 128, beyond that with a standard error of 0.81 %.';
COMMENT ON COLUMN gold.daily_actives.page_views IS 'Number of page views.';
COMMENT ON COLUMN gold.daily_actives.purchases IS 'Number of purchases.';
COMMENT ON COLUMN gold.daily_actives.received_after_day IS
    'Events received after the date was over: on a later date than they happened on. '
    'What counts as late is another question: see gold.source_freshness.late_events.';
COMMENT ON COLUMN gold.daily_actives.last_event_at IS 'Latest event time.';
COMMENT ON COLUMN gold.daily_actives.last_loaded_at IS 'When the latest loaded event of the date was committed.';

CREATE OR REPLACE VIEW gold.daily_actives_by_platform_country AS
SELECT a.event_date, a.platform, a.country, a.events, a.persons AS active_persons,
       tidemark.hll_cardinality(a.persons_sketch) AS active_persons_estimate, a.page_views, a.purchases,
       a.received_after_day
  FROM gold_storage.daily_activity AS a
 WHERE a.grain = 'platform_country';
COMMENT ON VIEW gold.daily_actives_by_platform_country IS
    'Daily actives by platform and country, as of the last refresh. '
    'Persons who used two platforms or countries on a date are in two rows: take totals from gold.daily_actives.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.platform IS 'Platform; unknown where events name none.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.country IS
    'ISO 3166 country code, as events say or by their network; unknown where nobody knows.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.events IS 'Number of events.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.active_persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.active_persons_estimate IS
    'Distinct persons by the sketch; exact up to 128, beyond that with a standard error of 0.81 %.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.page_views IS 'Number of page views.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.purchases IS 'Number of purchases.';
COMMENT ON COLUMN gold.daily_actives_by_platform_country.received_after_day IS
    'Events received after the date was over: on a later date than they happened on. '
    'What counts as late is another question: see gold.source_freshness.late_events.';

GRANT SELECT ON gold.daily_actives, gold.daily_actives_by_platform_country TO tidemark_reader;
