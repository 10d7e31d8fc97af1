//! A timeline as reports see it: what it is, which columns a question needs, and its slices in the order of a scan. Beside
//! the slices of a date are its parts, and what is not stored yet is one more, made from rows on the fly.

use std::collections::BTreeMap;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};
use tidemark_core::timeline::{
    Builder, EachPerson, Kernel, Level, Question, Row, Scan, ScanError, Source, person_hash,
};

use super::dictionary::Dictionary;
use super::encode;
use super::parts::{Values, keep, source};
use super::query::{each_row, each_row_of_kept, name_of};
use super::stored::Slices;
use crate::support::args;
use crate::support::array::{self, Element};
use crate::support::error::{INVALID, OrRaise, invalid_argument, not_null, raise, raise_hint, shown};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;

/// What the column of events is called.
pub const EVENT: &str = "event_type";

/// A registered timeline, its dates and the columns that a question needs.
pub struct Timeline {
    pub name: String,
    pub target: Oid,
    /// Whose events these are.
    source: Oid,
    /// Rows as they are stored, of which it is known when they came.
    view: Oid,
    /// All rows, also those that the source does not hold yet.
    live_view: Oid,
    codes: Oid,
    properties: Vec<String>,
    bits: u32,
    /// Dates of which nothing stored counts.
    pub stale: Vec<i32>,
    /// Dates that only gained rows since what is stored was made, with the transactions that added these.
    gained: Vec<(i32, String)>,
    /// From and to (exclusive), in days since 2000-01-01.
    pub dates: (i32, i32),
    /// The property of each column: the event is the first.
    pub columns: Vec<usize>,
}

/// Keeps a table from being dropped meanwhile; an ERROR where row level security would hide a part of it.
fn hold_whole(table: Oid) {
    // SAFETY: plain calls; a table that is gone by now is missed by whoever reads it.
    let hidden = unsafe {
        pg_sys::LockRelationOid(table, pg_sys::AccessShareLock as i32);
        pg_sys::check_enable_rls(table, Oid::INVALID, true)
            == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    };
    if hidden {
        raise_hint(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{} has row level security", name_of(table)),
            "A timeline is read as a whole: grant SELECT to whoever may read all of it.",
        );
    }
}

impl Timeline {
    /// The timeline that the first argument of a report names, itself or by its source, and the dates that the next two
    /// say.
    ///
    /// # Safety
    /// The arguments must be (regclass, date, date).
    pub unsafe fn of_call(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: see above.
        unsafe { Self::of_call_beside(fcinfo, 0) }
    }

    /// The same, with so many more dates before and after.
    ///
    /// # Safety
    /// As above.
    pub unsafe fn of_call_beside(fcinfo: FunctionCallInfo, more: i32) -> Self {
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
        let dates = (dates.0.saturating_sub(more), dates.1.saturating_add(more));
        let mut found = None;
        let sql = "SELECT d.name, d.target::oid, d.row_view::oid, d.live_rows::oid, d.codes::oid, d.bits, d.properties,
                          d.stale, d.gained, d.events::oid
                     FROM tidemark_internal.timeline_definition($1, $2, $3) AS d";
        let arguments = [
            (pg_sys::OIDOID, Datum::from(source)),
            (pg_sys::DATEOID, Datum::from(dates.0)),
            (pg_sys::DATEOID, Datum::from(dates.1)),
        ];
        each_row_of_kept(sql, &arguments, |row| {
            let oid = |column| Oid::from(row.int(column).unwrap_or(0) as u32);
            let list = |column| row.datum(column).unwrap_or(Datum::from(0));
            // SAFETY: the function returns a name, a text[], an integer[] and a text[] as long there.
            let (name, properties, waiting, added_by) = unsafe {
                (
                    row.text(0),
                    Vec::<String>::from_datum(list(6), row.datum(6).is_none()),
                    Vec::<i32>::from_datum(list(7), row.datum(7).is_none()).unwrap_or_default(),
                    Vec::<Option<String>>::from_datum(list(8), row.datum(8).is_none()).unwrap_or_default(),
                )
            };
            let (mut stale, mut gained) = (vec![], vec![]);
            for (date, added_by) in waiting.into_iter().zip(added_by) {
                match added_by {
                    Some(added_by) => gained.push((date, added_by)),
                    None => stale.push(date),
                }
            }
            found = Some(Self {
                name: name.unwrap_or_default().to_owned(),
                target: oid(1),
                source: oid(9),
                view: oid(2),
                live_view: oid(3),
                codes: oid(4),
                bits: row.int(5).unwrap_or(0) as u32,
                properties: properties.unwrap_or_default(),
                stale,
                gained,
                dates,
                columns: vec![0],
            });
        });
        let Some(timeline) = found else {
            raise_hint(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("there is no timeline of {}", name_of(source)),
                "tidemark.create_timeline makes one; SELECT * FROM tidemark.timeline_status lists them.",
            )
        };
        // In the order in which they are dropped, or the two would wait for each other.
        for table in [timeline.target, timeline.codes] {
            hold_whole(table);
        }
        timeline
    }

