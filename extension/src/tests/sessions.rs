//! Tests of `sessions` inside Postgres.
