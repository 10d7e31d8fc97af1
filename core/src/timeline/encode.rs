//! Writing slices: rows in any order go in, the canonical bytes of each slice come out. Parts are compacted by adding
//! them all to one [`Builder`].

use super::slice_of;
use super::view::{
    CODES_HEADER, CORE, CORE_HEADER, PROPERTY, SPAN, Source, TIES, UNITS, VERSION, WIDE, checksum,
};
use crate::interrupt::{Interrupt, sort};

/// Why rows cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A row with another number of properties than the builder was made for.
    #[error("a row has {found} properties, the timeline has {expected}")]
    Properties {
        /// How many the row has.
        found: usize,
        /// How many the timeline has.
        expected: usize,
    },
    /// More rows than a slice can count.
    #[error("a timeline value has at most {} rows", u32::MAX)]
    Rows,
    /// Times that are too far from each other for one value; never those of one date.
    #[error("times of a timeline value are too far apart")]
    Span,
}

/// The bytes of one slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Which slice: the first bits of its persons' hashes.
    pub slice: u32,
    /// How many rows.
    pub rows: usize,
    /// How many persons.
    pub persons: usize,
    /// Persons, times and event codes, as [`View`](super::View) reads them.
    pub core: Vec<u8>,
    /// Per property its codes, as [`Codes`](super::Codes) reads them.
    pub properties: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Key {
    hash: u64,
    time: i64,
    event: u32,
    /// Which row of `codes`.
    row: u32,
}

/// Collects the rows of a date and writes them.
///
/// Takes 24 bytes a row and 4 more for each property.
#[derive(Default)]
pub struct Builder {
    properties: usize,
    keys: Vec<Key>,
    /// A row's property codes side by side.
    codes: Vec<u32>,
}

impl Builder {
    /// For rows with so many properties.
    pub fn new(properties: usize) -> Self {
        Self { properties, ..Self::default() }
    }

    pub(super) fn properties(&self) -> usize {
        self.properties
    }

    /// The code of a column (0: 0), the event and the time of each row, in the order in which they were added.
    pub(super) fn each(&self, column: usize) -> impl Iterator<Item = (u32, u32, i64)> {
        let code = move |key: &Key| {
            let at = column.checked_sub(1).map(|property| key.row as usize * self.properties + property);
            at.and_then(|at| self.codes.get(at)).copied().unwrap_or(0)
        };
        self.keys.iter().map(move |key| (code(key), key.event, key.time))
    }

    /// How many rows were added.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a row: the person's hash, a time in microseconds, the codes of the event and of each property (0: NULL).
    ///
    /// # Errors
    /// Another number of properties, or too many rows.
    #[inline]
    pub fn push(&mut self, hash: u64, time: i64, event: u32, properties: &[u32]) -> Result<(), BuildError> {
        if properties.len() != self.properties {
            return Err(BuildError::Properties { found: properties.len(), expected: self.properties });
        }
        let row =
            u32::try_from(self.keys.len()).ok().filter(|row| *row < u32::MAX).ok_or(BuildError::Rows)?;
        self.keys.push(Key { hash, time, event, row });
        self.codes.extend_from_slice(properties);
        Ok(())
    }

    /// The same rows with so many more properties behind the others, all NULL.
    pub fn with_more(self, more: usize) -> Self {
        if more == 0 {
            return self;
        }
        let Self { properties: before, keys, codes: old } = self;
        let properties = before + more;
        let mut codes = vec![0; keys.len() * properties];
        if before > 0 {
            let rows = codes.chunks_exact_mut(properties).zip(old.chunks_exact(before));
            rows.for_each(|(new, old)| new[..before].copy_from_slice(old));
        }
        Self { properties, keys, codes }
    }

    /// Adds all rows of a source, which must have been given all properties in their order.
    ///
    /// # Errors
    /// Another number of properties, or too many rows.
    pub fn add(&mut self, source: &Source<'_>) -> Result<(), BuildError> {
        self.add_of(source, |_| true)
    }

    /// The same for the persons of whose hash this is true.
    ///
    /// # Errors
    /// As [`Builder::add`].
    pub fn add_of(
        &mut self,
        source: &Source<'_>,
        mut wanted: impl FnMut(u64) -> bool,
    ) -> Result<(), BuildError> {
        let view = &source.view;
        let mut codes = vec![0; source.properties.len()];
        let mut person = source.persons.start;
        let mut these = false;
        for row in source.rows.clone() {
            let first = view.is_first(row);
            person += usize::from(row > source.rows.start && first);
            if first || row == source.rows.start {
                these = wanted(view.hash(person));
            }
            if !these {
                continue;
            }
            codes.iter_mut().zip(&source.properties).for_each(|(code, p)| *code = p.planes.code(row));
            self.push(view.hash(person), view.time(row), view.events.code(row), &codes)?;
        }
        Ok(())
    }

