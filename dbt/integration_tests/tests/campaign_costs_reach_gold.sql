-- What dbt wrote into campaign_costs has reached the extension's model of it: dbt marks dates, a refresh computes them.
{{ config(tags=['after_refresh']) }}
{{ tidemark.differing_rows(
    "(select event_date, count(*) as campaigns, sum(cost) as cost from " ~ ref('campaign_costs')
        ~ " group by event_date) as c",
    'gold.campaign_costs_daily', ['event_date', 'campaigns', 'cost']) }}
