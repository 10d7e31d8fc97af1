//! Reading the bytes of a slice: [`View`] and [`Codes`] borrow them, [`Source`] puts them together.
//!
//! Nothing here panics or reads out of bounds, whatever the bytes. Writing is in `encode`.

use std::ops::Range;

use crate::retention::calendar::DAY;

pub(super) const VERSION: u8 = 1;
pub(super) const CORE: u8 = b't';
pub(super) const PROPERTY: u8 = b'p';
pub(super) const CORE_HEADER: usize = 24;
pub(super) const CODES_HEADER: usize = 16;
pub(super) const WIDE: u8 = 4;
pub(super) const TIES: u8 = 8;
/// Microseconds of the units, by number.
pub(super) const UNITS: [i64; 3] = [1, 1_000, 1_000_000];
/// Times less the base stay below this, in units: four bytes and a fifth one.
pub(super) const SPAN: i64 = 1 << 40;

/// Why bytes are no timeline, or not one that was written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// Fewer bytes than a header.
    #[error("timeline is truncated: {0} bytes are no header")]
    Header(usize),
    /// The version byte is not one this build reads.
    #[error("timeline has format version {0}, this build reads {VERSION}")]
    Version(u8),
    /// Codes instead of a core, or the other way round, or neither.
    #[error("timeline is of kind {found}, expected {expected}")]
    Kind {
        /// The byte found.
        found: u8,
        /// The byte expected.
        expected: u8,
    },
    /// Another number of bytes than the header says.
    #[error("timeline has {found} bytes, its header says {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: u64,
    },
    /// Something in the header or the arrays that is never written.
    #[error("timeline is malformed: {0}")]
    Malformed(&'static str),
    /// The bytes were altered.
    #[error("timeline does not match its checksum")]
    Checksum,
    /// A property's codes belong to other rows than the core they came with.
    #[error("codes of property {0} do not belong to this timeline")]
    Foreign(usize),
}

/// A checksum of the bytes but those at 12 to 15, where it is written.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |h: u64, word: u64| (h ^ word).wrapping_mul(ODD).rotate_left(29);
    let mut h = step(ODD, bytes.len() as u64);
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    for chunk in head.get(..12).unwrap_or(head).chunks(4) {
        h = step(h, chunk.iter().rev().fold(0, |word, &b| word << 8 | u64::from(b)));
    }
    let (words, tail) = rest.as_chunks::<8>();
    h = words.iter().fold(h, |h, word| step(h, u64::from_le_bytes(*word)));
    h = tail.iter().fold(h, |h, &b| step(h, b.into()));
    (h ^ h >> 32) as u32
}

/// Takes arrays off the front of bytes whose length was checked.
struct Arrays<'a>(&'a [u8]);

impl<'a> Arrays<'a> {
    fn take<const N: usize>(&mut self, n: usize) -> &'a [[u8; N]] {
        let (head, rest) = self.0.split_at(self.0.len().min(n * N));
        self.0 = rest;
        head.as_chunks().0
    }
}

#[inline(always)]
pub(super) fn word(words: &[[u8; 8]], i: usize) -> u64 {
    words.get(i).map_or(0, |word| u64::from_le_bytes(*word))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

/// The bits of the last of the words for `rows` rows that stand for rows.
pub(super) fn last_word(rows: usize) -> u64 {
    if rows.is_multiple_of(64) { u64::MAX } else { (1 << (rows % 64)) - 1 }
}

/// Codes as bit planes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Planes<'a> {
    words: &'a [[u8; 8]],
    pub(super) bits: u32,
    per_plane: usize,
}

