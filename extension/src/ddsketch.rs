//! Quantiles: the type `ddsketch`, its aggregates and functions, and `approx_percentile`.
//!
//! Buckets, error bound and format are those of `tidemark_core::ddsketch`; the SQL declarations stand in
//! `sql/ddsketch.sql`.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::ddsketch::{Accuracy, DdsketchError};

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::error::{OrRaise, invalid_argument, raise};
use crate::support::pg_function;
use crate::support::stored::{INVALID_BINARY, INVALID_TEXT, bytes_of_message, bytes_of_text, text_of_bytes};

/// Format of a partial state: this byte, purpose, quantile, then the stored form.
const STATE_VERSION: u8 = 1;

const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

type Sketch = tidemark_core::ddsketch::Sketch<ContextAlloc>;

/// Which aggregate a state belongs to, and what all rows of its group must agree on beside the accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Purpose {
    /// `ddsketch_agg`.
    Build,
    /// `ddsketch_union_agg`.
    Union,
    /// `approx_percentile`, with its quantile.
    Percentile(f64),
}

struct State {
    purpose: Purpose,
    sketch: Sketch,
}

/// A float argument; `None` when NULL.
///
/// # Safety
/// The argument must be a double precision.
#[inline]
unsafe fn float(fcinfo: FunctionCallInfo, index: usize) -> Option<f64> {
    // SAFETY: see above; double precision is passed by value.
    unsafe { args::datum(fcinfo, index) }.map(|d| f64::from_bits(d.value() as u64))
}

/// The accuracy that argument `index` asks for, or the default in the form without it.
///
/// # Safety
/// Argument `index`, if there is one, must be a double precision.
#[inline]
unsafe fn accuracy(fcinfo: FunctionCallInfo, index: usize) -> Accuracy {
    // SAFETY: see above.
    unsafe {
        if args::count(fcinfo) <= index {
            return Accuracy::default();
        }
        match float(fcinfo, index).map(|value| (value, Accuracy::from_fraction(value))) {
            Some((_, Ok(accuracy))) => accuracy,
            Some((value, Err(_))) => invalid_argument(
                format!("relative_error must be a whole number of per mille from 0.001 to 0.1, not {value}"),
                "Leave the argument out for 0.01, that is 1 %.",
            ),
            None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "relative_error must not be NULL"),
        }
    }
}

/// Argument `index` as a quantile.
///
/// # Safety
/// The argument must be a double precision.
#[inline]
unsafe fn quantile(fcinfo: FunctionCallInfo, index: usize) -> f64 {
    // SAFETY: see above.
    match unsafe { float(fcinfo, index) } {
        Some(q) if (0.0..=1.0).contains(&q) => q,
        Some(q) => invalid_argument(
            format!("q must be between 0 and 1, not {q}"),
            "Write 0.95 for the 95th percentile.",
        ),
        None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "q must not be NULL"),
    }
}

/// Adds a value, or raises 22023 for NaN and the infinities.
#[inline]
fn insert(sketch: &mut Sketch, value: f64) {
    if sketch.insert(value).is_err() {
        invalid_argument(
            format!("value must be finite, not {value}"),
            "Leave out such rows with FILTER (WHERE abs(value) < 'Infinity').",
        );
    }
}

pg_function! {
    /// Transition of `ddsketch_agg`: (internal, value [, relative_error]) -> internal.
    fn tidemark_ddsketch_transition(fcinfo) {
        let context = context(fcinfo);
        let accuracy = accuracy(fcinfo, 2);
        let state = match state::<State>(fcinfo, 0) {
            Some(state) => {
                if state.sketch.accuracy() != accuracy {
                    raise(INVALID, "relative_error must be the same for all rows of a group");
                }
                state
            }
            None => &mut *context.place(State { purpose: Purpose::Build, sketch: Sketch::new_in(accuracy, context) }),
        };
        if let Some(value) = float(fcinfo, 1) {
            insert(&mut state.sketch, value);
        }
        give(state)
    }
}

