//! `tidemark run`: every record of a topic ends exactly once in Postgres, whoever is killed and whatever Kafka
//! believes about offsets.
