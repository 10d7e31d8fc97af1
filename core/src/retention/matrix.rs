//! The cohort matrix: persons of [`super::cohort`] added up, one row per cohort.
//!
//! A cohort without a person has no row (join `generate_series` to see it).

use crate::codec::{DecodeError, Reader, Writer};
use crate::{AVec, Allocator};

/// Persons of one matrix have different numbers of periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cohort has {expected} periods, but a person has {found}")]
pub struct PeriodsMismatch {
    /// The number of periods of the persons before.
    pub expected: usize,
    /// The number that differs.
    pub found: usize,
}

/// One row of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Start of the cohort's calendar period, as in [`super::cohort::Member`].
    pub cohort: i64,
    /// Persons in the cohort.
    pub size: u64,
    counts: &'a [u64],
}

impl Row<'_> {
    /// Persons retained per period; `None` where the period is incomplete for at least one of them.
    pub fn retained(&self) -> impl ExactSizeIterator<Item = Option<u64>> {
        self.counts.iter().map(|&n| (n != UNKNOWN).then_some(n))
    }
}

struct Cohort {
    start: i64,
    size: u64,
    /// Which run of `periods` counts is this cohort's.
    slot: usize,
}

/// A count that is unknown; no group of persons is that large.
const UNKNOWN: u64 = u64::MAX;

/// Counts per cohort and period; a mergeable state.
pub struct Matrix<A: Allocator> {
    /// Sorted by start.
    cohorts: AVec<Cohort, A>,
    /// `periods` counts per cohort, in order of first appearance, so that a new cohort moves none.
    counts: AVec<u64, A>,
    /// 0 until the first person.
    periods: usize,
}

impl<A: Allocator + Clone> Matrix<A> {
    /// An empty matrix whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(alloc: A) -> Self {
        Self { cohorts: AVec::new_in(alloc.clone()), counts: AVec::new_in(alloc), periods: 0 }
    }

    /// Adds a person. O(log cohorts + periods), except that a new cohort costs O(cohorts).
    ///
    /// # Errors
    /// The number of periods is 0 or differs from that of the persons before.
    pub fn push(&mut self, cohort: i64, retained: &[Option<bool>]) -> Result<(), PeriodsMismatch> {
        self.push_alike(cohort, 1, retained)
    }

    /// Adds so many persons who are alike.
    pub(crate) fn push_alike(
        &mut self,
        cohort: i64,
        persons: u64,
        retained: &[Option<bool>],
    ) -> Result<(), PeriodsMismatch> {
        self.add(cohort, persons, retained.iter().map(|r| r.map_or(UNKNOWN, |r| u64::from(r) * persons)))
    }

    fn add(
        &mut self,
        start: i64,
        size: u64,
        counts: impl ExactSizeIterator<Item = u64>,
    ) -> Result<(), PeriodsMismatch> {
        if counts.len() == 0 || (self.periods != 0 && counts.len() != self.periods) {
            return Err(PeriodsMismatch { expected: self.periods, found: counts.len() });
        }
        self.periods = counts.len();
        let at = match self.cohorts.binary_search_by_key(&start, |c| c.start) {
            Ok(at) => at,
            Err(at) => {
                let slot = self.cohorts.len();
                self.counts.resize((slot + 1) * self.periods, 0);
                self.cohorts.insert(at, Cohort { start, size: 0, slot });
                at
            }
        };
        if let Some(cohort) = self.cohorts.get_mut(at) {
            cohort.size = cohort.size.saturating_add(size);
            // Saturation keeps UNKNOWN: unknown plus anything stays unknown.
            let sums = self.counts.iter_mut().skip(cohort.slot * self.periods);
            sums.zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        }
        Ok(())
    }

    /// Adds all persons of another matrix.
    ///
    /// # Errors
    /// The numbers of periods differ.
    pub fn append<B: Allocator>(&mut self, other: &Matrix<B>) -> Result<(), PeriodsMismatch> {
        other.cohorts.iter().try_for_each(|c| self.add(c.start, c.size, other.counts_of(c).iter().copied()))
    }

    /// The rows in order of cohort; none without persons.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.cohorts.iter().map(|c| Row { cohort: c.start, size: c.size, counts: self.counts_of(c) })
    }

    /// Writes the matrix; the caller has written a version before. The bytes do not depend on the order of persons.
    pub fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>) {
        w.varint(self.periods as u64);
        w.varint(self.cohorts.len() as u64);
        for cohort in &self.cohorts {
            w.i64(cohort.start);
            w.varint(cohort.size);
            // Shifted by one so that the common "unknown" takes one byte.
            self.counts_of(cohort).iter().for_each(|n| w.varint(n.wrapping_add(1)));
        }
    }

    /// Reads what [`Matrix::encode`] wrote.
    ///
    /// # Errors
    /// Anything that `encode` would not write again as it is.
    pub fn decode_in(r: &mut Reader<'_>, alloc: A) -> Result<Self, DecodeError> {
        let (periods, len) = (r.varint()?, r.varint()?);
        // Each count takes a byte or more; checked before memory is set aside for the product.
        let fits = usize::try_from(periods).ok().zip(usize::try_from(len).ok()).filter(|&(periods, len)| {
            periods.checked_add(9).and_then(|row| row.checked_mul(len)).is_some_and(|n| n <= r.remaining())
        });
        let (periods, len) = fits.ok_or(DecodeError::Truncated)?;
        if (periods == 0) != (len == 0) {
            return Err(DecodeError::Malformed("cohorts without periods or periods without cohorts"));
        }
        let mut matrix = Self::new_in(alloc);
        matrix.periods = periods;
        matrix.cohorts.reserve(len);
        matrix.counts.reserve(len * periods);
        for slot in 0..len {
            let (start, size) = (r.i64()?, r.varint()?);
            if matrix.cohorts.last().is_some_and(|last| last.start >= start) {
                return Err(DecodeError::Malformed("cohorts are not in order"));
            }
            matrix.cohorts.push(Cohort { start, size, slot });
            for _ in 0..periods {
                let count = r.varint()?.wrapping_sub(1);
                if count != UNKNOWN && count > size {
                    return Err(DecodeError::Malformed("more persons retained than the cohort has"));
                }
                matrix.counts.push(count);
            }
        }
        Ok(matrix)
    }
}

