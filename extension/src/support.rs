//! What the SQL families share: memory from an aggregate's context, arguments, errors, intervals, conditions, stored
//! types.

pub mod aggregate;
pub mod alloc;
pub mod args;
pub mod conditions;
pub mod error;
pub mod interval;
pub mod stored;

/// Exports a function that Postgres can call by its plain name, with the version-1 calling convention.
///
/// The hot functions use this instead of `#[pg_extern]`: arguments are read straight from the call frame, and the
/// symbol name is ours, so it stays the same from release to release.
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
                unsafe { ::pgrx::pg_sys::panic::pgrx_extern_c_guard(|| $body) }
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
