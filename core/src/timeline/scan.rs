//! Reading slices in order for one question: which rows matter, whose they are, in which order they happened.
//!
//! What is computed from them is a [`Kernel`]. A date that is in several parts is merged here, row by row for persons
//! that are in several of them; everybody else is read where they are.

use std::ops::Range;

use super::filter::{NoColumn, Question};
use super::masks::{Cpu, Job, Level};
use super::people::People;
use super::tile::{Tile, clip};
use super::view::Source;
use crate::event::MAX_CONDITIONS;
use crate::interrupt::Interrupt;

/// A row that matters to a question. The order of the type is the order of processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Event time in microseconds.
    pub time: i64,
    /// Which conditions of the question it satisfies.
    pub conditions: u32,
    /// The code of the column that the question asked for, 0 if for none.
    pub value: u32,
}

/// What is computed of the rows that matter.
///
/// For each slice, dates ascend, and for each date and person that has a row that matters, `rows` is called once (or
/// `tile` sees to the same). Behind the last date of the slice, `end` is called once for each of these persons.
pub trait Kernel {
    /// What is known of a person between dates.
    type Person: Default;

    /// Which rows matter; always the same for one kernel.
    fn question(&self) -> Question;

    /// Takes a person's rows of a date, in order; at least one.
    fn rows(&mut self, person: &mut Self::Person, rows: &[Row]);

    /// Takes leave of a person, whose state must be left as a new one is.
    fn end(&mut self, hash: u64, person: &mut Self::Person, interrupt: impl Interrupt);

    /// Takes the rows of a part of a date. Another one than this must do the same, only faster; `#[inline(always)]`.
    #[inline(always)]
    fn tile<C: Cpu>(
        &mut self,
        cpu: C,
        tile: &Tile<'_>,
        people: &mut People<Self::Person>,
        buffer: &mut Vec<Row>,
    ) {
        let _ = cpu;
        read_rows(self, tile, people, buffer);
    }
}

/// Takes the rows of a tile person by person.
#[inline(always)]
pub(super) fn read_rows<K: Kernel + ?Sized>(
    kernel: &mut K,
    tile: &Tile<'_>,
    people: &mut People<K::Person>,
    buffer: &mut Vec<Row>,
) {
    for run in tile.runs() {
        if tile.rows_of(&run, buffer) {
            kernel.rows(people.get(tile.hash(run.person)), buffer);
        }
    }
}

/// Why slices cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// More conditions than a row can carry.
    #[error("a question has at most {MAX_CONDITIONS} conditions, got {0}")]
    Conditions(usize),
    /// A property that was not read with the slice.
    #[error("a question needs property {0}, which was not read")]
    Property(usize),
    /// Slices must ascend, and for each slice the dates, all parts of a date at once.
    #[error(
        "slices are not read in order: slice {slice}, date {date} after slice {last_slice}, date {last_date}"
    )]
    Order {
        /// The slice at hand.
        slice: u32,
        /// The date at hand.
        date: i32,
        /// The slice before.
        last_slice: u32,
        /// The date before.
        last_date: i32,
    },
    /// A value lies where another one belongs.
    #[error("timeline of slice {slice}, date {date} holds another slice or date")]
    Place {
        /// The slice asked for.
        slice: u32,
        /// The date asked for.
        date: i32,
    },
}

impl From<NoColumn> for ScanError {
    fn from(NoColumn(column): NoColumn) -> Self {
        Self::Property(column)
    }
}

/// Leads a kernel through slices.
pub struct Scan<K: Kernel> {
    kernel: K,
    question: Question,
    bits: u32,
    level: Level,
    people: People<K::Person>,
    last: Option<(u32, i32)>,
    masks: Vec<u64>,
    buffer: Vec<Row>,
}

impl<K: Kernel> Scan<K> {
    /// Nothing read yet. Slices are told apart by the first `bits` bits of the hash.
    ///
    /// # Errors
    /// A question with too many conditions.
    pub fn new(kernel: K, bits: u32, level: Level) -> Result<Self, ScanError> {
        let question = kernel.question();
        match question.conditions.len() {
            n if n > MAX_CONDITIONS => Err(ScanError::Conditions(n)),
            _ => Ok(Self {
                kernel,
                question,
                bits,
                level,
                people: People::new(bits),
                last: None,
                masks: vec![],
                buffer: vec![],
            }),
        }
    }

    /// Reads all parts of a slice on a date (days since 2000-01-01): slices must ascend, and the dates of a slice.
    ///
    /// # Errors
    /// Another order; parts of another slice or date; a property that the parts were given without. After an error the
    /// answer has no meaning.
    pub fn read(
        &mut self,
        slice: u32,
        date: i32,
        parts: &[Source<'_>],
        interrupt: impl Interrupt,
    ) -> Result<(), ScanError> {
        interrupt.check();
        if let Some((last_slice, last_date)) = self.last.replace((slice, date)) {
            if (slice, date) <= (last_slice, last_date) {
                return Err(ScanError::Order { slice, date, last_slice, last_date });
            }
            if slice > last_slice {
                self.leave(interrupt);
            }
        }
        let of_slice =
            |part: &Source<'_>, person| super::slice_of(part.view.hash(person), self.bits) == slice;
        let in_place = |part: &Source<'_>| {
            part.view.date() == date.into()
                && of_slice(part, part.persons.start)
                && of_slice(part, part.persons.end - 1)
        };
        if !parts.iter().all(in_place) {
            return Err(ScanError::Place { slice, date });
        }
        self.level.run(Read { scan: self, date, parts })
    }

