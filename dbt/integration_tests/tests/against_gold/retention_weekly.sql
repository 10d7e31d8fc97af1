{{ tidemark.differing_rows(
    ref('tidemark_retention_weekly'), source('tidemark_gold', 'retention_weekly'),
    ['cohort_week', 'weeks_since', 'cohort_persons', 'persons', 'pct']) }}
