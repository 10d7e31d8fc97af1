//! The slices of a date from its rows: what the query of a timeline, which is a model, returns.

use std::collections::BTreeMap;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{PgMemoryContexts, PgSqlErrorCode, Spi};
use tidemark_core::timeline::{Builder, Encoded, person_hash};

use super::dictionary::Dictionary;
use super::query::{Row, each_row, name_of};
use crate::models::{is_reading, quoted};
use crate::support::error::{INVALID, OrRaise, not_null, raise, raise_hint};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;
use crate::support::set::Rows;
use crate::support::{args, pg_function};

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The columns of rows that are no properties.
const FIXED: usize = 4;

/// The name of a property, counted from 1, of a view of rows, which has transaction and place before the first.
fn property(view: Oid, number: usize) -> String {
    attribute(view, FIXED + 1 + number)
}

/// SELECT and FROM of the rows of a view: date, person, time, event, and some of its properties, counted from 1.
///
/// Every column is cast: whoever owns the view may have replaced it.
pub fn select(view: Oid, properties: impl Iterator<Item = usize>) -> String {
    let mut sql = "SELECT CAST(r.event_date AS pg_catalog.date), CAST(r.person AS pg_catalog.text), \
        CAST(r.event_time AS pg_catalog.timestamptz), CAST(r.event_type AS pg_catalog.text)"
        .to_owned();
    for number in properties {
        let name = quoted(&property(view, number));
        sql = format!("{sql}, CAST(r.{name} AS pg_catalog.text)");
    }
    format!("{sql} FROM {} AS r", name_of(view))
}

/// Adds a row of [`select`] to the builder of its date; rows without a person or a time are nobody's.
///
/// `dictionaries` are the event's and those of the properties selected, whose numbers `properties` says.
///
/// # Safety
/// The row must be one of such a query.
pub unsafe fn add(
    builders: &mut BTreeMap<i32, Builder>,
    row: Row<'_>,
    dictionaries: &mut [Dictionary],
    (view, properties): (Oid, &[usize]),
) {
    // SAFETY: everything but date and time is a text.
    let (date, person, text) = unsafe { (row.int(0), row.bytes(1), |column: usize| row.text(column)) };
    let (Some(date), Some(person), Some(time)) = (date, person, row.datum(2)) else { return };
    let time = time.value() as i64;
    if time.div_euclid(MICROSECONDS_PER_DAY) != i64::from(date) {
        raise_hint(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("{} has a row whose event_date is not the UTC date of its event_time", name_of(view)),
            "event_date must be (event_time AT TIME ZONE 'UTC')::date, and event_time must be finite.",
        );
    }
    let mut codes = [0; MAX_PROPERTIES + 1];
    for (i, dictionary) in dictionaries.iter_mut().enumerate().take(codes.len()) {
        let name = || match properties.get(i) {
            Some(&number) if number > 0 => property(view, number),
            _ => attribute(view, FIXED - 1),
        };
        codes[i] = dictionary.code(text(FIXED - 1 + i), name);
    }
    let count = dictionaries.len().saturating_sub(1);
    builders
        .entry(date)
        .or_insert_with(|| Builder::new(count))
        .push(person_hash(person), time, codes[0], codes.get(1..=count).unwrap_or(&[]))
        .or_raise(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "cannot encode a date");
}

/// The slices of all dates, by date. They are made one by one.
pub fn finish(builders: BTreeMap<i32, Builder>, bits: u32) -> impl Iterator<Item = (i32, Encoded)> {
    builders
        .into_iter()
        .flat_map(move |(date, builder)| slices(builder, bits).map(move |slice| (date, slice)))
}

/// The slices of one date, made one by one.
pub fn slices(builder: Builder, bits: u32) -> impl Iterator<Item = Encoded> {
    let limit = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    builder.finish(bits, Interrupts).map(move |slice| slice.or_raise(limit, "cannot encode a date"))
}

/// How many properties a timeline may have.
pub const MAX_PROPERTIES: usize = 100;

/// How many bits may tell slices apart.
pub const MAX_BITS: usize = 16;

/// The name of a column, counted from 0.
fn attribute(relation: Oid, column: usize) -> String {
    // SAFETY: returns a palloc'd string, null for a column that is not there.
    let name = unsafe { pg_sys::get_attname(relation, column as i16 + 1, true) };
    if name.is_null() {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("{} has fewer columns than its timeline", name_of(relation)),
        );
    }
    // SAFETY: not null, so it is a string.
    unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

