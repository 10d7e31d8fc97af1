//! The procedure `tidemark.refresh`: steps, each in a transaction of its own.
//!
//! It is in Rust because a step must not be anybody's to call: whoever could take one in a transaction of his own would
//! hold marks and locks for as long as he likes. A procedure in plpgsql works with the rights of its caller, and one that
//! switches to others may not commit. What the steps do is in `sql/refresh_step.sql` and `sql/marks.sql`.

use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::time::Instant;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, NodeTag, Oid};
use pgrx::{IntoDatum, PgLogLevel, PgMemoryContexts, PgSqlErrorCode};

use crate::act::owner_of_function;
use crate::support::args;
use crate::support::error::{raise, raise_hint};
use crate::support::pg_function;

/// An argument of a step: its type and value.
type Argument = (Oid, Option<Datum>);

/// What a refresh carries from step to step.
struct Refresh {
    /// Who called it, and the owner of the extension, whose rights the steps have.
    caller: Oid,
    owner: Oid,
    model: Option<String>,
    /// When it began.
    run: pg_sys::TimestampTz,
    /// Each date of a model once per call: a source that is loaded without a pause would otherwise be computed again
    /// and again, and the models that read it never. What is marked anew meanwhile waits for the next call. A model by
    /// itself: all its dates, because somebody has its table locked.
    done: Vec<String>,
    /// Seconds spent on each model.
    busy: HashMap<String, f64>,
    failed: usize,
}

/// Ends the transaction and begins another one, whose statements see what was committed before them.
unsafe fn next_transaction() {
    // SAFETY: connected without atomicity; nothing is kept from the transaction that ends.
    unsafe {
        pg_sys::SPI_commit();
        let level = c"SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
        pg_sys::SPI_execute(level.as_ptr(), false, 0);
    }
}

