//! Loads product events from Kafka or files into Postgres, exactly once.

pub mod generate;
