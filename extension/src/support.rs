//! What the SQL families share: the frame of aggregates and of stored types, arguments, results, errors.

pub mod aggregate;
pub mod alloc;
pub mod args;
pub mod array;
pub mod call_site;
pub mod conditions;
pub mod error;
pub mod heap;
pub mod interrupts;
pub mod interval;
pub mod set;
pub mod settings;
pub mod stored;

use pgrx::pg_sys::{Datum, FunctionCallInfo};

/// What the body of a [`pg_function!`] may give: a value, or `None` for NULL.
pub trait Given {
    /// Passes it to Postgres.
    ///
    /// # Safety
    /// `fcinfo` must be the frame that Postgres passed.
    unsafe fn give(self, fcinfo: FunctionCallInfo) -> Datum;
}

impl Given for Datum {
    #[inline]
    unsafe fn give(self, _: FunctionCallInfo) -> Datum {
        self
    }
}

impl Given for Option<Datum> {
    #[inline]
    unsafe fn give(self, fcinfo: FunctionCallInfo) -> Datum {
        // SAFETY: see the trait.
        self.unwrap_or_else(|| unsafe { args::return_null(fcinfo) })
    }
}

/// Runs a body and passes on what it gives.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
#[inline]
pub unsafe fn give<T: Given>(fcinfo: FunctionCallInfo, body: impl FnOnce() -> T) -> Datum {
    // SAFETY: see above.
    unsafe { body().give(fcinfo) }
}

/// Exports a function that Postgres can call by its plain name, with the version-1 calling convention.
///
/// The hot functions use this instead of `#[pg_extern]`: arguments are read straight from the call frame, and the
/// symbol name is ours, so it stays the same from release to release. The body gives a `Datum`, or an `Option` of one
/// for a result that may be NULL; then `?` leaves it with NULL.
macro_rules! pg_function {
    ($(#[$meta:meta])* fn $name:ident($fcinfo:ident) $body:block) => {
        ::pastey::paste! {
            $(#[$meta])*
            ///
            /// # Safety
            /// Only Postgres may call this, with a valid call frame.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($fcinfo: ::pgrx::pg_sys::FunctionCallInfo) -> ::pgrx::pg_sys::Datum {
                // SAFETY: the guard turns Rust panics into Postgres errors at this boundary; Postgres passes a valid
                // call frame.
                unsafe { $crate::support::heap::guarded(|| $crate::support::give($fcinfo, || $body)) }
            }

            #[doc(hidden)]
            #[unsafe(no_mangle)]
            pub extern "C" fn [<pg_finfo_ $name>]() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                const V1: ::pgrx::pg_sys::Pg_finfo_record = ::pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        }
    };
}
pub(crate) use pg_function;
