{#- A model of one's own over another table of the extension: the rows of gold.revenue_daily. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='tidemark_dates',
    unique_key=['event_date', 'currency'],
    persist_docs={'relation': true, 'columns': true},
) }}
{%- set changed = tidemark.changed_dates(source('tidemark_silver', 'purchases')) %}

with days as (
    select p.event_date,
           coalesce(p.currency, 'unknown') as currency,
           count(*) as purchases,
           sum(p.items)::bigint as items,
           sum(p.revenue) as revenue,
           round(avg(p.revenue), 2) as average_revenue
      from {{ source('tidemark_silver', 'purchases') }} as p
     where p.excluded_as is null
       and {{ tidemark.reads(changed, 'p.event_time') }}
     group by p.event_date, coalesce(p.currency, 'unknown')
)
{{ tidemark.replace_dates(changed, 'days') }}