impl Refresh {
    /// Runs one statement with the rights of the extension's owner; the rows that it returns, as text.
    unsafe fn step<const COLUMNS: usize>(
        &self,
        statement: &CStr,
        arguments: impl FnOnce(&Self) -> Vec<Argument>,
    ) -> Vec<[Option<String>; COLUMNS]> {
        let mut memory = PgMemoryContexts::new("tidemark refresh step");
        // SAFETY: the user is switched back at the end, or by Postgres when an error aborts the transaction; results
        // are copied before their memory goes.
        unsafe {
            memory.switch_to(|_| {
                let arguments = arguments(self);
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
                let code = pg_sys::SPI_execute_with_args(
                    statement.as_ptr(),
                    arguments.len() as c_int,
                    types.as_mut_ptr(),
                    values.as_mut_ptr(),
                    nulls.as_ptr().cast(),
                    false,
                    0,
                );
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

    /// Passes marks on; whether some may be left.
    unsafe fn distribute(&self) -> bool {
        let statement = c"SELECT tidemark_internal.distribute_dirty()";
        // SAFETY: see `step`.
        let more = unsafe { self.step(statement, |_| vec![]) };
        more.iter().any(|[more]| more.as_deref() == Some("t"))
    }

    /// The model whose turn it is.
    unsafe fn next_model(&self) -> Option<String> {
        let statement = c"SELECT tidemark_internal.note_attempt($1, $2, $3, $4, $5)";
        // SAFETY: see `step`.
        let rows = unsafe {
            self.step(statement, |this| {
                let (busy, seconds): (Vec<String>, Vec<f64>) =
                    this.busy.iter().map(|(name, seconds)| (name.clone(), *seconds)).unzip();
                vec![
                    (pg_sys::OIDOID, this.caller.into_datum()),
                    (pg_sys::TEXTOID, this.model.clone().into_datum()),
                    (pg_sys::TEXTARRAYOID, this.done.clone().into_datum()),
                    (pg_sys::TEXTARRAYOID, busy.into_datum()),
                    (pg_sys::FLOAT8ARRAYOID, seconds.into_datum()),
                ]
            })
        };
        rows.into_iter().find_map(|[model]| model)
    }

    /// Recomputes the next dates of a model, `most` at most; how many these were: none when it has none, or another
    /// session has it.
    unsafe fn dates(&mut self, model: Option<String>, most: Option<i32>) -> usize {
        let statement = c"SELECT * FROM tidemark_internal.refresh_step($1, $2, $3, $4, $5)";
        let began = Instant::now();
        // SAFETY: see `step`.
        let rows = unsafe {
            self.step(statement, |this| {
                vec![
                    (pg_sys::OIDOID, this.caller.into_datum()),
                    (pg_sys::TEXTOID, model.into_datum()),
                    (pg_sys::TEXTARRAYOID, this.done.clone().into_datum()),
                    (pg_sys::INT4OID, most.into_datum()),
                    (pg_sys::TIMESTAMPTZOID, Some(Datum::from(this.run))),
                ]
            })
        };
        let dates = rows.len();
        let seconds = began.elapsed().as_secs_f64() / dates as f64;
        for [model, date, error, detail, code] in rows {
            let (Some(model), Some(date)) = (model, date) else { continue };
            if let Some(error) = error {
                self.failed += 1;
                let message = format!("model {model}, date {date}: {error}");
                let mut report = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "tidemark");
                if let Some(detail) = detail {
                    report = report.set_detail(detail);
                }
                report.report(PgLogLevel::WARNING);
            }
            // Its other dates would wait for the same lock, one after the other.
            let locked = code.as_deref() == Some("55P03");
            self.done.push(if locked { model.clone() } else { format!("{model} {date}") });
            *self.busy.entry(model).or_default() += seconds;
        }
        dates
    }

    /// All steps. Marks are passed on in a transaction of their own: the recompute of a long date must not hold those
    /// that others wait for.
    unsafe fn run(&mut self, max_dates: Option<i32>) {
        // SAFETY: see `step` and `next_transaction`.
        unsafe {
            next_transaction();
            self.step::<1>(c"SELECT tidemark_internal.start_refresh($1, $2)", |this| {
                vec![
                    (pg_sys::OIDOID, this.caller.into_datum()),
                    (pg_sys::TEXTOID, this.model.clone().into_datum()),
                ]
            });
            let mut left = max_dates;
            while left.is_none_or(|left| left > 0) {
                next_transaction();
                let more = self.distribute();
                let model = self.next_model();
                let none = model.is_none();
                next_transaction();
                // Without a model it only clears away; with one, another session may have been faster.
                let dates = self.dates(model.or_else(|| self.model.clone()), left);
                if dates == 0 && none && !more {
                    break;
                }
                left = left.map(|left| left.saturating_sub_unsigned(dates as u32));
            }
            next_transaction();
        }
    }
}

/// An ERROR unless the procedure may commit.
unsafe fn check_may_commit(fcinfo: FunctionCallInfo) {
    // SAFETY: CALL passes a CallContext, whose tag says so.
    let atomic = unsafe {
        let context = (*fcinfo).context;
        context.is_null()
            || (*context).type_ != NodeTag::T_CallContext
            || (*context.cast::<pg_sys::CallContext>()).atomic
    };
    if atomic {
        raise_hint(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION,
            "refresh cannot run inside a transaction block",
            "CALL it by itself: it commits on its way.",
        );
    }
}

pg_function! {
    /// `CALL tidemark.refresh(model text, max_dates integer)`.
    fn tidemark_refresh(fcinfo) {
        check_may_commit(fcinfo);
        let model = args::text(fcinfo, 0, "model").map(|model| {
            // No model has a longer name; so it is not copied, however long.
            if model.len() > 1000 {
                raise(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "a model of such a long name does not exist");
            }
            model.to_owned()
        });
        let max_dates = args::int32(fcinfo, 1);
        let mut refresh = Refresh {
            caller: pg_sys::GetUserId(),
            owner: owner_of_function((*(*fcinfo).flinfo).fn_oid),
            model,
            run: pg_sys::GetCurrentTimestamp(),
            done: vec![],
            busy: HashMap::new(),
            failed: 0,
        };
        if pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as c_int) != pg_sys::SPI_OK_CONNECT as c_int {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot connect to SPI");
        }
        refresh.run(max_dates);
        pg_sys::SPI_finish();
        if refresh.failed > 0 {
            raise_hint(
                PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION,
                format!("model dates that could not be refreshed: {}", refresh.failed),
                "The warnings above and tidemark.model_status say why; the dates stay dirty.",
            );
        }
        Datum::from(0)
    }
}
