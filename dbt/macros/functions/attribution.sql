{#- Attribution: docs/attribution.md. -#}

{% macro channel_group(utm_source='null', utm_medium='null', utm_campaign='null', referrer_host='null',
                       click_id='null') -%}
tidemark.channel_group({{ utm_source }}, {{ utm_medium }}, {{ utm_campaign }}, {{ referrer_host }}, {{ click_id }})
{%- endmacro %}

{% macro first_touch(value, event_time, where=none) -%}
tidemark.first({{ value }}, {{ event_time }}){% if where is not none %} filter (where {{ where }}){% endif %}
{%- endmacro %}

{% macro last_touch(value, event_time, where=none) -%}
tidemark.last({{ value }}, {{ event_time }}){% if where is not none %} filter (where {{ where }}){% endif %}
{%- endmacro %}
