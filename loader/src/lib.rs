//! Loads product events from Kafka or files into Postgres, exactly once.
