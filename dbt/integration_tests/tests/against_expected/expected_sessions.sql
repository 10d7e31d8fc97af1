-- Both ways to sessions, and the extension's own, against what was worked out by hand.
-- depends_on: {{ ref('expected_sessions') }}
{% set columns = ['person', 'session_number', 'started_at', 'ended_at', 'events'] %}
{% set expected = "(select * from " ~ ref('expected_sessions')
    ~ " where " ~ env_var('TIDEMARK_DBT_RUN') ~ " between from_run and to_run) as e" %}
select 'gold' as model, d.*
  from ({{ tidemark.differing_rows(
    "(select * from " ~ source('tidemark_gold', 'sessions') ~ " where person like 'edge-%') as g",
    expected, columns) }}) as d
union all
select 'by person', d.*
  from ({{ tidemark.differing_rows(
    "(select * from " ~ ref('tidemark_person_sessions') ~ " where person like 'edge-%') as p",
    expected, columns) }}) as d
union all
select 'by date', d.*
  from ({{ tidemark.differing_rows(
    "(select *, row_number() over (partition by person order by started_at) as session_number from "
        ~ ref('tidemark_sessions') ~ " where person like 'edge-%') as s",
    expected, columns) }}) as d
