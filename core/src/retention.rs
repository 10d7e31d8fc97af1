//! Retention: who came back, per condition and per cohort.
