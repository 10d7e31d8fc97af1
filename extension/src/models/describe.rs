//! What Postgres knows of a query without running it: its columns, and the tables below it.

use std::ffi::{CString, c_int};

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode};

use crate::support::args;
use crate::support::error::raise;
use crate::support::pg_function;

/// Parses, analyzes and rewrites a query with two parameters of type date, and hands it to `look`.
///
/// Nothing is planned, let alone executed.
pub(super) fn analyzed<T>(query: &str, look: impl FnOnce(&pg_sys::CachedPlanSource) -> T) -> T {
    let Ok(query) = CString::new(query) else {
        raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "query must not contain a zero byte")
    };
    // SAFETY: SPI is connected and finished in pairs, an error in between aborts both; the plan lives until then.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot connect to SPI");
        }
        let mut types = [pg_sys::DATEOID; 2];
        let plan = pg_sys::SPI_prepare(query.as_ptr(), 2, types.as_mut_ptr());
        if plan.is_null() {
            raise(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, "query cannot be prepared");
        }
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        if sources.is_null() || (*sources).length != 1 {
            raise(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, "query must be one statement");
        }
        let source = (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>();
        let result = look(&*source);
        pg_sys::SPI_finish();
        result
    }
}

/// The query argument.
///
/// # Safety
/// The first argument must be a text.
pub(super) unsafe fn query_argument(fcinfo: pg_sys::FunctionCallInfo) -> String {
    // SAFETY: see above.
    match unsafe { args::text(fcinfo, 0, "query") } {
        Some(query) => query.to_owned(),
        None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "query must not be NULL"),
    }
}

pg_function! {
    /// `query_columns(query text) -> text[]`: the names of its columns in order.
    fn tidemark_query_columns(fcinfo) {
        let query = query_argument(fcinfo);
        let names = analyzed(&query, |source| {
            let mut names = Vec::new();
            // A statement that returns no rows has no descriptor.
            if !source.resultDesc.is_null() {
                let count = usize::try_from((*source.resultDesc).natts).unwrap_or(0);
                for column in 0..count {
                    names.push(column_name(source.resultDesc, column));
                }
            }
            names
        });
        match names.into_datum() {
            Some(datum) => datum,
            None => args::return_null(fcinfo),
        }
    }
}

/// The name of a column of a row type.
///
/// # Safety
/// The row type must have more than `column` columns.
unsafe fn column_name(row_type: pg_sys::TupleDesc, column: usize) -> String {
    // SAFETY: see above.
    unsafe {
        let name = pg_sys::SPI_fname(row_type, column as c_int + 1);
        std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

pg_function! {
    /// `query_relations(query text) -> regclass[]`: tables and views below it, those inside views included.
    fn tidemark_query_relations(fcinfo) {
        let query = query_argument(fcinfo);
        let mut relations = analyzed(&query, |source| {
            let mut relations: Vec<Oid> = Vec::new();
            if !source.relationOids.is_null() {
                let list = &*source.relationOids;
                for n in 0..usize::try_from(list.length).unwrap_or(0) {
                    relations.push((*list.elements.add(n)).oid_value);
                }
            }
            relations
        });
        relations.sort_unstable_by_key(|relation| relation.to_u32());
        relations.dedup();
        let mut datums: Vec<Datum> = relations.into_iter().filter_map(IntoDatum::into_datum).collect();
        Datum::from(pg_sys::construct_array(
            datums.as_mut_ptr(), datums.len() as c_int, pg_sys::REGCLASSOID, 4, true, b'i' as _))
    }
}
