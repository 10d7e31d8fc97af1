//! Tests inside Postgres.
