//! Which rows of a slice satisfy a condition: codes of columns, and `not`, `and`, `or` above them, as words of 64 rows.
//!
//! What a predicate means (a text, a pattern, NULL) was decided for each distinct value before, when codes were chosen.

use std::collections::BTreeSet;

use super::masks::{Cpu, Job, Level};
use super::view::{Planes, Source, word};

/// A set of codes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CodeSet {
    /// Ascending.
    codes: Vec<u32>,
    /// Bit `c` for code `c`.
    table: Vec<u64>,
}

impl FromIterator<u32> for CodeSet {
    fn from_iter<I: IntoIterator<Item = u32>>(codes: I) -> Self {
        let mut codes: Vec<u32> = codes.into_iter().collect();
        codes.sort_unstable();
        codes.dedup();
        // A dictionary is dense, so that the table has a bit for each of its values.
        let mut table = vec![0u64; codes.last().map_or(0, |&last| last as usize / 64 + 1)];
        codes.iter().for_each(|&code| table[code as usize / 64] |= 1 << (code % 64));
        Self { codes, table }
    }
}

impl CodeSet {
    /// Whether the set has a code.
    #[inline(always)]
    pub fn contains(&self, code: u32) -> bool {
        self.table.get(code as usize / 64).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }

    fn is_disjoint(&self, other: &Self) -> bool {
        self.table.iter().zip(&other.table).all(|(a, b)| a & b == 0)
    }

    /// Puts the rows of the blocks from `from` on into `out`; bits behind the last row may be set.
    #[inline(always)]
    pub(super) fn rows(&self, planes: &Planes<'_>, from: usize, out: &mut [u64]) {
        out.fill(0);
        // So many planes are read for one code after the other before a table is quicker.
        const PLANES: usize = 200;
        if self.codes.len() * planes.bits as usize > PLANES {
            return self.rows_by_table(planes, from, out);
        }
        let mut rest = self.codes.iter().filter(|code| planes.can_be(**code));
        // Into `out` straight, then block by block for those that join it.
        if let Some(&code) = rest.next() {
            out.fill(u64::MAX);
            planes.leave(code, from, out);
        }
        for &code in rest {
            for (i, out) in out.iter_mut().enumerate() {
                let rows = (0..planes.bits).fold(u64::MAX, |rows, j| {
                    let flip = if code >> j & 1 == 0 { u64::MAX } else { 0 };
                    rows & (word(planes.plane(j), from + i) ^ flip)
                });
                *out |= rows;
            }
        }
    }

    #[inline(always)]
    fn rows_by_table(&self, planes: &Planes<'_>, from: usize, out: &mut [u64]) {
        for (i, out) in out.iter_mut().enumerate() {
            let mut codes = [0u32; 64];
            for j in 0..planes.bits {
                let plane = word(planes.plane(j), from + i);
                codes
                    .iter_mut()
                    .enumerate()
                    .for_each(|(bit, code)| *code |= ((plane >> bit) as u32 & 1) << j);
            }
            *out = codes
                .iter()
                .enumerate()
                .fold(0, |out, (bit, &code)| out | u64::from(self.contains(code)) << bit);
        }
    }
}

/// A condition on a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The code of a column is one of these: column 0 is the event, then come the properties of the source, in order.
    Is(usize, CodeSet),
    /// Not that.
    Not(Box<Filter>),
    /// All of these; any row without any.
    And(Vec<Filter>),
    /// One of these; no row without any.
    Or(Vec<Filter>),
}

/// A column that a question names and a source does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoColumn(pub(super) usize);

impl Filter {
    /// Any row.
    pub fn any() -> Self {
        Self::And(vec![])
    }

    /// Rows of one event.
    pub fn event(code: u32) -> Self {
        Self::Is(0, CodeSet::from_iter([code]))
    }

