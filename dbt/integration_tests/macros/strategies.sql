{#- dbt looks for incremental strategies in the project of the model: this makes the package's one known here. -#}
{% macro get_incremental_tidemark_dates_sql(arg_dict) %}
    {{ return(tidemark.get_incremental_tidemark_dates_sql(arg_dict)) }}
{% endmacro %}
