//! Tests of `funnels` inside Postgres.
