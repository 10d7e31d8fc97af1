//! Questions: each is a [`Kernel`] that a [`Scan`](super::Scan) leads through slices. Whatever has an aggregate over
//! rows gives the answer of that aggregate; [`EachPerson`] is how it gets its rows, and faster kernels say for which
//! questions they stand in.

mod counts;
mod paths;
mod retention;
mod sessions;
mod steps;

pub use counts::{FirstLast, Persons, Trend};
pub use paths::{Edge, PathRules, paths};
pub use retention::{Cohorts, NotCalendar};
pub use sessions::SessionRuns;
pub use steps::{Reached, Steps};

use super::{Kernel, Question, Row};
use crate::event::Event;
use crate::interrupt::Interrupt;

/// Hands out all rows of a person that matter, in order: for whatever takes them together.
pub struct EachPerson<F> {
    question: Question,
    each: F,
}

impl<F: FnMut(u64, &[Row])> EachPerson<F> {
    /// Calls `each` with a person's hash and rows, at least one.
    pub fn new(question: Question, each: F) -> Self {
        Self { question, each }
    }
}

impl<F: FnMut(u64, &[Row])> Kernel for EachPerson<F> {
    type Person = Vec<Row>;

    fn question(&self) -> Question {
        self.question.clone()
    }

    #[inline(always)]
    fn rows(&mut self, person: &mut Vec<Row>, rows: &[Row]) {
        person.extend_from_slice(rows);
    }

    fn end(&mut self, hash: u64, person: &mut Vec<Row>, _: impl Interrupt) {
        // They are, unless somebody altered bytes that nobody checked; what takes them may rely on it.
        if !person.is_sorted() {
            person.sort_unstable();
        }
        (self.each)(hash, person);
        // The next person at this place uses the memory again, unless there was much of it.
        if person.capacity() > 1 << 16 { *person = vec![] } else { person.clear() }
    }
}

/// Rows as funnels and sequences take them, in their order; `events` is memory to use again.
pub fn as_events<'a>(rows: &[Row], events: &'a mut Vec<Event>) -> &'a [Event] {
    events.clear();
    events.extend(rows.iter().map(|row| Event { time: row.time, conditions: row.conditions }));
    events
}
