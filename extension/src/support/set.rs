//! Functions that return a set of rows: all rows at once, kept by Postgres, on disk where they are many.

use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::{PgSqlErrorCode, PgTupleDesc};

use super::error::raise;
use super::heap::contained;

/// The rows of a function declared with RETURNS TABLE.
pub struct Rows<const N: usize> {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl<const N: usize> Rows<N> {
    /// None yet; the function itself then returns `None`.
    ///
    /// # Safety
    /// `fcinfo` must be the frame that Postgres passed, and is used no longer than the call.
    pub unsafe fn of_call(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: see above; where a set is asked for, `resultinfo` says how it can be given. Store and descriptor must
        // live as long as the query.
        unsafe {
            let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            if info.is_null()
                || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                || (*info).allowedModes as u32 & materialize == 0
            {
                raise(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "a set of rows cannot be given here");
            }
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let mut descriptor = std::ptr::null_mut();
            pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            if descriptor.is_null() || PgTupleDesc::from_pg_unchecked(descriptor).len() != N {
                raise(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, format!("the result must have {N} columns"));
            }
            let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
            (*info).returnMode = materialize;
            (*info).setResult = store;
            (*info).setDesc = descriptor;
            Self { store, descriptor }
        }
    }

    /// Copies a row; `None` is NULL.
    ///
    /// # Safety
    /// The values must be of the declared types.
    pub unsafe fn put(&self, row: [Option<Datum>; N]) {
        let mut values = row.map(|value| value.unwrap_or(Datum::from(0)));
        let mut nulls = row.map(|value| value.is_none());
        // SAFETY: see above; the descriptor has as many columns.
        unsafe {
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

/// Gives the rows of an iterator.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed, the values of the declared types.
pub unsafe fn give_rows<const N: usize>(
    fcinfo: FunctionCallInfo,
    mut rows: impl Iterator<Item = [Option<Datum>; N]>,
) -> Option<Datum> {
    // SAFETY: see above.
    unsafe {
        let given = Rows::of_call(fcinfo);
        while let Some(row) = contained(|| rows.next()) {
            given.put(row);
        }
    }
    None
}
