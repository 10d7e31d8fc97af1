//! The `tidemark` Postgres extension: thin glue from SQL to `tidemark-core`.
