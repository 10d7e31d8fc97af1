//! How many rows and persons there are, from what is stored beside the slices; where that does not say it, a kernel counts.

use std::collections::BTreeMap;

use pgrx::pg_sys::{self, Datum};
use tidemark_core::retention::calendar::DAY;
use tidemark_core::timeline::{Kernel, Level, Persons, Question, SLOT, Scan, Trend, each_cell};

use super::encode::counts_of;
use super::parts::source;
use super::query::{each_row_of_kept, name_of};
use super::read::{Open, corrupt, date_text, dates};
use crate::support::error::{INVALID, OrRaise};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;

/// Slots or dates, values and rows.
type Counted = Vec<(i64, u32, u64)>;

impl Open {
    /// How many persons there are by date: of dates without parts, without a look into slices.
    pub fn persons_by_date(&self) -> BTreeMap<i32, u64> {
        let open: Vec<i32> = self.open.keys().copied().collect();
        let (from, to) = self.timeline.dates;
        let arguments = [(pg_sys::DATEOID, Datum::from(from)), (pg_sys::DATEOID, Datum::from(to))];
        let sql = format!(
            "SELECT s.event_date::date, s.persons::integer FROM {} AS s
              WHERE s.slice = 0 AND s.event_date >= $1 AND s.event_date < $2 AND s.property = {} AND s.part = 0",
            name_of(self.timeline.target),
            counts_of(0, false)
        );
        let mut sizes = BTreeMap::new();
        each_row_of_kept(&sql, &arguments, |row| {
            if let (Some(date), Some(n)) = (row.int(0), row.int(1))
                && !self.timeline.stale.contains(&date)
                && !open.contains(&date)
            {
                sizes.insert(date, n as u64);
            }
        });
        if !open.is_empty() {
            // Whoever is in two parts counts once.
            sizes.extend(self.ask_of(Persons::new(Question::all(), false), Some(&open)).dates());
        }
        sizes
    }

    /// Hands out how many rows matter, by date, or slot of [`SLOT`] (its start), and value: from counts where they say it.
    pub fn counts(&self, question: &Question, by_slot: bool, mut each: impl FnMut(i64, u32, u64)) {
        let slot = if by_slot { SLOT } else { DAY };
        let columns: Vec<usize> = question.columns().into_iter().filter(|column| *column > 0).collect();
        let mut kernel = Trend::new(question.clone(), slot);
        if columns.len() > 1 {
            kernel = self.ask(kernel);
        } else {
            // A question about events only is answered from any column, and cheapest from theirs.
            let property = columns.first().map_or(0, |column| self.timeline.columns[*column]);
            let missing = self.counted(property, question, by_slot, &mut each);
            for date in self.live.iter().filter(|date| !missing.contains(date)) {
                let part = self.ask_part(Trend::new(question.clone(), slot), *date);
                contained(|| kernel.merge(&part));
            }
            if !missing.is_empty() {
                let whole = self.ask_of(Trend::new(question.clone(), slot), Some(&missing));
                contained(|| kernel.merge(&whole));
            }
        }
        contained(|| kernel.counts().for_each(|((at, value), n)| each(at, value, n)));
    }

    /// Hands out what the counts of a property say, and returns the dates of which they do not.
    fn counted(
        &self,
        property: usize,
        question: &Question,
        by_slot: bool,
        each: &mut impl FnMut(i64, u32, u64),
    ) -> Vec<i32> {
        let (from, to) = self.timeline.dates;
        let arguments = [
            (pg_sys::DATEOID, Datum::from(from)),
            (pg_sys::DATEOID, Datum::from(to)),
            dates(&self.timeline.stale),
            (pg_sys::INT4OID, Datum::from(counts_of(property, by_slot))),
        ];
        let sql = format!(
            "SELECT s.event_date::date, s.data::tidemark.timeline FROM {} AS s
              WHERE s.slice = 0 AND s.event_date >= $1 AND s.event_date < $2 AND s.event_date <> ALL ($3)
                AND s.property = $4",
            name_of(self.timeline.target)
        );
        let mut of_date: BTreeMap<i32, Option<Counted>> = BTreeMap::new();
        each_row_of_kept(&sql, &arguments, |row| {
            // SAFETY: the second column is a timeline.
            let (Some(date), Some(bytes)) = (row.int(0), unsafe { row.bytes(1) }) else { return };
            let counts = of_date.entry(date).or_insert_with(|| Some(vec![]));
            let Some(cells) = counts else { return };
            let mut group = None;
            let found = each_cell(bytes, |cell| {
                let code = |column: usize| if column == 0 { cell.event } else { cell.code };
                let matters = match group {
                    Some((code, event, matters)) if (code, event) == (cell.code, cell.event) => matters,
                    _ => question.matters(code),
                };
                group = Some((cell.code, cell.event, matters));
                if matters {
                    let at = i64::from(date) * DAY + i64::from(cell.slot) * SLOT;
                    cells.push((at, question.value.map_or(0, code), cell.rows));
                }
            });
            match found {
                Ok(true) => {}
                Ok(false) => *counts = None,
                Err(error) => {
                    corrupt(&self.timeline.name, &format!("counts of date {}", date_text(date)), &error)
                }
            }
        });
        let mut missing = vec![];
        contained(|| {
            for (date, cells) in &of_date {
                match cells {
                    Some(cells) => cells.iter().for_each(|(at, value, n)| each(*at, *value, *n)),
                    None => missing.push(*date),
                }
            }
        });
        missing
    }

    /// Leads a kernel through what is not stored of a date, without regard to slices.
    fn ask_part<K: Kernel>(&self, kernel: K, date: i32) -> K {
        let mut scan = Scan::new(kernel, 0, Level::best()).or_raise(INVALID, "cannot ask this question");
        let what = format!("new rows of date {}", date_text(date));
        if let Some(values) = self.open.get(&date).and_then(|parts| parts.last()) {
            let part = source(values, &self.timeline.name, || what.clone());
            if let Err(error) = contained(|| scan.read(0, date, &[part], Interrupts)) {
                corrupt(&self.timeline.name, &what, &error);
            }
        }
        scan.finish(Interrupts)
    }
}
