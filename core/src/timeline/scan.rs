//! Reading slices in order for one question: which rows matter, whose they are, in which order they happened.
//!
//! What is computed from them is a [`Kernel`]. A date may be in several parts; who must be read from all of them
//! together is found by `merge`.

use std::ops::Range;

use super::filter::{NoColumn, Question};
use super::masks::{Cpu, Job, Level};
use super::merge::Merge;
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
/// For each slice, dates ascend, and for each date and person that has rows that matter, `rows` is called with them (or
/// `tile` sees to the same): once, or more often if there are parts, then in order of time and never with one instant
/// in two calls. Behind the last date of the slice, `end` is called once for each of these persons.
pub trait Kernel {
    /// What is known of a person between dates.
    type Person: Default;

    /// Whether it reads most times and events.
    const TIMES: bool = true;

    /// Which rows matter; always the same for one kernel.
    fn question(&self) -> Question;

    /// Takes some of a person's rows of a date, in order; at least one.
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
    for run in tile.selected_runs() {
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
    /// By part, where its words are in `masks`.
    places: Vec<Range<usize>>,
    buffer: Vec<Row>,
    merge: Merge,
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
                places: vec![],
                buffer: vec![],
                merge: Merge::default(),
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
        self.masks.clear();
        self.places.clear();
        self.level.run(Select {
            question: &self.question,
            level: self.level,
            parts,
            masks: &mut self.masks,
            places: &mut self.places,
        })?;
        if parts.len() > 1 {
            self.merge(date, parts);
        }
        self.level.run(Tiles { scan: self, date, parts });
        Ok(())
    }

    /// Hands out the rows of persons whose parts must be read together, and takes them out of the masks.
    fn merge(&mut self, date: i32, parts: &[Source<'_>]) {
        let Self { kernel, question, people, masks, places, buffer, merge, .. } = self;
        let tile = |(part, at): (&_, &Range<usize>)| {
            Tile::new(part, date, question.value, masks.get(at.clone()), false)
        };
        let tiles: Vec<_> = parts.iter().zip(&*places).map(tile).collect();
        merge.persons(&tiles, buffer, &mut |hash, rows| kernel.rows(people.get(hash), rows));
        for (part, run) in merge.taken.drain(..) {
            let words = parts[part].rows.end.div_ceil(64) - parts[part].rows.start / 64;
            for mask in masks[places[part].clone()].chunks_exact_mut(words) {
                (run.begin / 64..run.end.div_ceil(64)).for_each(|i| mask[i] &= !clip(i, run.begin, run.end));
            }
        }
    }

    /// The kernel with the persons of the last slice counted.
    pub fn finish(mut self, interrupt: impl Interrupt) -> K {
        self.leave(interrupt);
        self.kernel
    }

    /// Counts the persons of the slice at hand, of whom nothing may be read after that.
    pub fn leave(&mut self, interrupt: impl Interrupt) {
        let Self { kernel, people, .. } = self;
        people.end(|hash, person| {
            interrupt.check();
            kernel.end(hash, person, interrupt);
        });
    }
}

/// Which rows of the parts matter: the same code for all kernels.
struct Select<'s, 'a> {
    question: &'s Question,
    level: Level,
    parts: &'s [Source<'a>],
    masks: &'s mut Vec<u64>,
    /// Where the words of each part are.
    places: &'s mut Vec<Range<usize>>,
}

impl Job for Select<'_, '_> {
    type Output = Result<(), NoColumn>;

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) -> Self::Output {
        for part in self.parts {
            self.places.push(select(self.question, self.level, part, self.masks)?);
        }
        Ok(())
    }
}

/// Leads the kernel through the parts.
struct Tiles<'s, 'a, K: Kernel> {
    scan: &'s mut Scan<K>,
    date: i32,
    parts: &'s [Source<'a>],
}

impl<K: Kernel> Job for Tiles<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, cpu: C) {
        let Self { scan: Scan { kernel, question, people, masks, places, buffer, .. }, date, parts } = self;
        for (part, at) in parts.iter().zip(places) {
            let tile = Tile::new(part, date, question.value, masks.get(at.clone()), parts.len() == 1);
            kernel.tile(cpu, &tile, people, buffer);
        }
    }
}

/// Appends the words of a part: the rows that matter, then those of each condition.
#[inline(always)]
fn select(
    question: &Question,
    level: Level,
    part: &Source<'_>,
    masks: &mut Vec<u64>,
) -> Result<Range<usize>, NoColumn> {
    if let Some(column) = question.value.filter(|column| part.column(*column).is_none()) {
        return Err(NoColumn(column));
    }
    let from = part.rows.start / 64;
    let words = part.rows.end.div_ceil(64) - from;
    let place = masks.len()..masks.len() + words * (1 + question.conditions.len());
    masks.resize(place.end, 0);
    let (selected, conditions) = masks[place.clone()].split_at_mut(words);
    for (filter, mask) in question.conditions.iter().zip(conditions.chunks_exact_mut(words)) {
        filter.rows(level, part, from, mask)?;
    }
    let (begin, end) = (part.rows.start - 64 * from, part.rows.end - 64 * from);
    match &question.only {
        Some(only) => only.rows(level, part, from, selected)?,
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