pg_function! {
    /// `timeline_encode(row_view regclass, codes regclass, properties integer, bits integer, from_date date,
    /// to_date date, part integer, added_by xid[], places tid[])`: (event_date, property, slice, part, events, persons,
    /// data).
    fn tidemark_timeline_encode(fcinfo) {
        let oid = |index| Oid::from(not_null(args::int32(fcinfo, index), "relation") as u32);
        let number = |index, name: &str| not_null(args::int32(fcinfo, index), name);
        let up_to = |index, name: &str, most: usize| match usize::try_from(number(index, name)) {
            Ok(n) if n <= most => n,
            _ => raise(INVALID, format!("{name} must be 0 to {most}")),
        };
        let (view, codes) = (oid(0), oid(1));
        let properties: Vec<usize> = (0..=up_to(2, "properties", MAX_PROPERTIES)).collect();
        let bits = up_to(3, "bits", MAX_BITS) as u32;
        let mut arguments: Vec<_> =
            [4, 5].iter().map(|index| (pg_sys::DATEOID, Datum::from(number(*index, "date")))).collect();
        let part = number(6, "part");
        let mut dictionaries = Dictionary::load(codes, &properties);
        let mut builders = BTreeMap::new();
        let mut sql = select(view, properties.iter().skip(1).copied())
            + " WHERE r.event_date OPERATOR(pg_catalog.>=) $1 AND r.event_date OPERATOR(pg_catalog.<) $2";
        if let Some(added_by) = args::datum(fcinfo, 7) {
            sql += " AND r.added_by OPERATOR(pg_catalog.=) ANY ($3)";
            arguments.push((pg_sys::XIDARRAYOID, added_by));
            if let Some(places) = args::datum(fcinfo, 8) {
                sql += " AND r.added_at OPERATOR(pg_catalog.=) ANY ($4)";
                arguments.push((pg_sys::TIDARRAYOID, places));
            }
        }
        each_row(&sql, &arguments, |row| add(&mut builders, row, &mut dictionaries, (view, &properties)));
        if !is_reading() {
            contained(|| learn(codes, &dictionaries));
        }
        give(Given::of_call(fcinfo), part, builders, bits);
        None
    }
}

/// Rows of the table of a timeline: (event_date, property, slice, part, events, persons, data).
pub type Given = Rows<7>;

/// The number under which the counts of a column stand among properties, those by date or by slot.
pub fn counts_of(column: usize, by_slot: bool) -> i32 {
    -1 - 2 * column as i32 - i32::from(by_slot)
}

/// Gives dates as rows of a part: their counts, and their slices, made one by one.
///
/// # Safety
/// The rows must be those of a function that returns such.
pub unsafe fn give(rows: Given, part: i32, builders: BTreeMap<i32, Builder>, bits: u32) {
    let mut giver = Giver::new(rows, 0);
    for (date, builder) in builders {
        giver.date = date;
        giver.date(part, builder, bits);
    }
}

/// Gives rows of a date, one after the other.
pub struct Giver {
    rows: Given,
    date: i32,
    memory: PgMemoryContexts,
}

impl Giver {
    pub fn new(rows: Given, date: i32) -> Self {
        Self { rows, date, memory: PgMemoryContexts::new("tidemark slice") }
    }

    fn put(&mut self, part: i32, property: i32, of: [usize; 3], bytes: Option<&[u8]>) {
        let Self { rows, date, memory } = self;
        // SAFETY: nothing of the memory is in use when it is reset.
        unsafe {
            memory.switch_to(|_| {
                rows.put([
                    Some(Datum::from(*date)),
                    Some(Datum::from(property as i16)),
                    Some(Datum::from(of[0] as i32)),
                    Some(Datum::from(part)),
                    Some(Datum::from(of[1] as i32)),
                    Some(Datum::from(of[2] as i32)),
                    bytes.map(args::make_varlena),
                ]);
            });
            memory.reset();
        }
    }

    /// All values of a slice.
    pub fn slice(&mut self, part: i32, slice: &Encoded) {
        let of = [slice.slice as usize, slice.rows, slice.persons];
        for (property, bytes) in (0..).zip(std::iter::once(&slice.core).chain(&slice.properties)) {
            self.put(part, property, of, Some(bytes));
        }
    }

    /// A row that is no longer there, without a value.
    pub fn gone(&mut self, part: i32, slice: u32, property: i32) {
        self.put(part, property, [slice as usize, 0, 0], None);
    }

    /// Counts of a part by column.
    pub fn counts(&mut self, part: i32, rows: usize, persons: usize, counts: &[[Vec<u8>; 2]]) {
        for (column, ways) in counts.iter().enumerate() {
            for (by_slot, bytes) in [false, true].into_iter().zip(ways) {
                let bytes = (rows > 0).then_some(&bytes[..]);
                self.put(part, counts_of(column, by_slot), [0, rows, persons], bytes);
            }
        }
    }

    /// Everything that was added, as a part.
    pub fn date(&mut self, part: i32, builder: Builder, bits: u32) {
        let counts = contained(|| builder.counts(Interrupts));
        let (rows, mut persons) = (builder.len(), 0);
        let mut slices = slices(builder, bits);
        while let Some(slice) = contained(|| slices.next()) {
            self.slice(part, &slice);
            persons += slice.persons;
        }
        self.counts(part, rows, persons, &counts);
    }
}

/// Stores the codes that are new.
pub fn learn(codes: Oid, dictionaries: &[Dictionary]) {
    let (mut properties, mut numbers, mut texts) = (vec![], vec![], vec![]);
    for (dictionary, property) in dictionaries.iter().zip(0i32..) {
        for (code, text) in dictionary.new_texts() {
            properties.push(property);
            numbers.push(code as i32);
            texts.push(text.to_owned());
        }
    }
    if texts.is_empty() {
        return;
    }
    let sql = format!(
        "INSERT INTO {} (property, code, value)
         SELECT n.property, n.code, n.value FROM ROWS FROM (pg_catalog.unnest($1::integer[]),
             pg_catalog.unnest($2::integer[]), pg_catalog.unnest($3::text[])) AS n(property, code, value)",
        name_of(codes)
    );
    Spi::connect_mut(|client| {
        client
            .update(&sql, None, &[properties.into(), numbers.into(), texts.into()])
            .map(|_| ())
            .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot store codes");
    });
}
