//! How a caller stops work that takes long.
//!
//! Whatever here takes more than a few milliseconds for some input takes an [`Interrupt`] and asks it at every row,
//! comparison or other small step. What the question means (a signal, a deadline) is the caller's business.

use crate::{AVec, Allocator};
use std::cmp::Ordering;

/// Says whether long work may go on.
///
/// Asked once per row, so it has to cost as little as reading a flag.
pub trait Interrupt: Copy {
    /// Returns to go on and unwinds to stop. What was being worked on must be dropped after it unwound.
    fn check(self);
}

/// Never stops.
impl Interrupt for () {
    #[inline(always)]
    fn check(self) {}
}

/// Up to here a sort takes less than a few milliseconds and asks nobody.
const SHORT_SORT: usize = 1 << 15;

/// Elements copied or cleared between two questions.
pub(crate) const PART: usize = 1 << 16;

/// Sorts by `compare`, whose time must not depend on the elements; equal elements may change places.
pub(crate) fn sort<T>(items: &mut [T], interrupt: impl Interrupt, compare: impl Fn(&T, &T) -> Ordering) {
    if items.len() <= SHORT_SORT {
        return items.sort_unstable_by(compare);
    }
    items.sort_unstable_by(|a, b| {
        interrupt.check();
        compare(a, b)
    });
}

/// Appends copies of `items`.
pub(crate) fn extend<T: Copy, A: Allocator>(to: &mut AVec<T, A>, items: &[T], interrupt: impl Interrupt) {
    to.reserve(items.len());
    for part in items.chunks(PART) {
        interrupt.check();
        to.extend_from_slice(part);
    }
}

/// Counts how often it was asked.
#[cfg(test)]
impl Interrupt for &std::cell::Cell<usize> {
    fn check(self) {
        self.set(self.get() + 1);
    }
}
