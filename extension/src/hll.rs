//! Distinct counts: the type `hll`, its aggregates and its functions.
//!
//! Format, hash and estimator are those of `tidemark_core::hll`; the SQL declarations stand in `sql/hll.sql`.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::hll::{Config, EncodedRef, Sketch, estimate_encoded, hash};

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::error::{OrRaise, raise};
use crate::support::pg_function;
use crate::support::stored::{INVALID_BINARY, INVALID_TEXT, bytes_of_message, bytes_of_text, text_of_bytes};

/// Format of a partial state: this byte, then the bytes of the storage spec.
const STATE_VERSION: u8 = 1;

type State = Sketch<ContextAlloc>;

/// Shared body of the `hll_agg` transition functions: (internal, value [, log2m]) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of such a function, and `hash` must fit the type of its second argument.
unsafe fn add(fcinfo: FunctionCallInfo, hash: impl FnOnce(Datum) -> u64) -> Datum {
    // SAFETY: see above.
    unsafe {
        let context = context(fcinfo);
        let value = args::datum(fcinfo, 1);
        let state = match state::<State>(fcinfo, 0) {
            Some(state) => {
                if args::count(fcinfo) > 2
                    && args::int32(fcinfo, 2) != Some(i32::from(state.config().log2m()))
                {
                    raise(
                        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                        "log2m must be the same for all rows of a group",
                    );
                }
                state
            }
            None => &mut *context.place(Sketch::new_in(config(fcinfo, 2), context)),
        };
        if let Some(value) = value {
            state.insert_hash(hash(value));
        }
        give(state)
    }
}

/// The configuration that argument `index` asks for, or the default in the form without it.
///
/// # Safety
/// Argument `index`, if there is one, must be an integer.
unsafe fn config(fcinfo: FunctionCallInfo, index: usize) -> Config {
    // SAFETY: see above.
    unsafe {
        if args::count(fcinfo) <= index {
            return Config::default();
        }
        match args::int32(fcinfo, index) {
            Some(log2m) => Config::with_log2m(log2m)
                .or_raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "log2m is invalid"),
            None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "log2m must not be NULL"),
        }
    }
}

pg_function! {
    /// Transition for text and bytea: hashes the bytes of the value.
    fn tidemark_hll_add_bytes(fcinfo) { add(fcinfo, |value| hash::hash_bytes(args::varlena_bytes(value))) }
}
pg_function! {
    /// Transition for smallint.
    fn tidemark_hll_add_int2(fcinfo) { add(fcinfo, |value| hash::hash_i16(value.value() as i16)) }
}
pg_function! {
    /// Transition for integer.
    fn tidemark_hll_add_int4(fcinfo) { add(fcinfo, |value| hash::hash_i32(value.value() as i32)) }
}
pg_function! {
    /// Transition for bigint.
    fn tidemark_hll_add_int8(fcinfo) { add(fcinfo, |value| hash::hash_i64(value.value() as i64)) }
}
pg_function! {
    /// Transition for uuid: hashes its 16 bytes in network order.
    fn tidemark_hll_add_uuid(fcinfo) { add(fcinfo, |value| hash::hash_16(&*value.cast_mut_ptr::<[u8; 16]>())) }
}

pg_function! {
    /// Transition of `hll_union_agg`: (internal, hll) -> internal.
    fn tidemark_hll_union_transition(fcinfo) {
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
                union_with(state, bytes);
                give(state)
            }
            None => give(context.place(read(bytes, context))),
        }
    }
}

/// Reads a stored sketch, or an ERROR that says what is wrong with its bytes.
fn read(bytes: &[u8], alloc: ContextAlloc) -> State {
    Sketch::decode_in(bytes, alloc).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid hll")
}

fn union_with(state: &mut State, bytes: &[u8]) {
    EncodedRef::parse(bytes)
        .and_then(|other| state.merge_encoded(&other))
        .or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid hll");
}

