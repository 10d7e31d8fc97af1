//! HyperLogLog: distinct counts in the HLL storage spec v1.0.0.
