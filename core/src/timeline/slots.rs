//! Counts of rows by event, value of a property and date or quarter of an hour: what trends need of a date without its
//! slices. Any zone of today is a sum of quarters.
//!
//! A value counts one column in one of the two ways, so that a question about few numbers reads few bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 0, 1 | version 1, kind `c` |
//! | 2 | 0 by date, 1 by slot, 2 or 3 the same without any groups |
//! | 3 | 0 |
//! | 4 to 7 | rows |
//! | 8 to 11 | 0 |
//! | 12 to 15 | checksum of everything else |
//! | then, varints | groups, ascending |
//!
//! A group, of one code and event: both, and the rows, or how many slots follow. A slot: its number less that of the one
//! before, and the rows. Of the column of events all codes are 0.
//!
//! A column is left without groups if counting it takes many numbers, as of pages of a small date: then there is little
//! to gain.

use std::collections::BTreeMap;

use super::encode::Builder;
use super::view::{Corrupt, VERSION, checksum, header};
use crate::codec::{Reader, Writer};
use crate::interrupt::{Interrupt, sort};
use crate::retention::calendar::DAY;
use crate::{AVec, Global};

pub(super) const COUNTS: u8 = b'c';
const HEADER: usize = 16;
const BY_SLOT: u8 = 1;
const WITHOUT: u8 = 2;
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
    /// Which quarter of an hour of the date, 0 if not by slot.
    pub slot: u8,
    /// The rows, at least one.
    pub rows: u64,
}

impl Builder {
    /// Counts what was added, which must be of one date: by date and by slot for each column, the event first.
    pub fn counts(&self, interrupt: impl Interrupt) -> Vec<[Vec<u8>; 2]> {
        let mut keys: Vec<u64> = Vec::with_capacity(self.len());
        (0..=self.properties())
            .map(|column| {
                keys.clear();
                keys.extend(self.each(column).map_while(|(code, event, time)| {
                    (code.max(event) < CODES).then(|| key(code, event, slot_of(time)))
                }));
                sort(&mut keys, interrupt, u64::cmp);
                [(0, 8), (BY_SLOT, 0)].map(|(way, shift)| {
                    let cells = keys.chunk_by(|a, b| a >> shift == b >> shift);
                    let cells: Vec<_> =
                        cells.map(|cell| (cell[0] >> shift << shift, cell.len() as u64)).collect();
                    counted(self.len(), (keys.len() == self.len()).then_some(&cells), way)
                })
            })
            .collect()
    }

    /// What [`counts`](Self::counts) gives for a date that was counted as `base`, by column, lost the rows of `lost`
    /// and gained these. `None` where that cannot be told without all rows: a column was left out.
    ///
    /// # Errors
    /// Bytes that are no counts, or none of these rows.
    pub fn counts_since<T: AsRef<[u8]>>(
        &self,
        base: &[[T; 2]],
        lost: &Self,
    ) -> Result<Option<Vec<[Vec<u8>; 2]>>, Corrupt> {
        const WRONG: Corrupt = Corrupt::Malformed("counts that lack rows");
        let mut counts = Vec::with_capacity(base.len());
        for (column, ways) in base.iter().enumerate() {
            let mut both = [vec![], vec![]];
            for ((way, shift), (bytes, out)) in
                [(0, 8), (BY_SLOT, 0)].into_iter().zip(ways.iter().zip(&mut both))
            {
                let bytes = bytes.as_ref();
                let mut cells: BTreeMap<u64, u64> = BTreeMap::new();
                let whole = each_cell(bytes, |cell| {
                    cells.insert(key(cell.code, cell.event, cell.slot.into()), cell.rows);
                })?;
                let head = header::<HEADER>(bytes, COUNTS)?;
                if !whole || head[2] != way {
                    return Ok(None);
                }
                for (code, event, time) in self.each(column) {
                    if code.max(event) >= CODES {
                        return Ok(None);
                    }
                    *cells.entry(key(code, event, slot_of(time)) >> shift << shift).or_default() += 1;
                }
                for (code, event, time) in lost.each(column) {
                    let cell = key(code, event, slot_of(time)) >> shift << shift;
                    let left = cells.get(&cell).and_then(|rows| rows.checked_sub(1)).ok_or(WRONG)?;
                    if left == 0 {
                        cells.remove(&cell)
                    } else {
                        cells.insert(cell, left)
                    };
                }
                let rows = (word(head, 4) as usize + self.len()).checked_sub(lost.len()).ok_or(WRONG)?;
                *out = counted(rows, Some(&cells.into_iter().collect::<Vec<_>>()), way);
            }
            counts.push(both);
        }
        Ok(Some(counts))
    }
}

fn slot_of(time: i64) -> u64 {
    (time.rem_euclid(DAY) / SLOT) as u64
}

fn key(code: u32, event: u32, slot: u64) -> u64 {
    u64::from(code) << 36 | u64::from(event) << 8 | slot
}

/// Counts of so many rows by cell, which are left out where they are many, or not known.
fn counted(rows: usize, cells: Option<&Vec<(u64, u64)>>, way: u8) -> Vec<u8> {
    let cells = cells.filter(|cells| cells.len() <= (rows / 4).max(1000));
    let mut out = AVec::new_in(Global);
    let mut w = Writer::new(&mut out, VERSION);
    [COUNTS, way | if cells.is_none() { WITHOUT } else { 0 }, 0].iter().for_each(|byte| w.u8(*byte));
    [rows as u32, 0, 0].iter().for_each(|n| w.u32(*n));
    for group in cells.map_or(&[][..], |cells| cells).chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
        w.varint(group[0].0 >> 36);
        w.varint(group[0].0 >> 8 & u64::from(CODES - 1));
        if way == BY_SLOT {
            w.varint(group.len() as u64);
        }
        let mut before = 0;
        for (cell, rows) in group {
            if way == BY_SLOT {
                w.varint((cell & 0xff) - before);
                before = cell & 0xff;
            }
            w.varint(*rows);
        }
    }
    let mut out = out.to_vec();
    super::seal(&mut out);
    out
}

