//! Which columns of a table a query reads: a change of another one does not concern it.

use std::collections::BTreeSet;
use std::ffi::{CString, c_int, c_void};

use pgrx::pg_sys::{self, Node, NodeTag, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode, pg_guard};

use super::copies::nodes;
use super::describe::analyzed;
use super::owner::{as_owner, role};
use crate::support::args;
use crate::support::error::raise;
use crate::support::pg_function;

/// What the walk through a query carries along.
struct Walk {
    table: Oid,
    /// Their numbers; 0 stands for the row as a whole.
    columns: BTreeSet<i16>,
}

/// The columns for which a right to read is needed, as Postgres notes them when it analyzes a query.
unsafe fn selected(query: &pg_sys::Query, entry: &pg_sys::RangeTblEntry) -> *mut pg_sys::Bitmapset {
    #[cfg(feature = "pg15")]
    {
        let _ = query;
        entry.selectedCols
    }
    #[cfg(not(feature = "pg15"))]
    {
        // SAFETY: entries for tables count their rights from 1.
        let rights = unsafe { nodes::<pg_sys::RTEPermissionInfo>(query.rteperminfos) };
        let number = (entry.perminfoindex as usize).wrapping_sub(1);
        // SAFETY: nodes of an analyzed query.
        rights.get(number).map_or(std::ptr::null_mut(), |rights| unsafe { (**rights).selectedCols })
    }
}

/// Called for every node; `context` is the `Walk`.
#[pg_guard]
unsafe extern "C-unwind" fn look(node: *mut Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says which node it is; the context is what `columns_read` passed.
    unsafe {
        if (*node).type_ != NodeTag::T_Query {
            return pg_sys::expression_tree_walker(node, Some(look), context);
        }
        let walk = &mut *context.cast::<Walk>();
        let query = &*node.cast::<pg_sys::Query>();
        for entry in nodes::<pg_sys::RangeTblEntry>(query.rtable) {
            if (**entry).rtekind != pg_sys::RTEKind::RTE_RELATION || (**entry).relid != walk.table {
                continue;
            }
            let columns = selected(query, &**entry);
            let mut member: c_int = -1;
            loop {
                member = pg_sys::bms_next_member(columns, member);
                if member < 0 {
                    break;
                }
                let number = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
                walk.columns.extend(i16::try_from(number).ok().filter(|number| *number >= 0));
            }
        }
        pg_sys::query_tree_walker(node.cast(), Some(look), context, 0)
    }
}

pg_function! {
    /// `columns_read(role oid, query text, source regclass) -> int2[]`.
    fn tidemark_columns_read(fcinfo) {
        let role = role(fcinfo, |role| role);
        let Some(Ok(query)) = args::text(fcinfo, 1, "query").map(CString::new) else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "query must not be NULL")
        };
        let table = Oid::from(args::datum(fcinfo, 2).map_or(0, |oid| oid.value() as u32));
        let walk = as_owner(role, || {
            analyzed(&query, |plan| {
                let mut walk = Walk { table, columns: BTreeSet::new() };
                for tree in nodes::<Node>(plan.query_list) {
                    look(*tree, (&raw mut walk).cast());
                }
                walk
            })
        });
        let columns: Vec<i16> = walk.columns.into_iter().collect();
        columns.into_datum().unwrap_or_else(|| args::return_null(fcinfo))
    }
}
