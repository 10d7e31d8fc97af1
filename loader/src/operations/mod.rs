//! What whoever runs a loader sees of it, and what stops it: its state, metrics and pages, the circuit breaker, systemd.

pub mod breaker;
pub mod health;
#[cfg(feature = "kafka")]
pub mod http;
pub mod metrics;
pub mod state;
pub mod supervisor;
pub mod tally;
