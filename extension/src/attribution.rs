//! Attribution: `first`, `last` and `channel_group`.
