//! Counts of rows by event, value of a property and quarter of an hour: what trends need of a date without its slices.
//! Any zone of today is a sum of quarters.
//!
//! | bytes | what |
//! |---|---|
//! | 0, 1 | version 1, kind `c` |
//! | 2, 3 | 0 |
//! | 4 to 7 | rows |
//! | 8 to 11 | 0 |
//! | 12 to 15 | checksum of everything else |
//! | then, varints | per column, ascending: its number, and how many bytes follow, which are its groups |
//!
//! A group, of one code and event: both, the rows, and how many bytes follow, which are its slots. A slot: its number
//! less that of the one before, and the rows.
//!
//! Column 0 is the event, whose groups have the code 0. A property is left out if counting it takes many numbers, as of
//! pages of a small date: then there is little to gain.

use super::encode::Builder;
use super::view::{Corrupt, VERSION, checksum, header};
use crate::codec::{DecodeError, Reader, Writer};
use crate::interrupt::{Interrupt, sort};
use crate::retention::calendar::DAY;
use crate::{AVec, Global};

pub(super) const COUNTS: u8 = b'c';
const HEADER: usize = 16;
/// Microseconds of a slot.
pub const SLOT: i64 = 900_000_000;
const SLOTS: u64 = (DAY / SLOT) as u64;
/// Codes and events are sorted side by side in one number.
const CODES: u32 = 1 << 28;

/// How many rows have one event, code and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The code of the column, 0 for the column of events.
    pub code: u32,
    /// The code of the event.
    pub event: u32,
    /// Which quarter of an hour of the date.
    pub slot: u8,
    /// The rows, at least one.
    pub rows: u64,
}

impl Builder {
    /// Counts what was added, which must be of one date.
    pub fn counts(&self, interrupt: impl Interrupt) -> Vec<u8> {
        let mut out = AVec::new_in(Global);
        let mut w = Writer::new(&mut out, VERSION);
        [COUNTS, 0, 0].iter().for_each(|byte| w.u8(*byte));
        [self.len() as u32, 0, 0].iter().for_each(|n| w.u32(*n));
        let mut keys: Vec<u64> = Vec::with_capacity(self.len());
        for column in 0..=self.properties() {
            keys.clear();
            keys.extend(self.each(column).map_while(|(code, event, time)| {
                let slot = (time.rem_euclid(DAY) / SLOT) as u64;
                (code.max(event) < CODES).then(|| u64::from(code) << 36 | u64::from(event) << 8 | slot)
            }));
            sort(&mut keys, interrupt, u64::cmp);
            let cells = keys.chunk_by(|a, b| a == b).count();
            if keys.len() < self.len() || cells > (self.len() / 4).max(1000) {
                continue;
            }
            let mut groups = AVec::new_in(Global);
            let same = |a: &u64, b: &u64| a >> 8 == b >> 8;
            for group in keys.chunk_by(same) {
                let mut slots = AVec::new_in(Global);
                let mut before = 0;
                for cell in group.chunk_by(|a, b| a == b) {
                    put(&mut slots, (cell[0] & 0xff) - before);
                    put(&mut slots, cell.len() as u64);
                    before = cell[0] & 0xff;
                }
                let event = group[0] >> 8 & u64::from(CODES - 1);
                for n in [group[0] >> 36, event, group.len() as u64, slots.len() as u64] {
                    put(&mut groups, n);
                }
                groups.extend_from_slice(&slots);
            }
            w.varint(column as u64);
            w.bytes(&groups);
        }
        let mut out = out.to_vec();
        super::seal(&mut out);
        out
    }
}

fn put(out: &mut AVec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Hands out the cells of a column; false if it was not counted. Unless `by_slot`, one cell is a whole date.
///
/// # Errors
/// Bytes that are no counts.
pub fn each_cell(
    bytes: &[u8],
    column: usize,
    by_slot: bool,
    mut each: impl FnMut(Cell),
) -> Result<bool, Corrupt> {
    let mut counted = false;
    // To the end, whose absence is noticed so.
    for found in columns(bytes)? {
        let (number, groups) = found?;
        if number == column {
            read(groups, by_slot, &mut each)?;
            counted = true;
        }
    }
    Ok(counted)
}

/// Checks everything that [`Builder::counts`] would not have written so; for bytes from outside.
///
/// # Errors
/// The checksum, another order, numbers that do not add up.
pub fn check_counts(bytes: &[u8]) -> Result<(), Corrupt> {
    let head = header::<HEADER>(bytes, COUNTS)?;
    let rows = u64::from(word(head, 4));
    if checksum(bytes) != word(head, 12) {
        return Err(Corrupt::Checksum);
    }
    let (mut last, mut right) = (None, rows > 0);
    for column in columns(bytes)? {
        let (column, groups) = column?;
        right &= last.replace(column).is_none_or(|last| last < column);
        let (mut sums, mut before) = ([0u64; 2], None);
        for by_slot in [false, true] {
            read(groups, by_slot, &mut |cell: Cell| {
                sums[usize::from(by_slot)] = sums[usize::from(by_slot)].saturating_add(cell.rows);
                let here = (by_slot, cell.code, cell.event, cell.slot);
                right &= before.replace(here).is_none_or(|before| before < here);
                right &= cell.rows > 0 && (column > 0 || cell.code == 0);
            })?;
        }
        right &= sums == [rows; 2];
    }
    if right { Ok(()) } else { Err(Corrupt::Malformed("counts do not add up")) }
}

fn word(bytes: &[u8; HEADER], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn bad(_: DecodeError) -> Corrupt {
    Corrupt::Malformed("counts")
}

/// Reads the numbers of a part of the bytes.
struct Numbers<'a>(Reader<'a>);

impl<'a> Numbers<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::behind(bytes))
    }

    fn next(&mut self, most: u64) -> Result<u64, Corrupt> {
        self.0.varint().ok().filter(|n| *n < most).ok_or(Corrupt::Malformed("counts"))
    }
}

