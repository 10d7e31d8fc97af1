//! A part of one date as kernels see it: whose rows are where, and which of them matter.
//!
//! Which rows matter was decided before, by `scan`; what is made of them is the matter of a kernel.

use super::masks::Cpu;
use super::scan::Row;
use super::view::{Planes, Source, View, word};

/// The part of a date that lies in one value, with the rows that matter marked.
///
/// Positions are counted from the first row of the first block that is read; [`Tile::row`] gives the row.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// Days since 2000-01-01.
    pub(super) date: i32,
    /// Whether the date has no other part.
    pub(super) alone: bool,
    pub(super) view: View<'a>,
    pub(super) value: Option<Planes<'a>>,
    /// The number of the first block.
    from: usize,
    /// The first person, and how many there are.
    person: usize,
    pub(super) persons: usize,
    /// The positions of all persons' rows.
    pub(super) span: (usize, usize),
    /// Rows that matter.
    pub(super) selected: &'a [u64],
    /// For each condition the rows that satisfy it, of those that matter.
    masks: &'a [u64],
}

/// Up to 64 bits from a position on.
#[inline(always)]
pub(super) fn bits_at(words: &[u64], at: usize) -> u64 {
    let (i, shift) = (at / 64, at % 64);
    match words.get(i..i + 2) {
        Some(two) => two[0] >> shift | two[1] << 1 << (63 - shift),
        None => words.get(i).map_or(0, |last| last >> shift),
    }
}

impl<'a> Tile<'a> {
    /// The words of a part: the rows that matter, then those of each condition.
    #[inline(always)]
    pub(super) fn new(
        part: &Source<'a>,
        date: i32,
        value: Option<usize>,
        words: Option<&'a [u64]>,
        alone: bool,
    ) -> Self {
        let from = part.rows.start / 64;
        let len = part.rows.end.div_ceil(64) - from;
        let (selected, masks) = words.and_then(|words| words.split_at_checked(len)).unwrap_or_default();
        Self {
            date,
            alone,
            view: part.view,
            value: value.and_then(|column| part.column(column)),
            from,
            person: part.persons.start,
            persons: part.persons.len(),
            span: (part.rows.start - 64 * from, part.rows.end - 64 * from),
            selected,
            masks,
        }
    }

    /// The row at a position.
    #[inline(always)]
    pub(super) fn row(&self, position: usize) -> usize {
        64 * self.from + position
    }

    /// The time at a position.
    #[inline(always)]
    pub(super) fn time(&self, position: usize) -> i64 {
        self.view.time(self.row(position))
    }

    /// The rows of a condition.
    #[inline(always)]
    pub(super) fn mask(&self, condition: usize) -> &'a [u64] {
        let words = self.selected.len();
        self.masks.get(condition * words..(condition + 1) * words).unwrap_or(&[])
    }

    /// Where persons begin in a word of positions, those of this tile.
    #[inline(always)]
    pub(super) fn firsts(&self, i: usize) -> u64 {
        let (begin, end) = self.span;
        word(self.view.firsts, self.from + i) & clip(i, begin, end)
    }

    /// Ties in the rows from a position on, 64 of them.
    #[inline(always)]
    pub(super) fn ties_at(&self, position: usize) -> u64 {
        if self.view.ties.is_empty() {
            return 0;
        }
        let (i, shift) = (self.from + position / 64, position % 64);
        word(self.view.ties, i) >> shift | word(self.view.ties, i + 1) << 1 << (63 - shift)
    }

    /// Sets the bits of positions at which a person was away for longer than `gap` microseconds; those at which persons
    /// begin have no meaning.
    #[inline(always)]
    pub(super) fn pauses<C: Cpu>(&self, cpu: C, gap: u64, out: &mut [u64]) {
        let view = &self.view;
        let gap = gap / view.unit.unsigned_abs();
        let rows = 64 * self.from..self.row(self.span.1);
        if view.high.is_empty() {
            let times = view.times.get(rows).unwrap_or(&[]);
            return cpu.pauses(times, u32::try_from(gap).unwrap_or(u32::MAX), out);
        }
        for (at, row) in rows.enumerate().skip(1) {
            let pause = view.offset(row).wrapping_sub(view.offset(row - 1)).cast_unsigned();
            out[at / 64] |= u64::from(pause > gap) << (at % 64);
        }
    }

    /// The hash of a person, counted from 0 in this tile.
    #[inline(always)]
    pub(super) fn hash(&self, person: usize) -> u64 {
        self.view.hash(self.person + person)
    }

    /// The row that matters at a position.
    #[inline(always)]
    pub(super) fn row_at(&self, position: usize) -> Row {
        let (i, bit) = (position / 64, position % 64);
        let masks = self.masks.chunks_exact(self.selected.len()).enumerate();
        Row {
            time: self.time(position),
            conditions: masks.fold(0, |all, (k, mask)| all | ((mask[i] >> bit) as u32 & 1) << k),
            value: self.value.map_or(0, |planes| planes.code(self.row(position))),
        }
    }

    /// Puts the rows that matter between two positions behind those in the buffer.
    #[inline(always)]
    pub(super) fn gather(&self, begin: usize, end: usize, buffer: &mut Vec<Row>) {
        for i in begin / 64..end.div_ceil(64) {
            let mut rest = self.selected.get(i).copied().unwrap_or(0) & clip(i, begin, end);
            while rest != 0 {
                buffer.push(self.row_at(64 * i + rest.trailing_zeros() as usize));
                rest &= rest - 1;
            }
        }
    }

    /// The persons, each with the positions between which their rows lie.
    #[inline(always)]
    pub(super) fn runs(&self) -> Runs<'_, 'a> {
        let (begin, _) = self.span;
        let first = self.firsts(begin / 64);
        // The first person begins at the first row.
        Runs { tile: self, person: 0, begin, word: begin / 64, firsts: first & first.wrapping_sub(1) }
    }

    /// The same, but only who has rows that matter.
    #[inline(always)]
    pub(super) fn selected_runs(&self) -> SelectedRuns<'_, 'a> {
        let word = self.span.0 / 64;
        let rest = self.selected.first().copied().unwrap_or(0);
        SelectedRuns { tile: self, word: 0, rest, firsts: self.firsts(word), before: 0, begin: self.span.0 }
    }

    /// Whether any row between two positions matters.
    #[inline(always)]
    pub(super) fn any(mask: &[u64], run: &Run) -> bool {
        let mut at = run.begin;
        while at < run.end {
            let rows = u64::MAX >> (64 - (run.end - at).min(64));
            if bits_at(mask, at) & rows != 0 {
                return true;
            }
            at += 64;
        }
        false
    }

    /// The positions of a person's first and last row that matters.
    #[inline(always)]
    pub(super) fn ends(&self, run: &Run) -> Option<(usize, usize)> {
        let mut ends = None;
        let mut at = run.begin;
        while at < run.end {
            let rows = bits_at(self.selected, at) & u64::MAX >> (64 - (run.end - at).min(64));
            if rows != 0 {
                let last = at + rows.ilog2() as usize;
                ends = Some((ends.map_or(at + rows.trailing_zeros() as usize, |(first, _)| first), last));
            }
            at += 64;
        }
        ends
    }

    /// Puts the rows that matter of a person into the buffer, in order; `false` without any.
    #[inline(always)]
    pub(super) fn rows_of(&self, run: &Run, buffer: &mut Vec<Row>) -> bool {
        buffer.clear();
        self.gather(run.begin, run.end, buffer);
        // Rows of one instant lie in the order of their codes.
        if !buffer.is_sorted() {
            buffer.sort_unstable();
        }
        !buffer.is_empty()
    }
}