    /// Whether nothing of the dates is expected any more; `None` where that is not known.
    pub fn complete(&self) -> Option<Datum> {
        // Not tidemark.watermark, which would be planned each time.
        let sql = "SELECT s.watermark AT TIME ZONE 'UTC' >= $2 FROM tidemark.source_status AS s WHERE s.source = $1";
        let arguments =
            [(pg_sys::OIDOID, Datum::from(self.source)), (pg_sys::DATEOID, Datum::from(self.dates.1))];
        let mut complete = None;
        each_row_of_kept(sql, &arguments, |row| complete = row.datum(0));
        complete
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

    /// Reads the dictionaries of the columns asked for, the parts, and the rows of dates that wait for a refresh.
    pub fn open(mut self) -> Open {
        let mut dictionaries = Dictionary::load(self.codes, &self.columns);
        let mut open: BTreeMap<i32, Vec<Values>> = BTreeMap::new();
        let mut builders = BTreeMap::new();
        for (date, added_by) in std::mem::take(&mut self.gained) {
            match self.new_rows(date, &added_by, &mut dictionaries) {
                Some(new) => builders.extend(new),
                None => self.stale.push(date),
            }
        }
        self.stored_parts(&mut open);
        if !self.stale.is_empty() {
            let of = (self.live_view, &self.columns[..]);
            let sql = encode::select(of.0, self.columns.iter().skip(1).copied())
                + " WHERE r.event_date OPERATOR(pg_catalog.=) ANY ($1)";
            each_row(&sql, &[dates(&self.stale)], |row| {
                // SAFETY: the row is one of this query.
                unsafe { encode::add(&mut builders, row, &mut dictionaries, of) };
            });
        }
        let mut parts = encode::finish(builders, 0);
        let mut live = vec![];
        contained(|| {
            for (date, part) in &mut parts {
                let values = std::iter::once(part.core).chain(part.properties).collect();
                open.entry(date).or_default().push(values);
                live.push(date);
            }
        });
        Open { timeline: self, dictionaries, open, live }
    }

    /// The rows that a date has gained; `None` where that is not all there is to say of it, as the numbers show.
    fn new_rows(
        &self,
        date: i32,
        added_by: &str,
        dictionaries: &mut [Dictionary],
    ) -> Option<BTreeMap<i32, Builder>> {
        let mut builders = BTreeMap::new();
        let sql = encode::select(self.view, self.columns.iter().skip(1).copied())
            + " WHERE r.event_date OPERATOR(pg_catalog.=) $1
                  AND r.added_by OPERATOR(pg_catalog.=) ANY (CAST($2 AS pg_catalog.xid[]))";
        let date = (pg_sys::DATEOID, Datum::from(date));
        each_row(&sql, &[date, (pg_sys::TEXTOID, args::make_varlena(added_by.as_bytes()))], |row| {
            // SAFETY: the row is one of this query.
            unsafe { encode::add(&mut builders, row, dictionaries, (self.view, &self.columns)) };
        });
        let sql = format!(
            "SELECT (SELECT pg_catalog.count(*) FROM {} AS r WHERE r.event_date OPERATOR(pg_catalog.=) $1
                        AND CAST(r.person AS pg_catalog.text) IS NOT NULL
                        AND CAST(r.event_time AS pg_catalog.timestamptz) IS NOT NULL)
                 - (SELECT COALESCE(pg_catalog.sum(s.events), 0)::bigint FROM {} AS s
                     WHERE s.event_date = $1 AND s.property = 0)",
            name_of(self.view),
            name_of(self.target)
        );
        let mut surplus = 0;
        each_row(&sql, &[date], |row| surplus = row.datum(0).map_or(0, |n| n.value() as i64));
        let new: usize = builders.values().map(Builder::len).sum();
        (surplus == new as i64).then_some(builders)
    }

