{#- Distinct persons of the 7 dates up to each date: a union of daily sketches, no event is read again. -#}
{{ config(materialized='view') }}

select d.event_date,
       count(*) as days_with_events,
       {{ tidemark.hll_cardinality(tidemark.hll_union_agg('w.persons_sketch')) }} as active_persons_7d
  from {{ ref('tidemark_daily_actives') }} as d
  join {{ ref('tidemark_daily_actives') }} as w on w.event_date between d.event_date - 6 and d.event_date
 group by d.event_date
