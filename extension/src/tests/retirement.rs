//! Retirement of partitions: plan, guard, steps.
