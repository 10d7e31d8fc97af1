-- Sessions by the person as sent, against those of all events at once.
{{ tidemark.differing_rows(
    ref('tidemark_person_sessions'),
    "(select s.*, row_number() over (partition by s.person order by s.started_at) as session_number,"
        ~ " (s.started_at at time zone 'UTC')::date as event_date from "
        ~ tidemark.sessions(source('tidemark_silver', 'events')) ~ " as s) as s",
    ['event_date', 'session_id', 'person', 'session_number', 'started_at', 'ended_at', 'events']) }}
