{#- Funnels: docs/funnels.md. Steps are SQL conditions, in order. -#}

{% macro funnel(window, event_time, steps, mode=none) -%}
tidemark.funnel(interval '{{ window }}', {% if mode is not none %}'{{ mode }}', {% endif -%}
                {{ event_time }}, {{ steps | join(', ') }})
{%- endmacro %}

{% macro funnel_by_name(window, event_time, event_type, steps, mode=none) -%}
tidemark.funnel(interval '{{ window }}', {% if mode is not none %}'{{ mode }}', {% endif -%}
                {{ event_time }}, {{ event_type }}, {{ tidemark.text_array(steps) }})
{%- endmacro %}

{% macro window_funnel(window, event_time, steps, mode=none) -%}
tidemark.window_funnel(interval '{{ window }}', {% if mode is not none %}'{{ mode }}', {% endif -%}
                       {{ event_time }}, {{ steps | join(', ') }})
{%- endmacro %}

{% macro funnel_stats(chain, steps) -%}
tidemark.funnel_stats({{ chain }}, {{ steps }})
{%- endmacro %}

{#- A whole query, in parentheses. steps is a mapping of names to conditions; by, if given, names columns that split
    it. -#}
{% macro funnel_table(relation, window, steps, person='person', event_time='event_time', mode=none, by=none,
                      where=none) -%}
{%- set keys = tidemark.as_list(by) -%}
(
    select {% for key in keys %}f.{{ key }}, {% endfor -%}
           t.step, t.name, t.entered, t.pct_of_first, t.pct_of_previous, t.median_seconds, t.avg_seconds
      from (
            select {% for key in keys %}p.{{ key }}, {% endfor -%}
                   tidemark.funnel_stats(p.chain, {{ steps | length }}) as stats
              from (
                    select {% for key in keys %}{{ key }}, {% endfor -%}
                           {{ tidemark.funnel(window, event_time, steps.values() | list, mode) }} as chain
                      from {{ relation }}
                     where ({{ person }}) is not null{% if where is not none %} and ({{ where }}){% endif %}

                     group by {% for key in keys %}{{ key }}, {% endfor %}{{ person }}
                   ) as p
             {% if keys -%}
             group by {% for key in keys %}p.{{ key }}{% if not loop.last %}, {% endif %}{% endfor %}
             {%- endif %}

           ) as f
     cross join lateral tidemark.funnel_table(f.stats, {{ tidemark.text_array(steps.keys() | list) }}) as t
)
{%- endmacro %}
