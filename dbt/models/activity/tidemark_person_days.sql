{#- Who was active when: one row per person and UTC date. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='tidemark_dates',
    unique_key=['event_date', 'person'],
    indexes=[
        {'columns': ['event_date', 'person'], 'unique': true},
        {'columns': ['person', 'event_date']},
        {'columns': ['refresh_id']},
    ],
) }}
{%- set changed = tidemark.changed_dates(source('tidemark_silver', 'events')) %}

with days as (
    select e.event_date, e.person, count(*) as events
      from {{ source('tidemark_silver', 'events_known') }} as e
     where e.person is not null and e.excluded_as is null
       and {{ tidemark.reads(changed, 'e.event_time') }}
     group by e.event_date, e.person
)
{{ tidemark.replace_dates(changed, 'days') }}
