//! Everything that is said to Postgres: how to get there, whose position it is, what one transaction writes, which
//! errors are worth another try. Who writes which batch, and when, is in `lanes`.

pub mod connection;
pub mod ledger;
pub mod letters;
pub mod locks;
pub mod partitions;
pub mod password;
pub mod pooler;
pub mod position;
pub mod retry;
pub mod target;
pub mod tls;
pub mod topic_states;
pub mod transaction;
