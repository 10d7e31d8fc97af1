{#- Retention: docs/retention.md. -#}

{% macro retention(conditions) -%}
tidemark.retention({{ conditions | join(', ') }})
{%- endmacro %}

{#- A whole query, in parentheses: one row per cohort and period. -#}
{% macro cohort_retention(relation, period='week', periods=13, mode='on', as_of='now()', person='person',
                          event_time='event_time', is_start='true', is_return='true', where=none) -%}
(
    select r.cohort, t.period, r.retained[1] as cohort_persons, t.persons, t.pct
      from (
            select m.cohort, tidemark.cohort_retention(m.retained) as retained
              from (
                    select tidemark.cohort_member('{{ period }}', '{{ mode }}', {{ periods }}, {{ as_of }},
                                                  {{ event_time }}, {{ is_start }}, {{ is_return }}) as cohorts
                      from {{ relation }}
                     where ({{ person }}) is not null{% if where is not none %} and ({{ where }}){% endif %}

                     group by {{ person }}
                   ) as p
             cross join lateral unnest(p.cohorts) as m
             group by m.cohort
           ) as r
     cross join lateral tidemark.cohort_table(r.retained) as t
)
{%- endmacro %}
