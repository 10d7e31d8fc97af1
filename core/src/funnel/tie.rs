//! Events at one instant: which steps can be given a row each, when a row may serve one step only.
//!
//! Order inside a tie carries no meaning, so this is bipartite matching between steps and rows. Most rows of a large
//! tie are dispensable: rows that can all be matched to different steps at once, and as many of them as possible,
//! serve every set of steps that any rows serve (Mendelsohn and Dulmage: one matching covers that set and those rows).
//! So a tie of any size comes down to at most one row a step.

use crate::event::MAX_CONDITIONS;
use crate::interrupt::Interrupt;

/// The rows of one instant, as far as they matter for matching: at most one a step.
pub(super) struct Tie {
    /// Per step, the rows that satisfy it, as bits.
    rows_for: [u32; MAX_CONDITIONS],
    /// No row satisfies two steps, so no step takes another's.
    one_step_each: bool,
}

/// Steps that have a row each, all different.
#[derive(Clone, Copy)]
pub(super) struct Matching {
    /// Per row in use, its step.
    step_of: [u8; MAX_CONDITIONS],
    /// The rows in use.
    used: u32,
}

impl Matching {
    pub(super) const EMPTY: Self = Self { step_of: [0; MAX_CONDITIONS], used: 0 };
}

/// The positions of the set bits, ascending.
pub(super) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as usize;
        set &= set.checked_sub(1)?;
        Some(bit)
    })
}

/// Rows that serve different steps, each with its time.
pub(super) struct Basis {
    /// Per occupied step, the time of its row and all the steps that the row could serve.
    pub(super) row: [(i64, u32); MAX_CONDITIONS],
    pub(super) occupied: u32,
}

impl Basis {
    pub(super) const EMPTY: Self = Self { row: [(0, 0); MAX_CONDITIONS], occupied: 0 };

    /// Finds the row a step, moving others if needed; otherwise changes nothing. `visited` collects the steps tried.
    pub(super) fn place(&mut self, row: (i64, u32), visited: &mut u32) -> bool {
        for step in bits(row.1) {
            if *visited & (1 << step) != 0 {
                continue;
            }
            *visited |= 1 << step;
            if self.occupied & (1 << step) == 0 || self.place(self.row[step], visited) {
                self.row[step] = row;
                self.occupied |= 1 << step;
                return true;
            }
        }
        false
    }
}

impl Tie {
    /// Takes the masks of all rows of one instant, restricted to steps. Linear in the rows.
    pub(super) fn new(masks: impl Iterator<Item = u32> + Clone, interrupt: impl Interrupt) -> Self {
        // Most ties are rows of one step each: a step that is there has a row of its own.
        let union = masks.clone().try_fold(0, |union, mask: u32| {
            interrupt.check();
            (mask.count_ones() < 2).then_some(union | mask)
        });
        if let Some(union) = union {
            return Self { rows_for: std::array::from_fn(|step| union & (1 << step)), one_step_each: true };
        }
        let mut basis = Basis::EMPTY;
        // Steps taken by rows that could serve only each other's steps: a row for these alone is dispensable.
        let mut closed = 0;
        for mask in masks {
            interrupt.check();
            let mut visited = 0;
            if mask & !closed != 0 && !basis.place((0, mask), &mut visited) {
                closed |= visited;
            }
        }
        let mut rows_for = [0; MAX_CONDITIONS];
        for row in bits(basis.occupied) {
            bits(basis.row[row].1).for_each(|step| rows_for[step] |= 1 << row);
        }
        Self { rows_for, one_step_each: false }
    }

    /// Matches one more step, moving other steps to other rows if needed; false, and no change, when impossible.
    #[inline]
    pub(super) fn add(&self, matching: &mut Matching, step: usize) -> bool {
        if self.one_step_each { self.rows_for[step] != 0 } else { self.find(matching, step, &mut 0) }
    }

    /// Finds `step` a row along an augmenting path; `visited` collects the rows tried.
    #[inline]
    fn find(&self, matching: &mut Matching, step: usize, visited: &mut u32) -> bool {
        let rows = self.rows_for[step];
        let free = rows & !matching.used;
        let row = if free != 0 {
            free.trailing_zeros()
        } else if let Some(row) = self.displace(matching, rows, visited) {
            row
        } else {
            return false;
        };
        matching.used |= 1 << row;
        matching.step_of[row as usize] = step as u8;
        true
    }

    /// One of `rows`, all in use, whose step has found another.
    fn displace(&self, matching: &mut Matching, rows: u32, visited: &mut u32) -> Option<u32> {
        bits(rows).find_map(|row| {
            let tried = *visited & (1 << row) != 0;
            *visited |= 1 << row;
            (!tried && self.find(matching, usize::from(matching.step_of[row]), visited)).then_some(row as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matchable(rows: &[u32], steps: &[usize]) -> bool {
        let Some((&step, rest)) = steps.split_first() else { return true };
        (0..rows.len()).any(|i| {
            let others: Vec<u32> =
                rows.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, m)| *m).collect();
            rows[i] & (1 << step) != 0 && matchable(&others, rest)
        })
    }

    #[test]
    fn a_huge_tie_keeps_the_rare_rows() {
        let tie = Tie::new(std::iter::repeat_n(0b0011, 5000).chain([0b0100]).chain([0b0110; 5000]), ());
        let mut m = Matching::EMPTY;
        assert!((0..3).all(|step| tie.add(&mut m, step)));
        assert!(!tie.add(&mut m, 3));
        assert_eq!(m.used.count_ones(), 3);
    }

    proptest! {
        #[test]
        fn steps_are_added_exactly_when_an_assignment_exists(
            rows in prop::collection::vec(0u32..32, 0..9), order in Just([0usize, 1, 2, 3, 4]).prop_shuffle()
        ) {
            let tie = Tie::new(rows.iter().copied(), ());
            let (mut m, mut matched) = (Matching::EMPTY, vec![]);
            for step in order {
                matched.push(step);
                if !tie.add(&mut m, step) {
                    prop_assert!(!matchable(&rows, &matched));
                    matched.pop();
                } else {
                    prop_assert!(matchable(&rows, &matched));
                }
            }
        }
    }
}
