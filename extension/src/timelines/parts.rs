//! Parts: the rows of a date that came after its slices were made, each part one value for all slices. Here: which rows
//! are new since a snapshot, and parts put together again. When that is done is decided in `sql/timelines.sql`.

use std::collections::BTreeMap;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};
use tidemark_core::timeline::{Builder, Codes, Source, View};

use super::encode::{Given, MAX_BITS, MAX_PROPERTIES, give};
use super::query::{each_row, name_of};
use super::read::{corrupt, date_text};
use crate::support::array::{self, Element};
use crate::support::error::{INVALID, OrRaise, not_null, raise};
use crate::support::heap::contained;
use crate::support::{args, pg_function};

pg_function! {
    /// `current_seen(but xid[]) -> bytea`: which transactions the snapshot of the calling statement sees, as `unseen` reads
    /// it: the first that it does not, then those before it that were in progress or are not to count, ascending, of four
    /// bytes each. NULL where too many would have to be asked about one by one.
    fn tidemark_current_seen(fcinfo) {
        /// Beyond that, a recompute is no more work.
        const MOST: u32 = 100_000;
        let active = pg_sys::GetActiveSnapshot();
        let snapshot = &*active;
        let (from, to) = (snapshot.xmin.into_inner(), snapshot.xmax.into_inner());
        if snapshot.takenDuringRecovery || (snapshot.suboverflowed && to.wrapping_sub(from) > MOST) {
            return None;
        }
        let list = |from: *mut pg_sys::TransactionId, len: usize| {
            if from.is_null() { &[] } else { std::slice::from_raw_parts(from, len) }
        };
        let top = list(snapshot.xip, snapshot.xcnt as usize);
        let sub = list(snapshot.subxip, usize::try_from(snapshot.subxcnt).unwrap_or(0));
        let number = |xid: &pg_sys::TransactionId| xid.into_inner();
        let mut running: Vec<u32> = if snapshot.suboverflowed {
            // Somebody has more subtransactions than the snapshot lists.
            let in_progress = |xid: &u32| *xid >= 3 && pg_sys::XidInMVCCSnapshot((*xid).into(), active);
            (0..to.wrapping_sub(from)).map(|n| from.wrapping_add(n)).filter(in_progress).collect()
        } else {
            top.iter().chain(sub).map(number).collect()
        };
        running.extend(array::elements(fcinfo, 0, "but", Element::XID)?.flatten().map(|xid| xid.value() as u32));
        running.sort_unstable();
        let all = std::iter::once(number(&snapshot.xmax)).chain(running);
        Some(args::make_varlena(&all.flat_map(u32::to_le_bytes).collect::<Vec<_>>()))
    }
}

pg_function! {
    /// `unseen(added_by xid, seen bytea) -> boolean`.
    fn tidemark_unseen(fcinfo) {
        let added_by = args::int32(fcinfo, 0)? as u32;
        let (numbers, _) = args::bytes(fcinfo, 1)?.as_chunks::<4>();
        let (first, running) = numbers.split_first()?;
        let number = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        // Numbers of transactions go round; the first few are not of any, and were there before all others.
        let later = added_by >= 3 && added_by.wrapping_sub(number(first)) as i32 >= 0;
        Some(Datum::from(later || running.binary_search_by_key(&added_by, number).is_ok()))
    }
}

/// Values by column, the core first.
pub type Values = Vec<Vec<u8>>;

/// Adds a value to those of a slice or a part.
pub fn keep(values: &mut Values, column: usize, bytes: &[u8]) {
    if values.len() <= column {
        values.resize(column + 1, vec![]);
    }
    values[column].extend_from_slice(bytes);
}

/// Reads values that belong together; `what` says which they are.
pub fn source<'a, V: AsRef<[u8]>>(values: &'a [V], timeline: &str, what: impl Fn() -> String) -> Source<'a> {
    let bad = |error: &dyn std::fmt::Display| corrupt(timeline, &what(), error);
    let Some((core, properties)) = values.split_first() else { bad(&"there are no events") };
    let view = View::read(core.as_ref()).unwrap_or_else(|error| bad(&error));
    let codes = properties.iter().map(|bytes| Codes::read(bytes.as_ref())).collect::<Result<Vec<_>, _>>();
    Source::new(view, codes.unwrap_or_else(|error| bad(&error))).unwrap_or_else(|error| bad(&error))
}

pg_function! {
    /// `timeline_merged(target regclass, properties integer, bits integer, event_date date, first_part integer,
    /// more integer)`: (event_date, property, slice, part, events, persons, data).
    fn tidemark_timeline_merged(fcinfo) {
        let target = Oid::from(not_null(args::int32(fcinfo, 0), "target") as u32);
        let number = |index, name: &str| not_null(args::int32(fcinfo, index), name);
        let up_to = |index, name: &str, most: usize| match usize::try_from(number(index, name)) {
            Ok(n) if n <= most => n,
            _ => raise(INVALID, format!("{name} must be 0 to {most}")),
        };
        let properties = up_to(1, "properties", MAX_PROPERTIES);
        let bits = up_to(2, "bits", MAX_BITS) as u32;
        let (date, first) = (number(3, "event_date"), number(4, "first_part"));
        let more = up_to(5, "more", MAX_PROPERTIES - properties);
        let mut stored: BTreeMap<(i32, u32), Values> = BTreeMap::new();
        let name = name_of(target);
        let sql = format!(
            "SELECT s.part::integer, s.slice::integer, s.property::integer, s.data::tidemark.timeline FROM {name} AS s
              WHERE s.event_date = $1 AND s.part >= $2 AND s.property BETWEEN 0 AND $3"
        );
        let arguments = [
            (pg_sys::DATEOID, Datum::from(date)),
            (pg_sys::INT4OID, Datum::from(first)),
            (pg_sys::INT4OID, Datum::from(properties as i32)),
        ];
        each_row(&sql, &arguments, |row| {
            if let (Some(part), Some(slice), Some(property), Some(bytes)) =
                (row.int(0), row.int(1), row.int(2), row.bytes(3))
            {
                let values = stored.entry((part, slice as u32)).or_default();
                keep(values, property as usize, bytes);
            }
        });
        let mut builder = Builder::new(properties);
        contained(|| {
            for ((part, slice), values) in &stored {
                let what = || format!("date {}, part {part}, slice {slice}", date_text(date));
                builder.add(&source(values, &name, what)).or_raise(LIMIT, "cannot merge parts");
            }
        });
        drop(stored);
        let builder = contained(|| builder.with_more(more));
        let builders = if builder.is_empty() { BTreeMap::new() } else { BTreeMap::from([(date, builder)]) };
        give(Given::of_call(fcinfo), first, builders, bits);
        None
    }
}

const LIMIT: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
