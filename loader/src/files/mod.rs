//! Files of events: bytes that may be compressed, and the lines in them.

pub mod input;
pub mod lines;
