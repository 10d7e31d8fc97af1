-- tidemark_sessions holds the rows of gold.sessions. The column list is spelled out: what one side gains must be
-- noticed.
{{ tidemark.differing_rows(ref('tidemark_sessions'), source('tidemark_gold', 'sessions'), [
    'event_date', 'session_id', 'person', 'started_at', 'ended_at', 'duration_seconds', 'events', 'page_views',
    'purchases', 'bounced', 'entry_page', 'exit_page', 'channel', 'utm_source', 'utm_medium', 'utm_campaign',
    'referrer_host', 'platform', 'device', 'country']) }}
