-- What gold does not count: bots and own traffic, so that whoever misses events finds them here.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold_storage.excluded_days (
    event_date date NOT NULL,
    reason text NOT NULL,
    events bigint NOT NULL,
    persons bigint NOT NULL,
    page_views bigint NOT NULL,
    purchases bigint NOT NULL,
    PRIMARY KEY (event_date, reason)
);
COMMENT ON TABLE gold_storage.excluded_days IS 'Storage of gold.excluded_daily; read that view instead.';
COMMENT ON COLUMN gold_storage.excluded_days.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold_storage.excluded_days.reason IS
    'bot (silver.user_agents), own network or test host (silver.set_own_traffic).';
COMMENT ON COLUMN gold_storage.excluded_days.events IS 'Number of events.';
COMMENT ON COLUMN gold_storage.excluded_days.persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold_storage.excluded_days.page_views IS 'Number of page views.';
COMMENT ON COLUMN gold_storage.excluded_days.purchases IS 'Number of purchases.';

SELECT gold_storage.in_zone('excluded_days', $zoned$
SELECT tidemark.create_model('gold_storage.excluded_days', ARRAY['silver.events']::regclass[], $query$
    SELECT {{date of e}} AS event_date, e.excluded_as AS reason, count(*) AS events,
           count(DISTINCT e.known_person) AS persons,
           count(*) FILTER (WHERE silver.is_page_view(e.event_type)) AS page_views,
           count(*) FILTER (WHERE silver.is_purchase(e.event_type)) AS purchases
      FROM silver.events AS e
     WHERE e.event_time >= {{start of $1}} AND e.event_time < {{start of $2}}
       AND e.excluded_as IS NOT NULL
     GROUP BY {{date of e}}, e.excluded_as
$query$, key => ARRAY['event_date', 'reason']::name[], lookback_days => {{before}}, lookahead_days => {{after}},
    live => true);
$zoned$);

CREATE OR REPLACE VIEW gold.excluded_daily AS
SELECT d.event_date, d.reason, d.events, d.persons, d.page_views, d.purchases FROM gold_storage.excluded_days AS d;
COMMENT ON VIEW gold.excluded_daily IS
    'Events that nothing else in gold counts, by date and reason, as of the last refresh. All events of a date are '
    'those of gold.daily_actives and these.';
COMMENT ON COLUMN gold.excluded_daily.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.excluded_daily.reason IS
    'bot (silver.user_agents), own network or test host (silver.set_own_traffic).';
COMMENT ON COLUMN gold.excluded_daily.events IS 'Number of events.';
COMMENT ON COLUMN gold.excluded_daily.persons IS 'Distinct persons, exact.';
COMMENT ON COLUMN gold.excluded_daily.page_views IS 'Number of page views.';
COMMENT ON COLUMN gold.excluded_daily.purchases IS 'Number of purchases.';
GRANT SELECT ON gold.excluded_daily TO tidemark_reader;
