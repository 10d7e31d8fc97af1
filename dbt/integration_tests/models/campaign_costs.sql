{#- A table of dbt that a model of the extension reads: incremental, since a table or --full-refresh would replace it
    and take the extension's model away, and with a mark for the dates that this run changed. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key=['event_date', 'campaign'],
    full_refresh=false,
    grants={'select': ['tidemark_admin']},
    post_hook=tidemark.mark_dirty(
        this, 'select distinct c.event_date from ' ~ this ~ ' as c where c.run = ' ~ env_var('TIDEMARK_DBT_RUN')),
) }}

select c.run, c.event_date, c.campaign, c.cost
  from {{ ref('costs') }} as c
 where c.run = {{ env_var('TIDEMARK_DBT_RUN') }}
