//! Work that must not depend on what a session or its database has set.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Runs `work` under settings, each with its value; afterwards they are what they were before, also what `work` set itself.
///
/// After an error Postgres itself restores them when it aborts the (sub)transaction.
pub fn under<T>(settings: &[(&CStr, &CStr)], work: impl FnOnce() -> T) -> T {
    // SAFETY: plain calls that open a level of settings and set them there.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        level
    };
    let result = work();
    // SAFETY: closes the level from above.
    unsafe { pg_sys::AtEOXact_GUC(false, level) };
    result
}
