//! Funnels: `funnel_stats` and `funnel_table`, figures over many persons.
