{#- The purchase funnel by the date on which a person enters it, with one day from there; hence it reads one day ahead.
    An event takes part in the funnel of its own date and in that of the date before. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='tidemark_dates',
    unique_key=['event_date', 'step'],
    indexes=[{'columns': ['event_date', 'step'], 'unique': true}, {'columns': ['refresh_id']}],
) }}
{%- set changed = tidemark.changed_dates(source('tidemark_silver', 'events'), lookahead_days=1) %}
{%- set steps = {
    'page viewed': 'e.event_type in ' ~ tidemark.event_types('page_view') ~ ' and e.event_date = d.event_date',
    'product viewed': 'e.event_type in ' ~ tidemark.event_types('product_view'),
    'product added': 'e.event_type in ' ~ tidemark.event_types('cart'),
    'checkout started': 'e.event_type in ' ~ tidemark.event_types('checkout'),
    'purchase completed': 'e.event_type in ' ~ tidemark.event_types('purchase'),
} %}

with chains as (
    select d.event_date, {{ tidemark.funnel('1 day', 'e.event_time', steps.values() | list) }} as chain
      from {{ source('tidemark_silver', 'events_known') }} as e
     cross join lateral (values (e.event_date), (e.event_date - 1)) as d(event_date)
     where e.person is not null and e.excluded_as is null
       and {{ tidemark.reads(changed, 'e.event_time') }}
     group by d.event_date, e.person
), days as (
    select c.event_date, {{ tidemark.funnel_stats('c.chain', steps | length) }} as stats
      from chains as c
     where cardinality(c.chain) > 0
     group by c.event_date
), funnel as (
    select d.event_date, t.step, t.name, t.entered as persons, t.pct_of_first, t.pct_of_previous, t.median_seconds
      from days as d
     cross join lateral tidemark.funnel_table(d.stats, {{ tidemark.text_array(steps.keys() | list) }}) as t
)
{{ tidemark.replace_dates(changed, 'funnel') }}
