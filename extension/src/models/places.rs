//! Where the rows are that came: found once for a date of a source, and then kept for the other models of the same
//! refresh that read it (`sql/additions.sql`). Of each backend its own: nothing is stored, and what is not kept any more
//! is found anew, on as few pages as may hold it.

use std::cell::RefCell;
use std::collections::VecDeque;

use pgrx::pg_sys::{self, BlockNumber, Datum, ItemPointerData, Oid, TransactionId};
use pgrx::{FromDatum, IntoDatum};

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

/// Where a table has rows of these transactions, dead ones and those of any date included, more than `most` being as
/// good as none. On the pages from `first` on, or, without it, on those that somebody wrote since a vacuum found that
/// all see all of their rows. Nothing of a table that somebody locks: who looks must not wait.
///
/// # Safety
/// Within a transaction.
unsafe fn rows_of(
    table: Oid,
    added_by: &[TransactionId],
    first: Option<BlockNumber>,
    most: usize,
) -> Vec<ItemPointerData> {
    let mut found = vec![];
    // SAFETY: locked, then opened if it still exists; each page is locked while its line pointers are followed, and the
    // visibility map has its own pin.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        if !pg_sys::ConditionalLockRelationOid(table, lock) {
            return found;
        }
        let relation = pg_sys::try_relation_open(table, pg_sys::NoLock as i32);
        if relation.is_null() {
            return found;
        }
        let form = &*(*relation).rd_rel;
        let is_heap =
            form.relkind == pg_sys::RELKIND_RELATION as i8 && form.relam == pg_sys::HEAP_TABLE_AM_OID;
        let pages = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        let ring = pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD);
        let mut map: pg_sys::Buffer = 0;
        for page in first.unwrap_or(0)..if is_heap { pages } else { 0 } {
            if first.is_none()
                && u32::from(pg_sys::visibilitymap_get_status(relation, page, &raw mut map))
                    & pg_sys::VISIBILITYMAP_ALL_VISIBLE
                    != 0
            {
                continue;
            }
            pgrx::check_for_interrupts!();
            let fork = pg_sys::ForkNumber::MAIN_FORKNUM;
            let buffer =
                pg_sys::ReadBufferExtended(relation, fork, page, pg_sys::ReadBufferMode::RBM_NORMAL, ring);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let content = pg_sys::BufferGetPage(buffer);
            for offset in 1..=pg_sys::PageGetMaxOffsetNumber(content) {
                let item = pg_sys::PageGetItemId(content, offset);
                if (*item).lp_flags() != pg_sys::LP_NORMAL {
                    continue;
                }
                let row = pg_sys::PageGetItem(content, item).cast::<pg_sys::HeapTupleHeaderData>();
                if added_by.contains(&pg_sys::htup::HeapTupleHeaderGetRawXmin(row)) {
                    let mut place = ItemPointerData::default();
                    pgrx::itemptr::item_pointer_set_all(&mut place, page, offset);
                    found.push(place);
                }
            }
            pg_sys::UnlockReleaseBuffer(buffer);
            if found.len() > most {
                break;
            }
        }
        if map != 0 {
            pg_sys::ReleaseBuffer(map);
        }
        pg_sys::FreeAccessStrategy(ring);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    }
    found
}

pg_function! {
    /// `rows_added(relation oid, added_by text[], first_row tid, most integer) -> tid[]`.
    fn tidemark_rows_added(fcinfo) {
        let table = Oid::from(args::int32(fcinfo, 0)?.cast_unsigned());
        let added_by = <Vec<String>>::from_datum(args::datum(fcinfo, 1)?, false)?;
        let added_by: Vec<_> = added_by.iter().filter_map(|id| id.parse().ok().map(TransactionId::from_inner)).collect();
        let first = <ItemPointerData>::from_datum(args::datum(fcinfo, 2).unwrap_or(Datum::from(0)), args::datum(fcinfo, 2).is_none());
        let first = first.map(|place| pgrx::itemptr::item_pointer_get_block_number_no_check(place));
        let most = args::int32(fcinfo, 3)?.max(0) as usize;
        rows_of(table, &added_by, first, most).into_datum()
    }
}
