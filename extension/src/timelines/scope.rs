//! A date of which the rows of some persons changed: their slices are made of what is stored of all others and of their
//! own rows, and what the date counts of the difference. Which rows these are is decided in `sql/parts.sql`.

use std::collections::{BTreeMap, BTreeSet};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};
use tidemark_core::timeline::{Builder, Corrupt, person_hash, slice_of};

use super::dictionary::Dictionary;
use super::encode::{Given, Giver, MAX_BITS, MAX_PROPERTIES, add, counts_of, learn, select, slices};
use super::parts::{Values, keep, source};
use super::query::{each_row, name_of};
use super::read::{corrupt, date_text};
use crate::models::is_reading;
use crate::support::array::{self, Element};
use crate::support::error::{INVALID, OrRaise, not_null, raise};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;
use crate::support::{args, pg_function};

const LIMIT: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;

/// What counts of a part are of, and what they are by their number among properties.
#[derive(Default)]
struct Counts {
    rows: usize,
    persons: usize,
    values: BTreeMap<i32, Vec<u8>>,
}

/// What is stored of a date: by part and slice the values, by part the counts.
#[derive(Default)]
struct Stored {
    slices: BTreeMap<(i32, u32), Values>,
    /// Of the slices that are no parts.
    persons: usize,
    counts: BTreeMap<i32, Counts>,
}

impl Stored {
    /// Adds the rows of a table for which a condition holds.
    fn read(&mut self, target: Oid, date: i32, condition: &str, slices: &[u32]) {
        let sql = format!(
            "SELECT s.part::integer, s.slice::integer, s.property::integer, s.events::integer,
                    s.persons::integer,
                    s.data::tidemark.timeline
               FROM {} AS s WHERE s.event_date = $1 AND {condition}",
            name_of(target)
        );
        let list = array::make(slices.iter().map(|slice| Some(Datum::from(*slice as i32))), Element::INT4);
        let arguments = [(pg_sys::DATEOID, Datum::from(date)), (pg_sys::INT4ARRAYOID, list)];
        each_row(&sql, &arguments, |row| {
            // SAFETY: the last column is a timeline.
            let bytes = unsafe { row.bytes(5) };
            let (Some(part), Some(slice), Some(property), Some(events), Some(persons), Some(bytes)) =
                (row.int(0), row.int(1), row.int(2), row.int(3), row.int(4), bytes)
            else {
                return;
            };
            if property < 0 {
                let counts = self.counts.entry(part).or_default();
                (counts.rows, counts.persons) = (events as usize, persons as usize);
                counts.values.insert(property, bytes.to_vec());
            } else {
                self.persons += if property == 0 && part == 0 { persons as usize } else { 0 };
                keep(self.slices.entry((part, slice as u32)).or_default(), property as usize, bytes);
            }
        });
    }
}

