//! A timeline as reports see it: what it is, which columns a question needs, and its slices in the order of a scan,
//! those of dates that wait for a refresh made from rows on the fly.

use std::collections::BTreeMap;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};
use tidemark_core::timeline::{
    Codes, EachPerson, Encoded, Kernel, Level, Question, Row, Scan, ScanError, Source, View, person_hash,
    slice_of,
};

use super::dictionary::Dictionary;
use super::encode;
use super::query::{each_row, name_of};
use crate::support::args;
use crate::support::array::{self, Element};
use crate::support::error::{INVALID, OrRaise, invalid_argument, not_null, raise, raise_hint, shown};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;

/// What the column of events is called.
pub const EVENT: &str = "event_type";

/// A registered timeline, its dates and the columns that a question needs.
pub struct Timeline {
    name: String,
    target: Oid,
    view: Oid,
    codes: Oid,
    properties: Vec<String>,
    bits: u32,
    stale: Vec<i32>,
    /// From and to (exclusive), in days since 2000-01-01.
    pub dates: (i32, i32),
    /// The property of each column: the event is the first.
    columns: Vec<usize>,
}

impl Timeline {
    /// The timeline that the first argument of a report names, itself or by its source, and the dates that the next two
    /// say.
    ///
    /// # Safety
    /// The arguments must be (regclass, date, date).
    pub unsafe fn of_call(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: see above.
        let (source, from, to) =
            unsafe { (args::int32(fcinfo, 0), args::int32(fcinfo, 1), args::int32(fcinfo, 2)) };
        let source = Oid::from(not_null(source, "source") as u32);
        let dates = (not_null(from, "from_date"), not_null(to, "to_date"));
        if [dates.0, dates.1].iter().any(|date| [i32::MIN, i32::MAX].contains(date)) || dates.1 < dates.0 {
            invalid_argument(
                "from_date and to_date must be finite, and to_date not before from_date",
                "to_date is exclusive: the day after the last one.",
            );
        }
        let mut found = None;
        let sql = "SELECT d.name, d.target::oid, d.row_view::oid, d.codes::oid, d.bits, d.properties, d.stale
                     FROM tidemark_internal.timeline_definition($1) AS d";
        each_row(sql, &[(pg_sys::OIDOID, Datum::from(source))], |row| {
            let oid = |column| Oid::from(row.int(column).unwrap_or(0) as u32);
            let list = |column| row.datum(column).unwrap_or(Datum::from(0));
            // SAFETY: the function returns a name, a text[] and an integer[] there.
            let (name, properties, stale) = unsafe {
                (
                    row.text(0),
                    Vec::<String>::from_datum(list(5), row.datum(5).is_none()),
                    Vec::<i32>::from_datum(list(6), row.datum(6).is_none()),
                )
            };
            found = Some(Self {
                name: name.unwrap_or_default().to_owned(),
                target: oid(1),
                view: oid(2),
                codes: oid(3),
                bits: row.int(4).unwrap_or(0) as u32,
                properties: properties.unwrap_or_default(),
                stale: stale
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|d| (dates.0..dates.1).contains(d))
                    .collect(),
                dates,
                columns: vec![0],
            });
        });
        match found {
            Some(timeline) => timeline,
            None => raise_hint(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("there is no timeline of {}", name_of(source)),
                "tidemark.create_timeline makes one; SELECT * FROM tidemark.timeline_status lists them.",
            ),
        }
    }

    /// The column of a property, for a [`Question`](tidemark_core::timeline::Question).
    pub fn column(&mut self, name: &str) -> usize {
        if name == EVENT {
            return 0;
        }
        let Some(property) = self.properties.iter().position(|property| property == name) else {
            raise_hint(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("timeline {} has no property {}", self.name, shown(name)),
                "Name it in properties of tidemark.create_timeline; SELECT properties FROM \
                 tidemark.timeline_status says what there is.",
            )
        };
        self.columns.iter().position(|column| *column == property + 1).unwrap_or_else(|| {
            self.columns.push(property + 1);
            self.columns.len() - 1
        })
    }

    /// Reads the dictionaries of the columns asked for, and the rows of dates that wait for a refresh.
    pub fn open(self) -> Open {
        let mut dictionaries = Dictionary::load(self.codes, &self.columns);
        let mut live: Vec<(i32, Encoded)> = vec![];
        if !self.stale.is_empty() {
            let sql = encode::select(self.view, self.columns.iter().skip(1).copied())
                + " WHERE r.event_date OPERATOR(pg_catalog.=) ANY ($1)";
            let (mut builders, of) = (BTreeMap::new(), (self.view, &self.columns[..]));
            each_row(&sql, &[dates(&self.stale)], |row| {
                // SAFETY: the row is one of this query.
                unsafe { encode::add(&mut builders, row, &mut dictionaries, of) };
            });
            let mut slices = encode::finish(builders, self.bits);
            contained(|| live.extend(&mut slices));
            live.sort_unstable_by_key(|(date, slice)| (slice.slice, *date));
        }
        Open { timeline: self, dictionaries, live }
    }
}

