//! Work that runs with the rights of a table's owner on behalf of a caller who may write to the table.
//!
//! The statements themselves are plpgsql (see `sql/partitions.sql` and `sql/retirement.sql`); here is the check of the
//! caller and the switch.

use std::ffi::c_int;

use pgrx::datum::Date;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, Spi};

use crate::models::owner::as_owner;
use crate::support::args;
use crate::support::error::{OrRaise, invalid_argument, raise, raise_hint};
use crate::support::pg_function;

/// Whom a piece of work is open to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// Whoever may insert: what is done is what the owner configured.
    Writers,
    /// Members of the owner.
    Owner,
}

/// The owner of a table on which the current user may ask for this work, or an ERROR.
fn owner_of(table: Oid, open_to: For, what: &str) -> Oid {
    // SAFETY: plain catalog look-ups; the tuple is released after its one field is copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as c_int, Datum::from(table));
        if tuple.is_null() {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("parent {} does not exist", table.to_u32()),
            );
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let (owner, name) = ((*class).relowner, pgrx::name_data_to_str(&(*class).relname).to_owned());
        pg_sys::ReleaseSysCache(tuple);
        let user = pg_sys::GetUserId();
        // The mode is 32 bits wide up to PostgreSQL 15 and 64 since.
        #[allow(clippy::unnecessary_cast)]
        let insert = pg_sys::ACL_INSERT as pg_sys::AclMode;
        let allowed = pg_sys::has_privs_of_role(user, owner)
            || open_to == For::Writers
                && pg_sys::pg_class_aclcheck(table, user, insert) == pg_sys::AclResult::ACLCHECK_OK;
        if !allowed {
            raise_hint(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied to {what} partitions of table {name}"),
                if open_to == For::Owner {
                    "Only the owner of the table may."
                } else {
                    "The caller needs INSERT on the table."
                },
            );
        }
        owner
    }
}

pg_function! {
    /// `ensure_partitions_as_owner(parent regclass, from_date date, to_date date) -> regclass[]`.
    fn tidemark_ensure_partitions(fcinfo) {
        let (Some(parent), Some(from), Some(to)) =
            (args::datum(fcinfo, 0), args::datum(fcinfo, 1), args::datum(fcinfo, 2))
        else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "parent, from_date and to_date must not be NULL")
        };
        let parent = Oid::from(parent.value() as u32);
        let date = |d: Datum| Date::from_polymorphic_datum(d, false, pg_sys::DATEOID);
        let created = as_owner(owner_of(parent, For::Writers, "create"), || {
            Spi::get_one_with_args::<Vec<Oid>>(
                "SELECT tidemark_internal.create_partitions($1::pg_catalog.regclass, $2, $3)::pg_catalog.oid[]",
                &[parent.into(), date(from).into(), date(to).into()],
            )
        });
        let created = created.or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "create partitions").unwrap_or_default();
        let mut datums: Vec<Datum> = created.into_iter().filter_map(IntoDatum::into_datum).collect();
        Datum::from(pg_sys::construct_array(
            datums.as_mut_ptr(), datums.len() as c_int, pg_sys::REGCLASSOID, 4, true, b'i' as _))
    }
}

/// What can be done as the owner of a table: the statement, which gets the table, a date and a text, and who may ask.
fn work(name: &str) -> Option<(&'static str, For, &'static str)> {
    Some(match name {
        "create" => ("SELECT tidemark_internal.create_step($1)", For::Writers, "create"),
        "retire" => ("SELECT tidemark_internal.retire_step($1, false)", For::Writers, "retire"),
        "retire concurrently" => ("SELECT tidemark_internal.retire_step($1, true)", For::Writers, "retire"),
        "drop" => ("SELECT tidemark_internal.drop_step($1)", For::Writers, "drop"),
        "record" => ("SELECT tidemark_internal.record_step($1, $3)", For::Writers, "retire"),
        "restore" => {
            ("SELECT tidemark_internal.restore_step($1, $2, $3::pg_catalog.interval)", For::Owner, "restore")
        }
        _ => return None,
    })
}

pg_function! {
    /// `partition_work_as_owner(parent regclass, work text, event_date date, detail text) -> text[]`.
    fn tidemark_partition_work(fcinfo) {
        let Some(parent) = args::datum(fcinfo, 0) else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "parent must not be NULL")
        };
        let parent = Oid::from(parent.value() as u32);
        let Some((sql, open_to, what)) = args::text(fcinfo, 1, "work").and_then(work) else {
            invalid_argument("work is not known", "Call the functions described in the documentation instead.")
        };
        let date = args::datum(fcinfo, 2).and_then(|d| Date::from_polymorphic_datum(d, false, pg_sys::DATEOID));
        let detail = args::text(fcinfo, 3, "detail");
        let done = as_owner(owner_of(parent, open_to, what), || {
            Spi::get_one_with_args::<Vec<String>>(sql, &[parent.into(), date.into(), detail.into()])
        });
        match done.or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "partition work").and_then(IntoDatum::into_datum) {
            Some(datum) => datum,
            None => args::return_null(fcinfo),
        }
    }
}
