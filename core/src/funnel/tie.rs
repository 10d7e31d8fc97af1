//! Events at one instant: which steps can be given a row each, when a row may serve one step only.
//!
//! Order inside a tie carries no meaning, so this is bipartite matching between steps and rows. It grows one step at
//! a time by augmenting paths, which never gives up a step matched before.

use crate::event::MAX_CONDITIONS;

/// More rows per step than there are steps can never be needed, so a tie of any size shrinks to this many rows.
const MAX_ROWS: usize = MAX_CONDITIONS * MAX_CONDITIONS;

/// The rows of one instant, as far as they matter for matching.
pub(super) struct Tie {
    rows: [u32; MAX_ROWS],
    len: usize,
    /// Every condition that some row satisfies.
    union: u32,
    /// Whether no row satisfies two steps: then every step present gets a row of its own.
    simple: bool,
}

/// Steps that have a row each, all different.
#[derive(Clone, Copy)]
pub(super) struct Matching {
    row_of: [u16; MAX_CONDITIONS],
    steps: u32,
}

impl Matching {
    pub(super) const EMPTY: Self = Self { row_of: [0; MAX_CONDITIONS], steps: 0 };

    fn owner(&self, row: usize) -> Option<usize> {
        bits(self.steps).find(|&step| usize::from(self.row_of[step]) == row)
    }
}

/// The positions of the set bits, ascending.
pub(super) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as usize;
        set &= set.checked_sub(1)?;
        Some(bit)
    })
}

impl Tie {
    /// Takes the masks of all rows of one instant, restricted to steps.
    pub(super) fn new(masks: impl Iterator<Item = u32>) -> Self {
        let mut tie = Self { rows: [0; MAX_ROWS], len: 0, union: 0, simple: true };
        let mut seen = [0u8; MAX_CONDITIONS];
        for mask in masks {
            tie.union |= mask;
            tie.simple &= mask.count_ones() < 2;
            if bits(mask).any(|step| usize::from(seen[step]) < MAX_CONDITIONS) {
                bits(mask).for_each(|step| seen[step] = seen[step].saturating_add(1));
                // Each kept row raises the count of a step that was below the limit, so there is always room.
                if let Some(slot) = tie.rows.get_mut(tie.len) {
                    *slot = mask;
                    tie.len += 1;
                }
            }
        }
        tie
    }

    /// Matches one more step, moving other steps to other rows if needed; false, and no change, when impossible.
    pub(super) fn add(&self, matching: &mut Matching, step: usize) -> bool {
        if self.union & (1 << step) == 0 {
            return false;
        }
        let found = self.simple || self.augment(matching, step, &mut 0);
        if found {
            matching.steps |= 1 << step;
        }
        found
    }

    fn augment(&self, matching: &mut Matching, step: usize, visited: &mut u32) -> bool {
        *visited |= 1 << step;
        for (row, mask) in self.rows[..self.len].iter().enumerate() {
            if mask & (1 << step) == 0 {
                continue;
            }
            let free = match matching.owner(row) {
                None => true,
                Some(owner) => *visited & (1 << owner) == 0 && self.augment(matching, owner, visited),
            };
            if free {
                matching.row_of[step] = row as u16;
                return true;
            }
        }
        false
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
        let tie = Tie::new(std::iter::repeat_n(0b011, 5000).chain([0b100]).chain([0b110; 5000]));
        let mut m = Matching::EMPTY;
        assert!((0..3).all(|step| tie.add(&mut m, step)));
        assert_eq!(m.steps, 0b111);
        assert!(tie.len <= 3 * MAX_CONDITIONS);
    }

    proptest! {
        #[test]
        fn steps_are_added_exactly_when_an_assignment_exists(
            rows in prop::collection::vec(0u32..32, 0..6), order in Just([0usize, 1, 2, 3, 4]).prop_shuffle()
        ) {
            let tie = Tie::new(rows.iter().copied());
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
