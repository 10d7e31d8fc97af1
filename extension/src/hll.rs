//! Distinct counts: the type `hll`, its aggregates and its functions.
//!
//! Format, hash and estimator are those of `tidemark_core::hll`; the SQL declarations stand in `sql/hll.sql`.

use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::{PgSqlErrorCode, direct_function_call_as_datum};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::hll::{Config, EncodedRef, Encoding, HllError, estimate_encoded, hash};

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::call_site::CallSite;
use crate::support::error::{INVALID, OrRaise, check_same, not_null};
use crate::support::interrupts::Interrupts;
use crate::support::stored::{Stored, read, stored_type, write};
use crate::support::{args, pg_function};

const CORRUPTED: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_DATA_CORRUPTED;

type Sketch = tidemark_core::hll::Sketch<ContextAlloc>;

impl Stored for Sketch {
    const NAME: &'static str = "hll";
    type Error = HllError;

    fn decode_in(bytes: &[u8], context: ContextAlloc) -> Result<Self, HllError> {
        Self::decode_in(bytes, context, Interrupts)
    }

    fn encode(&self, out: &mut AVec<u8, ContextAlloc>) {
        Self::encode(self, out, Interrupts);
    }
}

stored_type!(hll: Sketch);

/// The state of all aggregates.
struct Counted {
    /// What `hll_agg` was asked for; 0 in `hll_union_agg`, where sketches of different log2m fold.
    log2m: u8,
    sketch: Sketch,
}

impl Counted {
    fn new(config: Config, context: ContextAlloc) -> Self {
        Self { log2m: config.log2m(), sketch: Sketch::new_in(config, context) }
    }
}

impl State for Counted {
    fn like(&self, context: ContextAlloc) -> Self {
        Self { log2m: self.log2m, ..Self::new(self.sketch.config(), context) }
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(self.log2m == other.log2m, "log2m");
        self.sketch.merge(&other.sketch, Interrupts);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        w.u8(self.log2m);
        self.sketch.encode(w.out(), Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        Ok(Self { log2m: r.u8()?, sketch: read(r.rest(), context) })
    }
}

aggregate! {
    hll: Counted {
        /// (internal, text or bytea [, log2m]): hashes the bytes of the value.
        transition tidemark_hll_add_bytes =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_bytes(args::varlena_bytes(value)));
        /// (internal, smallint [, log2m])
        transition tidemark_hll_add_int2 =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_i16(value.value() as i16));
        /// (internal, integer [, log2m])
        transition tidemark_hll_add_int4 =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_i32(value.value() as i32));
        /// (internal, bigint [, log2m])
        transition tidemark_hll_add_int8 =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_i64(value.value() as i64));
        /// (internal, uuid [, log2m]): hashes its 16 bytes in network order.
        transition tidemark_hll_add_uuid =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_16(&*value.cast_mut_ptr::<[u8; 16]>()));
        /// (internal, date [, log2m]): hashes what is sent for it, 4 bytes in network order.
        transition tidemark_hll_add_date =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_i32((value.value() as i32).swap_bytes()));
        /// (internal, timestamptz [, log2m]): hashes what is sent for it, 8 bytes in network order.
        transition tidemark_hll_add_timestamptz =
            |slot, fcinfo| add(slot, fcinfo, |value| hash::hash_i64((value.value() as i64).swap_bytes()));
        /// (internal, numeric [, log2m]): hashes what is sent for it without trailing zeros.
        transition tidemark_hll_add_numeric = |slot, fcinfo| add(slot, fcinfo, |value| hash_numeric(value));
        /// `hll_union_agg`: (internal, hll)
        transition tidemark_hll_union_transition = unite;
        /// `hll_agg` and `hll_union_agg`: hll, the empty sketch without a row.
        final tidemark_hll_final = |state: Option<&mut Counted>, _| Some(match state {
            Some(state) => write(&state.sketch),
            None => write(&Sketch::new_in(Config::default(), ContextAlloc::current())),
        });
        /// `approx_count_distinct`: bigint, 0 without a row.
        final tidemark_hll_count_final = |state: Option<&mut Counted>, _| {
            Some(Datum::from(state.map_or(0, |state| state.sketch.estimate().round() as i64)))
        };
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with the arguments (internal, value [, log2m]), and `hash` must fit the type of
/// the value.
#[inline]
unsafe fn add(slot: &mut Slot<Counted>, fcinfo: FunctionCallInfo, hash: impl FnOnce(Datum) -> u64) {
    // SAFETY: see above.
    unsafe {
        let state = slot.get_or_place(|context| Counted::new(config(fcinfo, 2), context));
        if args::count(fcinfo) > 2 && args::int32(fcinfo, 2) != Some(state.log2m.into()) {
            check_same(config(fcinfo, 2).log2m() == state.log2m, "log2m");
        }
        if let Some(value) = args::datum(fcinfo, 1) {
            state.sketch.insert_hash(hash(value));
        }
    }
}