fn dates(dates: &[i32]) -> (Oid, Datum) {
    let dates = dates.iter().map(|date| Some(Datum::from(*date)));
    (pg_sys::DATEARRAYOID, array::make(dates, Element::DATE))
}

/// A timeline with what is needed to answer one question.
pub struct Open {
    timeline: Timeline,
    /// By column.
    dictionaries: Vec<Dictionary>,
    /// Slices that are not stored, in the order of a scan.
    live: Vec<(i32, Encoded)>,
}

impl Open {
    /// The dictionary of a column.
    pub fn dictionary(&self, column: usize) -> &Dictionary {
        &self.dictionaries[column]
    }

    /// How many events and persons there are by date, without a look into slices.
    pub fn sizes(&self) -> BTreeMap<i32, [u64; 2]> {
        let mut sizes: BTreeMap<i32, [u64; 2]> = BTreeMap::new();
        for (date, slice) in &self.live {
            let [events, persons] = sizes.entry(*date).or_default();
            *events += slice.rows as u64;
            *persons += slice.persons as u64;
        }
        let (from, to) = self.timeline.dates;
        let arguments = [
            (pg_sys::DATEOID, Datum::from(from)),
            (pg_sys::DATEOID, Datum::from(to)),
            dates(&self.timeline.stale),
        ];
        let sql = format!(
            "SELECT s.event_date::date, sum(s.events)::bigint, sum(s.persons)::bigint FROM {} AS s
              WHERE s.event_date >= $1 AND s.event_date < $2 AND s.event_date <> ALL ($3) AND s.property = 0
              GROUP BY 1",
            name_of(self.timeline.target)
        );
        each_row(&sql, &arguments, |row| {
            let count = |column| row.datum(column).map_or(0, |n| n.value() as u64);
            if let Some(date) = row.int(0) {
                sizes.insert(date, [count(1), count(2)]);
            }
        });
        sizes
    }

    /// Hands out the persons of the dates with their hashes, each at least once: reads the rows.
    pub fn persons(&self, mut each: impl FnMut(&str, u64)) {
        let sql = encode::select(self.timeline.view, std::iter::empty())
            + " WHERE r.event_date OPERATOR(pg_catalog.>=) $1 AND r.event_date OPERATOR(pg_catalog.<) $2";
        let (from, to) = self.timeline.dates;
        each_row(&sql, &[from, to].map(|date| (pg_sys::DATEOID, Datum::from(date))), |row| {
            // SAFETY: the second column is a text.
            if let Some(person) = unsafe { row.text(1) } {
                each(person, person_hash(person.as_bytes()));
            }
        });
    }

    /// The slice of a person; a kernel is done with one before it sees the next.
    pub fn slice_of(&self, hash: u64) -> u32 {
        slice_of(hash, self.timeline.bits)
    }

    /// Hands out all rows of each person that matter, in order; one copy of the code for whatever takes them.
    pub fn each_person(&self, question: Question, each: &mut dyn FnMut(u64, &[Row])) {
        self.ask(EachPerson::new(question, each));
    }

    /// Leads a kernel through all slices of the dates.
    pub fn ask<K: Kernel>(&self, kernel: K) -> K {
        let mut scan = Scan::new(kernel, self.timeline.bits, Level::best())
            .or_raise(INVALID, "cannot ask this question");
        self.slices(&mut |slice, date, source| scan.read(slice, date, &[source], Interrupts));
        contained(|| scan.leave(Interrupts));
        scan.finish(Interrupts)
    }

