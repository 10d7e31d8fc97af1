//! Advancing all edges of a pattern over the rows of a group, one pass, no backtracking.
//!
//! Vocabulary: a *position* is the place before a row; position `n` is the end. An edge is *entered* at a position
//! when the node it comes from was reached by the row before (or when the search starts there).

use super::compile::{Final, Finish, Op, Program};
use super::parse::{Comparison, Gate};
use crate::event::Event;
use crate::interrupt::Interrupt;
use crate::{AVec, Allocator};

/// Counts non-overlapping matches, up to `limit`.
pub(super) fn count(
    program: &Program,
    events: &[Event],
    limit: u64,
    alloc: impl Allocator + Clone,
    interrupt: impl Interrupt,
) -> u64 {
    let Some(last) = events.iter().rposition(|e| e.conditions != 0) else {
        return 0;
    };
    let events = events.get(..=last).unwrap_or(events);
    let mut run = Run::new(program, events, alloc, interrupt);
    for (index, event) in events.iter().enumerate() {
        interrupt.check();
        if event.conditions != 0 && run.step(index, *event) && (run.found >= limit || run.ended) {
            return run.found;
        }
    }
    run.end();
    run.found
}

struct Run<'a, A: Allocator, I> {
    program: &'a Program,
    interrupt: I,
    events: &'a [Event],
    /// Per node: reached by the previous row. Node 0: the search starts at this position.
    reached: Vec<bool>,
    edges: Vec<EdgeState<A>>,
    finals: Vec<FinalState<A>>,
    /// Whether a match can end before a row instead of with one.
    arrivals: bool,
    previous: i64,
    /// Whether no row has been consumed or skipped since the search started.
    fresh: bool,
    found: u64,
    /// A match took everything up to the last row.
    ended: bool,
}

struct EdgeState<A: Allocator> {
    /// Whether any operation holds something, so that an idle edge costs one test.
    live: bool,
    /// The first operation; most edges have no other, and then nothing is allocated.
    first: OpState<A>,
    rest: Vec<OpState<A>>,
}

struct FinalState<A: Allocator> {
    ops: EdgeState<A>,
    /// For [`Finish::Never`]: index of the next forbidden row, found by scanning ahead once.
    next_forbidden: usize,
}

/// What a star or gate remembers of the positions at which it was entered.
struct OpState<A: Allocator> {
    entered: bool,
    /// The one base time that can matter: latest for upper limits, earliest for lower ones.
    base: i64,
    /// Only for `==`: distinct base times, ascending; those before `first_base` are done with.
    bases: AVec<i64, A>,
    first_base: usize,
}

impl<'a, A: Allocator + Clone, I: Interrupt> Run<'a, A, I> {
    fn new(program: &'a Program, events: &'a [Event], alloc: A, interrupt: I) -> Self {
        let mut reached = vec![false; program.nodes];
        reached[0] = true;
        Self {
            program,
            interrupt,
            events,
            reached,
            arrivals: program.finals.iter().any(|f| f.from == 0 || matches!(f.finish, Finish::After(_))),
            edges: program.edges.iter().map(|e| EdgeState::new(&e.ops, &alloc)).collect(),
            finals: program.finals.iter().map(|end| FinalState::new(end, &alloc)).collect(),
            previous: 0,
            fresh: true,
            found: 0,
            ended: false,
        }
    }

    /// Takes one visible row; true when at least one match ended at or with it.
    fn step(&mut self, index: usize, event: Event) -> bool {
        let before = self.found;
        // Twice at most: after a match the search starts anew at this position, where only an empty match can follow.
        while self.arrivals && self.arrives(index, event.time) {
            self.found += 1;
            let empty = self.fresh;
            self.restart();
            if self.program.anchored_end {
                self.ended = true;
                return true;
            }
            if empty {
                // An empty match advances by one row.
                self.previous = event.time;
                return true;
            }
        }
        self.consume(event);
        if self.completes(index) {
            self.found += 1;
            self.restart();
            self.ended = self.program.anchored_end;
        }
        self.found > before
    }

