//! Rust's global allocator: malloc, whose failure is an ERROR (53200) instead of the end of the whole server.
//!
//! States of aggregates are not allocated here; they live in memory contexts (`alloc`). What is left are error reports,
//! parsed patterns and modes, what pgrx needs, and what timelines are made of and asked with, whose owners stay outside
//! of what may fail ([`contained`]). Why it is done like this stands in `docs/decisions.md`.
//!
//! On null Rust calls `abort`, and an allocator must not unwind. So the way out is that of Postgres's own C code: the
//! error is raised where it happens and jumps to Postgres's handler, over Rust frames that then never drop what they
//! own. To do so as rarely as possible, small requests are met from a reserve first.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use pgrx::pg_sys;
use pgrx::{PgLogLevel, PgSqlErrorCode};

// Not in the program that runs the tests, which has no Postgres around it.
#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(test, allow(dead_code))]
static HEAP: Heap = Heap {
    reserve: UnsafeCell::new(Reserve([0; RESERVE])),
    used: AtomicUsize::new(0),
    blocks: AtomicUsize::new(0),
};

const RESERVE: usize = 64 * 1024;

#[repr(align(16))]
struct Reserve(#[allow(dead_code, reason = "read through pointers")] [u8; RESERVE]);

struct Heap {
    /// Given out from its start to its end, and from the start again when all of it came back.
    reserve: UnsafeCell<Reserve>,
    used: AtomicUsize,
    blocks: AtomicUsize,
}

// SAFETY: parts of the reserve are given out once, by an atomic counter. It only starts again without any block in use;
// that a block is taken at that moment cannot be, since the extension runs in the one thread of a backend.
unsafe impl Sync for Heap {}

// SAFETY: blocks are those of malloc or distinct, aligned parts of the reserve. It does not unwind, and where it fails it
// does not return.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() { self.spare(layout) } else { block }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let offset = block.addr().wrapping_sub(self.reserve.get().addr());
        if offset >= RESERVE {
            // SAFETY: as the caller promises; it came from malloc.
            unsafe { System.dealloc(block, layout) }
        } else if self.blocks.fetch_sub(1, Relaxed) == 1 {
            self.used.store(0, Relaxed);
        }
    }
}

impl Heap {
    /// A block when malloc has none. Half of the reserve is kept for what a panic needs on its way to becoming an error.
    #[cold]
    fn spare(&self, layout: Layout) -> *mut u8 {
        let limit = if std::thread::panicking() { RESERVE } else { RESERVE / 2 };
        let end = |used: usize| {
            let start = used.next_multiple_of(layout.align());
            start
                .checked_add(layout.size())
                .filter(|&end| end <= limit && layout.align() <= align_of::<Reserve>())
        };
        match self.used.fetch_update(Relaxed, Relaxed, end) {
            Ok(used) => {
                self.blocks.fetch_add(1, Relaxed);
                self.reserve.get().cast::<u8>().wrapping_add(used.next_multiple_of(layout.align()))
            }
            Err(_) => out_of_memory(layout.size()),
        }
    }
}

// pgrx converts the errors of whatever it declares into panics, which must not happen here.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(code: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    fn geterrcode() -> c_int;
}

const OUT_OF_MEMORY: c_int = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int;

/// Ends the statement with 53200; the session, where an error or a panic is on its way already.
///
/// There the jump would be wrong: pgrx copies an error into Rust strings while Postgres's handler is still the one that
/// was just jumped to, and a panic that is left behind makes the next one abort. Whether Postgres has an error at hand
/// only its own functions know: `geterrcode` raises one itself if there is none, and [`describe`] writes its text.
fn out_of_memory(size: usize) -> ! {
    // SAFETY: these take what is given to them; the messages are copied into memory that Postgres set aside before.
    unsafe {
        if !std::thread::panicking() {
            let mut context = callback(describe, size as *mut c_void);
            pg_sys::error_context_stack = &raw mut context;
            geterrcode();
        }
        // Who would describe the circumstances of the earlier error may be gone.
        pg_sys::error_context_stack = null_mut();
        errstart(PgLogLevel::FATAL as c_int, null_mut());
        describe(size as *mut c_void);
        errfinish(c"heap.rs".as_ptr(), line!() as c_int, c"out_of_memory".as_ptr());
    }
    unreachable!("a FATAL error does not return")
}

