//! Funnels: how far along an ordered list of steps a person came within a time window.
pub mod stats;