    /// Lets every edge see the row and sets `reached` for the next position.
    ///
    /// Edges come in descending order of the node they lead to, so `reached` can be overwritten in place: an edge reads
    /// a lower node than it writes, and all that read a node come before those that write it.
    fn consume(&mut self, event: Event) {
        let mut writing = self.reached.len();
        for (edge, state) in self.program.edges.iter().zip(&mut self.edges) {
            let entered = self.reached[edge.from];
            if edge.to != writing {
                writing = edge.to;
                self.reached[writing] = false;
            }
            if !entered && !state.live {
                continue;
            }
            // At the start of the search there is no row before, so gates measure from the row at hand.
            let base = if edge.from == 0 { event.time } else { self.previous };
            let arrived = state.advance(&edge.ops, entered, base, event.time);
            self.reached[writing] |= arrived && event.conditions & edge.mask != 0;
            if event.conditions & edge.forbidden != 0 {
                state.clear();
            }
        }
        self.reached[0] = false;
        self.previous = event.time;
        self.fresh = false;
    }

    /// Whether a final gap arrives at the position before the row `index` of time `time`.
    fn arrives(&mut self, index: usize, time: i64) -> bool {
        let (events, interrupt) = (self.events, self.interrupt);
        let mut any = false;
        for (end, state) in self.program.finals.iter().zip(&mut self.finals) {
            let entered = self.reached[end.from];
            match &end.finish {
                Finish::After(ops) if entered || state.ops.live => {
                    let base = if end.from == 0 { time } else { self.previous };
                    any |= state.ops.advance(ops, entered, base, time);
                }
                Finish::Here if end.from == 0 => any |= entered,
                Finish::Never { forbidden, .. } if end.from == 0 && entered => {
                    any |= state.first_forbidden(events, index, *forbidden, interrupt).is_none();
                }
                _ => {}
            }
        }
        any
    }

    /// Whether the row just consumed, `index`, completes a match.
    fn completes(&mut self, index: usize) -> bool {
        let (events, previous, interrupt) = (self.events, self.previous, self.interrupt);
        self.program.finals.iter().zip(&mut self.finals).any(|(end, state)| {
            end.from != 0
                && self.reached[end.from]
                && match end.finish {
                    Finish::Here => true,
                    Finish::AtLastRow => index + 1 == events.len(),
                    Finish::Never { forbidden, within } => {
                        match (state.first_forbidden(events, index + 1, forbidden, interrupt), within) {
                            (None, _) => true,
                            (Some(_), None) => false,
                            (Some(row), Some(gate)) => !gate.holds(elapsed(previous, row.time)),
                        }
                    }
                    Finish::After(_) => false,
                }
        })
    }

    /// The end of the rows: final gaps may arrive here too.
    fn end(&mut self) {
        if self.ended || self.fresh {
            return;
        }
        let accepted = self.program.finals.iter().zip(&self.finals).any(|(end, state)| match &end.finish {
            Finish::After(ops) => state.ops.accepts_end(ops, self.reached[end.from]),
            _ => false,
        });
        self.found += u64::from(accepted);
    }

    /// Forgets everything and searches from the current position.
    fn restart(&mut self) {
        self.reached.fill(false);
        self.reached[0] = !self.program.anchored_start;
        self.edges.iter_mut().for_each(EdgeState::clear);
        self.finals.iter_mut().for_each(|end| end.ops.clear());
        self.fresh = true;
    }
}

impl<A: Allocator + Clone> EdgeState<A> {
    fn new(ops: &[Op], alloc: &A) -> Self {
        let rest = ops.iter().skip(1).map(|_| OpState::new_in(alloc)).collect();
        Self { live: false, first: OpState::new_in(alloc), rest }
    }

    fn clear(&mut self) {
        if self.live {
            self.live = false;
            for op in std::iter::once(&mut self.first).chain(&mut self.rest) {
                op.entered = false;
                op.bases.clear();
                op.first_base = 0;
            }
        }
    }

