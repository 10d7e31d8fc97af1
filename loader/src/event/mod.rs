//! An event by itself: how it is written, what bronze keeps of it in columns, and why it cannot be loaded. Knows neither
//! where it comes from nor where it goes.

pub mod dead_letter;
pub mod dedupe;
pub mod envelope;
pub mod fingerprint;
pub mod screen;
pub mod split;
pub mod time;
