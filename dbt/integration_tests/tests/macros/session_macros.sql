-- What the macros over sessions give for four events that are counted by hand.
with events(person, event_time) as (
    values ('ada', '2026-03-01 10:00:00+00'::timestamptz), ('ada', '2026-03-01 10:30:00+00'),
           ('ada', '2026-03-01 11:00:01+00'), ('bob', '2026-03-01 10:00:00+00')
), by_row as (
    select e.person, e.event_time,
           {{ tidemark.session_start('e.person', 'e.event_time') }} as started_at,
           {{ tidemark.session_start('e.person', 'e.event_time', gap='2 hours',
                                     new_session="e.event_time = '2026-03-01 10:30:00+00'") }} as cut_at,
           {{ tidemark.session_number('e.person', 'e.event_time') }} as session_number
      from events as e
), spans as (
    select s.* from {{ tidemark.sessions('events', where="person = 'ada'") }} as s
), checks(macro, found, expected) as (
    select 'session_start', string_agg(started_at::time::text, ' ' order by person, event_time),
           '10:00:00 10:00:00 11:00:01 10:00:00'
      from by_row
    union all
    select 'session_start, new_session', string_agg(cut_at::time::text, ' ' order by person, event_time),
           '10:00:00 10:30:00 10:30:00 10:00:00'
      from by_row
    union all
    select 'session_number', string_agg(session_number::text, ' ' order by person, event_time), '1 1 2 1' from by_row
    union all
    select 'session_count', string_agg(n::text, ' ' order by person), '2 1'
      from (select person, {{ tidemark.session_count('event_time') }} as n from events group by person) as c
    union all
    select 'session_count, gap', string_agg(n::text, ' ' order by person), '1 1'
      from (select person, {{ tidemark.session_count('event_time', gap='1 hour') }} as n
              from events group by person) as c
    union all
    select 'sessions',
           string_agg(concat_ws(' ', person, started_at::time, ended_at::time, events), ', ' order by started_at),
           'ada 10:00:00 10:30:00 2, ada 11:00:01 11:00:01 1'
      from spans
    union all
    select 'session_id', count(*)::text, '2'
      from spans where session_id = {{ tidemark.session_id('person', 'started_at') }}
)
select * from checks where found is distinct from expected
