//! Sequence patterns over a person's events, in ClickHouse's pattern language and a little more.
//!
//! [`Pattern`] is parsed once and asked about many groups; [`next_node`] finds the event that follows (or precedes) a
//! chain. What does not live here: collecting the events ([`crate::event::EventLog`]) and funnels
//! ([`crate::funnel`]).
//!
//! # Rows
//!
//! A pattern sees the rows of one group on which at least one condition is true, in order of (time, conditions as a
//! number). Rows without a true condition are invisible, so `.`, `.*` and "directly after" do not see them. ClickHouse
//! sorts by time alone and leaves equal times undefined; here they are ordered by content, so the answer never depends
//! on arrival order.
//!
//! # Language
//!
//! | written | meaning |
//! |---|---|
//! | `(?N)` | one row on which condition N (1-based) is true |
//! | `.` | one row, any |
//! | `.*` | any number of rows, also none |
//! | `(?t<=n)`, also `<`, `>=`, `>`, `==` | time gate: the row it stops at compares so with the row before the gate |
//! | `(?N\|M)` | one row on which N or M is true (not in ClickHouse) |
//! | `(?N)?`, `.?` | optional row (not in ClickHouse) |
//! | `(?!N)`, `(?!N\|M)` | negation: N on no row of this gap (not in ClickHouse) |
//! | `^`, `$` | the match starts at the first row, ends with the last row (not in ClickHouse) |
//!
//! `n` is a number of seconds, whole or decimal, or a number with a unit: `us`, `ms`, `s`, `m`, `h`, `d` (24 h), `w`
//! (7 d); it must be a whole number of microseconds. A pattern may match anywhere: `.*` stands in front of it
//! implicitly, unless it starts with `^`. Two items without anything between them match neighbouring rows.
//!
//! # Gaps, gates and negations
//!
//! What is written between two row items is a *gap*: it decides which rows may be skipped between their two rows.
//!
//! 1. An empty gap skips nothing. `.*` skips any number of rows.
//! 2. A gate also skips rows. It looks for a row, at or after the current position, whose time minus the time of the
//!    row before the gate compares as written; the rest of the pattern goes on *at* that row. So `(?1)(?t<=10)(?2)`
//!    allows other rows between the two, and `(?1)(?t>=10)(?2)` finds the first 2 that is ten seconds or more later.
//!    After `.*` (also the implicit one) and after `^` the gate measures from the row at the current position.
//! 3. A negation covers its whole gap: on no row strictly between the row of the previous item and the row of the next
//!    item is N true. On its own it skips rows like `.*`: `(?1)(?!3)(?2)` is "2 after 1 without a 3 in between". With a
//!    gate, `(?1)(?!3)(?t<=30m)(?2)` adds the time limit. In front of the first item it covers the rows from where the
//!    search began (the first row, or the row after the previous counted match); behind the last item it covers all
//!    rows up to the end, or, with `(?t<=n)` or `(?t<n)`, the rows that close: `(?1)(?!2)(?t<=30m)` is "1 and no 2
//!    within the next 30 minutes". It looks ahead only and consumes nothing.
//! 4. An optional item stands for two patterns, one with the item and one without it. Gates and negations written
//!    directly in front of it belong to it and are left out with it; a `.*` stays.
//! 5. A gate that ends the pattern consumes nothing. `>=`, `>` and `==` need a row that satisfies them; `<=` and `<`
//!    (and `>=0`) accept the end of the rows instead of a row, and otherwise need a next row that satisfies them.
//!    ClickHouse reads past its pattern there and answers at random; so it does for some patterns that end in `.*`,
//!    which here simply matches nothing.
//!
//! # Counting
//!
//! [`Pattern::count`] takes the match that ends first, goes on behind the last row it passed, and so on; matches do not
//! overlap. For ClickHouse's own language that is the match its backtracking finds: of two matches the one that starts
//! first can always take over the earlier end of the other. A match without a row advances by one row, so the empty
//! pattern, and any pattern of optional rows only, counts the rows. A group without rows never matches.
//!
//! # Cost
//!
//! No backtracking. A pattern is lowered to edges between its row items, one per pair of items that can follow each
//! other (neighbours, and neighbours across optional items), and all edges advance together, row by row. Each gate
//! needs one number, because for `<=` only the latest row before it can matter and for `>=` only the earliest; `==`
//! keeps a queue of times no older than its duration. So time is O(rows * elements of the pattern) whatever the data,
//! memory O(elements), plus 8 bytes of the caller's allocator for each distinct time inside the duration of an `==`
//! gate, up to twice that while they come and go.

mod compile;
pub mod next_node;
mod parse;
mod run;
#[cfg(test)]
mod tests;

use crate::Allocator;
use crate::event::Event;
use crate::interrupt::Interrupt;

/// The longest pattern, in bytes: more than 4096 elements need, and few enough to parse in no time.
pub const MAX_PATTERN: usize = 1 << 16;

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at character {position}")]
pub struct PatternError {
    /// Where, counted in characters from 1; one past the last character when the pattern ends too early.
    pub position: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Something else was expected.
    #[error("expected {0}")]
    Expected(&'static str),
    /// The pattern names a condition that does not exist.
    #[error("condition {number} does not exist, expected a number from 1 to {conditions}")]
    NoSuchCondition {
        /// The number in the pattern.
        number: u64,
        /// How many conditions there are.
        conditions: usize,
    },
    /// Two time gates with no row between them.
    #[error("expected an event condition between two time gates")]
    AdjacentGates,
    /// A duration beyond what 64 bits of microseconds hold.
    #[error("expected a shorter duration")]
    DurationTooLong,
    /// A duration that is not a whole number of microseconds.
    #[error("expected a duration of whole microseconds")]
    DurationTooFine,
    /// The text is longer than the longest pattern that is read at all.
    #[error("expected at most {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The pattern lowers to more elements than the engine accepts; only very many optional items get there.
    #[error("expected a simpler pattern: more than {limit} elements")]
    TooComplex {
        /// The limit.
        limit: usize,
    },
}

/// A parsed pattern, ready to be asked about any number of groups. See the [module](self) for the language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    program: compile::Program,
}

impl Pattern {
    /// Parses a pattern whose conditions are numbered 1 to `conditions` (at most
    /// [`MAX_CONDITIONS`](crate::event::MAX_CONDITIONS)).
    ///
    /// # Errors
    /// [`PatternError`] with the position of the first character that does not fit and what was expected there.
    pub fn parse(text: &str, conditions: usize) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError { position: 1, problem: Problem::TooLong { limit: MAX_PATTERN } });
        }
        let program = compile::lower(text, &parse::parse(text, conditions)?)?;
        Ok(Self { program })
    }

    /// Whether the pattern matches anywhere in `events`, which must be sorted ([`crate::event::EventLog::sorted`]).
    ///
    /// Rows without a true condition are skipped. No rows: false.
    pub fn matches(
        &self,
        events: &[Event],
        alloc: impl Allocator + Clone,
        interrupt: impl Interrupt,
    ) -> bool {
        run::count(&self.program, events, 1, alloc, interrupt) > 0
    }

    /// How often the pattern matches in sorted `events` without overlap. No rows: 0.
    pub fn count(&self, events: &[Event], alloc: impl Allocator + Clone, interrupt: impl Interrupt) -> u64 {
        run::count(&self.program, events, u64::MAX, alloc, interrupt)
    }
}