pg_function! {
    /// Transition of `approx_percentile`: (internal, q, value) -> internal.
    fn tidemark_approx_percentile_transition(fcinfo) {
        let context = context(fcinfo);
        let purpose = Purpose::Percentile(quantile(fcinfo, 1));
        let state = match state::<State>(fcinfo, 0) {
            Some(state) => {
                if state.purpose != purpose {
                    raise(INVALID, "q must be the same for all rows of a group");
                }
                state
            }
            None => &mut *context.place(State { purpose, sketch: Sketch::new_in(Accuracy::default(), context) }),
        };
        if let Some(value) = float(fcinfo, 2) {
            insert(&mut state.sketch, value);
        }
        give(state)
    }
}

pg_function! {
    /// Transition of `ddsketch_union_agg`: (internal, ddsketch) -> internal.
    fn tidemark_ddsketch_union_transition(fcinfo) {
        let context = context(fcinfo);
        let state = state::<State>(fcinfo, 0);
        let Some(bytes) = args::bytes(fcinfo, 1) else {
            return match state {
                Some(state) => give(state),
                None => give_none(fcinfo),
            };
        };
        match state {
            Some(state) => {
                union_with(&mut state.sketch, &read(bytes, ContextAlloc::current()), context);
                give(state)
            }
            None => give(context.place(State { purpose: Purpose::Union, sketch: read(bytes, context) })),
        }
    }
}

/// Reads a stored sketch, or an ERROR that says what is wrong with its bytes.
fn read(bytes: &[u8], alloc: ContextAlloc) -> Sketch {
    Sketch::decode_in(bytes, alloc).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid ddsketch")
}

/// Merges stored sketches. One without values fits every accuracy, since an aggregate over no rows cannot know the
/// one that was meant; of two such the coarser accuracy stays, so that the order does not matter.
fn union_with(into: &mut Sketch, other: &Sketch, alloc: ContextAlloc) {
    if into.accuracy() != other.accuracy() && (into.count() == 0 || other.count() == 0) {
        let finer = into.accuracy().fraction() < other.accuracy().fraction();
        if other.count() == 0 && (into.count() > 0 || !finer) {
            return;
        }
        *into = Sketch::new_in(other.accuracy(), alloc);
    }
    merge(into, other);
}

fn merge(into: &mut Sketch, other: &Sketch) {
    match into.merge(other) {
        Ok(()) => {}
        Err(DdsketchError::Mismatch { ours, theirs }) => invalid_argument(
            format!(
                "sketches of relative errors {} and {} cannot be merged",
                ours.fraction(),
                theirs.fraction()
            ),
            "Build all of them with the same relative_error.",
        ),
        Err(error) => raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("invalid ddsketch: {error}")),
    }
}

fn write(sketch: &Sketch) -> Datum {
    let mut bytes = AVec::new_in(ContextAlloc::current());
    sketch.encode(&mut bytes);
    args::make_varlena(&bytes)
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_ddsketch_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(State {
                        purpose: from.purpose,
                        sketch: Sketch::new_in(from.sketch.accuracy(), context),
                    }),
                };
                if into.purpose != from.purpose {
                    raise(INVALID, "q must be the same for all rows of a group");
                }
                match into.purpose {
                    Purpose::Union => union_with(&mut into.sketch, &from.sketch, context),
                    _ => merge(&mut into.sketch, &from.sketch),
                }
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_ddsketch_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        let (purpose, q) = match state.purpose {
            Purpose::Build => (0, 0.0),
            Purpose::Union => (1, 0.0),
            Purpose::Percentile(q) => (2, q),
        };
        bytes.extend_from_slice(&[STATE_VERSION, purpose]);
        bytes.extend_from_slice(&q.to_le_bytes());
        state.sketch.encode(&mut bytes);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_ddsketch_deserialize(fcinfo) {
        context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        // Combined right away and then dropped with the current context; combine copies what it keeps.
        let short_lived = ContextAlloc::current();
        match decode(bytes) {
            Some((purpose, sketch)) => give(short_lived.place(State { purpose, sketch: read(sketch, short_lived) })),
            None => raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "partial state of a ddsketch aggregate is not valid"),
        }
    }
}

fn decode(bytes: &[u8]) -> Option<(Purpose, &[u8])> {
    let (&[STATE_VERSION, purpose], rest) = bytes.split_first_chunk()? else { return None };
    let (q, sketch) = rest.split_first_chunk()?;
    let q = f64::from_le_bytes(*q);
    let purpose = match purpose {
        0 => Purpose::Build,
        1 => Purpose::Union,
        2 if (0.0..=1.0).contains(&q) => Purpose::Percentile(q),
        _ => return None,
    };
    Some((purpose, sketch))
}