    fn slices(&self, each: EachSlice<'_>) {
        let Timeline { name, columns, target, .. } = &self.timeline;
        let live = self.live.iter().peekable();
        let mut reader = Reader { name, each, live, key: None, values: vec![vec![]; columns.len()] };
        let numbers = columns.iter().map(|column| Some(Datum::from(*column as i32)));
        let (from, to) = self.timeline.dates;
        let last = columns.iter().max().copied().unwrap_or(0);
        let arguments = [
            (pg_sys::DATEOID, Datum::from(from)),
            (pg_sys::DATEOID, Datum::from(to)),
            dates(&self.timeline.stale),
            (pg_sys::INT4ARRAYOID, array::make(numbers, Element::INT4)),
            (pg_sys::INT4OID, Datum::from(last as i32)),
        ];
        let sql = format!(
            "SELECT s.slice::integer, s.event_date::date, s.property::integer, s.data::tidemark.timeline FROM {} AS s
              WHERE s.event_date >= $1 AND s.event_date < $2 AND s.event_date <> ALL ($3)
                AND s.property <= $5 AND s.property = ANY ($4) ORDER BY s.slice, s.event_date, s.property",
            name_of(*target)
        );
        each_row(&sql, &arguments, |row| {
            let key = (row.int(0).unwrap_or(0) as u32, row.int(1).unwrap_or(0));
            let column = row.int(2).and_then(|n| columns.iter().position(|column| *column == n as usize));
            // SAFETY: the fourth column is a timeline.
            let (Some(column), Some(bytes)) = (column, unsafe { row.bytes(3) }) else { return };
            if let [_] = columns[..] {
                // Nothing to wait for: it is read where it lies.
                reader.live_before(Some(key));
                return pass(name, &mut *reader.each, key, &[bytes]);
            }
            if reader.key.is_some_and(|before| before != key) {
                reader.flush();
            }
            reader.key = Some(key);
            reader.values[column].clear();
            reader.values[column].extend_from_slice(bytes);
        });
        contained(|| {
            reader.flush();
            reader.live_before(None);
        });
    }
}

/// Takes a slice of a date.
type EachSlice<'a> = &'a mut dyn FnMut(u32, i32, Source<'_>) -> Result<(), ScanError>;

/// Puts the values of a slice and date together, and the live ones between the stored ones.
struct Reader<'a> {
    name: &'a str,
    each: EachSlice<'a>,
    live: std::iter::Peekable<std::slice::Iter<'a, (i32, Encoded)>>,
    key: Option<(u32, i32)>,
    /// By column.
    values: Vec<Vec<u8>>,
}

impl Reader<'_> {
    fn flush(&mut self) {
        if let Some(key) = self.key.take() {
            self.live_before(Some(key));
            pass(self.name, &mut *self.each, key, &self.values);
            self.values.iter_mut().for_each(Vec::clear);
        }
    }

    fn live_before(&mut self, key: Option<(u32, i32)>) {
        while let Some((date, slice)) =
            self.live.next_if(|(date, slice)| key.is_none_or(|key| (slice.slice, *date) < key))
        {
            let values: Vec<&[u8]> =
                std::iter::once(&slice.core).chain(&slice.properties).map(Vec::as_slice).collect();
            pass(self.name, &mut *self.each, (slice.slice, *date), &values);
        }
    }
}

/// Hands out the values of a slice on a date.
fn pass(timeline: &str, each: EachSlice<'_>, (slice, date): (u32, i32), values: &[impl AsRef<[u8]>]) {
    let corrupt = |error: &dyn std::fmt::Display| -> ! {
        raise(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("timeline {timeline}, slice {slice}, date {}: {error}", date_text(date)),
        )
    };
    let Some((core, properties)) = values.split_first() else { return };
    let view = View::read(core.as_ref()).unwrap_or_else(|error| corrupt(&error));
    let codes = properties
        .iter()
        .map(|bytes| Codes::read(bytes.as_ref()))
        .collect::<Result<Vec<_>, _>>()
        .unwrap_or_else(|error| corrupt(&error));
    let source = Source::new(view, codes).unwrap_or_else(|error| corrupt(&error));
    if let Err(error) = each(slice, date, source) {
        corrupt(&error);
    }
}

/// A date as messages write it.
fn date_text(date: i32) -> String {
    let (mut year, mut month, mut day) = (0, 0, 0);
    // SAFETY: writes three integers; 2451545 is the Julian day of 2000-01-01.
    unsafe { pg_sys::j2date(date.wrapping_add(2_451_545), &mut year, &mut month, &mut day) };
    format!("{year:04}-{month:02}-{day:02}")
}

/// A text as a value of a result.
pub fn text(value: &str) -> Option<Datum> {
    value.into_datum()
}