impl<A: Allocator> Matrix<A> {
    fn counts_of(&self, cohort: &Cohort) -> &[u64] {
        let from = cohort.slot * self.periods;
        self.counts.get(from..from + self.periods).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Global;
    use crate::codec::{read_whole, written};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Person = (i64, Vec<Option<bool>>);

    fn matrix(persons: &[Person]) -> Matrix<Global> {
        let mut matrix = Matrix::new_in(Global);
        for (cohort, retained) in persons {
            matrix.push(*cohort, retained).unwrap();
        }
        matrix
    }

    /// Cohort, size and periods of each row.
    fn rows(matrix: &Matrix<Global>) -> Vec<(i64, u64, Vec<Option<u64>>)> {
        matrix.rows().map(|row| (row.cohort, row.size, row.retained().collect())).collect()
    }

    #[test]
    fn a_period_unknown_for_one_person_is_unknown_for_the_cohort() {
        let persons = [
            (7, vec![Some(true), Some(true), Some(false), None]),
            (0, vec![Some(true), Some(false), Some(false), Some(true)]),
            (7, vec![Some(true), Some(true), None, None]),
        ];
        let expected =
            [(0, 1, vec![Some(1), Some(0), Some(0), Some(1)]), (7, 2, vec![Some(2), Some(2), None, None])];
        assert_eq!(rows(&matrix(&persons)), expected);
    }

    #[test]
    fn persons_with_another_number_of_periods_are_refused() {
        let mut one = matrix(&[(0, vec![None])]);
        assert_eq!(one.push(0, &[None, None]), Err(PeriodsMismatch { expected: 1, found: 2 }));
        assert!(one.push(0, &[]).is_err() && one.append(&matrix(&[(0, vec![None; 2])])).is_err());
        assert_eq!(one.rows().map(|r| r.size).sum::<u64>(), 1, "a refused person changes nothing");
    }

    fn persons() -> impl Strategy<Value = Vec<Person>> {
        prop::collection::vec((0i64..5, prop::collection::vec(any::<Option<bool>>(), 3)), 0..20)
    }

    proptest! {
        #[test]
        fn rows_are_sums_and_any_split_and_merge_order_gives_the_same_bytes(
            persons in persons(), cut in 0usize..20
        ) {
            let mut sums: BTreeMap<i64, (u64, Vec<Option<u64>>)> = BTreeMap::new();
            for (cohort, retained) in &persons {
                let (size, counts) = sums.entry(*cohort).or_insert_with(|| (0, vec![Some(0); 3]));
                *size += 1;
                counts.iter_mut().zip(retained).for_each(|(n, r)| *n = n.zip(*r).map(|(n, r)| n + u64::from(r)));
            }
            let expected: Vec<_> =
                sums.into_iter().map(|(cohort, (size, retained))| (cohort, size, retained)).collect();
            let cut = cut.min(persons.len());
            let bytes = written(|w| matrix(&persons[..cut]).encode(w));
            let mut merged = matrix(&persons[cut..]);
            merged.append(&read_whole(&bytes, |r| Matrix::decode_in(r, Global)).unwrap()).unwrap();
            prop_assert_eq!(rows(&merged), expected);
            prop_assert_eq!(written(|w| merged.encode(w)), written(|w| matrix(&persons).encode(w)));
        }

        #[test]
        fn damaged_bytes_are_refused_or_read(persons in persons(), at in 0usize..300, byte: u8) {
            let mut bytes = written(|w| matrix(&persons).encode(w));
            let read = |bytes: &[u8]| read_whole(bytes, |r| Matrix::decode_in(r, Global));
            let at = at % bytes.len();
            prop_assert!(read(&bytes[..at]).is_err());
            bytes[at] = byte;
            if let Ok(matrix) = read(&bytes) {
                let within = |r: Row<'_>| r.retained().flatten().all(|n| n <= r.size);
                prop_assert!(matrix.rows().all(within));
            }
        }
    }
}
