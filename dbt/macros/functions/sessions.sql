{#- Sessions. The functions themselves are described on docs/sessions.md; here is only how they are written in a
    model. -#}

{% macro session_start(person, event_time, gap='30 minutes', new_session=none) -%}
tidemark.sessionize({{ event_time }}, interval '{{ gap }}'
                    {%- if new_session is not none %}, {{ new_session }}{% endif %})
    over (partition by {{ person }} order by {{ event_time }})
{%- endmacro %}

{% macro session_number(person, event_time, gap='30 minutes') -%}
tidemark.session_number({{ event_time }}, interval '{{ gap }}')
    over (partition by {{ person }} order by {{ event_time }})
{%- endmacro %}

{% macro session_id(person, started_at) -%}
tidemark.session_id({{ person }}, {{ started_at }})
{%- endmacro %}

{% macro session_count(event_time, gap='30 minutes') -%}
tidemark.session_count({{ event_time }}, interval '{{ gap }}')
{%- endmacro %}

{#- A whole query, in parentheses: from {{ tidemark.sessions(...) }} as s. -#}
{% macro sessions(relation, person='person', event_time='event_time', gap='30 minutes', where=none) -%}
(
    select p.person,
           tidemark.session_id(p.person, s.started_at) as session_id,
           s.started_at,
           s.ended_at,
           s.events
      from (
            select ({{ person }})::text as person, tidemark.sessions({{ event_time }}, interval '{{ gap }}') as sessions
              from {{ relation }}
             where ({{ person }}) is not null{% if where is not none %} and ({{ where }}){% endif %}
             group by 1
           ) as p
     cross join lateral unnest(p.sessions) as s(started_at, ended_at, events)
)
{%- endmacro %}
