//! Events at one instant: which steps can be given a row each, when a row may serve one step only.
//!
//! Order inside a tie carries no meaning, so this is bipartite matching between steps and rows. It grows one step at
//! a time by augmenting paths, which never gives up a step matched before.

use crate::event::MAX_CONDITIONS;

/// More rows per step than there are steps can never be needed, so a tie of any size shrinks to this many rows.
const MAX_ROWS: usize = MAX_CONDITIONS * MAX_CONDITIONS;

/// The rows of one instant, as far as they matter for matching.
#[expect(
    clippy::large_enum_variant,
    reason = "lives briefly on the stack; a box would leave the caller's allocator"
)]
pub(super) enum Tie {
    /// No row satisfies two steps: every step present has a row of its own.
    OneStepEach {
        /// The steps present.
        union: u32,
    },
    /// Rows may satisfy several steps.
    Rows {
        /// The steps of each row; only the first `len` count.
        rows: [u32; MAX_ROWS],
        /// How many rows there are.
        len: usize,
    },
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
    pub(super) fn new(masks: impl Iterator<Item = u32> + Clone) -> Self {
        if masks.clone().all(|mask| mask.count_ones() < 2) {
            return Self::OneStepEach { union: masks.fold(0, |union, mask| union | mask) };
        }
        let (mut rows, mut len) = ([0; MAX_ROWS], 0);
        let mut seen = [0u8; MAX_CONDITIONS];
        for mask in masks {
            if bits(mask).any(|step| usize::from(seen[step]) < MAX_CONDITIONS) {
                bits(mask).for_each(|step| seen[step] = seen[step].saturating_add(1));
                // Each kept row raises the count of a step that was below the limit, so there is always room.
                if let Some(slot) = rows.get_mut(len) {
                    *slot = mask;
                    len += 1;
                }
            }
        }
        Self::Rows { rows, len }
    }

    /// Matches one more step, moving other steps to other rows if needed; false, and no change, when impossible.
    pub(super) fn add(&self, matching: &mut Matching, step: usize) -> bool {
        let found = match self {
            Self::OneStepEach { union } => union & (1 << step) != 0,
            Self::Rows { rows, len } => augment(&rows[..*len], matching, step, &mut 0),
        };
        if found {
            matching.steps |= 1 << step;
        }
        found
    }
}

/// Finds `step` a row, moving matched steps along an augmenting path; `visited` collects the steps tried.
fn augment(rows: &[u32], matching: &mut Matching, step: usize, visited: &mut u32) -> bool {
    *visited |= 1 << step;
    for (row, _) in rows.iter().enumerate().filter(|(_, mask)| *mask & (1 << step) != 0) {
        let free = match matching.owner(row) {
            None => true,
            Some(owner) => *visited & (1 << owner) == 0 && augment(rows, matching, owner, visited),
        };
        if free {
            matching.row_of[step] = row as u16;
            return true;
        }
    }
    false
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
        assert!(matches!(tie, Tie::Rows { len, .. } if len <= 3 * MAX_CONDITIONS));
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
