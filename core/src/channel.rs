//! Default channel grouping: which marketing channel a visit came from.
