//! What models need beyond SQL: rewriting the text of their queries, asking Postgres what a query reads and returns,
//! and running statements as the owner of a model's table.
//!
//! The statements themselves are put together in plpgsql (`sql/models.sql`, `sql/live.sql`).

mod copies;
mod describe;
pub(crate) mod owner;
mod rewrite;
