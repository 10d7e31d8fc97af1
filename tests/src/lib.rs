//! Fixtures for the client-side tests: private servers on private ports, the `tidemark` binary as a process, and
//! files of events with what must come of them. The tests themselves are in `tests/client/`.
//!
//! Everything here panics with a sentence that says what to do: a server or a binary that is missing must fail a test
//! and never skip it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "only tests use this crate")]

pub mod broker;
pub mod catalog;
pub mod cluster;
pub mod dashboards;
pub mod docs;
pub mod events;
pub mod http;
pub mod identity;
pub mod installation;
pub mod oracle;
pub mod pooler;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod race;
pub mod random;
pub mod run;
mod server;
pub mod storm;
mod watchdog;

pub use server::{free_port, root};

use std::time::{Duration, Instant};

/// Waits until `condition` holds, asking every few milliseconds, after a while less often: most conditions are a new
/// connection to Postgres, and whoever is waited for needs the processor too. Panics after `limit` with what was waited
/// for.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "waited {} s in vain: {what}", limit.as_secs());
        std::thread::sleep(
            (started.elapsed() / 20).clamp(Duration::from_millis(5), Duration::from_millis(50)),
        );
    }
}
