//! The backward pass: the times between a known start and end.

use super::{Best, Funnel, Judged};
use crate::event::Event;
use crate::funnel::mode::low_bits;
use crate::funnel::tie::{Matching, Tie, bits};
use crate::interrupt::Interrupt;
use crate::{AVec, Allocator};

/// The tail of a chain from some step to the last. A left-out step holds [`LEFT_OUT`], so that the order of tails is
/// the order of preference.
type Tail<const N: usize> = [(bool, i64); N];

const LEFT_OUT: (bool, i64) = (true, 0);

/// Per step, the preferred tail that begins there, among those that may still be joined to the start.
struct Trace<'a, I, const N: usize> {
    funnel: &'a Funnel,
    interrupt: I,
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
        interrupt: impl Interrupt,
    ) {
        let mut trace = Trace { funnel: self, interrupt, best, live: 0, tail: [[LEFT_OUT; N]; N] };
        let mut rest = rows;
        while let Some(last) = rest.last() {
            let len = rest.iter().rev().take_while(|e| e.time == last.time).count();
            let (before, rows) = rest.split_at(rest.len() - len);
            interrupt.check();
            trace.instant(rows);
            rest = before;
        }
        debug_assert!(trace.live & 1 != 0, "the forward pass found a chain");
        let chain = trace.tail[0].iter().take(best.level);
        out.extend(chain.map(|&(left_out, time)| (!left_out).then_some(time)));
    }
}

impl<I: Interrupt, const N: usize> Trace<'_, I, N> {
    /// Takes all rows of one instant; instants come in descending order.
    fn instant(&mut self, rows: &[Event]) {
        let funnel = self.funnel;
        let time = rows[0].time;
        let (at_start, at_end) = (time == self.best.start, time == self.best.end);
        let judge = !at_start && !at_end && funnel.judges_rows_inside();
        let judged = judge.then(|| Judged::new(funnel, rows, self.interrupt));
        let passes =
            |next: usize, used: usize| judged.as_ref().is_none_or(|j| j.lets_pass(funnel, next, used));
        let level = self.best.level;
        let union = funnel.union_of(rows, self.interrupt);
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
        let masks = rows.iter().map(|e| funnel.steps_of(e.conditions));
        let tie = (!one_row).then(|| Tie::new(masks, self.interrupt));
        for a in bits(heads).filter(|&a| a < level) {
            // The steps from `a` on that this instant has to serve before `k` can be next.
            let mut required = Matching::EMPTY;
            let mut preferred: Option<Tail<N>> = None;
            for k in a + 1..=level {
                if !self.require(tie.as_ref(), &mut required, a, k - 1) {
                    break;
                }
                if !joinable(k, &self.tail) {
                    continue;
                }
                let Some(used) = self.used(tie.as_ref(), required, a, k) else { continue };
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

    /// Gives `step` a row if a chain that has step `a` here cannot leave it out; false when there is none.
    fn require(&self, tie: Option<&Tie>, required: &mut Matching, a: usize, step: usize) -> bool {
        let optional = step > a && self.funnel.optional & (1 << step) != 0;
        match tie {
            _ if optional => true,
            Some(tie) => tie.add(required, step),
            // One row serves step `a` alone.
            None => step == a,
        }
    }

    /// The steps from `a` on that this instant serves when step `k` is next (the end, if `k` is the depth); `None`
    /// when it cannot, as the last step must have a row. As many optional steps as possible, earlier ones first.
    fn used(&self, tie: Option<&Tie>, mut matching: Matching, a: usize, k: usize) -> Option<u32> {
        let last = if k == self.best.level { 1 << (k - 1) } else { 0 };
        let between = low_bits(k) & !low_bits(a + 1);
        let optional = between & self.funnel.optional;
        let mut used = low_bits(k) & !low_bits(a) & !optional;
        for step in bits(optional & last).chain(bits(optional & !last)) {
            if tie.is_some_and(|tie| tie.add(&mut matching, step)) {
                used |= 1 << step;
            } else if last & (1 << step) != 0 {
                return None;
            }
        }
        Some(used)
    }
}