impl<'a> Planes<'a> {
    /// The words of plane `j`.
    #[inline(always)]
    pub(super) fn plane(&self, j: u32) -> &'a [[u8; 8]] {
        let from = j as usize * self.per_plane;
        self.words.get(from..from + self.per_plane).unwrap_or(&[])
    }

    /// Whether a row may have this code.
    #[inline(always)]
    pub(super) fn can_be(&self, code: u32) -> bool {
        self.bits == 32 || code >> self.bits == 0
    }

    /// Leaves those bits of the blocks from `from` on whose rows have a code.
    #[inline(always)]
    pub(super) fn leave(&self, code: u32, from: usize, out: &mut [u64]) {
        for j in 0..self.bits {
            let flip = if code >> j & 1 == 0 { u64::MAX } else { 0 };
            let plane = self.plane(j).get(from..).unwrap_or(&[]);
            out.iter_mut().zip(plane).for_each(|(out, plane)| *out &= u64::from_le_bytes(*plane) ^ flip);
        }
    }

    /// The code of a row.
    #[inline(always)]
    pub(super) fn code(&self, row: usize) -> u32 {
        let (block, bit) = (row / 64, row % 64);
        (0..self.bits).fold(0, |code, j| {
            code | ((word(self.words, j as usize * self.per_plane + block) >> bit) as u32 & 1) << j
        })
    }

    fn check(&self, rows: usize) -> Result<(), Corrupt> {
        if self.bits > 0 && self.plane(self.bits - 1).iter().all(|word| *word == [0; 8]) {
            return Err(Corrupt::Malformed("codes take more bits than they need"));
        }
        let tail = !last_word(rows);
        let behind = |j| self.plane(j).last().is_some_and(|last| u64::from_le_bytes(*last) & tail != 0);
        if (0..self.bits).any(behind) {
            return Err(Corrupt::Malformed("codes behind the last row"));
        }
        Ok(())
    }
}

/// Persons, times and event codes of a slice.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    bytes: &'a [u8],
    pub(super) rows: usize,
    /// Microseconds of a unit.
    pub(super) unit: i64,
    /// In units.
    pub(super) base: i64,
    pub(super) hashes: &'a [[u8; 8]],
    pub(super) firsts: &'a [[u8; 8]],
    /// Empty without ties.
    pub(super) ties: &'a [[u8; 8]],
    pub(super) times: &'a [[u8; 4]],
    /// Empty unless times are wide.
    pub(super) high: &'a [[u8; 1]],
    pub(super) events: Planes<'a>,
    checksum: u32,
}