    /// The kernel with the persons of the last slice counted.
    pub fn finish(mut self, interrupt: impl Interrupt) -> K {
        self.leave(interrupt);
        self.kernel
    }

    fn leave(&mut self, interrupt: impl Interrupt) {
        let Self { kernel, people, .. } = self;
        people.end(|hash, person| {
            interrupt.check();
            kernel.end(hash, person, interrupt);
        });
    }
}

struct Read<'s, 'a, K: Kernel> {
    scan: &'s mut Scan<K>,
    date: i32,
    parts: &'s [Source<'a>],
}

impl<K: Kernel> Job for Read<'_, '_, K> {
    type Output = Result<(), ScanError>;

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) -> Self::Output {
        let Self { scan: Scan { kernel, question, people, masks, buffer, .. }, date, parts } = self;
        masks.clear();
        let mut places = Places::default();
        for (i, part) in parts.iter().enumerate() {
            let place = select(question, part, masks)?;
            if i == 0 { places.first = place } else { places.more.push(place) }
        }
        let value = question.value;
        if parts.len() > 1 {
            // Rows of persons in several parts are taken out before the others are read where they are.
            merge(parts, date, value, &places, masks, buffer, |hash, rows| {
                kernel.rows(people.get(hash), rows)
            });
        }
        for (part, place) in parts.iter().zip(places.iter()) {
            kernel.tile(cpu, &Tile::new(part, date, value, masks.get(place.clone())), people, buffer);
        }
        Ok(())
    }
}

/// Where the words of each part are: those of the only part in most cases, without an allocation.
#[derive(Default)]
struct Places {
    first: Range<usize>,
    more: Vec<Range<usize>>,
}

impl Places {
    fn iter(&self) -> impl Iterator<Item = &Range<usize>> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// Appends the words of a part: the rows that matter, then those of each condition.
#[inline(always)]
fn select(question: &Question, part: &Source<'_>, masks: &mut Vec<u64>) -> Result<Range<usize>, NoColumn> {
    if let Some(column) = question.value.filter(|column| part.column(*column).is_none()) {
        return Err(NoColumn(column));
    }
    let from = part.rows.start / 64;
    let words = part.rows.end.div_ceil(64) - from;
    let place = masks.len()..masks.len() + words * (1 + question.conditions.len());
    masks.resize(place.end, 0);
    let (selected, conditions) = masks[place.clone()].split_at_mut(words);
    for (filter, mask) in question.conditions.iter().zip(conditions.chunks_exact_mut(words)) {
        filter.rows(part, from, mask)?;
    }
    let (begin, end) = (part.rows.start - 64 * from, part.rows.end - 64 * from);
    match &question.only {
        Some(only) => only.rows(part, from, selected)?,
        None => selected.fill(u64::MAX),
    }
    selected[0] &= clip(0, begin, end);
    selected[words - 1] &= clip(words - 1, begin, end);
    for (i, selected) in selected.iter_mut().enumerate() {
        let mut any = if question.unmatched { *selected } else { 0 };
        for mask in conditions.chunks_exact_mut(words) {
            mask[i] &= *selected;
            any |= mask[i];
        }
        *selected = any;
    }
    Ok(place)
}

/// Calls `each` with the rows of persons in several parts, and takes the marks off these rows.
fn merge(
    parts: &[Source<'_>],
    date: i32,
    value: Option<usize>,
    places: &Places,
    masks: &mut [u64],
    buffer: &mut Vec<Row>,
    mut each: impl FnMut(u64, &[Row]),
) {
    // Per part, the person it is at and where that one begins.
    let mut at: Vec<(usize, usize)> = parts.iter().map(|p| (p.persons.start, p.rows.start)).collect();
    loop {
        let hashes = parts
            .iter()
            .zip(&at)
            .map(|(part, (person, _))| part.persons.contains(person).then(|| part.view.hash(*person)));
        let Some(least) = hashes.clone().flatten().min() else { return };
        let shared = hashes.filter(|hash| *hash == Some(least)).count() > 1;
        buffer.clear();
        for ((part, at), place) in parts.iter().zip(&mut at).zip(places.iter()) {
            if !part.persons.contains(&at.0) || part.view.hash(at.0) != least {
                continue;
            }
            let end = part.view.next_begin(at.1).min(part.rows.end);
            if shared {
                let tile = Tile::new(part, date, value, masks.get(place.clone()));
                let first = 64 * (part.rows.start / 64);
                let (begin, end) = (at.1 - first, end - first);
                tile.gather(begin, end, buffer);
                let words = tile.selected.len();
                for words in masks[place.clone()].chunks_exact_mut(words) {
                    (begin / 64..end.div_ceil(64)).for_each(|i| words[i] &= !clip(i, begin, end));
                }
            }
            *at = (at.0 + 1, end);
        }
        if !buffer.is_empty() {
            buffer.sort_unstable();
            each(least, buffer);
        }
    }
}
