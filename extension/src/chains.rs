//! Funnels: the aggregate `funnel`, the times of the deepest chain.
