//! Loads product events from Kafka or files into Postgres, exactly once.
//!
//! A source fills a [`batch::RawBatch`]; [`batch::Encoder`] parses, judges and encodes it; [`sink::Sink`] writes rows,
//! dead letters, dirty dates and position in one transaction. [`lane`] connects the three. [`commands`] holds what
//! the `tidemark` binary offers.

pub mod batch;
pub mod breaker;
pub mod commands;
pub mod config;
pub mod copy;
pub mod dead_letter;
pub mod envelope;
pub mod error;
pub mod fencing;
pub mod fingerprint;
pub mod generate;
pub mod health;
#[cfg(feature = "kafka")]
pub mod http;
pub mod input;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lane;
pub mod late;
pub mod ledger;
pub mod letters;
pub mod lines;
pub mod metrics;
pub mod notify;
pub mod partitions;
pub mod pg;
pub mod pg_errors;
pub mod pg_password;
pub mod pg_tls;
pub mod pooler;
pub mod position;
pub mod screen;
pub mod sink;
pub mod supervisor;
pub mod target;
pub mod time;
pub mod transaction;
