//! Tests of `chains` inside Postgres.
