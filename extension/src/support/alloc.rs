//! Rust collections whose memory belongs to a Postgres memory context.
//!
//! With this, the state of an aggregate is visible to the executor's memory accounting, counts against `work_mem`,
//! and vanishes with its context, also after an error.

use std::alloc::Layout;
use std::ptr::NonNull;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use tidemark_core::Allocator;

use super::error::raise;

use allocator_api2::alloc::AllocError;

/// What palloc guarantees on every supported platform (MAXIMUM_ALIGNOF).
const PALLOC_ALIGN: usize = 8;

/// Allocates from one memory context. Running out of memory raises the usual Postgres error.
#[derive(Clone, Copy, Debug)]
pub struct ContextAlloc(pg_sys::MemoryContext);

impl ContextAlloc {
    /// Memory from `context`, which must outlive everything allocated from it.
    pub fn new(context: pg_sys::MemoryContext) -> Self {
        Self(context)
    }

    /// Memory that lives until the current (usually per-row or per-call) context is reset.
    pub fn current() -> Self {
        // SAFETY: CurrentMemoryContext is always valid inside a backend's main thread.
        Self(unsafe { pg_sys::CurrentMemoryContext })
    }

    /// The context.
    pub fn context(self) -> pg_sys::MemoryContext {
        self.0
    }

    /// A copy of bytes in the context, aligned for every type.
    pub fn place_bytes(self, bytes: &[u8]) -> *mut u8 {
        // SAFETY: the allocation is large enough; palloc never returns null.
        unsafe {
            let place = pg_sys::MemoryContextAllocHuge(self.0, bytes.len()).cast::<u8>();
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            place
        }
    }

    /// Moves a value into the context and forgets its destructor: its memory goes when the context does.
    pub fn place<T>(self, value: T) -> *mut T {
        const { assert!(align_of::<T>() <= PALLOC_ALIGN) };
        // SAFETY: the allocation is large enough and aligned for T; palloc never returns null.
        unsafe {
            let place = pg_sys::MemoryContextAlloc(self.0, size_of::<T>()).cast::<T>();
            place.write(value);
            place
        }
    }
}

/// A type that palloc cannot align is a bug; an ERROR, because an `AllocError` would abort the whole backend.
fn check_alignment(layout: Layout) {
    if layout.align() > PALLOC_ALIGN {
        raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("a state needs memory aligned to {} bytes", layout.align()),
        );
    }
}

// SAFETY: blocks stay valid until freed or until the context is reset, after which nothing uses them; copies of the
// allocator share the context, so any copy can free what another allocated.
unsafe impl Allocator for ContextAlloc {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        check_alignment(layout);
        if layout.size() == 0 {
            return Ok(NonNull::slice_from_raw_parts(NonNull::<u64>::dangling().cast(), 0));
        }
        // SAFETY: plain call; raises an error instead of returning null.
        let block = unsafe {
            pg_sys::MemoryContextAllocExtended(self.0, layout.size(), pg_sys::MCXT_ALLOC_HUGE as i32)
        };
        let block = NonNull::new(block.cast::<u8>()).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: the caller passes a block that `allocate` returned, and it was not of size zero.
            unsafe { pg_sys::pfree(block.as_ptr().cast()) }
        }
    }

    unsafe fn grow(&self, block: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() == 0 {
            return self.allocate(new);
        }
        check_alignment(new);
        // SAFETY: the block came from this context; repalloc keeps its content and its context.
        let block = unsafe { pg_sys::repalloc_huge(block.as_ptr().cast(), new.size()) };
        let block = NonNull::new(block.cast::<u8>()).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, new.size()))
    }
}
