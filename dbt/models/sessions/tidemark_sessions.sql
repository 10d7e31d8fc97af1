{#- Sessions by the date on which they start, recomputed for the dates that a change can reach: those of gold.sessions,
    row by row, without session_number, which no table by date can keep right. The query reads one day back, to see
    whether the first event of a date goes on with an older session, and two days ahead, to follow sessions over
    midnight. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='tidemark_dates',
    unique_key=['event_date', 'session_id'],
    indexes=[
        {'columns': ['event_date', 'session_id'], 'unique': true},
        {'columns': ['person', 'started_at']},
        {'columns': ['refresh_id']},
    ],
) }}
{%- set changed = tidemark.changed_dates(source('tidemark_silver', 'events'), lookback_days=1, lookahead_days=2) %}

with events as (
    select e.*, {{ tidemark.session_start('e.person', 'e.event_time') }} as started_at
      from {{ source('tidemark_silver', 'events_known') }} as e
     where e.person is not null and e.excluded_as is null
       and {{ tidemark.reads(changed, 'e.event_time') }}
), grouped as (
    select e.person,
           e.started_at,
           max(e.event_time) as ended_at,
           count(*) as events,
           count(*) filter (where e.event_type in {{ tidemark.event_types('page_view') }}) as page_views,
           count(*) filter (where e.event_type in {{ tidemark.event_types('purchase') }}) as purchases,
           -- Only an event of a page could have said where the visit came from.
           bool_or(e.page_path is not null or e.page_url is not null) as has_page,
           {{ tidemark.first_touch('e.page_path', 'e.event_time') }} as entry_page,
           {{ tidemark.last_touch('e.page_path', 'e.event_time') }} as exit_page,
           -- One event's values together: a mixture of two touches would be no touch at all.
           {{ tidemark.first_touch(
               'array[e.utm_source, e.utm_medium, e.utm_campaign, e.referrer_host, e.click_id]', 'e.event_time',
               where='coalesce(e.utm_source, e.utm_medium, e.utm_campaign, e.referrer_host, e.click_id) is not null'
           ) }} as touch,
           {{ tidemark.first_touch('e.platform', 'e.event_time') }} as platform,
           {{ tidemark.first_touch('e.device', 'e.event_time') }} as device,
           {{ tidemark.first_touch('coalesce(e.country, e.ip_country)', 'e.event_time') }} as country
      from events as e
     where {{ tidemark.replaces(changed, 'e.started_at') }}
     group by e.person, e.started_at
), sessions as (
    select (g.started_at at time zone 'UTC')::date as event_date,
           {{ tidemark.session_id('g.person', 'g.started_at') }} as session_id,
           g.person,
           g.started_at,
           g.ended_at,
           extract(epoch from g.ended_at - g.started_at)::numeric(12, 3) as duration_seconds,
           g.events,
           g.page_views,
           g.purchases,
           g.page_views < 2 and g.purchases = 0 and g.ended_at - g.started_at <= interval '10 seconds' as bounced,
           g.entry_page,
           g.exit_page,
           case when g.touch is null and not g.has_page then 'Unknown'
                else {{ tidemark.channel_group('g.touch[1]', 'g.touch[2]', 'g.touch[3]', 'g.touch[4]',
                                               'g.touch[5]') }} end as channel,
           g.touch[1] as utm_source,
           g.touch[2] as utm_medium,
           g.touch[3] as utm_campaign,
           g.touch[4] as referrer_host,
           g.platform,
           g.device,
           g.country
      from grouped as g
)
{{ tidemark.replace_dates(changed, 'sessions') }}