/// The hash of what numeric_send gives, the same for equal numbers: 1.0 and 1.00 are sent as 1.
///
/// # Safety
/// `value` must be a numeric.
unsafe fn hash_numeric(value: Datum) -> u64 {
    // SAFETY: see above; both functions are strict and give a value.
    unsafe {
        let trimmed = direct_function_call_as_datum(pg_sys::numeric_trim_scale, &[Some(value)]);
        let sent = direct_function_call_as_datum(pg_sys::numeric_send, &[trimmed]);
        sent.map_or(0, |sent| hash::hash_bytes(args::varlena_bytes(sent)))
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
        Config::with_log2m(not_null(args::int32(fcinfo, index), "log2m"))
            .or_raise(INVALID, "log2m is invalid")
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with the arguments (internal, hll).
unsafe fn unite(slot: &mut Slot<Counted>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    let Some(bytes) = (unsafe { args::bytes(fcinfo, 1) }) else { return };
    match slot.get() {
        Some(state) => union_with(&mut state.sketch, bytes),
        None => {
            slot.get_or_place(|context| Counted { log2m: 0, sketch: read(bytes, context) });
        }
    }
}

fn union_with(sketch: &mut Sketch, bytes: &[u8]) {
    EncodedRef::parse(bytes)
        .and_then(|other| sketch.merge_encoded(&other, Interrupts))
        .or_raise(CORRUPTED, "invalid hll");
}

pg_function! {
    /// `hll_cardinality(hll) -> bigint`, strict.
    fn tidemark_hll_cardinality(fcinfo) {
        let estimate = estimate_encoded(args::bytes(fcinfo, 0)?, Interrupts).or_raise(CORRUPTED, "invalid hll");
        Some(Datum::from(estimate.round() as i64))
    }
}

pg_function! {
    /// `hll_union(hll, hll) -> hll`; a NULL is an identity, two of them give NULL.
    fn tidemark_hll_union(fcinfo) {
        let (a, b) = (args::bytes(fcinfo, 0), args::bytes(fcinfo, 1));
        let mut sketch = read(a.or(b)?, ContextAlloc::current());
        if let (Some(_), Some(b)) = (a, b) {
            union_with(&mut sketch, b);
        }
        Some(write(&sketch))
    }
}

pg_function! {
    /// `hll_empty([log2m integer]) -> hll`.
    fn tidemark_hll_empty(fcinfo) { write(&Sketch::new_in(config(fcinfo, 0), ContextAlloc::current())) }
}

pg_function! {
    /// `hll_standard_error(hll) -> double precision`, strict.
    fn tidemark_hll_standard_error(fcinfo) {
        let sketch = EncodedRef::parse(args::bytes(fcinfo, 0)?).or_raise(CORRUPTED, "invalid hll");
        let exact = matches!(sketch.encoding(), Encoding::Empty | Encoding::Explicit);
        Some(args::make_float(if exact { 0.0 } else { sketch.config().standard_error() }))
    }
}
