-- The other way to the same sessions, with their numbers.
{{ tidemark.differing_rows(ref('tidemark_person_sessions'), source('tidemark_gold', 'sessions'), [
    'event_date', 'session_id', 'person', 'session_number', 'started_at', 'ended_at', 'events', 'page_views',
    'purchases']) }}
