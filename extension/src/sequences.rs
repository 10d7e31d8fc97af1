//! Sequences: `sequence_match`, `sequence_count`, `sequence_next_node`.
