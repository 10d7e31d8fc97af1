//! What procedures that work in several transactions share: steps with the rights of the extension's owner, each committed
//! before the next. What the steps are is in `models/refresh.rs` and `partitions.rs`.
//!
//! These procedures are in Rust because a step must not be anybody's to call: whoever could take one in a transaction of
//! his own would hold marks and locks for as long as he likes. A procedure in plpgsql works with the rights of its caller,
//! and one that switches to others may not commit.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, NodeTag, Oid};
use pgrx::{IntoDatum, PgLogLevel, PgMemoryContexts, PgSqlErrorCode};

use crate::act::owner_of_function;
use crate::support::error::{raise, raise_hint};
use crate::support::settings::under;

/// An argument of a step: its type and value.
pub(crate) type Argument = (Oid, Option<Datum>);

/// Who called the procedure, and the owner of the extension, whose rights the steps have.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    caller: Oid,
    owner: Oid,
}

impl Steps {
    /// Runs a procedure, which may commit; an ERROR where it may not.
    ///
    /// # Safety
    /// `fcinfo` must be that of the CALL; `work` must keep nothing of a transaction beyond its end.
    pub(crate) unsafe fn run(fcinfo: FunctionCallInfo, name: &str, work: impl FnOnce(Self)) {
        // SAFETY: CALL passes a CallContext, whose tag says so.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null()
                || (*context).type_ != NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic
            {
                raise_hint(
                    PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION,
                    format!("{name} cannot run inside a transaction block"),
                    "CALL it by itself: it commits on its way.",
                );
            }
            let steps =
                Self { caller: pg_sys::GetUserId(), owner: owner_of_function((*(*fcinfo).flinfo).fn_oid) };
            if pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as c_int) != pg_sys::SPI_OK_CONNECT as c_int
            {
                raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot connect to SPI");
            }
            Self::next_transaction();
            work(steps);
            Self::next_transaction();
            pg_sys::SPI_finish();
        }
    }

    /// Ends the transaction and begins another one, whose statements see what was committed before them.
    ///
    /// # Safety
    /// Only within `run`.
    pub(crate) unsafe fn next_transaction() {
        // SAFETY: connected without atomicity; nothing is kept from the transaction that ends.
        unsafe {
            pg_sys::SPI_commit();
            let level = c"SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
            pg_sys::SPI_execute(level.as_ptr(), false, 0);
        }
    }

    /// The caller, as the argument of a step.
    pub(crate) fn caller(self) -> Argument {
        (pg_sys::OIDOID, self.caller.into_datum())
    }

    /// Runs one statement with the rights of the extension's owner; the rows that it returns, as text.
    ///
    /// # Safety
    /// Only within `run`.
    pub(crate) unsafe fn take<const COLUMNS: usize>(
        self,
        statement: &CStr,
        arguments: impl FnOnce() -> Vec<Argument>,
    ) -> Vec<[Option<String>; COLUMNS]> {
        let mut memory = PgMemoryContexts::new("tidemark step");
        // SAFETY: the user is switched back at the end, or by Postgres when an error aborts the transaction; results
        // are copied before their memory goes.
        unsafe {
            memory.switch_to(|_| {
                let arguments = arguments();
                let mut types: Vec<Oid> = arguments.iter().map(|(of, _)| *of).collect();
                let mut values: Vec<Datum> =
                    arguments.iter().map(|(_, value)| value.unwrap_or(Datum::from(0))).collect();
                let nulls: Vec<u8> =
                    arguments.iter().map(|(_, value)| if value.is_some() { b' ' } else { b'n' }).collect();
                let (mut user, mut context) = (Oid::INVALID, 0);
                pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
                pg_sys::SetUserIdAndSecContext(
                    self.owner,
                    context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int,
                );
                // Whoever does not read what he is sent would stop the step where it is, locks included.
                let code = under(&[(c"client_min_messages", c"warning")], || {
                    pg_sys::SPI_execute_with_args(
                        statement.as_ptr(),
                        arguments.len() as c_int,
                        types.as_mut_ptr(),
                        values.as_mut_ptr(),
                        nulls.as_ptr().cast(),
                        false,
                        0,
                    )
                });
                pg_sys::SetUserIdAndSecContext(user, context);
                let table = pg_sys::SPI_tuptable;
                if code != pg_sys::SPI_OK_SELECT as c_int || table.is_null() {
                    raise(
                        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                        format!("step failed with SPI code {code}"),
                    );
                }
                let row = |row| {
                    std::array::from_fn(|n| {
                        let value =
                            pg_sys::SPI_getvalue(*(*table).vals.add(row), (*table).tupdesc, n as c_int + 1);
                        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
                    })
                };
                let rows = (0..(*table).numvals as usize).map(row).collect();
                pg_sys::SPI_freetuptable(table);
                rows
            })
        }
    }
}

/// Says that something failed that holds up nothing else.
pub(crate) fn warn(message: String, detail: Option<String>) {
    let mut report = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "tidemark");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    report.report(PgLogLevel::WARNING);
}
