-- Two persons, three steps: ada does all, bob the first one twice.
{% set steps = {'seen': "what = 'seen'", "it's in": "what = 'added'", 'paid': "what = 'paid'"} %}
with events(person, event_time, what, plan) as (
    values ('ada', '2026-03-01 10:00:00+00'::timestamptz, 'seen', 'free'),
           ('ada', '2026-03-01 10:10:00+00', 'added', 'free'), ('ada', '2026-03-01 10:50:00+00', 'paid', 'free'),
           ('bob', '2026-03-01 10:00:00+00', 'seen', 'pro'), ('bob', '2026-03-01 10:01:00+00', 'seen', 'pro')
), levels as (
    select person,
           cardinality({{ tidemark.funnel('1 hour', 'event_time', steps.values() | list) }}) as by_condition,
           cardinality({{ tidemark.funnel_by_name('30 minutes', 'event_time', 'what',
                                                  ['seen', 'added', 'paid']) }}) as by_name,
           {{ tidemark.window_funnel('1 hour', 'event_time', steps.values() | list, mode='strict_order') }} as strict
      from events
     group by person
), checks(macro, found, expected) as (
    select 'funnel', string_agg(by_condition::text, ' ' order by person), '3 1' from levels
    union all
    select 'funnel_by_name', string_agg(by_name::text, ' ' order by person), '2 1' from levels
    union all
    select 'window_funnel', string_agg(strict::text, ' ' order by person), '3 1' from levels
    union all
    select 'funnel_table',
           string_agg(concat_ws(' ', f.step, f.name, f.entered, f.pct_of_first), ', ' order by f.step),
           '1 seen 2 100.00, 2 it''s in 1 50.00, 3 paid 1 50.00'
      from {{ tidemark.funnel_table('events', '1 hour', steps) }} as f
    union all
    select 'funnel_table, by',
           string_agg(concat_ws(' ', f.plan, f.step, f.entered), ', ' order by f.plan, f.step),
           'free 1 1, free 2 1, free 3 1'
      from {{ tidemark.funnel_table('events', '1 hour', steps, by='plan', where="plan <> 'pro'") }} as f
)
select * from checks where found is distinct from expected
