{#- Distinct counts (docs/distinct-counts.md) and quantiles (docs/quantiles.md) that can be added up over any span. -#}

{% macro approx_count_distinct(value) -%}
tidemark.approx_count_distinct({{ value }})
{%- endmacro %}

{% macro hll_agg(value, log2m=14) -%}
tidemark.hll_agg({{ value }}, {{ log2m }})
{%- endmacro %}

{% macro hll_union_agg(sketch) -%}
tidemark.hll_union_agg({{ sketch }})
{%- endmacro %}

{% macro hll_cardinality(sketch) -%}
tidemark.hll_cardinality({{ sketch }})
{%- endmacro %}

{% macro approx_percentile(q, value) -%}
tidemark.approx_percentile({{ q }}, {{ value }})
{%- endmacro %}

{% macro ddsketch_agg(value, relative_error=none) -%}
tidemark.ddsketch_agg({{ value }}{% if relative_error is not none %}, {{ relative_error }}{% endif %})
{%- endmacro %}

{% macro ddsketch_union_agg(sketch) -%}
tidemark.ddsketch_union_agg({{ sketch }})
{%- endmacro %}

{% macro ddsketch_quantile(sketch, q) -%}
tidemark.ddsketch_quantile({{ sketch }}, {{ q }})
{%- endmacro %}
