//! `funnel`: the times of the chain of events that got deepest.
//!
//! # What a chain is
//!
//! Conditions are steps in the order given, except those named by `exclude`. A chain gives steps 1 to m, one after the
//! other, a row each that satisfies the step. All rows are different: **one row is one step**. Times never decrease
//! from step to step, and the last is at most the window after the first (inclusive). Rows at the same time may be
//! used in any order, so order inside a tie never matters.
//!
//! Modes narrow or widen that. A row is *inside* a chain when its time is greater than the chain's first and less than
//! its last; a row at the very time of either end is not judged.
//!
//! * `strict_increase`: times increase strictly from step to step.
//! * `strict_order`: every row inside satisfies some step up to the next one due at its time: a step reached by then
//!   (repeats are harmless), or the next step (with optional steps in between: up to the next one not optional). So a
//!   row without any step, or of a later step only, breaks the chain.
//! * `strict_order,allow_reentry`: every row inside satisfies some step, whichever.
//! * `strict_deduplication`: no row inside that the chain does not use satisfies a step from the second to the next one
//!   due at its time. So a repeated step ends the chain (a repeated first step starts a new one), and no choice among
//!   the repeats avoids that.
//! * `strict_once`: nothing more, one row is one step in every mode.
//! * `step_window=D`: consecutive times of the chain are at most D apart (inclusive).
//! * `first_entry`: the first time of the chain is the earliest time at which any row satisfies step 1.
//! * `exclude=N`: no row inside satisfies condition N. So the exclusion ends a chain where it stands; the person keeps
//!   the depth reached before.
//! * `optional=N`: the chain may leave out step N; its place in the answer is then `None`. The depth is the number of
//!   the last step reached. Not with `strict_deduplication`; the first step is never optional.
//! * `any_order`: a chain is any set of steps with a different row each, the latest at most the window after the
//!   earliest; its depth is the size of the set and its times are sorted. Combines with `strict_increase` (all times
//!   differ), `strict_once` and `exclude`.
//!
//! # Which chain
//!
//! The deepest; among those the one that ends first; among those the one that starts last, which makes it the
//! shortest; among those the one with the earliest second time, then the earliest third, and so on, a left-out step
//! counting as latest. That names exactly one list of times: every order of rows gives the same answer.
//!
//! # How
//!
//! A forward pass keeps, per step, only the chain there that started last. This is enough: of two chains at one step,
//! the later arrival never has the earlier start (where two chains cross, one can take over the other's tail), and
//! no mode judges them differently afterwards. It yields depth, end and start. A backward pass between those two does
//! the same from the end and picks the times in between. Both are linear in the rows, times steps where a row
//! satisfies several; rows of one instant are a matching problem (see `tie`).

use super::mode::{Mode, ModeError, low_bits};
use super::tie::bits;
use crate::event::{Event, MAX_CONDITIONS};
use crate::interrupt::Interrupt;
use crate::{AVec, Allocator};

mod forward;
mod trace;
mod unordered;

#[cfg(test)]
mod tests;

/// A funnel ready to be applied to groups of events.
#[derive(Debug, Clone)]
pub struct Funnel {
    mode: Mode,
    /// How many steps there are; every mask below counts steps, not conditions.
    steps: usize,
    window: u64,
    step_window: u64,
    optional: u32,
    /// Per step, the steps that may directly precede it.
    predecessors: [u32; MAX_CONDITIONS],
    /// The conditions that are steps.
    step_conditions: u32,
}

/// How deep the best chain goes, when it ends and starts, and which part of the events it spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Best {
    level: usize,
    start: i64,
    end: i64,
}

impl Funnel {
    /// Prepares a funnel of 1 to 32 `conditions`. The window is inclusive, in microseconds, a negative one counts as
    /// 0. Fails when the mode does not fit the number of conditions.
    pub fn new(mode: Mode, conditions: usize, window_us: i64) -> Result<Self, ModeError> {
        mode.check_conditions(conditions)?;
        let step_conditions = low_bits(conditions) & !mode.exclude;
        let optional = compress(mode.optional, step_conditions);
        let mut predecessors = [0u32; MAX_CONDITIONS];
        for k in 1..MAX_CONDITIONS {
            predecessors[k] = 1 << (k - 1);
            if optional & (1 << (k - 1)) != 0 {
                predecessors[k] |= predecessors[k - 1];
            }
        }
        Ok(Self {
            mode,
            steps: step_conditions.count_ones() as usize,
            window: u64::try_from(window_us).unwrap_or(0),
            step_window: mode.step_window_us.map_or(u64::MAX, |us| u64::try_from(us).unwrap_or(0)),
            optional,
            predecessors,
            step_conditions,
        })
    }

    /// How many steps the funnel has: its conditions without the excluded ones.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether rows without a true condition change the answer and must be among the events.
    pub fn needs_unmatched_rows(&self) -> bool {
        self.mode.needs_unmatched_rows()
    }

