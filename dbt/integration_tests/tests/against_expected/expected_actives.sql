-- On the dates before March only the persons in events/ were active.
{% set expected = "(select * from " ~ ref('expected_actives')
    ~ " where " ~ env_var('TIDEMARK_DBT_RUN') ~ " between from_run and to_run) as e" %}
{{ tidemark.differing_rows(
    "(select * from " ~ ref('tidemark_daily_actives') ~ " where event_date < '2026-03-01') as a",
    expected, ['event_date', 'events', 'active_persons', 'received_after_day']) }}
