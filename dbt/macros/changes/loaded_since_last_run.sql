{#- What is new by load time, for tables that the extension does not refresh. A load time is when a transaction began,
    and an event may reach the table later still: so the last tidemark_overlap before the latest load time seen is
    looked at again. Only tidemark_late_days of event time are read. The bounds are literal, so that partitions are
    skipped. -#}
{% macro loaded_since_last_run(loaded_at='loaded_at', event_time='event_time', seen='last_loaded_at') -%}
{%- set bounds = none -%}
{%- if execute and is_incremental() -%}
    {%- set bounds = run_query(
        "select (max(t." ~ seen ~ ") - interval '" ~ var('tidemark_overlap') ~ "')::text as loaded, (now() - interval '"
        ~ var('tidemark_late_days') ~ " days')::text as happened from " ~ this ~ " as t"
    ).rows[0] -%}
{%- endif -%}
{%- if bounds is none or bounds['loaded'] is none -%}
true
{%- else -%}
({{ loaded_at }} > '{{ bounds['loaded'] }}'::timestamptz
 and {{ event_time }} >= '{{ bounds['happened'] }}'::timestamptz)
{%- endif -%}
{%- endmacro %}
