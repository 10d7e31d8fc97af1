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
    /// The times of the best chain, if chains were asked for (of one step always): as many as the level.
    pub times: &'a [i64],
    /// The value at the step asked for, if the chain got there; with levels only, at the first row of step 1.
    pub value: Option<u32>,
}

/// The funnel of `K` steps, from [`SPARE`] on of fewer as well: each number of steps compiled by itself is fastest, and
/// a newcomer waits for each. `T` is 1 for levels as [`window_funnel`](crate::funnel::window_funnel) gives them,
/// or `K` for chains as [`Funnel`](crate::funnel::Funnel) gives them; `V` is 1 when a value is asked for, else 0.
pub struct Steps<const K: usize, const T: usize, const V: usize, F> {
    question: Question,
    window: u64,
    /// The last step, from 0; `K - 1` below [`SPARE`].
    last: usize,
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
        Self { times: [NEVER; T], value: [0; V] }
    }
}

/// A person: for each step reached the chain there with the newest start.
#[derive(Debug, Clone, Copy)]
pub struct Progress<const K: usize, const T: usize, const V: usize> {
    /// Those of steps that were not reached start [`NEVER`].
    chains: [Chain<T, V>; K],
    best: Chain<T, V>,
}

/// From here on a kernel takes fewer steps than it has room for.
const SPARE: usize = 5;

/// No time of a timeline.
const NEVER: i64 = i64::MIN;

impl<const K: usize, const T: usize, const V: usize> Default for Progress<K, T, V> {
    fn default() -> Self {
        Self { chains: [Chain::default(); K], best: Chain::default() }
    }
}

impl<const K: usize, const T: usize, const V: usize> Progress<K, T, V> {
    /// Whether step `s` was reached.
    #[inline(always)]
    fn has(&self, s: usize) -> bool {
        self.chains[s].times[0] != NEVER
    }

    /// Whether a row of step `s`, from 1, would change anything.
    #[inline(always)]
    fn awaits(&self, s: usize) -> bool {
        self.chains[s].times[0] != self.chains[s - 1].times[0]
    }

    /// The first row of step 1: the best chain of one step, and where the value of levels comes from.
    #[inline(always)]
    fn first(&mut self, chain: impl FnOnce() -> Chain<T, V>) {
        if (T == K || V > 0) && !self.has(0) {
            self.best = chain();
        }
    }

    /// A row of step `s`, from 1, if it `is` one: the chain before goes on, unless that one is no news or too old.
    #[inline(always)]
    fn go_on(&mut self, is: bool, s: usize, time: i64, window: u64, value: impl Fn() -> Option<[u32; V]>) {
        let goes_on = is & self.awaits(s) & (time.abs_diff(self.chains[s - 1].times[0]) <= window);
        if T == 1 {
            // Nobody knows beforehand who goes on: no branch.
            let start = self.chains[s - 1].times[0];
            self.chains[s].times[0] = if goes_on { start } else { self.chains[s].times[0] };
        } else if goes_on {
            let mut chain = self.chains[s - 1];
            chain.times[s] = time;
            chain.value = value().unwrap_or(chain.value);
            if !self.has(s) {
                self.best = chain;
            }
            self.chains[s] = chain;
        }
    }
}