    /// Adds what another one holds.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn extend(&mut self, other: &Self) -> Result<(), BuildError> {
        other.keys.iter().try_for_each(|key| {
            let from = key.row as usize * other.properties;
            let codes = other.codes.get(from..from + other.properties).unwrap_or(&[]);
            self.push(key.hash, key.time, key.event, codes)
        })
    }

    /// Writes what was added, a slice at a time in ascending order; slices are told apart by the first `bits` bits of the
    /// hash, up to 24.
    ///
    /// An item is an error where times are too far apart.
    pub fn finish(
        self,
        bits: u32,
        interrupt: impl Interrupt,
    ) -> impl Iterator<Item = Result<Encoded, BuildError>> {
        let Self { properties, mut keys, codes } = self;
        let codes_of = |key: &Key| {
            let from = key.row as usize * properties;
            codes.get(from..from + properties).unwrap_or(&[])
        };
        sort(&mut keys, interrupt, |a, b| {
            let order = (a.hash, a.time, a.event).cmp(&(b.hash, b.time, b.event));
            order.then_with(|| codes_of(a).cmp(codes_of(b)))
        });
        let (mut scratch, mut written) = (Scratch::default(), 0);
        std::iter::from_fn(move || {
            interrupt.check();
            let rest = keys.get(written..)?;
            let slice = slice_of(rest.first()?.hash, bits.min(24));
            let rows = &rest[..rest.partition_point(|key| slice_of(key.hash, bits.min(24)) == slice)];
            written += rows.len();
            Some(scratch.write(slice, rows, properties, &codes))
        })
    }
}

/// Memory that slices use one after the other.
#[derive(Default)]
struct Scratch {
    offsets: Vec<i64>,
    codes: Vec<u32>,
}

impl Scratch {
    fn write(
        &mut self,
        slice: u32,
        rows: &[Key],
        properties: usize,
        codes: &[u32],
    ) -> Result<Encoded, BuildError> {
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        let mut remainders = [0; UNITS.len()];
        for row in rows {
            (low, high) = (low.min(row.time), high.max(row.time));
            UNITS.iter().zip(&mut remainders).for_each(|(unit, sum)| *sum |= row.time % unit);
        }
        let number = remainders.iter().rposition(|&sum| sum == 0).unwrap_or(0);
        let (unit, base) = (UNITS[number], low / UNITS[number]);
        let in_reach =
            low > i64::MIN && base.checked_add(SPAN).is_some_and(|end| end.checked_mul(unit).is_some());
        let span = (high / unit).checked_sub(base).filter(|&span| span < SPAN && in_reach);
        let wide = span.ok_or(BuildError::Span)? > u32::MAX.into();
        self.offsets.clear();
        self.offsets.extend(rows.iter().map(|row| row.time / unit - base));

        let words = rows.len().div_ceil(64);
        let (mut firsts, mut ties, mut persons) = (vec![0u64; words], vec![0u64; words], 0usize);
        for (i, row) in rows.iter().enumerate() {
            let before =
                i.checked_sub(1).map(|before| &rows[before]).filter(|before| before.hash == row.hash);
            firsts[i / 64] |= u64::from(before.is_none()) << (i % 64);
            ties[i / 64] |= u64::from(before.is_some_and(|before| before.time == row.time)) << (i % 64);
            persons += usize::from(before.is_none());
        }
        let tied = ties.iter().any(|word| *word != 0);

        let mut core = Vec::with_capacity(CORE_HEADER + 8 * persons + 8 * rows.len() + 16 * words);
        let flags = number as u8 | if wide { WIDE } else { 0 } | if tied { TIES } else { 0 };
        core.extend_from_slice(&[VERSION, CORE, flags, 0]);
        [rows.len() as u32, persons as u32, 0].iter().for_each(|n| core.extend_from_slice(&n.to_le_bytes()));
        core.extend_from_slice(&base.to_le_bytes());
        let mut last = None;
        for row in rows.iter().filter(|row| last.replace(row.hash) != Some(row.hash)) {
            core.extend_from_slice(&row.hash.to_le_bytes());
        }
        for words in [&firsts, &ties].into_iter().take(1 + usize::from(tied)) {
            words.iter().for_each(|word| core.extend_from_slice(&word.to_le_bytes()));
        }
        self.offsets.iter().for_each(|offset| core.extend_from_slice(&(*offset as u32).to_le_bytes()));
        if wide {
            core.extend(self.offsets.iter().map(|offset| (offset >> 32) as u8));
        }
        self.codes.clear();
        self.codes.extend(rows.iter().map(|row| row.event));
        core[3] = planes(&self.codes, &mut core);
        let sum = checksum(&core).to_le_bytes();
        core[12..16].copy_from_slice(&sum);

        let properties = (0..properties)
            .map(|p| {
                self.codes.clear();
                self.codes.extend(
                    rows.iter().map(|row| codes.get(row.row as usize * properties + p).copied().unwrap_or(0)),
                );
                let mut out = Vec::with_capacity(CODES_HEADER + 16 * words);
                out.extend_from_slice(&[VERSION, PROPERTY, 0, 0]);
                out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
                out.extend_from_slice(&sum);
                out.extend_from_slice(&[0; 4]);
                out[2] = planes(&self.codes, &mut out);
                let sum = checksum(&out).to_le_bytes();
                out[12..16].copy_from_slice(&sum);
                out
            })
            .collect();
        Ok(Encoded { slice, rows: rows.len(), persons, core, properties })
    }
}

/// Appends codes as bit planes and returns how many.
fn planes(codes: &[u32], out: &mut Vec<u8>) -> u8 {
    let bits = 32 - codes.iter().fold(0, |all, code| all | code).leading_zeros();
    for j in 0..bits {
        for block in codes.chunks(64) {
            let word =
                block.iter().enumerate().fold(0u64, |word, (i, code)| word | u64::from(code >> j & 1) << i);
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    bits as u8
}
