//! Sessions over slices: the same as [`crate::session::Sessions`] of each person.

use crate::interrupt::Interrupt;
use crate::session::Session;
use crate::timeline::masks::Cpu;
use crate::timeline::scan::read_rows;
use crate::timeline::tile::{Run, bits_at};
use crate::timeline::{Kernel, People, Question, Row, Tile};

/// Hands out each session of each person, a person's in order of time.
///
/// All rows that matter belong to sessions. When all rows do, pauses are found for many rows at once, and only the rows
/// around them are looked at. What a session contains (its first page, purchases) is a matter of
/// [`EachPerson`](super::EachPerson) and [`crate::session::Sessionizer`].
pub struct SessionRuns<F> {
    question: Question,
    gap: u64,
    pauses: Vec<u64>,
    persons: u64,
    each: F,
}

/// The session that a person is in; without events none.
#[derive(Debug, Clone, Copy)]
pub struct Open(Session);

impl Default for Open {
    fn default() -> Self {
        Self(Session { started_at: 0, ended_at: 0, events: 0 })
    }
}

impl<F: FnMut(u64, Session)> SessionRuns<F> {
    /// Sessions of the rows that matter. `gap_us` is the longest pause inside a session, inclusive, in microseconds; a
    /// negative gap counts as 0.
    pub fn new(question: Question, gap_us: i64, each: F) -> Self {
        Self { question, gap: u64::try_from(gap_us).unwrap_or(0), pauses: vec![], persons: 0, each }
    }

    /// How many persons had sessions.
    pub fn persons(&self) -> u64 {
        self.persons
    }
}

impl<F: FnMut(u64, Session)> Kernel for SessionRuns<F> {
    /// With the hash, which comes with the first rows only at the end.
    type Person = (Open, Vec<Session>);

    fn question(&self) -> Question {
        self.question.clone()
    }

    fn rows(&mut self, (Open(open), done): &mut (Open, Vec<Session>), rows: &[Row]) {
        for row in rows {
            if open.events > 0 && row.time.abs_diff(open.ended_at) <= self.gap {
                open.ended_at = row.time;
                open.events += 1;
            } else {
                if open.events > 0 {
                    done.push(*open);
                }
                *open = Session { started_at: row.time, ended_at: row.time, events: 1 };
            }
        }
    }

    fn end(&mut self, hash: u64, (Open(open), done): &mut (Open, Vec<Session>), _: impl Interrupt) {
        done.drain(..).for_each(|session| (self.each)(hash, session));
        if open.events > 0 {
            (self.each)(hash, *open);
            self.persons += 1;
        }
        open.events = 0;
    }

    #[inline(always)]
    fn tile<C: Cpu>(
        &mut self,
        cpu: C,
        tile: &Tile<'_>,
        people: &mut People<(Open, Vec<Session>)>,
        buffer: &mut Vec<Row>,
    ) {
        if self.question.only.is_some() || !self.question.unmatched {
            return read_rows(self, tile, people, buffer);
        }
        let Self { gap, pauses, each, .. } = self;
        pauses.clear();
        pauses.resize(tile.selected.len(), 0);
        tile.pauses(cpu, *gap, pauses);
        for Run { person, begin, end } in tile.runs() {
            // Taken out, as it was merged with other parts.
            if bits_at(tile.selected, begin) & 1 == 0 {
                continue;
            }
            let hash = tile.hash(person);
            let (Open(open), done) = people.get(hash);
            // Sessions before, which were found row by row, come first.
            if !done.is_empty() {
                done.drain(..).for_each(|session| each(hash, session));
            }
            let mut started_at = tile.time(begin);
            let mut before = 0;
            if open.events > 0 {
                if started_at.abs_diff(open.ended_at) <= *gap {
                    (started_at, before) = (open.started_at, open.events);
                } else {
                    each(hash, *open);
                }
            }
            // Rows of the session at hand: from `from` on, and `before` of earlier dates.
            let mut from = begin;
            let mut block = begin + 1;
            while block < end {
                let len = (end - block).min(64);
                let mut rest = bits_at(pauses, block) & u64::MAX >> (64 - len);
                while rest != 0 {
                    let at = block + rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    let events = before + (at - from) as i64;
                    each(hash, Session { started_at, ended_at: tile.time(at - 1), events });
                    (started_at, from, before) = (tile.time(at), at, 0);
                }
                block += len;
            }
            *open =
                Session { started_at, ended_at: tile.time(end - 1), events: before + (end - from) as i64 };
        }
    }
}
