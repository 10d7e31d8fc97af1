//! Postgres errors in Postgres style: an SQLSTATE, a lower-case message that names the argument, a hint that helps.

use std::borrow::Cow;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// 22023: an argument has a value that the function does not accept.
pub const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

/// Raises an ERROR and does not return.
pub fn raise(code: PgSqlErrorCode, message: impl Into<String>) -> ! {
    report(ErrorReport::new(code, message.into(), "tidemark"))
}

/// Raises an ERROR with a HINT and does not return.
pub fn raise_hint(code: PgSqlErrorCode, message: impl Into<String>, hint: impl Into<String>) -> ! {
    report(ErrorReport::new(code, message.into(), "tidemark").set_hint(hint.into()))
}

/// Raises 22023 with a HINT.
pub fn invalid_argument(message: impl Into<String>, hint: impl Into<String>) -> ! {
    raise_hint(INVALID, message, hint)
}

/// Raises 22023 unless an argument, in a transition or of two partial states, is what it was before. A transition that
/// finds another value checks first whether that is valid at all: in another plan it might have come first.
#[inline]
pub fn check_same(same: bool, argument: &str) {
    if !same {
        raise(INVALID, format!("{argument} must be the same for all rows of a group"));
    }
}

/// The value of an argument that must not be NULL (22004).
#[inline]
pub fn not_null<T>(value: Option<T>, argument: &str) -> T {
    match value {
        Some(value) => value,
        None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{argument} must not be NULL")),
    }
}

/// A text as messages quote it: its beginning, if it is long.
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
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
