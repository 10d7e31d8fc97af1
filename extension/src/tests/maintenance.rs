//! Tests of `maintenance` inside Postgres.
