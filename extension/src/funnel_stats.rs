//! Funnels over many persons: the type `funnel_stats`, its aggregates, and `funnel_table`.
//!
//! Figures and format are those of `tidemark_core::funnel::stats`; the SQL declarations stand in
//! `sql/funnel_stats.sql`.

use pgrx::iter::TableIterator;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::{AnyNumeric, PgSqlErrorCode, name, pg_extern};
use tidemark_core::AVec;
use tidemark_core::funnel::stats::{FunnelStats, MAX_STEPS, StatsError};

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::error::{OrRaise, invalid_argument, raise, raise_hint};
use crate::support::pg_function;
use crate::support::stored::{INVALID_BINARY, INVALID_TEXT, bytes_of_message, bytes_of_text, text_of_bytes};

/// Format of a partial state: this byte, then the stored form.
const STATE_VERSION: u8 = 1;

const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

type Stats = FunnelStats<ContextAlloc>;

/// A chain's times: at most [`MAX_STEPS`] of them.
struct Chain {
    times: [Option<i64>; MAX_STEPS],
    len: usize,
}

/// A timestamptz[] argument as a chain; `None` when NULL, an ERROR when it cannot be one.
///
/// # Safety
/// The argument must be a timestamptz[].
unsafe fn chain(fcinfo: FunctionCallInfo, index: usize) -> Option<Chain> {
    // SAFETY: see above; the pieces of the array live in the current memory context.
    unsafe {
        let datum = args::datum(fcinfo, index)?;
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        if (*array).ndim > 1 {
            invalid_argument("chain must be a one-dimensional array", "Pass the result of tidemark.funnel.");
        }
        let (mut datums, mut nulls, mut len) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            pg_sys::TIMESTAMPTZOID,
            8,
            true,
            b'd' as _,
            &mut datums,
            &mut nulls,
            &mut len,
        );
        let len = len.max(0) as usize;
        let mut chain = Chain { times: [None; MAX_STEPS], len };
        for (at, time) in chain.times.iter_mut().enumerate().take(len) {
            if !*nulls.add(at) {
                let value = (*datums.add(at)).value() as i64;
                if matches!(value, i64::MIN | i64::MAX) {
                    raise(
                        PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
                        "chain must contain finite times only",
                    );
                }
                *time = Some(value);
            }
        }
        Some(chain)
    }
}

pg_function! {
    /// Transition of `funnel_stats`: (internal, chain, steps) -> internal.
    fn tidemark_funnel_stats_transition(fcinfo) {
        let context = context(fcinfo);
        let Some(steps) = args::int32(fcinfo, 2) else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "steps must not be NULL")
        };
        let state = match state::<Stats>(fcinfo, 0) {
            Some(state) => {
                if i64::from(steps) != state.steps() as i64 {
                    raise(INVALID, "steps must be the same for all rows of a group");
                }
                state
            }
            None => &mut *context.place(new(steps, context)),
        };
        if let Some(chain) = chain(fcinfo, 1) {
            push(state, &chain);
        }
        give(state)
    }
}

fn new(steps: i32, context: ContextAlloc) -> Stats {
    match Stats::new_in(steps.into(), context) {
        Ok(stats) => stats,
        Err(_) => invalid_argument(
            format!("steps must be 1 to {MAX_STEPS}, not {steps}"),
            "Pass how many steps the funnel has, without excluded conditions.",
        ),
    }
}

fn push(stats: &mut Stats, chain: &Chain) {
    let error = match chain.times.get(..chain.len).map(|times| stats.push(times)) {
        Some(Ok(())) => return,
        Some(Err(error)) => error,
        None => StatsError::Chain { found: chain.len, steps: stats.steps() },
    };
    let hint = match error {
        StatsError::Chain { .. } => "Pass how many steps the funnel has, without excluded conditions.",
        _ => "Pass the result of tidemark.funnel.",
    };
    raise_hint(INVALID, error.to_string(), hint);
}

pg_function! {
    /// Transition of `funnel_stats_union_agg`: (internal, funnel_stats) -> internal.
    fn tidemark_funnel_stats_union_transition(fcinfo) {
        let context = context(fcinfo);
        let state = state::<Stats>(fcinfo, 0);
        let Some(bytes) = args::bytes(fcinfo, 1) else {
            return match state {
                Some(state) => give(state),
                None => give_none(fcinfo),
            };
        };
        match state {
            Some(state) => {
                merge(state, &read(bytes, ContextAlloc::current()));
                give(state)
            }
            None => give(context.place(read(bytes, context))),
        }
    }
}

