-- <view>_live: the daily views over the live views of their models instead of the models' tables, so exact at any
-- moment. Made from the definitions and comments of the views themselves, hence last.
SET LOCAL ROLE tidemark_admin;

-- Again for another zone, since the views are others then.
SELECT gold_storage.in_zone('live', $zoned$
-- {{zone}}
DO $$
DECLARE
    pair record;
    definition text;
    described text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);
    FOR pair IN SELECT v.view_name, v.model FROM (VALUES
            ('gold.daily_actives', 'gold_storage.daily_activity'),
            ('gold.daily_actives_by_platform_country', 'gold_storage.daily_activity'),
            ('gold.excluded_daily', 'gold_storage.excluded_days'),
            ('gold.funnel_daily', 'gold_storage.funnel_facts'),
            ('gold.latency_daily', 'gold_storage.load_times'),
            ('gold.latency_daily_by_platform', 'gold_storage.load_times'),
            ('gold.person_days', 'gold_storage.person_activity'),
            ('gold.revenue_daily', 'silver.purchases'),
            ('silver.page_views', 'silver.events')
        ) AS v(view_name, model)
    LOOP
        definition := pg_catalog.replace(pg_catalog.pg_get_viewdef(pair.view_name::regclass),
                                         pair.model || ' ', pair.model || '_live ');
        IF pg_catalog.strpos(definition, pair.model || '_live ') = 0 THEN
            RAISE EXCEPTION 'view % does not read %', pair.view_name, pair.model;
        END IF;
        EXECUTE pg_catalog.format('CREATE OR REPLACE VIEW %s_live AS %s', pair.view_name, definition);
        described := pg_catalog.replace(pg_catalog.obj_description(pair.view_name::regclass, 'pg_class'),
                                        'as of the last refresh', 'exact at any moment');
        described := pg_catalog.replace(described, 'As of the last refresh', 'Exact at any moment');
        EXECUTE pg_catalog.format('COMMENT ON VIEW %s_live IS %L', pair.view_name,
            described || ' Dates that wait for a refresh are computed when it is read: filter on event_date.');
        FOR definition IN SELECT pg_catalog.format('COMMENT ON COLUMN %s_live.%I IS %L', pair.view_name, a.attname,
                                                   pg_catalog.col_description(a.attrelid, a.attnum))
                            FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = pair.view_name::regclass AND a.attnum > 0 AND NOT a.attisdropped LOOP
            EXECUTE definition;
        END LOOP;
        EXECUTE pg_catalog.format('GRANT SELECT ON %s_live TO tidemark_reader', pair.view_name);
    END LOOP;
END
$$;
$zoned$);
