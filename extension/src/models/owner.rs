//! Running a statement with the rights of another role, so that nobody's query ever runs with somebody else's. Who may
//! ask for that is not decided here: the SQL functions are for the extension's owner only (`sql/refresh.sql`).

use std::ffi::{CStr, CString, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode, PgTryBuilder};

use crate::support::args;
use crate::support::error::raise;
use crate::support::pg_function;
use crate::support::settings::under;

/// Settings under which users' code runs, whatever the session says: the result of a query must not depend on who
/// refreshes. A live view runs under the settings of its reader; `settings.rs` finds what would differ there.
const SETTINGS: [(&CStr, &CStr); 12] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"timezone", c"UTC"),
    (c"datestyle", c"ISO, MDY"),
    (c"intervalstyle", c"postgres"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"row_security", c"on"),
    (c"quote_all_identifiers", c"off"),
    (c"default_tablespace", c""),
    (c"default_table_access_method", c"heap"),
];

/// The owner of a relation; an ERROR if there is no such relation.
fn owner_of(relation: Oid) -> Oid {
    // SAFETY: plain catalog look-ups; the tuple is released after its field is copied.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as c_int, Datum::from(relation));
        if tuple.is_null() {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation {} does not exist", relation.to_u32()),
            );
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    }
}

/// Runs `work` as `owner` in a security-restricted operation, under `SETTINGS`; user and settings are as before
/// afterwards.
///
/// Restricted: the work cannot change the user, and can leave nothing behind that runs later with the caller's rights.
/// Settings: a SET in the owner's code (of search_path, say) would otherwise stay in the caller's session.
/// After an error Postgres itself restores both when it aborts the (sub)transaction.
pub(crate) fn as_owner<T>(owner: Oid, work: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: plain calls that save and set the backend's current user.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_RESTRICTED_OPERATION as c_int);
    }
    let result = under(&SETTINGS, || contained(work));
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    result
}

/// Runs users' code, and makes of whatever it raises an error that `EXCEPTION WHEN OTHERS` catches. That lets cancels and
/// failed assertions through, by their SQLSTATE, which anybody may raise: it would end the work on everybody's models. A
/// cancel that is one comes from one function of the server.
fn contained<T>(work: impl FnOnce() -> T) -> T {
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|error| {
            let CaughtError::PostgresError(report) = &error else { error.rethrow() };
            let uncaught = [PgSqlErrorCode::ERRCODE_QUERY_CANCELED, PgSqlErrorCode::ERRCODE_ASSERT_FAILURE];
            if !uncaught.contains(&report.sql_error_code())
                || report.function_name() == Some("ProcessInterrupts")
            {
                error.rethrow();
            }
            raise(PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION, report.message())
        })
        .execute()
}

/// Whether the statement that runs now must write nothing, functions that it calls included.
static READING: AtomicBool = AtomicBool::new(false);

/// Whether a model's query is run by somebody who only looks: then its functions must not write what they would keep.
pub(crate) fn is_reading() -> bool {
    READING.load(Relaxed)
}

/// Puts back what [`READING`] was.
struct Before(bool);

impl Drop for Before {
    fn drop(&mut self) {
        READING.store(self.0, Relaxed);
    }
}

/// Runs a statement with a date as $1, the day after as $2 and a list of persons as $3, and returns the first column of
/// its first row as text, or how many rows it wrote if it returns none.
///
/// The plan is made for these values, so partitions are pruned while planning. With `read_only` the statement sees
/// the snapshot of the calling query, else a new one.
fn run(statement: &str, date: Option<i32>, persons: Option<Datum>, read_only: bool) -> Option<String> {
    let Ok(statement) = CString::new(statement) else {
        raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "statement must not contain a zero byte")
    };
    let _before = Before(READING.swap(read_only, Relaxed));
    // SAFETY: SPI is connected and finished in pairs, an error in between aborts both; what it returns is copied
    // before it is finished.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot connect to SPI");
        }
        let mut types = [pg_sys::DATEOID, pg_sys::DATEOID, pg_sys::TEXTARRAYOID];
        let day = date.unwrap_or(0);
        // The days at infinity are the ends of the range.
        let next = if day == i32::MAX { day } else { day + 1 };
        let mut values = [Datum::from(day), Datum::from(next), persons.unwrap_or(Datum::from(0))];
        let null = |is_null| if is_null { b'n' } else { b' ' };
        let nulls = [null(date.is_none()), null(date.is_none()), null(persons.is_none()), 0];
        let code = pg_sys::SPI_execute_with_args(
            statement.as_ptr(),
            types.len() as c_int,
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
                answer = Some(CStr::from_ptr(value).to_string_lossy().into_owned());
            }
        }
        pg_sys::SPI_finish();
        answer
    }
}

/// The role that an argument names, itself or as the owner of a relation.
///
/// # Safety
/// The first argument must be an oid.
pub(super) unsafe fn role(fcinfo: FunctionCallInfo, find: impl FnOnce(Oid) -> Oid) -> Oid {
    // SAFETY: see above.
    match unsafe { args::datum(fcinfo, 0) } {
        Some(oid) => find(Oid::from(oid.value() as u32)),
        None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "relation or role must not be NULL"),
    }
}

/// Runs the statement that is the second argument, with the date and the persons that may follow.
///
/// # Safety
/// The arguments must be (oid, text, date, text[]) or (oid, text).
unsafe fn run_as(fcinfo: FunctionCallInfo, role: Oid, read_only: bool) -> Datum {
    // SAFETY: see above.
    unsafe {
        let Some(statement) = args::text(fcinfo, 1, "statement").map(str::to_owned) else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "statement must not be NULL")
        };
        let (date, persons) = match args::count(fcinfo) {
            4 => (args::int32(fcinfo, 2), args::datum(fcinfo, 3)),
            _ => (None, None),
        };
        match as_owner(role, || run(&statement, date, persons, read_only)).and_then(IntoDatum::into_datum) {
            Some(datum) => datum,
            None => args::return_null(fcinfo),
        }
    }
}

pg_function! {
    /// `execute_as_owner(relation regclass, statement text, event_date date, persons text[]) -> text`.
    fn tidemark_execute_as_owner(fcinfo) { run_as(fcinfo, role(fcinfo, owner_of), false) }
}

pg_function! {
    /// `read_as_owner(relation regclass, statement text, event_date date, persons text[]) -> text`.
    fn tidemark_read_as_owner(fcinfo) { run_as(fcinfo, role(fcinfo, owner_of), true) }
}

pg_function! {
    /// `execute_as(role oid, statement text) -> text`.
    fn tidemark_execute_as(fcinfo) { run_as(fcinfo, role(fcinfo, |role| role), false) }
}

pg_function! {
    /// `execute_contained(statement text) -> text`.
    fn tidemark_execute_contained(fcinfo) {
        match args::text(fcinfo, 0, "statement").map(str::to_owned) {
            Some(statement) => contained(|| run(&statement, None, None, false)).into_datum().unwrap_or(Datum::from(0)),
            None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "statement must not be NULL"),
        }
    }
}
