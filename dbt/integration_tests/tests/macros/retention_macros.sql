-- Two persons begin in the week of 2 March, one comes back in the second week after it.
with events(person, event_time) as (
    values ('ada', '2026-03-02 10:00:00+00'::timestamptz), ('ada', '2026-03-17 10:00:00+00'),
           ('bob', '2026-03-04 10:00:00+00')
), checks(macro, found, expected) as (
    select 'retention', string_agg(r::text, ' ' order by person), '{t,t} {t,f}'
      from (select person, {{ tidemark.retention(["event_time < '2026-03-09 00:00:00+00'",
                                                  "event_time >= '2026-03-09 00:00:00+00'"]) }} as r
              from events group by person) as x
    union all
    select 'cohort_retention',
           string_agg(concat_ws(' ', r.cohort at time zone 'UTC', r.period, r.cohort_persons, r.persons, r.pct), ', '
                      order by r.period),
           '2026-03-02 00:00:00 0 2 2 100.0, 2026-03-02 00:00:00 1 2 0 0.0, 2026-03-02 00:00:00 2 2 1 50.0, '
           '2026-03-02 00:00:00 3 2'
      from {{ tidemark.cohort_retention('events', periods=4, as_of="'2026-03-23 00:00:00+00'::timestamptz") }} as r
)
select * from checks where found is distinct from expected
