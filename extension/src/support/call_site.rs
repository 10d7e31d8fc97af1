//! What is known once for all rows of a query: the place in the plan from which a function is called.

use pgrx::PgMemoryContexts;
use pgrx::pg_sys::{self, FunctionCallInfo};

use super::alloc::ContextAlloc;

/// A place of a plan that calls a function. What is kept with it lives as long as the query.
#[derive(Clone, Copy)]
pub struct CallSite(*mut pg_sys::FmgrInfo);

impl CallSite {
    /// The call site of a call.
    ///
    /// # Safety
    /// `fcinfo` must be the frame that Postgres passed; the call site must not be used after the call.
    #[inline]
    pub unsafe fn of(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: see above.
        Self(unsafe { (*fcinfo).flinfo })
    }

    /// What is kept here, if anything is.
    ///
    /// # Safety
    /// The function must keep values of type `T` only.
    #[inline]
    pub unsafe fn kept<'a, T>(self) -> Option<&'a mut T> {
        // SAFETY: see above; the value was placed by `keep`.
        unsafe { (*self.0).fn_extra.cast::<T>().as_mut() }
    }

    /// Keeps a value here, in place of none, and drops it with the query.
    ///
    /// # Safety
    /// As for [`CallSite::kept`].
    pub unsafe fn keep<'a, T>(self, value: T) -> &'a mut T {
        // SAFETY: see above.
        unsafe {
            let place = PgMemoryContexts::For((*self.0).fn_mcxt).leak_and_drop_on_delete(value);
            (*self.0).fn_extra = place.cast();
            &mut *place
        }
    }

    /// Memory that lives as long as what is kept here.
    pub fn alloc(self) -> ContextAlloc {
        // SAFETY: the call site is valid by the promise of `of`.
        ContextAlloc::new(unsafe { (*self.0).fn_mcxt })
    }

    /// The type of an argument of the call; invalid where that cannot be told.
    pub fn argument_type(self, index: usize) -> pg_sys::Oid {
        // SAFETY: as above.
        unsafe { pg_sys::get_fn_expr_argtype(self.0, index as i32) }
    }

    /// Whether the call ends in VARIADIC and an array.
    pub fn is_variadic(self) -> bool {
        // SAFETY: as above.
        unsafe { pg_sys::get_fn_expr_variadic(self.0) }
    }

    /// The element type of the declared result: works in any search path and without an expression tree (as under
    /// Citus).
    pub fn result_element(self) -> pg_sys::Oid {
        // SAFETY: as above; the function is being called, so its catalog row exists.
        unsafe { pg_sys::get_element_type(pg_sys::get_func_rettype((*self.0).fn_oid)) }
    }
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
