//! Sequence patterns over a person's events, in ClickHouse's pattern language and a little more.
