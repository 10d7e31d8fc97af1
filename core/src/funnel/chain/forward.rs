//! The forward pass: how deep, until when, since when.

use super::{Best, Funnel, Judged};
use crate::event::{Event, MAX_CONDITIONS};
use crate::funnel::mode::low_bits;
use crate::funnel::tie::{Matching, Tie, bits};

/// Per step, the chain there that started last and may still go on.
struct Forward<'a> {
    funnel: &'a Funnel,
    live: u32,
    start: [i64; MAX_CONDITIONS],
    last: [i64; MAX_CONDITIONS],
    best: Best,
    entered: bool,
}

impl Funnel {
    pub(super) fn forward(&self, events: &[Event]) -> Best {
        let plain = !self.judges_rows_inside()
            && !self.mode.first_entry
            && self.mode.step_window_us.is_none()
            && self.optional == 0;
        let forward = Forward {
            funnel: self,
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

impl Forward<'_> {
    /// The default mode and `strict_increase`: chains only end by their window, so the live steps are always the
    /// first ones.
    fn scan_plain<const INCREASE: bool>(mut self, events: &[Event]) -> Best {
        let Funnel { steps, window, .. } = *self.funnel;
        let all = low_bits(steps);
        let mut rest = events;
        let mut level = 0;
        while let Some((event, tail)) = rest.split_first() {
            let time = event.time;
            let mut mask = event.conditions & all;
            if tail.first().is_some_and(|next| next.time == time) {
                let len = tail.iter().take_while(|e| e.time == time).count() + 1;
                let (rows, tail) = rest.split_at(len);
                rest = tail;
                if !INCREASE {
                    self.instant(rows);
                    level = self.best.level;
                    if level == steps {
                        break;
                    }
                    continue;
                }
                // At most one row of an instant is used, so which row is of no interest.
                mask = rows.iter().fold(0, |union, e| union | e.conditions) & all;
            } else {
                rest = tail;
            }
            mask &= low_bits(level + 1);
            // From the deepest step down, so that a row moves no chain twice.
            while mask != 0 {
                let k = mask.ilog2() as usize;
                mask ^= 1 << k;
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
        for rows in events.chunk_by(|a, b| a.time == b.time) {
            self.instant(rows);
            if self.best.level == self.funnel.steps {
                break;
            }
        }
        self.best
    }

    /// Takes all rows of one instant.
    fn instant(&mut self, rows: &[Event]) {
        let funnel = self.funnel;
        let time = rows[0].time;
        let judged = funnel.judges_rows_inside().then(|| Judged::new(funnel, rows));
        let passes = |reached: usize, used: usize| {
            judged.as_ref().is_none_or(|j| j.lets_pass(funnel, reached + 1, used))
        };
        let union = rows.iter().fold(0, |union, e| union | funnel.steps_of(e.conditions));
        let mut ended: [Option<i64>; MAX_CONDITIONS] = [None; MAX_CONDITIONS];
        let mut goes_on: [Option<i64>; MAX_CONDITIONS] = [None; MAX_CONDITIONS];
        let mut arrive = |k: usize, start: i64, may_go_on: bool| {
            ended[k] = ended[k].max(Some(start));
            if may_go_on {
                goes_on[k] = goes_on[k].max(Some(start));
            }
        };
        let fresh = union & 1 != 0 && !(funnel.mode.first_entry && self.entered);
        self.entered |= union & 1 != 0;
        let in_reach = |j: usize| {
            time.abs_diff(self.start[j]) <= funnel.window && time.abs_diff(self.last[j]) <= funnel.step_window
        };
        let from = bits(self.live).filter(|&j| in_reach(j));
        if rows.len() == 1 || funnel.mode.strict.strict_increase {
            if fresh {
                arrive(0, time, true);
            }
            for j in from {
                for k in bits(union & !low_bits(j + 1)).filter(|k| funnel.predecessors[*k] & (1 << j) != 0) {
                    arrive(k, self.start[j], passes(k, 1));
                }
            }
        } else if union != 0 {
            let tie = Tie::new(rows.iter().map(|e| funnel.steps_of(e.conditions)));
            // A chain that starts here is judged by nothing at this instant.
            let here = fresh.then_some((0, time, true));
            for (first, start, starts_here) in
                here.into_iter().chain(from.map(|j| (j + 1, self.start[j], false)))
            {
                let mut required = Matching::EMPTY;
                for k in first..funnel.steps {
                    let optional = funnel.optional & (1 << k) != 0;
                    let mut matching = required;
                    if tie.add(&mut matching, k) {
                        arrive(k, start, starts_here || passes(k, k + 1 - first));
                        if !optional {
                            required = matching;
                        }
                    } else if !optional {
                        break;
                    }
                }
            }
        }
        for j in bits(self.live) {
            if !passes(j, 0) {
                self.live &= !(1 << j);
            }
        }
        for (k, start) in goes_on.into_iter().enumerate() {
            if let Some(start) = start {
                self.live |= 1 << k;
                (self.start[k], self.last[k]) = (start, time);
            }
        }
        if let Some((k, Some(start))) = ended.into_iter().enumerate().rfind(|(_, start)| start.is_some())
            && k >= self.best.level
        {
            self.best = Best { level: k + 1, start, end: time };
        }
    }
}