pg_function! {
    /// Final function of `ddsketch_agg` and `ddsketch_union_agg`: (internal) -> ddsketch; the empty one without a row.
    fn tidemark_ddsketch_final(fcinfo) {
        context(fcinfo);
        match state::<State>(fcinfo, 0) {
            Some(state) => write(&state.sketch),
            None => write(&Sketch::new_in(Accuracy::default(), ContextAlloc::current())),
        }
    }
}

pg_function! {
    /// Final function of `approx_percentile`: (internal) -> double precision; NULL without a value.
    fn tidemark_approx_percentile_final(fcinfo) {
        context(fcinfo);
        let value = match state::<State>(fcinfo, 0) {
            Some(State { purpose: Purpose::Percentile(q), sketch }) => sketch.quantile(*q).or_raise(INVALID, "q"),
            _ => None,
        };
        give_float(fcinfo, value)
    }
}

/// Returns a double precision, `None` as NULL.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
unsafe fn give_float(fcinfo: FunctionCallInfo, value: Option<f64>) -> Datum {
    match value {
        Some(value) => Datum::from(value.to_bits()),
        // SAFETY: see above.
        None => unsafe { args::return_null(fcinfo) },
    }
}

pg_function! {
    /// `ddsketch_quantile(ddsketch, q) -> double precision`, strict; NULL for an empty sketch.
    fn tidemark_ddsketch_quantile(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let q = quantile(fcinfo, 1);
        let value = read(bytes, ContextAlloc::current()).quantile(q).or_raise(INVALID, "q");
        give_float(fcinfo, value)
    }
}

pg_function! {
    /// `ddsketch_count(ddsketch) -> bigint`, strict.
    fn tidemark_ddsketch_count(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let count = read(bytes, ContextAlloc::current()).count();
        Datum::from(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

pg_function! {
    /// `ddsketch_relative_error(ddsketch) -> double precision`, strict.
    fn tidemark_ddsketch_relative_error(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let error = read(bytes, ContextAlloc::current()).relative_error();
        give_float(fcinfo, Some(error))
    }
}

pg_function! {
    /// `ddsketch_union(ddsketch, ddsketch) -> ddsketch`; a NULL is an identity, two of them give NULL.
    fn tidemark_ddsketch_union(fcinfo) {
        let alloc = ContextAlloc::current();
        match (args::bytes(fcinfo, 0), args::bytes(fcinfo, 1)) {
            (None, None) => args::return_null(fcinfo),
            (Some(one), None) | (None, Some(one)) => args::make_varlena(one),
            (Some(a), Some(b)) => {
                let mut sketch = read(a, alloc);
                union_with(&mut sketch, &read(b, alloc), alloc);
                write(&sketch)
            }
        }
    }
}

/// Checks bytes from outside and returns them as a stored value; only canonical bytes pass.
fn accept(bytes: &[u8], code: PgSqlErrorCode) -> Datum {
    Sketch::decode_in(bytes, ContextAlloc::current()).or_raise(code, "invalid ddsketch");
    args::make_varlena(bytes)
}

pg_function! {
    /// Cast bytea -> ddsketch, strict.
    fn tidemark_ddsketch_from_bytea(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        accept(bytes, INVALID_BINARY)
    }
}

pg_function! {
    /// Type input: the hexadecimal form of bytea.
    fn tidemark_ddsketch_in(fcinfo) { accept(&bytes_of_text(fcinfo, "ddsketch"), INVALID_TEXT) }
}

pg_function! {
    /// Type output: the hexadecimal form of bytea.
    fn tidemark_ddsketch_out(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        text_of_bytes(bytes)
    }
}

pg_function! {
    /// Binary input: the stored bytes.
    fn tidemark_ddsketch_recv(fcinfo) { accept(bytes_of_message(fcinfo), INVALID_BINARY) }
}

pg_function! {
    /// Binary output: the stored bytes.
    fn tidemark_ddsketch_send(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        args::make_varlena(bytes)
    }
}
