-- With the estimate that the stored sketch gives.
{{ tidemark.differing_rows(
    "(select d.*, " ~ tidemark.hll_cardinality('d.persons_sketch') ~ " as active_persons_estimate from "
        ~ ref('tidemark_daily_actives') ~ " as d) as d",
    source('tidemark_gold', 'daily_actives'),
    ['event_date', 'events', 'active_persons', 'active_persons_estimate', 'page_views', 'purchases',
     'received_after_day', 'last_event_at', 'last_loaded_at']) }}
