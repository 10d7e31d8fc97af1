//! The forward pass: how deep, until when, since when.

use super::{Best, Funnel, Judged};
use crate::event::{Event, MAX_CONDITIONS};
use crate::funnel::mode::low_bits;
use crate::funnel::tie::{Matching, Tie, bits};
use crate::interrupt::Interrupt;

/// Per step, the chain there that started last and may still go on.
struct Forward<'a, I> {
    funnel: &'a Funnel,
    interrupt: I,
    live: u32,
    start: [i64; MAX_CONDITIONS],
    last: [i64; MAX_CONDITIONS],
    best: Best,
    entered: bool,
}

impl Funnel {
    pub(super) fn forward(&self, events: &[Event], interrupt: impl Interrupt) -> Best {
        let plain = !self.judges_rows_inside()
            && !self.mode.first_entry
            && self.mode.step_window_us.is_none()
            && self.optional == 0;
        let forward = Forward {
            funnel: self,
            interrupt,
            live: 0,
            start: [0; MAX_CONDITIONS],
            last: [0; MAX_CONDITIONS],
            best: Best::default(),
            entered: false,
        };
        match (plain, self.mode.strict.strict_increase) {
            (false, _) => forward.scan(events),
            (true, false) => forward.scan_plain::<false>(events),
            (true, true) => forward.scan_plain::<true>(events),
        }
    }
}

