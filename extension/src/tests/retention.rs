//! Tests of `retention` inside Postgres.
