//! Tests of `hll` inside Postgres.
