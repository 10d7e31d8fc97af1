//! Tests of `general` inside Postgres.
