//! Lanes: from records in memory to committed transactions, several side by side.

pub mod dates;
pub mod lane;
pub mod sink;
