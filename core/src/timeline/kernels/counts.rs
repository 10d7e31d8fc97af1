//! Counting rows and persons, and the first and last row of a person.

use std::collections::{BTreeMap, HashMap};

use crate::interrupt::Interrupt;
use crate::retention::calendar::DAY;
use crate::timeline::filter::CodeSet;
use crate::timeline::masks::Cpu;
use crate::timeline::{Kernel, People, Question, Row, Tile};

/// How many rows there are by slot of time and by value.
pub struct Trend {
    question: Question,
    slot: i64,
    /// Per slot, the rows by value.
    counts: HashMap<i64, Vec<u64>>,
    words: Vec<u64>,
}

impl Trend {
    /// Slots are so many microseconds long and begin at multiples of that since 2000-01-01 00:00 UTC; at least one
    /// microsecond, at most a day. Sums of quarters of an hour are days of any zone.
    pub fn new(question: Question, slot_us: i64) -> Self {
        Self { question, slot: slot_us.clamp(1, DAY), counts: HashMap::new(), words: vec![] }
    }

    /// Adds all counts of a kernel of the same question.
    pub fn merge(&mut self, other: &Self) {
        for (slot, counts) in &other.counts {
            let ours = self.counts.entry(*slot).or_default();
            counts.iter().enumerate().for_each(|(value, n)| add(ours, value, *n));
        }
    }

    /// Rows by the start of the slot (microseconds) and value, where there are some, in any order.
    pub fn counts(&self) -> impl Iterator<Item = ((i64, u32), u64)> {
        let rows = self.counts.iter().flat_map(|(slot, counts)| {
            let start = slot.saturating_mul(self.slot);
            counts.iter().zip(0..).map(move |(n, value)| ((start, value), *n))
        });
        rows.filter(|(_, n)| *n > 0)
    }
}

fn add(counts: &mut Vec<u64>, value: usize, n: u64) {
    if counts.len() <= value {
        counts.resize(value + 1, 0);
    }
    counts[value] += n;
}

impl Kernel for Trend {
    type Person = ();

    fn question(&self) -> Question {
        self.question.clone()
    }

    fn rows(&mut self, _: &mut (), rows: &[Row]) {
        for row in rows {
            add(self.counts.entry(row.time.div_euclid(self.slot)).or_default(), row.value as usize, 1);
        }
    }

    fn end(&mut self, _: u64, _: &mut (), _: impl Interrupt) {}

    #[inline(always)]
    fn tile<C: Cpu>(&mut self, _: C, tile: &Tile<'_>, _: &mut People<()>, _: &mut Vec<Row>) {
        let positions = |i: usize, mut word: u64| {
            std::iter::from_fn(move || {
                let at = 64 * i + word.trailing_zeros() as usize;
                word &= word.checked_sub(1)?;
                Some(at)
            })
        };
        let words = tile.selected.iter().enumerate();
        if self.slot < DAY {
            // Rows of a person follow each other in time, so mostly in the same slot.
            for row in words.flat_map(|(i, word)| positions(i, *word)).map(|at| tile.row_at(at)) {
                self.rows(&mut (), &[row]);
            }
            return;
        }
        let counts = self.counts.entry(tile.date.into()).or_default();
        let Some(planes) = tile.value else {
            return add(counts, 0, tile.selected.iter().map(|word| u64::from(word.count_ones())).sum());
        };
        if planes.bits > 5 {
            for at in words.flat_map(|(i, word)| positions(i, *word)) {
                add(counts, planes.code(tile.row(at)) as usize, 1);
            }
            return;
        }
        self.words.resize(tile.selected.len(), 0);
        for code in 0..1 << planes.bits {
            CodeSet::from_iter([code]).rows(&planes, tile.row(0) / 64, &mut self.words);
            let both = self.words.iter().zip(tile.selected).map(|(a, b)| u64::from((a & b).count_ones()));
            let n = both.sum();
            if n > 0 {
                add(counts, code as usize, n);
            }
        }
    }
}

/// How many persons have a row that matters, by date and, if wanted, in all.
pub struct Persons {
    question: Question,
    total: Option<u64>,
    dates: BTreeMap<i32, u64>,
}

impl Persons {
    /// Persons by date; `total` asks for the number over all dates, too, where everybody counts once.
    pub fn new(question: Question, total: bool) -> Self {
        Self { question, total: total.then_some(0), dates: BTreeMap::new() }
    }

    /// Adds the persons of other slices, who are others.
    pub fn merge(&mut self, other: &Self) {
        self.total = self.total.zip(other.total).map(|(a, b)| a + b);
        other.dates.iter().for_each(|(date, n)| *self.dates.entry(*date).or_default() += n);
    }

    /// Persons over all dates, if asked for.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Persons by date (days since 2000-01-01), where there are some.
    pub fn dates(&self) -> &BTreeMap<i32, u64> {
        &self.dates
    }
}

impl Kernel for Persons {
    /// The date on which the person was counted last.
    type Person = Option<i32>;

    fn question(&self) -> Question {
        self.question.clone()
    }

    fn rows(&mut self, last: &mut Option<i32>, rows: &[Row]) {
        if let Some(date) = rows.first().and_then(|row| i32::try_from(row.time.div_euclid(DAY)).ok())
            && last.replace(date) != Some(date)
        {
            *self.dates.entry(date).or_default() += 1;
        }
    }

    fn end(&mut self, _: u64, last: &mut Option<i32>, _: impl Interrupt) {
        *last = None;
        self.total = self.total.map(|total| total + 1);
    }

    #[inline(always)]
    fn tile<C: Cpu>(&mut self, _: C, tile: &Tile<'_>, people: &mut People<Option<i32>>, _: &mut Vec<Row>) {
        let mut persons = 0;
        for run in tile.selected_runs() {
            // Nobody else counts a person on this date, unless there are parts.
            let known = self.total.is_some() || !tile.alone;
            let last = if known { people.get(tile.hash(run.person)) } else { &mut None };
            persons += u64::from(last.replace(tile.date) != Some(tile.date));
        }
        if persons > 0 {
            *self.dates.entry(tile.date).or_default() += persons;
        }
    }
}

/// The first and the last row of each person, with the value asked for.
pub struct FirstLast<F> {
    question: Question,
    each: F,
}

impl<F: FnMut(u64, Row, Row)> FirstLast<F> {
    /// Calls `each` with a person's hash and first and last row that matter.
    pub fn new(question: Question, each: F) -> Self {
        Self { question, each }
    }
}

impl<F: FnMut(u64, Row, Row)> Kernel for FirstLast<F> {
    type Person = Option<(Row, Row)>;

    fn question(&self) -> Question {
        self.question.clone()
    }

    #[inline(always)]
    fn rows(&mut self, person: &mut Option<(Row, Row)>, rows: &[Row]) {
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            *person = Some((person.map_or(*first, |(first, _)| first), *last));
        }
    }

    fn end(&mut self, hash: u64, person: &mut Option<(Row, Row)>, _: impl Interrupt) {
        if let Some((first, last)) = person.take() {
            (self.each)(hash, first, last);
        }
    }
}