/// Hands out the cells, ascending; false if the column was left without any. By date, a cell is all of it.
///
/// # Errors
/// Bytes that are no counts.
pub fn each_cell(bytes: &[u8], mut each: impl FnMut(Cell)) -> Result<bool, Corrupt> {
    let head = header::<HEADER>(bytes, COUNTS)?;
    let (way, mut numbers) = (head[2], Numbers(Reader::behind(bytes.get(HEADER..).unwrap_or(&[]))));
    if way > (BY_SLOT | WITHOUT) || head[3] != 0 || word(head, 8) != 0 {
        return Err(Corrupt::Malformed("header of counts"));
    }
    let without = way & WITHOUT != 0;
    if without && numbers.0.remaining() > 0 {
        return Err(Corrupt::Malformed("counts that were left out"));
    }
    while numbers.0.remaining() > 0 {
        let (code, event) = (numbers.next(CODES.into())? as u32, numbers.next(CODES.into())? as u32);
        if way & BY_SLOT == 0 {
            each(Cell { code, event, slot: 0, rows: numbers.next(u64::MAX)? });
            continue;
        }
        let (mut slot, slots) = (0, numbers.next(SLOTS + 1)?);
        if slots == 0 {
            return Err(Corrupt::Malformed("counts of nothing"));
        }
        for _ in 0..slots {
            slot += numbers.next(SLOTS - slot)?;
            each(Cell { code, event, slot: slot as u8, rows: numbers.next(u64::MAX)? });
        }
    }
    Ok(!without)
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
    let (mut sum, mut before, mut right) = (0u64, None, rows > 0);
    let counted = each_cell(bytes, |cell| {
        sum = sum.saturating_add(cell.rows);
        let here = (cell.code, cell.event, cell.slot);
        right &= cell.rows > 0 && before.replace(here).is_none_or(|before| before < here);
    })?;
    if right && sum == if counted { rows } else { 0 } {
        Ok(())
    } else {
        Err(Corrupt::Malformed("counts do not add up"))
    }
}

fn word(bytes: &[u8; HEADER], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Reads the numbers behind a header.
struct Numbers<'a>(Reader<'a>);

impl Numbers<'_> {
    fn next(&mut self, most: u64) -> Result<u64, Corrupt> {
        self.0.varint().ok().filter(|n| *n < most).ok_or(Corrupt::Malformed("counts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        fn rows_that_come_and_go_leave_what_counting_all_gives(
            kept in rows(), lost in rows(), gained in rows()
        ) {
            let all = |more: &[(i64, u32, u32, u32)]| builder(&[&kept, more].concat()).counts(());
            let since = builder(&gained).counts_since(&all(&lost), &builder(&lost)).unwrap();
            let left_out = [all(&lost), all(&gained)].iter().any(|counts| {
                counts.iter().flatten().any(|bytes| each_cell(bytes, |_| ()) == Ok(false))
            });
            match since {
                Some(counts) => prop_assert_eq!(counts, all(&gained)),
                None => prop_assert!(left_out),
            }
            if !lost.is_empty() {
                let none = builder(&[]).counts_since(&builder(&[]).counts(()), &builder(&lost));
                prop_assert!(none.is_err());
            }
        }

        #[test]
        fn cells_are_the_rows_and_their_order_leaves_no_trace(
            mut rows in rows(), flip in 1u8.., at: usize, cut: usize
        ) {
            let counts = builder(&rows).counts(());
            rows.reverse();
            prop_assert_eq!(&builder(&rows).counts(()), &counts);
            prop_assert_eq!(counts.len(), 3);
            for (column, ways) in counts.iter().enumerate() {
                for (by_slot, bytes) in ways.iter().enumerate() {
                    prop_assert_eq!(check_counts(bytes), Ok(()));
                    let mut expected: BTreeMap<_, u64> = BTreeMap::new();
                    for &(time, event, a, b) in &rows {
                        let slot = (time.rem_euclid(DAY) / SLOT) as u8 * by_slot as u8;
                        *expected.entry(([0, a, b][column], event, slot)).or_default() += 1;
                    }
                    let counted = rows.iter().all(|row| column != 2 || row.3 < CODES)
                        && expected.len() <= (rows.len() / 4).max(1000);
                    let mut found = vec![];
                    prop_assert_eq!(each_cell(bytes, |cell| found.push(cell)), Ok(counted));
                    let cells: Vec<_> = expected.into_iter()
                        .map(|((code, event, slot), rows)| Cell { code, event, slot, rows }).collect();
                    prop_assert_eq!(found, if counted { cells } else { vec![] });
                    let mut altered = bytes.clone();
                    altered[at % bytes.len()] ^= flip;
                    prop_assert!(check_counts(&altered).is_err());
                    prop_assert!(check_counts(&bytes[..cut % bytes.len()]).is_err());
                    // Whoever can write a value can write its checksum.
                    crate::timeline::seal(&mut altered);
                    if altered != *bytes {
                        let _ = check_counts(&altered);
                    }
                }
            }
        }
    }
}
