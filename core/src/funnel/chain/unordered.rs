//! `any_order`: the largest set of steps with a row each inside one window.
//!
//! Which sets of rows can serve different steps is a transversal matroid, so a greedy choice is optimal: keeping at
//! each moment the newest rows that are independent gives, for every window that ends now, the most steps and the
//! latest start. At most 32 rows are kept.

use super::{Best, Funnel, span};
use crate::event::Event;
use crate::funnel::tie::{Basis, bits};
use crate::interrupt::Interrupt;
use crate::{AVec, Allocator};

impl Basis {
    fn times(&self) -> impl Iterator<Item = i64> {
        bits(self.occupied).map(|step| self.row[step].0)
    }

    /// Adds a row that is preferred to all rows so far; a row that becomes dispensable is dropped, the least preferred
    /// of those: the first in ascending order of time, or in descending order if `oldest_first`.
    fn add(&mut self, row: (i64, u32), oldest_first: bool) {
        let mut visited = 0;
        if self.place(row, &mut visited) || visited == 0 {
            return;
        }
        let candidates = bits(visited);
        let least = if oldest_first {
            candidates.max_by_key(|&step| self.row[step].0)
        } else {
            candidates.min_by_key(|&step| self.row[step].0)
        };
        if let Some(step) = least.filter(|&step| self.row[step].0 != row.0) {
            self.occupied &= !(1 << step);
            self.place(row, &mut 0);
        }
    }

    fn drop_before(&mut self, keep: impl Fn(i64) -> bool) {
        for step in bits(self.occupied) {
            if !keep(self.row[step].0) {
                self.occupied &= !(1 << step);
            }
        }
    }

    /// Adds the rows of one instant; with `strict_increase` at most one of them counts.
    fn add_instant(
        &mut self,
        funnel: &Funnel,
        rows: &[Event],
        oldest_first: bool,
        interrupt: impl Interrupt,
    ) {
        let masks = rows.iter().map(|e| {
            interrupt.check();
            funnel.steps_of(e.conditions)
        });
        if funnel.mode.strict.strict_increase {
            self.add((rows[0].time, masks.fold(0, |union, mask| union | mask)), oldest_first);
        } else {
            masks.for_each(|mask| self.add((rows[0].time, mask), oldest_first));
        }
    }
}

impl Funnel {
    pub(super) fn any_order<A: Allocator>(
        &self,
        events: &[Event],
        out: &mut AVec<Option<i64>, A>,
        interrupt: impl Interrupt,
    ) {
        let mut best = Best::default();
        let mut basis = Basis::EMPTY;
        for rows in events.chunk_by(|a, b| a.time == b.time) {
            let time = rows[0].time;
            basis.drop_before(|t| time.abs_diff(t) <= self.window);
            basis.add_instant(self, rows, false, interrupt);
            let level = basis.occupied.count_ones() as usize;
            if level > best.level {
                best = Best { level, start: basis.times().min().unwrap_or(time), end: time };
                if level == self.steps {
                    break;
                }
            }
            if self.excludes(rows, interrupt) {
                basis.drop_before(|t| t == time);
            }
        }
        if best.level == 0 {
            return;
        }
        // The same backwards between start and end finds the earliest times; both ends are indispensable.
        let mut basis = Basis::EMPTY;
        let mut rest = span(events, best.start, best.end);
        while let Some(last) = rest.last() {
            let len = rest.iter().rev().take_while(|e| e.time == last.time).count();
            let (before, rows) = rest.split_at(rest.len() - len);
            basis.add_instant(self, rows, true, interrupt);
            rest = before;
        }
        out.extend(basis.times().map(Some));
        out.sort_unstable();
    }
}