/// A person of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Counted from 0.
    pub(super) person: usize,
    /// The positions of the rows: the first, and the one behind the last.
    pub(super) begin: usize,
    pub(super) end: usize,
}

pub(super) struct Runs<'t, 'a> {
    tile: &'t Tile<'a>,
    person: usize,
    begin: usize,
    word: usize,
    firsts: u64,
}

impl Iterator for Runs<'_, '_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        let (_, last) = self.tile.span;
        if self.begin >= last {
            return None;
        }
        while self.firsts == 0 && self.word + 1 < self.tile.selected.len() {
            self.word += 1;
            self.firsts = self.tile.firsts(self.word);
        }
        let end =
            if self.firsts == 0 { last } else { 64 * self.word + self.firsts.trailing_zeros() as usize };
        self.firsts &= self.firsts.wrapping_sub(1);
        let run = Run { person: self.person, begin: self.begin, end };
        (self.person, self.begin) = (self.person + 1, end);
        Some(run)
    }
}

/// Goes from row to row that matters, and finds whose it is by counting who began before: most persons have none where
/// a question is narrow.
pub(super) struct SelectedRuns<'t, 'a> {
    tile: &'t Tile<'a>,
    word: usize,
    /// The rows of the word that matter and were not handed out.
    rest: u64,
    /// Where persons begin in the word.
    firsts: u64,
    /// How many began in the words before, and the last of them where.
    before: usize,
    begin: usize,
}

impl SelectedRuns<'_, '_> {
    #[inline(always)]
    fn step(&mut self) {
        self.before += self.firsts.count_ones() as usize;
        if let Some(last) = self.firsts.checked_ilog2() {
            self.begin = 64 * self.word + last as usize;
        }
        self.word += 1;
        self.firsts = self.tile.firsts(self.word);
        self.rest = self.tile.selected.get(self.word).copied().unwrap_or(0);
    }
}

impl Iterator for SelectedRuns<'_, '_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        while self.rest == 0 {
            if self.word + 1 >= self.tile.selected.len() {
                return None;
            }
            self.step();
        }
        let up_to = self.rest ^ (self.rest - 1);
        let began = self.firsts & up_to;
        let begin = began.checked_ilog2().map_or(self.begin, |last| 64 * self.word + last as usize);
        let person = self.before + began.count_ones() as usize - 1;
        let mut behind = self.firsts & !up_to;
        while behind == 0 && self.word + 1 < self.tile.selected.len() {
            self.step();
            behind = self.firsts;
        }
        let (_, last) = self.tile.span;
        let end = if behind == 0 {
            self.rest = 0;
            last
        } else {
            // Those below are of this person.
            self.rest &= !(behind & behind.wrapping_neg()).wrapping_sub(1);
            64 * self.word + behind.trailing_zeros() as usize
        };
        Some(Run { person, begin, end })
    }
}

/// The bits of a word of positions that lie between two positions.
#[inline(always)]
pub(super) fn clip(i: usize, begin: usize, end: usize) -> u64 {
    let from = begin.saturating_sub(64 * i).min(64) as u32;
    let to = end.saturating_sub(64 * i).min(64) as u32;
    let below = |n: u32| u64::MAX.checked_shr(64 - n).unwrap_or(0);
    below(to) & !below(from)
}
