//! Tests of `ddsketch` inside Postgres.
