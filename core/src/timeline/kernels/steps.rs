//! Funnels without further modes: the deepest level, or the times of the deepest chain, of steps in order.
//!
//! One pass over the steps of a person, in place; what modes need is [`EachPerson`](super::EachPerson) with
//! [`crate::funnel`], whose default mode this equals. A chain is remembered for each step, the one with the newest
//! start (see [`crate::funnel::chain`]), so a row of step s matters only if there is a chain one step before that has
//! another start than the one at s; of rows of step 1 with nothing that matters between them, only the last does. Both
//! are found by arithmetic on the words of a person's rows, without a look at their times.

use crate::interrupt::Interrupt;
use crate::timeline::masks::Cpu;
use crate::timeline::tile::{Run, bits_at};
use crate::timeline::{Kernel, People, Question, Row, Tile};

/// How far a person got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached<'a> {
    /// The person.
    pub hash: u64,
    /// The deepest level, at least 1.
    pub level: usize,
    /// The times of the best chain, if chains were asked for: as many as the level.
    pub times: &'a [i64],
    /// The value at the step asked for, if the chain got there; with levels only, at the first row of step 1.
    pub value: Option<u32>,
}

/// The funnel of `K` steps at most. `T` is 1 for levels as [`window_funnel`](crate::funnel::window_funnel) gives them,
/// or `K` for chains as [`Funnel`](crate::funnel::Funnel) gives them; `V` is 1 when a value is asked for, else 0.
pub struct Steps<const K: usize, const T: usize, const V: usize, F> {
    question: Question,
    steps: usize,
    window: u64,
    /// The step whose value is wanted, from 0.
    value_of: usize,
    each: F,
}

#[derive(Debug, Clone, Copy)]
struct Chain<const T: usize, const V: usize> {
    /// First the start; with chains the times of the other steps behind it.
    times: [i64; T],
    value: [u32; V],
}

impl<const T: usize, const V: usize> Default for Chain<T, V> {
    fn default() -> Self {
        Self { times: [0; T], value: [0; V] }
    }
}

/// A person: for each step reached the chain there with the newest start.
#[derive(Debug, Clone, Copy)]
pub struct Progress<const K: usize, const T: usize, const V: usize> {
    level: usize,
    chains: [Chain<T, V>; K],
    best: Chain<T, V>,
}

impl<const K: usize, const T: usize, const V: usize> Default for Progress<K, T, V> {
    fn default() -> Self {
        Self { level: 0, chains: [Chain::default(); K], best: Chain::default() }
    }
}

impl<const K: usize, const T: usize, const V: usize> Progress<K, T, V> {
    /// Whether a row of step `s`, from 1, would change anything.
    #[inline(always)]
    fn awaits(&self, s: usize) -> bool {
        s <= self.level && (s == self.level || self.chains[s].times[0] != self.chains[s - 1].times[0])
    }

    #[inline(always)]
    fn start(&mut self, time: i64, value: u32, keep: bool) {
        let mut chain = Chain { times: [time; T], value: [0; V] };
        if keep {
            chain.value = [value; V];
        }
        if self.level == 0 {
            self.level = 1;
            self.best = chain;
        }
        self.chains[0] = chain;
    }

    /// A row of step `s`, which is awaited, from 1.
    #[inline(always)]
    fn go_on(&mut self, s: usize, time: i64, window: u64, value: u32, keep: bool) {
        let mut chain = self.chains[s - 1];
        if time.abs_diff(chain.times[0]) > window {
            return;
        }
        if T > 1 {
            chain.times[s] = time;
            if keep {
                chain.value = [value; V];
            }
        }
        self.chains[s] = chain;
        if s == self.level {
            self.level += 1;
            if T > 1 {
                self.best = chain;
            }
        }
    }
}

