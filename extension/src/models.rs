//! What models need beyond SQL: rewriting the text of their queries, asking Postgres what a query reads and returns,
//! the text of the statements that work on a date, and running them as the owner of a model's table, step by step.
//!
//! What is known of models, and which date is to be recomputed, is decided in plpgsql (`sql/models.sql` and after).

mod columns;
mod copies;
mod describe;
mod expressions;
mod merges;
mod of_date;
pub(crate) mod owner;
mod places;
mod refresh;
mod rewrite;
mod scope;
mod settings;
mod statement;

pub(crate) use owner::is_reading;
pub(crate) use statement::quoted;
