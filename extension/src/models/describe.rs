//! What Postgres knows of a query without running it: its columns, the tables below it, which columns it passes on
//! (`copies.rs`), how its rows are merged (`merges.rs`), and what in it depends on the session (`settings.rs`).

use std::ffi::{CStr, CString, c_int};

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode};

use super::copies::copied;
use super::merges::merges;
use super::owner::{as_owner, role};
use super::settings::unstable;
use crate::support::args;
use crate::support::error::raise;
use crate::support::pg_function;

/// Parses, analyzes and rewrites a query with two parameters of type date, and hands it to `look`.
///
/// Nothing is planned, let alone executed.
pub(super) fn analyzed<T>(query: &CStr, look: impl FnOnce(&pg_sys::CachedPlanSource) -> T) -> T {
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

/// Names and types of the columns; none for a statement that returns no rows.
unsafe fn columns(source: &pg_sys::CachedPlanSource) -> (Vec<String>, Vec<Oid>) {
    // SAFETY: a row type has as many columns as it says.
    unsafe {
        if source.resultDesc.is_null() {
            return (vec![], vec![]);
        }
        let column = |n| {
            let name = CStr::from_ptr(pg_sys::SPI_fname(source.resultDesc, n));
            (name.to_string_lossy().into_owned(), pg_sys::SPI_gettypeid(source.resultDesc, n))
        };
        (1..=(*source.resultDesc).natts).map(column).unzip()
    }
}

/// Tables and views, those inside views included, each once and in order.
pub(super) unsafe fn relations(source: &pg_sys::CachedPlanSource) -> Vec<Oid> {
    let mut relations: Vec<Oid> = vec![];
    // SAFETY: the list is one of oids.
    unsafe {
        if !source.relationOids.is_null() {
            let list = &*source.relationOids;
            for n in 0..usize::try_from(list.length).unwrap_or(0) {
                relations.push((*list.elements.add(n)).oid_value);
            }
        }
    }
    relations.sort_unstable_by_key(|relation| relation.to_u32());
    relations.dedup();
    relations
}

pg_function! {
    /// `describe_query(role oid, query text, OUT columns, types, copied, merges, relations, unstable, hint)`.
    fn tidemark_describe_query(fcinfo) {
        let role = role(fcinfo, |role| role);
        let Some(query) = args::text(fcinfo, 1, "query") else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "query must not be NULL")
        };
        let Ok(text) = CString::new(query) else {
            raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "query must not contain a zero byte")
        };
        let ((columns, types), copied, merges, relations, unstable) = as_owner(role, || {
            analyzed(&text, |source| {
                (columns(source), copied(source), merges(source), relations(source), unstable(source, query))
            })
        });
        let (unstable, hint) = unstable.unzip();
        let fields = [
            columns.into_datum(),
            types.into_datum(),
            copied.and_then(IntoDatum::into_datum),
            merges.and_then(IntoDatum::into_datum),
            relations.into_datum(),
            unstable.and_then(IntoDatum::into_datum),
            hint.and_then(IntoDatum::into_datum),
        ];
        let mut descriptor = std::ptr::null_mut();
        pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let mut nulls = fields.map(|field| field.is_none());
        let mut values = fields.map(|field| field.unwrap_or(Datum::from(0)));
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}
