//! Tests of `attribution` inside Postgres.
