//! The backward pass: the times between a known start and end.

use super::{Best, Funnel, Judged};
use crate::event::Event;
use crate::funnel::tie::{Matching, Tie, bits};
use crate::{AVec, Allocator};

/// The tail of a chain from some step to the last. A left-out step holds [`LEFT_OUT`], so that the order of tails is
/// the order of preference.
type Tail<const N: usize> = [(bool, i64); N];

const LEFT_OUT: (bool, i64) = (true, 0);

/// Per step, the preferred tail that begins there, among those that may still be joined to the start.
struct Trace<'a, const N: usize> {
    funnel: &'a Funnel,
    best: Best,
    live: u32,
    tail: [Tail<N>; N],
}

impl Funnel {
    /// Appends the times of the preferred chain with the given depth, start and end; `rows` are all events from the
    /// start to the end, and `N` is at least the depth.
    pub(super) fn trace<const N: usize, A: Allocator>(
        &self,
        rows: &[Event],
        best: Best,
        out: &mut AVec<Option<i64>, A>,
    ) {
        let mut trace = Trace { funnel: self, best, live: 0, tail: [[LEFT_OUT; N]; N] };
        let mut rest = rows;
        while let Some(last) = rest.last() {
            let len = rest.iter().rev().take_while(|e| e.time == last.time).count();
            let (before, rows) = rest.split_at(rest.len() - len);
            trace.instant(rows);
            rest = before;
        }
        debug_assert!(trace.live & 1 != 0, "the forward pass found a chain");
        let chain = trace.tail[0].iter().take(best.level);
        out.extend(chain.map(|&(left_out, time)| (!left_out).then_some(time)));
    }
}

impl<const N: usize> Trace<'_, N> {
    /// Takes all rows of one instant; instants come in descending order.
    fn instant(&mut self, rows: &[Event]) {
        let funnel = self.funnel;
        let time = rows[0].time;
        let (at_start, at_end) = (time == self.best.start, time == self.best.end);
        let judged = (!at_start && !at_end && funnel.judges_rows_inside()).then(|| Judged::new(funnel, rows));
        let passes =
            |next: usize, used: usize| judged.as_ref().is_none_or(|j| j.lets_pass(funnel, next, used));
        let level = self.best.level;
        let union = rows.iter().fold(0, |union, e| union | funnel.steps_of(e.conditions));
        // Only a chain's first step may stand at its start, and only there.
        let heads = union & if at_start { 1 } else { !1 };
        let one_row = rows.len() == 1 || funnel.mode.strict.strict_increase;
        let before = self.live;
        // Slot `level` stands for the end of the chain.
        let joinable = |k: usize, tail: &[Tail<N>; N]| {
            if k == level {
                return at_end;
            }
            before & (1 << k) != 0 && tail[k][k].1.abs_diff(time) <= funnel.step_window
        };
        for j in bits(self.live).filter(|&j| j > 0) {
            if !passes(j, 0) {
                self.live &= !(1 << j);
            }
        }
        // Ascending, because a tail joins what began at later steps before this instant.
        let tie = (!one_row).then(|| Tie::new(rows.iter().map(|e| funnel.steps_of(e.conditions))));
        for a in bits(heads).filter(|&a| a < level) {
            let mut preferred: Option<Tail<N>> = None;
            for k in (a + 1..=level).filter(|&k| joinable(k, &self.tail)) {
                let Some(used) = self.used(tie.as_ref(), a, k) else { continue };
                if !passes(k, used.count_ones() as usize) {
                    continue;
                }
                let mut tail = if k < level { self.tail[k] } else { [LEFT_OUT; N] };
                tail[..k].fill(LEFT_OUT);
                bits(used).for_each(|step| tail[step] = (false, time));
                preferred = Some(preferred.map_or(tail, |before| before.min(tail)));
            }
            if let Some(tail) = preferred {
                self.tail[a] = tail;
                self.live |= 1 << a;
            }
        }
    }

    /// The steps from `a` on that this instant serves when step `k` is next (the end, if `k` is the depth); `None`
    /// when it cannot. As many optional steps as possible, earlier ones first.
    fn used(&self, tie: Option<&Tie>, a: usize, k: usize) -> Option<u32> {
        let (funnel, level) = (self.funnel, self.best.level);
        let Some(tie) = tie else {
            // One row: step `a` alone, and `k` must be able to follow it.
            let follows = if k == level { a + 1 == level } else { funnel.predecessors[k] & (1 << a) != 0 };
            return follows.then_some(1 << a);
        };
        let mut matching = Matching::EMPTY;
        let optional = |step: usize| funnel.optional & (1 << step) != 0;
        let required = |step: usize| step == a || !optional(step) || (k == level && step + 1 == level);
        if !(a..k).filter(|&step| required(step)).all(|step| tie.add(&mut matching, step)) {
            return None;
        }
        let mut used = (a..k).filter(|&step| required(step)).fold(0, |set, step| set | 1 << step);
        for step in (a..k).filter(|&step| !required(step)) {
            if tie.add(&mut matching, step) {
                used |= 1 << step;
            }
        }
        Some(used)
    }
}
