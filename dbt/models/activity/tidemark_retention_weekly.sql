{#- Weekly retention from the days of each person. It spans all dates, since a late event can make somebody older: a
    table, computed anew. A week is complete when it ended before the last date with events did, so the answer depends
    on what was loaded and not on the clock. -#}
{{ config(materialized='table') }}

select (r.cohort at time zone 'UTC')::date as cohort_week,
       r.period as weeks_since,
       r.cohort_persons,
       r.persons,
       r.pct
  from {{ tidemark.cohort_retention(
            ref('tidemark_person_days'),
            period='week',
            periods=13,
            event_time=tidemark.utc_midnight('event_date'),
            as_of=tidemark.utc_midnight('(select max(x.event_date) + 1 from ' ~ ref('tidemark_person_days') ~ ' as x)'),
          ) }} as r
