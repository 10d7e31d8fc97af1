-- How long pages take to load. Quantiles cannot be added up, sketches can: one per date and platform is stored, and the
-- views show the percentiles of each and of all platforms together.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold_storage.load_times (
    event_date date NOT NULL,
    report_date date NOT NULL,
    platform text NOT NULL,
    page_views bigint NOT NULL,
    sketch tidemark.ddsketch NOT NULL,
    PRIMARY KEY (event_date, report_date, platform)
);
COMMENT ON TABLE gold_storage.load_times IS
    'Storage of gold.latency_daily and gold.latency_daily_by_platform; read those views instead.';
COMMENT ON COLUMN gold_storage.load_times.event_date IS 'UTC date.';
COMMENT ON COLUMN gold_storage.load_times.report_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold_storage.load_times.platform IS 'Platform; unknown where events name none.';
COMMENT ON COLUMN gold_storage.load_times.page_views IS 'Page views whose time was measured; the others are left out.';
COMMENT ON COLUMN gold_storage.load_times.sketch IS 'DDSketch of load_ms, to be merged by tidemark.ddsketch_union_agg.';

SELECT gold_storage.in_zone('load_times', $zoned$
SELECT tidemark.create_model('gold_storage.load_times', ARRAY['silver.events']::regclass[], $query$
    SELECT e.event_date, (e.event_time AT TIME ZONE {{zone}})::date AS report_date,
           COALESCE(e.platform, 'unknown') AS platform, count(*) AS page_views,
           tidemark.ddsketch_agg(e.load_ms::double precision) AS sketch
      FROM silver.events AS e
     WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'
       AND e.load_ms IS NOT NULL AND e.excluded_as IS NULL
     GROUP BY e.event_date, (e.event_time AT TIME ZONE {{zone}})::date, COALESCE(e.platform, 'unknown')
$query$, key => ARRAY['event_date', 'report_date', 'platform']::name[], live => true);

CREATE OR REPLACE VIEW gold.latency_daily_by_platform AS
SELECT u.event_date, u.platform, u.page_views,
       round(tidemark.ddsketch_quantile(u.sketch, 0.5))::bigint AS p50_ms,
       round(tidemark.ddsketch_quantile(u.sketch, 0.95))::bigint AS p95_ms,
       round(tidemark.ddsketch_quantile(u.sketch, 0.99))::bigint AS p99_ms
  FROM (SELECT {{l.event_date|l.report_date}} AS event_date, l.platform, sum(l.page_views)::bigint AS page_views,
               tidemark.ddsketch_union_agg(l.sketch) AS sketch
          FROM gold_storage.load_times AS l GROUP BY {{l.event_date|l.report_date}}, l.platform) AS u;

CREATE OR REPLACE VIEW gold.latency_daily AS
SELECT u.event_date, u.page_views,
       round(tidemark.ddsketch_quantile(u.sketch, 0.5))::bigint AS p50_ms,
       round(tidemark.ddsketch_quantile(u.sketch, 0.95))::bigint AS p95_ms,
       round(tidemark.ddsketch_quantile(u.sketch, 0.99))::bigint AS p99_ms
  FROM (SELECT {{l.event_date|l.report_date}} AS event_date, sum(l.page_views)::bigint AS page_views,
               tidemark.ddsketch_union_agg(l.sketch) AS sketch
          FROM gold_storage.load_times AS l GROUP BY {{l.event_date|l.report_date}}) AS u;
$zoned$);
COMMENT ON VIEW gold.latency_daily_by_platform IS
    'How long pages took to load, by date and platform, as of the last refresh. Percentiles within 1 %.';
COMMENT ON COLUMN gold.latency_daily_by_platform.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.latency_daily_by_platform.platform IS 'Platform; unknown where events name none.';
COMMENT ON COLUMN gold.latency_daily_by_platform.page_views IS
    'Page views whose time was measured; the others are left out.';
COMMENT ON COLUMN gold.latency_daily_by_platform.p50_ms IS 'Median in milliseconds.';
COMMENT ON COLUMN gold.latency_daily_by_platform.p95_ms IS '95th percentile in milliseconds.';
COMMENT ON COLUMN gold.latency_daily_by_platform.p99_ms IS '99th percentile in milliseconds.';

COMMENT ON VIEW gold.latency_daily IS
    'How long pages took to load, by date over all platforms, as of the last refresh. Percentiles within 1 %.';
COMMENT ON COLUMN gold.latency_daily.event_date IS 'Date in the time zone of gold.reporting.';
COMMENT ON COLUMN gold.latency_daily.page_views IS 'Page views whose time was measured; the others are left out.';
COMMENT ON COLUMN gold.latency_daily.p50_ms IS 'Median in milliseconds.';
COMMENT ON COLUMN gold.latency_daily.p95_ms IS '95th percentile in milliseconds.';
COMMENT ON COLUMN gold.latency_daily.p99_ms IS '99th percentile in milliseconds.';
GRANT SELECT ON gold.latency_daily, gold.latency_daily_by_platform TO tidemark_reader;
