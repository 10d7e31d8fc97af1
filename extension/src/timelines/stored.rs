//! The stored slices of a timeline in the order of its primary key, read where they lie and without a query: that takes as
//! long for each value as what is made of it. Most of that is waiting for memory: pages are asked for some slices ahead,
//! where they are likely to be, and values are fetched before they are looked at.
//!
//! Who may read them is not asked here, but by the query for parts, which every report runs before. Locks are kept to the
//! end of the transaction, as by a query.

use std::cell::RefCell;

use pgrx::pg_sys::{self, Datum, ItemPointerData, Oid, TupleTableSlot};
use pgrx::{PgMemoryContexts, PgSqlErrorCode, PgTupleDesc};
use tidemark_core::timeline::{ByCode, fetch};

use super::query::name_of;
use crate::support::args;
use crate::support::error::raise_hint;
use crate::support::heap::contained;

/// Which slices to read.
pub struct Slices<'a> {
    pub target: Oid,
    /// How many bits tell slices apart.
    pub bits: u32,
    /// The property of each column; the first is that of the core, 0.
    pub columns: &'a [usize],
    /// From and to (exclusive).
    pub dates: (i32, i32),
    /// Whether most of the bytes of cores will be read.
    pub whole: bool,
}

/// So many dates of a slice are fetched before they are handed out: each value has a pin on its page, and a few of these
/// cost less than many.
const AHEAD: usize = 2;

/// So many dates before they are fetched, tuples are asked for.
const BEFORE: usize = 2;

/// Entries of the index that are read at once, or those of one slice.
const ENTRIES: usize = 200;

/// What lies at the start of a core: the header, and behind the hashes where persons begin.
const HEAD: usize = 512;

/// An entry of the primary key.
struct Entry {
    key: (u32, i32),
    column: usize,
    place: ItemPointerData,
    /// The buffer in which its page may be, 0 where nobody knows.
    buffer: pg_sys::Buffer,
}

/// Where pages were seen. Postgres says whether one is still there, which is much quicker than asking it where.
struct Buffers {
    /// By block, 0 where nobody knows.
    seen: Vec<pg_sys::Buffer>,
    /// The block that was read last of each date. Blocks that were written or read together lie in buffers side by side.
    last: ByCode<u32, (u32, pg_sys::Buffer)>,
}

thread_local! {
    /// What was seen of the table that was read last.
    static SEEN: RefCell<(Oid, Vec<pg_sys::Buffer>)> = const { RefCell::new((Oid::INVALID, vec![])) };
}

impl Buffers {
    fn of(target: Oid) -> Self {
        let (of, seen) = SEEN.replace((Oid::INVALID, vec![]));
        Self { seen: if of == target { seen } else { vec![] }, last: ByCode::default() }
    }

    fn keep(self, target: Oid) {
        SEEN.set((target, self.seen));
    }

    /// The buffer in which a block of a date may be; 0 where none can be.
    fn near(&self, date: i32, block: u32) -> pg_sys::Buffer {
        let seen = self.seen.get(block as usize).copied().filter(|buffer| *buffer > 0);
        seen.or_else(|| {
            let (last, buffer) = self.last.get(&(date as u32))?;
            let buffer = buffer.wrapping_add(block.wrapping_sub(*last).cast_signed());
            // SAFETY: a number that is set when the server starts.
            (1..=unsafe { pg_sys::NBuffers }).contains(&buffer).then_some(buffer)
        })
        .unwrap_or(0)
    }

    fn saw(&mut self, date: i32, block: u32, buffer: pg_sys::Buffer) {
        if self.seen.len() <= block as usize {
            contained(|| self.seen.resize(block as usize + 1024, 0));
        }
        self.seen[block as usize] = buffer;
        self.last.insert(date as u32, (block, buffer));
    }
}

/// The values of a slice on a date.
struct Group {
    key: (u32, i32),
    /// By column; nothing where there is no value.
    values: Vec<&'static [u8]>,
    /// By column: they hold the pins.
    slots: Vec<*mut TupleTableSlot>,
    /// For values that are not in the page.
    memory: PgMemoryContexts,
}

