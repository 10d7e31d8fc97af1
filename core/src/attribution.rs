//! First and last touch: the value at the earliest or latest event time, with stated ties.
