-- On the dates before March only the persons in events/ were active.
{% set expected = "(select * from " ~ ref('expected_funnel')
    ~ " where " ~ env_var('TIDEMARK_DBT_RUN') ~ " between from_run and to_run) as e" %}
{{ tidemark.differing_rows(
    "(select * from " ~ ref('tidemark_funnel_daily') ~ " where event_date < '2026-03-01') as f",
    expected, ['event_date', 'step', 'persons']) }}
