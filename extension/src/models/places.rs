//! Where the rows are that came: found once for a date of a source, by a look at what may be all of its rows, and then
//! kept for the other models of the same refresh that read it (`sql/additions.sql`). Of each backend its own: nothing is
//! stored, and what is not kept any more is found anew.

use std::cell::RefCell;
use std::collections::VecDeque;

use pgrx::pg_sys::Datum;

use crate::support::args::{self, make_varlena};
use crate::support::pg_function;

/// Bytes that are kept at most: some three million places.
const MOST_BYTES: usize = 16 << 20;

struct Kept {
    source: i32,
    date: i32,
    /// The array of transactions, as its bytes.
    added_by: Vec<u8>,
    /// The array of places, as its bytes.
    places: Vec<u8>,
}

thread_local! {
    static KEPT: RefCell<VecDeque<Kept>> = const { RefCell::new(VecDeque::new()) };
}

pg_function! {
    /// `keep_places(source regclass, event_date date, added_by text[], places tid[]) -> void`. Forgets the oldest where
    /// there are too many.
    fn tidemark_keep_places(fcinfo) {
        let (source, date) = (args::int32(fcinfo, 0)?, args::int32(fcinfo, 1)?);
        let (added_by, places) = (args::bytes(fcinfo, 2)?, args::bytes(fcinfo, 3)?);
        KEPT.with_borrow_mut(|kept| {
            kept.retain(|k| (k.source, k.date) != (source, date));
            let size = |kept: &VecDeque<Kept>| kept.iter().map(|k| k.places.len() + k.added_by.len()).sum::<usize>();
            while !kept.is_empty() && size(kept) + places.len() + added_by.len() > MOST_BYTES {
                kept.pop_front();
            }
            if places.len() + added_by.len() <= MOST_BYTES {
                kept.push_back(Kept { source, date, added_by: added_by.to_vec(), places: places.to_vec() });
            }
        });
        None
    }
}

pg_function! {
    /// `places(source regclass, event_date date, added_by text[]) -> tid[]`. NULL if these are not kept.
    fn tidemark_places(fcinfo) {
        let (source, date) = (args::int32(fcinfo, 0)?, args::int32(fcinfo, 1)?);
        let added_by = args::bytes(fcinfo, 2)?;
        KEPT.with_borrow(|kept| {
            let found = kept.iter().find(|k| (k.source, k.date) == (source, date) && k.added_by == added_by)?;
            Some::<Datum>(make_varlena(&found.places))
        })
    }
}