impl<I: Interrupt> Forward<'_, I> {
    /// The default mode and `strict_increase`: chains only end by their window, so the live steps are always the
    /// first ones.
    fn scan_plain<const INCREASE: bool>(mut self, events: &[Event]) -> Best {
        let Funnel { steps, window, .. } = *self.funnel;
        let all = low_bits(steps);
        let mut rest = events;
        let mut level = 0;
        while let Some((event, tail)) = rest.split_first() {
            self.interrupt.check();
            let time = event.time;
            let mut mask = event.conditions & all;
            let mut deepest_first = true;
            if tail.first().is_some_and(|next| next.time == time) {
                let len = tail.iter().take_while(|e| e.time == time).count() + 1;
                let (rows, tail) = rest.split_at(len);
                rest = tail;
                let one_step_each = rows.iter().all(|e| (e.conditions & all).count_ones() < 2);
                if !INCREASE && !one_step_each {
                    self.instant(rows);
                    level = self.best.level;
                    if level == steps {
                        break;
                    }
                    continue;
                }
                // Which row is of no interest: at most one is used, or there is a different one for each step.
                mask = rows.iter().fold(0, |union, e| union | e.conditions) & all;
                deepest_first = INCREASE;
            } else {
                rest = tail;
            }
            if deepest_first {
                mask &= low_bits(level + 1);
            }
            while mask != 0 {
                // From the deepest step down a row moves no chain twice, upwards one chain may use the whole tie.
                let k = if deepest_first { mask.ilog2() } else { mask.trailing_zeros() } as usize;
                mask ^= 1 << k;
                if k > level {
                    break;
                }
                let start = if k == 0 { time } else { self.start[k - 1] };
                if time.abs_diff(start) > window {
                    continue;
                }
                self.start[k] = start;
                if k == level {
                    level += 1;
                    self.live = low_bits(level);
                    self.best = Best { level, start, end: time };
                    if level == steps {
                        return self.best;
                    }
                }
            }
        }
        self.best
    }

    /// All modes.
    fn scan(mut self, events: &[Event]) -> Best {
        let one_per_instant = self.funnel.mode.strict.strict_increase;
        for rows in events.chunk_by(|a, b| a.time == b.time) {
            self.interrupt.check();
            if rows.len() == 1 || one_per_instant {
                self.one_row(rows);
            } else {
                self.instant(rows);
            }
            if self.best.level == self.funnel.steps {
                break;
            }
        }
        self.best
    }

    /// Whether a chain may start now; `union` holds the steps at hand.
    fn fresh(&mut self, union: u32) -> bool {
        let fresh = union & 1 != 0 && !(self.funnel.mode.first_entry && self.entered);
        self.entered |= union & 1 != 0;
        fresh
    }

    /// The live chains that are near enough to go on at `time`.
    fn in_reach(&self, time: i64) -> u32 {
        let (start, last) = (&self.start, &self.last);
        let Funnel { window, step_window, .. } = *self.funnel;
        let near = |j: &usize| time.abs_diff(start[*j]) <= window && time.abs_diff(last[*j]) <= step_window;
        bits(self.live).filter(near).fold(0, |set, j| set | 1 << j)
    }

    /// Takes an instant at which a chain can use one row at most.
    fn one_row(&mut self, rows: &[Event]) {
        let funnel = self.funnel;
        let time = rows[0].time;
        let judged = funnel.judges_rows_inside().then(|| Judged::new(funnel, rows, self.interrupt));
        let passes =
            |next: usize, used: usize| judged.as_ref().is_none_or(|j| j.lets_pass(funnel, next, used));
        let union = funnel.union_of(rows, self.interrupt);
        let fresh = self.fresh(union);
        let mut moved = 0u32;
        let mut steps = union & !1;
        let from = if steps == 0 { 0 } else { self.in_reach(time) };
        // From the deepest step down, so that predecessors are still as they were before.
        while steps != 0 && from != 0 {
            let k = steps.ilog2() as usize;
            steps ^= 1 << k;
            let Some(start) = bits(from & funnel.predecessors[k]).map(|j| self.start[j]).max() else {
                continue;
            };
            if k >= self.best.level {
                self.best = Best { level: k + 1, start, end: time };
            }
            if passes(k + 1, 1) {
                (self.start[k], self.last[k]) = (start, time);
                moved |= 1 << k;
            }
        }
        if fresh {
            (self.start[0], self.last[0]) = (time, time);
            moved |= 1;
            if self.best.level == 0 {
                self.best = Best { level: 1, start: time, end: time };
            }
        }
        if judged.is_some() {
            for j in bits(self.live & !moved) {
                if !passes(j + 1, 0) {
                    self.live &= !(1 << j);
                }
            }
        }
        self.live |= moved;
    }

    /// Takes several rows of one instant, from which a chain may use several.
    #[inline(never)]
    fn instant(&mut self, rows: &[Event]) {
        let funnel = self.funnel;
        let time = rows[0].time;
        let judged = funnel.judges_rows_inside().then(|| Judged::new(funnel, rows, self.interrupt));
        let passes =
            |next: usize, used: usize| judged.as_ref().is_none_or(|j| j.lets_pass(funnel, next, used));
        let union = funnel.union_of(rows, self.interrupt);
        let mut deepest: Option<(usize, i64)> = None;
        let mut moved = 0u32;
        let mut newest = [0i64; MAX_CONDITIONS];
        let fresh = self.fresh(union);
        if union != 0 {
            let tie = Tie::new(rows.iter().map(|e| funnel.steps_of(e.conditions)), self.interrupt);
            // A chain that starts here is judged by nothing at this instant.
            let here = fresh.then_some((0, time, true));
            let from = bits(self.in_reach(time)).map(|j| (j + 1, self.start[j], false));
            for (first, start, starts_here) in here.into_iter().chain(from) {
                let mut required = Matching::EMPTY;
                for k in bits(low_bits(funnel.steps) & !low_bits(first)) {
                    let optional = funnel.optional & (1 << k) != 0;
                    let mut matching = required;
                    if tie.add(&mut matching, k) {
                        deepest = deepest.max(Some((k, start)));
                        if starts_here || passes(k + 1, k + 1 - first) {
                            newest[k] = if moved & (1 << k) == 0 { start } else { start.max(newest[k]) };
                            moved |= 1 << k;
                        }
                        if !optional {
                            required = matching;
                        }
                    } else if !optional {
                        break;
                    }
                }
            }
        }
        for j in bits(self.live & !moved) {
            if !passes(j + 1, 0) {
                self.live &= !(1 << j);
            }
        }
        for k in bits(moved) {
            (self.start[k], self.last[k]) = (newest[k], time);
        }
        self.live |= moved;
        if let Some((k, start)) = deepest
            && k >= self.best.level
        {
            self.best = Best { level: k + 1, start, end: time };
        }
    }
}
