with touches(source, event_time) as (
    values ('mail', '2026-03-01 10:00:00+00'::timestamptz), (null, '2026-03-01 09:00:00+00'),
           ('ads', '2026-03-02 10:00:00+00')
), checks(macro, found, expected) as (
    select 'first_touch', {{ tidemark.first_touch('source', 'event_time') }}, 'mail' from touches
    union all
    select 'first_touch, where', {{ tidemark.first_touch('source', 'event_time', where="source <> 'mail'") }}, 'ads'
      from touches
    union all
    select 'last_touch', {{ tidemark.last_touch('source', 'event_time') }}, 'ads' from touches
    union all
    select 'channel_group', {{ tidemark.channel_group(utm_source="'google'", utm_medium="'cpc'") }}, 'Paid Search'
    union all
    select 'channel_group, nothing', {{ tidemark.channel_group() }}, 'Direct'
)
select * from checks where found is distinct from expected
