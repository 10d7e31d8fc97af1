//! `window_funnel`: the deepest level by the rules of ClickHouse's `windowFunnel`, version 26.9.
//!
//! A row is read as one entry (time, k) for each true condition k, in ascending k; entries are taken in order of
//! (time, k). With `strict_order` a row without a true condition is the entry (time, 0). For each step one chain is
//! remembered, the one with the newest start:
//!
//! 1. k = 0 ends the scan once any chain has started.
//! 2. k = 1 starts a chain, replacing the one remembered for step 1.
//! 3. `strict_deduplication`: a step beyond the first that was reached before ends the scan.
//! 4. `strict_order`: a step whose predecessor was never reached ends the scan once any chain has started; with
//!    `allow_reentry` it is skipped instead.
//! 5. Otherwise the chain of the predecessor goes on to step k if its start is at most the window ago (inclusive) and,
//!    with `strict_increase`, its last step is earlier.
//!
//! The answer is the deepest step ever reached. Known properties, kept because they are ClickHouse's: without
//! `strict_once` one row may satisfy several steps; `strict_increase` alone may miss the best chain; after the scan
//! has ended nothing later counts. [`super::chain`] has none of them.
//!
//! `strict_once` remembers all chains, and a row counts once per chain. Only rows of the current instant can still be
//! met again, so outside a tie the newest start says everything about a set of chains, and inside a tie the question
//! is a matching of steps to rows: exact, without the list of chains. The one deviation: rows that are equal in
//! (time, k) are taken in order of their conditions, where ClickHouse takes them in order of arrival, which makes its
//! answer depend on how partial states were merged (`strict_once` with `strict_deduplication` only).

use super::mode::{WindowMode, low_bits};
use super::tie::{Matching, Tie, bits};
use crate::event::{Event, MAX_CONDITIONS};
use crate::interrupt::Interrupt;

/// The deepest level reached, 0 to `steps`; 0 without events.
///
/// `events` must be in processing order and hold at least every row with a true condition (every row if
/// [`WindowMode::needs_unmatched_rows`]). Conditions beyond `steps` are ignored, as are steps beyond 32. The window
/// counts from the first step, inclusive, in microseconds; a negative one counts as 0.
///
/// Linear in the events; nothing is allocated. `strict_once` adds matchings of at most 32 steps per tie.
pub fn window_funnel(
    events: &[Event],
    steps: usize,
    window_us: i64,
    mode: WindowMode,
    interrupt: impl Interrupt,
) -> u32 {
    let steps = steps.min(MAX_CONDITIONS);
    let window = u64::try_from(window_us).unwrap_or(0);
    if mode.strict_once {
        let once = Once { steps, window, mode, level: 0, first: [0; MAX_CONDITIONS], interrupt };
        return once.scan(events) as u32;
    }
    let scan = match (mode.strict_increase, mode.strict_order, mode.strict_deduplication) {
        (false, false, false) => scan::<false, false, false, _>,
        (false, false, true) => scan::<false, false, true, _>,
        (false, true, false) => scan::<false, true, false, _>,
        (false, true, true) => scan::<false, true, true, _>,
        (true, false, false) => scan::<true, false, false, _>,
        (true, false, true) => scan::<true, false, true, _>,
        (true, true, false) => scan::<true, true, false, _>,
        (true, true, true) => scan::<true, true, true, _>,
    };
    scan(events, steps, window, mode.allow_reentry, interrupt) as u32
}

/// Whether `time` is at most `window` after `first`, which is not later.
#[inline]
fn within(first: i64, time: i64, window: u64) -> bool {
    time.abs_diff(first) <= window
}

/// All modes but `strict_once`. The steps reached are always the first `level` ones: a step needs its predecessor.
fn scan<const INCREASE: bool, const ORDER: bool, const DEDUPLICATION: bool, I: Interrupt>(
    events: &[Event],
    steps: usize,
    window: u64,
    allow_reentry: bool,
    interrupt: I,
) -> usize {
    let all = low_bits(steps);
    let mut first = [0i64; MAX_CONDITIONS];
    let mut last = [0i64; MAX_CONDITIONS];
    let mut level = 0;
    let mut rest = events;
    while let Some((event, tail)) = rest.split_first() {
        rest = tail;
        interrupt.check();
        let time = event.time;
        let mut union = event.conditions & all;
        let mut repeated = 0;
        let mut unmatched = union == 0;
        // The entries of an instant in ascending k: a third row with the same condition changes nothing.
        while let Some((next, tail)) = rest.split_first()
            && next.time == time
        {
            rest = tail;
            interrupt.check();
            let conditions = next.conditions & all;
            repeated |= union & conditions;
            union |= conditions;
            unmatched |= conditions == 0;
        }
        if ORDER && unmatched && level > 0 {
            return level;
        }
        while union != 0 {
            let k = union.trailing_zeros() as usize;
            union &= union - 1;
            if k == 0 {
                (first[0], last[0]) = (time, time);
                level = level.max(1);
            } else if DEDUPLICATION && k < level {
                return level;
            } else if k > level {
                if ORDER && level > 0 && !allow_reentry {
                    return level;
                }
                // The remaining entries of this instant are further ahead still.
                break;
            } else if within(first[k - 1], time, window) && (!INCREASE || last[k - 1] < time) {
                (first[k], last[k]) = (first[k - 1], time);
                level = level.max(k + 1);
                if DEDUPLICATION && repeated & (1 << k) != 0 {
                    return level;
                }
            }
            if level == steps {
                return level;
            }
        }
    }
    level
}