fn callback(
    function: unsafe extern "C-unwind" fn(*mut c_void),
    arg: *mut c_void,
) -> pg_sys::ErrorContextCallback {
    // SAFETY: a plain read; a backend has one thread.
    let previous = unsafe { pg_sys::error_context_stack };
    pg_sys::ErrorContextCallback { previous, callback: Some(function), arg }
}

/// Code, message and detail for the error that is being raised.
unsafe extern "C-unwind" fn describe(size: *mut c_void) {
    // SAFETY: formats fit their arguments.
    unsafe {
        errcode(OUT_OF_MEMORY);
        errmsg(c"out of memory".as_ptr());
        errdetail(c"Failed on request of size %zu in Rust's heap.".as_ptr(), size.addr());
    }
}

/// What the report of an error may take when Postgres has run out of memory, from malloc. A memory context that is full
/// asks for a block of 1 MB or more, however little is asked of it.
const REPORT: Layout = match Layout::from_size_align(5 << 18, 16) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
static FOR_REPORT: AtomicPtr<u8> = AtomicPtr::new(null_mut());

/// Runs a function that Postgres calls: panics become errors, and an error for want of memory can be reported.
///
/// pgrx copies each error of a function of Postgres into the current memory context. When that fails, it tries to copy
/// the error about this, and so on until Postgres gives up, and with it the whole server. So there is a block to give
/// back to malloc at that moment.
///
/// # Safety
/// As for `pgrx_extern_c_guard`.
#[inline]
pub unsafe fn guarded<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: whoever catches an error sets the stack of callbacks back to what it was.
    unsafe {
        let mut context = callback(give_back, null_mut());
        if FOR_REPORT.load(Relaxed).is_null() {
            set_aside();
        }
        pg_sys::error_context_stack = &raw mut context;
        let result = pg_sys::panic::pgrx_extern_c_guard(body);
        pg_sys::error_context_stack = context.previous;
        result
    }
}

/// Runs what allocates beside large things that the caller owns: a failed allocation jumps to here instead of past the
/// caller, and becomes a panic that drops them. Whatever `body` itself owns by then is lost until the session ends.
///
/// A query that is run through Postgres's own functions is contained already: its rows are.
pub fn contained<T>(body: impl FnOnce() -> T) -> T {
    let body = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    // SAFETY: no panic leaves the closure. Only `out_of_memory` jumps out of it, which the module is about.
    let result = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(body) };
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cold]
fn set_aside() {
    // SAFETY: the layout has a size.
    FOR_REPORT.store(unsafe { System.alloc(REPORT) }, Relaxed);
}

/// Called by Postgres while it makes an error.
unsafe extern "C-unwind" fn give_back(_: *mut c_void) {
    // SAFETY: there is an error; the block came from `set_aside`.
    unsafe {
        if geterrcode() == OUT_OF_MEMORY {
            let block = FOR_REPORT.swap(null_mut(), Relaxed);
            if !block.is_null() {
                System.dealloc(block, REPORT);
            }
        }
    }
}

/// Called by Postgres when it loads the library. The first panic of a thread registers what is to be dropped with it,
/// in the C library, which aborts when it has no memory for that: so the first one happens here.
#[unsafe(no_mangle)]
#[expect(clippy::panic, reason = "it is caught right away")]
pub extern "C-unwind" fn _PG_init() {
    drop(std::panic::catch_unwind(|| std::panic::panic_any(())));
}
