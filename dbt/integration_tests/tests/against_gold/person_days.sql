{{ tidemark.differing_rows(
    ref('tidemark_person_days'), source('tidemark_gold', 'person_days'), ['event_date', 'person', 'events']) }}