/// The scan of `strict_once`.
struct Once<I> {
    steps: usize,
    window: u64,
    mode: WindowMode,
    /// Steps 1 to `level` have been reached.
    level: usize,
    /// Per step reached, the newest start of a chain that got there.
    first: [i64; MAX_CONDITIONS],
    interrupt: I,
}

impl<I: Interrupt> Once<I> {
    fn scan(mut self, events: &[Event]) -> usize {
        let all = low_bits(self.steps);
        for tie in events.chunk_by(|a, b| a.time == b.time) {
            let (mut union, mut unmatched) = (0, false);
            for conditions in tie.iter().map(|e| e.conditions & all) {
                self.interrupt.check();
                union |= conditions;
                unmatched |= conditions == 0;
            }
            if self.mode.strict_order && unmatched && self.level > 0 {
                return self.level;
            }
            let ended = match union {
                0 => false,
                _ if self.mode.strict_deduplication => self.deduplicated(tie, union),
                _ => self.tie(tie, union, all),
            };
            if ended || self.level == self.steps {
                return self.level;
            }
        }
        self.level
    }

    /// Whether step `k` (from 0) ends the scan because its predecessor was never reached.
    fn out_of_order(&self, k: usize) -> bool {
        self.mode.strict_order && !self.mode.allow_reentry && self.level > 0 && k > self.level
    }

    /// Takes the rows of one instant; true when the scan has ended.
    fn tie(&mut self, rows: &[Event], union: u32, all: u32) -> bool {
        let time = rows[0].time;
        let (level, first) = (self.level, self.first);
        // reach[j]: a chain that arrives with j steps done can have this many after the instant.
        let mut reach: [usize; MAX_CONDITIONS] =
            std::array::from_fn(|j| j + usize::from(union & (1 << j) != 0));
        if rows.len() > 1 && !self.mode.strict_increase {
            let tie = Tie::new(rows.iter().map(|e| e.conditions & all), self.interrupt);
            for (j, reach) in reach.iter_mut().enumerate().take((level + 1).min(self.steps)) {
                let mut matching = Matching::EMPTY;
                *reach = (j..self.steps).find(|&k| !tie.add(&mut matching, k)).unwrap_or(self.steps);
            }
        }
        for k in bits(union) {
            if self.out_of_order(k) {
                return true;
            }
            let newest = (0..=k.min(level))
                .filter(|&j| reach[j] > k)
                .map(|j| if j == 0 { time } else { first[j - 1] })
                .filter(|&start| within(start, time, self.window))
                .max();
            if let Some(start) = newest {
                self.first[k] = start;
                self.level = self.level.max(k + 1);
                if self.level == self.steps {
                    return true;
                }
            }
        }
        false
    }

    /// The same with `strict_deduplication`, where the second row to reach a step ends the scan: so each step beyond
    /// the first is reached by one known row, and only the row of the first step may still be chosen.
    fn deduplicated(&mut self, rows: &[Event], union: u32) -> bool {
        let time = rows[0].time;
        let increase = self.mode.strict_increase;
        // Chains at step `k - 1` when it was reached in this very instant: how many rows may still be their start,
        // the newest start from before this instant, and the rows they use beyond the start.
        let mut starts = rows.iter().filter(|e| e.conditions & 1 != 0).count();
        let mut earlier = (self.level > 0).then_some(self.first[0]);
        let mut used: [usize; MAX_CONDITIONS] = [0; MAX_CONDITIONS];
        let mut used_len = 0;
        if starts > 0 {
            self.first[0] = time;
            self.level = self.level.max(1);
            if self.steps == 1 {
                return true;
            }
        }
        let mut here = 0;
        for k in bits(union & !1) {
            for (i, row) in rows.iter().enumerate() {
                self.interrupt.check();
                if row.conditions & (1 << k) == 0 {
                    continue;
                }
                if k < self.level || self.out_of_order(k) {
                    return true;
                }
                if k > self.level {
                    break;
                }
                if here != k - 1 {
                    // The predecessor was reached before this instant, so no row here is used yet.
                    (starts, earlier) = (0, Some(self.first[k - 1]));
                } else if k > 1 && increase {
                    break;
                }
                let start_taken = usize::from(row.conditions & 1 != 0);
                let from_here = if increase { 0 } else { starts.saturating_sub(start_taken) };
                let from_earlier = earlier.filter(|&start| within(start, time, self.window));
                if used[..used_len].contains(&i) || (from_here == 0 && from_earlier.is_none()) {
                    continue;
                }
                (starts, earlier) = (from_here, from_earlier);
                used[used_len] = i;
                used_len += 1;
                here = k;
                self.level = k + 1;
                self.first[k] = from_earlier.filter(|_| from_here == 0).unwrap_or(time);
                if self.level == self.steps {
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
