//! Aggregate states: where they live, how they come and go.
//!
//! A state is a Rust value placed in the aggregate's memory context and passed between calls as a pointer
//! (`internal`). The functions that take one can only be reached through an aggregate: SQL has no way to make an
//! `internal` value, and [`context`] refuses a call outside an aggregate.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};

use super::alloc::ContextAlloc;
use super::args;
use super::error::raise;

unsafe extern "C-unwind" {
    // Raises no error, so the guard that pgrx puts around every call (a sigsetjmp, for each row of a query) protects
    // from nothing here.
    fn AggCheckCallContext(fcinfo: FunctionCallInfo, context: *mut pg_sys::MemoryContext) -> std::ffi::c_int;
}

/// The memory context of the aggregate that is calling, or an ERROR outside one.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
#[inline]
pub unsafe fn context(fcinfo: FunctionCallInfo) -> ContextAlloc {
    let mut context = std::ptr::null_mut();
    // SAFETY: see above.
    if unsafe { AggCheckCallContext(fcinfo, &mut context) } == 0 {
        raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "support function of an aggregate was called outside an aggregate",
        );
    }
    ContextAlloc::new(context)
}

/// The state in an argument, `None` before the first row.
///
/// # Safety
/// The argument must be an `internal` that this aggregate's functions made for the same `T`.
#[inline]
pub unsafe fn state<'a, T>(fcinfo: FunctionCallInfo, index: usize) -> Option<&'a mut T> {
    // SAFETY: see above; one call at a time uses a state.
    unsafe { args::datum(fcinfo, index) }.map(|d| unsafe { &mut *d.cast_mut_ptr::<T>() })
}

/// Passes a state back to Postgres.
#[inline]
pub fn give<T>(state: *mut T) -> Datum {
    Datum::from(state)
}

/// Passes an absent state back to Postgres: NULL, so that an aggregate without rows stays without a state.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
#[inline]
pub unsafe fn give_none(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above.
    unsafe { args::return_null(fcinfo) }
}

/// Whether an argument of the aggregate call has one value for the whole query: a constant or a parameter of the
/// query. False when that cannot be told (a window function).
///
/// # Safety
/// `fcinfo` must be the frame of a transition function; `index` counts its arguments, the state being 0.
pub unsafe fn is_constant(fcinfo: FunctionCallInfo, index: usize) -> bool {
    // SAFETY: an Aggref's arguments are TargetEntries in the order of the call, without the state; list and nodes
    // belong to the plan.
    unsafe {
        let aggref = pg_sys::AggGetAggref(fcinfo);
        if aggref.is_null() || index == 0 {
            return false;
        }
        let args = (*aggref).args;
        if args.is_null() || index > (*args).length as usize {
            return false;
        }
        let entry = (*(*args).elements.add(index - 1)).ptr_value.cast::<pg_sys::TargetEntry>();
        let expression = (*entry).expr.cast::<pg_sys::Node>();
        match (*expression).type_ {
            pg_sys::NodeTag::T_Const => true,
            pg_sys::NodeTag::T_Param => {
                (*expression.cast::<pg_sys::Param>()).paramkind == pg_sys::ParamKind::PARAM_EXTERN
            }
            _ => false,
        }
    }
}
