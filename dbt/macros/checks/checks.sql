{#- Generic tests: each returns the rows that are wrong. Give those on events a `where` on event_time, so that they read
    the partitions of some days only. With a `where`, dbt passes a subquery that has an alias already: hence WITH. -#}

{% test unique_together(model, columns) %}
    with m as (select * from {{ model }})
    select {{ columns | join(', ') }}, count(*) as rows
      from m
     group by {{ columns | join(', ') }}
    having count(*) > 1
{% endtest %}

{% test in_range(model, column_name, minimum=none, maximum=none) %}
    {% if minimum is none and maximum is none %}
        {{ exceptions.raise_compiler_error("in_range: give minimum, maximum or both") }}
    {% endif %}
    with m as (select * from {{ model }})
    select m.{{ column_name }}
      from m
     where {% if minimum is not none %}m.{{ column_name }} < {{ minimum }}{% endif %}
           {%- if minimum is not none and maximum is not none %} or {% endif %}
           {%- if maximum is not none %} m.{{ column_name }} > {{ maximum }}{% endif %}
{% endtest %}

{% test is_true(model, expression) %}
    with m as (select * from {{ model }})
    select * from m where not ({{ expression }})
{% endtest %}

{#- Rows of the model whose columns have no counterpart. -#}
{% test exists_in(model, to, columns) %}
    with m as (select * from {{ model }})
    select {{ columns | join(', ') }}
      from m
     where not exists (select from {{ to }} as t
                        where {% for column in columns -%}
                              t.{{ column }} = m.{{ column }}{% if not loop.last %} and {% endif %}
                              {%- endfor %})
{% endtest %}

{#- Numbers within a partition go up by one. The first one may be any: a `where` may have cut what is before it. -#}
{% test sequential(model, column_name, partition_by, order_by) %}
    with m as (select * from {{ model }})
    select *
      from (select m.*, m.{{ column_name }} - lag(m.{{ column_name }})
                            over (partition by {{ partition_by }} order by {{ order_by }}) as difference
              from m) as n
     where n.difference <> 1
{% endtest %}

{#- No two spans of a partition overlap, or lie closer together than more_than. -#}
{% test apart(model, partition_by, from_column, to_column, more_than='0 seconds') %}
    with m as (select * from {{ model }})
    select *
      from (select m.*,
                   lag(m.{{ to_column }})
                       over (partition by {{ partition_by }}
                             order by m.{{ from_column }}, m.{{ to_column }}) as previous_{{ to_column }}
              from m) as n
     where n.{{ from_column }} - n.previous_{{ to_column }} <= interval '{{ more_than }}'
        or n.{{ to_column }} < n.{{ from_column }}
{% endtest %}

{#- A figure never rises along an order: the persons of a funnel. -#}
{% test never_rises(model, column_name, order_by, partition_by=none) %}
    with m as (select * from {{ model }})
    select *
      from (select m.*,
                   lag(m.{{ column_name }})
                       over ({% if partition_by is not none %}partition by {{ partition_by }} {% endif -%}
                             order by {{ order_by }}) as previous
              from m) as n
     where n.{{ column_name }} > n.previous
{% endtest %}

{#- Reconciliation: an aggregate of the model equals one of another table, in each group, or in all. Groups that only
    one side has are wrong, too. `where` of the test applies to the model, to_where to the other table. -#}
{% test reconciles(model, to, measure='count(*)', to_measure='count(*)', by=none, to_by=none, to_where=none) %}
    {% set key = by or '1' %}
    {% set to_key = to_by or by or '1' %}
    with m as (select * from {{ model }})
    select coalesce(a.key, b.key) as key, a.value as value, b.value as expected
      from (select {{ key }} as key, {{ measure }} as value from m group by 1) as a
      full join (select {{ to_key }} as key, {{ to_measure }} as value
                   from {{ to }} as t{% if to_where is not none %} where {{ to_where }}{% endif %}
                  group by 1) as b on b.key = a.key
     where a.value is distinct from b.value
{% endtest %}

{#- Two relations hold the same rows, as often. -#}
{% test equals(model, compare_to, columns) %}
    with m as (select * from {{ model }})
    {{ tidemark.differing_rows('m', compare_to, columns) }}
{% endtest %}

{#- Dates of the extension's models that wait for a refresh: what dbt reads is older than what was loaded. -#}
{% test nothing_waits(model) %}
    select s.model, s.dirty_dates, s.oldest_dirty_date, s.freshness_seconds, s.last_error
      from tidemark.model_status as s
     where s.target = '{{ model }}'::regclass and (s.dirty_dates > 0 or s.last_error is not null)
{% endtest %}

{#- Partitions of a managed table: enough of them ahead, maintenance without errors. -#}
{% test partitions_ready(model, days_ahead=1) %}
    select h.parent::text as parent, h.premade_partitions, h.overlapping, h.last_error
      from tidemark.partition_health as h
     where h.parent = '{{ model }}'::regclass
       and (h.premade_partitions < {{ days_ahead }} or h.overlapping > 0 or h.last_error is not null)
{% endtest %}

{#- Behind `equals`, and for tests written as SQL files: rows of one that the other has not, with the side they are
    on. -#}
{% macro differing_rows(a, b, columns) -%}
{%- set list = columns | join(', ') -%}
select 'first only' as side, x.*
  from ((select {{ list }} from {{ a }}) except all (select {{ list }} from {{ b }})) as x
union all
select 'second only' as side, x.*
  from ((select {{ list }} from {{ b }}) except all (select {{ list }} from {{ a }})) as x
{%- endmacro %}
