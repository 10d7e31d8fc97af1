//! Loads product events from Kafka or files into Postgres, exactly once.
//!
//! The rooms are the path of an event: [`files`] and [`kafka`] fill a [`batch::RawBatch`]; [`event`] says what a record
//! is and what is wrong with it, [`enrich`] what it gives away; [`batch::Encoder`] makes rows and dead letters of it;
//! [`lanes`] hands batches to connections, which write each in one transaction of [`postgres`]: rows, dead letters, dirty
//! dates and position. [`operations`] watches all of it. The commands are in the crate `tidemark-cli`.

pub mod batch;
pub mod config;
pub mod enrich;
pub mod error;

pub mod event {
    //! An event by itself: how it is written, what bronze keeps of it in columns, and why it cannot be loaded. Knows neither
    //! where it comes from nor where it goes.

    pub mod dead_letter;
    pub mod dedupe;
    pub mod envelope;
    pub mod fingerprint;
    pub mod screen;
    pub mod suppression;
    pub mod time;
    pub mod zone;
}

pub mod files;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lanes;

pub mod operations {
    //! What whoever runs a loader sees of it, and what stops it: its state, metrics and pages, the circuit breaker, systemd.

    pub mod breaker;
    pub mod health;
    #[cfg(feature = "kafka")]
    pub mod http;
    pub mod metrics;
    pub mod state;
    pub mod supervisor;
    pub mod tally;
}

pub mod postgres {
    //! Everything that is said to Postgres: how to get there, whose position it is, what one transaction writes, which
    //! errors are worth another try. Who writes which batch, and when, is in `lanes`.

    pub mod backends;
    pub mod connection;
    pub mod dimensions;
    pub mod ledger;
    pub mod letters;
    pub mod libpq;
    pub mod partitions;
    pub mod position;
    pub mod retry;
    pub mod target;
    pub mod transaction;
}
