//! Tests of `sequences` inside Postgres.
