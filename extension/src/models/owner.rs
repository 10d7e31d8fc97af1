//! Running a statement as the owner of a table, so that nobody's query ever runs with somebody else's rights.

use std::ffi::{CString, c_int};

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode};

use crate::support::args;
use crate::support::error::{raise, raise_hint};
use crate::support::pg_function;

/// The owner of a relation, if the current user may act as that role; an ERROR otherwise.
fn owner_for_member(relation: Oid) -> Oid {
    // SAFETY: plain catalog look-ups; the tuple is released after its fields are copied.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as c_int, Datum::from(relation));
        if tuple.is_null() {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation {} does not exist", relation.to_u32()),
            );
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let (owner, name) = ((*class).relowner, pgrx::name_data_to_str(&(*class).relname).to_owned());
        pg_sys::ReleaseSysCache(tuple);
        if !may_become(pg_sys::GetUserId(), owner) {
            raise_hint(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of {name}"),
                "The caller must be a member of the role that owns it.",
            );
        }
        owner
    }
}

/// Whether a user could use the rights of a role by himself, by inheritance or by SET ROLE.
unsafe fn may_become(user: Oid, role: Oid) -> bool {
    // SAFETY: plain look-ups.
    #[cfg(feature = "pg15")]
    unsafe {
        pg_sys::is_member_of_role(user, role)
    }
    // SAFETY: as above; from 16 on a membership may allow neither of the two.
    #[cfg(not(feature = "pg15"))]
    unsafe {
        pg_sys::has_privs_of_role(user, role) || pg_sys::member_can_set_role(user, role)
    }
}

/// Runs `work` as `owner` in a security-restricted operation; user and settings are as before afterwards.
///
/// Restricted: the work cannot change the user, and can leave nothing behind that runs later with the caller's rights.
/// Settings: a SET in the owner's code (of search_path, say) would otherwise stay in the caller's session.
/// After an error Postgres itself restores both when it aborts the (sub)transaction.
pub(crate) fn as_owner<T>(owner: Oid, work: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: plain calls that save, set and restore the backend's current user and settings.
    let level = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int);
        pg_sys::NewGUCNestLevel()
    };
    let result = work();
    // SAFETY: as above.
    unsafe {
        pg_sys::AtEOXact_GUC(false, level);
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}

/// Runs a statement with a date as $1 and the day after as $2, and returns the first column of its first row as text,
/// or how many rows it wrote if it returns none.
///
/// The plan is made for these values, so partitions are pruned while planning. With `read_only` the statement sees
/// the snapshot of the calling query, else a new one.
fn run(statement: &str, date: Option<i32>, read_only: bool) -> Option<String> {
    let Ok(statement) = CString::new(statement) else {
        raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "statement must not contain a zero byte")
    };
    // SAFETY: SPI is connected and finished in pairs, an error in between aborts both; what it returns is copied
    // before it is finished.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot connect to SPI");
        }
        let mut types = [pg_sys::DATEOID; 2];
        let day = date.unwrap_or(0);
        // The days at infinity are the ends of the range.
        let mut values = [Datum::from(day), Datum::from(if day == i32::MAX { day } else { day + 1 })];
        let nulls = if date.is_some() { *b"  \0" } else { *b"nn\0" };
        let code = pg_sys::SPI_execute_with_args(
            statement.as_ptr(),
            2,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr().cast(),
            read_only,
            0,
        );
        if code < 0 {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("statement failed with SPI code {code}"));
        }
        let table = pg_sys::SPI_tuptable;
        // A statement without rows answers with the number of rows it wrote.
        let written = pg_sys::SPI_processed;
        let mut answer = table.is_null().then(|| written.to_string());
        if !table.is_null() && (*table).numvals > 0 {
            let value = pg_sys::SPI_getvalue(*(*table).vals, (*table).tupdesc, 1);
            if !value.is_null() {
                answer = Some(std::ffi::CStr::from_ptr(value).to_string_lossy().into_owned());
            }
        }
        pg_sys::SPI_finish();
        answer
    }
}

/// The work behind both functions below.
///
/// # Safety
/// The arguments must be (regclass, text, date).
unsafe fn run_as_owner(fcinfo: FunctionCallInfo, read_only: bool) -> Datum {
    // SAFETY: see above.
    unsafe {
        let (Some(relation), Some(statement)) =
            (args::datum(fcinfo, 0), args::text(fcinfo, 1, "statement").map(str::to_owned))
        else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "relation and statement must not be NULL")
        };
        let date = args::int32(fcinfo, 2);
        let owner = owner_for_member(Oid::from(relation.value() as u32));
        match as_owner(owner, || run(&statement, date, read_only)).and_then(IntoDatum::into_datum) {
            Some(datum) => datum,
            None => args::return_null(fcinfo),
        }
    }
}

pg_function! {
    /// `execute_as_owner(relation regclass, statement text, event_date date) -> text`.
    fn tidemark_execute_as_owner(fcinfo) { run_as_owner(fcinfo, false) }
}

pg_function! {
    /// `read_as_owner(relation regclass, statement text, event_date date) -> text`.
    fn tidemark_read_as_owner(fcinfo) { run_as_owner(fcinfo, true) }
}