pg_function! {
    /// `timeline_scoped(target regclass, row_view regclass, codes regclass, properties integer, bits integer,
    /// event_date date, persons text[], but xid[])`: (event_date, property, slice, part, events, persons, data).
    fn tidemark_timeline_scoped(fcinfo) {
        let oid = |index| Oid::from(not_null(args::int32(fcinfo, index), "relation") as u32);
        let number = |index, name: &str| not_null(args::int32(fcinfo, index), name);
        let up_to = |index, name: &str, most: usize| match usize::try_from(number(index, name)) {
            Ok(n) if n <= most => n,
            _ => raise(INVALID, format!("{name} must be 0 to {most}")),
        };
        let (target, view, codes) = (oid(0), oid(1), oid(2));
        let properties: Vec<usize> = (0..=up_to(3, "properties", MAX_PROPERTIES)).collect();
        let columns = properties.len();
        let (bits, date) = (up_to(4, "bits", MAX_BITS) as u32, number(5, "event_date"));
        let hashes: BTreeSet<u64> = array::elements(fcinfo, 6, "persons", Element::TEXT)?
            .flatten()
            .map(|person| person_hash(args::varlena_bytes(person)))
            .collect();
        let touched: BTreeSet<u32> = hashes.iter().map(|hash| slice_of(*hash, bits)).collect();
        let touched: Vec<u32> = touched.into_iter().collect();
        let theirs = |hash| hashes.contains(&hash);

        let mut dictionaries = Dictionary::load(codes, &properties);
        let mut gained = BTreeMap::new();
        let sql = select(view, properties.iter().skip(1).copied())
            + " WHERE r.event_date OPERATOR(pg_catalog.=) $1 AND r.person OPERATOR(pg_catalog.=) ANY ($2)
                  AND r.added_by OPERATOR(pg_catalog.<>) ALL ($3)";
        let arguments = [
            (pg_sys::DATEOID, Datum::from(date)),
            (pg_sys::TEXTARRAYOID, not_null(args::datum(fcinfo, 6), "persons")),
            (pg_sys::XIDARRAYOID, not_null(args::datum(fcinfo, 7), "but")),
        ];
        each_row(&sql, &arguments, |row| add(&mut gained, row, &mut dictionaries, (view, &properties)));
        if !is_reading() {
            contained(|| learn(codes, &dictionaries));
        }
        let gained = gained.remove(&date).unwrap_or_else(|| Builder::new(columns - 1));

        let mut stored = Stored::default();
        stored.read(target, date, "s.slice = ANY ($2) AND s.part = 0 AND s.property >= 0", &touched);
        stored.read(target, date, "s.slice = ANY ($2) AND (s.part > 0 OR s.property < 0)", &[0]);
        let name = name_of(target);
        let bad = |error: Corrupt| -> ! { corrupt(&name, &format!("date {}", date_text(date)), &error) };
        let mut out = Giver::new(Given::of_call(fcinfo), date);

        // By part: what stays of those that have something of them, and what goes.
        let mut parts: BTreeMap<i32, [Builder; 2]> = BTreeMap::new();
        contained(|| {
            for ((part, slice), values) in &stored.slices {
                let what = || format!("date {}, part {part}, slice {slice}", date_text(date));
                let source = source(values, &name, what);
                let [stays, goes] = parts.entry(*part).or_insert_with(|| [0, 0].map(|_| Builder::new(columns - 1)));
                let added = stays.add_of(&source, |hash| !theirs(hash)).and_then(|()| goes.add_of(&source, theirs));
                added.or_raise(LIMIT, "cannot encode a date");
            }
        });
        let [mut stays, goes] = parts.remove(&0).unwrap_or_else(|| [0, 0].map(|_| Builder::new(columns - 1)));
        parts.retain(|_, [_, goes]| !goes.is_empty());

        let Counts { rows, persons, values } = stored.counts.remove(&0).unwrap_or_default();
        let base: Option<Vec<[Vec<u8>; 2]>> = (0..columns)
            .map(|column| Some([false, true].map(|by_slot| values.get(&counts_of(column, by_slot)).cloned())))
            .map(|ways| match ways { Some([Some(a), Some(b)]) => Some([a, b]), _ => None })
            .collect();
        contained(|| stays.extend(&gained)).or_raise(LIMIT, "cannot encode a date");
        let counts = base.and_then(|base| {
            contained(|| gained.counts_since(&base, &goes)).unwrap_or_else(|error| bad(error))
        });
        // A column that has too many values to be counted, or would have without these rows.
        let counts = counts.unwrap_or_else(|| {
            let mut others = Stored::default();
            others.read(target, date, "s.slice <> ALL ($2) AND s.part = 0 AND s.property >= 0", &touched);
            contained(|| {
                let mut all = Builder::new(columns - 1);
                for ((part, slice), values) in &others.slices {
                    let what = || format!("date {}, part {part}, slice {slice}", date_text(date));
                    all.add(&source(values, &name, what)).or_raise(LIMIT, "cannot encode a date");
                }
                all.extend(&stays).or_raise(LIMIT, "cannot encode a date");
                all.counts(Interrupts)
            })
        });

        let (mut written, mut persons_after) = (BTreeSet::new(), 0);
        let mut made = slices(stays, bits);
        while let Some(slice) = contained(|| made.next()) {
            persons_after += slice.persons;
            written.insert(slice.slice);
            out.slice(0, &slice);
        }
        for (_, slice) in stored.slices.keys().filter(|(part, slice)| *part == 0 && !written.contains(slice)) {
            (0..columns).for_each(|property| out.gone(0, *slice, property as i32));
        }
        let rows = (rows + gained.len()).saturating_sub(goes.len());
        out.counts(0, rows, (persons + persons_after).saturating_sub(stored.persons), &counts);
        for (part, [stays, _]) in parts {
            if stays.is_empty() {
                (0..columns).for_each(|column| {
                    out.gone(part, 0, column as i32);
                    [false, true].iter().for_each(|by_slot| out.gone(part, 0, counts_of(column, *by_slot)));
                });
            } else {
                out.date(part, stays, 0);
            }
        }
        None
    }
}
