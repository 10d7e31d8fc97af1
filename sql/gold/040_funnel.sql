-- The purchase funnel by the date on which a person enters it. Persons enter with a page view on that date and have one
-- day from there; hence the query reads one day ahead. How far each person came is kept by person; the state of all of
-- them together is computed from that and stored, and the view shows numbers.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold_storage.funnel_chains (
    event_date date NOT NULL,
    person text NOT NULL,
    chain timestamptz[] NOT NULL,
    PRIMARY KEY (event_date, person)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS funnel_chains_person ON gold_storage.funnel_chains (person, event_date);
COMMENT ON TABLE gold_storage.funnel_chains IS
    'How far each person came in the funnel: what gold_storage.funnel_facts is computed from.';
COMMENT ON COLUMN gold_storage.funnel_chains.event_date IS
    'Date on which the person entered the funnel, in the time zone of gold.reporting.';
COMMENT ON COLUMN gold_storage.funnel_chains.person IS 'Who it is known to be: silver.events.known_person.';
COMMENT ON COLUMN gold_storage.funnel_chains.chain IS 'When each step was reached, as tidemark.funnel says.';

CREATE TABLE IF NOT EXISTS gold_storage.funnel_facts (
    event_date date PRIMARY KEY,
    stats tidemark.funnel_stats NOT NULL
);
COMMENT ON TABLE gold_storage.funnel_facts IS 'Storage of gold.funnel_daily; read that view instead.';
COMMENT ON COLUMN gold_storage.funnel_facts.event_date IS
    'Date on which persons entered the funnel, in the time zone of gold.reporting.';
COMMENT ON COLUMN gold_storage.funnel_facts.stats IS
    'Figures of the funnel, to be merged by tidemark.funnel_stats_union_agg.';

SELECT gold_storage.in_zone('funnel_chains', $zoned$
SELECT tidemark.create_model('gold_storage.funnel_chains', ARRAY['silver.events']::regclass[], $query$
    SELECT p.event_date, p.person, p.chain
      FROM (SELECT {{min(e.event_date)|d.event_date}} AS event_date,  -- of an entry, if there is a chain
                   e.known_person AS person,
                   tidemark.funnel(interval '1 day', e.event_time,
                       -- Only a page view of the date itself is an entry.
                       silver.is_page_view(e.event_type)
                           AND e.event_time < d.ends_at,
                       e.event_type = 'product_viewed',
                       e.event_type IN ('product_added', 'product_added_to_cart'),
                       e.event_type = 'checkout_started',
                       silver.is_purchase(e.event_type)) AS chain
              -- OFFSET 0: when a day begins is found out once, not for each event.
              FROM (SELECT day::date AS event_date, {{start of day::date}} AS starts_at,
                           {{start of day::date + 1}} AS ends_at
                      FROM generate_series($1::timestamp, ($2 - 1)::timestamp, interval '1 day') AS day OFFSET 0) AS d
              JOIN silver.events AS e
                ON e.event_time >= d.starts_at AND e.event_time < d.ends_at + interval '24 hours'
             WHERE e.known_person IS NOT NULL AND e.excluded_as IS NULL
               AND e.event_time >= {{start of $1}}
               AND e.event_time < {{start of $2}} + interval '24 hours'
             GROUP BY d.event_date, e.known_person) AS p
     WHERE cardinality(p.chain) > 0
$query$, key => ARRAY['event_date', 'person']::name[], lookback_days => {{before}}, lookahead_days => 1 + {{after}},
    live => true, scope => 'person', scope_source => 'known_person');
$zoned$);

SELECT tidemark.create_model('gold_storage.funnel_facts', ARRAY['gold_storage.funnel_chains']::regclass[], $query$
    SELECT c.event_date, tidemark.funnel_stats(c.chain, 5) AS stats
      FROM gold_storage.funnel_chains AS c
     WHERE c.event_date >= $1 AND c.event_date < $2
     GROUP BY c.event_date
$query$, key => ARRAY['event_date']::name[], live => true);

CREATE OR REPLACE VIEW gold.funnel_daily AS
SELECT f.event_date, t.step, t.name, t.entered AS persons, t.pct_of_first, t.pct_of_previous, t.median_seconds,
       f.event_date + 1 < (SELECT max(a.event_date) FROM gold_storage.daily_activity AS a) AS complete
  FROM gold_storage.funnel_facts AS f
 CROSS JOIN LATERAL tidemark.funnel_table(f.stats,
     ARRAY['page viewed', 'product viewed', 'product added', 'checkout started', 'purchase completed']) AS t;
COMMENT ON VIEW gold.funnel_daily IS
    'The purchase funnel by date of entry: persons who viewed a page on that date, and how far '
    'they came within a day of it, steps in order. A person counts once on each date of entry. As of the last refresh.';
COMMENT ON COLUMN gold.funnel_daily.event_date IS 'Date of entry, in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.funnel_daily.step IS 'Number of the step, from 1.';
COMMENT ON COLUMN gold.funnel_daily.name IS 'Name of the step.';
COMMENT ON COLUMN gold.funnel_daily.persons IS 'Persons who reached the step.';
COMMENT ON COLUMN gold.funnel_daily.pct_of_first IS
    'persons in percent of those of step 1, 0 to 100, to 2 decimals; NULL where nobody entered.';
COMMENT ON COLUMN gold.funnel_daily.pct_of_previous IS
    'persons in percent of those of the step before, to 2 decimals; NULL for step 1 and where nobody was there.';
COMMENT ON COLUMN gold.funnel_daily.median_seconds IS
    'Median seconds since the step before, exact up to 1000 persons and within 1 % beyond; '
    'NULL for step 1 and where nobody came.';
COMMENT ON COLUMN gold.funnel_daily.complete IS
    'Whether everybody who entered on that date had their day: false until there are events of the second date after. '
    'Until then fewer persons than in the end are at the later steps. Events that come late change either.';
GRANT SELECT ON gold.funnel_daily TO tidemark_reader;

-- Sums of daily figures: exact in persons per date of entry, not distinct over the span.
CREATE OR REPLACE VIEW gold.funnel_total AS
SELECT t.step, t.name, t.entered AS entries, t.pct_of_first, t.pct_of_previous, t.median_seconds
  FROM (SELECT tidemark.funnel_stats_union_agg(f.stats) AS stats FROM gold_storage.funnel_facts AS f) AS u
 CROSS JOIN LATERAL tidemark.funnel_table(u.stats,
     ARRAY['page viewed', 'product viewed', 'product added', 'checkout started', 'purchase completed']) AS t;
COMMENT ON VIEW gold.funnel_total IS
    'The purchase funnel over all dates of entry together: the merged figures of gold.funnel_daily.';
COMMENT ON COLUMN gold.funnel_total.step IS 'Number of the step, from 1.';
COMMENT ON COLUMN gold.funnel_total.name IS 'Name of the step.';
COMMENT ON COLUMN gold.funnel_total.entries IS
    'Persons who reached the step, each counted once for each date of entry.';
COMMENT ON COLUMN gold.funnel_total.pct_of_first IS
    'persons in percent of those of step 1, 0 to 100, to 2 decimals; NULL where nobody entered.';
COMMENT ON COLUMN gold.funnel_total.pct_of_previous IS
    'entries in percent of those of the step before, to 2 decimals; NULL for step 1 and where nobody was there.';
COMMENT ON COLUMN gold.funnel_total.median_seconds IS
    'Median seconds since the step before, within 1 %; NULL for step 1 and where nobody came.';
GRANT SELECT ON gold.funnel_total TO tidemark_reader;