    /// Reads the parts of the dates of which what is stored counts.
    fn stored_parts(&self, open: &mut BTreeMap<i32, Vec<Values>>) {
        let numbers = self.columns.iter().map(|column| Some(Datum::from(*column as i32)));
        let arguments = [
            (pg_sys::DATEOID, Datum::from(self.dates.0)),
            (pg_sys::DATEOID, Datum::from(self.dates.1)),
            dates(&self.stale),
            (pg_sys::INT4ARRAYOID, array::make(numbers, Element::INT4)),
        ];
        let sql = format!(
            "SELECT s.event_date::date, s.part::integer, s.property::integer, s.data::tidemark.timeline FROM {} AS s
              WHERE s.slice = 0 AND s.part > 0 AND s.event_date >= $1 AND s.event_date < $2
                AND s.event_date <> ALL ($3) AND s.property = ANY ($4) ORDER BY s.event_date, s.part",
            name_of(self.target)
        );
        let mut last = None;
        each_row_of_kept(&sql, &arguments, |row| {
            let (Some(date), part) = (row.int(0), row.int(1)) else { return };
            let column =
                row.int(2).and_then(|n| self.columns.iter().position(|column| *column == n as usize));
            // SAFETY: the fourth column is a timeline.
            let (Some(column), Some(bytes)) = (column, unsafe { row.bytes(3) }) else { return };
            let parts = open.entry(date).or_default();
            if last.replace((date, part)) != Some((date, part)) {
                parts.push(vec![]);
            }
            if let Some(values) = parts.last_mut() {
                keep(values, column, bytes);
            }
        });
    }
}

pub fn dates(dates: &[i32]) -> (Oid, Datum) {
    let dates = dates.iter().map(|date| Some(Datum::from(*date)));
    (pg_sys::DATEARRAYOID, array::make(dates, Element::DATE))
}

/// A timeline with what is needed to answer one question.
pub struct Open {
    pub timeline: Timeline,
    /// By column.
    dictionaries: Vec<Dictionary>,
    /// Parts by date.
    pub open: BTreeMap<i32, Vec<Values>>,
    /// Dates of which the last part is not stored.
    pub live: Vec<i32>,
}

impl Open {
    /// The dictionary of a column.
    pub fn dictionary(&self, column: usize) -> &Dictionary {
        &self.dictionaries[column]
    }

    /// Hands out the persons of the dates with their hashes, each at least once: reads the rows.
    pub fn persons(&self, mut each: impl FnMut(&str, u64)) {
        let sql = encode::select(self.timeline.live_view, std::iter::empty())
            + " WHERE r.event_date OPERATOR(pg_catalog.>=) $1 AND r.event_date OPERATOR(pg_catalog.<) $2";
        let (from, to) = self.timeline.dates;
        each_row(&sql, &[from, to].map(|date| (pg_sys::DATEOID, Datum::from(date))), |row| {
            // SAFETY: the second column is a text.
            if let Some(person) = unsafe { row.text(1) } {
                each(person, person_hash(person.as_bytes()));
            }
        });
    }

    /// Hands out all rows of each person that matter, in order; one copy of the code for whatever takes them.
    pub fn each_person(&self, question: Question, each: &mut dyn FnMut(u64, &[Row])) {
        self.ask(EachPerson::new(question, each));
    }

    /// Leads a kernel through all slices of the dates.
    pub fn ask<K: Kernel>(&self, kernel: K) -> K {
        self.ask_of(kernel, None)
    }

    /// The same, of some dates only.
    pub fn ask_of<K: Kernel>(&self, kernel: K, only: Option<&[i32]>) -> K {
        let mut scan = Scan::new(kernel, self.timeline.bits, Level::best())
            .or_raise(INVALID, "cannot ask this question");
        self.slices(only, K::TIMES, &mut |slice, date, parts| scan.read(slice, date, parts, Interrupts));
        contained(|| scan.leave(Interrupts));
        scan.finish(Interrupts)
    }

