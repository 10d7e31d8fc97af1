//! The algorithms behind tidemark, free of Postgres.
//!
//! Everything here is a pure function or a mergeable state over plain numbers: event times are `i64` microseconds,
//! persons and event names never appear (timelines have hashes and codes of them). Each state obeys the same law: any
//! order of rows and any split into partial states that are merged afterwards gives the same answer, bit for bit.
//!
//! What does not live here: SQL types, memory contexts, error codes (see `extension/`), and anything that talks to
//! a server (see `loader/`).
// Where a processor's own instructions are used, in `timeline::masks`, and nowhere else.
#![deny(unsafe_code)]

pub mod address;
pub mod attribution;
pub mod channel;
pub mod codec;
pub mod ddsketch;
pub mod event;
pub mod funnel;
pub mod hll;
pub mod interrupt;
pub mod retention;
pub mod sequence;
pub mod session;
pub mod timeline;

pub use allocator_api2::alloc::{Allocator, Global};
pub use allocator_api2::vec::Vec as AVec;