impl<const K: usize, const T: usize, const V: usize, F: FnMut(Reached<'_>)> Steps<K, T, V, F> {
    /// The funnel of the question's conditions. `None` when there are more than `K` or none, when unmatched rows are
    /// asked for, or when chains are and a row may satisfy two steps: then rows are to be matched to steps.
    ///
    /// The window is inclusive, in microseconds, a negative one counts as 0. `value_of` is the step, from 0, at which
    /// the value of a chain is taken.
    pub fn new(question: Question, window_us: i64, value_of: usize, each: F) -> Option<Self> {
        let steps = question.conditions.len();
        let fits = (1..=K).contains(&steps)
            && !question.unmatched
            && (T == 1 || (T == K && question.is_disjoint()))
            && question.value.is_some() == (V == 1);
        let window = u64::try_from(window_us).unwrap_or(0);
        fits.then_some(Self { question, steps, window, value_of, each })
    }

    /// The value of a row of step `s` is kept.
    #[inline(always)]
    fn keeps(&self, s: usize) -> bool {
        V > 0 && s == self.value_of
    }

    /// A person's rows of a date that lie in one word, each condition's by itself, `begin` the position of the first.
    #[inline(always)]
    fn advance(&self, person: &mut Progress<K, T, V>, steps: &[u64; K], begin: usize, tile: &Tile<'_>) {
        let value = |at: usize, keep: bool| {
            if V > 0 && keep { tile.value.map_or(0, |planes| planes.code(tile.row(begin + at))) } else { 0 }
        };
        // Bits of rows that are still to be looked at.
        let mut rest = u64::MAX;
        loop {
            let ones = steps[0] & rest;
            let mut later = 0;
            for (s, rows) in steps.iter().enumerate().take(self.steps).skip(1) {
                later |= if person.awaits(s) { *rows } else { 0 };
            }
            // Whatever comes behind a new start may go on from there.
            if K > 1 && ones != 0 {
                later |= steps[1] & !(ones ^ (ones - 1));
            }
            later &= rest;
            let next = later & later.wrapping_neg();
            let before = ones & next.wrapping_sub(1);
            if before != 0 {
                if person.level == 0 {
                    // The first one is the best chain of one step, and where a person's value comes from.
                    let at = ones.trailing_zeros() as usize;
                    person.start(tile.time(begin + at), value(at, self.keeps(0)), self.keeps(0));
                }
                let at = before.ilog2() as usize;
                person.start(tile.time(begin + at), value(at, T > 1 && self.keeps(0)), self.keeps(0));
                if later == 0 {
                    return;
                }
                rest = u64::MAX << at << 1;
                continue;
            }
            if later == 0 {
                return;
            }
            let at = later.trailing_zeros() as usize;
            let time = tile.time(begin + at);
            for s in (1..self.steps).rev() {
                if steps[s] >> at & 1 == 1 && person.awaits(s) {
                    let keep = self.keeps(s);
                    person.go_on(s, time, self.window, value(at, T > 1 && keep), keep);
                }
            }
            if person.level == self.steps {
                return;
            }
            rest = u64::MAX << at << 1;
        }
    }
}

impl<const K: usize, const T: usize, const V: usize, F: FnMut(Reached<'_>)> Kernel for Steps<K, T, V, F> {
    type Person = Progress<K, T, V>;

    fn question(&self) -> Question {
        self.question.clone()
    }

    fn rows(&mut self, person: &mut Progress<K, T, V>, rows: &[Row]) {
        for tie in rows.chunk_by(|a, b| a.time == b.time) {
            if person.level == self.steps {
                return;
            }
            let union = tie.iter().fold(0, |union, row| union | row.conditions);
            let time = tie[0].time;
            for s in 0..self.steps {
                let keep = self.keeps(s);
                let of = || tie.iter().find(|row| row.conditions >> s & 1 == 1).map_or(0, |row| row.value);
                match union >> s & 1 {
                    0 => {}
                    _ if s == 0 => person.start(time, if keep { of() } else { 0 }, keep),
                    _ if person.awaits(s) => {
                        person.go_on(s, time, self.window, if keep && T > 1 { of() } else { 0 }, keep);
                    }
                    _ => {}
                }
            }
        }
    }

    fn end(&mut self, hash: u64, person: &mut Progress<K, T, V>, _: impl Interrupt) {
        let level = person.level;
        if level > 0 {
            let times = if T > 1 { person.best.times.get(..level).unwrap_or(&[]) } else { &[] };
            let value = person.best.value.first().copied().filter(|_| level > self.value_of);
            (self.each)(Reached { hash, level, times, value });
            person.level = 0;
        }
    }

    #[inline(always)]
    fn tile<C: Cpu>(
        &mut self,
        _: C,
        tile: &Tile<'_>,
        people: &mut People<Progress<K, T, V>>,
        buffer: &mut Vec<Row>,
    ) {
        for run in tile.runs() {
            let Run { person, begin, end } = run;
            let (mut steps, mut any, mut twice) = ([0; K], 0, 0);
            let short = end - begin <= 64;
            if short {
                let these = u64::MAX >> (64 - (end - begin));
                for (s, step) in steps.iter_mut().enumerate().take(self.steps) {
                    *step = bits_at(tile.mask(s), begin) & these;
                    twice |= any & *step;
                    any |= *step;
                }
                if any == 0 {
                    continue;
                }
            }
            let hash = tile.hash(person);
            let person = if !short || steps[0] != 0 {
                people.get(hash)
            } else if let Some(person) = people.find(hash) {
                person
            } else {
                continue;
            };
            if person.level == self.steps {
                continue;
            }
            // Rows at one time are in any order, and a row of two steps needs care.
            if short && twice == 0 && tile.ties_at(begin) & any == 0 {
                self.advance(person, &steps, begin, tile);
            } else if tile.rows_of(&run, buffer) {
                self.rows(person, buffer);
            }
        }
    }
}
