//! Funnels: how far along an ordered list of steps a person came within a time window.
//!
//! Two questions are answered over the events of one group, in processing order (see [`crate::event`]):
//! [`window::window_funnel`] gives ClickHouse's number, quirks included; [`chain::Funnel`] gives the times of the
//! deepest chain of events. [`mode`] reads what varies between calls. Statistics over many chains are in [`stats`].

pub mod chain;
pub mod mode;
pub mod stats;
mod tie;
pub mod window;

pub use chain::Funnel;
pub use mode::{Mode, ModeError, WindowMode};
pub use window::window_funnel;
