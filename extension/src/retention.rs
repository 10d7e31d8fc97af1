//! Retention: `retention` and the cohort functions.
