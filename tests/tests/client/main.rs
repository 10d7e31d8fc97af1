//! Tests of tidemark from outside: the real binary, a real Postgres, a real Kafka. One program, so that the servers
//! are started once. Each module covers one promise; what several need is in the library of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod bad_lines;
mod dump_restore;
mod kafka;
mod load;
mod migrate;
mod models;
mod plans;
mod refusals;
mod roles;

use std::sync::OnceLock;

use tidemark_tests::events::Generated;

/// 200,000 events with duplicates and malformed lines, to interrupt things in the middle of.
fn big_file() -> &'static Generated {
    static FILE: OnceLock<Generated> = OnceLock::new();
    FILE.get_or_init(|| Generated::new("--events 200000 --days 6 --users 4000 --seed 7 --malformed 0.003"))
}