impl<'a> View<'a> {
    /// Reads a value whose content can be trusted, but not its length: as it lies in a table.
    ///
    /// # Errors
    /// Another version or kind, a length that is not what the header says, persons that do not add up.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let header = header::<CORE_HEADER>(bytes, CORE)?;
        let (flags, bits) = (header[2], u32::from(header[3]));
        let (rows, persons) = (u32_at(bytes, 4) as usize, u32_at(bytes, 8) as usize);
        let (unit, words) = (UNITS.get(usize::from(flags & 3)), rows.div_ceil(64));
        let &unit = unit.filter(|_| flags < 16).ok_or(Corrupt::Malformed("unit or flags"))?;
        if bits > 32 || persons == 0 || persons > rows {
            return Err(Corrupt::Malformed("numbers of rows, persons or bits"));
        }
        let (wide, ties) = (usize::from(flags & WIDE != 0), usize::from(flags & TIES != 0));
        let arrays = 8 * persons as u64
            + 8 * words as u64 * (1 + ties as u64 + u64::from(bits))
            + (4 + wide as u64) * rows as u64;
        exactly(bytes, CORE_HEADER as u64 + arrays)?;
        let mut rest = Arrays(bytes.get(CORE_HEADER..).unwrap_or(&[]));
        let base = i64::from_le_bytes(header.last_chunk().copied().unwrap_or_default());
        let view = Self {
            bytes,
            rows,
            unit,
            base,
            hashes: rest.take(persons),
            firsts: rest.take(words),
            ties: rest.take(words * ties),
            times: rest.take(rows),
            high: rest.take(rows * wide),
            events: Planes { bits, per_plane: words, words: rest.take(words * bits as usize) },
            checksum: u32_at(bytes, 12),
        };
        // The earliest time there is stands for none.
        let first = base.checked_mul(unit).filter(|first| *first > i64::MIN);
        if first.and(base.checked_add(SPAN)).and_then(|end| end.checked_mul(unit)).is_none() {
            return Err(Corrupt::Malformed("times are out of range"));
        }
        let begin: usize = view.firsts.iter().map(|w| u64::from_le_bytes(*w).count_ones() as usize).sum();
        let behind = word(view.firsts, words - 1) & !last_word(rows) != 0;
        if begin != persons || behind || word(view.firsts, 0) & 1 == 0 {
            return Err(Corrupt::Malformed("persons do not begin as often as there are persons"));
        }
        Ok(view)
    }

    /// Checks everything that [`Builder`](super::Builder) would not have written so; for bytes from outside.
    ///
    /// # Errors
    /// The checksum, the order of persons and rows, marks of ties, a longer form than needed.
    pub fn check(&self) -> Result<(), Corrupt> {
        let malformed = |what| Err(Corrupt::Malformed(what));
        if checksum(self.bytes) != self.checksum {
            return Err(Corrupt::Checksum);
        }
        if !self.hashes.is_sorted_by(|a, b| u64::from_le_bytes(*a) < u64::from_le_bytes(*b)) {
            return malformed("persons are not in order");
        }
        let (mut tied, mut low, mut high) = (false, i64::MAX, 0);
        let mut rest = 0;
        for row in 0..self.rows {
            let (first, offset) = (self.is_first(row), self.offset(row));
            (low, high) = (low.min(offset), high.max(offset));
            rest |= (self.base + offset) % 1000;
            let tie = !first && offset == self.offset(row - 1);
            if tie && self.events.code(row) < self.events.code(row - 1)
                || !first && offset < self.offset(row - 1)
            {
                return malformed("rows are not in order");
            }
            if tie != (word(self.ties, row / 64) >> (row % 64) & 1 == 1) {
                return malformed("ties are not marked");
            }
            tied |= tie;
        }
        // A unit is the longest that fits; a thousand of one are the next.
        if low != 0 || (rest == 0 && self.unit < UNITS[2]) {
            return malformed("base or unit");
        }
        if tied == self.ties.is_empty() || (high < 1 << 32) != self.high.is_empty() {
            return malformed("an array that is not needed");
        }
        if word(self.ties, self.firsts.len() - 1) & !last_word(self.rows) != 0 {
            return malformed("ties behind the last row");
        }
        self.events.check(self.rows)
    }

    /// How many rows there are; at least one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many persons there are; at least one.
    pub fn persons(&self) -> usize {
        self.hashes.len()
    }

    /// The UTC date of the earliest row, in days since 2000-01-01.
    pub fn date(&self) -> i64 {
        (self.base * self.unit).div_euclid(DAY)
    }

    /// The event codes of the rows.
    pub fn codes(&self) -> impl Iterator<Item = u32> {
        (0..self.rows).map(|row| self.events.code(row))
    }

    /// The time of a row, in microseconds.
    #[inline(always)]
    pub fn time(&self, row: usize) -> i64 {
        (self.base + self.offset(row)) * self.unit
    }

    /// The hash of a person, counted from 0.
    #[inline(always)]
    pub fn hash(&self, person: usize) -> u64 {
        word(self.hashes, person)
    }

    /// In units since the base.
    #[inline(always)]
    pub(super) fn offset(&self, row: usize) -> i64 {
        let low = self.times.get(row).map_or(0, |time| u32::from_le_bytes(*time));
        i64::from(low) | self.high.get(row).map_or(0, |high| i64::from(high[0]) << 32)
    }

    pub(super) fn is_first(&self, row: usize) -> bool {
        word(self.firsts, row / 64) >> (row % 64) & 1 == 1
    }

    /// The rows with which some persons begin and with which the one behind them does.
    pub(super) fn rows_of(&self, persons: &Range<usize>) -> Range<usize> {
        let (mut person, mut from) = (0, None);
        for (i, firsts) in self.firsts.iter().enumerate() {
            let firsts = u64::from_le_bytes(*firsts);
            let here = firsts.count_ones() as usize;
            let begin = |of: usize| {
                let behind = (person..of).fold(firsts, |firsts, _| firsts & firsts.wrapping_sub(1));
                64 * i + behind.trailing_zeros() as usize
            };
            if from.is_none() && persons.start < person + here {
                from = Some(begin(persons.start));
            }
            if let Some(from) = from.filter(|_| persons.end < person + here) {
                return from..begin(persons.end);
            }
            person += here;
        }
        from.unwrap_or(self.rows)..self.rows
    }
}

/// The codes of one property of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    bytes: &'a [u8],
    rows: usize,
    pub(super) planes: Planes<'a>,
    core: u32,
    checksum: u32,
}

