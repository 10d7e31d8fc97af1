{#- The other half of changed_dates: dates are replaced whole.

    delete+insert by key leaves behind what is no longer there: two sessions that a late event joins, or the only
    session of a date when its start moves to the day before. So the result has, for each date to replace, its rows, or,
    if it has none any more, one row with nothing but the date. The strategy deletes every date that occurs, and inserts
    the rows. refresh_id tells them apart: it is NULL where there is only the date. -#}

{% macro replace_dates(changed, query) -%}
{%- if changed['all'] -%}
select r.*, {{ changed['refresh_id'] }}::bigint as refresh_id
  from {{ query }} as r
{%- else -%}
select *
  from (
        {%- if changed['ranges'] %}
        select day::date as event_date
          from (values {% for range in changed['ranges'] -%}
                    ('{{ range[0] }}'::timestamp, '{{ range[1] }}'::timestamp){% if not loop.last %}, {% endif %}
                {%- endfor %}) as dates(from_date, to_date)
         cross join lateral generate_series(dates.from_date, dates.to_date - interval '1 day', interval '1 day') as day
        {%- else %}
        select null::date as event_date where false
        {%- endif %}
       ) as replaced
  left join (select r.*, {{ changed['refresh_id'] }}::bigint as refresh_id
               from {{ query }} as r) as computed using (event_date)
{%- endif -%}
{%- endmacro %}

{#- The incremental strategy tidemark_dates. A project of your own needs a macro of this name that calls this one: dbt
    looks for strategies in the model's own project only (docs/dbt.md). -#}
{% macro get_incremental_tidemark_dates_sql(arg_dict) %}
    {% set target = arg_dict['target_relation'] %}
    {% set temporary = arg_dict['temp_relation'] %}
    {% set columns = arg_dict['dest_columns'] | map(attribute='quoted') | join(', ') %}
    {% set names = arg_dict['dest_columns'] | map(attribute='name') | map('lower') | list %}
    {% for name in ['event_date', 'refresh_id'] if name not in names %}
        {{ exceptions.raise_compiler_error(
            "tidemark_dates: " ~ target ~ " has no column " ~ name ~ "; end the model with tidemark.replace_dates()") }}
    {% endfor %}
    delete from {{ target }} where event_date in (select t.event_date from {{ temporary }} as t);
    insert into {{ target }} ({{ columns }})
    select {{ columns }} from {{ temporary }} as t where t.refresh_id is not null
{% endmacro %}