    /// Whether the gap can arrive at the position before a row of time `time`. Called once per position while live.
    #[inline]
    fn advance(&mut self, ops: &[Op], entered: bool, base: i64, time: i64) -> bool {
        let Some((first, rest)) = ops.split_first() else {
            return entered;
        };
        self.live |= entered;
        let (mut arrived, mut base) = self.first.advance(*first, entered, base, time);
        for (op, state) in rest.iter().zip(&mut self.rest) {
            (arrived, base) = state.advance(*op, arrived, base, time);
        }
        arrived
    }

    /// Whether the operations accept the end of the rows.
    fn accepts_end(&self, ops: &[Op], entered: bool) -> bool {
        let states = std::iter::once(&self.first).chain(&self.rest);
        ops.iter().zip(states).fold(entered, |arrived, (op, state)| match op {
            Op::Star => arrived || state.entered,
            Op::Gate(gate) => arrived && gate.accepts_end(),
        })
    }
}

impl<A: Allocator + Clone> OpState<A> {
    fn new_in(alloc: &A) -> Self {
        Self { entered: false, base: 0, bases: AVec::new_in(alloc.clone()), first_base: 0 }
    }

    /// Whether the operation lets the position before a row of time `time` pass, and from when a gate behind it
    /// measures.
    #[inline]
    fn advance(&mut self, op: Op, entered: bool, base: i64, time: i64) -> (bool, i64) {
        match op {
            Op::Star => {
                self.entered |= entered;
                (self.entered, time)
            }
            Op::Gate(gate) => {
                if entered {
                    self.enter(gate, base);
                }
                (self.holds(gate, time), base)
            }
        }
    }

    #[inline]
    fn enter(&mut self, gate: Gate, base: i64) {
        match gate.comparison {
            Comparison::AtMost | Comparison::Below => self.base = base,
            Comparison::AtLeast | Comparison::Above if !self.entered => self.base = base,
            Comparison::AtLeast | Comparison::Above => {}
            Comparison::Equal => {
                if self.bases.last() != Some(&base) {
                    // Each time is moved at most once for each that is done with.
                    if self.first_base > self.bases.len() / 2 {
                        self.bases.drain(..self.first_base);
                        self.first_base = 0;
                    }
                    self.bases.push(base);
                }
            }
        }
        self.entered = true;
    }

    #[inline]
    fn holds(&mut self, gate: Gate, time: i64) -> bool {
        if gate.comparison != Comparison::Equal {
            return self.entered && gate.holds(elapsed(self.base, time));
        }
        while let Some(&base) = self.bases.get(self.first_base) {
            let elapsed = elapsed(base, time);
            if elapsed <= gate.micros {
                return elapsed == gate.micros;
            }
            self.first_base += 1;
        }
        false
    }
}

impl<A: Allocator + Clone> FinalState<A> {
    fn new(end: &Final, alloc: &A) -> Self {
        let ops: &[Op] = if let Finish::After(ops) = &end.finish { ops } else { &[] };
        Self { ops: EdgeState::new(ops, alloc), next_forbidden: 0 }
    }

    /// The first row at or behind `index` that has a forbidden condition. Amortized: the scan never goes back.
    fn first_forbidden<'e>(
        &mut self,
        events: &'e [Event],
        index: usize,
        forbidden: u32,
        interrupt: impl Interrupt,
    ) -> Option<&'e Event> {
        let known = events.get(self.next_forbidden).is_some_and(|e| e.conditions & forbidden != 0);
        if self.next_forbidden < index || !known {
            let from = self.next_forbidden.max(index);
            let ahead = events.get(from..).unwrap_or(&[]);
            let found = ahead.iter().position(|e| {
                interrupt.check();
                e.conditions & forbidden != 0
            });
            self.next_forbidden = found.map_or(events.len(), |offset| from + offset);
        }
        events.get(self.next_forbidden)
    }
}

/// Microseconds from one time to a later or equal one; exact over the whole range.
#[inline]
fn elapsed(from: i64, to: i64) -> u64 {
    to.wrapping_sub(from).cast_unsigned()
}