    /// Puts the rows of the blocks from `from` on into `out`; bits behind the last row may be set.
    #[inline(always)]
    pub(super) fn rows(
        &self,
        level: Level,
        source: &Source<'_>,
        from: usize,
        out: &mut [u64],
    ) -> Result<(), NoColumn> {
        match self {
            // What most steps are, and so what is compiled into the caller.
            Self::Is(column, set) => {
                set.rows(&source.column(*column).ok_or(NoColumn(*column))?, from, out);
                Ok(())
            }
            _ => self.composed(level, source, from, out),
        }
    }

    fn composed(
        &self,
        level: Level,
        source: &Source<'_>,
        from: usize,
        out: &mut [u64],
    ) -> Result<(), NoColumn> {
        let (filters, or) = match self {
            Self::Is(column, set) => {
                let planes = &source.column(*column).ok_or(NoColumn(*column))?;
                level.run(Rows { set, planes, from, out });
                return Ok(());
            }
            Self::Not(filter) => {
                filter.composed(level, source, from, out)?;
                out.iter_mut().for_each(|word| *word = !*word);
                return Ok(());
            }
            Self::And(filters) => (filters, false),
            Self::Or(filters) => (filters, true),
        };
        let Some((first, rest)) = filters.split_first() else {
            out.fill(if or { 0 } else { u64::MAX });
            return Ok(());
        };
        first.composed(level, source, from, out)?;
        let mut more = vec![];
        for filter in rest {
            // Nothing is left to be decided, which is common for rare events.
            if !or && out.iter().all(|word| *word == 0) {
                break;
            }
            if let (false, Self::Is(column, CodeSet { codes, .. })) = (or, filter)
                && let [code] = codes[..]
            {
                let planes = &source.column(*column).ok_or(NoColumn(*column))?;
                level.run(Leave { code, planes, from, out });
                continue;
            }
            more.resize(out.len(), 0);
            filter.composed(level, source, from, &mut more)?;
            let join = |(out, more): (&mut u64, &u64)| if or { *out |= more } else { *out &= more };
            out.iter_mut().zip(&more).for_each(join);
        }
        Ok(())
    }

    /// Whether a row with these codes by column satisfies it.
    fn holds(&self, code: &impl Fn(usize) -> u32) -> bool {
        match self {
            Self::Is(column, set) => set.contains(code(*column)),
            Self::Not(filter) => !filter.holds(code),
            Self::And(filters) => filters.iter().all(|filter| filter.holds(code)),
            Self::Or(filters) => filters.iter().any(|filter| filter.holds(code)),
        }
    }

    fn columns(&self, into: &mut BTreeSet<usize>) {
        match self {
            Self::Is(column, _) => drop(into.insert(*column)),
            Self::Not(filter) => filter.columns(into),
            Self::And(filters) | Self::Or(filters) => filters.iter().for_each(|filter| filter.columns(into)),
        }
    }

    /// The set of codes that a column must be in.
    fn required(&self, column: usize) -> Option<&CodeSet> {
        match self {
            Self::Is(this, set) if *this == column => Some(set),
            Self::And(filters) => filters.iter().find_map(|filter| filter.required(column)),
            _ => None,
        }
    }
}

/// [`CodeSet::rows`].
struct Rows<'s, 'a> {
    set: &'s CodeSet,
    planes: &'s Planes<'a>,
    from: usize,
    out: &'s mut [u64],
}

impl Job for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) {
        self.set.rows(self.planes, self.from, self.out);
    }
}

/// Takes the rows with another code out.
struct Leave<'s, 'a> {
    code: u32,
    planes: &'s Planes<'a>,
    from: usize,
    out: &'s mut [u64],
}

impl Job for Leave<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<C: Cpu>(self, _: C) {
        if self.planes.can_be(self.code) {
            self.planes.leave(self.code, self.from, self.out);
        } else {
            self.out.fill(0);
        }
    }
}

/// What is asked about rows, the same for all slices: which of them matter, and what of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// Bit `i` of a row's conditions says whether it satisfies filter `i`; 32 at most.
    pub conditions: Vec<Filter>,
    /// Whether rows that satisfy none of them matter as well.
    pub unmatched: bool,
    /// Only rows that satisfy this one matter at all.
    pub only: Option<Filter>,
    /// The column whose code comes with each row.
    pub value: Option<usize>,
}

