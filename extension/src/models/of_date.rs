//! The guard in the statements of models: a query that is asked for a date returns rows of that date.

use std::ffi::CStr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{PgLogLevel, PgSqlErrorCode};

use crate::support::args;
use crate::support::pg_function;

/// A value as text, at most some characters of it; `null` for none.
unsafe fn shown(value: Option<Datum>, of: Oid) -> String {
    let Some(value) = value else { return "null".to_owned() };
    // SAFETY: the value is of this type.
    unsafe {
        let (mut function, mut varies) = (Oid::INVALID, false);
        pg_sys::getTypeOutputInfo(of, &mut function, &mut varies);
        CStr::from_ptr(pg_sys::OidOutputFunctionCall(function, value))
            .to_string_lossy()
            .chars()
            .take(60)
            .collect()
    }
}

unsafe fn refuse(fcinfo: FunctionCallInfo) -> ! {
    // SAFETY: the arguments are two dates, and any number of values behind them.
    let (date, wanted, key) = unsafe {
        let key = (2..args::count(fcinfo)).map(|n| {
            let of = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, n as i32);
            shown(args::datum(fcinfo, n), of)
        });
        let date = |n| shown(args::datum(fcinfo, n), pg_sys::DATEOID);
        (date(0), date(1), key.collect::<Vec<_>>())
    };
    let message = format!("query returns a row of {date} when it is asked for {wanted}");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WITH_CHECK_OPTION_VIOLATION, message, "tidemark")
        .set_detail(format!("Its key is ({}).", key.join(", ")))
        .set_hint(
            "event_date says which date a row belongs to: filter by the same expression, and give lookback_days or \
             lookahead_days if it needs rows of other dates of its sources.",
        )
        .report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

pg_function! {
    /// `of_date(event_date date, wanted date, VARIADIC key "any") -> boolean`.
    fn tidemark_of_date(fcinfo) {
        let (date, wanted) = (args::int32(fcinfo, 0), args::int32(fcinfo, 1));
        if date.is_none() || date != wanted {
            refuse(fcinfo)
        }
        Datum::from(true)
    }
}
