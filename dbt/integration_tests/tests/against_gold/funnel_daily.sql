{{ tidemark.differing_rows(
    ref('tidemark_funnel_daily'), source('tidemark_gold', 'funnel_daily'),
    ['event_date', 'step', 'name', 'persons', 'pct_of_first', 'pct_of_previous', 'median_seconds']) }}
