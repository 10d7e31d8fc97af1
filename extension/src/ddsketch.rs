//! Quantiles: the type `ddsketch`, its aggregates and functions.