/// Number and groups of each column.
fn columns(bytes: &[u8]) -> Result<impl Iterator<Item = Result<(usize, &[u8]), Corrupt>>, Corrupt> {
    let head = header::<HEADER>(bytes, COUNTS)?;
    if head[2..4] != [0; 2] || word(head, 8) != 0 {
        return Err(Corrupt::Malformed("header of counts"));
    }
    let mut numbers = Numbers::new(bytes.get(HEADER..).unwrap_or(&[]));
    Ok(std::iter::from_fn(move || {
        (numbers.0.remaining() > 0).then(|| {
            let column = numbers.next(1 << 16)? as usize;
            Ok((column, numbers.0.bytes().map_err(bad)?))
        })
    }))
}

fn read(groups: &[u8], by_slot: bool, each: &mut impl FnMut(Cell)) -> Result<(), Corrupt> {
    let mut groups = Numbers::new(groups);
    while groups.0.remaining() > 0 {
        let (code, event) = (groups.next(CODES.into())? as u32, groups.next(CODES.into())? as u32);
        let rows = groups.next(u64::MAX)?;
        let mut slots = Numbers::new(groups.0.bytes().map_err(bad)?);
        if !by_slot {
            each(Cell { code, event, slot: 0, rows });
            continue;
        }
        let mut slot = 0;
        while slots.0.remaining() > 0 {
            slot += slots.next(SLOTS - slot)?;
            each(Cell { code, event, slot: slot as u8, rows: slots.next(u64::MAX)? });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn builder(rows: &[(i64, u32, u32, u32)]) -> Builder {
        let mut builder = Builder::new(2);
        for (i, &(time, event, a, b)) in rows.iter().enumerate() {
            builder.push(i as u64 % 5, time, event, &[a, b]).unwrap();
        }
        builder
    }

    fn rows() -> impl Strategy<Value = Vec<(i64, u32, u32, u32)>> {
        let row = (3 * DAY..4 * DAY, 0u32..9, 0u32..4, prop_oneof![9 => 0u32..9000, 1 => any::<u32>()]);
        prop::collection::vec(row, 1..3000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn cells_are_the_rows_and_their_order_leaves_no_trace(mut rows in rows(), flip in 1u8.., at: usize, cut: usize) {
            let bytes = builder(&rows).counts(());
            prop_assert_eq!(check_counts(&bytes), Ok(()));
            rows.reverse();
            prop_assert_eq!(&builder(&rows).counts(()), &bytes);
            for column in 0..4 {
                let mut expected: BTreeMap<_, u64> = BTreeMap::new();
                for &(time, event, a, b) in &rows {
                    let slot = (time.rem_euclid(DAY) / SLOT) as u8;
                    *expected.entry(([0, a, b, 0][column], event, slot)).or_default() += 1;
                }
                let counted = column < 3 && rows.iter().all(|row| column != 2 || row.3 < CODES)
                    && expected.len() <= (rows.len() / 4).max(1000);
                let mut found = vec![];
                prop_assert_eq!(each_cell(&bytes, column, true, |cell| found.push(cell)), Ok(counted));
                let mut whole: BTreeMap<_, u64> = BTreeMap::new();
                prop_assert_eq!(each_cell(&bytes, column, false, |c| *whole.entry((c.code, c.event)).or_default() += c.rows), Ok(counted));
                let mut sums: BTreeMap<_, u64> = BTreeMap::new();
                found.iter().for_each(|c: &Cell| *sums.entry((c.code, c.event)).or_default() += c.rows);
                prop_assert_eq!(whole, sums);
                let cells: Vec<_> = expected.into_iter()
                    .map(|((code, event, slot), rows)| Cell { code, event, slot, rows }).collect();
                prop_assert_eq!(found, if counted { cells } else { vec![] });
            }
            let mut altered = bytes.clone();
            altered[at % bytes.len()] ^= flip;
            prop_assert!(check_counts(&altered).is_err());
            prop_assert!(check_counts(&bytes[..cut % bytes.len()]).is_err());
            // Whoever can write a value can write its checksum.
            crate::timeline::seal(&mut altered);
            if altered != bytes {
                let _ = check_counts(&altered);
            }
        }
    }
}
