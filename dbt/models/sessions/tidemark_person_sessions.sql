{#- Sessions of whole persons, for any table of events with a load time: whoever has a new event is computed anew, with
    all sessions and their numbers. So a late event that joins two sessions, or moves the start of one, leaves nothing
    behind: delete+insert by person takes all of the person's rows.
    What it costs: the whole history of whoever was active, along the index (person, event_time). What it does not see:
    events that were taken away, and events later than tidemark_late_days. Where old partitions are retired, it forgets
    the old sessions of whoever comes back. tidemark_sessions has none of these limits. By the person as sent, which
    never changes: who logs in makes no event a new one. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='person',
    indexes=[{'columns': ['person', 'session_number'], 'unique': true}, {'columns': ['last_loaded_at']}],
) }}

with touched as (
    select distinct e.person
      from {{ source('tidemark_silver', 'events') }} as e
     where e.person is not null
       and {{ tidemark.loaded_since_last_run('e.loaded_at', 'e.event_time', seen='last_loaded_at') }}
), events as (
    select e.person, e.event_time, e.event_type, e.loaded_at,
           {{ tidemark.session_start('e.person', 'e.event_time') }} as started_at
      from {{ source('tidemark_silver', 'events') }} as e
     where e.person in (select t.person from touched as t)
), grouped as (
    select e.person, e.started_at,
           max(e.event_time) as ended_at,
           count(*) as events,
           count(*) filter (where e.event_type in {{ tidemark.event_types('page_view') }}) as page_views,
           count(*) filter (where e.event_type in {{ tidemark.event_types('purchase') }}) as purchases,
           max(e.loaded_at) as last_loaded_at
      from events as e
     group by e.person, e.started_at
)
select g.person,
       row_number() over (partition by g.person order by g.started_at) as session_number,
       {{ tidemark.session_id('g.person', 'g.started_at') }} as session_id,
       (g.started_at at time zone 'UTC')::date as event_date,
       g.started_at,
       g.ended_at,
       g.events,
       g.page_views,
       g.purchases,
       g.last_loaded_at
  from grouped as g
