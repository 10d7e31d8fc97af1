{#- What the other macros share. -#}

{#- A list of words as a Postgres array; quotes in them are doubled. -#}
{% macro text_array(words) -%}
array[{% for word in words %}'{{ word | replace("'", "''") }}'{% if not loop.last %}, {% endif %}{% endfor %}]::text[]
{%- endmacro %}

{#- none is an empty list, a word a list of one. -#}
{% macro as_list(value) %}
    {% if value is none %}{{ return([]) }}{% endif %}
    {{ return([value] if value is string else value) }}
{% endmacro %}

{#- The names of event types that mean one thing, as set in a var of dbt_project.yml, for use behind IN. -#}
{% macro event_types(kind) -%}
({% for word in var('tidemark_' ~ kind ~ '_types') -%}
    '{{ word | replace("'", "''") }}'{% if not loop.last %}, {% endif %}
{%- endfor %})
{%- endmacro %}

{#- The beginning of a UTC date, whatever the time zone of the session. -#}
{% macro utc_midnight(date) -%}
(({{ date }})::timestamp at time zone 'UTC')
{%- endmacro %}
