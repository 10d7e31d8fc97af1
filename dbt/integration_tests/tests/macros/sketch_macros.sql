-- Few values, so sketches are exact and quantiles within their relative error.
with numbers(n) as (
    select generate_series(1, 100)
), sketches as (
    select {{ tidemark.hll_agg('n % 40', log2m=12) }} as hll,
           {{ tidemark.ddsketch_agg('n::double precision', relative_error=0.001) }} as dd
      from numbers
), unions as (
    select {{ tidemark.hll_union_agg('u.hll') }} as hll, {{ tidemark.ddsketch_union_agg('u.dd') }} as dd
      from (select * from sketches union all select * from sketches) as u
), checks(macro, found, expected) as (
    select 'approx_count_distinct', {{ tidemark.approx_count_distinct('n % 40') }}::numeric, 40 from numbers
    union all
    select 'hll_agg, hll_cardinality', {{ tidemark.hll_cardinality('hll') }}, 40 from sketches
    union all
    select 'hll_union_agg', {{ tidemark.hll_cardinality('hll') }}, 40 from unions
    union all
    select 'approx_percentile', round({{ tidemark.approx_percentile(0.5, 'n') }}::numeric, 0), 50 from numbers
    union all
    select 'ddsketch_quantile', round({{ tidemark.ddsketch_quantile('dd', 0.9) }}::numeric, 0), 90 from sketches
    union all
    select 'ddsketch_union_agg', round({{ tidemark.ddsketch_quantile('dd', 0.9) }}::numeric, 0), 90 from unions
)
select * from checks where found is distinct from expected