    /// Replaces `out` by the times of the best chain, one per step up to the deepest reached; empty when no row
    /// satisfies the first step (any step, with `any_order`).
    ///
    /// `None` stands for a step left out by `optional` and occurs only there; the last entry is always a time.
    /// `events` must be in processing order and hold at least every row with a true condition (every row if
    /// [`Funnel::needs_unmatched_rows`]). Allocates nothing but `out`.
    pub fn run<A: Allocator>(
        &self,
        events: &[Event],
        out: &mut AVec<Option<i64>, A>,
        interrupt: impl Interrupt,
    ) {
        out.clear();
        if self.mode.any_order {
            return self.any_order(events, out, interrupt);
        }
        let best = self.forward(events, interrupt);
        match best.level {
            0 => {}
            1 => out.push(Some(best.start)),
            2 => out.extend_from_slice(&[Some(best.start), Some(best.end)]),
            level => {
                let rows = span(events, best.start, best.end);
                match level {
                    3..=4 => self.trace::<4, A>(rows, best, out, interrupt),
                    5..=8 => self.trace::<8, A>(rows, best, out, interrupt),
                    _ => self.trace::<MAX_CONDITIONS, A>(rows, best, out, interrupt),
                }
            }
        }
    }

    /// The steps among a row's conditions.
    #[inline]
    fn steps_of(&self, conditions: u32) -> u32 {
        // Exclusions behind all steps, the usual case, leave the step numbers as they are.
        if self.step_conditions & self.step_conditions.wrapping_add(1) == 0 {
            conditions & self.step_conditions
        } else {
            compress(conditions, self.step_conditions)
        }
    }

    /// The steps that any of the rows satisfies.
    fn union_of(&self, rows: &[Event], interrupt: impl Interrupt) -> u32 {
        rows.iter().fold(0, |union, e| {
            interrupt.check();
            union | self.steps_of(e.conditions)
        })
    }

    fn excludes(&self, rows: &[Event], interrupt: impl Interrupt) -> bool {
        let exclude = self.mode.exclude;
        exclude != 0
            && rows.iter().any(|e| {
                interrupt.check();
                e.conditions & exclude != 0
            })
    }

    /// The furthest step (from 0) that `strict_order` allows inside a chain whose next step is `next` or, if that one
    /// is optional, a later one.
    fn order_limit(&self, next: usize) -> usize {
        (next..self.steps).find(|k| self.optional & (1 << k) == 0).unwrap_or(self.steps - 1)
    }

    fn judges_rows_inside(&self) -> bool {
        self.mode.strict.strict_order || self.mode.strict.strict_deduplication || self.mode.exclude != 0
    }
}

/// Moves the bits of `set` selected by `keep` together, as the steps are numbered.
fn compress(set: u32, keep: u32) -> u32 {
    bits(keep).enumerate().fold(0, |out, (to, from)| out | (((set >> from) & 1) << to))
}

/// The events from `start` to `end`, both inclusive.
fn span(events: &[Event], start: i64, end: i64) -> &[Event] {
    let from = events.partition_point(|e| e.time < start);
    let to = events.partition_point(|e| e.time <= end);
    &events[from..to]
}

/// What the modes that judge rows inside a chain need to know about the rows of one instant.
struct Judged {
    /// The greatest lowest step of any row; 32 if a row has no step.
    furthest: usize,
    /// The steps of the first row.
    mask: u32,
    /// With several rows and `strict_deduplication`: per step k (from 0), how many rows satisfy one of steps 1 to k.
    repeats: Option<[u32; MAX_CONDITIONS]>,
    excluded: bool,
}

impl Judged {
    fn new(funnel: &Funnel, rows: &[Event], interrupt: impl Interrupt) -> Self {
        let mut judged =
            Self { furthest: 0, mask: 0, repeats: None, excluded: funnel.excludes(rows, interrupt) };
        for (i, row) in rows.iter().enumerate() {
            interrupt.check();
            let mask = funnel.steps_of(row.conditions);
            if i == 0 {
                judged.mask = mask;
            }
            judged.furthest = judged.furthest.max(mask.trailing_zeros() as usize);
        }
        if rows.len() > 1 && funnel.mode.strict.strict_deduplication {
            let mut repeats = [0; MAX_CONDITIONS];
            for row in rows {
                interrupt.check();
                let step = (funnel.steps_of(row.conditions) & !1).trailing_zeros() as usize;
                if let Some(count) = repeats.get_mut(step) {
                    *count += 1;
                }
            }
            for k in 1..MAX_CONDITIONS {
                repeats[k] += repeats[k - 1];
            }
            judged.repeats = Some(repeats);
        }
        judged
    }

    /// Whether a chain may pass this instant when `next` (from 0) is a step that may directly follow the deepest one it
    /// has reached by then, and `used` of the rows belong to it.
    fn lets_pass(&self, funnel: &Funnel, next: usize, used: usize) -> bool {
        let strict = &funnel.mode.strict;
        if strict.strict_order {
            let limit = if strict.allow_reentry { MAX_CONDITIONS - 1 } else { funnel.order_limit(next) };
            if self.furthest > limit {
                return false;
            }
        }
        if strict.strict_deduplication {
            let repeats = match &self.repeats {
                Some(repeats) => repeats[next.min(MAX_CONDITIONS - 1)] as usize,
                None => usize::from(self.mask & !1 & low_bits(next + 1) != 0),
            };
            if repeats != used {
                return false;
            }
        }
        !self.excluded
    }
}
