{#- Talking to the extension's own models: bring them up to date before dbt reads them, tell them what dbt changed. -#}

{#- dbt run-operation tidemark.refresh [--args '{model: silver.events}']. refresh commits on its way, so it must
    not run in the transaction that dbt opened: that one is closed first. -#}
{% macro refresh(model=none) %}
    {% if execute %}
        {% call statement('tidemark_close', auto_begin=false) %}commit{% endcall %}
        {% call statement('tidemark_refresh', auto_begin=false) -%}
            call tidemark.refresh({% if model is not none %}'{{ model }}'{% endif %})
        {%- endcall %}
        {% if model is none %}
            {% call statement('tidemark_views', auto_begin=false) -%}
                call tidemark.refresh_materialized_views()
            {%- endcall %}
        {% endif %}
        {% set waiting = run_query(
            "select coalesce(sum(dirty_dates), 0)::bigint as dates from tidemark.model_status"
            ~ ("" if model is none else " where model = '" ~ model ~ "'")
        ).rows[0]['dates'] %}
        {% do log('tidemark: refreshed ' ~ (model or 'all models') ~ ', ' ~ waiting ~ ' dates wait', info=true) %}
    {% endif %}
{% endmacro %}

{#- For a post_hook: says that rows of a table changed, in the transaction that changed them. dates is a query of
    dates. -#}
{% macro mark_dirty(relation, dates, reason='dbt') -%}
select tidemark.mark_dirty('{{ relation }}'::regclass, array({{ dates }}), '{{ reason | replace("'", "''") }}')
{%- endmacro %}