impl<const K: usize, const T: usize, const V: usize, F: FnMut(Reached<'_>)> Steps<K, T, V, F> {
    /// The funnel of the question's conditions. `None` when there are too few or too many of them, when unmatched rows
    /// are asked for, or when chains are and a row may satisfy two steps: then rows are to be matched to steps.
    ///
    /// The window is inclusive, in microseconds, a negative one counts as 0. `value_of` is the step, from 0, at which
    /// the value of a chain is taken; levels have that of the first row of step 1, so 0.
    pub fn new(question: Question, window_us: i64, value_of: usize, each: F) -> Option<Self> {
        let steps = question.conditions.len();
        let fits = (steps == K || (K >= SPARE && (1..K).contains(&steps)))
            && value_of < steps
            && (T == K || value_of == 0)
            && !question.unmatched
            && (T == 1 || (T == K && question.is_disjoint()))
            && question.value.is_some() == (V == 1);
        let window = u64::try_from(window_us).unwrap_or(0);
        fits.then_some(Self { question, window, last: steps.wrapping_sub(1), value_of, each })
    }

    /// Whether nothing can change any more.
    #[inline(always)]
    fn is_done(&self, person: &Progress<K, T, V>) -> bool {
        person.has(if K < SPARE { K - 1 } else { self.last })
    }

    /// Whether the value of a row of step `s` is kept.
    #[inline(always)]
    fn keeps(&self, s: usize) -> bool {
        V > 0 && s == self.value_of
    }

    /// A person's rows of a date that lie in one word, each condition's by itself, `begin` the position of the first.
    #[inline(always)]
    fn advance(&self, state: &mut Progress<K, T, V>, steps: &[u64; K], begin: usize, tile: &Tile<'_>) {
        let value = |s: usize, at: usize| {
            let code = || tile.value.map_or(0, |planes| planes.code(tile.row(begin + at)));
            self.keeps(s).then(|| [code(); V])
        };
        let start = |time, at| Chain { times: [time; T], value: value(0, at).unwrap_or([0; V]) };
        let mut person = *state;
        if steps[0] != 0 {
            let at = steps[0].trailing_zeros() as usize;
            person.first(|| start(tile.time(begin + at), at));
        }
        // Bits of rows that are still to be looked at.
        let mut rest = u64::MAX;
        while !self.is_done(&person) {
            let ones = steps[0] & rest;
            let mut later = 0;
            for (s, rows) in steps.iter().enumerate().skip(1) {
                later |= if person.awaits(s) { *rows } else { 0 };
            }
            // Whatever comes behind a new start may go on from there.
            if K > 1 {
                later |= steps[1] & !(ones ^ ones.wrapping_sub(1));
            }
            later &= rest;
            if ones | later == 0 {
                break;
            }
            let before = ones & (later & later.wrapping_neg()).wrapping_sub(1);
            let at = if before != 0 { 63 - before.leading_zeros() } else { later.trailing_zeros() } as usize;
            let time = tile.time(begin + at);
            for s in (1..K).rev() {
                person.go_on(steps[s] >> at & 1 == 1, s, time, self.window, || value(s, at));
            }
            if T > 1 {
                if before != 0 {
                    person.chains[0] = start(time, at);
                }
            } else {
                let start = &mut person.chains[0].times[0];
                *start = if before != 0 { time } else { *start };
            }
            rest = u64::MAX << at << 1;
        }
        *state = person;
    }
}

impl<const K: usize, const T: usize, const V: usize, F: FnMut(Reached<'_>)> Kernel for Steps<K, T, V, F> {
    type Person = Progress<K, T, V>;

    fn question(&self) -> Question {
        self.question.clone()
    }

    fn rows(&mut self, person: &mut Progress<K, T, V>, rows: &[Row]) {
        for tie in rows.chunk_by(|a, b| a.time == b.time) {
            if self.is_done(person) {
                return;
            }
            let (time, union) = (tie[0].time, tie.iter().fold(0, |union, row| union | row.conditions));
            for s in 0..K {
                let first = || tie.iter().find(|row| row.conditions >> s & 1 == 1).map_or(0, |row| row.value);
                let value = || self.keeps(s).then(|| [first(); V]);
                let is = union >> s & 1 == 1;
                if s > 0 {
                    person.go_on(is, s, time, self.window, value);
                } else if is {
                    let start = Chain { times: [time; T], value: value().unwrap_or([0; V]) };
                    person.first(|| start);
                    person.chains[0] = start;
                }
            }
        }
    }

    fn end(&mut self, hash: u64, person: &mut Progress<K, T, V>, _: impl Interrupt) {
        let level = (0..K).take_while(|s| person.has(*s)).count();
        if level > 0 {
            let times = if T == K { person.best.times.get(..level).unwrap_or(&[]) } else { &[] };
            let value = person.best.value.first().copied().filter(|_| level > self.value_of);
            (self.each)(Reached { hash, level, times, value });
            *person = Progress::default();
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
        let masks: [&[u64]; K] = std::array::from_fn(|s| tile.mask(s));
        for run in tile.selected_runs() {
            let Run { person, begin, end } = run;
            let (mut steps, mut any, mut twice) = ([0; K], 0, 0);
            let short = end - begin <= 64;
            if short {
                let these = u64::MAX >> (64 - (end - begin));
                for (step, mask) in steps.iter_mut().zip(&masks) {
                    *step = bits_at(mask, begin) & these;
                    twice |= any & *step;
                    any |= *step;
                }
            }
            // Without any chain only the first step matters.
            let Some(person) = people.find(tile.hash(person), !short || steps[0] != 0) else { continue };
            if self.is_done(person) {
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
