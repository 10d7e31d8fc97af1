{#- Which dates of a source changed since the last run of this model: the heart of the incremental models.

    The extension recomputes silver.events date by date and notes each date in tidemark.refresh_log, as identity.resolve
    does, where ids grow in the order of commits for one model, since each model has one refresher at a time. So "what
    came after the id that I saw" loses nothing, whatever the event times and the load times are: late events, events
    that were taken away, logins, and loaders that commit in another order than they began. A row keeps the id that its
    run saw in refresh_id.

    The list is read before the data. So the data can be newer than the list, never older, and what is newer is read
    once more by the next run. -#}

{% macro changed_dates(source, lookback_days=0, lookahead_days=0) %}
    {% set changed = {'all': true, 'ranges': [], 'read_ranges': [], 'refresh_id': 0, 'dates': 0} %}
    {% if not execute %}{{ return(changed) }}{% endif %}

    {% set name = source.schema ~ '.' ~ source.identifier %}
    {% set state = run_query(tidemark.changed_dates_state(name)).rows[0] %}
    {% if state['known'] == 0 %}
        {{ exceptions.raise_compiler_error(
            "changed_dates: " ~ name ~ " is not a table that the extension refreshes; "
            ~ "tidemark.model_status lists them. For another table see the model tidemark_person_sessions.") }}
    {% endif %}
    {% do changed.update({'refresh_id': state['refresh_id']}) %}
    {% if is_incremental() %}
        {% do changed.update({'all': false}) %}
        {% for row in run_query(tidemark.changed_dates_ranges(source, name, lookback_days, lookahead_days)).rows %}
            {% set range = [row['from_date'] | string, row['to_date'] | string] %}
            {% do changed['read_ranges' if row['wide'] else 'ranges'].append(range) %}
            {% if not row['wide'] %}{% do changed.update({'dates': changed['dates'] + row['dates']}) %}{% endif %}
        {% endfor %}
        {% do log(this.identifier ~ ': ' ~ changed['dates'] ~ ' dates of ' ~ name ~ ' to recompute', info=true) %}
    {% endif %}
    {{ return(changed) }}
{% endmacro %}

{% macro changed_dates_state(name) %}
    select (select count(*) from tidemark.model_status as m where m.model = '{{ name }}') as known,
           (select coalesce(max(l.id), 0) from tidemark.refresh_log as l where l.model = '{{ name }}') as refresh_id
{% endmacro %}

{#- The log is kept for 30 days. If the entry that we saw last is gone, or the model was registered anew, what came
    after it may be gone as well: then every date counts as changed. Dates that reach into retired partitions can no
    longer be computed and stay as they are, as in the extension's own models. -#}
{% macro changed_dates_ranges(source, name, lookback_days, lookahead_days) %}
    with seen as materialized (
        select max(t.refresh_id) as id from {{ this }} as t
    ), changed as (
        select l.event_date
          from tidemark.refresh_log as l
         where l.model = '{{ name }}' and l.id > (select s.id from seen as s)
           and (l.rows_inserted + l.rows_updated + l.rows_deleted > 0 or l.way = 'changed')
           and exists (select from tidemark.refresh_log as o
                        where o.id = (select s.id from seen as s) and o.model = '{{ name }}')
        union all
        select d::date
          from (select min(b.first) as first, max(b.last) as last
                  from (select min(x.event_date), max(x.event_date) from {{ source }} as x
                        union all
                        select min(t.event_date), max(t.event_date) from {{ this }} as t) as b(first, last)) as b
         cross join lateral generate_series(b.first::timestamp, b.last::timestamp, interval '1 day') as d
         where not exists (select from tidemark.refresh_log as o
                            where o.id = (select s.id from seen as s) and o.model = '{{ name }}')
    ), affected as (
        select distinct c.event_date + shift as event_date
          from changed as c
         cross join generate_series(-{{ lookahead_days }}, {{ lookback_days }}) as shift
         where not exists (
               select from tidemark.retired_dates as r
                where r.parent = '{{ source }}'::regclass
                   and r.event_date between c.event_date + shift - {{ lookback_days }}
                                        and c.event_date + shift + {{ lookahead_days }})
    ), days as (
        select false as wide, a.event_date from affected as a
        union all
        select distinct true, a.event_date + shift
          from affected as a
         cross join generate_series(-{{ lookback_days }}, {{ lookahead_days }}) as shift
    )
    select i.wide, min(i.event_date) as from_date, max(i.event_date) + 1 as to_date, count(*) as dates
      from (select d.wide, d.event_date,
                   d.event_date - (row_number() over (partition by d.wide order by d.event_date))::integer as island
              from days as d) as i
     group by i.wide, i.island
     order by i.wide, from_date
{% endmacro %}

{#- Conditions with literal bounds, so that Postgres skips partitions while it plans. -#}
{% macro reads(changed, event_time='event_time') -%}
{{ tidemark.in_ranges(changed, 'read_ranges', event_time) }}
{%- endmacro %}

{% macro replaces(changed, event_time='event_time') -%}
{{ tidemark.in_ranges(changed, 'ranges', event_time) }}
{%- endmacro %}

{% macro in_ranges(changed, which, event_time) -%}
{%- if changed['all'] -%}
true
{%- elif not changed[which] -%}
false
{%- else -%}
({% for range in changed[which] %}(
    {{- event_time }} >= '{{ range[0] }} 00:00:00+00'::timestamptz and
    {{ event_time }} < '{{ range[1] }} 00:00:00+00'::timestamptz)
    {%- if not loop.last %} or {% endif %}{% endfor %})
{%- endif -%}
{%- endmacro %}
