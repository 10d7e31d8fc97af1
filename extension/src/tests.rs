//! Tests that run inside Postgres: what only the SQL surface can show (NULLs, types, plans, errors, memory).
//! Laws of the algorithms are tested in `core`; many connections, kills and upgrades in `tests/`.

// The `pg_test` feature compiles these into the library, where Clippy does not see that they are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attribution;
mod bar;
mod ddsketch;
mod freshness;
mod funnel;
mod funnel_stats;
mod general;
mod hll;
mod interrupts;
mod json;
mod maintenance;
mod memory;
mod models;
mod models_append;
mod models_live;
mod models_marks;
mod models_rights;
mod models_scope;
mod models_settings;
mod models_support;
mod plans;
mod retention;
mod retirement;
mod retirement_rights;
mod sequences;
mod sessions;
mod stored;
mod support;
mod support_grouped;
mod timeline_changes;
mod timelines;
mod timelines_reports;
mod timelines_trends;
mod window_funnel;
