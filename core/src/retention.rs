//! Retention: who came back, per condition and per cohort.
//!
//! Three pieces: [`retention`] is ClickHouse's function over conditions, [`cohort`] turns one person's events into the
//! cohorts the person belongs to and what happened in each period since, and [`matrix`] adds persons up. Calendar
//! arithmetic is in [`calendar`]. What does not live here: lifecycle and stickiness (SQL over daily activity), time
//! zones (everything is UTC) and SQL types.

pub mod calendar;
pub mod cohort;
pub mod matrix;

use crate::event::MAX_CONDITIONS;

/// ClickHouse's `retention` over the conditions a person ever met.
///
/// `seen` is the bitwise OR, over the person's rows, of the conditions true on each row (bit `i` is condition `i + 1`);
/// that OR is the whole state, so any order and any split of the rows gives the same answer. The result has the same
/// layout: its first bit says that condition 1 was met, bit `i` that conditions 1 and `i + 1` were both met, on
/// whatever rows, **in any order of time**. Bits from `conditions` on are 0; no rows (`seen` 0) give 0.
pub fn retention(seen: u32, conditions: usize) -> u32 {
    let known = if conditions >= MAX_CONDITIONS { u32::MAX } else { (1 << conditions) - 1 };
    if seen & 1 == 0 { 0 } else { seen & known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn later_conditions_count_only_with_the_first() {
        assert_eq!(retention(0b101, 3), 0b101);
        assert_eq!(retention(0b110, 3), 0);
        assert_eq!(retention(0, 3), 0);
        assert_eq!(retention(u32::MAX, 2), 0b11);
        assert_eq!(retention(u32::MAX, 32), u32::MAX);
    }

    proptest! {
        #[test]
        fn each_bit_is_the_first_condition_and_its_own(rows: Vec<u32>, n in 1usize..=32) {
            let mask = retention(rows.iter().fold(0, |seen, row| seen | row), n);
            let any = |i: usize| rows.iter().any(|row| row >> i & 1 == 1);
            for i in 0..32 {
                prop_assert_eq!(mask >> i & 1 == 1, i < n && any(0) && any(i));
            }
        }
    }
}
