{{ tidemark.differing_rows(
    ref('tidemark_weekly_actives'), source('tidemark_gold', 'weekly_actives'),
    ['event_date', 'days_with_events', 'active_persons_7d']) }}
