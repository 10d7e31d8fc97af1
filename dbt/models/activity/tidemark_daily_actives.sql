{#- Daily actives with the sketch of the persons, from which tidemark_weekly_actives takes unions. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='tidemark_dates',
    unique_key='event_date',
    indexes=[{'columns': ['event_date'], 'unique': true}],
) }}
{%- set changed = tidemark.changed_dates(source('tidemark_silver', 'events')) %}

with days as (
    select e.event_date,
           count(*) as events,
           count(distinct e.person) as active_persons,
           {{ tidemark.hll_agg('e.person') }} as persons_sketch,
           count(*) filter (where e.event_type in {{ tidemark.event_types('page_view') }}) as page_views,
           count(*) filter (where e.event_type in {{ tidemark.event_types('purchase') }}) as purchases,
           count(*) filter (where (e.received_at at time zone 'UTC')::date > e.event_date) as received_after_day,
           max(e.event_time) as last_event_at,
           max(e.loaded_at) as last_loaded_at
      from {{ source('tidemark_silver', 'events_known') }} as e
     where e.excluded_as is null
       and {{ tidemark.reads(changed, 'e.event_time') }}
     group by e.event_date
)
{{ tidemark.replace_dates(changed, 'days') }}
