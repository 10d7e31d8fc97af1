//! Loads product events from Kafka or files into Postgres, exactly once.
//!
//! The rooms are the path of an event: [`files`] and [`kafka`] fill a [`batch::RawBatch`]; [`event`] says what a record
//! is and what is wrong with it; [`batch::Encoder`] makes rows and dead letters of it; [`lanes`] hands batches to
//! connections, which write each in one transaction of [`postgres`]: rows, dead letters, dirty dates and position.
//! [`operations`] watches all of it. The commands are in the crate `tidemark-cli`.

pub mod batch;
pub mod config;
pub mod error;
pub mod event;
pub mod files;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lanes;
pub mod operations;
pub mod postgres;
