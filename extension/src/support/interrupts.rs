//! Letting a cancel or a timeout through while `tidemark_core` works.

use pgrx::pg_sys;
use tidemark_core::interrupt::Interrupt;

/// Raises the ERROR of a cancelled or terminated backend, as `CHECK_FOR_INTERRUPTS` does in Postgres.
#[derive(Clone, Copy)]
pub struct Interrupts;

impl Interrupt for Interrupts {
    #[inline(always)]
    fn check(self) {
        // SAFETY: a flag that signal handlers set at any time, hence volatile.
        if unsafe { (&raw const pg_sys::InterruptPending).read_volatile() } != 0 {
            process();
        }
    }
}

#[cold]
fn process() {
    // SAFETY: called from the main thread of a backend, outside critical sections; an ERROR becomes a panic here and
    // an ERROR again at the boundary to Postgres.
    unsafe { pg_sys::ProcessInterrupts() }
}