impl<'a> Codes<'a> {
    /// Reads a value whose content can be trusted, but not its length.
    ///
    /// # Errors
    /// Another version or kind, or a length that is not what the header says.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Corrupt> {
        let header = header::<CODES_HEADER>(bytes, PROPERTY)?;
        let (bits, rows) = (u32::from(header[2]), u32_at(bytes, 4) as usize);
        if bits > 32 || header[3] != 0 || rows == 0 {
            return Err(Corrupt::Malformed("numbers of rows or bits"));
        }
        let words = rows.div_ceil(64);
        exactly(bytes, CODES_HEADER as u64 + 8 * u64::from(bits) * words as u64)?;
        let words_of = Arrays(bytes.get(CODES_HEADER..).unwrap_or(&[])).take(words * bits as usize);
        let planes = Planes { bits, per_plane: words, words: words_of };
        Ok(Self { bytes, rows, planes, core: u32_at(bytes, 8), checksum: u32_at(bytes, 12) })
    }

    /// Checks everything that [`Builder`](super::Builder) would not have written so; for bytes from outside.
    ///
    /// # Errors
    /// The checksum, or a longer form than needed.
    pub fn check(&self) -> Result<(), Corrupt> {
        if checksum(self.bytes) != self.checksum {
            return Err(Corrupt::Checksum);
        }
        self.planes.check(self.rows)
    }

    /// The codes of the rows, 0 for NULL.
    pub fn codes(&self) -> impl Iterator<Item = u32> {
        (0..self.rows).map(|row| self.planes.code(row))
    }
}

/// The bytes of a header of the right version and kind.
pub(super) fn header<const N: usize>(bytes: &[u8], kind: u8) -> Result<&[u8; N], Corrupt> {
    let header = bytes.first_chunk().ok_or(Corrupt::Header(bytes.len()))?;
    match (bytes[0], bytes[1]) {
        (VERSION, found) if found == kind => Ok(header),
        (VERSION, found) => Err(Corrupt::Kind { found, expected: kind }),
        (version, _) => Err(Corrupt::Version(version)),
    }
}

fn exactly(bytes: &[u8], expected: u64) -> Result<(), Corrupt> {
    let found = bytes.len();
    if found as u64 == expected { Ok(()) } else { Err(Corrupt::Length { found, expected }) }
}

/// A view and the properties that a question needs, all of its persons or some neighbours among them.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    pub(super) view: View<'a>,
    pub(super) properties: Vec<Codes<'a>>,
    pub(super) persons: Range<usize>,
    pub(super) rows: Range<usize>,
}

impl<'a> Source<'a> {
    /// All persons of a view, with some properties; questions count these from 1 in the order given.
    ///
    /// # Errors
    /// Codes that belong to another view.
    pub fn new(view: View<'a>, properties: Vec<Codes<'a>>) -> Result<Self, Corrupt> {
        match properties.iter().position(|codes| codes.core != view.checksum || codes.rows != view.rows) {
            Some(at) => Err(Corrupt::Foreign(at + 1)),
            None => Ok(Self { persons: 0..view.persons(), rows: 0..view.rows, view, properties }),
        }
    }

    /// The persons of one slice only, of a part that holds several; `None` without any.
    pub fn of_slice(&self, slice: u32, bits: u32) -> Option<Self> {
        let before = |wanted: u32| {
            let persons = self.view.hashes.get(self.persons.clone()).unwrap_or(&[]);
            let found = persons.partition_point(|h| super::slice_of(u64::from_le_bytes(*h), bits) < wanted);
            self.persons.start + found
        };
        let end = slice.checked_add(1).map_or(self.persons.end, before);
        let persons = before(slice)..end;
        if persons.is_empty() {
            return None;
        }
        let rows = self.view.rows_of(&persons);
        Some(Self { view: self.view, properties: self.properties.clone(), persons, rows })
    }

    /// The UTC date of its view's earliest row, in days since 2000-01-01.
    pub fn date(&self) -> i64 {
        self.view.date()
    }

    /// The codes of a column: 0 the event, then the properties; `None` for a column that is not there.
    pub(super) fn column(&self, column: usize) -> Option<Planes<'a>> {
        match column.checked_sub(1) {
            None => Some(self.view.events),
            Some(property) => self.properties.get(property).map(|codes| codes.planes),
        }
    }
}