    /// `whole`: most of what a slice holds will be read.
    fn slices(&self, only: Option<&[i32]>, whole: bool, each: EachSlice<'_>) {
        let Timeline { name, columns, target, bits, stale, dates, .. } = &self.timeline;
        let mut open: Vec<(i32, Vec<Source<'_>>)> = vec![];
        for (date, parts) in self.open.iter().filter(|(date, _)| only.is_none_or(|only| only.contains(date)))
        {
            let what = || format!("date {}, a part", date_text(*date));
            open.push((*date, parts.iter().map(|values| source(values, name, what)).collect()));
        }
        let mut parts = Parts { name, each, bits: *bits, open: &open, next: (0, 0) };
        let slices = Slices { target: *target, bits: *bits, columns, dates: *dates, whole };
        slices.each(
            |date| !stale.contains(&date) && only.is_none_or(|only| only.contains(&date)),
            |key, values| contained(|| parts.pass(key, values)),
        );
        contained(|| {
            parts.before(None);
        });
    }
}

/// Takes the parts of a slice of a date.
type EachSlice<'a> = &'a mut dyn FnMut(u32, i32, &[Source<'_>]) -> Result<(), ScanError>;

/// Hands out slices, with the parts beside and between them.
struct Parts<'a> {
    name: &'a str,
    each: EachSlice<'a>,
    bits: u32,
    /// Parts by date, ascending.
    open: &'a [(i32, Vec<Source<'a>>)],
    /// The slice and the number of the date of which parts are handed out next.
    next: (u32, usize),
}

impl<'a> Parts<'a> {
    /// Hands out the values of a slice on a date, with its parts.
    fn pass(&mut self, key: (u32, i32), values: &[impl AsRef<[u8]>]) {
        let beside = self.before(Some(key));
        let source = source(values, self.name, || format!("slice {}, date {}", key.0, date_text(key.1)));
        match beside {
            None => self.hand_out(key, &[source]),
            Some(parts) => {
                let of_slice = parts.iter().filter_map(|part| part.of_slice(key.0, self.bits));
                let sources: Vec<Source<'_>> = std::iter::once(source).chain(of_slice).collect();
                self.hand_out(key, &sources);
            }
        }
    }

    /// Hands out parts of slices that have nothing else on a date, up to a slice and date, whose parts are returned.
    fn before(&mut self, key: Option<(u32, i32)>) -> Option<&'a [Source<'a>]> {
        let open = self.open;
        while self.next.0 < 1 << self.bits {
            let (date, parts) = open.get(self.next.1)?;
            let here = (self.next.0, *date);
            if key.is_some_and(|key| here > key) {
                return None;
            }
            self.next =
                if self.next.1 + 1 < open.len() { (here.0, self.next.1 + 1) } else { (here.0 + 1, 0) };
            if key == Some(here) {
                return Some(parts);
            }
            let sources: Vec<_> = parts.iter().filter_map(|part| part.of_slice(here.0, self.bits)).collect();
            if !sources.is_empty() {
                self.hand_out(here, &sources);
            }
        }
        None
    }

    fn hand_out(&mut self, (slice, date): (u32, i32), sources: &[Source<'_>]) {
        if let Err(error) = (self.each)(slice, date, sources) {
            corrupt(self.name, &format!("slice {slice}, date {}", date_text(date)), &error);
        }
    }
}

/// Raises the error of a value that is none; `what` says which one.
pub fn corrupt(timeline: &str, what: &str, error: &dyn std::fmt::Display) -> ! {
    raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("timeline {timeline}, {what}: {error}"))
}

/// A date as messages write it.
pub fn date_text(date: i32) -> String {
    let (mut year, mut month, mut day) = (0, 0, 0);
    // SAFETY: writes three integers; 2451545 is the Julian day of 2000-01-01.
    unsafe { pg_sys::j2date(date.wrapping_add(2_451_545), &mut year, &mut month, &mut day) };
    format!("{year:04}-{month:02}-{day:02}")
}

/// A text as a value of a result.
pub fn text(value: &str) -> Option<Datum> {
    value.into_datum()
}