/// Reads stored figures, or an ERROR that says what is wrong with their bytes.
fn read(bytes: &[u8], alloc: ContextAlloc) -> Stats {
    Stats::decode_in(bytes, alloc).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid funnel_stats")
}

fn merge(into: &mut Stats, other: &Stats) {
    if let Err(error) = into.merge(other) {
        invalid_argument(error.to_string(), "Group by funnel.");
    }
}

fn write(stats: &Stats) -> Datum {
    let mut bytes = AVec::new_in(ContextAlloc::current());
    stats.encode(&mut bytes);
    args::make_varlena(&bytes)
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_funnel_stats_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<Stats>(fcinfo, 0), state::<Stats>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(new(from.steps() as i32, context)),
                };
                merge(into, from);
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_funnel_stats_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<Stats>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        bytes.push(STATE_VERSION);
        state.encode(&mut bytes);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_funnel_stats_deserialize(fcinfo) {
        context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        // Combined right away and then dropped with the current context; combine copies what it keeps.
        let short_lived = ContextAlloc::current();
        match bytes.split_first() {
            Some((&STATE_VERSION, stats)) => give(short_lived.place(read(stats, short_lived))),
            _ => raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "partial state of funnel_stats has an unknown version"),
        }
    }
}

pg_function! {
    /// Final function: (internal) -> funnel_stats; NULL without a row, since the number of steps is not known then.
    fn tidemark_funnel_stats_final(fcinfo) {
        context(fcinfo);
        match state::<Stats>(fcinfo, 0) {
            Some(state) => write(state),
            None => args::return_null(fcinfo),
        }
    }
}

/// `funnel_table(funnel_stats [, names text[]])`: one row a step, rounded for people.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn tidemark_funnel_table(
    stats: Option<&[u8]>,
    names: Option<Vec<Option<String>>>,
) -> TableIterator<
    'static,
    (
        name!(step, i32),
        name!(name, String),
        name!(entered, i64),
        name!(pct_of_first, Option<AnyNumeric>),
        name!(pct_of_previous, Option<AnyNumeric>),
        name!(median_seconds, Option<AnyNumeric>),
        name!(avg_seconds, Option<AnyNumeric>),
    ),
> {
    let Some(stats) = stats else { return TableIterator::new([]) };
    let stats = read(stats, ContextAlloc::current());
    let mut names = names.unwrap_or_default();
    if names.len() > stats.steps() {
        invalid_argument(
            format!("names has {} elements, the funnel has {} steps", names.len(), stats.steps()),
            "Pass one name per step, without excluded conditions.",
        );
    }
    names.resize(stats.steps(), None);
    let rows: Vec<_> = stats
        .rows()
        .zip(names)
        .map(|(row, name)| {
            (
                row.step as i32,
                name.unwrap_or_else(|| format!("step {}", row.step)),
                i64::try_from(row.entered).unwrap_or(i64::MAX),
                row.pct_of_first.map(|value| rounded(value, 2)),
                row.pct_of_previous.map(|value| rounded(value, 2)),
                row.median_seconds.map(|value| rounded(value, 3)),
                row.avg_seconds.map(|value| rounded(value, 3)),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// A finite figure as a numeric with so many decimals.
fn rounded(value: f64, decimals: usize) -> AnyNumeric {
    let text = format!("{value:.decimals$}");
    AnyNumeric::try_from(text.as_str())
        .or_raise(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "round a figure of funnel_table")
}

/// Checks bytes from outside and returns them as a stored value; only canonical bytes pass.
fn accept(bytes: &[u8], code: PgSqlErrorCode) -> Datum {
    Stats::decode_in(bytes, ContextAlloc::current()).or_raise(code, "invalid funnel_stats");
    args::make_varlena(bytes)
}

pg_function! {
    /// Cast bytea -> funnel_stats, strict.
    fn tidemark_funnel_stats_from_bytea(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        accept(bytes, INVALID_BINARY)
    }
}

pg_function! {
    /// Type input: the hexadecimal form of bytea.
    fn tidemark_funnel_stats_in(fcinfo) { accept(&bytes_of_text(fcinfo, "funnel_stats"), INVALID_TEXT) }
}

pg_function! {
    /// Type output: the hexadecimal form of bytea.
    fn tidemark_funnel_stats_out(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        text_of_bytes(bytes)
    }
}

pg_function! {
    /// Binary input: the stored bytes.
    fn tidemark_funnel_stats_recv(fcinfo) { accept(bytes_of_message(fcinfo), INVALID_BINARY) }
}

pg_function! {
    /// Binary output: the stored bytes.
    fn tidemark_funnel_stats_send(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        args::make_varlena(bytes)
    }
}
