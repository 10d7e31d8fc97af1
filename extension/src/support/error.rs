//! Postgres errors in Postgres style: an SQLSTATE, a lower-case message that names the argument, a hint that helps.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Raises an ERROR and does not return.
pub fn raise(code: PgSqlErrorCode, message: impl Into<String>) -> ! {
    report(ErrorReport::new(code, message.into(), "tidemark"))
}

/// Raises an ERROR with a HINT and does not return.
pub fn raise_hint(code: PgSqlErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ! {
    report(ErrorReport::new(code, message.into(), "tidemark").set_hint(hint.into()))
}

/// 22023: an argument has a value the function does not accept.
pub fn invalid_argument(message: impl Into<String>, hint: impl Into<String>) -> ! {
    raise_hint(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint)
}

fn report(report: ErrorReport) -> ! {
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Unwraps a core error as a Postgres error with the given SQLSTATE.
pub trait OrRaise<T> {
    /// The value, or an ERROR whose message opens with `what`.
    fn or_raise(self, code: PgSqlErrorCode, what: &str) -> T;
}

impl<T, E: std::fmt::Display> OrRaise<T> for Result<T, E> {
    fn or_raise(self, code: PgSqlErrorCode, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => raise(code, format!("{what}: {error}")),
        }
    }
}
