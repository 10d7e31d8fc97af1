//! The procedure `tidemark.refresh`: which step comes next. What the steps do is in `sql/refresh_step.sql` and
//! `sql/marks.sql`, how they are taken in `steps.rs`.

use std::collections::HashMap;
use std::time::Instant;

use pgrx::pg_sys::{self, Datum};
use pgrx::{IntoDatum, PgSqlErrorCode};

use crate::steps::{Steps, warn};
use crate::support::args;
use crate::support::error::{raise, raise_hint};
use crate::support::pg_function;

/// What a refresh carries from step to step.
struct Refresh {
    steps: Steps,
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

impl Refresh {
    /// Passes marks on; whether some may be left.
    unsafe fn distribute(&self) -> bool {
        let statement = c"SELECT tidemark_internal.distribute_dirty()";
        // SAFETY: within `Steps::run`.
        let more = unsafe { self.steps.take(statement, Vec::new) };
        more.iter().any(|[more]| more.as_deref() == Some("t"))
    }

    /// The model whose turn it is.
    unsafe fn next_model(&self) -> Option<String> {
        let statement = c"SELECT tidemark_internal.note_attempt($1, $2, $3, $4, $5)";
        // SAFETY: within `Steps::run`.
        let rows = unsafe {
            self.steps.take(statement, || {
                let (busy, seconds): (Vec<String>, Vec<f64>) =
                    self.busy.iter().map(|(name, seconds)| (name.clone(), *seconds)).unzip();
                vec![
                    self.steps.caller(),
                    (pg_sys::TEXTOID, self.model.clone().into_datum()),
                    (pg_sys::TEXTARRAYOID, self.done.clone().into_datum()),
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
        // SAFETY: within `Steps::run`.
        let rows = unsafe {
            self.steps.take(statement, || {
                vec![
                    self.steps.caller(),
                    (pg_sys::TEXTOID, model.into_datum()),
                    (pg_sys::TEXTARRAYOID, self.done.clone().into_datum()),
                    (pg_sys::INT4OID, most.into_datum()),
                    (pg_sys::TIMESTAMPTZOID, Some(Datum::from(self.run))),
                ]
            })
        };
        let dates = rows.len();
        let seconds = began.elapsed().as_secs_f64() / dates as f64;
        for [model, date, error, detail, code] in rows {
            let (Some(model), Some(date)) = (model, date) else { continue };
            if let Some(error) = error {
                self.failed += 1;
                warn(format!("model {model}, date {date}: {error}"), detail);
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
        // SAFETY: within `Steps::run`.
        unsafe {
            self.steps.take::<1>(c"SELECT tidemark_internal.start_refresh($1, $2)", || {
                vec![self.steps.caller(), (pg_sys::TEXTOID, self.model.clone().into_datum())]
            });
            let mut left = max_dates;
            while left.is_none_or(|left| left > 0) {
                Steps::next_transaction();
                let more = self.distribute();
                let model = self.next_model();
                let none = model.is_none();
                Steps::next_transaction();
                // Without a model it only clears away; with one, another session may have been faster.
                let dates = self.dates(model.or_else(|| self.model.clone()), left);
                if dates == 0 && none && !more {
                    break;
                }
                left = left.map(|left| left.saturating_sub_unsigned(dates as u32));
            }
        }
    }
}

pg_function! {
    /// `CALL tidemark.refresh(model text, max_dates integer)`.
    fn tidemark_refresh(fcinfo) {
        let model = args::text(fcinfo, 0, "model").map(|model| {
            // No model has a longer name; so it is not copied, however long.
            if model.len() > 1000 {
                raise(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "a model of such a long name does not exist");
            }
            model.to_owned()
        });
        let max_dates = args::int32(fcinfo, 1);
        let mut failed = 0;
        Steps::run(fcinfo, "refresh", |steps| {
            let mut refresh = Refresh {
                steps,
                model,
                run: pg_sys::GetCurrentTimestamp(),
                done: vec![],
                busy: HashMap::new(),
                failed: 0,
            };
            refresh.run(max_dates);
            failed = refresh.failed;
        });
        if failed > 0 {
            raise_hint(
                PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION,
                format!("model dates that could not be refreshed: {failed}"),
                "The warnings above and tidemark.model_status say why; the dates stay dirty.",
            );
        }
        Datum::from(0)
    }
}