fn write(sketch: &State) -> Datum {
    let mut bytes = AVec::new_in(ContextAlloc::current());
    sketch.encode(&mut bytes);
    args::make_varlena(&bytes)
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_hll_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(Sketch::new_in(from.config(), context)),
                };
                into.merge(from);
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_hll_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        bytes.push(STATE_VERSION);
        state.encode(&mut bytes);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_hll_deserialize(fcinfo) {
        context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        // Combined right away and then dropped with the current context; combine copies what it keeps.
        let short_lived = ContextAlloc::current();
        match bytes.split_first() {
            Some((&STATE_VERSION, sketch)) => give(short_lived.place(read(sketch, short_lived))),
            _ => raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "partial state of hll_agg has an unknown version"),
        }
    }
}

pg_function! {
    /// Final function of `hll_agg` and `hll_union_agg`: (internal) -> hll; the empty sketch without a row.
    fn tidemark_hll_final(fcinfo) {
        context(fcinfo);
        match state::<State>(fcinfo, 0) {
            Some(state) => write(state),
            None => write(&Sketch::new_in(Config::default(), ContextAlloc::current())),
        }
    }
}

pg_function! {
    /// Final function of `approx_count_distinct`: (internal) -> bigint; 0 without a row.
    fn tidemark_hll_count_final(fcinfo) {
        context(fcinfo);
        Datum::from(state::<State>(fcinfo, 0).map_or(0, |state| state.estimate().round() as i64))
    }
}

pg_function! {
    /// `hll_cardinality(hll) -> bigint`, strict.
    fn tidemark_hll_cardinality(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let estimate = estimate_encoded(bytes).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid hll");
        Datum::from(estimate.round() as i64)
    }
}

pg_function! {
    /// `hll_union(hll, hll) -> hll`; a NULL is an identity, two of them give NULL.
    fn tidemark_hll_union(fcinfo) {
        match (args::bytes(fcinfo, 0), args::bytes(fcinfo, 1)) {
            (None, None) => args::return_null(fcinfo),
            (Some(one), None) | (None, Some(one)) => write(&read(one, ContextAlloc::current())),
            (Some(a), Some(b)) => {
                let mut sketch = read(a, ContextAlloc::current());
                union_with(&mut sketch, b);
                write(&sketch)
            }
        }
    }
}

pg_function! {
    /// `hll_empty([log2m integer]) -> hll`.
    fn tidemark_hll_empty(fcinfo) {
        write(&Sketch::new_in(config(fcinfo, 0), ContextAlloc::current()))
    }
}

pg_function! {
    /// `hll_standard_error(hll) -> double precision`, strict.
    fn tidemark_hll_standard_error(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let sketch = EncodedRef::parse(bytes).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "invalid hll");
        let exact = matches!(sketch.encoding(), tidemark_core::hll::Encoding::Empty | tidemark_core::hll::Encoding::Explicit);
        let error: f64 = if exact { 0.0 } else { sketch.config().standard_error() };
        Datum::from(error.to_bits())
    }
}

/// Checks bytes from outside and returns them as a stored value in canonical form: the spec lets writers choose
/// between encodings, and equal sketches must be equal values here.
fn accept(bytes: &[u8], code: PgSqlErrorCode) -> Datum {
    let sketch = Sketch::decode_in(bytes, ContextAlloc::current()).or_raise(code, "invalid hll");
    write(&sketch)
}

pg_function! {
    /// Cast bytea -> hll, strict.
    fn tidemark_hll_from_bytea(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        accept(bytes, INVALID_BINARY)
    }
}

pg_function! {
    /// Type input: the hexadecimal form of bytea, `\x` and two digits a byte.
    fn tidemark_hll_in(fcinfo) { accept(&bytes_of_text(fcinfo, "hll"), INVALID_TEXT) }
}

pg_function! {
    /// Type output: the hexadecimal form of bytea.
    fn tidemark_hll_out(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        text_of_bytes(bytes)
    }
}

pg_function! {
    /// Binary input: the stored bytes.
    fn tidemark_hll_recv(fcinfo) { accept(bytes_of_message(fcinfo), INVALID_BINARY) }
}

pg_function! {
    /// Binary output: the stored bytes.
    fn tidemark_hll_send(fcinfo) {
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        args::make_varlena(bytes)
    }
}
