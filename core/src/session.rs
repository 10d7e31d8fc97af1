//! Sessions: runs of events whose gaps never exceed a limit.