impl Question {
    /// Which conditions a row satisfies, of all rows that satisfy one.
    pub fn of(conditions: Vec<Filter>) -> Self {
        Self { conditions, ..Self::default() }
    }

    /// All rows, without conditions.
    pub fn all() -> Self {
        Self { unmatched: true, ..Self::default() }
    }

    /// The columns that it is about.
    pub fn columns(&self) -> BTreeSet<usize> {
        let mut columns = BTreeSet::from_iter(self.value);
        self.conditions.iter().chain(&self.only).for_each(|filter| filter.columns(&mut columns));
        columns
    }

    /// Whether a row with these codes by column matters.
    pub fn matters(&self, code: impl Fn(usize) -> u32) -> bool {
        self.only.as_ref().is_none_or(|only| only.holds(&code))
            && (self.unmatched || self.conditions.iter().any(|condition| condition.holds(&code)))
    }

    /// Whether no row can satisfy two conditions, as they are about different events.
    pub fn is_disjoint(&self) -> bool {
        let events: Vec<_> = self.conditions.iter().map(|filter| filter.required(0)).collect();
        (0..events.len())
            .all(|i| (0..i).all(|j| matches!((events[i], events[j]), (Some(a), Some(b)) if a.is_disjoint(b))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Builder, Codes, View};
    use proptest::prelude::*;

    fn filters() -> impl Strategy<Value = Filter> {
        let leaf = (0usize..3, prop::collection::vec(0u32..300, 0..60))
            .prop_map(|(column, codes)| Filter::Is(column, codes.into_iter().collect()));
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|f| Filter::Not(Box::new(f))),
                prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
                prop::collection::vec(inner, 0..3).prop_map(Filter::Or),
            ]
        })
    }

    fn holds(filter: &Filter, codes: [u32; 3]) -> bool {
        match filter {
            Filter::Is(column, set) => set.codes.contains(&codes[*column]),
            Filter::Not(filter) => !holds(filter, codes),
            Filter::And(filters) => filters.iter().all(|f| holds(f, codes)),
            Filter::Or(filters) => filters.iter().any(|f| holds(f, codes)),
        }
    }

    proptest! {
        #[test]
        fn a_filter_finds_the_rows_that_one_by_one_satisfy_it(
            rows in prop::collection::vec((0u32..20, 0u32..300, 0u32..3), 1..200), filter in filters()
        ) {
            let mut builder = Builder::new(2);
            for (i, &(event, a, b)) in rows.iter().enumerate() {
                builder.push(0, i as i64, event, &[a, b]).unwrap();
            }
            let slices: Vec<_> = builder.finish(0, ()).map(Result::unwrap).collect();
            let properties = slices[0].properties.iter().map(|p| Codes::read(p).unwrap()).collect();
            let source = Source::new(View::read(&slices[0].core).unwrap(), properties).unwrap();
            let mut out = vec![0u64; rows.len().div_ceil(64)];
            filter.rows(Level::best(), &source, 0, &mut out).unwrap();
            for (i, &(event, a, b)) in rows.iter().enumerate() {
                let expected = holds(&filter, [event, a, b]);
                prop_assert_eq!(out[i / 64] >> (i % 64) & 1 == 1, expected);
                let question = Question::of(vec![filter.clone()]);
                prop_assert_eq!(question.matters(|column| [event, a, b][column]), expected);
                let (only, value) = (Some(filter.clone()), Some(2));
                let question = Question { only, value, ..Question::all() };
                prop_assert_eq!(question.matters(|column| [event, a, b][column]), expected);
                prop_assert!(question.columns().contains(&2));
            }
            prop_assert_eq!(Filter::Is(3, CodeSet::default()).rows(Level::best(), &source, 0, &mut out), Err(NoColumn(3)));
        }
    }
}