impl Slices<'_> {
    /// Hands out the values of each slice and date that is `wanted`, by column, in order.
    pub fn each(&self, wanted: impl Fn(i32) -> bool, mut each: impl FnMut((u32, i32), &[&[u8]])) {
        // SAFETY: relations, scan and slots are opened and closed in pairs; an error in between leaves them to the end of
        // the transaction, which knows of all of them. Values are looked at while their group has them.
        unsafe {
            let heap = pg_sys::table_open(self.target, pg_sys::AccessShareLock as i32);
            let index = self.primary_key(heap);
            let scan = begin_scan(heap, index, 5);
            let mut ring: [Group; AHEAD + 1] = std::array::from_fn(|_| Group {
                key: (0, 0),
                values: vec![],
                slots: self
                    .columns
                    .iter()
                    .map(|_| pg_sys::table_slot_create(heap, std::ptr::null_mut()))
                    .collect(),
                memory: PgMemoryContexts::new("tidemark slice"),
            });
            let (mut entries, mut slice, mut buffers) = (vec![], 0, Buffers::of(self.target));
            while slice < 1 << self.bits {
                entries.clear();
                while slice < 1 << self.bits && entries.len() < ENTRIES {
                    contained(|| self.entries(scan, slice, &wanted, &buffers, &mut entries));
                    slice += 1;
                }
                let groups: Vec<&[Entry]> = contained(|| entries.chunk_by(|a, b| a.key == b.key).collect());
                for i in 0..groups.len() + BEFORE + AHEAD {
                    groups.get(i).into_iter().copied().flatten().for_each(Entry::ask);
                    let at = |behind| i.checked_sub(behind).filter(|i| *i < groups.len());
                    if let Some(i) = at(BEFORE) {
                        ring[i % ring.len()].fetch(scan, groups[i], self.whole, &mut buffers);
                    }
                    if let Some(group) = at(BEFORE + AHEAD).map(|i| &ring[i % ring.len()])
                        && group.values.iter().any(|value| !value.is_empty())
                    {
                        each(group.key, &group.values);
                    }
                }
            }
            buffers.keep(self.target);
            ring.iter()
                .flat_map(|group| &group.slots)
                .for_each(|slot| pg_sys::ExecDropSingleTupleTableSlot(*slot));
            pg_sys::index_endscan(scan);
            pg_sys::relation_close(index, pg_sys::NoLock as i32);
            pg_sys::relation_close(heap, pg_sys::NoLock as i32);
        }
    }

    /// Opens the primary key: an ERROR if its owner has made another table of it.
    unsafe fn primary_key(&self, heap: pg_sys::Relation) -> pg_sys::Relation {
        // SAFETY: the relation is open, the descriptors are its own and its index's.
        unsafe {
            pg_sys::list_free(pg_sys::RelationGetIndexList(heap));
            let types = |relation: pg_sys::Relation| -> Vec<Oid> {
                let columns = PgTupleDesc::from_pg_unchecked((*relation).rd_att);
                columns
                    .iter()
                    .map(|column| if column.attisdropped { Oid::INVALID } else { column.atttypid })
                    .collect()
            };
            let key = (*heap).rd_pkindex;
            if key != Oid::INVALID && (*(*heap).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID {
                let index = pg_sys::index_open(key, pg_sys::AccessShareLock as i32);
                let columns = (*(*index).rd_index).indkey.values.as_slice(types(index).len());
                let (int4, int2, date) = (pg_sys::INT4OID, pg_sys::INT2OID, pg_sys::DATEOID);
                let data = PgTupleDesc::from_pg_unchecked((*heap).rd_att);
                let data = data.get(DATA as usize - 1).filter(|data| !data.attisdropped && data.attlen == -1);
                if types(index) == [int4, date, int2, int4] && columns == [3, 1, 2, 4] && data.is_some() {
                    return index;
                }
            }
            raise_hint(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{} is not the table that tidemark.create_timeline made", name_of(self.target)),
                "Its columns and its primary key must stay as they were.",
            )
        }
    }

    /// Adds the entries of a slice.
    unsafe fn entries(
        &self,
        scan: pg_sys::IndexScanDesc,
        slice: u32,
        wanted: impl Fn(i32) -> bool,
        buffers: &Buffers,
        entries: &mut Vec<Entry>,
    ) {
        const EQUAL: u32 = pg_sys::BTEqualStrategyNumber;
        let last = self.columns.iter().max().copied().unwrap_or(0);
        // Column of the key, comparison, and with what.
        let conditions = [
            (1, EQUAL, pg_sys::F_INT4EQ, Datum::from(slice as i32)),
            (2, pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_DATE_GE, Datum::from(self.dates.0)),
            (2, pg_sys::BTLessStrategyNumber, pg_sys::F_DATE_LT, Datum::from(self.dates.1)),
            (3, pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT2LE, Datum::from(last as i16)),
            (4, EQUAL, pg_sys::F_INT4EQ, Datum::from(0i32)),
        ];
        // SAFETY: the scan is open; entries of this key, without NULLs, are a header and the columns one after the other,
        // each aligned to its length.
        unsafe {
            let mut keys = conditions.map(|(column, strategy, function, value)| {
                let mut key = pg_sys::ScanKeyData::default();
                pg_sys::ScanKeyInit(&mut key, column, strategy as u16, Oid::from(function), value);
                key
            });
            pg_sys::index_rescan(scan, keys.as_mut_ptr(), keys.len() as i32, std::ptr::null_mut(), 0);
            loop {
                let place = pg_sys::index_getnext_tid(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if place.is_null() {
                    return;
                }
                let columns = (*scan).xs_itup.cast::<u8>().add(size_of::<pg_sys::IndexTupleData>());
                let date = columns.add(4).cast::<i32>().read();
                let property = columns.add(8).cast::<i16>().read();
                let column = self.columns.iter().position(|column| *column as i32 == i32::from(property));
                if let Some(column) = column.filter(|_| wanted(date)) {
                    let buffer = buffers.near(date, block_of(&*place));
                    if buffer > 0 {
                        fetch(std::slice::from_raw_parts(page(buffer), 1));
                    }
                    entries.push(Entry { key: (slice, date), column, place: *place, buffer });
                }
            }
        }
    }
}

/// The column of values, counted from 1.
const DATA: i32 = 7;

const PAGE: usize = pg_sys::BLCKSZ as usize;

fn block_of(place: &ItemPointerData) -> u32 {
    pgrx::itemptr::item_pointer_get_both(*place).0
}

/// The page in a buffer, whose number is one.
unsafe fn page(buffer: pg_sys::Buffer) -> *const u8 {
    // SAFETY: buffers are side by side in one piece of memory, which stays where it is.
    unsafe { pg_sys::BufferBlocks.cast::<u8>().add((buffer as usize - 1) * PAGE) }
}

impl Entry {
    /// Asks for the row and the first bytes of its value.
    fn ask(&self) {
        /// The header of a page, and a line pointer, whose first 15 bits say where in the page a row is.
        const HEADER: usize = 24;
        const POINTER: usize = 4;
        let number = usize::from(self.place.ip_posid).wrapping_sub(1);
        if self.buffer == 0 || number >= (PAGE - HEADER) / POINTER {
            return;
        }
        // SAFETY: within the page. Somebody may write there, or it may be another page: nothing depends on what is read.
        unsafe {
            let page = page(self.buffer);
            let pointer = page.add(HEADER + POINTER * number).cast::<u32>().read_volatile();
            let at = (pointer & 0x7fff) as usize;
            fetch(std::slice::from_raw_parts(page.add(at.min(PAGE)), HEAD.min(PAGE.saturating_sub(at))));
        }
    }

    /// Puts the page where Postgres looks first, if it is in the buffer: it would look for it in a table of all pages,
    /// which takes as long as half of the rest.
    unsafe fn pin(&self, scan: pg_sys::IndexScanDesc, block: u32) {
        // SAFETY: the scan is one of a heap; the buffer is one, and has the page if that is said, pinned.
        unsafe {
            let at = &mut *(*scan).xs_heapfetch.cast::<pg_sys::IndexFetchHeapData>();
            let heap = (*scan).heapRelation;
            #[cfg(feature = "pg15")]
            let file = (*heap).rd_node;
            #[cfg(not(feature = "pg15"))]
            let file = (*heap).rd_locator;
            if self.buffer > 0
                && self.buffer != at.xs_cbuf
                && pg_sys::ReadRecentBuffer(file, pg_sys::ForkNumber::MAIN_FORKNUM, block, self.buffer)
            {
                if at.xs_cbuf > 0 {
                    pg_sys::ReleaseBuffer(at.xs_cbuf);
                }
                at.xs_cbuf = self.buffer;
            }
        }
    }
}

impl Group {
    /// Takes the values of these entries in place of those before.
    unsafe fn fetch(
        &mut self,
        scan: pg_sys::IndexScanDesc,
        entries: &[Entry],
        whole: bool,
        buffers: &mut Buffers,
    ) {
        // SAFETY: as the scan and the slots are; bytes in a page stay as long as the slot's pin, others as the memory.
        unsafe {
            self.values.clear();
            self.values.resize(self.slots.len(), &[]);
            self.memory.reset();
            for entry in entries {
                self.key = entry.key;
                let slot = self.slots[entry.column];
                (*scan).xs_heaptid = entry.place;
                let block = block_of(&entry.place);
                entry.pin(scan, block);
                let visible = pg_sys::index_fetch_heap(scan, slot);
                // What is dead is not the entry that was read last, which Postgres takes it for.
                (*scan).kill_prior_tuple = false;
                if !visible {
                    continue;
                }
                let buffer = (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer;
                buffers.saw(entry.key.1, block, buffer);
                pg_sys::slot_getsomeattrs_int(slot, DATA);
                let datum = (*slot).tts_values.add(DATA as usize - 1).read();
                if (*slot).tts_isnull.add(DATA as usize - 1).read() {
                    continue;
                }
                let bytes = self.memory.switch_to(|_| args::varlena_bytes(datum));
                fetch(if whole || entry.column > 0 { bytes } else { bytes.get(..HEAD).unwrap_or(bytes) });
                self.values[entry.column] = bytes;
            }
        }
    }
}

/// A scan of an index that hands out its entries, with so many conditions to come.
unsafe fn begin_scan(heap: pg_sys::Relation, index: pg_sys::Relation, keys: i32) -> pg_sys::IndexScanDesc {
    // SAFETY: both are open; a query is running, so there is a snapshot.
    unsafe {
        let snapshot = pg_sys::GetActiveSnapshot();
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(heap, index, snapshot, keys, 0);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(heap, index, snapshot, std::ptr::null_mut(), keys, 0);
        (*scan).xs_want_itup = true;
        scan
    }
}
